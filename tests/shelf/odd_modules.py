"""Modules as users write them, each hard to cut in one way; the functions are what `edgemtl prune` calls."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

Made = nn.Module | tuple[nn.Module, dict[str, int | None]]


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Base(nn.Module):
    """A stem, something odd in the middle, a last layer, and a head a task."""

    def __init__(self, middle: nn.Module | None = None, change: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.stem, self.middle, self.last = layer(3, 16, 2), middle or layer(16, 24, 2), layer(24, 24)
        self.depth, self.kind = nn.Conv2d(24, 1, 1), nn.Linear(24, 2)
        self.change = change

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.middle(x)
        return found if self.change is None else self.change(found)

    def forward(self, image: Tensor) -> Any:
        x = self.last(self.body(self.stem(image)))
        depth = F.interpolate(self.depth(x), size=image.shape[2:], mode="bilinear", align_corners=False)
        return {"depth": depth, "kind": self.kind(x.mean((2, 3)))}


class Two(nn.Module):
    """Two layers that read the same channels, and whose outputs are added."""

    def __init__(self, first: nn.Module, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.first, self.one, self.other = first, one, other

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return F.relu(self.one(x)) + F.relu(self.other(F.avg_pool2d(x, 3, 1, 1)))


def seeded(module: Callable[[], nn.Module]) -> nn.Module:
    """A module whose norms are not all alike."""
    torch.manual_seed(0)
    made = module()
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.1)
    return made


def plain() -> nn.Module:
    return seeded(Base)


def _tied(one: nn.Module, other: nn.Module, *keys: str) -> tuple[nn.Module, nn.Module]:
    for key in keys:
        setattr(other, key, getattr(one, key))
    return one, other


def tied_in_a_row() -> nn.Module:
    def middle() -> nn.Module:
        one, other = _tied(nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1), "weight")
        return nn.Sequential(one, nn.ReLU(), other, nn.ReLU(), nn.Conv2d(16, 24, 1))

    return seeded(lambda: Base(middle()))


def tied_bias() -> nn.Module:
    def middle() -> nn.Module:
        one, other = _tied(nn.Conv2d(16, 24, 3, 2, 1), nn.Conv2d(24, 24, 1), "bias")
        return nn.Sequential(one, nn.ReLU(), other)

    return seeded(lambda: Base(middle()))


def tied_side_by_side() -> nn.Module:
    return seeded(lambda: Base(Two(layer(16, 20, 2), *_tied(nn.Conv2d(20, 24, 1), nn.Conv2d(20, 24, 1), "weight"))))


def tied_norms() -> nn.Module:
    pair = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return seeded(lambda: Base(Two(nn.Conv2d(16, 24, 3, 2, 1), *_tied(nn.BatchNorm2d(24), nn.BatchNorm2d(24), *pair))))


class Embedded(Base):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.kind = nn.Embedding(2, 24), nn.Linear(24, 2, bias=False)
        self.kind.weight = self.words.weight

    def forward(self, image: Tensor) -> Any:
        x = self.last(self.body(self.stem(image)))
        depth = F.interpolate(self.depth(x), size=image.shape[2:])
        start = self.words(torch.zeros(len(image), dtype=torch.long))
        return {"depth": depth, "kind": self.kind(x.mean((2, 3)) + start)}


def tied_embedding() -> nn.Module:
    return seeded(Embedded)


def twice() -> nn.Module:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.block = layer(16, 24, 2), layer(24, 24)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x + self.block(x + self.block(x))

    return seeded(lambda: Base(Again()))


def two_names() -> nn.Module:
    made = plain()
    made.also = made.middle
    made.weight_of_middle = made.middle[0].weight  # type: ignore[index, union-attr]
    return made


def weight_norm() -> nn.Module:
    return seeded(lambda: Base(parametrizations.weight_norm(nn.Conv2d(16, 24, 3, 2, 1))))


def old_weight_norm() -> nn.Module:
    return seeded(lambda: Base(nn.utils.weight_norm(nn.Conv2d(16, 24, 3, 2, 1))))  # type: ignore[no-untyped-call]


def old_spectral_norm() -> nn.Module:
    return seeded(lambda: Base(nn.utils.spectral_norm(nn.Conv2d(16, 24, 3, 2, 1))))


def masked() -> nn.Module:
    conv = nn.Conv2d(16, 24, 3, 2, 1)
    prune.l1_unstructured(conv, "weight", 0.5)  # type: ignore[no-untyped-call]
    return seeded(lambda: Base(conv))


def compiled() -> Any:
    return torch.compile(plain())


def partly_compiled() -> nn.Module:
    made = plain()
    made.middle = torch.compile(made.middle)  # type: ignore[assignment]
    return made


def data_parallel() -> nn.Module:
    made = plain()
    made.middle = nn.DataParallel(made.middle)  # type: ignore[arg-type]
    return nn.DataParallel(made)


def half() -> nn.Module:
    return plain().half()


def training() -> nn.Module:
    return plain().train()


def keeps_features() -> nn.Module:
    class Keeps(Base):
        def body(self, x: Tensor) -> Tensor:
            self.features = [super().body(x)]
            return self.features[0]

    made = seeded(Keeps)
    made(torch.zeros(1, 3, 64, 64))
    return made


def hooked() -> nn.Module:
    made = plain()
    made.middle.register_forward_hook(lambda module, given, output: 2 * output)  # type: ignore[union-attr]
    return made


def hooked_by_channel() -> nn.Module:
    made = plain()
    made.middle.register_forward_hook(lambda module, given, output: output.flip(1))  # type: ignore[union-attr]
    return made


def shuffled_into_zeros() -> nn.Module:
    """Heads of zeros hear nothing, so that a wrong cut would seem right."""
    made = seeded(lambda: Base(change=lambda x: x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)))
    for parameter in (*made.depth.parameters(), *made.kind.parameters()):  # type: ignore[union-attr]
        nn.init.zeros_(parameter)
    return made


def shuffled_into_whispers() -> nn.Module:
    made = seeded(lambda: Base(change=lambda x: x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)))
    with torch.no_grad():
        for parameter in (*made.depth.parameters(), *made.kind.parameters()):  # type: ignore[union-attr]
            parameter.mul_(1e-6)
    return made


def branching() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: x if float(x.mean()) < 1e9 else 2 * x))


def sorted_channels() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: x[:, x.mean((0, 2, 3)).argsort()]))


def gated_by_one() -> nn.Module:
    class Gate(Base):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Conv2d(1, 1, 3, 1, 1)

        def body(self, x: Tensor) -> Tensor:
            x = super().body(x)
            return x * torch.sigmoid(self.gate(x.mean(1, keepdim=True)))

    return seeded(Gate)


def unset_gradients() -> nn.Module:
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    return plain()


def own_train() -> nn.Module:
    class Own(Base):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)  # and forgets to return itself

    return seeded(Own)


def integers() -> Made:
    made = plain()
    made.table = nn.Parameter(torch.arange(6).reshape(2, 3), requires_grad=False)
    return made, {"table": None}


def dropout() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: F.dropout(x, 0.3)))


def noise() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: x + torch.randn_like(x)))


def coin() -> nn.Module:
    random.seed(0)
    return seeded(lambda: Base(change=lambda x: x if random.random() < 0.5 else 2 * x))


def counting() -> nn.Module:
    class Counts(Base):
        calls = 0

        def body(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().body(x) * (1 + self.calls / 100)

    return seeded(Counts)


def nan() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: torch.log(x - 1e6)))


def nan_in_the_dark() -> nn.Module:
    class Dark(Base):
        def forward(self, image: Tensor) -> Any:
            given = super().forward(image)
            return given | {"depth": given["depth"] / image.abs().mean()}

    return seeded(Dark)


def nan_weight() -> nn.Module:
    made = plain()
    made.kind.weight.data[0] = float("nan")  # type: ignore[union-attr, operator, index]
    return made


def no_values() -> nn.Module:
    with torch.device("meta"):
        return Base()


def scripted() -> Any:
    class Simple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.depth, self.kind = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 1, 1), nn.Linear(16, 2)

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            x = self.stem(image)
            return {"depth": self.depth(x), "kind": self.kind(x.mean((2, 3)))}

    return torch.jit.trace(Simple(), torch.zeros(1, 3, 64, 64), strict=False)  # type: ignore[no-untyped-call]


def quantized() -> Any:
    return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})


def half_inside() -> nn.Module:
    return seeded(lambda: Base(nn.Sequential(nn.Identity(), layer(16, 24, 2)), lambda x: x.half() @ x.transpose(2, 3)))


def autocast() -> nn.Module:
    class Auto(Base):
        def forward(self, image: Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(image)

    return seeded(Auto)


def two_images() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: x.reshape(2, 24, 16, 16)))


def no_copy() -> nn.Module:
    class Single(Base):
        def __deepcopy__(self, memo: Any) -> Any:
            return self

    return seeded(Single)


def exits() -> nn.Module:
    sys.exit(3)


def exits_inside() -> nn.Module:
    return seeded(lambda: Base(change=lambda x: sys.exit(3)))
