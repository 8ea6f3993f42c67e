"""The configuration of a run: what was asked for, so that it goes on only as it began; the file `config.json`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_serializer

from edgemtl.devices import Device
from edgemtl.errors import UserError
from edgemtl.files.disk import write_json
from edgemtl.files.paths import check_folder
from edgemtl.schema import Strict, read_document

__all__ = [
    "CONFIG_FILE",
    "RUN_SCHEMA",
    "RunConfig",
    "RunTask",
    "changed_fields",
    "difference_of",
    "in_words",
    "read_config",
    "write_config",
]

CONFIG_FILE = "config.json"
RUN_SCHEMA = "edgemtl.run/1"
_NAMED = ("space", "data", "size", "target", "strategy", "budgets", "floors", "seed")


class RunTask(Strict):
    """A task of a run, enough to declare it again."""

    name: str
    kind: str
    channels: int
    classes: tuple[str, ...]


class RunConfig(Strict):
    """The configuration of a run. Texts are as on the command line; sizes are (height, width).

    `fingerprint` is the whole space's, before its target restricts it; `precisions` are the options of each precision
    choice after that. `supernet_sha256` is None where the run learns its own weights, `threads` and `latency` (where
    candidates' come from) where nothing is timed on this machine. What one trade alone reads is kept apart: the
    settings of a search's strategy in `strategy_config`, the recipe that its finalists are trained by in `finetune`
    (None: they are not), those of a fine-tuning in `tuned`, those of a pruning in `pruned`.
    """

    schema_: Literal["edgemtl.run/1"] = Field(default="edgemtl.run/1", alias="schema")
    space: str
    fingerprint: str
    size: tuple[int, int]
    data: str
    data_fingerprint: str
    tasks: tuple[RunTask, ...]
    target: str
    device: Device
    strategy: str
    strategy_config: Mapping[str, JsonValue] = {}
    budgets: tuple[str, ...]
    floors: tuple[str, ...]
    preference: Mapping[str, Annotated[float, Field(ge=0)]]
    objectives: tuple[str, ...] = ()
    precisions: Mapping[str, tuple[str, ...]]
    seed: int
    supernet_sha256: str | None
    threads: int | None = None
    finetune: Mapping[str, JsonValue] | None = None
    latency: str | None = None
    tuned: Mapping[str, JsonValue] | None = None
    pruned: Mapping[str, JsonValue] | None = None

    @field_serializer("device")
    def _what_decides(self, device: Device) -> dict[str, Any]:
        return device.as_json()

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(mode="json", by_alias=True)


def read_config(run: Path) -> RunConfig:
    """The configuration of the run in a folder; `UserError` where it is no run, of another version, or damaged."""
    file = run / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"{run} is no run: it holds no {CONFIG_FILE}; give the folder that `edgemtl search` wrote")
    check_folder(run, "run")
    return read_document(file, "run", RunConfig, RUN_SCHEMA, "search again")


def write_config(run: Path, config: RunConfig) -> None:
    """Write the configuration: from here on the folder is a run."""
    write_json(run / CONFIG_FILE, config.as_json())


def changed_fields(stored: RunConfig, wanted: RunConfig) -> list[str]:
    """Names of what differs, sorted; of the strategy's own settings those that differ."""
    before, after = stored.as_json(), wanted.as_json()
    settings = before.pop("strategy_config"), after.pop("strategy_config")
    return sorted({*_changed(before, after), *_changed(*settings)})


def difference_of(stored: RunConfig, wanted: RunConfig, fields: Collection[str] = ()) -> str:
    """The difference of two configurations, in words; empty where they, or those `fields` of them, are the same.

    The fields that a user names come with their values, and alone where there are some: the rest follows from them.
    """
    if fields:
        rest = RunConfig.model_fields.keys() - {*fields}
        stored = stored.model_copy(update={name: getattr(wanted, name) for name in rest})
    return in_words(changed_fields(stored, wanted), stored.as_json(), wanted.as_json())


def in_words(changed: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The fields that changed, those that a user names with their values, and alone where there are some."""
    named = [
        f"{name} ({_shown(before.get(name))}, here {_shown(after.get(name))})" for name in _NAMED if name in changed
    ]
    return " and ".join(named) or ", ".join(changed)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, list):
        return str(value)
    return ("x" if isinstance(value[0], int) else " ").join(map(str, value)) if value else "none"


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}
