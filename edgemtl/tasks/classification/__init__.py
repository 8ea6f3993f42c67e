"""Classification: the class of the whole image."""
