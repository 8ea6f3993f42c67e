"""Data sets: samples with a validity mask per task, one source per format, batches and augmentation, without torch."""

from edgemtl.data.augmentation import augment
from edgemtl.data.elpv import ElpvSource
from edgemtl.data.opening import open_source, source_names
from edgemtl.data.sample import SPLITS, Batch, Sample, Samples, Source, Split, collate, require_split
from edgemtl.data.teachers import PseudoLabelled, Teacher, onnx_teacher

__all__ = [
    "SPLITS",
    "Batch",
    "ElpvSource",
    "PseudoLabelled",
    "Sample",
    "Samples",
    "Source",
    "Split",
    "Teacher",
    "augment",
    "collate",
    "onnx_teacher",
    "open_source",
    "require_split",
    "source_names",
]
