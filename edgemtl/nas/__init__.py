"""The search layer: spaces, designs, and the strategies that choose among them."""

from edgemtl.nas._space import Design, Space, load_space, space_names

__all__ = ["Design", "Space", "load_space", "space_names"]
