"""Search spaces: families of networks as data, without a tensor; designs, plans and their cost."""

from edgemtl.spaces.choices import Choice, Option, Values
from edgemtl.spaces.design_source import DesignSource
from edgemtl.spaces.families.cnn import (
    DecoderSpec,
    Options,
    decoder_slots,
    deep_enough,
    dense_decoder,
    option_of,
    pooled_decoder,
)
from edgemtl.spaces.families.grid import KEEP, SKIP, mask_name
from edgemtl.spaces.family import Family, find_family
from edgemtl.spaces.narrow import prunable_channels, with_channels
from edgemtl.spaces.near import NearDesigns
from edgemtl.spaces.plan import (
    BlockPlan,
    Condition,
    ConvPlan,
    Cost,
    ExpertsPlan,
    Plan,
    WeightPlan,
    expert_capacity,
)
from edgemtl.spaces.slots import Slot
from edgemtl.spaces.space import ENGINE, Design, Space, is_precision, load_space, space_names

__all__ = [
    "ENGINE",
    "KEEP",
    "SKIP",
    "BlockPlan",
    "Choice",
    "Condition",
    "ConvPlan",
    "Cost",
    "DecoderSpec",
    "Design",
    "DesignSource",
    "ExpertsPlan",
    "Family",
    "NearDesigns",
    "Option",
    "Options",
    "Plan",
    "Slot",
    "Space",
    "Values",
    "WeightPlan",
    "decoder_slots",
    "deep_enough",
    "dense_decoder",
    "expert_capacity",
    "find_family",
    "is_precision",
    "load_space",
    "mask_name",
    "option_of",
    "pooled_decoder",
    "prunable_channels",
    "space_names",
    "with_channels",
]
