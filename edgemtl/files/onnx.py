"""Untrusted ONNX files: regular ones of a bounded size, whose external weights lie next to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl.errors import UserError, reason_of
from edgemtl.files.disk import open_regular, read_bytes
from edgemtl.files.paths import inside

if TYPE_CHECKING:
    import onnx

__all__ = ["read_onnx"]

LIMIT_BYTES = 2**31
"""Limit of protobuf itself."""


def read_onnx(path: Path, what: str = "ONNX file", external_data: bool = False) -> onnx.ModelProto:
    """The model in an ONNX file; weights that lie in other files stay there, unless `external_data` asks for them.

    `what` names the file in errors. Raises `UserError`, one line, for a file that is missing, no regular one, too large
    or no ONNX model, and where it names a file of weights that lies outside its own folder or is no regular one.
    """
    import onnx

    content = read_bytes(path, what, LIMIT_BYTES)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf raises its own kinds, which differ between its implementations
        raise UserError(f"{what} {path} is no ONNX model: it was damaged or is another file") from error
    if not model.graph.node and not model.graph.output:
        raise UserError(f"{what} {path} is no ONNX model: it holds no graph")
    for location in sorted({*_locations(model.graph)}):
        open_regular(inside(path.parent, location, "folder of the ONNX file"), "weights of the ONNX file").close()
    if external_data:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # the checker's, the system's and onnx's own kinds
            reason = reason_of(error)
            raise UserError(
                f"{what} {path}: its files of weights cannot be read ({reason}): copy all of them"
            ) from error
    return model


def _locations(graph: onnx.GraphProto) -> Iterator[str]:
    """Files of weights that a graph and those inside it name."""
    tensors = [
        *graph.initializer,
        *(part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices)),
    ]
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _locations(inner)
    for tensor in tensors:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")
