"""Nets of one's own: an ONNX file or a trained torch module, its tasks, and the structure that its graph shows."""

from edgemtl.own.agreement import Agreement
from edgemtl.own.declaration import (
    Declaration,
    DeclaredTask,
    Pixels,
    Resolved,
    as_text,
    read_declaration,
    resolve,
)
from edgemtl.own.net import OwnNet, is_own_net, open_net
from edgemtl.own.photos import Photos, read_photos
from edgemtl.own.precision import FLOAT, INT8, OwnPrecision, in_precision, named_precision
from edgemtl.own.proposal import propose_tasks
from edgemtl.own.records import block_records
from edgemtl.own.renaming import task_model
from edgemtl.own.rounding import calibrate_model, ready_for_rounding, rounded_blocks, rounded_model
from edgemtl.own.structure import NetBlock, ResidualSum, Structure, find_structure

__all__ = [
    "FLOAT",
    "INT8",
    "Agreement",
    "Declaration",
    "DeclaredTask",
    "NetBlock",
    "OwnNet",
    "OwnPrecision",
    "Photos",
    "Pixels",
    "ResidualSum",
    "Resolved",
    "Structure",
    "as_text",
    "block_records",
    "calibrate_model",
    "find_structure",
    "in_precision",
    "is_own_net",
    "named_precision",
    "open_net",
    "propose_tasks",
    "read_declaration",
    "read_photos",
    "ready_for_rounding",
    "resolve",
    "rounded_blocks",
    "rounded_model",
    "task_model",
]
