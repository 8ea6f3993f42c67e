"""The state of a search: agreements, scores and latencies that were measured, kept in the folder after each one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.json import check_schema
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.precision.candidates import Agreements
from edgemtl.nas.precision.floors import Metrics
from edgemtl.nas.runs import check_free
from edgemtl.runs import in_words
from edgemtl.schema import Name, Strict, parse_document

__all__ = ["CONFIG_FILE", "Scored", "begin", "check_terms", "difference_of", "shared_config"]

CONFIG_FILE, SCORES_FILE = "config.json", "agreements.json"
SCHEMA, SCORES_SCHEMA = "edgemtl.precision-search/1", "edgemtl.agreements/1"
_TERMS = (
    "schema",
    "strategy",
    "settings",
    "seed",
    "objectives",
    "budgets",
    "floors",
    "preference",
    "threads",
    "finetune",
)
Agreed = Annotated[float, Field(le=1)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Measured = TypeVar("Measured", bound=Mapping[str, Any])


class _Document(Strict):
    schema_: Literal["edgemtl.agreements/1"] = Field(alias="schema")
    agreements: Annotated[dict[str, dict[Name, Agreed]], Field(max_length=100_000)]
    latencies_ms: Annotated[dict[str, dict[str, Milliseconds]], Field(max_length=100_000)]
    scores: Annotated[dict[str, dict[Name, dict[Name, float]]], Field(max_length=100_000)] = Field(default_factory=dict)
    sha256: str


def check_terms(run: Path, terms: Mapping[str, Any], resume: bool) -> None:
    """Refuse a request whose `terms`, which are known before its net is opened, the folder `run` does not allow.

    Raises `UserError` where no search can begin there, or, with `resume`, one was begun on other terms.
    """
    if not _is_resumed(run, resume):
        check_free(run, CONFIG_FILE, "run")
        return
    _check_same(run, terms, _TERMS)


def begin(run: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Make `run` the folder of a search of this `config`, or, with `resume`, check that it is.

    Raises `UserError` where it is anything else, or was begun with another configuration.
    """
    if not _is_resumed(run, resume):
        check_free(run, CONFIG_FILE, "run")
        write_json(run / CONFIG_FILE, {"schema": SCHEMA, **config})
        return
    _check_same(run, config)


def shared_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a study keeps it that runs share: the net by its hash, as its file may be called otherwise."""
    rest = {name: value for name, value in config.items() if name != "net_sha256"}
    return {"schema": SCHEMA, **rest, "net": config["net_sha256"]}


def difference_of(stored: object, config: Mapping[str, Any], subject: str, remedy: str) -> str:
    """The difference of a stored configuration from another in words, those that a user names with their values.

    Empty where they are the same; `UserError`, with the `remedy`, where what is stored in `subject` is none.
    """
    check_schema(stored, subject, SCHEMA, remedy)
    assert isinstance(stored, dict)
    return in_words(_changed(stored, config), stored, config)


def _changed(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*stored, *wanted} if stored.get(name) != wanted.get(name))


def _is_resumed(run: Path, resume: bool) -> bool:
    return resume and (run / CONFIG_FILE).is_file()


def _check_same(run: Path, config: Mapping[str, Any], only: Collection[str] = ()) -> None:
    """`UserError` where a run was begun with another configuration, `only` these parts of it where some are named."""
    stored, wanted = read_json(run / CONFIG_FILE, "run"), {"schema": SCHEMA, **config}
    if not isinstance(stored, dict):
        raise UserError(f"run {run} is damaged: choose another --out")
    if changed := [name for name in _changed(stored, wanted) if not only or name in only]:
        raise UserError(
            f"run {run} was started with another {', '.join(changed)}: resume it with the same, or choose another --out"
        )


@dataclass
class Scored:
    """Figures by the name of a net and precision, measured once, kept in a folder.

    Agreements with the float net, latencies in ms by scope, and scores by labels where there are some. Who only reads
    them `writes` none of its own.
    """

    run: Path
    agreements: dict[str, Agreements] = field(default_factory=dict)
    latencies_ms: dict[str, Mapping[str, float]] = field(default_factory=dict)
    scores: dict[str, Metrics] = field(default_factory=dict)
    writes: bool = True

    @property
    def engines(self) -> int:
        """The number of engines that were scored."""
        return len({*self.agreements, *self.scores})

    @classmethod
    def of(cls, run: Path) -> Scored:
        """Those that a run's folder holds; raises `UserError` where they are damaged."""
        path = run / SCORES_FILE
        if not path.is_file():
            return cls(run)
        content = read_json(path, "agreements")
        document = parse_document(content, f"agreements {path}", _Document, SCORES_SCHEMA, "delete the file")
        check_seal(content, path, "agreements")
        return cls(run, dict(document.agreements), dict(document.latencies_ms), dict(document.scores))

    def agreement(self, name: str, measure: Callable[[], Agreements]) -> Agreements:
        """The agreement that is called so, measured where it is not known."""
        return self._get(self.agreements, name, measure)

    def latency_ms(self, name: str, measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """The latency that is called so, measured where it is not known."""
        return self._get(self.latencies_ms, name, measure)

    def score(self, name: str, measure: Callable[[], Metrics]) -> Metrics:
        """The scores by labels that are called so, measured where they are not known."""
        return self._get(self.scores, name, measure)

    def _get(self, values: dict[str, Measured], name: str, measure: Callable[[], Measured]) -> Measured:
        if name not in values:
            values[name] = measure()
            if not self.writes:
                return values[name]
            content = {"agreements": self.agreements, "latencies_ms": self.latencies_ms, "scores": self.scores}
            write_json(self.run / SCORES_FILE, sealed({"schema": SCORES_SCHEMA, **content}))
        return values[name]
