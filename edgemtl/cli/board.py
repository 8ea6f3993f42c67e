"""`edgemtl doctor --device NAME`: what can be done for a board from here, what it or its file lacks, how to get it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edgemtl.cli.installed import install_line, is_installed
from edgemtl.cli.screen import Screen

if TYPE_CHECKING:
    from edgemtl.devices import Device
    from edgemtl.profiling import BoardFacts
    from edgemtl.targets import ExportTarget

__all__ = ["Finding", "findings_of", "show_board"]

_FACTS = ("memory", "bandwidth", "peaks", "systems", "power_modes", "sensors")
_FPGA_FACTS = ("fpga", "sensors")
"""Those of a board that runs projects alone: rates and systems decide nothing there."""


@dataclass(frozen=True)
class Finding:
    """One thing about a board: whether it is as it should be, in words, and what to do where it is not."""

    about: str
    good: bool
    state: str
    remedy: str = ""


def show_board(screen: Screen, name: str) -> None:
    """Show the findings of the device called `name`; raises `UserError` with the nearest names."""
    from edgemtl.devices import load_device

    device = load_device(name)
    findings = list(findings_of(device))
    if not screen.as_json:
        rows = [(each.about, "ok" if each.good else "missing", each.state, each.remedy) for each in findings]
        screen.table(f"{device.name}: {device.title}", ("what", "", "found", "to do"), rows)
    screen.json({"device": device.name, "findings": [asdict(each) for each in findings]})


def findings_of(device: Device) -> Iterator[Finding]:
    """Everything that is known of a board: its file, what it answers, runtimes with their latencies, and facts."""
    from edgemtl.devices import device_file, device_names

    if has_file := device.name in device_names():
        yield Finding("file", True, str(device_file(device.name)))
    yield from _access(device)
    for runtime in device.runtimes:
        yield from _runtime(device, runtime.name)
    if has_file:
        yield from _facts(device)
    if device.is_host:
        yield _rails(*_own_rails())
    elif device.measurer is None:
        yield _sensors(device)


def _own_rails() -> tuple[list[str], str]:
    from edgemtl.profiling import find_rails

    rails, reason = find_rails()
    return [rail.name for rail in rails], reason


def _rails(rails: Sequence[str], reason: str) -> Finding:
    """Whether a machine that was looked at has what energy is measured by."""
    if rails:
        return Finding("energy", True, f"measured by {', '.join(rails)}")
    return Finding("energy", False, f"not measured: {reason}")


def _sensors(device: Device) -> Finding:
    """Whether the file of a board that nothing reaches says that it has some."""
    named = [f"{each.name} ({each.quantity})" for each in device.sensors if each.quantity in ("energy", "power")]
    return Finding("energy", bool(named), ", ".join(named) or "no sensor is stated: energy is not measured")


def _access(device: Device) -> Iterator[Finding]:
    """How the board is reached and, where that is by ssh, what it says after a login."""
    from edgemtl.devices import SSH, own_file
    from edgemtl.errors import UserError
    from edgemtl.profiling import read_board

    remedy = f"fill in reach: {{host: ..., user: ...}} in {own_file(device)}, or give its address, ssh://USER@HOST"
    if device.is_host:
        yield Finding("access", True, "this machine")
    elif not device.reach.host:
        yield Finding("access", False, "nothing says how to reach it", remedy)
    elif device.measurer != SSH:
        yield Finding("access", True, f"{device.reach.url}, by the measurer {device.measurer}")
    else:
        try:
            answer = read_board(device.reach)
        except UserError as error:
            yield Finding("access", False, f"{device.reach.url} was not logged in to", str(error))
            return
        yield Finding("access", True, device.reach.url)
        yield from _answers(device, answer)


def _answers(device: Device, answer: BoardFacts) -> Iterator[Finding]:
    """The words of a board that was reached, held against its file and against what engines need there."""
    from edgemtl.arithmetic import ANY
    from edgemtl.profiling import how_to_install

    yield Finding("board", True, answer.system)
    right = device.arithmetic in (ANY, answer.processor)
    remedy = "" if right else f"its file says {device.arithmetic}: correct its arithmetic, or its reach"
    yield Finding("processor", right, f"{answer.machine}, {answer.processor}", remedy)
    for name in ("numpy", *(runtime.name for runtime in device.runtimes)):
        if name in answer.packages:
            version = answer.packages[name]
            state = f"{device.reach.python} there has {'none' if version is None else version}"
            remedy = "" if version else f"{how_to_install(name)}; or name the Python that has it under reach"
            yield Finding(f"package {name}", version is not None, state, remedy)
    yield _rails(answer.rails, answer.no_rails)


def _runtime(device: Device, name: str) -> Iterator[Finding]:
    """Whether there is a target for a runtime, whether it is installed here, and where its latencies come from."""
    from edgemtl.errors import UserError
    from edgemtl.targets import find_target, target_of

    about, written_by = f"runtime {name}", target_of(name)
    if written_by is None:
        yield Finding(about, False, "there is no target for it here", "export for another of its runtimes")
        return
    try:
        target = find_target(written_by, device)
    except UserError as error:
        yield Finding(about, False, str(error))
        return
    needed = bool(target.traits.extra) and not is_installed(target.traits.runtime)
    precisions = ", ".join((*target.traits.block_precisions, *target.traits.engine_precisions))
    state = f"target {written_by}: {precisions}{'; not installed here' if needed else ''}"
    yield Finding(about, True, state, install_line(target.traits.extra) if needed and device.is_host else "")
    yield _latency(device, target)


def _latency(device: Device, target: ExportTarget) -> Finding:
    from edgemtl.errors import UserError
    from edgemtl.nas.latency import estimate_latency
    from edgemtl.targets import FPGA_CLOCK_NS, measurer_of

    about, runtime = f"latency by {target.traits.name}", target.traits.runtime
    if device.fpga and device.runtime(runtime).unit == "fpga":
        return Finding(about, True, f"estimated in cycles of {FPGA_CLOCK_NS:g} ns an image takes: --budget 2Mcycles")
    measurer = measurer_of(target)
    if measurer.untimed is None:
        return Finding(about, True, f"{measurer.kind} {'here' if device.is_host else 'there'}")
    try:
        return Finding(about, True, f"estimated: {estimate_latency(device, runtime).words}")
    except UserError as error:
        return Finding(about, False, "neither measured nor estimated", str(error))


def _facts(device: Device) -> Iterator[Finding]:
    """The facts that a file may state: which are there, and which of those name no document."""
    if device.is_host:
        return
    values = {"memory": device.memory_bytes, "bandwidth": device.memory_bytes_per_s}
    wanted = _FPGA_FACTS if device.fpga and all(each.unit == "fpga" for each in device.runtimes) else _FACTS
    stated = [name for name in (*_FACTS, "fpga") if values.get(name, getattr(device, name, None))]
    absent = [name for name in wanted if name not in stated]
    cited = {fact for source in device.sources for fact in source.facts}
    unsourced = [name for name in stated if name not in cited]
    yield Finding(
        "facts", not absent, f"stated: {', '.join(stated) or 'none'}", f"add {', '.join(absent)}" if absent else ""
    )
    if unsourced:
        yield Finding("sources", False, f"no document is named for {', '.join(unsourced)}", "name it under sources")
