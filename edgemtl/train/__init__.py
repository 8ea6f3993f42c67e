"""Training: losses, task weighting, sandwich and distillation steps, scores."""

from edgemtl.train.checkpoint import CHECKPOINT_FILE
from edgemtl.train.feed import batches_of, subsample, training_batches
from edgemtl.train.loop import Optimized, TrainingLoop
from edgemtl.train.losses import distillation_loss, label_loss, label_tensors, planes, prepared, task_loss
from edgemtl.train.metrics import Scorer, evaluate, raw_outputs, scores_by_image
from edgemtl.train.processes import Launched, training_processes, worker_processes
from edgemtl.train.recipe import Recipe, recipe_difference
from edgemtl.train.sandwich import SupernetTraining
from edgemtl.train.speed import TrainingSpeed, timed_pass, training_speed
from edgemtl.train.teacher import Teacher, find_teacher
from edgemtl.train.trainer import DivergedError, InitialWeights, TrainingProgress, fresh_supernet, train_supernet
from edgemtl.train.weighting import weighting_names

__all__ = [
    "CHECKPOINT_FILE",
    "DivergedError",
    "InitialWeights",
    "Launched",
    "Optimized",
    "Recipe",
    "Scorer",
    "SupernetTraining",
    "Teacher",
    "TrainingLoop",
    "TrainingProgress",
    "TrainingSpeed",
    "batches_of",
    "distillation_loss",
    "evaluate",
    "find_teacher",
    "fresh_supernet",
    "label_loss",
    "label_tensors",
    "planes",
    "prepared",
    "raw_outputs",
    "recipe_difference",
    "scores_by_image",
    "subsample",
    "task_loss",
    "timed_pass",
    "train_supernet",
    "training_batches",
    "training_processes",
    "training_speed",
    "weighting_names",
    "worker_processes",
]
