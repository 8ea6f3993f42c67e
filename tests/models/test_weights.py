from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small import scrambled

from edgemtl.errors import UserError
from edgemtl.models import Supernet, load_supernet, read_header, save_supernet
from edgemtl.spaces import Space

HEADER = {"space": "small", "fingerprint": "abc", "tasks": ["semseg", "depth", "kind"], "recipe": {"steps": 3}}


@pytest.fixture(scope="module")
def supernet(space: Space) -> Supernet:
    return scrambled(Supernet.of(space), 4)


@pytest.fixture
def saved(supernet: Supernet, tmp_path: Path) -> Path:
    path = tmp_path / "supernet.safetensors"
    save_supernet(supernet, path, HEADER)
    return path


def test_a_file_gives_back_every_weight_in_half_precision(space: Space, supernet: Supernet, saved: Path) -> None:
    other = Supernet.of(space)
    header = load_supernet(other, saved, "abc")
    assert header == read_header(saved)
    assert {key for key in header if key.endswith("sha256")} == {"sha256", "weights_sha256"}
    assert {"schema": "edgemtl.supernet/1", **HEADER}.items() <= header.items()
    assert other.shared.keys() == supernet.shared.keys()
    for name, parameter in supernet.shared.items():
        assert torch.equal(other.shared[name], parameter.half().float())
    assert saved.stat().st_size < 2.2 * sum(p.numel() for p in supernet.parameters()) + 60_000


def test_what_was_loaded_is_saved_as_it_was(space: Space, saved: Path, tmp_path: Path) -> None:
    other = Supernet.of(space)
    load_supernet(other, saved, "abc")
    save_supernet(other, tmp_path / "again.safetensors", HEADER)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_weights_of_another_space_are_refused(space: Space, saved: Path) -> None:
    with pytest.raises(UserError, match="trained for space 'small' and tasks semseg, depth, kind"):
        load_supernet(Supernet.of(space), saved, "another")


@pytest.mark.parametrize("kept", [0, 5, 8, 400, 0.5, 0.999])
def test_a_truncated_file_is_refused(space: Space, saved: Path, kept: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept if kept >= 1 or kept == 0 else kept * len(content))])
    with pytest.raises(UserError, match="truncated"):
        load_supernet(Supernet.of(space), saved, "abc")


def test_a_damaged_header_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[20:30] = b"\xff" * 10
    saved.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_header(saved)


@pytest.mark.parametrize(
    "metadata", [None, {"edgemtl": "{}"}, {"edgemtl": "[1]"}, {"edgemtl": '{"schema": "other/1"}'}]
)
def test_a_foreign_safetensors_file_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata)
    with pytest.raises(
        UserError,
        match=r"has schema .*, this version reads 'edgemtl\.supernet/1': give a file that",
    ):
        read_header(path)


def test_a_header_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"edgemtl": "{schema"})
    with pytest.raises(UserError, match="damaged"):
        read_header(path)


@pytest.mark.parametrize("protocol", [2, 4, 5, "torch"])
def test_a_pickle_is_refused_and_never_read(tmp_path: Path, protocol: int | str) -> None:
    path, trace = tmp_path / "evil.safetensors", tmp_path / "trace"
    if isinstance(protocol, str):
        torch.save(_Touch(trace), path)
    else:
        path.write_bytes(pickle.dumps(_Touch(trace), protocol))
    with pytest.raises(UserError, match="is a pickle, which could run code"):
        read_header(path)
    assert not trace.exists()


class _Touch:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_other_tensors_than_the_space_s_are_refused(space: Space, supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "supernet.safetensors"
    header = {"edgemtl": '{"schema": "edgemtl.supernet/1", "fingerprint": "abc"}'}
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in supernet.shared.items()}
    first = next(iter(tensors))
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, path, header)
    with pytest.raises(UserError, match=r"lacks or adds tensors \(1 differ\)"):
        load_supernet(Supernet.of(space), path, "abc")
    save_file({**tensors, first: tensors[first].flatten()}, path, header)
    with pytest.raises(UserError, match="is wanted"):
        load_supernet(Supernet.of(space), path, "abc")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read supernet"):
        read_header(tmp_path / "none.safetensors")


def test_a_flipped_bit_and_numbers_that_are_none_are_refused(space: Space, saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1000] ^= 4
    (tmp_path / "flipped").write_bytes(content)
    with pytest.raises(UserError, match="was changed after edgemtl wrote it"):
        load_supernet(Supernet.of(space), tmp_path / "flipped", "abc")
    with safe_open(saved, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["edgemtl"])  # noqa: SIM118
    del header["sha256"]
    name = next(iter(tensors))
    for change, expected in (
        (lambda tensor: tensor * float("nan"), "holds NaN or infinity"),
        (lambda tensor: tensor.int(), "of floats is wanted"),
    ):
        save_file({**tensors, name: change(tensors[name])}, tmp_path / "other", {"edgemtl": json.dumps(header)})
        with pytest.raises(UserError, match=expected):
            load_supernet(Supernet.of(space), tmp_path / "other", "abc")
