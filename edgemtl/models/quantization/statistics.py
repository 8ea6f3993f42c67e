"""Statistics of batch normalisation, measured through rounding: what normalises then is what the engine multiplies.

No label is needed. Rounded weights and inputs change the mean and the variance of what a layer gives; a normalisation
that is folded with the statistics of the net in float leaves both changes to all that follows (Sun et al. 2019,
Hybrid 8-bit floating point, tune statistics likewise after rounding). Nets that learnt through rounding were
normalised with the statistics of rounded batches in every step, and want the same afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from edgemtl.models.nets.net import MultiTaskNet
from edgemtl.models.nets.supernet import recalibrate
from edgemtl.models.quantization.learning import RoundedNet
from edgemtl.models.quantization.plan import QuantScheme, Ranges

__all__ = ["recalibrate_rounded"]


def recalibrate_rounded(
    net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme, images: Iterable[Tensor]
) -> MultiTaskNet:
    """A copy of a net whose statistics are those that it has over `images` while its INT8 blocks are rounded.

    `images` are batches (N, 3, H, W), normalised. Weights stay, and so do their steps: a normalisation multiplies a
    whole output channel, whose scale follows.
    """
    measured = net.copy()
    rounded = RoundedNet(measured, precision, ranges, scheme)
    recalibrate(measured, images, rounded.activations)
    return measured
