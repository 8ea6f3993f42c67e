"""Keypoints: the position of each of some named points."""
