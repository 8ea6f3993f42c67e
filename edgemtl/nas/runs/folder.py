"""The folder of a run: what was asked, the study, the nets that were kept, and the result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save

from edgemtl.devices import Device
from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.files.claim import LOCK_FILE
from edgemtl.files.disk import check_folder, check_seal, read_json, sealed, sha256, within, write_atomic, write_json
from edgemtl.files.names import check_name
from edgemtl.models import MultiTaskNet, check_state, read_state
from edgemtl.models.quantization import Ranges
from edgemtl.nas.evaluation import Candidate
from edgemtl.schema import first_problem
from edgemtl.spaces import Design, Space, load_space
from edgemtl.targets import ExportTarget, find_target
from edgemtl.tasks import Task, make_task

__all__ = ["CONFIG_FILE", "RunFolder"]

CONFIG_FILE = "config.json"
DESIGN_FILE, WEIGHTS_FILE = "design.json", "weights.safetensors"
SCHEMA = "edgemtl.run/1"


_TEXTS = ("space", "fingerprint", "target", "data", "data_fingerprint", "strategy")
_LISTS = ("tasks", "size", "budgets", "floors")
_CONFIG_TYPES: Mapping[str, type] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(_LISTS, list),
    "seed": int,
    "threads": int,
    "preference": dict,
}


class _Config(dict[str, Any]):
    """A run's configuration; a key that it should have and lacks is damage of its file."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(f"run {self._path}: its {CONFIG_FILE} is damaged (KeyError: {key!r}): search again")


@dataclass(frozen=True)
class RunFolder:
    """`config.json`, `study.journal`, `designs/NAME/{design.json, weights.safetensors}` and `result.json`."""

    path: Path

    @property
    def journal(self) -> Path:
        """The study's file, where it is not kept elsewhere."""
        return self.path / "study.journal"

    def check(self, config: Mapping[str, Any], resume: bool) -> None:
        """`UserError` where a run of `config` cannot begin in this folder, or, with `resume`, not go on there."""
        check_name(self.path.absolute().name, "run folder")
        if not (self.path / CONFIG_FILE).is_file():
            own = {self.journal, self.path / LOCK_FILE}
            if self.path.exists() and not (self.path.is_dir() and {*self.path.iterdir()} <= own):
                raise UserError(f"{self.path} is not empty and holds no run: choose another --out")
            return
        check_folder(self.path, "run")
        if not resume:
            raise UserError(f"run {self.path} exists: go on with --resume, or choose another --out")
        stored, wanted = self.config(), _as_stored(config)
        changed = sorted(key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key))
        if changed:
            raise UserError(
                f"run {self.path} was started with another {', '.join(changed)}: "
                "resume it with the same, or choose another --out"
            )

    def create(self, config: Mapping[str, Any]) -> None:
        """Write the configuration: from here on the folder is a run."""
        write_json(self.path / CONFIG_FILE, _as_stored(config))

    def config(self) -> dict[str, Any]:
        """The configuration; `UserError` where the folder is no run or of another version."""
        file = self.path / CONFIG_FILE
        if not file.is_file():
            raise UserError(
                f"{self.path} is no run: it holds no {CONFIG_FILE}; give the folder that `edgemtl search` wrote"
            )
        check_folder(self.path, "run")
        config = read_json(file, "run")
        if not isinstance(config, dict) or config.get("schema") != SCHEMA:
            found = config.get("schema") if isinstance(config, dict) else None
            raise UserError(f"run {self.path} has schema {brief(found)}; this version reads {SCHEMA}")
        for key, kind in _CONFIG_TYPES.items():
            if key in config and not isinstance(config[key], kind):
                raise UserError(
                    f"run {self.path}: its {CONFIG_FILE} is damaged ({key} is {brief(config[key])}): search again"
                )
        return _Config(self.path, config)

    def device(self) -> Device:
        """The device that the run was made for, as it was then; `UserError` where the run does not say."""
        try:
            return Device.model_validate(self.config().get("device")).reached_now()
        except ValidationError as error:
            raise UserError(
                f"run {self.path} does not say for what device it was made ({first_problem(error)}): search again"
            ) from error

    def target(self, device: Device | None = None) -> ExportTarget:
        """The target of the run, for its own device or another."""
        name = self.config().get("target")
        if not isinstance(name, str):
            raise UserError(f"run {self.path}: its {CONFIG_FILE} is damaged (target {brief(name)}): search again")
        return find_target(name, device or self.device())

    def space(self, device: Device | None = None) -> Space:
        """The space of the run, restricted to what its target honours on its own device or another."""
        config = self.config()
        try:
            tasks = [make_task(t["name"], t["kind"], t["channels"], t["classes"]) for t in config["tasks"]]
            height, width = config["size"]
            space = load_space(config["space"], tasks, (height, width))
            fingerprint = config["fingerprint"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"run {self.path}: its {CONFIG_FILE} is damaged ({type(error).__name__}: {error}): search again"
            ) from error
        if space.fingerprint != fingerprint:
            raise UserError(f"space {config['space']!r} has changed since run {self.path} was made: search again")
        return space.for_target(self.target(device).traits)

    def save(self, name: str, candidate: Candidate) -> None:
        """Keep a net, its design and its ranges, with the hashes that `load` verifies."""
        folder = self.path / "designs" / name
        tensors = {key: tensor.contiguous() for key, tensor in candidate.net.state_dict().items()}
        ranges = None if candidate.ranges is None else {k: list(v) for k, v in candidate.ranges.limits.items()}
        weights = save(tensors, {"key": candidate.design.key})
        write_atomic(folder / WEIGHTS_FILE, weights)
        design = {"design": dict(candidate.design), "pruned": dict(candidate.design.pruned), "ranges": ranges}
        digest = hashlib.sha256(weights).hexdigest()
        write_json(
            folder / DESIGN_FILE,
            sealed({"schema": SCHEMA, **design, "weights_sha256": digest, "weights_bytes": len(weights)}),
        )

    def names(self) -> list[str]:
        """Names of the kept designs."""
        folder = self.path / "designs"
        return sorted(path.parent.name for path in folder.glob(f"*/{DESIGN_FILE}")) if folder.is_dir() else []

    def keep(self, names: Collection[str]) -> None:
        """Remove designs of other names, which an interrupted search kept before, and nothing that lies beside them."""
        for name in set(self.names()) - set(names):
            folder = self.path / "designs" / name
            if within(self.path, folder / DESIGN_FILE):
                for file in (DESIGN_FILE, WEIGHTS_FILE):
                    (folder / file).unlink(missing_ok=True)
                if not any(folder.iterdir()):
                    folder.rmdir()

    def load(self, name: str = "best") -> Candidate:
        """A kept net, once its hashes were verified; raises `UserError` for an unknown name or changed files."""
        folder = self.path / "designs" / name
        space = self.space()
        if name not in self.names():
            raise unknown_name(f"design in run {self.path}:", name, self.names())
        content = read_json(folder / DESIGN_FILE, "design")
        weights = folder / WEIGHTS_FILE
        try:
            digest, size_bytes = content["weights_sha256"], content["weights_bytes"]
            pruned = {str(name): int(count) for name, count in content.get("pruned", {}).items()}
            design, ranges = space.design(content["design"], pruned.items()), _ranges(content["ranges"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"design {folder / 'design.json'} is damaged ({error}): search again") from error
        check_seal(content, folder / DESIGN_FILE, "design")
        if (weights.exists() and weights.stat().st_size != size_bytes) or sha256(weights) != digest:
            raise UserError(f"weights {weights} were changed or cut off: their SHA-256 is another; search again")
        return Candidate(design, _filled(MultiTaskNet(design.plan, space.tasks), weights, design), ranges)


def _ranges(found: Mapping[str, Sequence[float]] | None) -> Ranges | None:
    if found is None:
        return None
    limits = {name: (float(low), float(high)) for name, (low, high) in found.items()}
    for name, (low, high) in limits.items():
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"the range of {name} is {low} to {high}")
    return Ranges(limits)


def _as_stored(config: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps({"schema": SCHEMA, **config}))


def task_json(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Tasks as JSON, enough to declare them again."""
    return [{"name": t.name, "kind": t.kind, "channels": t.channels, "classes": list(t.classes)} for t in tasks]


def _filled(net: MultiTaskNet, path: Path, design: Design) -> MultiTaskNet:
    state, metadata = read_state(path, "weights")
    if metadata.get("key") != design.key:
        raise UserError(f"weights {path} belong to another design: search again")
    check_state(state, net.state_dict(), path, "weights")
    net.load_state_dict(state)
    return net.eval()
