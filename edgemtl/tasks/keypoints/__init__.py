"""Keypoints: the place of each of some named points."""
