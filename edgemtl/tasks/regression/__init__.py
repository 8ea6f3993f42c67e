"""Regression: numbers of the whole image."""
