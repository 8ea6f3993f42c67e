"""How tests ask for a search, and a transformer that is small enough for them."""

from __future__ import annotations

from collections.abc import Callable

from edgemtl.nas.search import SearchRequest

__all__ = ["VIT", "Ask"]

Ask = Callable[..., SearchRequest]
VIT = """\
schema: edgemtl.space/1
family: vit
input: [64, 64]
vit:
  stem: [8, 8, 16]
  width: 16
  head_width: 8
  heads: [2]
  depth: [2]
  hidden: [16]
  experts: {every: 2, count: 4, hidden: 8, kept: [4], top_k: [2]}
  decoder: {width: [8], depth: [1]}
"""
"""A transformer with experts that is small enough to be pruned in a test."""
