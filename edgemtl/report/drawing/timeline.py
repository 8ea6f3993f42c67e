"""A schedule as a timeline: a lane for each task, its calls as bars, what came too late in red.

The picture stands by itself: colours are attributes, since viewers of SVG know little of style sheets. Marks of what
came too late differ from all else in shape too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from edgemtl.canvas import class_colors
from edgemtl.report.drawing.html import Child, Markup, element
from edgemtl.report.drawing.svg import nice_ticks, short_number
from edgemtl.runtime import Job, ScheduleRun, TaskRun

__all__ = ["draw_schedule"]

WIDTH, LEFT, RIGHT, TOP, LANE, BAR = 1000, 214, 24, 58, 58, 22
BELOW = 84
INK, SOFT, FAINT, LINE, BOND, BAD, PAPER = "#16202c", "#5a6675", "#8a95a3", "#e2e6eb", "#d4dae1", "#d0201a", "#ffffff"
THINNEST = 1.5
SHORT_S, LONG_S, SLOW_HZ = 1.0, 2.0, 2.0

Scale = Callable[[float], float]


def draw_schedule(run: ScheduleRun) -> str:
    """The first second of a schedule (two where a task runs less than twice a second) as a standalone SVG file."""
    slow = min(run.schedule.rates_hz.values()) < SLOW_HZ
    shown_s = min(run.elapsed_s, LONG_S if slow else SHORT_S) or SHORT_S
    lanes = len(run.tasks)
    height = TOP + lanes * LANE + BELOW

    def x(second: float) -> float:
        return round(LEFT + min(second, shown_s) / shown_s * (WIDTH - LEFT - RIGHT), 2)

    colors = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in class_colors(lanes).tolist()]
    parts: list[Child] = [element("rect", width=WIDTH, height=height, fill=PAPER), _heading(run, shown_s)]
    parts += _axis(x, shown_s, TOP + lanes * LANE)
    parts += _joint_calls(run, x, shown_s)
    for index, (task, task_run) in enumerate(run.tasks.items()):
        top = TOP + index * LANE
        parts += _lane_name(run, task, top)
        parts += _lane(task, task_run, x, shown_s, top, colors[index])
    parts += _legend(height - 26, colors[0])
    return element(
        "svg",
        element("title", f"Schedule {run.schedule}"),
        parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        role="img",
        font_family="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
        font_size="13",
    )


def _words(text: str, x: float, y: float, fill: str = SOFT, **more: str | float | None) -> Markup:
    return element("text", text, x=x, y=y, fill=fill, **more)


def _heading(run: ScheduleRun, shown_s: float) -> Child:
    part = f"first {shown_s:.3g} of {run.elapsed_s:.3g} s" if shown_s < run.elapsed_s else f"{run.elapsed_s:.3g} s"
    facts = f"{part}; {len(run.calls)} calls, engine busy {run.busy_share:.0%} of the time"
    return [
        _words(f"Schedule {run.schedule}", 18, 26, INK, font_size=17, font_weight=600),
        _words(facts, WIDTH - RIGHT, 26, text_anchor="end"),
    ]


def _axis(x: Scale, shown_s: float, base: float) -> list[Child]:
    parts: list[Child] = []
    for tick in nice_ticks(0, shown_s, 10):
        if tick <= shown_s:
            parts.append(element("line", x1=x(tick), x2=x(tick), y1=TOP - 6, y2=base, stroke=LINE))
            parts.append(_words(short_number(tick), x(tick), base + 18, FAINT, text_anchor="middle"))
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, stroke=FAINT))
    parts.append(_words("seconds", WIDTH - RIGHT, base + 36, FAINT, text_anchor="end"))
    return parts


def _joint_calls(run: ScheduleRun, x: Scale, shown_s: float) -> list[Child]:
    """A grey bond behind the bars of one call, from its first lane to its last."""
    order = {task: index for index, task in enumerate(run.tasks)}
    parts: list[Child] = []
    for call in run.calls:
        rows = sorted(order[task] for task in call.tasks)
        if call.start_s <= shown_s and len(rows) > 1:
            for above, below in pairwise(rows):
                top = TOP + above * LANE + LANE / 2
                wide = max(THINNEST, x(call.end_s) - x(call.start_s))
                parts.append(
                    element("rect", x=x(call.start_s), y=top, width=wide, height=(below - above) * LANE, fill=BOND)
                )
    return parts


def _lane_name(run: ScheduleRun, task: str, top: float) -> list[Child]:
    task_run = run.tasks[task]
    late = task_run.missed + task_run.skipped
    facts = f"{task_run.missed} missed, {task_run.skipped} skipped of {task_run.released}"
    return [
        _words(task if len(task) < 22 else f"{task[:20]}…", 18, top + 18, INK, font_weight=600),
        _words(f"{run.achieved_hz(task):.4g} of {task_run.rate_hz:g} Hz", 18, top + 34, font_size=11.5),
        _words(facts, 18, top + 48, BAD if late else SOFT, font_size=11.5),
    ]


def _lane(task: str, task_run: TaskRun, x: Scale, shown_s: float, top: float, color: str) -> list[Child]:
    """Releases, waiting, calls and marks of one task, marks last so that nothing hides them."""
    middle = top + LANE / 2
    jobs = [(number, job) for number, job in enumerate(task_run.jobs) if job.release_s <= shown_s]
    below: list[Child] = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=top + LANE, y2=top + LANE, stroke=LINE)]
    marks: list[Child] = []
    for number, job in jobs:
        at = x(job.release_s)
        below.append(element("line", x1=at, x2=at, y1=middle - 17, y2=middle + 17, stroke=FAINT))
        if job.start_s is not None and job.end_s is not None and job.start_s <= shown_s:
            tip = element("title", _tip(task, number, job))
            start, end = x(job.start_s), max(x(job.start_s) + THINNEST, x(job.end_s))
            below.append(_bar(at, start, middle - 3, 6, color, None, opacity=0.35))
            below.append(_bar(start, end, middle - BAR / 2, BAR, color, tip))
            if job.missed and job.end_s <= shown_s:
                marks.append(_triangle(end, middle - BAR / 2 - 1, tip))
        if job.skipped:
            marks.append(_cross(at + 5, middle, element("title", _tip(task, number, job))))
    return [*below, *marks]


def _tip(task: str, number: int, job: Job) -> str:
    released = f"{task}, job {number}, released at {job.release_s:.4f} s"
    if job.end_s is None:
        return f"{released}: skipped, the next one came before it could begin"
    took, room = 1000 * (job.end_s - job.release_s), 1000 * (job.deadline_s - job.end_s)
    return f"{released}: result after {took:.2f} ms, {abs(room):.2f} ms {'too late' if job.missed else 'to spare'}"


def _bar(
    start: float, end: float, y: float, height: float, color: str, tip: Child, opacity: float | None = None
) -> Markup:
    wide = round(max(0.0, end - start - (1 if end - start > 4 else 0)), 2)  # a gap between bars that touch
    return element("rect", tip, x=start, y=y, width=wide, height=height, fill=color, fill_opacity=opacity)


def _triangle(x: float, y: float, tip: Child = None) -> Markup:
    return element("polygon", tip, points=f"{x - 5:g},{y - 8:g} {x + 5:g},{y - 8:g} {x:g},{y:g}", fill=BAD)


def _cross(x: float, y: float, tip: Child = None) -> Markup:
    path = f"M{x - 4:g} {y - 4:g}L{x + 4:g} {y + 4:g}M{x - 4:g} {y + 4:g}L{x + 4:g} {y - 4:g}"
    return element("path", tip, d=path, stroke=BAD, stroke_width=2.4, fill="none")


def _legend(y: float, color: str) -> Sequence[Child]:
    entries: list[tuple[Child, float, str]] = [
        (element("line", x1=0, x2=0, y1=y - 10, y2=y + 4, stroke=FAINT), 0, "a job is released"),
        (_bar(0, 18, y - 6, 6, color, None, opacity=0.35), 18, "it waits"),
        (_bar(0, 14, y - 11, 16, color, None), 14, "it runs"),
        (element("rect", x=0, y=y - 14, width=6, height=22, fill=BOND), 6, "tasks in one call"),
        (_triangle(5, y + 2), 10, "deadline missed"),
        (_cross(5, y - 3), 10, "skipped: the next frame came first"),
    ]
    parts: list[Child] = []
    left = 18.0
    for mark, wide, text in entries:
        parts.append(element("g", mark, transform=f"translate({left:g} 0)"))
        parts.append(_words(text, left + wide + 7, y + 1, font_size=12))
        left += wide + 32 + 6.2 * len(text)
    return parts
