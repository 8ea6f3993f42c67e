from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from chain import Here, edgemtl, environment, in_process, make_workplace
from PIL import Image
from two_heads import bundle_in

from edgemtl.cli.run import _names
from edgemtl.nas.runs import RunFolder, front_designs
from edgemtl.nas.search.request import STEPS_IN_BF16, STEPS_IN_FP32
from edgemtl.profiling import percentile
from edgemtl.spaces import NearDesigns, load_space
from edgemtl.train import Recipe, training_processes

TASKS = {"regions", "depth", "side"}
TINY = ("--space", "tiny", "--data", "data")
TRAIN = ("train", *TINY, "--steps", "12", "--batch", "4", "--sizes", "1")
SEARCH = ("search", *TINY, "--supernet", "runs/supernet/supernet.safetensors", "--evaluations", "4", "--finetune", "4")


def value(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON value of standard output, of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    make_workplace(folder)
    return folder


@pytest.fixture(scope="module")
def trained(workplace: Path) -> Any:
    return value(edgemtl(workplace, *TRAIN, "--out", "runs/supernet", "--format", "json"))


@pytest.fixture(scope="module")
def searched(workplace: Path, trained: Any) -> Any:
    done = edgemtl(workplace, *SEARCH, "--budget", "60%FLOPs", "--out", "runs/first", "--format", "json")
    return {"result": value(done), "notes": done.stderr}


@pytest.fixture(scope="module")
def exported(workplace: Path, searched: Any) -> Any:
    return value(edgemtl(workplace, "export", "runs/first", "--target", "onnxruntime", "--format", "json"))


def test_training_writes_its_scores_and_says_where(workplace: Path, trained: Any) -> None:
    assert set(trained["validation"]["largest"]) == TASKS
    assert trained == json.loads((workplace / "runs/supernet/training.json").read_text())
    assert (workplace / "runs/supernet/supernet.safetensors").stat().st_size > 10_000


def test_a_finished_training_is_not_run_again(workplace: Path, trained: Any, here: Here) -> None:
    file = workplace / "runs/supernet/supernet.safetensors"
    before = file.stat().st_mtime_ns
    words = (*TRAIN, "--out", "runs/supernet")
    status, _, errors = here(*words)
    assert status == 1 and "--resume" in errors
    status, output, _ = here(*words, "--resume", "--format", "json")
    assert status == 0 and json.loads(output) == trained
    assert file.stat().st_mtime_ns == before
    status, _, errors = here(*words, "--resume", "--seed", "5", "--batch", "8")
    assert status == 1 and "was trained with another recipe: batch 4 (here 8), seed 0 (here 5); give that" in errors


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: {},
        lambda found: {"largest": 3},
        lambda found: {"smallest": found["largest"]},
        lambda found: {**found, "smallest": {}},
        lambda found: {"largest": {task: {"rmse": "x"} for task in found["largest"]}},
    ],
)
def test_a_damaged_record_of_a_training_is_one_line(
    workplace: Path, trained: Any, here: Here, damage: Callable[[Any], Any]
) -> None:
    record = workplace / "runs/supernet/training.json"
    whole = record.read_text()
    record.write_text(json.dumps({**trained, "validation": damage(trained["validation"])}))
    try:
        status, _, errors = here(*TRAIN, "--out", "runs/supernet", "--resume")
    finally:
        record.write_text(whole)
    assert status == 1 and "training.json is damaged, or no record of a training: choose another --out" in errors


def test_the_search_keeps_its_budget_and_prints_its_result(workplace: Path, searched: Any) -> None:
    result = searched["result"]
    assert result == json.loads((workplace / "runs/first/result.json").read_text())
    baseline = next(entry for entry in result["front"] if entry["kind"] == "baseline")
    assert result["feasible"] and result["best"]["flops"] <= 0.6 * baseline["flops"]
    assert set(result["best"]["metrics"]) == TASKS
    assert "Before the search" in searched["notes"] and "designs evaluated: 4/4" in searched["notes"]


def test_a_finished_search_is_read_again_where_that_is_asked_for(workplace: Path, searched: Any, here: Here) -> None:
    words = (*SEARCH, "--budget", "60%FLOPs", "--out", "runs/first")
    status, _, errors = here(*words)
    assert status == 1 and "--resume" in errors
    status, output, _ = here(*words, "--resume")
    assert status == 0 and "Pareto front" in output


def test_a_resumed_search_trains_its_design_for_as_many_steps_as_it_was_begun_with(searched: Any, here: Here) -> None:
    """Not for this processor's own number, which would be another run's."""
    assert "--finetune" not in SEARCH[:-2]
    status, output, _ = here(*SEARCH[:-2], "--budget", "60%FLOPs", "--out", "runs/first", "--resume")
    assert status == 0 and "Pareto front" in output


def test_a_resumed_search_trains_in_as_many_processes_as_it_was_begun_with(
    searched: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And computes in what it began with: how fast BF16 is on a busy machine differs from one time to the next."""
    threads, config = torch.get_num_threads(), Path("runs/first/config.json").read_text()
    in_bf16 = json.loads(config)["finetune"]["bf16"]
    monkeypatch.setattr(Recipe, "computes_bf16", lambda self: not in_bf16)
    torch.set_num_threads(2)
    try:
        assert training_processes() == 2, "what a search that begins now would take"
        status, output, _ = here(*SEARCH, "--budget", "60%FLOPs", "--out", "runs/first", "--resume")
    finally:
        torch.set_num_threads(threads)
    assert status == 0 and "Pareto front" in output
    assert isinstance(in_bf16, bool) and Path("runs/first/config.json").read_text() == config


def test_the_help_says_how_long_designs_are_trained_by_default(here: Here) -> None:
    _, shown, _ = here("search", "--help")
    text = " ".join(shown.split())
    assert f"{STEPS_IN_BF16} where BF16 trains faster than FP32, {STEPS_IN_FP32} elsewhere" in text


def test_another_budget_is_answered_from_a_finished_search(workplace: Path, searched: Any, here: Here) -> None:
    """What is not given is as it was; the run is one like any other, and says which it is from."""
    words = ("search", "--from", "runs/first")
    budget = "59%FLOPs"  # which three of the four designs that its seed draws for 60 % keep
    status, output, _ = here(*words, "--budget", budget, "--out", "runs/second", "--format", "json")
    result = json.loads(output)
    assert status == 0 and result["feasible"]
    assert result["origin"]["run"] == "runs/first"
    assert (result["space"], result["budgets"]) == ("tiny", [budget])
    assert result["front"][-1]["metrics"] == searched["result"]["front"][-1]["metrics"]
    assert here("report", "runs/second", "--out", "second.html")[0] == 0
    assert "from runs/first: its " in (workplace / "second.html").read_text()
    status, _, errors = here(*words, "--data", "scenes", "--out", "runs/third")
    assert status == 1 and len(errors.splitlines()) == 1 and "is of another data (data, here scenes), so that" in errors


NEAR = (
    "train", *TINY, "--near", "runs/first", "--weights", "runs/supernet/supernet.safetensors", "--steps", "4",
    "--batch", "2", "--sizes", "1",
)  # fmt: skip


def test_a_training_near_a_search_s_front_has_a_recipe_of_its_own(workplace: Path, searched: Any, here: Here) -> None:
    """In two processes, each of which finds the same front; what it gives is a supernet like any other."""
    words = (*NEAR, "--processes", "2", "--out", "runs/near")
    record = value(in_process(workplace, *words, "--format", "json"))
    space = load_space("tiny", RunFolder(Path("runs/first")).space().tasks)
    front = front_designs(Path("runs/first"), space)
    assert front and record["recipe"]["near"] == NearDesigns(space, front).drawn
    assert record["fingerprint"] == space.fingerprint
    first = workplace / "runs/supernet/supernet.safetensors"
    assert record["begun_with_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    status, shown, _ = here(*words, "--near", "runs/first", "--resume", "--format", "json")
    assert status == 0 and json.loads(shown) == record, "a run that is given twice is one front"
    above = f"{max(each.cost().flops for each in front) / 1e6:.6f}MFLOPs"
    status, _, errors = here(*words, "--near-above", above, "--resume")
    assert len(front) > 1 and status == 1 and "another recipe" in errors
    anywhere = [word for word in words if word not in ("--near", "runs/first")]
    status, _, errors = here(*anywhere, "--resume")
    assert status == 1 and "another recipe" in errors


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--near", "runs/supernet"), "runs/supernet is no run"),
        (("--near", "runs/nowhere"), "runs/nowhere is no run"),
        (("--near", "runs/first", "--space", "cnn"), "run runs/first searched another space than 'cnn'"),
        (("--near", "runs/first", "--run", "runs/first"), "--near runs/first does not go with --run"),
        (("--near", "runs/first", "--near-above", "9GFLOPs"), "--near-above 9GFLOPs: the designs of these fronts have"),
        (("--near", "runs/first", "--near-above", "2ms"), "--near-above 2ms: give the FLOPs of whole designs"),
        (("--near-above", "1GFLOPs"), "which designs of --near RUN are meant"),
    ],
)
def test_what_nothing_can_be_drawn_near_is_one_line(
    workplace: Path, searched: Any, here: Here, words: tuple[str, ...], reason: str
) -> None:
    own = () if "--run" in words else TINY
    status, output, errors = here("train", *own, "--steps", "4", "--out", "refused", *words)
    assert (status, output) == (1, "") and reason in errors and len(errors.splitlines()) == 1
    assert not (workplace / "refused").exists()


def test_a_budget_below_the_smallest_design_names_what_that_takes(workplace: Path, trained: Any, here: Here) -> None:
    status, output, errors = here(*SEARCH, "--budget", "1kFLOPs", "--out", "runs/none")
    assert (status, output) == (1, "")
    assert errors.splitlines()[-1].startswith("error: budget '1kFLOPs' allows 1.00 kFLOPs")
    assert "smallest design of space tiny takes" in errors


def test_a_bundle_is_checked_in_every_task(exported: Any) -> None:
    """In FP32 as far as the manifest allows; INT8 of a net of twelve steps is some 7 % away, another net 100 %."""
    parity = exported["targets"]["onnxruntime"]["parity"]
    assert set(parity) == TASKS
    for each in parity.values():
        allowed = each["difference_allowed"] or 0.2
        assert all(output["relative_error"] < allowed for output in each["outputs"].values())


def test_plain_files_are_written_beside_the_bundle(workplace: Path, exported: Any, here: Here) -> None:
    words = ("export", "runs/first", "--target", "onnxruntime", "--layout", "plain", "--tasks", "depth,side")
    status, output, _ = here(*words, "--with-normalisation", "--with-postprocessing")
    assert status == 0 and "runs/first/plain/README.md says how to open it" in output
    model = workplace / "runs/first/plain/engines/onnxruntime/model.onnx"
    pixels = np.asarray(Image.open(workplace / "data/images/test/test0.png").convert("RGB"))
    depth, side = ort.InferenceSession(model).run(["depth", "side"], {"image": pixels[None]})
    assert depth.shape == (1, 64, 64) and 0.5 < np.median(depth) < 10 and side.sum() == pytest.approx(1)
    status, _, errors = here("run", "runs/first/plain", "data/images/test/test0.png")
    assert status == 1 and "layout plain" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--tasks", "depth"), "--tasks is for files of fixed tasks"),
        (("--with-postprocessing",), "add --layout plain"),
        (("--layout", "plain", "--tasks", "dept"), "did you mean depth"),
        (("--layout", "plain", "--levels", "3"), "layout plain"),
        (("--layout", "plain", "--target", "streaming"), "edgemtl alone can open"),
    ],
)
def test_what_no_plain_file_can_be_is_one_line(
    workplace: Path, searched: Any, here: Here, words: tuple[str, ...], reason: str
) -> None:
    status, output, errors = here("export", "runs/first", "--out", "refused", *words)
    assert (status, output) == (1, "") and reason in errors and len(errors.splitlines()) == 1
    assert not (workplace / "refused").exists()


def test_a_profile_is_measured_and_written(workplace: Path, exported: Any) -> None:
    found = value(edgemtl(workplace, "profile", "runs/first/bundle", "--runs", "20", "--format", "json"))
    assert found == json.loads((workplace / "runs/first/bundle/profile.json").read_text())
    assert set(found["task_costs"]) == TASKS
    words = ("profile", "runs/first/bundle", "--runs", "20", "--tasks", "depth", "--out", "depth.json")
    shown = in_process(workplace, *words)
    assert shown.returncode == 0 and "measured latency" in shown.stdout
    assert json.loads((workplace / "depth.json").read_text())["tasks"] == ["depth"]


def test_a_report_is_one_page(workplace: Path, exported: Any) -> None:
    for command, path in ((edgemtl, "runs/first"), (in_process, "runs/first/bundle")):
        page = Path(workplace, value(command(workplace, "report", path, "--format", "json"))["report"])
        text = page.read_text()
        assert text.startswith("<!doctype html>") and "regions" in text
        assert "http://" not in text.replace("http://www.w3.org", "") and "<script" not in text


def test_predictions_are_drawn(workplace: Path, exported: Any) -> None:
    images = ["data/images/test/test0.png", "data/images/test/test1.png"]
    done = edgemtl(workplace, "run", "runs/first/bundle", *images, "--out", "seen", "--format", "json")
    found = value(done)
    assert [each["image"] for each in found] == images
    for each in found:
        assert set(each["tasks"]) == TASKS
        assert (workplace / each["tasks"]["depth"]["picture"]).is_file()
        assert each["tasks"]["side"]["class"] in ("left", "right")
    one = value(in_process(workplace, "run", "runs/first/bundle", images[0], "--tasks", "depth", "--format", "json"))
    assert set(one[0]["tasks"]) == {"depth"}


def test_a_missing_or_damaged_image_is_named(workplace: Path, exported: Any, here: Here) -> None:
    (workplace / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("none.png", "broken.png"):
        status, _, errors = here("run", "runs/first/bundle", name)
        assert status == 1 and name in errors and len(errors.splitlines()) == 1
    status, _, errors = here("run", "runs/first/bundle", "broken.png", "--tasks", "dept")
    assert status == 1 and "did you mean depth" in errors


def test_images_of_all_sizes_are_drawn_and_those_that_cannot_be_read_are_named(
    workplace: Path, exported: Any, here: Here
) -> None:
    small, folder = workplace / "data/images/test/test0.png", workplace / "mixed"
    (folder / "again").mkdir(parents=True)
    for number, size in enumerate([(1, 1), (640, 17), (90, 200)]):
        Image.open(small).resize(size).save(folder / f"{number}.png")
    (folder / "again/0.jpg").write_bytes(b"no picture")
    Image.open(small).save(folder / "again/1.png")
    Image.open(small).convert("I;16").save(folder / "deep.png")
    names = ["0.png", "again/0.jpg", "1.png", "again/1.png", "deep.png", "2.png", "none.png"]
    words = ("run", "runs/first/bundle", *(f"mixed/{name}" for name in names), "--out", "drawn")
    status, output, errors = here(*words, "--format", "json")
    drawn = ["0.png", "1.png", "again/1.png", "2.png"]
    assert [each["image"] for each in json.loads(output)] == [f"mixed/{name}" for name in drawn]
    assert status == 1 and len(errors.splitlines()) == 1
    for name in ("again/0.jpg", "deep.png", "none.png"):
        assert f"mixed/{name}: " in errors
    assert "3 of 7 images cannot be read, the others are drawn" in errors
    depths = {f"{stem}-depth.png" for stem in ("0", "1", "1-2", "2")}
    assert depths == {path.name for path in (workplace / "drawn").glob("*-depth.png")}
    status, output, errors = here("run", "runs/first/bundle", "mixed/deep.png", "mixed/none.png", "--out", "nothing")
    assert (status, output) == (1, "") and "2 of 2 images cannot be read, nothing is drawn" in errors
    status, output, errors = here(*words, "--schedule", "depth:20", "--seconds", "1")
    assert (status, output) == (1, "") and "mixed/again/0.jpg: " in errors and len(errors.splitlines()) == 1


def test_pictures_never_share_a_name() -> None:
    images = [Path(name) for name in ("a.png", "b/a.png", "a-2.png", "c/a.jpg", "d/a-2.png")]
    assert _names(images) == ["a", "a-3", "a-2", "a-4", "a-2-2"]


RATES = ("run", "runs/first/bundle", "data/images/test/test0.png", "data/images/test/test1.png", "--schedule")


def test_tasks_run_at_rates_of_their_own(workplace: Path, exported: Any, here: Here) -> None:
    words = (*RATES, "depth:20,side:10", "--seconds", "1", "--threads", "1", "--out", "rates")
    status, output, errors = here(*words, "--format", "json")
    found = json.loads(output)
    assert status == 0 and found == json.loads((workplace / "rates/schedule.json").read_text())
    assert "jobs: 30/30" in errors and "decoded and normalised before" in errors
    assert not found["interrupted"] and found["images"] == 2
    call_ms = found["demand"]["call_ms"]
    assert set(call_ms) == {"depth+side", "depth"}
    assert found["demand"]["utilisation"] == pytest.approx(10 * sum(call_ms.values()) / 1000)
    busy_s = [call["end_s"] - call["start_s"] for call in found["calls"]]
    assert 0 < found["busy_share"] == pytest.approx(sum(busy_s) / found["elapsed_s"]) and min(busy_s) > 0
    assert {task: each["released"] for task, each in found["tasks"].items()} == {"depth": 20, "side": 10}
    for each in found["tasks"].values():
        assert each["released"] == each["done"] + each["skipped"] + each["pending"]
        samples = each["latency_ms"]["samples"]
        assert len(samples) == each["latency_ms"]["n"] == each["done"] > 0
        assert each["latency_ms"]["max"] == max(samples) and each["latency_ms"]["p99"] is None
        assert each["latency_ms"]["p50"] == percentile(samples, 0.5)
    assert sum(len(call["tasks"]) for call in found["calls"]) == sum(each["done"] for each in found["tasks"].values())
    assert (workplace / "rates/schedule.svg").read_text().startswith("<svg ")


def test_what_cannot_be_kept_is_said_before_and_is_no_error(workplace: Path, here: Here) -> None:
    """Of a net of 0.7 GFLOPs, which no processor runs ten thousand times a second on one thread."""
    bundle_in(workplace / "large", 256)
    rates = {"depth": 10_000, "edges": 9_999}
    text = ",".join(f"{task}:{rate}" for task, rate in rates.items())
    words = ("run", "large", *RATES[2:], text, "--seconds", "0.3", "--threads", "1", "--out", "flood")
    status, output, errors = here(*words)
    assert status == 0
    warning = next(line for line in errors.splitlines() if line.startswith("warning: "))
    assert "cannot be kept: at most depth:" in warning
    rows = [line.split() for line in output.splitlines() if line.split()[:1] and line.split()[0] in rates]
    assert [(row[0], int(row[1])) for row in rows] == list(rates.items())
    assert all(float(row[2]) < float(row[1]) for row in rows) and sum(int(row[5]) for row in rows) > 0
    assert "deadlines were missed, which is no error" in output
    assert (workplace / "flood/schedule.svg").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("dept:30",), "did you mean depth"),
        (("depth",), "TASK:HZ"),
        (("depth:0",), "not above 0"),
        (("depth:3", "--seconds", "nan"), "nan seconds"),
        (("depth:3", "--seconds", "-1"), "-1 seconds"),
    ],
)
def test_a_schedule_that_cannot_run_is_one_line(
    workplace: Path, exported: Any, here: Here, words: tuple[str, ...], reason: str
) -> None:
    status, output, errors = here(*RATES, *words, "--out", "refused")
    assert (status, output) == (1, "") and reason in errors and len(errors.splitlines()) == 1
    assert not (workplace / "refused").exists()


def test_ctrl_c_ends_a_schedule_and_what_ran_is_kept(workplace: Path, exported: Any) -> None:
    words = (*RATES, "depth:20", "--seconds", "600", "--out", "cut", "--format", "json")
    command = [sys.executable, "-m", "edgemtl", *words]
    with subprocess.Popen(
        command, cwd=workplace, env=environment(workplace), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert "jobs: " in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("interrupted: cut/schedule.svg and cut/schedule.json hold the ")
    found = json.loads(output)
    assert found["interrupted"] and found["tasks"]["depth"]["done"] > 0 and found["elapsed_s"] < 600
    assert found == json.loads((workplace / "cut/schedule.json").read_text())
    assert (workplace / "cut/schedule.svg").is_file()


def test_two_runs_are_compared(workplace: Path, exported: Any, here: Here) -> None:
    status, output, _ = here("compare", "runs/first", "runs/first")
    assert status == 0 and "FLOPs" in output
    status, output, _ = here("compare", "runs/first", "runs/first", "--format", "json")
    rows = json.loads(output)["rows"]
    assert status == 0 and rows and all(row["ratio"] in (None, 1.0) for row in rows)


def test_a_bundle_that_was_touched_is_refused(workplace: Path, exported: Any, tmp_path: Path, here: Here) -> None:
    copy = shutil.copytree(workplace / "runs/first/bundle", tmp_path / "bundle")
    engine = next(copy.rglob("*.onnx"))
    engine.write_bytes(engine.read_bytes()[:-7])
    status, _, errors = here("run", str(copy), "data/images/test/test0.png")
    assert status == 1 and engine.name in errors


def test_ctrl_c_says_what_is_kept_and_the_line_goes_on(workplace: Path) -> None:
    words = ("train", *TINY, "--steps", "400", "--batch", "4", "--sizes", "1", "--out", "runs/cut")
    command = [sys.executable, "-m", "edgemtl", *words]
    with subprocess.Popen(
        command, cwd=workplace, env=environment(workplace), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        _wait_for(workplace / "runs/cut/train.jsonl", process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    last = errors.splitlines()[-1]
    assert (process.returncode, output) == (130, "")
    assert last.startswith("interrupted: a checkpoint is kept in runs/cut") and last.endswith("--resume")
    assert "Traceback" not in errors
    assert (workplace / "runs/cut/checkpoint.safetensors").is_file()
    assert not (workplace / "runs/cut/supernet.safetensors").exists()
    assert not list((workplace / "runs/cut").glob(".*"))


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until, os.fspath(path)
        time.sleep(0.1)
