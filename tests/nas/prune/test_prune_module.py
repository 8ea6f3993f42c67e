"""A user's own module is pruned: what she gets back, and what she is told where it cannot be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.errors import UserError
from edgemtl.nas.prune import MODULE_FILE, FineTuning, PruneRequest, UserModule, apply_pruning, prune
from edgemtl.nas.prune.criterion import LossCriterion
from edgemtl.progress import Progress
from edgemtl.results import read_result
from edgemtl.runtime import open_engine
from edgemtl.tasks import by_tensor
from edgemtl.train import batches_of

NETS = '''
import torch
import torch.nn.functional as F
from torch import nn


def layer(inputs, outputs, stride=1, groups=1):
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Rooms(nn.Module):
    """A residual trunk with a depthwise convolution, and a head a task."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = layer(3, 16, 2), layer(16, 32, 2)
        self.deep = nn.Sequential(layer(32, 48), layer(48, 48, groups=48), nn.Conv2d(48, 32, 1))
        self.neck, self.depth = layer(32, 24), nn.Conv2d(24, 1, 1)
        self.pool, self.kind = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 2)

    def trunk(self, image):
        x = self.wide(self.stem(image))
        return x + self.deep(x)

    def kinds(self, x):
        return self.kind(torch.flatten(self.pool(x), 1))

    def forward(self, image):
        x = self.trunk(image)
        return {"depth": F.interpolate(self.depth(self.neck(x)), scale_factor=4.0, mode="bilinear"),
                "kind": self.kinds(x)}


class Scaled(Rooms):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 32)[None, :, None, None])

    def trunk(self, image):
        return self.gain * super().trunk(image)


class Odd(Rooms):
    """Concatenation, a transposed convolution, slopes, a flattened map, attention over tokens: nothing to export."""

    def __init__(self):
        super().__init__()
        self.both, self.slope = layer(48, 16), nn.PReLU(16)
        self.expand = nn.ConvTranspose2d(16, 8, 4, 4)
        self.depth = nn.Conv2d(8, 1, 1)
        self.small, self.kind = layer(32, 16, 4), nn.Linear(16 * 16, 2)
        self.tokens, self.norm = nn.MultiheadAttention(32, 4, batch_first=True), nn.LayerNorm(32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.parted = nn.Conv2d(32, 32, 3, 1, 1, groups=4)

    def forward(self, image):
        first = F.max_pool2d(self.stem(image), 2)
        x = self.trunk(image)
        depth = self.depth(self.expand(self.slope(self.both(torch.cat([first, x], 1)))))
        y = self.parted(x).flatten(2).transpose(1, 2)
        y = y + self.tokens(y, y, y, need_weights=False)[0]
        y = (y + self.mlp(self.norm(y))).transpose(1, 2).reshape(len(x), 32, 16, 16)
        return {"depth": depth, "kind": self.kind(self.small(y).flatten(1))}


class Flat(Rooms):
    """A flattened map and a gated one."""

    def __init__(self):
        super().__init__()
        self.small, self.kind = layer(32, 16, 4), nn.Linear(16 * 16, 2)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1))

    def kinds(self, x):
        return self.kind(self.small(x * torch.sigmoid(self.gate(x))).flatten(1))


class Says(Rooms):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, image):
        return self.change(super().forward(image))


def made(kind, *rest):
    torch.manual_seed(0)
    return kind(*rest)


def build(): return made(Rooms)
def odd(): return made(Odd)
def flat(): return made(Flat)
def scaled(): return made(Scaled)
def declared(): return made(Scaled), {"gain": 1}
def mistyped(): return made(Scaled), {"gian": 1}
def too_deep(): return made(Scaled), {"gain": 4}
def listed(): return made(Scaled), ["gain"]
def none(): return made(Scaled), {"gain": None}
def fails(): raise RuntimeError("no weights\\nwere found")
def text(): return "a net"
def tensor(): return made(Says, lambda out: out["depth"])
def lacks(): return made(Says, lambda out: {"deph": out["depth"], "kind": out["kind"]})
def more(): return made(Says, lambda out: {**out, "edges": out["depth"]})
def small(): return made(Says, lambda out: {**out, "depth": out["depth"][..., ::2, ::2]})
def detached(): return made(Says, lambda out: {**out, "depth": out["depth"].detach()})
def narrow(): return made(Says, lambda out: {**out, "kind": out["kind"][:, :1]})
'''
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ask(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PruneRequest:
    """A request to prune `nets:build` of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    Path("nets.py").write_text(NETS)
    Path("broken.py").write_text("import torhc\n")
    photos = str(home / "photos")
    return PruneRequest(UserModule("nets:build", photos, (64, 64)), tmp_path / "out", ("50%FLOPs",), fast=True)


def of(ask: PruneRequest, **changes: Any) -> PruneRequest:
    """A request with changes, those of the module among them."""
    given = {key: changes.pop(key) for key in ("module", "data", "size") if key in changes}
    return replace(ask, subject=replace(ask.subject, **given), **changes)


def own(name: str) -> nn.Module:
    """What a function of her code gives, evaluated as she would."""
    import nets  # type: ignore[import-not-found]

    made: Any = getattr(nets, name)()
    module: nn.Module = made[0] if isinstance(made, tuple) else made
    return module.eval()


def counted(module: nn.Module) -> tuple[int, int]:
    """FLOPs as torch counts them, and parameters."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(IMAGE)
    return counter.get_total_flops(), sum(p.numel() for p in module.parameters())


def pruning(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "pruning.json").read_text())
    return found


@pytest.mark.parametrize("fast", [True, False])
def test_a_pruned_module_keeps_its_budget_and_comes_back_to_its_owner(ask: PruneRequest, fast: bool) -> None:
    result = prune(replace(ask, fast=fast, tuning=FineTuning(2 if fast else 0, batch=2)))
    assert read_result(ask.out) == result
    assert ("finetuned" in pruning(ask.out)) == fast
    best, base = result.best, result.baseline
    assert best is not None and base is not None
    whole, narrow = own("build"), apply_pruning(own("build"), ask.out)
    assert counted(whole) == (base.flops, base.params)
    assert counted(narrow) == (best.flops, best.params)
    assert 0.25 * base.flops < best.flops <= 0.5 * base.flops
    rows = {row["group"]: row for row in pruning(ask.out)["groups"]}
    assert rows["wide.0"]["tasks"] == ["depth", "kind"]
    assert rows["neck.0"]["tasks"] == ["depth"]
    assert {"depth", "kind"}.isdisjoint(rows), "the outputs stay"
    assert rows["wide.0"]["convolutions"] == ["wide.0", "deep.2"]
    assert all(row["after"] % 8 == 0 and row["blocked_by"] in [*row["tasks"], None] for row in rows.values())
    assert best.paths["depth"].flops < best.flops == best.macs * 2
    with torch.no_grad():
        expected = narrow(IMAGE)
    session = open_engine(ask.out / "engine")
    for name, value in by_tensor(session.run(IMAGE.numpy(), ["depth", "kind"])).items():
        assert float((torch.from_numpy(value) - expected[name]).abs().max()) < 1e-4
    session.close()
    train: Callable[[Tensor], dict[str, Tensor]] = narrow.train()
    loss = train(torch.cat([IMAGE, IMAGE]))["depth"].sum()
    assert torch.autograd.grad(loss, list(narrow.get_submodule("stem").parameters()))


def test_layers_that_cannot_be_followed_stay_whole_and_are_named(ask: PruneRequest) -> None:
    result = prune(of(ask, module="nets:odd", budgets=("80%FLOPs",)))
    assert result.best is not None and result.baseline is not None
    assert result.best.flops <= 0.8 * result.baseline.flops
    record = pruning(ask.out)
    rows = {row["group"]: row for row in record["groups"]}
    assert {"stem.0", "both.0", "expand", "mlp.0", "deep.0.0"} <= rows.keys()
    assert rows["mlp.0"]["tasks"] == ["kind"]
    assert "grouped convolution" in record["whole"]["wide.0"]
    assert record["not_exported"] and not (ask.out / "engine").exists()
    narrow = apply_pruning(own("odd"), ask.out)
    with torch.no_grad():
        assert {name: tuple(v.shape) for name, v in narrow(IMAGE).items()} == {"depth": (1, 1, 64, 64), "kind": (1, 2)}
    assert sum(p.numel() for p in narrow.parameters()) == result.best.params
    assert result.best.latency_ms is None
    with pytest.raises(UserError, match="cannot be exported"):
        prune(of(ask, module="nets:odd", budgets=("50%ms",), out=ask.out.with_name("b")))


def test_a_flattened_map_and_a_gate_are_cut_with_their_channels(ask: PruneRequest) -> None:
    result = prune(of(ask, module="nets:flat"))
    rows = {row["group"]: row for row in pruning(ask.out)["groups"]}
    assert rows["small.0"]["tasks"] == rows["gate.1"]["tasks"] == ["kind"]
    assert rows["wide.0"]["convolutions"] == ["wide.0", "deep.2", "gate.3"]
    assert pruning(ask.out)["whole"].keys() == {"kind"}
    assert result.best is not None
    assert counted(apply_pruning(own("flat"), ask.out)) == (result.best.flops, result.best.params)


def test_a_declared_parameter_is_cut_with_its_channels(ask: PruneRequest) -> None:
    prune(of(ask, module="nets:declared"))
    narrow = apply_pruning(own("declared"), ask.out)
    trunk = next(row for row in pruning(ask.out)["groups"] if row["group"] == "wide.0")
    assert narrow.get_parameter("gain").shape == (1, trunk["after"], 1, 1)
    prune(of(ask, module="nets:none", out=ask.out.with_name("none")))
    assert "does not run" in pruning(ask.out.with_name("none"))["whole"]["wide.0"]


def test_a_second_budget_needs_no_second_map_and_a_kill_loses_nothing(ask: PruneRequest) -> None:
    prune(ask)
    stages = list[str]()
    prune(replace(ask, out=ask.out.with_name("b"), budgets=("70%params",)), lambda e: stages.append(e.text))
    assert not any(text in ("stem.0", "wide.0") for text in stages)

    def stop(event: Progress) -> None:
        if event.stage == "trial" and event.text.startswith("pass 2"):
            raise KeyboardInterrupt

    slow = replace(ask, out=ask.out.with_name("c"), fast=False)
    with pytest.raises(KeyboardInterrupt):
        prune(slow, stop)
    with pytest.raises(UserError, match="go on with --resume"):
        prune(slow)
    with pytest.raises(UserError, match="another budgets"):
        prune(replace(slow, resume=True, budgets=("40%FLOPs",)))
    config = (slow.out / MODULE_FILE).read_text()
    (slow.out / MODULE_FILE).write_text("[1]")
    with pytest.raises(UserError, match=r"has schema 'list', this version reads .*: choose another --out"):
        prune(replace(slow, resume=True))
    (slow.out / MODULE_FILE).write_text(config)
    tried = (slow.out / "trials.jsonl").read_text()
    first = prune(replace(slow, resume=True))
    assert (slow.out / "trials.jsonl").read_text().startswith(tried)
    assert prune(replace(slow, resume=True)) == first


def test_a_budget_in_ms_is_met_on_the_engine(ask: PruneRequest) -> None:
    result = prune(replace(ask, budgets=("300%ms",)))
    assert result.best is not None and result.baseline is not None
    assert result.best.flops > 0.9 * result.baseline.flops
    assert result.best.latency_ms is not None and result.best.latency_ms.value > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"module": "nets:buidl"}, "unknown function in module nets: 'buidl': did you mean build"),
        ({"module": "nets"}, "write package.module:function"),
        ({"module": "nest:build"}, "no Python module 'nest'"),
        ({"module": "broken:build"}, "importing broken failed: ModuleNotFoundError: No module named 'torhc'"),
        ({"module": "nets:fails"}, "nets:fails failed: RuntimeError: no weights were found"),
        ({"module": "nets:text"}, "returns a str: a torch.nn.Module is wanted"),
        ({"module": "nets:tensor"}, "returns a Tensor, not a dict of one tensor a task: depth, kind"),
        ({"module": "nets:lacks"}, "output of nets:lacks for task 'depth': did you mean deph"),
        ({"module": "nets:more"}, "'edges', which is no task of the data"),
        ({"module": "nets:small"}, r"output 'depth' is \(2, 1, 32, 32\) for 2 images of 64x64, not \(2, 1, 64, 64\)"),
        ({"module": "nets:narrow"}, r"output 'kind' is \(2, 1\)"),
        ({"module": "nets:detached"}, "output 'depth' depends on no parameter"),
        ({"module": "nets:scaled"}, r"cannot follow gain, .* return module, \{'gain': 1\}"),
        ({"module": "nets:mistyped"}, "'gian': did you mean gain"),
        ({"module": "nets:too_deep"}, "dimension 4 of parameter gain: 0 to 3"),
        ({"module": "nets:listed"}, "returns a list beside its module"),
        ({"size": (62, 64)}, r"output 'depth' is \(2, 1, 64, 64\) for 2 images of 62x64"),
        ({"budgets": ("1%FLOPs",)}, r"pruning reaches .* at the least"),
        ({"budgets": ("0.0001ms",)}, r"pruning reaches .* ms at the least"),
        ({"budgets": ()}, "no budget"),
        ({"budgets": ("dept:1MFLOPs",)}, "did you mean depth"),
        ({"floors": ("dept=2%",)}, "did you mean depth"),
        ({"data": "phtos"}, "data set"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_line(ask: PruneRequest, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        prune(of(ask, **changes))
    assert "\n" not in str(caught.value)
    assert not ask.out.exists()


def test_a_task_without_labels_to_decide_by_is_named(ask: PruneRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlabelled(criterion: LossCriterion) -> Any:
        batches = list(batches_of(criterion.source.split("calibration"), 4, tasks=criterion.source.tasks))
        return [replace(b, masks={name: mask & (name != "depth") for name, mask in b.masks.items()}) for b in batches]

    monkeypatch.setattr(LossCriterion, "_batches", property(unlabelled))
    with pytest.raises(UserError, match="no calibration image has a valid label of task 'depth'"):
        prune(ask)


def test_another_module_or_a_damaged_folder_is_refused(ask: PruneRequest) -> None:
    prune(ask)
    with pytest.raises(UserError, match=r"damaged, or of another module|unknown layer"):
        apply_pruning(nn.Sequential(nn.Conv2d(3, 8, 3)), ask.out)
    with pytest.raises(UserError, match="are not the weights of this module"):
        apply_pruning(own("declared"), ask.out)
    content = pruning(ask.out)
    for wrong in ([{"layer": "stem.0", "side": "outputs", "positions": [0, 99]}], [{"layer": "stem.0"}], 3):
        (ask.out / "pruning.json").write_text(json.dumps({**content, "kept": wrong}))
        with pytest.raises(UserError, match="damaged"):
            apply_pruning(own("build"), ask.out)
    (ask.out / "pruning.json").write_text(json.dumps({**content, "tolerance": 9}))
    with pytest.raises(UserError, match="was changed after edgemtl wrote it"):
        apply_pruning(own("build"), ask.out)
    (ask.out / "pruning.json").write_text(json.dumps(content))
    weights = bytearray((ask.out / "weights.safetensors").read_bytes())
    weights[-3] ^= 1
    (ask.out / "weights.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="their SHA-256 is another"):
        apply_pruning(own("build"), ask.out)
    (ask.out / "pruning.json").write_text("{}")
    with pytest.raises(UserError, match="holds no pruned module"):
        apply_pruning(own("build"), ask.out)
