"""Nets of one's own: an ONNX file or a trained torch module, its tasks, its graph's structure, and a module of it."""

from edgemtl.own.agreement import Agreement, own_labels
from edgemtl.own.declaration import (
    Declaration,
    DeclaredTask,
    Pixels,
    Resolved,
    as_text,
    read_declaration,
    resolve,
)
from edgemtl.own.four_bits import four_bit_blocks
from edgemtl.own.labelled import LabelledImages, OwnImages, Seen, Spread, at_label_size, open_labelled, open_own_images
from edgemtl.own.net import OwnNet, is_own_net, net_of_model, open_net
from edgemtl.own.photos import Photos, is_data_set, read_photos
from edgemtl.own.precision import (
    FLOAT,
    FLOAT_ENGINE,
    INT4,
    INT8,
    OwnPrecision,
    in_precision,
    named_precision,
    net_digest,
)
from edgemtl.own.proposal import propose_tasks
from edgemtl.own.records import block_records
from edgemtl.own.reference import expected_outputs, image_input
from edgemtl.own.renaming import task_model
from edgemtl.own.rounding import calibrate_model, ready_for_rounding, rounded_blocks, rounded_model
from edgemtl.own.searched import (
    NET_FILE,
    PRECISION_FILE,
    TASKS_FILE,
    read_precision,
    searched_net,
    write_precision,
)
from edgemtl.own.self_labelled import SelfLabelled, blend, open_pictures
from edgemtl.own.structure import NetBlock, ResidualSum, Structure, find_structure
from edgemtl.own.task_net import DeclaredNet
from edgemtl.own.torch_module import flat_outputs, module_as_onnx
from edgemtl.own.trainable import TorchGraph, check_equal, torch_graph

__all__ = [
    "FLOAT",
    "FLOAT_ENGINE",
    "INT4",
    "INT8",
    "NET_FILE",
    "PRECISION_FILE",
    "TASKS_FILE",
    "Agreement",
    "Declaration",
    "DeclaredNet",
    "DeclaredTask",
    "LabelledImages",
    "NetBlock",
    "OwnImages",
    "OwnNet",
    "OwnPrecision",
    "Photos",
    "Pixels",
    "ResidualSum",
    "Resolved",
    "Seen",
    "SelfLabelled",
    "Spread",
    "Structure",
    "TorchGraph",
    "as_text",
    "at_label_size",
    "blend",
    "block_records",
    "calibrate_model",
    "check_equal",
    "expected_outputs",
    "find_structure",
    "flat_outputs",
    "four_bit_blocks",
    "image_input",
    "in_precision",
    "is_data_set",
    "is_own_net",
    "module_as_onnx",
    "named_precision",
    "net_digest",
    "net_of_model",
    "open_labelled",
    "open_net",
    "open_own_images",
    "open_pictures",
    "own_labels",
    "propose_tasks",
    "read_declaration",
    "read_photos",
    "read_precision",
    "ready_for_rounding",
    "resolve",
    "rounded_blocks",
    "rounded_model",
    "searched_net",
    "task_model",
    "torch_graph",
    "write_precision",
]
