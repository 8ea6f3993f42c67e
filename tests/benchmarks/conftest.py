from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgemtl.data import open_source
from edgemtl.nas.evaluation import Evaluator
from edgemtl.targets import find_target, measurer_of
from edgemtl.testing.landscape import space
from edgemtl.testing.world import write_data
from edgemtl.train import fresh_supernet

# Benchmarks are scripts beside each other, not a package: they find each other as Python does when one is run.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def tiny_evaluator(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """What scores and times the designs of the tiny space, with fresh weights, by real engines."""
    home = tmp_path_factory.mktemp("tiny")
    write_data(home / "photos")
    source, target = open_source(str(home / "photos"), (64, 64)), find_target("onnxruntime")
    supernet = fresh_supernet(space(home, source.tasks), 0)
    return Evaluator(source, target, measurer_of(target), [""], 1, supernet=supernet)
