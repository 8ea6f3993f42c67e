"""Network families, the shared supernet, and the static nets it gives."""

from edgemtl.models.nets.experts import Experts
from edgemtl.models.nets.module_net import ModuleNet, load_layers, load_module
from edgemtl.models.nets.net import MultiTaskNet, run_blocks
from edgemtl.models.nets.plain_module import plain_module
from edgemtl.models.nets.single import SingleNet
from edgemtl.models.nets.sorting import sort_channels
from edgemtl.models.nets.supernet import Activations, SharedWeights, Supernet, recalibrate
from edgemtl.models.nets.task_net import TaskNet
from edgemtl.models.nets.usage import ExpertUsage, expert_usage
from edgemtl.models.weights.files import is_supernet, load_supernet, read_header, save_supernet
from edgemtl.models.weights.matching import Matched, load_matching
from edgemtl.models.weights.pretrained import load_pretrained
from edgemtl.models.weights.tensors import check_sha256, check_state, read_state, state_sha256

__all__ = [
    "Activations",
    "ExpertUsage",
    "Experts",
    "Matched",
    "ModuleNet",
    "MultiTaskNet",
    "SharedWeights",
    "SingleNet",
    "Supernet",
    "TaskNet",
    "check_sha256",
    "check_state",
    "expert_usage",
    "is_supernet",
    "load_layers",
    "load_matching",
    "load_module",
    "load_pretrained",
    "load_supernet",
    "plain_module",
    "read_header",
    "read_state",
    "recalibrate",
    "run_blocks",
    "save_supernet",
    "sort_channels",
    "state_sha256",
]
