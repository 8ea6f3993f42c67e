"""A kind of task that a package of its own brings: how many objects of each class are in an image, and where."""

from counting.kind import Counting

__all__ = ["KIND"]

KIND = Counting()
