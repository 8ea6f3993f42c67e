"""Tensors as a net gives them."""
