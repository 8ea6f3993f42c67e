"""Searched precision of nets that nobody here wrote, against their float files and against stock INT8 of ONNX Runtime.

The nets are those of `own_nets_in.py`. `edgemtl search NET` chooses the precision of each block, no task losing more
than 1 % of its agreement with the float net; ONNX Runtime's own `quantize_static` rounds the same file with the same
photos (QDQ, its defaults, after its own preprocessing). The file in float, the stock one, the searched engine and
edgemtl's own engine in float are then timed in turns in one run, all outputs wanted, and scored on photos that nothing
else has seen. Stock INT8 counts as a peer where every task of it agrees within 1 % too: elsewhere it answers another
question.

OpenVINO's engines are searched too, and timed beside its own engine in float.

Photos are the quarters of those that scikit-image ships. Finished nets are kept, and the engines that a search had
scored: `--minutes` bounds a piece of the run, and the same command goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from _cases import add_minutes, cases_of
from _common import Outcome, Row, main, say
from _own_nets import NETS, OwnFile, fetch
from _stock import by_onnxruntime
from numpy.typing import NDArray
from own_nets_in import own_session
from PIL import Image

from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.own import Agreement, OwnNet, Photos, expected_outputs, image_input, open_net, read_photos, resolve
from edgemtl.profiling import compare
from edgemtl.runtime import Outputs, load_image, open_engine, prepare_image
from edgemtl.tasks import map_outputs

Array = NDArray[Any]
QUICK = ("mtcnn-rnet", "mtcnn-onet")
TARGETS, ALLOWED = ("onnxruntime", "openvino"), 0.01
SAME = 1.03
"""Of two latencies of one run; smaller differences of one file's engines are timing noise."""
SPEEDUP, SPEEDUP_AIM = 1.3, 2.0
NAMES = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "color.png", "hubble_deep_field.jpg",
    "ihc.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


def photos(folder: Path, quick: bool) -> Path:
    """Quarters of the photos that scikit-image ships, as PNG files in a folder; quick: of the first three."""
    import skimage

    out = folder / ("quick" if quick else "photos")
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES[: 3 if quick else None]:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
            whole = picture.convert("RGB")
        width, height = (side // 2 for side in whole.size)
        for number, (left, top) in enumerate(((0, 0), (width, 0), (0, height), (width, height))):
            whole.crop((left, top, left + width, top + height)).save(out / f"{Path(name).stem}-{number}.png")
    return out


def stock_session(path: Path, net: OwnNet, images: Sequence[Array]) -> onnxruntime.InferenceSession | str:
    """Stock INT8 of a net's file for one image of its size; in words why ONNX Runtime's quantizer refuses it."""
    (image,) = own_session(path, net.size).get_inputs()
    try:
        rounded = by_onnxruntime(_of_size(path, image), [as_read(each, image.shape) for each in images])
        return onnxruntime.InferenceSession(rounded.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever its many passes raise: it is told
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _of_size(path: Path, image: Any) -> onnx.ModelProto:
    """The file with the sizes of its input as a session has them."""
    model = onnx.load(path)
    info = next(each for each in model.graph.input if each.name == image.name)
    for side, size in zip(info.type.tensor_type.shape.dim, image.shape, strict=True):
        side.dim_value = int(size)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


def as_read(image: Array, shape: Sequence[Any]) -> Array:
    """An image (1, 3, H, W) in the layout of an input of this shape."""
    return image if shape[1] == 3 else np.ascontiguousarray(image.transpose(0, 2, 3, 1))


def plain_call(session: onnxruntime.InferenceSession, net: OwnFile) -> Callable[[Array], Outputs]:
    """All outputs of a plain session for an image (1, 3, H, W), by task, with a batch of one."""
    (info,) = session.get_inputs()
    tensors = [tensor for own in net.outputs.values() for tensor in own.values()]

    def call(image: Array) -> Outputs:
        values = iter(session.run(tensors, {info.name: as_read(image, info.shape)}))
        given = {task: {name: next(values) for name in own} for task, own in net.outputs.items()}
        return map_outputs(lambda value: value if value.shape[:1] == (1,) else value[None], given)

    return call


def measured(name: str, target: str, path: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """Latencies and agreements of a net on a target; raises `UserError` where it is refused."""
    file, pictures = NETS[name], photos(folder, quick)
    net, run = open_net(str(path), file.size), folder / f"{name}-{target}"
    request = PrecisionRequest(net, file.declaration(), pictures, run, target=target, resume=True)
    result = search_precision(request)
    parts, resolved = read_photos(pictures), resolve(net, file.declaration())
    about = image_input(net, resolved)

    def read(paths: Sequence[Path]) -> list[Array]:
        return [prepare_image(load_image(each), net.size, about) for each in paths]

    with tempfile.TemporaryDirectory() as scratch:
        engines = {
            kind: _exported(net, file, target, Path(scratch) / kind, Rounding(precision, pictures))
            for kind, precision in (("float_engine", "float"), ("searched", str(run)))
        }
        with ExitStack() as stack:
            sessions = {kind: stack.enter_context(closing(open_engine(each))) for kind, each in engines.items()}
            calls = {kind: partial(each.run, tasks=list(file.outputs)) for kind, each in sessions.items()}
            calls |= {"float": plain_call(own_session(path, file.size), file)}
            stock = stock_session(path, net, read(parts.calibration)) if target == TARGETS[0] else "of another runtime"
            if not isinstance(stock, str):
                calls["stock"] = plain_call(stock, file)
            image = read(parts.test[:1])[0]
            timed = compare({key: partial(call, image) for key, call in calls.items()}, 3 if quick else 12)
            expect = partial(expected_outputs, net, resolved)
            agreements = {key: _agreement(call, resolved.tasks, read, parts, expect) for key, call in calls.items()}
    assert result.best is not None
    return {
        "precision": sorted(value for value in result.best.design.values()),
        "median_ms": {key: samples.median_ms for key, samples in timed.items()},
        "agreement": agreements,
        "stock_refused": stock if isinstance(stock, str) else None,
    }


def _exported(net: OwnNet, file: OwnFile, target: str, bundle: Path, rounding: Rounding) -> Path:
    """The folder of an exported engine."""
    export_own_net(net, file.declaration(), ExportRequest(target), bundle, rounding=rounding)
    return bundle / "engines" / target


def _agreement(
    call: Callable[[Array], Outputs],
    tasks: Sequence[Any],
    read: Callable[[Sequence[Path]], list[Array]],
    parts: Photos,
    expect: Callable[[Array], Outputs],
) -> dict[str, float]:
    """Agreement of each task with the float net on the photos that nothing else has seen."""
    agreement = Agreement(tasks)
    for path in parts.test:
        (image,) = read([path])
        agreement.update(image, map_outputs(np.copy, call(image)), expect(image))
    return agreement.compute()


def attempt(name: str, target: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The result of `measured`, or why a net is refused."""
    say(NETS[name].package)
    try:
        return measured(name, target, fetch(name, options.nets), folder, options.quick)
    except UserError as error:
        say(f"{name} is refused: {error}")
        return {"why": str(error)}


def _ratios(results: Mapping[str, Mapping[str, Any]], over: str) -> Iterator[float]:
    """Latency of each searched engine over that of another one which agrees as well."""
    for each in results.values():
        ms = each.get("median_ms", {})
        if over in ms and min(each["agreement"][over].values()) >= 1 - ALLOWED:
            yield ms["searched"] / ms[over]


def rows_of(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Row]:
    """Rows of what every net came to on each target."""
    taken = [each for of_target in results.values() for each in of_target.values() if "median_ms" in each]
    lost = [1 - min(each["agreement"]["searched"].values()) for each in taken]
    own, other = (results[target] for target in TARGETS)
    to_float, to_engine, to_stock = (list(_ratios(own, over)) for over in ("float", "float_engine", "stock"))
    to_other = list(_ratios(other, "float_engine"))
    return [
        Row("nets", len(own), "nets"),
        Row("refused", sum("why" in each for of_target in results.values() for each in of_target.values()), "engines"),
        Row("agreement_lost_at_most", max(lost, default=1.0), "of 1", ALLOWED),
        Row("slowest_over_float_engine", max(to_engine, default=float("inf")), "x", SAME),
        Row("slowest_over_float_file", max(to_float, default=float("inf")), "x", SAME),
        Row("speedup_over_float_file", _speedup(to_float), "x", SPEEDUP, SPEEDUP_AIM, lower_is_better=False),
        Row("stock_agrees_as_well", len(to_stock), "nets"),
        Row("slowest_over_stock", max(to_stock, default=0.0), "x", SAME),
        Row("openvino_slowest_over_float_engine", max(to_other, default=float("inf")), "x", SAME),
        Row("openvino_speedup_over_float_engine", _speedup(to_other), "x"),
    ]


def _speedup(ratios: Sequence[float]) -> float:
    """The median of how many times as fast."""
    return median([1 / ratio for ratio in ratios] or [0.0])


def run(options: argparse.Namespace) -> Outcome:
    """Search every net for both targets; quick: two nets."""
    cases = cases_of(options)
    folder = cases.own_folder(options.nets / "int8")

    def result(name: str, target: str) -> dict[str, Any]:
        return dict(cases.result(f"{name}, {target}", partial(attempt, name, target, folder, options)))

    names = QUICK if options.quick else tuple(NETS)
    results = {target: {name: result(name, target) for name in names} for target in TARGETS}
    return Outcome(rows_of(results), results)


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own options."""
    default = Path(__file__).resolve().parent.parent / "build" / "own_nets"
    parser.add_argument("--nets", type=Path, default=default, help="folder of downloaded nets and of what is done")
    add_minutes(parser)


if __name__ == "__main__":
    main(run, __doc__, add)
