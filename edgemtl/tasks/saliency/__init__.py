"""Saliency: whether a pixel belongs to what draws the eye."""
