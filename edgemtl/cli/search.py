"""`edgemtl search`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgemtl.cli.own_search import search_own
from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.tables import show_result
from edgemtl.cli.verb import interruptible, new_run, parse_size, resume_line, verb
from edgemtl.errors import UserError
from edgemtl.units import format_duration, format_limit, format_quantity

if TYPE_CHECKING:
    from edgemtl.nas.search import Preflight, SearchRequest
    from edgemtl.progress import Progress
    from edgemtl.tasks import Floor

__all__ = ["search"]

_PROPOSING = {
    "evaluations": "--evaluations",
    "settings": "--set",
    "seed": "--seed",
    "objectives": "--objective",
    "workers": "--workers",
    "storage": "--storage",
}


@verb(
    "search",
    examples=(
        "edgemtl search --budget 2GFLOPs --out runs/first",
        "edgemtl search --budget 8ms@host/openvino --budget 5MB --floor depth=2%",
        "edgemtl search --budget 2GFLOPs --floor 'semseg.miou>0.5' --floor 'normals.mean_angle<20'",
        "edgemtl search --budget 30%ms --latency predicted",
        "edgemtl search --budget 60%FLOPs --prefer depth=2,semseg=1 --seed 1",
        "edgemtl search --budget 2GFLOPs --device raspberry-pi-5",
        "edgemtl search --budget 900DSP --budget 2Mcycles --device zcu104",
        "edgemtl search --strategy preference --prefer depth=2,semseg=1 --budget 2GFLOPs",
        "edgemtl search --strategy masks --space grid --budget 1.2GFLOPs --steps 600",
        "edgemtl search --budget 2GFLOPs --out runs/first --resume",
        "edgemtl search --from runs/first --budget 1.4GFLOPs --out runs/second",
        "edgemtl search --budget 2GFLOPs --workers 4",
        "edgemtl search --budget 2GFLOPs --storage postgresql://me@server/studies --out runs/first",
        "edgemtl search --budget 2GFLOPs --objective delta_m --objective latency --objective bytes",
        "edgemtl search pose.onnx --tasks tasks.yaml --data photos --budget 60%ms --floor pose=1% --out runs/pose",
        "edgemtl search pose.onnx --data photos --budget 60%ms --strategy linas --evaluations 48 --out runs/both",
    ),
)
@click.argument("net", metavar="[NET]", required=False)
@click.option(
    "--tasks",
    metavar="FILE",
    help="For a net of your own: the YAML file that says which outputs are which task; proposed without one.",
)
@click.option(
    "--budget",
    "budgets",
    metavar="BUDGET",
    multiple=True,
    help="An upper limit: 2GFLOPs, 8ms, 8ms@host/openvino, 5MB, 60%FLOPs, depth:1GFLOPs. Several all hold.",
)
@click.option(
    "--floor",
    "floors",
    metavar="FLOOR",
    multiple=True,
    help="A task's own limit: depth=2% lets depth lose 2 % at most; 'semseg.miou>0.5' and 'depth.rmse<0.9' (in quotes) "
    "are values of a metric. One for each task and no budget: the fastest design that keeps them.",
)
@click.option("--prefer", "preference", metavar="WEIGHTS", default="", help="Weights of tasks: depth=2,semseg=1.")
@click.option(
    "--space", metavar="NAME", default="cnn", show_default=True, help="What may be chosen from: a file of nas/."
)
@click.option(
    "--data",
    metavar="DATA",
    default="scenes",
    show_default=True,
    help="A data set: scenes, elpv, or the path of a YAML file. For a net of your own: a folder of photos, or a "
    "data set with labels of its tasks.",
)
@click.option("--size", metavar="HxW", help="Input size, HEIGHTxWIDTH; the space's own by default.")
@click.option(
    "--target",
    metavar="NAME",
    default="",
    help="The runtime to search for: what a budget names, else the device's first, by default.",
)
@click.option(
    "--device",
    metavar="NAME",
    default="host",
    show_default=True,
    help="What it is for, if no budget names it: edgemtl devices lists them.",
)
@click.option(
    "--objective",
    "objectives",
    metavar="NAME",
    multiple=True,
    help="What the front is of, two or more: delta_m, latency, flops, params, bytes or a task; delta_m and latency by "
    "default.",
)
@click.option(
    "--strategy",
    metavar="NAME",
    default="linas",
    show_default=True,
    help="How designs are proposed: linas, nsga2, tpe, random, preference, masks, or what a package brings.",
)
@click.option("--evaluations", type=int, help="Designs to evaluate, 36 by default; with --from besides its own, 0.")
@click.option(
    "--from",
    "origin",
    type=click.Path(path_type=Path),
    help="A finished run, whose measurements serve again for another budget, floor or preference, in seconds.",
)
@click.option("--steps", type=int, help="Training steps of a strategy that has some: masks, 600 by default.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting of the strategy's own.")
@click.option(
    "--finetune",
    metavar="STEPS",
    type=int,
    help="Training steps of the best design, by labels, and by the largest net where images lack some: nine tenths in "
    "float, the rest through the rounding of its INT8 blocks; 0: none, as --from has by default; else what takes two "
    "cores a few minutes: 600 where BF16 trains faster than FP32, 200 elsewhere.",
)
@click.option(
    "--train-step",
    metavar="FUNCTION",
    help="For a net of your own, with --finetune: package.module:train_step; by default it learns from itself.",
)
@click.option(
    "--supernet",
    type=click.Path(path_type=Path),
    help="Trained weights; the shipped ones by default, with --from the run's.",
)
@click.option(
    "--storage",
    metavar="URL",
    help="A study that many workers share: journal:///PATH, sqlite:///PATH, postgresql://USER@HOST/DATABASE; a journal "
    "in the run's folder by default.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    help="Processes of this machine that evaluate designs at once; latencies are still timed one at a time.",
)
@click.option(
    "--latency",
    metavar="auto|measured|predicted|FILE",
    default="auto",
    show_default=True,
    help="Where latencies of candidates come from; FILE is a latency table. Finalists are always measured.",
)
@click.option("--threads", default=0, show_default=True, help="Threads of the runtime; 0 leaves it the choice.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; the next free runs/search-N by default."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--seed", default=0, show_default=True, help="Fixes what is drawn at random.")
def search(
    screen: Screen,
    net: str | None,
    tasks: str | None,
    budgets: Sequence[str],
    floors: Sequence[str],
    size: str | None,
    steps: int | None,
    settings: Sequence[str],
    objectives: Sequence[str],
    evaluations: int | None,
    origin: Path | None,
    finetune: int | None,
    train_step: str | None,
    out: Path | None,
    resume: bool,
    **options: Any,
) -> None:
    """Search architecture and precision under budgets, and train what may be chosen further.

    Prints first what the smallest, a middle and the largest design take of each budget, then the front of the best
    designs and the chosen one, scored and timed on its exported engine. Writes a run folder.

    With a NET of your own, an ONNX file or package.module:function, it chooses the precision of each of its blocks, and
    removes channels where no precision alone keeps the budgets: so that no task agrees less with the float net than its
    floor allows, 1 % without one, and never slower than the best uniform precision that keeps the limits. --finetune
    trains what is left, taught by the whole net, and through the rounding of INT8 where all channels stay. --strategy
    linas (nsga2, tpe, random) goes on from there through combinations of channels and precisions, --evaluations of
    them. Then edgemtl export NET --precision RUN.
    """
    from edgemtl.nas import search as room
    from edgemtl.nas.evaluation import hide_password

    folder = new_run(out, "search", resume)
    if net is not None:
        own = {"budgets": tuple(budgets), "floors": tuple(floors), "resume": resume, "steps": finetune or 0}
        own |= {"train_step": train_step, **_proposing(settings, objectives, evaluations, options), **_of_own(options)}
        search_own(screen, net, tasks, parse_size(size), folder, own)
        return
    _check_of_own({"--tasks": tasks, "--train-step": train_step})
    request = room.SearchRequest(
        out=folder,
        budgets=tuple(budgets),
        floors=tuple(floors),
        size=parse_size(size),
        settings=_settings(settings, steps),
        resume=resume,
        command=hide_password(shlex.join(["edgemtl", *sys.argv[1:]])),
        objectives=tuple(objectives),
        evaluations=evaluations if evaluations is not None else 0 if origin else room.EVALUATIONS,
        origin=origin,
        **_training(finetune, folder, resume),
        **options,
    )
    if origin:
        request = room.as_before(request, origin, _given())
    _run(screen, request)


def _run(screen: Screen, request: SearchRequest) -> None:
    """Search, and print the result."""
    from edgemtl.files.disk import read_json
    from edgemtl.nas.search import search as search_space
    from edgemtl.results import RESULT_FILE
    from edgemtl.runs import CONFIG_FILE, read_config

    folder = request.out
    usable = f"what was evaluated is kept in {folder}; go on with: {resume_line(folder)}"
    with interruptible(usable, [folder / CONFIG_FILE]), Stages() as stages:
        result = search_space(request, partial(_show_event, screen, stages))
    if not screen.as_json:
        show_result(screen, result)
        target = read_config(folder).target
        screen.say(f"written: {folder / RESULT_FILE}; next: edgemtl export {folder} --target {target}")
    screen.json(read_json(folder / RESULT_FILE, "result"))


def _of_own(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a search of a net of one's own has too."""
    return {name: options[name] for name in ("preference", "data", "target", "device", "threads")}


def _proposing(
    settings: Sequence[str], objectives: Sequence[str], evaluations: int | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a strategy that proposes designs of a net of one's own; none where none is named."""
    given = _given()
    if "strategy" not in given:
        if more := sorted(option for name, option in _PROPOSING.items() if name in given):
            raise UserError(
                f"{' and '.join(more)}: a net of one's own is searched without a strategy where none is named: give "
                "--strategy linas, or drop it"
            )
        return {}
    about = {"strategy": options["strategy"], "settings": _settings(settings, None), "seed": options["seed"]}
    about |= {"objectives": tuple(objectives), "workers": options["workers"], "storage": options["storage"]}
    return about if evaluations is None else {**about, "evaluations": evaluations}


def _check_of_own(options: Mapping[str, str | None]) -> None:
    """`UserError` for an option that is given and that a net of one's own alone has."""
    for option, value in options.items():
        if value is not None:
            raise UserError(f"{option} belongs to a net of one's own: give the net before it, or drop it")


def _training(steps: int | None, folder: Path, resume: bool) -> dict[str, Any]:
    """Steps of fine-tuning, the processes for it and whether in BF16: those that a run to be resumed was begun with.

    Of a new one the steps that are given, else, as the rest, what suits this machine.
    """
    from edgemtl.nas.search import default_steps
    from edgemtl.runs import CONFIG_FILE, read_config
    from edgemtl.train import Recipe, training_processes

    if resume and (folder / CONFIG_FILE).is_file():
        recipe: Mapping[str, Any] = read_config(folder).finetune or {}
        begun = {"processes": recipe.get("processes") or training_processes(), "bf16": recipe.get("bf16")}
        return {"finetune": int(recipe.get("steps", 0)) if steps is None else steps, **begun}
    wanted = default_steps() if steps is None else steps
    in_bf16 = Recipe().computes_bf16() if wanted > 0 else None
    return {"finetune": wanted, "processes": training_processes(), "bf16": in_bf16}


def _given() -> set[str]:
    """Names of the parameters that the command line gives a value for."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _settings(texts: Sequence[str], steps: int | None) -> dict[str, int | str]:
    """Options that belong to the strategy, `--steps` included."""
    settings: dict[str, int | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UserError(f"setting {text!r} cannot be read: write NAME=VALUE, as --set generations=30")
        settings[name] = value
    return settings if steps is None else {**settings, "steps": steps}


def _show_event(screen: Screen, stages: Stages, event: Progress) -> None:
    from edgemtl.nas.search import Preflight

    if isinstance(event, Preflight):
        stages.end()
        show_preflight(screen, event)
    else:
        stages(event)


def show_preflight(screen: Screen, event: Preflight) -> None:
    """The pre-flight table: three designs against every limit and floor, and whether one is known to keep all."""
    rows: list[tuple[object, ...]] = []
    for row in event.rows:
        quantity = row.budget.quantity
        texts = (format_quantity(quantity, value) for value in (row.smallest, row.middle, row.largest))
        allowed = format_limit(quantity, row.limit)
        rows.append((row.budget.text, allowed, *texts, "yes" if row.satisfiable else "no"))
    for each in event.floors or ():
        figures = (each.floor.allowed, each.smallest, each.middle, each.largest)
        texts = (_floor_amount(each.floor, value) for value in figures)
        rows.append((f"floor {each.floor.text}", *texts, "yes, by the largest"))
    if event.floors is None:
        rows.append(("floors", *[None] * 4, "known once weights are learnt"))
    elif len(rows) > 1:
        together = f"yes, the {event.keeps_all} design does" if event.keeps_all else "known after the search"
        rows.append(("all together", *[None] * 4, together))
    if rows:
        columns = ("limit", "allows", "smallest design", "middle", "largest", "can be kept")
        screen.table("Before the search", columns, rows)
    if (tuning := event.finetune) is not None:
        about = format_duration(tuning.seconds)
        training = f"the best design is trained for {tuning.steps} steps, about {about}"
        screen.note(f"after the search {training} (--finetune 0: none)")


def _floor_amount(floor: Floor, value: float) -> str:
    """`2 % lost`, or the metric's value in its unit."""
    if floor.relative:
        return f"{format_quantity('drop', value)} lost"
    return f"{format_quantity('score', value)} {floor.metric.unit}".rstrip()
