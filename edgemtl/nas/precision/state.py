"""The state of a precision search: agreements that were measured, kept in the run's folder after each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.precision.candidates import Agreements
from edgemtl.nas.runs import check_free
from edgemtl.schema import Name, Strict, parse_document

__all__ = ["CONFIG_FILE", "Scored", "begin"]

CONFIG_FILE, SCORES_FILE = "config.json", "agreements.json"
SCHEMA, SCORES_SCHEMA = "edgemtl.precision-search/1", "edgemtl.agreements/1"
Agreed = Annotated[float, Field(le=1)]


class _Document(Strict):
    schema_: Literal["edgemtl.agreements/1"] = Field(alias="schema")
    agreements: Annotated[dict[str, dict[Name, Agreed]], Field(max_length=100_000)]
    sha256: str


def begin(run: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Make `run` the folder of a search of this `config`, or, with `resume`, check that it is.

    Raises `UserError` where it is anything else, or was begun with another configuration.
    """
    path, wanted = run / CONFIG_FILE, {"schema": SCHEMA, **config}
    if not resume or not path.is_file():
        check_free(run, CONFIG_FILE, "run")
        write_json(path, wanted)
        return
    stored = read_json(path, "run")
    if not isinstance(stored, dict):
        raise UserError(f"run {run} is damaged: choose another --out")
    if changed := sorted(key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key)):
        raise UserError(
            f"run {run} was started with another {', '.join(changed)}: resume it with the same, or choose another --out"
        )


@dataclass
class Scored:
    """Agreements by the name of a precision, measured once and kept in a run's folder."""

    run: Path
    agreements: dict[str, Agreements] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Path) -> Scored:
        """Those that a run's folder holds; raises `UserError` where they are damaged."""
        path = run / SCORES_FILE
        if not path.is_file():
            return cls(run)
        content = read_json(path, "agreements")
        document = parse_document(content, f"agreements {path}", _Document, SCORES_SCHEMA, "delete the file")
        check_seal(content, path, "agreements")
        return cls(run, dict(document.agreements))

    def get(self, name: str, measure: Callable[[], Agreements]) -> Agreements:
        """The agreement that is called so, measured where it is not known."""
        if name not in self.agreements:
            self.agreements[name] = dict(measure())
            kept = {key: dict(value) for key, value in self.agreements.items()}
            write_json(self.run / SCORES_FILE, sealed({"schema": SCORES_SCHEMA, "agreements": kept}))
        return self.agreements[name]
