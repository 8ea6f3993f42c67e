"""Gain of fine-tuning one design, and the cost of its steps: those in float, and those through rounding.

The design is the largest within 2 GFLOPs of those that the shipped supernet was trained near (the middle one where its
file names none), with INT8 in every block that can have it. It is trained by the recipe of `edgemtl search --finetune`,
in one process: nine tenths of the steps in float, the rest through rounding. delta_m is against the largest design, on
the search's validation images; what the float steps alone bring is scored in float and, with ranges of a calibration,
in INT8. Seconds a step are of trainings that are taken in turns (A B B A), images at hand.

`--steps` trains for longer. A training is kept under `runs/` and gone on with after a kill. --quick takes 20 steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from _common import Outcome, Row, main, say
from _runs import RUNS, scenes_evaluator, shipped_supernet
from _trainings import folder_of, weights_hash
from accelerate import Accelerator

from edgemtl.models import MultiTaskNet, load_supernet
from edgemtl.models.quantization import RoundedNet
from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.nas.runs import OneDesign, Tuned
from edgemtl.nas.search import SearchRequest
from edgemtl.nas.search.finetuning import parts_of, recipe_of
from edgemtl.nas.search.problem import trained_near
from edgemtl.spaces import Design, Space, is_precision
from edgemtl.tasks import Task, delta_m
from edgemtl.train import InitialWeights, Recipe, SupernetTraining, train_supernet, training_batches

FLOPS, STEPS, QUICK_STEPS = 2e9, 400, 20
Scores = Mapping[str, Mapping[str, float]]


def run(options: argparse.Namespace) -> Outcome:
    """One training in its two parts, then steps of both in turns."""
    space, evaluator = scenes_evaluator("onnxruntime")
    design = in_int8(pick(space, trained_near(shipped_supernet("cnn"), space)))
    steps = QUICK_STEPS if options.quick else options.steps
    recipe = recipe_of(SearchRequest(Path(), finetune=steps), evaluator.source)
    teacher = evaluator.supernet.extract(space.largest()) if recipe.label_share < 1 else None
    scores = brought(evaluator, design, recipe, teacher, RUNS / "finetuning")
    base = evaluator.simulated(evaluator.candidate(space.largest()))
    seconds = step_seconds(evaluator, design, recipe, teacher, 2 if options.quick else 8)
    rows = rows_of(evaluator.source.tasks, steps, scores, base, seconds)
    raw = {"design": dict(design), "flops": design.cost().flops, "recipe": recipe.as_json(), "largest": base}
    return Outcome(rows, {**raw, "metrics": scores, "step_seconds": seconds})


def rows_of(
    tasks: tuple[Task, ...],
    steps: int,
    scores: Mapping[str, Scores],
    base: Scores,
    seconds: Mapping[str, list[float]],
) -> list[Row]:
    """delta_m before, between and after, and the steps that it took."""
    deltas = {name: 100 * delta_m(tasks, metrics, base) for name, metrics in scores.items()}
    steps_of = {name: median(each) for name, each in seconds.items()}
    return [
        *(Row(f"delta_m_{name}", delta, "%", lower_is_better=False) for name, delta in deltas.items()),
        Row("gained", deltas["int8_after"] - deltas["int8_before"], "points", lower_is_better=False),
        Row("steps", steps, "steps"),
        *(Row(f"{name}_step", value, "s") for name, value in steps_of.items()),
        Row("rounded_over_float", sum(seconds["rounded"]) / sum(seconds["float"]), "x"),
    ]


def pick(space: Space, near: tuple[Design, ...]) -> Design:
    """The largest of the designs within the FLOPs; the middle one where there is none."""
    fitting = [design for design in near if design.cost().flops <= FLOPS]
    return max(fitting, key=lambda design: design.cost().flops, default=space.middle())


def in_int8(design: Design) -> Design:
    """The architecture with INT8 in every block that can have it."""
    int8 = {choice.name: "int8" for choice in design.space.choices if is_precision(choice) and "int8" in choice.options}
    return design.space.design({**design, **int8})


def brought(
    evaluator: Evaluator, design: Design, recipe: Recipe, teacher: MultiTaskNet | None, folder: Path
) -> dict[str, Scores]:
    """Metrics on validation images in float and INT8 before, after the steps in float, and after all."""
    parts = parts_of(recipe)
    assert parts is not None
    float_part, rounded_part = parts
    plain, whole = evaluator.candidate(design.in_float()), evaluator.candidate(design)
    scores: dict[str, Scores] = {"float_before": evaluator.simulated(plain), "int8_before": evaluator.simulated(whole)}
    in_float = _trained(evaluator, plain, float_part, teacher, folder / "float")
    scores["float_after"] = evaluator.simulated(evaluator.as_trained(plain.design, in_float.net, {}))
    begun = evaluator.as_trained(design, in_float.net, {})
    scores["int8_after_float"] = evaluator.simulated(begun)
    tuned = _trained(evaluator, begun, rounded_part, teacher, folder / "rounded")
    scores["int8_after"] = evaluator.simulated(evaluator.as_trained(design, tuned.net, tuned.limits))
    return scores


def _trained(
    evaluator: Evaluator, candidate: Candidate, recipe: Recipe, teacher: MultiTaskNet | None, folder: Path
) -> Tuned:
    """A candidate after its training, which is not begun where it was finished before."""
    subject, source = _subject(candidate), evaluator.source
    weights = subject.weights(evaluator.target.scheme, frozen=recipe.frozen_statistics)
    kept = folder_of(folder, subject, source, recipe, teacher)
    if not (kept / "training.json").is_file():
        say(f"training {kept.name}")
        train_supernet(subject, source, recipe, kept, initial=InitialWeights(weights), teacher=teacher)
    load_supernet(weights, kept / "supernet.safetensors", subject.fingerprint)
    limits = weights.limits() if isinstance(weights, RoundedNet) else {}
    return Tuned(weights.extract(subject.largest()), limits)


def _subject(candidate: Candidate) -> OneDesign:
    """A copy of a candidate as what is trained."""
    ranges = candidate.ranges if "int8" in candidate.precision.values() else None
    return OneDesign(candidate.design, candidate.net.copy(), weights_hash(candidate.net), ranges)


def step_seconds(
    evaluator: Evaluator, design: Design, recipe: Recipe, teacher: MultiTaskNet | None, rounds: int
) -> dict[str, list[float]]:
    """Seconds of steps in float and through rounding, in turns on the same images, after one of each."""
    scheme, tasks = evaluator.target.scheme, evaluator.source.tasks
    subjects = {
        "float": _subject(evaluator.candidate(design.in_float())),
        "rounded": _subject(evaluator.candidate(design)),
    }
    trainings = {
        name: SupernetTraining(subject, recipe, weights, teacher, Accelerator())
        for name, subject in subjects.items()
        for weights in [subject.weights(scheme, frozen=recipe.frozen_statistics)]
    }
    batches = training_batches(evaluator.source.split("train"), tasks, recipe, 0, 0)
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for number, batch in zip(range(rounds + 1), batches, strict=False):
        for name in ("float", "rounded", "rounded", "float"):
            begun = time.perf_counter()
            trainings[name].one_step(number, batch)
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=STEPS, help="of the whole training, in float and through rounding")


if __name__ == "__main__":
    main(run, __doc__, _add_options)
