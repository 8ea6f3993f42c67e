"""Training one design of a run further: its own weights, in its own precision, by labels or the run's baseline."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from edgemtl.data import Source, open_source
from edgemtl.data.scenes import ScenesSource
from edgemtl.files.seals import sha256
from edgemtl.models import MultiTaskNet, SharedWeights, SingleNet, Supernet, load_supernet
from edgemtl.models.quantization import QuantScheme, Ranges, RoundedNet
from edgemtl.nas.runs.folder import RunFolder
from edgemtl.progress import Report, silent
from edgemtl.spaces import Choice, Design, Plan, Values
from edgemtl.tasks import Task
from edgemtl.train import CHECKPOINT_FILE, InitialWeights, Recipe, train_supernet, worker_processes

__all__ = ["FINETUNING", "TUNING", "OneDesign", "Tuned", "by_labels", "recipe_for", "subject_of", "tune_design"]

TUNING = Recipe(steps=600, sizes=(0.67, 1.0), zoom=(1.0, 1.0), learning_rate=1e-3, largest_steps=1.0)
"""Defaults for a pruned net, which has much to learn anew. Images are whole, as they are scored: depth is lost on
zoomed windows in so few steps."""
FINETUNING = replace(TUNING, batch=8, sizes=(1.0,), learning_rate=1.5e-4, frozen_statistics=True)
"""Defaults for a searched design. Small batches at full size: half sizes unlearn more of depth in some hundred steps
than they teach. Statistics are frozen: those of eight images differ from all images' by more than it has to learn."""

_LABELLED_IMAGES = 64
"""So many training images say whether all have labels. To be taught as well takes half as long again, and is worth it
where labels are missing."""
_RENDERED = 1024
_SEEN_EACH = 2
"""A fine-tuning has so many scenes at least, and each process sees each about so often: rendering one takes as long as
a step on it."""


@dataclass(frozen=True)
class OneDesign:
    """A space of one design, so that it trains as supernets do: distilled, resumable.

    `ranges` are those of its INT8 blocks, None where it has none.
    """

    design: Design
    begin: MultiTaskNet
    weights_sha256: str
    ranges: Ranges | None = None

    @property
    def name(self) -> str:
        """The name of its space."""
        return self.design.space.name

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the design."""
        return self.design.space.tasks

    @property
    def fingerprint(self) -> str:
        """Hash of the space, the design and the weights that training begins with."""
        content = f"{self.design.space.fingerprint} {self.design.key} {self.weights_sha256}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def architecture(self) -> tuple[Choice, ...]:
        """No choice is left."""
        return ()

    @property
    def stages(self) -> dict[str, str]:
        """None: there is no narrower design whose stages could learn from its own."""
        return {}

    def plan(self, values: Values) -> Plan:
        """The net of the design."""
        return self.design.plan.standing_alone()

    def weights(self, scheme: QuantScheme, *, frozen: bool = False) -> SharedWeights:
        """The net's own, trained through the rounding of its INT8 blocks where it has any.

        They have the net's statistics where these are `frozen`.
        """
        if self.ranges is None:
            return SingleNet(self.begin) if frozen else self.supernet()
        return RoundedNet(self.begin, self.design.precision, self.ranges, scheme, frozen=frozen)

    def supernet(self) -> Supernet:
        """Shared weights that are the net's own, in float and without statistics."""
        supernet = Supernet.of(self)
        with torch.no_grad():
            for name, parameter in self.begin.named_parameters():
                supernet.shared[name].copy_(parameter)
        return supernet

    def largest(self) -> Values:
        """The one design."""
        return {}

    def smallest(self) -> Values:
        """The one design."""
        return {}

    def random(self, rng: random.Random) -> Values:
        """The one design."""
        return {}


@dataclass(frozen=True)
class Tuned:
    """A design's net after its training, and the limits that its activations learnt.

    Its statistics are those that it began with where the recipe froze them; else they are still to be measured. A net
    without INT8 blocks has learnt no `limits`.
    """

    net: MultiTaskNet
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def recipe_for(run: Path) -> Recipe:
    """The recipe by which a run's designs are trained further: that of pruned nets, or of a search's fine-tuning."""
    folder = RunFolder(run)
    return TUNING if folder.config().pruned is not None else by_labels(FINETUNING, folder.source())


def by_labels(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with labels alone, where each of the first training images has a valid one of every task."""
    samples, names = islice(source.split("train"), _LABELLED_IMAGES), [task.name for task in source.tasks]
    labelled = all(np.any(sample.masks[name]) for sample in samples for name in names)
    return replace(recipe, label_share=1.0) if labelled else recipe


def subject_of(run: Path, name: str) -> OneDesign:
    """The kept design `name` of a run, to be trained further; `UserError` where it is unknown or was changed."""
    candidate = RunFolder(run).load(name)
    weights = sha256(run / "designs" / name / "weights.safetensors")
    return OneDesign(candidate.design, candidate.net, weights, candidate.ranges)


def tune_design(
    run: Path, name: str, out: Path, recipe: Recipe, processes: int = 1, command: str = "", report: Report = silent
) -> Tuned:
    """Train the kept design `name` of a run further, in the folder `out`, where it was not finished before.

    It learns from labels and, by the share that the recipe leaves them, from the outputs of the run's baseline. INT8
    blocks are rounded in every step as the run's target rounds them, with scales that are learnt. A training that was
    stopped goes on from its checkpoint; `processes` share the cores, each with a batch of its own.
    """
    if not (out / "training.json").is_file():
        with worker_processes(partial(_train, run, name, out, recipe), processes):
            _train(run, name, out, recipe, command, report)
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    subject = subject_of(run, name)
    weights = subject.weights(RunFolder(run).target().scheme, frozen=recipe.frozen_statistics)
    load_supernet(weights, out / "supernet.safetensors", subject.fingerprint)
    limits = weights.limits() if isinstance(weights, RoundedNet) else {}
    return Tuned(weights.extract(subject.largest()), limits)


def training_images(data: str, size: tuple[int, int], recipe: Recipe) -> Source:
    """The data set of a fine-tuning: all of it, but of scenes, which are rendered as they are read, some."""
    source = open_source(data, size)
    if not isinstance(source, ScenesSource):
        return source
    rendered = max(_RENDERED, recipe.steps * recipe.batch // _SEEN_EACH)
    return ScenesSource(size, train=min(source.counts["train"], rendered))


def _train(run: Path, name: str, out: Path, recipe: Recipe, command: str = "", report: Report = silent) -> None:
    subject, folder = subject_of(run, name), RunFolder(run)
    weights = subject.weights(folder.target().scheme, frozen=recipe.frozen_statistics)
    train_supernet(
        subject,
        training_images(folder.config().data, subject.design.space.size, recipe),
        recipe,
        out,
        initial=InitialWeights(weights, subject.weights_sha256),
        teacher=folder.load("baseline").net if recipe.label_share < 1 else None,
        command=command,
        report=report,
    )
