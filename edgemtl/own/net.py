"""A net of one's own, opened: one graph for one image of one size, and the net's own outputs to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.files.onnx import read_onnx
from edgemtl.own.fixing import FixedNet, Reference, check_changes, fix_sizes, observe_shapes
from edgemtl.own.folding import fold_constants, open_session, run_session, shape_of
from edgemtl.own.inputs import Constants, Layout
from edgemtl.own.refusals import check_operators
from edgemtl.own.wrapping import join_wrapped_pads

if TYPE_CHECKING:
    import onnx

__all__ = ["OwnNet", "is_own_net", "net_of_model", "open_net"]

Origin = Literal["onnx", "module"]


@dataclass(frozen=True)
class OwnNet:
    """A net that nobody here built.

    `model` reads one image, `input`, in the `layout` that it has there, of (H, W) `size` and three `channels`, or one
    where it is grey; constants are initializers, those that other inputs became among them (`constants`), and type and
    shape of every tensor are known. `outputs` are the sizes of its outputs, batch included, in order. `reference` takes
    images of three channels; a grey net's is their luminance. It is pickled as what `open_net` was `given`, as no
    session or module can be; a graph that was at hand is not.
    """

    name: str
    origin: Origin
    model: onnx.ModelProto
    input: str
    layout: Layout
    channels: int
    size: tuple[int, int]
    outputs: Mapping[str, tuple[int, ...]]
    reference: Reference
    constants: Constants
    given: tuple[str, tuple[int, int] | None, Constants | None] | None = None

    def __reduce__(self) -> tuple[Callable[..., OwnNet], tuple[object, ...]]:
        """The file or module to open, for another process."""
        if self.given is None:
            raise UserError(f"{self.name} is a graph that only this process has: write it to a file first")
        return open_net, self.given


def is_own_net(text: str) -> bool:
    """Whether this names an ONNX file, or `package.module:function`, and no folder."""
    path = Path(text)
    return not path.is_dir() and (path.suffix.lower() == ".onnx" or (":" in text and not path.exists()))


def open_net(text: str, size: tuple[int, int] | None = None, constants: Constants | None = None) -> OwnNet:
    """The net in an ONNX file, or the module that `package.module:function` returns, for images of `size` (H, W).

    A file of a fixed size needs none, and takes another where it runs on it; one of a batch is taken for one image
    where that gives the same. A module without a size is traced at 224x224. Inputs of a file beside the image take the
    values of `constants`, ones where that is None. Raises `UserError` where there is no such net, it reads anything but
    colour or grey images, the size or a constant does not fit, or two runs on one image differ,
    `UnsupportedError` for operators that no bundle can hold (`check_operators`), and
    `MissingDependencyError` where a module needs what is not installed.
    """
    path = Path(text)
    if path.suffix.lower() == ".onnx":
        fixed = fix_sizes(read_onnx(path, external_data=True), path.name, size, constants)
        return replace(_opened(path.name, fixed, None), given=(str(path.absolute()), size, constants))
    from edgemtl.own.torch_module import export_module

    model, size, reference = export_module(text, size)
    opened = _opened(text, fix_sizes(model, text, size, constants), reference)
    return replace(opened, given=(text, size, constants))


def net_of_model(model: onnx.ModelProto, name: str) -> OwnNet:
    """The net in an ONNX graph that is at hand, called `name`; raises as `open_net` does."""
    return _opened(name, fix_sizes(model, name, None, None), None)


def _opened(name: str, fixed: FixedNet, reference: Reference | None) -> OwnNet:
    """The net whose sizes are fixed; `reference` runs the module that it came from, if any."""
    folded = fold_constants(fixed.model)
    check_operators(folded.graph, name)
    check_changes(fixed, name)
    session = open_session(fixed.model.SerializeToString(), name)
    names = [info.name for info in session.get_outputs()]
    image = fixed.random_image()

    def run(pixels: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        return dict(zip(names, run_session(session, names, {fixed.input: fixed.as_read(pixels)}, name), strict=True))

    own = reference or run
    _check_repeats(own, image, name)
    known = join_wrapped_pads(observe_shapes(folded, fixed.input, fixed.as_read(image), name))
    sizes = {info.name: shape for info in known.graph.output if (shape := shape_of(info)) is not None}
    origin: Origin = "onnx" if reference is None else "module"
    about = (fixed.input, fixed.layout, fixed.channels, fixed.size)
    return OwnNet(name, origin, known, *about, sizes, own, fixed.constants)


def _check_repeats(run: Reference, image: NDArray[np.float32], name: str) -> None:
    first, second = run(image), run(image)
    for output, value in first.items():
        if value.dtype == object:
            raise UnsupportedError(f"{name} cannot be taken: output {output} holds text, not numbers")
        if not np.array_equal(value, second[output], equal_nan=value.dtype.kind == "f"):
            raise UserError(
                f"{name} cannot be taken: output {output} changes from call to call on one image: export it in "
                "evaluation mode, without dropout or random numbers"
            )
