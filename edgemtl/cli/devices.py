"""`edgemtl devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb
from edgemtl.units import format_bytes

if TYPE_CHECKING:
    from edgemtl.devices import Device

__all__ = ["devices"]


@verb("devices", examples=("edgemtl devices", "edgemtl devices jetson-orin-nano", "edgemtl devices --format json"))
@click.argument("names", metavar="[NAME]...", nargs=-1)
def devices(screen: Screen, names: tuple[str, ...]) -> None:
    """List the known devices, or show some in full.

    Your own device is a YAML file in the folder profiles/ of the working directory.
    """
    from edgemtl.devices import device_names, load_device

    chosen = [load_device(name) for name in names or device_names()]
    if not screen.as_json:
        _overview(screen, chosen)
        for device in chosen if names else ():
            _details(screen, device)
    screen.json([device.model_dump(mode="json", by_alias=True) for device in chosen])


def _overview(screen: Screen, devices: list[Device]) -> None:
    columns = ("name", "what", "memory", "multiplies with", "precisions", "runtimes", "measured from here")
    rows = [
        (
            device.name,
            device.title,
            format_bytes(device.memory_bytes) if device.memory_bytes else None,
            device.arithmetic,
            " ".join(device.precisions),
            " ".join(runtime.name for runtime in device.runtimes),
            "yes" if device.is_host or device.measurer else "no",
        )
        for device in devices
    ]
    screen.table("Devices", columns, rows)


def _details(screen: Screen, device: Device) -> None:
    rates = [
        (f"peak {p.unit} {p.precision}", f"{p.ops_per_s:.3g} operations/s ({p.kind})", p.note) for p in device.peaks
    ]
    if device.memory_bytes_per_s:
        rates.append(("memory bandwidth", f"{format_bytes(device.memory_bytes_per_s)}/s", ""))
    runtimes = [
        (f"runtime {r.name}", f"{' '.join(r.precisions)}, by {device.arithmetic_of(r.name)}", r.note)
        for r in device.runtimes
    ]
    modes = [(f"power mode {m.name}", f"{m.watts:g} W" if m.watts else None, "") for m in device.power_modes]
    sensors = [(f"sensor {s.name}", s.quantity, s.read) for s in device.sensors]
    facts = [
        (what, text, "")
        for what, text in (("SoC", device.soc), ("CPU", device.cpu), ("accelerator", device.accelerator))
        if text
    ]
    screen.table(device.title, ("what", "value", "note"), [*facts, *rates, *runtimes, *modes, *sensors])
    for note in device.notes:
        screen.say(note)
