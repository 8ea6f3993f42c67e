"""A trained torch module, by PyTorch's own exporter (`torch.export`, `torch.onnx`), as an ONNX graph."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.errors import MissingDependencyError, UnsupportedError, UserError, one_line, reason_of
from edgemtl.graphs import rename_tensors
from edgemtl.own.inputs import GREY
from edgemtl.own.translations import translations
from edgemtl.plugins import load_user_function

if TYPE_CHECKING:
    import onnx

    from edgemtl.own.fixing import Reference

__all__ = ["SIZE", "Flatten", "export_module", "flat_outputs", "luminance", "module_as_onnx"]

Flatten = Callable[[Any], Mapping[str, Tensor]]
"""From what a module returns to its tensors by their names in a declaration."""

SIZE = (224, 224)
"""Height and width of the image that a module is traced with where none is given."""
_OPSET = 18
_OUTPUT = "output of the module: "
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_OPERATOR = re.compile(r"op='([\w.]+)'")
_QUANTIZED = re.compile(r"torch\.ao\.(nn\.(.*\.)?(quantized|qat)|quantization\.fake_quantize)\.|torchao\.")
"""Modules whose layers compute on integers, or as if they did."""
_LOGGERS = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export")


def export_module(spec: str, size: tuple[int, int] | None) -> tuple[onnx.ModelProto, tuple[int, int], Reference]:
    """The module that the function `package.module:function` returns, for one image of `size` (H, W).

    Gives the ONNX model, the size, and a function that runs the module itself. Its outputs are called after what
    `forward` returns: keys of a dict, fields of a dataclass, else `output_0` and so on; inner ones behind a dot. One
    that takes an image of one channel alone is grey: the function gives it the luminance of three. Raises
    `UserError` where the function is none, returns no module, or the module fails on an image; `UnsupportedError` with
    the operator and its line of code for what PyTorch cannot export, and for TorchScript and what is quantized.
    """
    build = load_user_function(spec)
    try:
        made = build()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UserError(f"{spec} failed: {one_line(error)}; --debug shows where") from error
    module = made[0] if isinstance(made, tuple) and len(made) == 2 else made  # with dimensions, which pruning reads
    if not isinstance(module, nn.Module):
        raise UserError(f"{spec} returns a {type(module).__name__}, not a torch.nn.Module: return the trained module")
    _check_layers(module, spec)
    size = size or SIZE
    flat = _Flat(module.eval().cpu().float(), spec)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    image = image[:, :1] if flat.reads_grey(image) else image
    names = flat.names(image)

    def run(pixels: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        given = torch.from_numpy(pixels)
        read = luminance(given) if image.shape[1] == 1 < given.shape[1] else given
        with torch.no_grad():
            return dict(zip(names, (value.numpy() for value in flat(read)), strict=True))

    with _quiet():
        return _exported(flat, image, names, spec), size, run


def luminance(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) as a grey net reads them, (N, 1, H, W)."""
    return (images * torch.tensor(GREY).view(1, -1, 1, 1)).sum(1, keepdim=True)


def module_as_onnx(
    module: nn.Module, flatten: Flatten, size: tuple[int, int], name: str, channels: int = 3
) -> onnx.ModelProto:
    """A module's ONNX file for one image of `size` (H, W) and channels, its outputs called as `flatten` names them.

    Raises `UnsupportedError`, which calls the module `name`, for what PyTorch cannot export.
    """
    image = torch.zeros(1, channels, *size)
    with torch.no_grad():
        names = list(flatten(module(image)))
    with _quiet():
        return _exported(_Named(module.eval(), flatten), image, names, name)


def _check_layers(module: nn.Module, spec: str) -> None:
    """`UnsupportedError` for a module that PyTorch's exporter cannot read, whatever it is traced with."""
    for layer in module.modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UnsupportedError(
                f"{spec} cannot be taken: it is TorchScript ({layer.original_name}), which torch.export does not read: "
                "return the module that was traced or scripted, with its weights"
            )
        if _QUANTIZED.match(f"{type(layer).__module__}."):
            raise UnsupportedError(
                f"{spec} cannot be taken: its {type(layer).__name__} rounds values already: the net is quantized, give "
                "it as it was before"
            )


class _Named(nn.Module):
    """A module whose outputs are a tuple of tensors, in the order in which `flatten` names them."""

    def __init__(self, module: nn.Module, flatten: Flatten) -> None:
        super().__init__()
        self.module, self._flatten = module, flatten

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) to every tensor of what the module returns."""
        return tuple(self._flatten(self.module(image)).values())


class _Flat(nn.Module):
    """A module whose outputs are a tuple of tensors."""

    def __init__(self, module: nn.Module, spec: str) -> None:
        super().__init__()
        self.module, self._spec = module, spec

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) to every tensor of what the module returns, in order."""
        return tuple(value for _, value in _flatten(self.module(image), ""))

    def reads_grey(self, image: Tensor) -> bool:
        """Whether the module fails on an image of three channels, and not on one of them."""
        return not self._runs(image) and self._runs(image[:, :1])

    def _runs(self, image: Tensor) -> bool:
        try:
            with torch.no_grad():
                self.module(image)
        except Exception:  # the user's code may raise anything
            return False
        return True

    def names(self, image: Tensor) -> list[str]:
        """Names of those tensors; `UserError` where the module fails, or returns what is none."""
        try:
            with torch.no_grad():
                outputs = list(_flatten(self.module(image), ""))
        except Exception as error:  # the user's code may raise anything
            shape = "x".join(map(str, image.shape))
            raise UserError(
                f"{self._spec} fails on an image of shape {shape} ({one_line(error)}): give the size that it takes by "
                "--size, or return a module that takes one image alone, in RGB or grey"
            ) from error
        if not outputs:
            raise UserError(f"{self._spec} returns no tensor: a dict, a tuple or a dataclass of tensors is wanted")
        for name, value in outputs:
            if not isinstance(value, Tensor):
                raise UserError(
                    f"{self._spec} returns a {type(value).__name__} as {name}: tensors alone are wanted, drop it"
                )
        return [name for name, _ in outputs]


def flat_outputs(value: Any) -> dict[str, Any]:
    """Every tensor of what a module returns, by the name that its ONNX file has for it."""
    return dict(_flatten(value, ""))


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each tensor of nested dicts, sequences and dataclasses, by a name; None is left out."""
    if value is None:
        return
    if isinstance(value, Tensor | str | bytes) or not (_is_record(value) or isinstance(value, Mapping | Sequence)):
        yield name or "output", value
        return
    for key, inner in _parts(value):
        yield from _flatten(inner, f"{name}.{key}" if name else key)


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if _is_record(value):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    elif isinstance(value, Mapping):
        yield from ((str(key).replace(".", "_"), inner) for key, inner in value.items())
    elif names := getattr(value, "_fields", None):
        yield from zip(names, value, strict=True)
    else:
        yield from ((f"output_{number}", inner) for number, inner in enumerate(value))


def _exported(flat: nn.Module, image: Tensor, names: Sequence[str], spec: str) -> onnx.ModelProto:
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it, and says so in many lines)
    except ImportError as error:
        raise MissingDependencyError("onnxscript", "modules", "exporting a torch module") from error
    try:
        program = torch.export.export(flat, (image,), strict=False)
    except Exception as error:  # PyTorch's own kinds, and whatever the user's code raises while it is traced
        raise UnsupportedError(f"{spec} cannot be exported: {_control(error)}") from error
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=_OPSET,
            output_names=[f"{_OUTPUT}{name}" for name in names],
            input_names=["image"],
            custom_translation_table=translations(),
            verbose=False,
        )
    except Exception as error:  # PyTorch's own kinds
        raise UnsupportedError(f"{spec} cannot be exported: {_operator(error, program)}") from error
    assert made is not None
    return _with_outputs(made.model_proto, names)


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with its outputs called so; a tensor of the exporter's own that has such a name gives way.

    Where each operator was written, in whose files and lines, does not belong to the net.
    """
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph, model):
        del part.metadata_props[:]
    rename_tensors(model.graph, {name: f"module.{name}" for name in names})
    rename_tensors(model.graph, {f"{_OUTPUT}{name}": name for name in names})
    return model


def _control(error: Exception) -> str:
    """The line of the user's code where tracing ended, and why."""
    where = _code_line(str(error)) or _traced_line(error)
    if "data-dependent" in str(error) or type(error).__name__.startswith("GuardOnDataDependent"):
        return f"control flow on values{where}: every image must run the same operators, write it without the condition"
    return f"{one_line(error)}{where}: write that line with operators that torch.export knows"


def _operator(error: Exception, program: torch.export.ExportedProgram) -> str:
    """The operator that has no ONNX counterpart, and the line of code that calls it; or why a translation refuses."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnsupportedError):  # of a translation
            return str(cause)
        texts.append(str(cause))
        cause = cause.__cause__
    match = _OPERATOR.search(" ".join(texts))
    if match is None:
        return f"{reason_of(error)}: write that part with other operators"
    nodes = program.run_decompositions().graph.nodes  # the exporter's own names of operators
    stack = next((str(node.meta.get("stack_trace", "")) for node in nodes if str(node.target).startswith(match[1])), "")
    return f"operator {match[1]} has no counterpart in ONNX{_code_line(stack)}: write that line with other operators"


def _code_line(text: str) -> str:
    """The last line of code that a text names outside of PyTorch."""
    inside = str(Path(torch.__file__).parent)
    frames = [(file, line) for file, line in _FRAME.findall(text) if not file.startswith(inside)]
    frames = [(file, line) for file, line in frames if not file.startswith(str(Path(__file__)))]
    return f" ({Path(frames[-1][0]).name}, line {frames[-1][1]})" if frames else ""


def _traced_line(error: BaseException) -> str:
    """The same, of an exception's own traceback."""
    import traceback

    return _code_line("".join(traceback.format_tb(error.__traceback__)))


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter logs and warns of what is no concern of its user."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
