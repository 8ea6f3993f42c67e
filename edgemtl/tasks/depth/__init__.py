"""Depth: metres along the camera's axis for every pixel."""
