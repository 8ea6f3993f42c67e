"""The block of the family `exits`, of layers that torch has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from edgemtl.spaces import BlockPlan


class SqueezeExcite(nn.Module):
    """A convolution, each of whose channels is scaled by a gate; its input is added where the plan says so."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        conv, squeeze, excite = plan.convs
        layer = nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, padding=conv.kernel // 2, bias=False)
        self.conv = nn.Sequential(OrderedDict(conv=layer, norm=nn.BatchNorm2d(conv.outputs), act=nn.ReLU()))
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Sigmoid()
        self.squeeze = nn.Conv2d(squeeze.inputs, squeeze.outputs, 1)
        self.excite = nn.Conv2d(excite.inputs, excite.outputs, 1)
        self.residual = plan.residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H, W)."""
        y = self.conv(x)
        y = y * self.gate(self.excite(self.act(self.squeeze(self.pool(y)))))
        return x + y if self.residual else y


def build(plans: Sequence[BlockPlan]) -> nn.Module:
    """The module that every one of the plans runs."""
    return SqueezeExcite(plans[0])
