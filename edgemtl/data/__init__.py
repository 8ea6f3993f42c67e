"""Data sets: samples with a validity mask per task, one source per format, batches and augmentation, without torch."""

from edgemtl.data.augmentation import augment
from edgemtl.data.cache import cache_root
from edgemtl.data.elpv import ElpvSource
from edgemtl.data.opening import open_source, source_names
from edgemtl.data.sample import SPLITS, Batch, Sample, Source, Split, collate
from edgemtl.data.teachers import PseudoLabelled, Teacher, onnx_teacher

__all__ = [
    "SPLITS",
    "Batch",
    "ElpvSource",
    "PseudoLabelled",
    "Sample",
    "Source",
    "Split",
    "Teacher",
    "augment",
    "cache_root",
    "collate",
    "onnx_teacher",
    "open_source",
    "source_names",
]
