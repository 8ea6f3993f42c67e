"""What pages are drawn with: HTML, SVG, a raster canvas, colours, charts."""
