from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgemtl.data import Split, collate, open_source
from edgemtl.data.scenes import ScenesSource, render
from edgemtl.data.scenes import source as module
from edgemtl.errors import UserError

SIZE = (24, 32)


def small(**counts: int) -> ScenesSource:
    return ScenesSource(SIZE, **{"train": 6, "calibration": 2, "validation": 2, "test": 2, **counts})


def test_samples_are_the_rendered_frames() -> None:
    seeds: dict[Split, int] = {"train": 3, "calibration": 1_000_001, "validation": 2_000_001, "test": 3_000_001}
    for split, seed in seeds.items():
        sample = small().split(split)[seed % 1_000_000]
        frame = render(seed, *SIZE)
        assert np.array_equal(sample.image, frame.rgb)
        assert np.array_equal(sample.targets["semseg"], frame.semseg)
        assert np.array_equal(sample.targets["edges"], frame.edges)
        assert np.allclose(sample.targets["depth"], frame.depth, rtol=1e-3)
        assert np.degrees(np.arccos(np.clip((sample.targets["normals"] * frame.normals).sum(-1), -1, 1))).max() < 0.6
        assert np.allclose(np.linalg.norm(sample.targets["normals"], axis=-1), 1, atol=1e-6)


def test_types_are_those_of_the_contract_and_every_pixel_is_valid() -> None:
    source = small()
    sample = source.split("train")[0]
    kinds = {"semseg": np.int64, "depth": np.float32, "normals": np.float32, "edges": np.float32}
    assert {task.name: sample.targets[task.name].dtype for task in source.tasks} == kinds
    for task in source.tasks:
        assert task.dense
        assert sample.masks[task.name].shape == SIZE
        assert sample.masks[task.name].all()
    sample.image[0] = 0  # a sample is the caller's own
    assert small().split("train")[0].image[0].any()
    assert collate(source.split("train")[:2]).image.shape == (2, 3, *SIZE)


def test_splits_have_their_sizes_and_never_share_an_image() -> None:
    source = small()
    images = [
        sample.image.tobytes()
        for split in ("train", "calibration", "validation", "test")
        for sample in source.split(split)
    ]
    assert len(images) == 12
    assert len(set(images)) == 12
    with pytest.raises(IndexError):
        source.split("test")[2]
    assert np.array_equal(source.split("test")[-1].image, source.split("test")[1].image)


def test_a_filled_cache_is_read_and_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = small().split("train")[2]
    monkeypatch.setattr(module, "render", None)
    assert np.array_equal(small(train=4).split("train")[2].image, first.image)
    again = pickle.loads(pickle.dumps(small().split("train")))
    assert np.array_equal(again[2].targets["depth"], first.targets["depth"])


def test_another_renderer_has_another_cache_and_fingerprint(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    one = small().fingerprint
    assert one == small().fingerprint
    assert one != small(train=7).fingerprint
    assert one != ScenesSource((24, 40), 6, 2, 2, 2).fingerprint
    small().split("train")[0]
    monkeypatch.setattr(module, "RENDERER_VERSION", "another")
    assert small().fingerprint != one
    small().split("train")[0]
    assert len(list(own_cache.iterdir())) == 2


def test_prepare_resumes_and_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = small(train=20)
    source.split("train")[9]
    rendered: list[int] = []
    real = render

    def counting(seed: int, height: int, width: int) -> object:
        rendered.append(seed)
        if len(rendered) == 13:
            raise KeyboardInterrupt
        return real(seed, height, width)

    monkeypatch.setattr(module, "render", counting)
    calls: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        source.prepare("train", report=lambda news: calls.append((news.done, news.total)))
    assert calls == [(1, 20), (9, 20)]
    source.prepare("train", report=lambda news: calls.append((news.done, news.total)))
    assert calls[-1] == (20, 20)
    assert calls[2] == (13, 20)
    assert sorted(rendered[:12] + rendered[13:]) == [seed for seed in range(20) if seed != 9]


def test_processes_fill_the_same_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    source = small(train=17)
    calls: list[int] = []
    source.prepare("train", workers=2, report=lambda news: calls.append(news.done))
    assert calls[-1] == 17
    assert calls == sorted(calls)
    monkeypatch.setattr(module, "render", None)
    assert len({sample.image.tobytes() for sample in small(train=17).split("train")}) == 17


SCRIPT = """
from edgemtl.data.scenes import ScenesSource
if __name__ == "__main__":
    source = ScenesSource((24, 32), train=3000)
    source.prepare("train", workers=2, report=lambda news: print(news.done, flush=True))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_an_interrupt_ends_every_process_and_the_next_run_goes_on(tmp_path: Path, own_cache: Path) -> None:
    script = tmp_path / "fill.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    while int(run.stdout.readline()) < 16:
        pass
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = run.communicate(timeout=120)  # returns when the last process that holds its output has ended
    assert run.returncode != 0
    assert errors.count("Traceback") == 1  # the parent's KeyboardInterrupt, nothing from the workers
    assert errors.rstrip().endswith("KeyboardInterrupt")
    calls: list[int] = []
    small(train=40).prepare("train", report=lambda news: calls.append(news.done))
    assert calls[0] >= 16
    assert calls[-1] == 40


def test_two_runs_at_once_fill_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fill.py"
    script.write_text(SCRIPT.replace("3000", "40").replace("workers=2", "workers=1"))
    runs = [subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0]
    frames = [render(seed, *SIZE).rgb for seed in (0, 39)]
    monkeypatch.setattr(module, "render", None)
    split = small(train=40).split("train")
    assert len({sample.image.tobytes() for sample in split}) == 40
    assert np.array_equal(split[0].image, frames[0])
    assert np.array_equal(split[39].image, frames[1])


def test_a_damaged_row_is_rendered_again(own_cache: Path) -> None:
    first = small().split("train")[0]
    path = next(own_cache.rglob("rgb.npy"))
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"\0" * 50)
    assert np.array_equal(small().split("train")[0].image, first.image)


def test_a_disk_without_the_space_is_refused_before_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(UserError, match=r"needs 0\.0 MB more for 6 images, .* set EDGEMTL_CACHE"):
        small().prepare("train")


def test_sizes_and_counts_outside_the_range_are_refused() -> None:
    with pytest.raises(UserError, match="4 x 32 pixels: height and width go from 8"):
        ScenesSource((4, 32))
    with pytest.raises(UserError, match="0 train images"):
        small(train=0)
    with pytest.raises(UserError, match="did you mean scenes"):
        open_source("scene", SIZE)
    assert open_source("scenes", SIZE).size == SIZE
    assert len(open_source("scenes", SIZE).split("train")) == 8192


DRAWN = (
    (0, 233836, [221, 240, 0, 28, 175, 0, 21, 0, 0, 11, 2, 2, 28, 1, 0, 39], 2581.7, [-126.4, -162.9, -404.0], 257),
    (7, 242415, [83, 63, 0, 32, 112, 0, 0, 408, 0, 41, 0, 0, 29], 1858.4, [-168.2, -80.6, -518.0], 255),
    (
        1000003,
        251608,
        [295, 46, 0, 20, 74, 46, 0, 57, 112, 0, 8, 65, 0, 5, 12, 28],
        3360.0,
        [51.3, -127.2, -432.0],
        284,
    ),
)
"""Of three frames of 24 x 32: sums of colours, pixels of each class, sums of depth, of normals and of edges."""


@pytest.mark.parametrize(("seed", "colours", "classes", "depth", "normals", "edges"), DRAWN)
def test_what_is_drawn_has_the_version_it_is_kept_under(
    seed: int, colours: int, classes: list[int], depth: float, normals: list[float], edges: int
) -> None:
    """Where this fails the renderer draws something else: give it another `RENDERER_VERSION`, and these sums."""
    assert module.RENDERER_VERSION == "0076015746b0"
    frame = render(seed, 24, 32)
    assert int(frame.rgb.astype(int).sum()) == pytest.approx(colours, abs=24)
    assert np.abs(np.bincount(frame.semseg.ravel(), minlength=len(classes)) - classes).max() <= 1
    assert float(frame.depth.sum()) == pytest.approx(depth, abs=2)
    assert frame.normals.reshape(-1, 3).sum(0) == pytest.approx(normals, abs=2)
    assert int(frame.edges.sum()) == pytest.approx(edges, abs=2)
