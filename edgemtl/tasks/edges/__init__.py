"""Edges: whether a contour passes through a pixel."""
