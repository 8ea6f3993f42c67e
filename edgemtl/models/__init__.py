"""Network families, the shared supernet, and the static nets it gives."""

from edgemtl.models._choices import Choice, Option, Values
from edgemtl.models._family import Family, find_family
from edgemtl.models._grid import KEEP, SKIP
from edgemtl.models._matching import Matched, load_matching
from edgemtl.models._narrow import narrowed, prunable_channels
from edgemtl.models._net import MultiTaskNet
from edgemtl.models._plan import BlockPlan, ConvPlan, Cost, Plan
from edgemtl.models._pretrained import load_pretrained
from edgemtl.models._sorting import sort_channels
from edgemtl.models._supernet import Supernet, recalibrate
from edgemtl.models._tensors import check_sha256, check_state, read_state, state_sha256
from edgemtl.models._usage import ExpertUsage, expert_usage
from edgemtl.models._weights import is_supernet, load_supernet, read_header, save_supernet

__all__ = [
    "KEEP",
    "SKIP",
    "BlockPlan",
    "Choice",
    "ConvPlan",
    "Cost",
    "ExpertUsage",
    "Family",
    "Matched",
    "MultiTaskNet",
    "Option",
    "Plan",
    "Supernet",
    "Values",
    "check_sha256",
    "check_state",
    "expert_usage",
    "find_family",
    "is_supernet",
    "load_matching",
    "load_pretrained",
    "load_supernet",
    "narrowed",
    "prunable_channels",
    "read_header",
    "read_state",
    "recalibrate",
    "save_supernet",
    "sort_channels",
    "state_sha256",
]
