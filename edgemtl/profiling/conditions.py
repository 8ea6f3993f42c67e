"""The state of the machine that a profile was measured on, in a line: model, power mode, clocks, heat, throttling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgemtl.profiling.schema import Profile

__all__ = ["conditions_of"]

_CORE = re.compile(r"cpu\d+")
_CORES = "cores"
_THROTTLING = {"yes": "throttled", "no": "not throttled", "unknown": "throttling is not known"}
_MOST_CLOCKS = 4
"""Clocks that a line has besides that of the cores; `profile.json` has all."""


def conditions_of(profile: Profile) -> str:
    """The board and its power mode, ranges of its clocks before and after, the highest temperature, and throttling.

    What a machine does not tell is left out; a profile of a file of anyone's may hold anything in its place.
    """
    readings = [_mapping(_mapping(profile.environment.get("sensors")).get(when)) for when in ("before", "after")]
    models, modes = ([str(each[key]) for each in readings if key in each] for key in ("model", "power_mode"))
    words = [*models[:1], *(f"power mode {mode}" for mode in dict.fromkeys(modes))]
    words += [word for word in (_clocks(readings), _heat(readings)) if word]
    return "; ".join([*words, _THROTTLING[profile.stability.throttled]])


def _clocks(readings: list[Mapping[str, Any]]) -> str:
    """`MHz: cores 1510 to 1728, 17000000.gpu 625`; cores count as one."""
    clocks: dict[str, list[float]] = {}
    for each in readings:
        for name, mhz in _numbers(each.get("clocks_mhz")).items():
            clocks.setdefault(_CORES if _CORE.fullmatch(name) else name, []).append(mhz)
    shown = sorted(clocks, key=lambda name: name != _CORES)[: _MOST_CLOCKS + 1]
    return f"MHz: {', '.join(f'{name} {_range(clocks[name])}' for name in shown)}" if shown else ""


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _heat(readings: list[Mapping[str, Any]]) -> str:
    """`up to 51.2 °C (cpu-thermal)`."""
    zones = [(celsius, name) for each in readings for name, celsius in _numbers(each.get("temperatures_c")).items()]
    return "up to {:.1f} °C ({})".format(*max(zones)) if zones else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: object) -> dict[str, float]:
    return {name: float(each) for name, each in _mapping(value).items() if isinstance(each, int | float)}
