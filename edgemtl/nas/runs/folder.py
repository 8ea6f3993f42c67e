"""The folder of a run: what was asked, the study, the nets that were kept, and the result."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from edgemtl.data import Source, open_source
from edgemtl.devices import Device, reached_now
from edgemtl.errors import UserError, unknown_name
from edgemtl.files.claim import LOCK_FILE
from edgemtl.files.disk import read_json, write_atomic, write_json
from edgemtl.files.names import check_name
from edgemtl.files.paths import check_folder, within
from edgemtl.files.seals import check_seal, sealed, sha256
from edgemtl.models import MultiTaskNet, check_state, read_state
from edgemtl.models.quantization import Ranges
from edgemtl.nas.evaluation import Candidate
from edgemtl.runs import CONFIG_FILE, RUN_SCHEMA, RunConfig, RunTask, difference_of, read_config, write_config
from edgemtl.spaces import Design, Space, load_space
from edgemtl.targets import ExportTarget, find_target, within_budgets
from edgemtl.tasks import Task, make_task

__all__ = ["RunFolder", "check_free", "run_tasks"]

DESIGN_FILE, WEIGHTS_FILE = "design.json", "weights.safetensors"


def check_free(folder: Path, marker: str, what: str, own: Iterable[Path] = ()) -> None:
    """`UserError` where a folder cannot become a `what` ("run"), which the file `marker` makes it.

    It may hold nothing but the lock of who asks, and the files `own`.
    """
    check_name(folder.absolute().name, f"{what} folder")
    if (folder / marker).is_file():
        check_folder(folder, what)
        raise UserError(f"{what} {folder} exists: go on with --resume, or choose another --out")
    if folder.exists() and not (folder.is_dir() and {*folder.iterdir()} <= {folder / LOCK_FILE, *own}):
        raise UserError(f"{folder} is not empty and holds no {what}: choose another --out")


@dataclass(frozen=True)
class RunFolder:
    """`config.json`, `study.journal`, `designs/NAME/{design.json, weights.safetensors}` and `result.json`."""

    path: Path

    @property
    def journal(self) -> Path:
        """The study's file, where it is not kept elsewhere."""
        return self.path / "study.journal"

    def check_free(self) -> None:
        """`UserError` where no new run can begin in this folder; a study that was just begun is no obstacle."""
        check_free(self.path, CONFIG_FILE, "run", [self.journal])

    def check(self, config: RunConfig, resume: bool) -> None:
        """`UserError` where a run of `config` cannot begin in this folder, or, with `resume`, not go on there."""
        if not resume or not (self.path / CONFIG_FILE).is_file():
            self.check_free()
        elif difference := difference_of(self.config(), config):
            raise UserError(
                f"run {self.path} was started with another {difference}: "
                "resume it with the same, or choose another --out"
            )

    def create(self, config: RunConfig) -> None:
        """Write the configuration: from here on the folder is a run."""
        write_config(self.path, config)

    def config(self) -> RunConfig:
        """The configuration; `UserError` where the folder is no run, of another version, or damaged."""
        return read_config(self.path)

    def device(self) -> Device:
        """The device that the run was made for, as it was then."""
        return reached_now(self.config().device)

    def source(self) -> Source:
        """The data set of the run; `UserError` where it has changed since."""
        config = self.config()
        source = open_source(config.data, config.size)
        if source.fingerprint != config.data_fingerprint:
            raise UserError(f"data {config.data!r} has changed since run {self.path} was made: search again")
        return source

    def target(self, device: Device | None = None) -> ExportTarget:
        """The target of the run, for its own device or another, within the run's budgets."""
        config = self.config()
        return within_budgets(find_target(config.target, device or self.device()), config.budgets)

    def space(self, device: Device | None = None) -> Space:
        """The space of the run, restricted to what its target honours on its own device or another."""
        config = self.config()
        tasks = [make_task(task.name, task.kind, task.channels, task.classes) for task in config.tasks]
        space = load_space(config.space, tasks, config.size)
        if space.fingerprint != config.fingerprint:
            raise UserError(f"space {config.space!r} has changed since run {self.path} was made: search again")
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
            sealed({"schema": RUN_SCHEMA, **design, "weights_sha256": digest, "weights_bytes": len(weights)}),
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
            raise UserError(f"design {folder / DESIGN_FILE} is damaged ({error}): search again") from error
        except UserError as error:
            raise UserError(f"design {folder / DESIGN_FILE} cannot be used: {error}") from error
        check_seal(content, folder / DESIGN_FILE, "design")
        if (weights.exists() and weights.stat().st_size != size_bytes) or sha256(weights) != digest:
            raise UserError(f"weights {weights} were changed or cut off: their SHA-256 is another; search again")
        return Candidate(design, _filled(MultiTaskNet(design.plan, space.tasks), weights, design), ranges)


def _ranges(stored: Mapping[str, Sequence[float]] | None) -> Ranges | None:
    if stored is None:
        return None
    limits = {name: (float(low), float(high)) for name, (low, high) in stored.items()}
    for name, (low, high) in limits.items():
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"the range of {name} is {low} to {high}")
    return Ranges(limits)


def run_tasks(tasks: Sequence[Task]) -> tuple[RunTask, ...]:
    """Tasks as a run's configuration declares them."""
    return tuple(RunTask(name=t.name, kind=t.kind, channels=t.channels, classes=t.classes) for t in tasks)


def _filled(net: MultiTaskNet, path: Path, design: Design) -> MultiTaskNet:
    state, metadata = read_state(path, "weights")
    if metadata.get("key") != design.key:
        raise UserError(f"weights {path} belong to another design: search again")
    check_state(state, net.state_dict(), path, "weights")
    net.load_state_dict(state)
    return net.eval()
