from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from edgemtl.errors import UserError
from edgemtl.models import Supernet, load_pretrained
from edgemtl.spaces import Space, load_space
from edgemtl.tasks import make_task

TASKS = (make_task("depth", "depth"), make_task("kind", "classification", 4))
WIDTH, HEADS, HIDDEN, DEPTH, HEIGHT, ACROSS = 32, 2, 64, 2, 2, 3
SPACE = """\
schema: edgemtl.space/1
family: vit
input: [32, 48]
vit:
  width: 32
  head_width: 16
  heads: [2]
  depth: [2]
  hidden: [64]
  {experts}
  decoder: {{width: [8], depth: [1]}}
"""


def space(folder: Path, experts: str = "") -> Space:
    path = folder / "small-vit.yaml"
    path.write_text(SPACE.format(experts=experts))
    return load_space(str(path), TASKS)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A ViT in timm's key names, with the class token and positions that have no counterpart here."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 7, WIDTH),
        "patch_embed.proj": (WIDTH, 3, 16, 16),
        "norm": (WIDTH,),
        "head": (10, WIDTH),
    }
    for number in range(DEPTH):
        shapes |= {
            f"blocks.{number}.norm1": (WIDTH,),
            f"blocks.{number}.attn.qkv": (3 * WIDTH, WIDTH),
            f"blocks.{number}.attn.proj": (WIDTH, WIDTH),
            f"blocks.{number}.norm2": (WIDTH,),
            f"blocks.{number}.mlp.fc1": (HIDDEN, WIDTH),
            f"blocks.{number}.mlp.fc2": (WIDTH, HIDDEN),
        }
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) == 3:
            tensors[name] = torch.randn(shape)
        else:
            tensors[f"{name}.weight"] = torch.randn(shape) * 0.2
            tensors[f"{name}.bias"] = torch.randn(shape[0]) * 0.2
    return tensors


@pytest.fixture
def file(state: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "vit.safetensors"
    save_file(state, path)
    return path


def reference(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """Dosovitskiy et al. 2021 without class token and positions: (1, 3, H, W) to (1, tokens, width), normalised."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    for number in range(DEPTH):
        block = f"blocks.{number}"
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
        heads = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / (WIDTH // HEADS) ** 0.5
            heads.append(scores.softmax(-1) @ v[..., part])
        x = x + linear(torch.cat(heads, -1), f"{block}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    return norm(x, "norm")


def tokens_of(space: Space, file: Path, image: Tensor) -> Tensor:
    """What the top of the largest design is given for its map, after its own normalisation."""
    supernet = Supernet.of(space)
    load_pretrained(supernet, space.largest().plan, file)
    with torch.no_grad():
        for name, parameter in supernet.shared.items():
            if "patches.position" in name or ".routers." in name or ".gate." in name:
                parameter.zero_()  # the file knows neither places between tokens nor routers
        net, found = supernet.extract(space.largest()), []
        net.blocks["top"].map.register_forward_hook(lambda module, given, out: found.append(given[0]))
        net(image)
    return found[0]


@pytest.mark.parametrize(
    "experts",
    [
        "",
        "experts: {every: 2, count: 8, hidden: 16, kept: [8], top_k: [8]}",
        "experts: {every: 2, count: 8, hidden: 16, kept: [8], top_k: [8], renormalise: true}",
        "experts: {every: 2, count: 8, hidden: 16, kept: [8], top_k: [8], router: conditioned}",
    ],
)
def test_a_net_that_begins_with_a_vit_computes_what_it_computed(
    tmp_path: Path, state: dict[str, Tensor], file: Path, experts: str
) -> None:
    """With every expert for every token and even gates, parts of an MLP sum to the MLP."""
    image = torch.randn(1, 3, 32, 48)
    found = tokens_of(space(tmp_path, experts), file, image)
    assert torch.allclose(found, reference(state, image), atol=1e-4)


def test_weights_of_another_width_or_kind_are_refused(tmp_path: Path, state: dict[str, Tensor], file: Path) -> None:
    dense = space(tmp_path)
    narrow = tmp_path / "narrow.safetensors"
    save_file({**state, "blocks.1.mlp.fc1.weight": torch.zeros(48, WIDTH)}, narrow)
    with pytest.raises(UserError, match=r"narrow.safetensors do not fit .*b2.first.weight is \(48, 32\) there"):
        load_pretrained(Supernet.of(dense), dense.largest().plan, narrow)
    shallow = tmp_path / "shallow.safetensors"
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.")}, shallow)
    with pytest.raises(UserError, match=r"it lacks blocks\.1\.attn\.qkv\.weight"):
        load_pretrained(Supernet.of(dense), dense.largest().plan, shallow)
    uneven = space(tmp_path, "experts: {every: 2, count: 4, hidden: 24, kept: [4], top_k: [2]}")
    with pytest.raises(UserError, match="has 64 units, which experts of 24 do not divide"):
        load_pretrained(Supernet.of(uneven), uneven.largest().plan, file)
