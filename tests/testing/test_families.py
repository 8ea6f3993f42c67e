from __future__ import annotations

import pytest
from grid import GRID
from small import SMALL
from small_world import VIT

from edgemtl.spaces import Space, load_space
from edgemtl.tasks import make_task
from edgemtl.testing import FamilyConformance

TASKS = (make_task("semseg", "segmentation", 3), make_task("depth", "depth"), make_task("kind", "classification", 4))


def space_of(factory: pytest.TempPathFactory, text: str) -> Space:
    path = factory.mktemp("space") / "small.yaml"
    path.write_text(text)
    return load_space(str(path), TASKS)


class TestCnn(FamilyConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls, tmp_path_factory: pytest.TempPathFactory) -> Space:
        return space_of(tmp_path_factory, SMALL)


class TestGrid(FamilyConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls, tmp_path_factory: pytest.TempPathFactory) -> Space:
        return space_of(tmp_path_factory, GRID)


class TestVit(FamilyConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls, tmp_path_factory: pytest.TempPathFactory) -> Space:
        text = VIT.replace("heads: [2]", "heads: [1, 2]").replace("depth: [2]", "depth: [1, 2, 3]", 1)
        text = text.replace("kept: [4]", "kept: [2, 4]").replace("top_k: [2]", "top_k: [1, 2]")
        return space_of(tmp_path_factory, text)
