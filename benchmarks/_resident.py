"""By how much this process grows when bundles are open, all their levels, and have run: `_resident.py BUNDLE…`.

It imports nothing that a board would not: what is free in a larger process would hide what engines take. The libraries
that engines need are loaded before the first look.
"""

from __future__ import annotations

import os
import sys
import tempfile  # noqa: F401 (as opening a level does)
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from safetensors import numpy  # noqa: F401 (as opening a level does)

from edgemtl.bundle import read_manifest
from edgemtl.runtime import Engine

RUNS = 3


def resident_bytes() -> int:
    """This process's resident set, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def warm_up(runtime: str) -> None:
    """Load a runtime's libraries and run a net of one operator."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    nothing = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "nothing", value[:1], value[1:])
    model = helper.make_model(nothing, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if runtime == "openvino":
        import openvino

        openvino.compile_model(openvino.Core().read_model(model.SerializeToString()), "CPU")(np.zeros(1, np.float32))
    else:
        ort.InferenceSession(model.SerializeToString()).run(None, {"a": np.zeros(1, np.float32)})


def grown(bundles: list[Path]) -> int:
    """Bytes that this process grows by when these bundles, and all their levels, are open and have run `RUNS` times.

    A runtime may plan its memory in the first run and take it in the second.
    """
    for bundle in bundles:
        for target in read_manifest(bundle).targets.values():
            warm_up(target.runtime)
    before, engines = resident_bytes(), []
    for bundle in bundles:
        engine = Engine(bundle)
        image = np.zeros((1, 3, engine.manifest.input.height, engine.manifest.input.width), np.float32)
        for level in engine.manifest.levels or (None,):
            if level is not None:
                engine.set_level(prefer=level.preference)
            for _ in range(RUNS):
                engine.run(image)
        engines.append(engine)
    after = resident_bytes()
    for engine in engines:
        engine.close()
    return after - before


if __name__ == "__main__":
    print(grown([Path(name) for name in sys.argv[1:]]))
