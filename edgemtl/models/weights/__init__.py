"""Weights in files: supernets, checkpoints of others, and what of them matches a net."""
