from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import SMALL, scrambled

from edgemtl.errors import UserError
from edgemtl.models import Supernet, load_matching, save_supernet
from edgemtl.spaces import Space, load_space
from edgemtl.tasks import Task, make_task

THERE = (
    make_task("semseg", "segmentation", classes=("a", "b", "c")),
    make_task("depth", "depth"),
    make_task("edges", "edges"),
)
HERE = (
    make_task("semseg", "segmentation", classes=("road", "sky")),
    make_task("depth", "depth"),
    make_task("weather", "classification", classes=("dry", "rain")),
)


def saved(space: Space, supernet: Supernet, path: Path) -> Path:
    header = {"space": space.name, "fingerprint": "x", "tasks": [task.name for task in space.tasks]}
    save_supernet(supernet, path, header)
    return path


def spaces(folder: Path, *tasks: tuple[Task, ...], text: str = SMALL) -> list[Space]:
    (folder / "small.yaml").write_text(text)
    return [load_space(str(folder / "small.yaml"), each) for each in tasks]


@pytest.mark.parametrize("name", ["small", "moe-vit"])
def test_the_trunk_and_what_matches_of_the_tasks_is_taken(name: str, tmp_path: Path) -> None:
    there, here = spaces(tmp_path, THERE, HERE)
    if name != "small":
        there, here = (load_space(name, tasks, (64, 64)) for tasks in (THERE, HERE))
    source, supernet = scrambled(Supernet.of(there), 1), scrambled(Supernet.of(here), 2)
    before = {key: value.detach().clone() for key, value in supernet.shared.items()}
    matched = load_matching(supernet, saved(there, source, tmp_path / "s.safetensors"))
    trunk = "the trunk without last" if name == "small" else "the trunk"  # only classes of whole images read it
    assert matched.taken == (trunk, "semseg without semseg_head", "depth")
    assert matched.left[-3].startswith("semseg_head begins anew ((")
    assert matched.left[-2:] == (
        "weather begins anew (the file has no such task)",
        "edges is left in the file (no task of this data set)",
    )
    for key, value in supernet.shared.items():
        own = "weather" in key or "semseg_head" in key or "last" in key
        expected = before[key] if own else source.shared[key].half().float()
        assert torch.equal(value, expected), key


def test_another_trunk_is_refused_and_nothing_is_filled(tmp_path: Path) -> None:
    (there,) = spaces(tmp_path, THERE)
    (here,) = spaces(tmp_path, HERE, text=SMALL.replace("stem: {width: [8, 16]}", "stem: {width: [8, 24]}"))
    supernet = scrambled(Supernet.of(here), 2)
    before = {key: value.detach().clone() for key, value in supernet.shared.items()}
    with pytest.raises(
        UserError, match=r"trained for space 'small' and has another trunk: blocks\.\S+ is .* is wanted"
    ):
        load_matching(supernet, saved(there, Supernet.of(there), tmp_path / "s.safetensors"))
    assert all(torch.equal(before[key], value) for key, value in supernet.shared.items())


def test_a_task_of_the_same_name_and_another_kind_begins_anew(tmp_path: Path) -> None:
    swapped = (make_task("semseg", "regression", 2), HERE[1])
    there, here = spaces(tmp_path, THERE, swapped)
    matched = load_matching(Supernet.of(here), saved(there, Supernet.of(there), tmp_path / "s.safetensors"))
    assert matched.taken == ("the trunk without last", "depth")
    assert matched.left[1].startswith("semseg begins anew (")
