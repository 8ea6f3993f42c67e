"""`edgemtl devices`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb
from edgemtl.errors import UserError
from edgemtl.units import format_bytes

if TYPE_CHECKING:
    from edgemtl.devices import Device, Fpga, Peak, System

__all__ = ["devices"]


@verb(
    "devices",
    examples=(
        "edgemtl devices",
        "edgemtl devices jetson-orin-nano",
        "edgemtl devices new my-jetson --like jetson-orin-nano",
        "edgemtl devices --format json",
    ),
)
@click.argument("names", metavar="[NAME]... | new NAME", nargs=-1)
@click.option("--like", metavar="BOARD", help="With new: begin with the facts of this board.")
def devices(screen: Screen, names: tuple[str, ...], like: str | None) -> None:
    """List the known devices, show some in full, or begin a file of your own.

    Your own device is a YAML file in the folder profiles/ of the working directory: devices new NAME writes one that
    explains itself and works as it is.
    """
    from edgemtl.devices import device_names, load_device, new_device

    if names[:1] == ("new",):
        if len(names) != 2:
            raise UserError(f"devices new: {len(names) - 1} names given, give one, for example devices new my-board")
        path = new_device(names[1], like)
        screen.say(f"{path} was written: change what differs, then edgemtl doctor --device {names[1]}")
        screen.json([load_device(names[1]).model_dump(mode="json", by_alias=True)])
        return
    if like:
        raise UserError(f"--like {like} is for devices new NAME: name the new board, or drop it")
    chosen = [load_device(name) for name in names] if names else list(_readable(screen, device_names()))
    if not screen.as_json:
        _overview(screen, chosen)
        for device in chosen if names else ():
            _details(screen, device)
    screen.json([device.model_dump(mode="json", by_alias=True) for device in chosen])


def _readable(screen: Screen, names: Sequence[str]) -> Iterator[Device]:
    """The devices of these names; a note says what is wrong with the file of one that cannot be read."""
    from edgemtl.devices import load_device

    for name in names:
        try:
            yield load_device(name)
        except UserError as error:
            screen.note(str(error))


def _overview(screen: Screen, devices: list[Device]) -> None:
    columns = ("name", "what", "memory", "multiplies with", "precisions", "runtimes", "measured from here")
    rows = [
        (
            device.name,
            device.title,
            f"{device.memory_bytes / 2**30:.3g} GiB" if device.memory_bytes else None,
            device.arithmetic,
            " ".join(device.precisions),
            " ".join(runtime.name for runtime in device.runtimes),
            "yes" if device.is_host or device.measurer else "no",
        )
        for device in devices
    ]
    screen.table("Devices", columns, rows)


def _details(screen: Screen, device: Device) -> None:
    rates = [(f"peak {p.unit} {p.precision}{' sparse' if p.sparse else ''}", _rate(p), p.note) for p in device.peaks]
    if device.memory_bytes_per_s:
        rates.append(("memory bandwidth", f"{format_bytes(device.memory_bytes_per_s)}/s", ""))
    runtimes = [
        (f"runtime {r.name}", f"{' '.join(r.precisions)} on {r.unit}, by {device.arithmetic_of(r.name)}", r.note)
        for r in device.runtimes
    ]
    systems = [(s.name, _versions(s), s.note) for s in device.systems]
    modes = [(f"power mode {m.name}", f"{m.watts:g} W" if m.watts else None, "") for m in device.power_modes]
    sensors = [(f"sensor {s.name}", s.quantity, s.read) for s in device.sensors]
    fpga = [(f"FPGA {device.fpga.part}", _resources(device.fpga), "")] if device.fpga else []
    sources = [(f"source of {', '.join(s.facts)}", s.document, s.url) for s in device.sources]
    facts = [
        (what, text, "")
        for what, text in (("SoC", device.soc), ("CPU", device.cpu), ("accelerator", device.accelerator))
        if text
    ]
    rows = [*facts, *rates, *fpga, *runtimes, *systems, *modes, *sensors, *sources]
    screen.table(device.title, ("what", "value", "note"), rows)
    for note in device.notes:
        screen.say(note)


def _rate(peak: Peak) -> str:
    scale, prefix = (1e12, "T") if peak.ops_per_s >= 1e12 else (1e9, "G")
    return f"{peak.ops_per_s / scale:.4g} {prefix}OPS ({peak.kind})"


def _versions(system: System) -> str:
    return ", ".join([f"Python {system.python}", *(f"{name} {version}" for name, version in system.versions.items())])


def _resources(fpga: Fpga) -> str:
    counts = {"LUT": fpga.luts, "FF": fpga.flip_flops, "BRAM36": fpga.bram_36k, "DSP": fpga.dsps, "URAM": fpga.urams}
    return ", ".join(f"{count} {name}" for name, count in counts.items())
