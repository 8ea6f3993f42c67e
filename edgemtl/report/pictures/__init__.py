"""Predictions as pictures: overlays, contact sheets, animations."""
