from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import TASKS, designs, difference, pictures, scrambled, small_space, with_batch_statistics
from torch import Tensor

from edgemtl.models import Supernet, sort_channels
from edgemtl.spaces import Design, Space, load_space
from edgemtl.tasks import Task, by_tensor

SIZE = (32, 64)
POOLED = TASKS[2:]
DENSE = TASKS[:2]


def outputs(supernet: Supernet, design: Design) -> dict[str, Tensor]:
    """In double precision, where the order of a sum does not show."""
    net = with_batch_statistics(supernet.extract(design)).double()
    with torch.no_grad():
        return by_tensor(net(pictures(2, SIZE).double()))


def full(space: Space, design: Design) -> Design:
    """The design with full widths and expansions, its depths, kernels and block types kept."""
    wide = {c.name: c.options[-1] for c in space.choices if c.name.endswith((".width", ".expand"))}
    return space.design({**design, **wide})


def assert_keeps_full_designs(space: Space, count: int) -> None:
    supernet = scrambled(Supernet.of(space), 3)
    before = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
    kept = [full(space, design) for design in designs(space, count)]
    narrow = space.smallest()
    expected, other = [outputs(supernet, design) for design in kept], outputs(supernet, narrow)
    sort_channels(supernet)
    for design, wanted in zip(kept, expected, strict=True):
        assert difference(outputs(supernet, design), wanted) < 1e-9
    assert difference(outputs(supernet, narrow), other) > 0.01
    assert sum(not torch.equal(before[name], p) for name, p in supernet.shared.items()) > 0.9 * len(before)


@pytest.mark.parametrize("tasks", [TASKS, POOLED, DENSE], ids=["all", "pooled", "dense"])
def test_full_designs_of_every_kind_keep_their_function(tmp_path: Path, tasks: tuple[Task, ...]) -> None:
    assert_keeps_full_designs(small_space(tmp_path, tasks), 8)


@pytest.mark.parametrize("name", ["cnn", "mobilenetv2"])
def test_full_designs_of_shipped_spaces_keep_their_function(name: str) -> None:
    assert_keeps_full_designs(load_space(name, TASKS, SIZE), 3)


def importance(weight: Tensor) -> Tensor:
    return weight.detach().abs().sum([axis for axis in range(weight.ndim) if axis != 1])


def is_sorted(values: Tensor) -> bool:
    return bool((values[:-1] >= values[1:] * (1 - 1e-6)).all())


def test_hidden_channels_are_sorted_by_the_weights_that_read_them(space: Space) -> None:
    supernet = scrambled(Supernet.of(space), 5)
    unsorted = importance(supernet.shared["blocks.b_2.pointwise.conv.weight"])
    sort_channels(supernet)
    table = supernet.shared
    for name in (
        "b_2.pointwise",
        "b_1.project",
        "a_2.project",
        "depth_head.conv",
        "kind_head.linear",
        "semseg_body.conv2",
    ):
        weight = table.get(f"blocks.{name}.conv.weight", table.get(f"blocks.{name}.weight"))
        assert weight is not None
        if "body" not in name and "depth_head" not in name:  # those share their channels with others
            assert is_sorted(importance(weight)), name
    assert torch.allclose(importance(table["blocks.b_2.pointwise.conv.weight"]), unsorted.sort(descending=True).values)


def test_a_stream_is_sorted_by_all_that_read_it_each_counting_the_same(space: Space) -> None:
    supernet = scrambled(Supernet.of(space), 6)
    with torch.no_grad():
        supernet.shared["blocks.b_2.expand.conv.weight"].mul_(1000)  # normalised away: it must not outvote the others
    sort_channels(supernet)
    readers = [f"b_{n}.{conv}" for n in (2, 3) for conv in ("expand", "dense")] + ["c_1.dense"]
    norms = [importance(supernet.shared[f"blocks.{name}.conv.weight"]) for name in readers]
    # expand 1: the first depthwise block of stage c reads the stream as its own hidden channels
    norms.append(importance(supernet.shared["blocks.c_1.pointwise.conv.weight"]))
    assert is_sorted(torch.stack([norm / norm.mean() for norm in norms]).sum(0))


def test_sorting_twice_changes_nothing_more(space: Space) -> None:
    supernet = scrambled(Supernet.of(space), 7)
    sort_channels(supernet)
    before = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
    sort_channels(supernet)
    assert all(torch.equal(before[name], parameter) for name, parameter in supernet.shared.items())


def test_every_parameter_keeps_its_values(space: Space) -> None:
    supernet = scrambled(Supernet.of(space), 8)
    before = {name: parameter.detach().flatten().sort().values for name, parameter in supernet.shared.items()}
    sort_channels(supernet)
    assert all(torch.equal(before[n], p.detach().flatten().sort().values) for n, p in supernet.shared.items())


def test_the_image_s_and_the_tasks_channels_stay_in_place(space: Space) -> None:
    supernet = scrambled(Supernet.of(space), 9)
    with torch.no_grad():
        stem = supernet.shared["blocks.stem.conv.conv.weight"]
        stem[:, 0], stem[:, 2] = -1.0, 1.0
        for name in ("kind_head.linear", "semseg_head.conv.conv"):
            bias = supernet.shared[f"blocks.{name}.bias"]
            bias.copy_(torch.arange(len(bias)))
    sort_channels(supernet)
    assert bool((supernet.shared["blocks.stem.conv.conv.weight"][:, 0] == -1).all())
    for name in ("kind_head.linear", "semseg_head.conv.conv"):
        bias = supernet.shared[f"blocks.{name}.bias"]
        assert torch.equal(bias, torch.arange(len(bias), dtype=bias.dtype))


def test_channels_that_are_hidden_ones_in_some_designs_are_sorted_among_themselves(space: Space) -> None:
    # expand 1 or 2: in one design the depthwise convolution's channels are the stream's, in the other twice as many
    supernet = scrambled(Supernet.of(space), 10)
    sort_channels(supernet)
    readers = importance(supernet.shared["blocks.d_2.pointwise.conv.weight"])
    assert len(readers) == 64
    assert is_sorted(readers[32:])
    assert not is_sorted(readers)
