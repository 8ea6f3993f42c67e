"""Nets of one's own: an ONNX file or a trained torch module, its tasks, and the structure that its graph shows."""

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
from edgemtl.own.proposal import propose_tasks
from edgemtl.own.records import block_records
from edgemtl.own.renaming import task_model
from edgemtl.own.structure import NetBlock, ResidualSum, Structure, find_structure

__all__ = [
    "Declaration",
    "DeclaredTask",
    "NetBlock",
    "OwnNet",
    "Pixels",
    "ResidualSum",
    "Resolved",
    "Structure",
    "as_text",
    "block_records",
    "find_structure",
    "is_own_net",
    "open_net",
    "propose_tasks",
    "read_declaration",
    "resolve",
    "task_model",
]
