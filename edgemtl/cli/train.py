"""`edgemtl train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.tables import show_result
from edgemtl.cli.training import Fronts, draws, initial_weights, open_teacher, open_training, prepare
from edgemtl.cli.verb import interruptible, new_run, parse_size, resume_line, verb
from edgemtl.errors import UserError, unknown_name

if TYPE_CHECKING:
    from edgemtl.data import Source
    from edgemtl.spaces import DesignSource, Space
    from edgemtl.train import InitialWeights, Launched, Recipe, Teacher

__all__ = ["train"]


class _How(TypedDict):
    """Options of a fine-tuning besides its recipe."""

    processes: int
    resume: bool


@verb(
    "train",
    examples=(
        "edgemtl train --space cnn --data scenes --out runs/supernet",
        "edgemtl train --data photos/data.yaml --steps 4000 --out runs/mine",
        "edgemtl search --budget 2GFLOPs --data photos/data.yaml --supernet runs/mine/supernet.safetensors",
        "edgemtl train --near runs/first --weights cnn-scenes --steps 2000 --out runs/shifted",
        "edgemtl train --space moe-vit --teacher cnn-scenes --out runs/vit",
        "edgemtl train --run runs/first --steps 1000 --out runs/tuned",
    ),
)
@click.option("--space", metavar="NAME", help="What may be chosen from: a file of nas/.  [default: cnn]")
@click.option("--data", metavar="DATA", help="A data set: scenes, elpv, or the path of a YAML file.  [default: scenes]")
@click.option(
    "--run",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Train a design of a run further: a searched one by labels, a pruned one also by the net that it was; the "
    "result is a run.",
)
@click.option("--design", metavar="NAME", help="Which of the run's designs.  [default: best]")
@click.option("--size", metavar="HxW", help="Input size, HEIGHTxWIDTH; the space's own by default.")
@click.option("--images", type=int, help="How many scenes to render for training.")
@click.option("--steps", type=int, help="Optimizer steps.")
@click.option("--batch", type=int, help="Images in a step.")
@click.option("--sizes", metavar="LIST", help="Sizes that images grow through, as fractions of the input size.")
@click.option("--zoom", metavar="LOW,HIGH", help="Range of random scales about that size; above 1 cuts parts off.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option(
    "--weighting", metavar="NAME", help="How tasks are weighed: equal, uncertainty, or an aggregator of torchjd."
)
@click.option("--largest-steps", type=float, help="Share of the steps that train the largest design alone.")
@click.option(
    "--random-designs",
    metavar="N",
    type=int,
    help="Designs drawn at random in a step, beside the largest and the smallest.  [default: 2]",
)
@click.option(
    "--ends-every",
    metavar="N",
    type=int,
    help="Train the largest and the smallest design in one step of N; in the others the largest, or the --teacher, "
    "only teaches: for a trained supernet whose middle is wanted.  [default: 1]",
)
@click.option(
    "--near",
    metavar="RUN",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A finished search of the same space: three of four random designs are drawn near its front, where nets "
    "will be chosen, the fourth anywhere. May be given several times.",
)
@click.option(
    "--near-above",
    metavar="FLOPS",
    help="Of those fronts the designs of at least so many FLOPs, such as 1GFLOPs: where budgets will lie.",
)
@click.option(
    "--teacher",
    metavar="SUPERNET",
    help="A trained supernet of the same tasks, of any space: its largest design teaches this one's. A shipped one "
    "(cnn-scenes) or a file.",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="Begin with a trained supernet, its trunk and the tasks that match, or with public weights: a file, a shipped "
    "supernet (cnn-scenes), or imagenet (mobilenetv2).",
)
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes on this machine, each with a batch of its own and a share of the cores, or a GPU.",
)
@click.option("--no-bf16", is_flag=True, help="Train in FP32 even where BF16 is faster.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; the next free runs/train-N by default.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--seed", type=int, help="Fixes what is drawn at random.")
def train(
    screen: Screen,
    space: str | None,
    data: str | None,
    run: Path | None,
    design: str | None,
    size: str | None,
    images: int | None,
    sizes: str | None,
    zoom: str | None,
    near: tuple[Path, ...],
    near_above: str | None,
    teacher: str | None,
    weights: str | None,
    processes: int,
    no_bf16: bool,
    out: Path | None,
    resume: bool,
    **numbers: int | float | str | None,
) -> None:
    """Train the shared weights of a space, or one searched design further.

    A supernet holds every design of its space. Writes supernet.safetensors, training.json and train.jsonl into the
    run's folder, and a checkpoint at least every minute. With --run it writes a run that exports like any other.
    """
    from edgemtl.train import CHECKPOINT_FILE

    launched = _launched(out, run, processes)
    folder = new_run(out, "train" if run is None else "tuned", resume)
    if run is not None:
        own: dict[str, object] = {"space": space, "data": data, "size": size, "images": images, "weights": weights}
        _check_own({**own, "near": near[0] if near else None, "near_above": near_above, "teacher": teacher})
    recipe = _recipe(run, numbers, {"sizes": sizes, "zoom": zoom}, no_bf16)
    if run is not None:
        _tune(screen, run, design or "best", folder, recipe, {"processes": processes, "resume": resume})
        return
    if design is not None:
        raise UserError(f"--design {design}: names a design of a run, which --run gives")
    space, data = space or "cnn", data or "scenes"
    fronts = Fronts(near, near_above)
    helper = partial(_help_train, space, data, size, images, weights, fronts, teacher, recipe, folder)
    if launched.rank:
        helper()
        return
    _check_folder(folder, resume)
    chosen, source = open_training(space, data, parse_size(size), images)
    drawn, recipe = draws(chosen, fronts, recipe)
    taught_by, recipe = open_teacher(teacher, source, recipe)
    if not _is_finished(folder, chosen, source, recipe):
        _look_at(screen, source)
        initial = initial_weights(chosen, weights, recipe.seed, Stages())
        with interruptible("rendered images are kept, training had not begun: call the same command again"):
            prepare(source)
        resumable = f"a checkpoint is kept in {folder}; go on with: {resume_line(folder)}"
        with interruptible(resumable, [folder / CHECKPOINT_FILE]):
            _train(drawn, source, recipe, folder, initial, taught_by, (helper, processes))
    path = folder / "supernet.safetensors"
    following = f"edgemtl search --space {space} --data {data} --supernet {path} --budget 60%FLOPs"
    _show(screen, folder, f"written: {path}; next: {following}")


def _launched(out: Path | None, run: Path | None, processes: int) -> Launched:
    """This process among those of a launcher; raises `UserError` for what they could not do together."""
    from edgemtl.train import Launched

    launched = Launched.here()
    if launched.processes == 1:
        return launched
    if processes > 1:
        raise UserError(f"--processes {processes}: a launcher has started {launched.processes} already: leave it out")
    if run is not None:
        raise UserError(f"--run {run}: trains in its own processes: leave the launcher out and give --processes")
    if out is None:
        raise UserError("--out is wanted under a launcher: its processes train in one folder")
    return launched


def _recipe(
    run: Path | None, numbers: Mapping[str, int | float | str | None], lists: Mapping[str, str | None], no_bf16: bool
) -> Recipe:
    """The recipe of a supernet, or of a run's designs, with what the options change in it."""
    from edgemtl.nas.runs import recipe_for
    from edgemtl.train import Recipe

    given: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    given |= {name: _numbers(name, text) for name, text in lists.items() if text is not None}
    recipe = replace(Recipe() if run is None else recipe_for(run), **given, **_precision(no_bf16))
    _check_weighting(recipe)
    return recipe


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--{name} {text}: numbers with commas between them are wanted, as in 0.5,0.67,1") from error


def _precision(no_bf16: bool) -> dict[str, Any]:
    return {"bf16": False} if no_bf16 else {}


def _check_weighting(recipe: Recipe) -> None:
    from edgemtl.train import weighting_names

    if recipe.weighting not in weighting_names():
        raise unknown_name("task weighting", recipe.weighting, weighting_names())


def _check_own(options: Mapping[str, object]) -> None:
    """`UserError` for an option that is given and that a run has its own of."""
    if given := [f"--{name} {value}" for name, value in options.items() if value is not None]:
        raise UserError(f"{given[0]} does not go with --run, which trains on its run's own data: leave it out")


def _tune(screen: Screen, run: Path, design: str, folder: Path, recipe: Recipe, how: _How) -> None:
    from edgemtl.files.disk import read_json
    from edgemtl.nas.runs import fine_tune
    from edgemtl.results import RESULT_FILE
    from edgemtl.runs import CONFIG_FILE, read_config

    with (
        interruptible(f"what was done is kept in {folder}; go on with: {resume_line(folder)}", [folder / CONFIG_FILE]),
        Stages() as stages,
    ):
        command = shlex.join(["edgemtl", *sys.argv[1:]])
        result = fine_tune(run, folder, recipe, name=design, command=command, report=stages, **how)
    if not screen.as_json:
        show_result(screen, result)
        target = read_config(folder).target
        screen.say(f"written: {folder / RESULT_FILE}; next: edgemtl export {folder} --target {target}")
    screen.json(read_json(folder / RESULT_FILE, "result"))


def _train(
    space: DesignSource,
    source: Source,
    recipe: Recipe,
    folder: Path,
    initial: InitialWeights | None,
    taught_by: Teacher | None,
    helpers: tuple[Callable[[], None], int],
) -> None:
    from edgemtl.train import train_supernet, worker_processes

    with Stages() as stages, worker_processes(*helpers):
        command = shlex.join(["edgemtl", *sys.argv[1:]])
        teacher = None if taught_by is None else taught_by.net(source)
        train_supernet(space, source, recipe, folder, initial=initial, teacher=teacher, command=command, report=stages)


def _help_train(
    space: str,
    data: str,
    size: str | None,
    images: int | None,
    weights: str | None,
    fronts: Fronts,
    teacher: str | None,
    recipe: Recipe,
    folder: Path,
) -> None:
    """Run the same training in a further process, which writes and shows nothing."""
    from edgemtl.train import train_supernet

    chosen, source = open_training(space, data, parse_size(size), images)
    drawn, recipe = draws(chosen, fronts, recipe)
    taught_by, recipe = open_teacher(teacher, source, recipe)
    if _is_finished(folder, chosen, source, recipe):
        return
    prepare(source)
    initial = initial_weights(chosen, weights, recipe.seed)
    net = None if taught_by is None else taught_by.net(source)
    train_supernet(drawn, source, recipe, folder, initial=initial, teacher=net)


def _check_folder(folder: Path, resume: bool) -> None:
    from edgemtl.files.claim import claim
    from edgemtl.files.paths import check_folder
    from edgemtl.train import CHECKPOINT_FILE

    check_folder(folder, "training run")
    with claim(folder, "train"):  # fails at once if another process trains there
        there = [name for name in (CHECKPOINT_FILE, "training.json") if (folder / name).is_file()]
        if not there and (folder / "supernet.safetensors").exists():
            raise UserError(f"{folder} holds a supernet.safetensors of another origin: choose another --out")
    if resume and not there:
        raise UserError(f"--resume: {folder} holds no {CHECKPOINT_FILE}; leave --resume out to begin there")
    if there and not resume:
        raise UserError(f"{folder} already holds a training run: go on with --resume, or choose another --out")


def _is_finished(folder: Path, space: Space, source: Source, recipe: Recipe) -> bool:
    """Whether the run was trained to its end; raises `UserError` where it was another run."""
    from edgemtl.files.disk import read_json
    from edgemtl.train import recipe_difference

    file = folder / "training.json"
    if not file.is_file():
        return False
    recorded, numbers = read_json(file, "training"), recipe.as_json()
    if not (
        isinstance(recorded, dict)
        and isinstance(recorded.get("data"), dict)
        and _are_scores(recorded.get("validation"))
    ):
        raise UserError(f"{file} is damaged, or no record of a training: choose another --out")
    if recorded.get("recipe") != numbers:
        differences = recipe_difference(recorded.get("recipe"), numbers) or "one of another version"
        raise UserError(f"{folder} was trained with another recipe: {differences}; give that, or choose another --out")
    trained_on = recorded.get("fingerprint"), recorded["data"].get("fingerprint")
    if trained_on != (space.fingerprint, source.fingerprint):
        raise UserError(f"{folder} was trained for another space or on other data: choose another --out")
    return True


def _are_scores(value: object) -> bool:
    """Whether a value holds a training's scores: the same tasks and metrics for each design, all numbers."""
    from pydantic import TypeAdapter, ValidationError

    try:
        scores = TypeAdapter(dict[str, dict[str, dict[str, float]]]).validate_python(value, strict=True)
    except ValidationError:
        return False
    columns = [{task: set(metrics) for task, metrics in tasks.items()} for tasks in scores.values()]
    return "largest" in scores and all(each == columns[0] for each in columns)


def _look_at(screen: Screen, source: Source) -> None:
    """Report the findings of a quick check of the user's data set; raises `UserError` if it cannot be used."""
    from edgemtl.data.folder import FolderSource

    if isinstance(source, FolderSource):
        for warning in source.first_look():
            screen.note(f"warning: {warning}")


def _show(screen: Screen, folder: Path, line: str) -> None:
    """Show the scores of a training and a line, or its whole record as JSON."""
    from edgemtl.files.disk import read_json

    summary = read_json(folder / "training.json", "training")
    if not screen.as_json:
        _scores(screen, summary["validation"])
        screen.say(line)
    screen.json(summary)


def _scores(screen: Screen, scores: dict[str, dict[str, dict[str, float]]]) -> None:
    columns = [(task, metric) for task, values in scores["largest"].items() for metric in values]
    rows = [(design, *(values[task][metric] for task, metric in columns)) for design, values in scores.items()]
    screen.table("Validation scores", ("design", *(f"{task} {metric}" for task, metric in columns)), rows)
