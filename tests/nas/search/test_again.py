"""Another budget, floor or preference from a finished run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from edgemtl.data import open_source
from edgemtl.nas.evaluation import Evaluator
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search import Preflight, SearchRequest, as_before, search
from edgemtl.progress import Progress
from edgemtl.results import read_result
from edgemtl.spaces import load_space
from edgemtl.testing.world import write_data, write_supernet

pytestmark = pytest.mark.usefixtures("ask")  # the working directory


@pytest.fixture(scope="module")
def first(home: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchRequest:
    """A finished search without a limit, timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        request = SearchRequest(
            tmp_path_factory.mktemp("runs") / "first", space="tiny", data="photos", strategy="random", seed=3,
            evaluations=8, batch=2, threads=1, finalists=1, finetune=0,
            latency="measured", supernet=home / "supernet.safetensors",
        )  # fmt: skip
        search(request)
    return request


def again(first: SearchRequest, out: Path, **changes: Any) -> SearchRequest:
    """As on the command line: what is not given is as it was."""
    given = {"out": out, "origin": first.out, "supernet": first.supernet, "evaluations": 0, **changes}
    return as_before(SearchRequest(**given), given["origin"], {*given})


def test_another_budget_takes_what_is_known_and_measures_nothing_else(
    first: SearchRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*given: object) -> None:
        raise AssertionError("a design was evaluated or timed")

    monkeypatch.setattr(Evaluator, "evaluate", measure)
    monkeypatch.setattr(Evaluator, "time", measure)
    before, out = read_result(first.out), tmp_path / "second"
    events: list[Progress] = []
    result = search(again(first, out, budgets=("60%FLOPs",)), events.append)
    assert result.best is not None and result.baseline is not None and before.baseline is not None
    assert result.feasible and result.best.flops <= 0.6 * before.baseline.flops
    assert (result.baseline.metrics, result.baseline.latency_ms) == (
        before.baseline.metrics,
        before.baseline.latency_ms,
    )
    assert result.origin is not None
    assert Path(result.origin.run).resolve() == first.out.resolve()
    stored = json.loads((first.out / "measurements.json").read_text())["evaluations"]
    assert result.evaluations == result.origin.evaluations == len(stored) >= 8
    known = next(each for each in stored if each["design"] == result.best.design)
    assert result.best.latency_ms is not None
    assert result.best.latency_ms.value == known["latency_ms"][""]
    assert dict(RunFolder(out).load().design) == dict(result.best.design)
    assert RunFolder(out).names() == ["baseline", "best"]
    assert [event.stage for event in events] == ["preflight", "again", "again", "again"]
    assert search(again(first, out, budgets=("60%FLOPs",), resume=True)) == result
    third = search(again(first, tmp_path / "third", origin=out, floors=("depth=1000%",)))
    assert third.budgets == ("60%FLOPs",), "what is not given is as it was"
    assert third.floors == ("depth=1000%",)


def test_a_few_more_designs_are_proposed_after_those_that_are_known(first: SearchRequest, tmp_path: Path) -> None:
    changes = {"budgets": ("50%FLOPs",), "evaluations": 2, "strategy": "linas", "settings": {"generations": 3}}
    request = again(first, tmp_path / "more", batch=2, finalists=1, **changes)
    known = len(json.loads((first.out / "measurements.json").read_text())["evaluations"])
    events: list[Progress] = []
    result = search(request, events.append)
    assert [(event.done, event.total) for event in events if event.stage == "search"] == [
        (known + 1, known + 2), (known + 2, known + 2),
    ]  # fmt: skip
    assert result.evaluations == known + 2
    assert result.origin is not None
    assert "2 more were measured" in result.origin.words
    assert search(again(first, tmp_path / "more", batch=2, finalists=1, resume=True, **changes)) == result


def test_a_limit_that_nothing_known_keeps_is_answered_with_the_nearest(first: SearchRequest, tmp_path: Path) -> None:
    result = search(again(first, tmp_path / "run", budgets=("0.001ms",)))
    assert not result.feasible
    assert result.best is not None
    assert [check.text for check in result.best.broken] == ["0.001ms"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target": "openvino"}, "is of another target (onnxruntime, here openvino), so that --from cannot"),
        (
            {"budgets": ("8ms@host/openvino",)},
            "is of another target (onnxruntime, here openvino), so that --from cannot",
        ),
        ({"budgets": ("8ms@jetson-orin-nano",)}, "is of another device (host, here jetson-orin-nano), so that --from"),
        ({"size": (96, 96)}, "is of another size (64x64, here 96x96)"),
        ({"budgets": ("depth:3ms",)}, "budget 'depth:3ms': run "),
        ({"budgets": ("1kFLOPs",)}, "but the smallest design of space tiny takes "),
        ({"floors": ("dept=2%",)}, "unknown task in floor 'dept': did you mean depth"),
        ({"origin": Path("nowhere")}, "nowhere is no run: it holds no config.json"),
    ],
)
def test_what_cannot_be_served_again_is_one_line(
    first: SearchRequest, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    assert expected in refused(lambda: search(again(first, tmp_path / "run", **changes)))
    assert not (tmp_path / "run").exists()


def test_a_data_set_is_the_same_by_any_path_to_it(first: SearchRequest, home: Path, tmp_path: Path) -> None:
    for number, path in enumerate(("./photos", str(home / "photos"))):
        assert search(again(first, tmp_path / f"run{number}", data=path)).best is not None


def test_a_run_of_another_data_set_or_space_is_one_line(first: SearchRequest, home: Path, tmp_path: Path) -> None:
    photos = write_data(tmp_path / "others")
    line = refused(lambda: search(again(first, tmp_path / "run", data=str(photos))))
    assert f"is of another data (photos, here {photos}), so that --from cannot take its measurements" in line
    (tmp_path / "nas").mkdir()
    text = (home / "nas" / "tiny.yaml").read_text()
    (tmp_path / "nas" / "wide.yaml").write_text(text.replace("[8, 16, 24]", "[8, 24]"))
    weights = tmp_path / "wide.safetensors"
    write_supernet(load_space(str(tmp_path / "nas" / "wide.yaml"), open_source("photos", (64, 64)).tasks), weights)
    changes = {"space": str(tmp_path / "nas" / "wide.yaml"), "supernet": weights}
    line = refused(lambda: search(again(first, tmp_path / "run", **changes)))
    assert "is of another space (tiny, here " in line


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda run: (run / "measurements.json").unlink(), "holds no measurements.json, so that it has not ended"),
        (lambda run: (run / "result.json").unlink(), "has no result.json"),
        (
            lambda run: (run / "measurements.json").write_text(
                (run / "measurements.json").read_text().replace('"ratio": null', '"ratio": 0.1')
            ),
            "was changed after edgemtl wrote it",
        ),
    ],
)
def test_a_damaged_run_is_one_line(
    first: SearchRequest, tmp_path: Path, damage: Callable[[Path], object], expected: str
) -> None:
    run = Path(shutil.copytree(first.out, tmp_path / "copy"))
    damage(run)
    assert expected in refused(lambda: search(again(first, tmp_path / "run", origin=run)))


def test_another_supernet_is_one_line(first: SearchRequest, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    write_supernet(load_space("tiny", open_source("photos", (64, 64)).tasks), weights, seed=5)
    line = refused(lambda: search(again(first, tmp_path / "run", supernet=weights)))
    assert "is of another supernet, so that --from cannot take its measurements: give the one that it searched" in line


def test_ctrl_c_in_the_training_of_another_answer_leaves_it_to_be_gone_on_with(
    first: SearchRequest, tmp_path: Path
) -> None:
    """A result that was written then would be read as the whole answer for good."""

    def stop(event: Progress) -> None:
        if event.stage == "finetune":
            raise KeyboardInterrupt

    changes = {"budgets": ("60%FLOPs",), "finetune": 24}
    with pytest.raises(KeyboardInterrupt):
        search(again(first, tmp_path / "run", **changes), stop)
    assert (tmp_path / "run" / "config.json").is_file() and not (tmp_path / "run" / "result.json").exists()
    events: list[Progress] = []
    assert search(again(first, tmp_path / "run", resume=True, **changes), events.append).origin is not None
    (ahead,) = (event for event in events if isinstance(event, Preflight))
    assert ahead.finetune is not None and ahead.finetune.steps == 24, "it says how long the training takes"
    assert [event.done for event in events if event.stage == "finetune" and event.total][-1] == 24


def test_a_run_that_learnt_its_own_weights_does_not_serve_again_whatever_they_began_with(
    first: SearchRequest, tmp_path: Path
) -> None:
    """Its designs would be cut out of the supernet that it began with, which is not what was measured."""
    run = Path(shutil.copytree(first.out, tmp_path / "copy"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "strategy": "masks"}))
    line = refused(lambda: search(again(first, tmp_path / "run", origin=run, strategy="random")))
    assert f"run {run} learnt weights for its own budget: search again without --from" in line


def test_a_preference_of_many_digits_serves_again_as_it_was(first: SearchRequest, tmp_path: Path) -> None:
    weights = "depth=1234567,kind=0.123456789"
    before = search(again(first, tmp_path / "before", preference=weights))
    assert before.preference == {"depth": 1234567, "kind": 0.123456789}
    assert search(again(first, tmp_path / "after", origin=tmp_path / "before")).preference == before.preference


def test_that_the_run_s_own_answer_was_trained_further_is_told(first: SearchRequest, tmp_path: Path) -> None:
    """Else an answer under a larger budget may be the worse one, and nothing says why."""
    run = Path(shutil.copytree(first.out, tmp_path / "copy"))
    result = json.loads((run / "result.json").read_text())
    tuned = {"steps": 200, "delta_m_before": -0.1, "delta_m_after": -0.05}
    (run / "result.json").write_text(json.dumps({**result, "best": {**result["best"], "fine_tuning": tuned}}))
    origin = search(again(first, tmp_path / "run", origin=run)).origin
    assert origin is not None
    assert origin.words.endswith("own answer was trained for 200 steps, as --finetune 200 trains this one")


def test_latencies_of_another_runtime_version_or_machine_are_noticed(first: SearchRequest, tmp_path: Path) -> None:
    def notes(run: Path, name: str) -> list[str]:
        events: list[Progress] = []
        result = search(again(first, tmp_path / name, origin=run), events.append)
        assert result.known_from["latencies"].startswith("those of that run, by onnxruntime ")
        return [event.text for event in events if not event.total]

    assert notes(first.out, "here") == []
    run = Path(shutil.copytree(first.out, tmp_path / "copy"))
    result = json.loads((run / "result.json").read_text())
    result["environment"]["packages"]["onnxruntime"] = "1.2.3"
    (run / "result.json").write_text(json.dumps(result))
    (line,) = notes(run, "elsewhere")
    assert line.startswith(f"latencies of run {run} are of onnxruntime 1.2.3 on ") and "here is onnxruntime " in line
