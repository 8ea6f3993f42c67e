"""The configuration of a run, for tests that write a run's folder themselves."""

from __future__ import annotations

from edgemtl.devices import load_device
from edgemtl.nas.runs import run_tasks
from edgemtl.runs import RunConfig
from edgemtl.spaces import Space
from edgemtl.testing.world import TASKS


def config_of(space: Space) -> RunConfig:
    """The configuration of a search in the tiny space, on ONNX Runtime of this machine."""
    return RunConfig(
        space="tiny",
        fingerprint=space.fingerprint,
        size=space.size,
        data="photos",
        data_fingerprint="0",
        tasks=run_tasks(TASKS),
        target="onnxruntime",
        device=load_device("host"),
        strategy="linas",
        budgets=(),
        floors=(),
        preference={"depth": 1.0, "kind": 1.0},
        precisions={},
        seed=0,
        supernet_sha256=None,
    )
