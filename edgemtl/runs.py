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
    "difference_of",
    "in_words",
    "read_config",
    "same_data",
    "write_config",
]

CONFIG_FILE = "config.json"
RUN_SCHEMA = "edgemtl.run/1"
_NAMED = (
    "space",
    "data",
    "size",
    "target",
    "device",
    "strategy",
    "budgets",
    "floors",
    "preference",
    "objectives",
    "finetune",
    "seed",
    "threads",
    "latency",
)
"""Fields that a user names."""
_FOLLOWING = {
    "data_fingerprint": "content of the data set",
    "fingerprint": "content of the space",
    "net": "net",
    "precisions": "precisions",
    "supernet_sha256": "supernet",
    "tasks": "tasks",
}
"""Fields that follow from those, or from files, in words."""


class RunTask(Strict):
    """A task of a run, enough to declare it again."""

    name: str
    kind: str
    channels: int
    classes: tuple[str, ...]


class RunConfig(Strict):
    """The configuration of a run. Texts are as on the command line; sizes are (height, width).

    `fingerprint` is the whole space's, before its target restricts it; `precisions` are the options of each precision
    choice after that. `supernet_sha256` is None where the run learns its own weights, `supernet` where their file was
    not named, `threads` and `latency` (where candidates' come from) where nothing is timed on this machine. What one
    trade alone reads is kept apart: the settings of a search's strategy in `strategy_config`, the recipe that its
    finalists are trained by in `finetune` (None: they are not), those of a fine-tuning in `tuned`, those of a pruning
    in `pruned`.
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
    supernet: str | None = None
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


def _changed_fields(stored: RunConfig, wanted: RunConfig) -> list[str]:
    """Names of what differs, sorted; of the strategy's own settings those that differ.

    It is no matter where weights lie, which path to it a data set is named by, nor whether a training computes in BF16,
    which no user names.
    """
    before, after = stored.as_json(), wanted.as_json()
    for recipe in (before["finetune"], after["finetune"]):
        (recipe or {}).pop("bf16", None)
    settings = before.pop("strategy_config"), after.pop("strategy_config")
    alike = {"supernet", "data"} if same_data(stored.data, wanted.data) else {"supernet"}
    return sorted({*_changed(before, after), *_changed(*settings)} - alike)


def same_data(one: str, other: str) -> bool:
    """Whether two names are of one data set: the same one, or paths to one file or folder."""
    return Path(one).resolve() == Path(other).resolve()


def difference_of(stored: RunConfig, wanted: RunConfig, fields: Collection[str] = ()) -> str:
    """The difference of two configurations, in words; empty where they, or those `fields` of them, are the same."""
    if fields:
        rest = RunConfig.model_fields.keys() - {*fields}
        stored = stored.model_copy(update={name: getattr(wanted, name) for name in rest})
    before, after = ({**each.strategy_config, **each.as_json()} for each in (stored, wanted))
    return in_words(_changed_fields(stored, wanted), before, after)


def in_words(changed: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The fields that changed, with their values; what follows from those that a user names is left out beside them."""
    named = [name for name in _NAMED if name in changed]
    others = [name for name in changed if name not in named and not (named and name in _FOLLOWING)]
    return " and ".join(_with_values(name, before.get(name), after.get(name)) for name in (*named, *others))


def _with_values(name: str, before: Any, after: Any) -> str:
    if name in _FOLLOWING:
        return _FOLLOWING[name]
    shown = _shown(before), _shown(after)
    return f"{name} ({shown[0]}, here {shown[1]})" if shown[0] != shown[1] else name


def _shown(value: Any) -> str:
    """A value as a person would give it."""
    if value is None or value in ([], {}, ""):
        return "none"
    if isinstance(value, dict):
        return str(value.get("name") or _pairs(value))
    if not isinstance(value, list):
        return str(value)
    return ("x" if isinstance(value[0], int) else " ").join(map(str, value))


def _pairs(values: Mapping[str, Any]) -> str:
    """`depth=2,semseg=1`; of a recipe, which has many numbers, its steps and processes."""
    own = {name: value for name, value in values.items() if "steps" not in values or name in ("steps", "processes")}
    texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in own.values())
    return ",".join(map("=".join, zip(own, texts, strict=True)))


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}
