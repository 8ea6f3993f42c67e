from __future__ import annotations

import pytest
import torch
from small import small_space

from edgemtl.spaces import Space


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A small space of three tasks."""
    return small_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Fresh weights are the same ones in every run."""
    torch.manual_seed(0)
