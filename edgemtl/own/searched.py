"""The choice of a search for a net of one's own, as `edgemtl export` reads it: precision, and the net that is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.paths import inside
from edgemtl.files.seals import check_seal, sealed
from edgemtl.models.quantization import Ranges
from edgemtl.own.declaration import Declaration, read_declaration, resolve
from edgemtl.own.net import OwnNet, open_net
from edgemtl.own.precision import OwnPrecision, net_digest
from edgemtl.own.reference import image_input
from edgemtl.own.renaming import task_model
from edgemtl.schema import Name, Strict, parse_document

__all__ = ["NET_FILE", "PRECISION_FILE", "TASKS_FILE", "read_precision", "searched_net", "write_precision"]

PRECISION_FILE = "precision.json"
NET_FILE, TASKS_FILE = "net.onnx", "tasks.yaml"
"""The files of a net that channels were removed of, and of its tasks."""
SCHEMA = "edgemtl.precision/1"
Limit = Annotated[float, Field(allow_inf_nan=False)]


class _Document(Strict):
    schema_: Literal["edgemtl.precision/1"] = Field(alias="schema")
    net_sha256: str
    pruned_from: str
    target: Name
    precision: Annotated[dict[Name, Name], Field(max_length=5000)]
    ranges: Annotated[dict[str, tuple[Limit, Limit]], Field(max_length=100_000)]
    sha256: str


def write_precision(run: Path, precision: OwnPrecision, net_sha256: str, target: str, pruned_from: str = "") -> None:
    """Write the precision of a net of this digest for a target into a run's folder, atomically.

    Where that is what is left of another net, `pruned_from` is the digest of the whole one.
    """
    ranges = {} if precision.ranges is None else {name: list(each) for name, each in precision.ranges.limits.items()}
    of = {"net_sha256": net_sha256, "pruned_from": pruned_from, "target": target}
    content = {"schema": SCHEMA, **of, "precision": dict(precision.values), "ranges": ranges}
    write_json(run / PRECISION_FILE, sealed(content))


def read_precision(run: Path, net_sha256: str) -> tuple[OwnPrecision, str]:
    """The precision in a run's folder, and the target that it was searched for.

    Raises `UserError` where there is none, where it is damaged, or of another net or other tasks than `net_sha256`.
    """
    document = _document(run)
    if document.net_sha256 != net_sha256:
        raise UserError(
            f"precision {run / PRECISION_FILE} was searched for another net, other tasks or another size: search again"
        )
    return OwnPrecision(document.precision, Ranges(document.ranges) if document.ranges else None), document.target


def searched_net(run: Path, net: OwnNet, declaration: Declaration) -> tuple[OwnNet, Declaration]:
    """The net that a run's precision is of, with its tasks: what the search left of the given one, or that itself.

    Raises `UserError` where there is no precision, or it is damaged.
    """
    document = _document(run)
    if not document.pruned_from or _digest(net, declaration) != document.pruned_from:
        return net, declaration
    left = read_declaration(inside(run, TASKS_FILE, "run"))
    return replace(open_net(str(inside(run, NET_FILE, "run"))), name=net.name), left


def _digest(net: OwnNet, declaration: Declaration) -> str:
    resolved = resolve(net, declaration)
    return net_digest(task_model(net, resolved)[0], image_input(net, resolved), resolved.tasks)


def _document(run: Path) -> _Document:
    path = run / PRECISION_FILE
    if not path.is_file():
        raise UserError(
            f"--precision {run} holds no {PRECISION_FILE}: give float, int8, or the folder of a finished "
            "`edgemtl search NET`"
        )
    content = read_json(path, "precision")
    document = parse_document(content, f"precision {path}", _Document, SCHEMA, "search again")
    check_seal(content, path, "precision")
    return document
