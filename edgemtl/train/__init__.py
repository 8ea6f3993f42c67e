"""Training: losses, task weighting, sandwich and distillation steps, scores."""

from edgemtl.train._checkpoint import (
    CHECKPOINT_FILE,
    load_checkpoint,
    optimizer_state,
    restore_optimizer,
    save_checkpoint,
)
from edgemtl.train._feed import batches_of, spread, training_batches
from edgemtl.train._losses import task_loss
from edgemtl.train._metrics import Scorer, evaluate
from edgemtl.train._processes import beside
from edgemtl.train._recipe import Recipe
from edgemtl.train._trainer import DesignSource, Progress, fresh_supernet, train_supernet
from edgemtl.train._weighting import weighting_names

__all__ = [
    "CHECKPOINT_FILE",
    "DesignSource",
    "Progress",
    "Recipe",
    "Scorer",
    "batches_of",
    "beside",
    "evaluate",
    "fresh_supernet",
    "load_checkpoint",
    "optimizer_state",
    "restore_optimizer",
    "save_checkpoint",
    "spread",
    "task_loss",
    "train_supernet",
    "training_batches",
    "weighting_names",
]
