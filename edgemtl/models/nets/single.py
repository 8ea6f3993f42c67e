"""The weights of one net alone, trained as a supernet's are, with the statistics that it has."""

from __future__ import annotations

from torch import Tensor, nn

from edgemtl.models.nets.net import MultiTaskNet
from edgemtl.models.nets.supernet import Activations
from edgemtl.spaces import Values

__all__ = ["SingleNet", "train_mode"]


class SingleNet(nn.Module):
    """A net as `SharedWeights` of one design.

    Its batch norms keep their statistics, and it learns to be right with the ones that it is exported with. Those of a
    small batch differ from step to step, and those measured after a training differ from what it learnt with.
    """

    has_statistics = True

    def __init__(self, net: MultiTaskNet) -> None:
        super().__init__()
        self.net, self.tasks = net, net.tasks

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        """The net's parameters as it calls them."""
        return dict(self.net.named_parameters())

    def forward(self, image: Tensor, values: Values) -> Activations:
        """Outputs of the net for images (N, 3, H, W); there is one design only."""
        train_mode(self.net, frozen=True)
        return Activations.of(self.net, self.net.run_all(image))

    def extract(self, values: Values) -> MultiTaskNet:
        """A copy of the net on the processor, with its statistics."""
        return self.net.copy().cpu()


def train_mode(net: nn.Module, *, frozen: bool) -> None:
    """Put a net into training mode; with `frozen` its batch norms neither use nor change a batch's statistics."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(not frozen)
