"""Every kind of module is cut right, stays whole with the true reason, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import odd_modules
import pytest
import torch
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.models import ModuleNet, load_module
from edgemtl.nas.prune import PruneRequest, UserModule, apply_pruning, prune
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.groups import cut_channels
from edgemtl.nas.prune.module_groups import ModuleCosts, module_groups
from edgemtl.tasks import by_tensor
from edgemtl.testing.world import TASKS

pytestmark = pytest.mark.filterwarnings("ignore")
ALL = ["stem.0", "middle.0", "last.0"]


def image(count: int = 1) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def opened(name: str) -> tuple[ModuleNet, list[Group], dict[str, str], ModuleCosts]:
    net, dimensions = load_module(f"odd_modules:{name}", TASKS, (64, 64))
    return net, *module_groups(net, dimensions)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("plain", ALL),
        ("tied_side_by_side", ["stem.0", "middle.first.0", "middle.one", "last.0"]),
        ("tied_norms", ["stem.0", "middle.first", "last.0"]),
        ("twice", ["stem.0", "middle.first.0", "last.0"]),
        ("two_names", ALL),
        ("weight_norm", ["stem.0", "middle", "last.0"]),
        ("old_weight_norm", ["stem.0", "middle", "last.0"]),
        ("old_spectral_norm", ["stem.0", "middle", "last.0"]),
        ("masked", ["stem.0", "middle", "last.0"]),
        ("data_parallel", ALL),
        ("half", ALL),
        ("training", ALL),
        ("keeps_features", ALL),
        ("hooked", ALL),
        ("branching", ALL),
        ("own_train", ALL),
        ("integers", ALL),
        ("unset_gradients", ALL),
    ],
)
def test_it_is_cut_and_counted_once(name: str, groups: list[str]) -> None:
    net, found, _, costs = opened(name)
    assert [group.name for group in found] == groups
    assert costs.cost({}).params == sum(parameter.numel() for parameter in net.parameters())
    kept = {group.name: 8 for group in found}
    narrow = cut_channels(net, found, {group.name: [list(range(8))] for group in found})
    assert sum(parameter.numel() for parameter in narrow.parameters()) == costs.cost(kept).params
    assert {name: value.shape for name, value in by_tensor(narrow(image(2))).items()} == {
        "depth": (2, 1, 64, 64),
        "kind": (2, 2),
    }
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("name", ["compiled", "partly_compiled"])
def test_a_compiled_module_is_cut_as_it_was_written(name: str) -> None:
    net, found, _, _ = opened(name)
    assert [group.name for group in found] == ALL
    assert all("orig_mod" not in key for key, _ in net.named_parameters())


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("tied_in_a_row", "middle.0", "middle.0 and middle.2 share one weight and would lose different channels of it"),
        ("tied_bias", "middle.0", "middle.0 and middle.2 share one bias and would lose different channels of it"),
        ("tied_embedding", "last.0", "Embedding reads or gives them"),
        ("hooked_by_channel", "middle.0", "something unseen reads or normalises them"),
        ("shuffled_into_zeros", "middle.0", "something unseen reads or normalises them"),
        ("shuffled_into_whispers", "middle.0", "something unseen reads or normalises them"),
        ("sorted_channels", "middle.0", "something unseen reads or normalises them"),
        ("gated_by_one", "middle.0", "the dependency graph follows one of them alone"),
    ],
)
def test_it_stays_whole_with_the_true_reason(name: str, layer: str, reason: str) -> None:
    net, found, whole, costs = opened(name)
    assert reason in whole[layer]
    assert found, "the rest is cut"
    assert layer not in [group.name for group in found]
    assert costs.cost({}).params == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dropout", "output 'depth' differs between runs on one image"),
        ("noise", "mend dropout or noise that heeds no self.training"),
        ("coin", "differs between runs"),
        ("counting", "state kept between calls"),
        ("nan", "100% of output 'depth' is NaN or infinite on an image of noise"),
        ("nan_in_the_dark", "output 'depth' is NaN or infinite on images of the data, or on a black one"),
        ("nan_weight", "of output 'kind' is NaN or infinite"),
        ("no_values", "its module: stem.0.weight is on the meta device and holds no values"),
        ("scripted", "its module: it is compiled by torch.jit and cannot be cut: give it as it was before"),
        ("quantized", "is no tensor, as in a quantized module"),
        ("half_inside", "cannot run on a batch of 2, 64x64, in FP32 on the CPU"),
        ("autocast", "output 'depth' is torch.bfloat16 of a module in FP32"),
        ("two_images", "cannot run on a batch of 1"),
        ("no_copy", "its __deepcopy__ returns the module itself"),
        ("exits", "odd_modules:exits failed: SystemExit: 3"),
        ("exits_inside", "SystemExit: 3"),
    ],
)
def test_it_is_refused_in_one_line(name: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        opened(name)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tied_in_a_row", "tied_norms", "old_weight_norm", "half", "integers"])
def test_it_comes_back_to_its_owner(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    subject = UserModule(f"odd_modules:{name}", str(home / "photos"), (64, 64))
    request = PruneRequest(subject, tmp_path / "out", ("70%params",), fast=True)
    result = prune(request)
    assert result.feasible and result.best is not None
    assert [(check.name, check.kept, check.value) for check in result.best.limits] == [
        ("70%params", True, result.best.params)
    ]
    made = getattr(odd_modules, name)()
    narrow = apply_pruning(made[0] if isinstance(made, tuple) else made, request.out)
    assert sum(parameter.numel() for parameter in narrow.parameters()) == result.best.params
    assert set(narrow(image())) == {"depth", "kind"}


def test_what_layers_share_they_share_still_when_cut() -> None:
    net, found, _, _ = opened("tied_side_by_side")
    narrow = cut_channels(net, found, {group.name: [list(range(1, 9))] for group in found})
    one, other = (narrow.get_submodule(f"module.middle.{name}") for name in ("one", "other"))
    assert isinstance(one, nn.Conv2d) and one.weight is other.weight
    assert tuple(one.weight.shape) == (8, 8, 1, 1)
    assert torch.equal(one.weight, net.get_parameter("module.middle.one.weight")[1:9, 1:9])
    net, found, _, _ = opened("tied_norms")
    narrow = cut_channels(net, found, {group.name: [list(range(8))] for group in found})
    norms = [narrow.get_submodule(f"module.middle.{name}") for name in ("one", "other")]
    assert norms[0].running_mean is norms[1].running_mean and norms[0].weight is norms[1].weight


def test_a_module_that_fails_on_the_data_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs on what it is tried on, and raises on the images that decide."""
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    subject = UserModule("odd_modules:plain", str(home / "photos"), (64, 64))
    request = PruneRequest(subject, tmp_path / "out", ("70%params",), fast=True)

    def body(self: odd_modules.Base, x: Tensor) -> Tensor:
        if len(x) == 3:  # as many as there are to score by
            raise ValueError("what is\nthis image?")
        return self.middle(x)  # type: ignore[no-any-return]

    monkeypatch.setattr(odd_modules.Base, "body", body)
    with pytest.raises(UserError, match=r"the module fails on a batch of .*ValueError: what is this image"):
        prune(request)
