"""Drawing tools for pages: HTML, SVG, a raster canvas, colours, charts."""
