"""Trainings that several benchmarks start: made once, kept under names that say what of, gone on with after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from _common import say
from torch import nn

from edgemtl.data import Source
from edgemtl.models import MultiTaskNet, Supernet, load_supernet, recalibrate
from edgemtl.nas.runs import OneDesign
from edgemtl.spaces import Design, DesignSource
from edgemtl.tasks import Task
from edgemtl.train import InitialWeights, Recipe, batches_of, evaluate, train_supernet

BATCH = 16
RECALIBRATION_IMAGES = 128
Scores = Mapping[str, Mapping[str, float]]


def trained_once(
    space: DesignSource,
    source: Source,
    recipe: Recipe,
    folder: Path,
    initial: Supernet | None = None,
    teacher: nn.Module | None = None,
) -> Supernet:
    """The supernet after a training, which is not begun where it was finished before, and resumed where it was not.

    Other data, spaces, recipes, first weights and teachers get a folder of their own.
    """
    kept = folder_of(folder, space, source, recipe, initial, teacher)
    if not (kept / "training.json").is_file():
        say(f"training {kept.name}")
        begun_with = InitialWeights(initial) if initial is not None else None
        train_supernet(space, source, recipe, kept, initial=begun_with, teacher=teacher)
    trained = Supernet.of(space)
    load_supernet(trained, kept / "supernet.safetensors", space.fingerprint)
    return trained


def folder_of(folder: Path, space: DesignSource, source: Source, recipe: Recipe, *nets: nn.Module | None) -> Path:
    """The folder of a training, beside `folder`: its name ends with a hash of all that the training follows from."""
    hashes = [weights_hash(net) if net is not None else "" for net in nets]
    content = json.dumps([space.fingerprint, source.fingerprint, recipe.as_json(), *hashes])
    return folder.with_name(f"{folder.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}")


def trained_alone(design: Design, begin: MultiTaskNet, source: Source, recipe: Recipe, folder: Path) -> MultiTaskNet:
    """A design's net after a training of its own that starts with the weights of `begin`."""
    alone = OneDesign(design, begin, weights_hash(begin))
    return trained_once(alone, source, recipe, folder, initial=alone.supernet()).extract({})


def weights_hash(net: nn.Module) -> str:
    """SHA-256 of a net's parameters, in order."""
    digest = hashlib.sha256()
    for parameter in net.parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def scored_on_test(net: MultiTaskNet, tasks: tuple[Task, ...], source: Source) -> dict[str, dict[str, float]]:
    """Metrics on all test images, with statistics measured anew on training images."""
    train = batches_of(source.split("train"), BATCH, RECALIBRATION_IMAGES)
    recalibrate(net, (torch.from_numpy(batch.image) for batch in train))
    return evaluate(net, tasks, batches_of(source.split("test"), BATCH, tasks=tasks))
