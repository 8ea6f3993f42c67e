"""Common parts of edges and saliency: a probability for every pixel."""
