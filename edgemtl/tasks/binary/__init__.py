"""What edges and saliency share: a probability for every pixel."""
