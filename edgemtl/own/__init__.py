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
from edgemtl.own.precision import FLOAT, INT8, OwnPrecision, in_precision, named_precision, net_digest
from edgemtl.own.proposal import propose_tasks
from edgemtl.own.records import block_records
from edgemtl.own.reference import expected_outputs, image_input
from edgemtl.own.renaming import task_model
from edgemtl.own.rounding import calibrate_model, ready_for_rounding, rounded_blocks, rounded_model
from edgemtl.own.searched import PRECISION_FILE, read_precision, write_precision
from edgemtl.own.structure import NetBlock, ResidualSum, Structure, find_structure

__all__ = [
    "FLOAT",
    "INT8",
    "PRECISION_FILE",
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
    "expected_outputs",
    "find_structure",
    "image_input",
    "in_precision",
    "is_own_net",
    "named_precision",
    "net_digest",
    "open_net",
    "propose_tasks",
    "read_declaration",
    "read_photos",
    "read_precision",
    "ready_for_rounding",
    "resolve",
    "rounded_blocks",
    "rounded_model",
    "task_model",
    "write_precision",
]
