"""The precision that a search chose for a net of one's own, with its ranges, as `edgemtl export` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.models.quantization import Ranges
from edgemtl.own.precision import OwnPrecision
from edgemtl.schema import Name, Strict, parse_document

__all__ = ["PRECISION_FILE", "read_precision", "write_precision"]

PRECISION_FILE = "precision.json"
SCHEMA = "edgemtl.precision/1"
Limit = Annotated[float, Field(allow_inf_nan=False)]


class _Document(Strict):
    schema_: Literal["edgemtl.precision/1"] = Field(alias="schema")
    net_sha256: str
    target: Name
    precision: Annotated[dict[Name, Name], Field(max_length=5000)]
    ranges: Annotated[dict[str, tuple[Limit, Limit]], Field(max_length=100_000)]
    sha256: str


def write_precision(run: Path, precision: OwnPrecision, net_sha256: str, target: str) -> None:
    """Write the precision of a net of this digest for a target into a run's folder, atomically."""
    ranges = {} if precision.ranges is None else {name: list(each) for name, each in precision.ranges.limits.items()}
    content = {"schema": SCHEMA, "net_sha256": net_sha256, "target": target, "precision": dict(precision.values)}
    write_json(run / PRECISION_FILE, sealed({**content, "ranges": ranges}))


def read_precision(run: Path, net_sha256: str) -> tuple[OwnPrecision, str]:
    """The precision in a run's folder, and the target that it was searched for.

    Raises `UserError` where there is none, where it is damaged, or of another net or other tasks than `net_sha256`.
    """
    path = run / PRECISION_FILE
    if not path.is_file():
        raise UserError(
            f"--precision {run} holds no {PRECISION_FILE}: give float, int8, or the folder of a finished "
            "`edgemtl search NET`"
        )
    content = read_json(path, "precision")
    document = parse_document(content, f"precision {path}", _Document, SCHEMA, "search again")
    check_seal(content, path, "precision")
    if document.net_sha256 != net_sha256:
        raise UserError(f"precision {path} was searched for another net, other tasks or another size: search again")
    return OwnPrecision(document.precision, Ranges(document.ranges) if document.ranges else None), document.target
