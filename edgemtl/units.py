"""Budgets and preferences: quantities with a unit and a scope, and how they are printed.

1 MAC is 2 FLOPs everywhere, and tables print both. The quantity of floors is `drop`, the fraction of its metric that a
task loses, or `score`, a metric's value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.plugins import Registry

__all__ = [
    "Budget",
    "Quantity",
    "find_quantity",
    "format_bytes",
    "format_duration",
    "format_flops",
    "format_limit",
    "format_quantity",
    "parse_amount",
    "parse_budget",
    "parse_preference",
    "preference_text",
]

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, eq=False)
class Quantity:
    """Something that a budget limits; its `name` is the key of result files.

    `units` say how much of it one of each is, `shares` are percentages of what the largest design takes, and `text`
    prints a value. It is `counted` on a net's blocks, the same on every device, or else given by what measures a
    device; `unavailable` says why nothing gives it yet. A target may bring a counted one (`TargetTraits.quantities`,
    and the entry-point group `edgemtl.quantities`, so that budgets in it are understood): `count` gives it for the
    `BlockPlan`s that run, and the precision of each by its `parameters`.
    """

    name: str
    units: Mapping[str, float]
    shares: tuple[str, ...]
    text: Callable[[float], str]
    counted: bool = True
    unavailable: str = ""
    count: Callable[[Sequence[Any], Mapping[str, str]], float] | None = None


def _prefixed(unit: str, scale: float = 1.0, prefixes: str = "kMGT") -> dict[str, float]:
    return {f"{prefix}{unit}": scale * _PREFIXES[prefix] for prefix in ("", *prefixes)}


def _by_target(blocks: Sequence[Any], precision: Mapping[str, str]) -> float:
    """Stands for a count that a target's own traits bring: it differs from FPGA to FPGA."""
    raise UserError("LUT, DSP, BRAM and cycles are those of an FPGA: add --target hls and its --device")


_ESTIMATED = " (estimated)"


def _estimated(name: str, unit: str) -> Quantity:
    """A resource of FPGAs, or their cycles; values say that they come from a model."""
    return Quantity(
        name, _prefixed(unit), (f"%{unit}",), lambda count: f"{_scaled(count)}{unit}{_ESTIMATED}", count=_by_target
    )


_TABLE: tuple[Quantity, ...] = (
    Quantity(
        "flops",
        _prefixed("FLOPs") | _prefixed("MACs", 2),
        ("%FLOPs", "%MACs"),
        lambda flops: f"{_scaled(flops)}FLOPs ({_scaled(flops / 2)}MACs)",
    ),
    Quantity("params", _prefixed("params"), ("%params",), lambda count: f"{_scaled(count)}parameters"),
    Quantity("latency_ms", {"us": 1e-3, "ms": 1.0, "s": 1e3}, ("%ms",), lambda ms: f"{_digits(ms)} ms", counted=False),
    Quantity("weight_bytes", _prefixed("B", prefixes="kMG"), ("%MB",), lambda count: f"{_scaled(count)}B"),
    Quantity(
        "energy_mj",
        {"mJ": 1.0, "J": 1e3},
        ("%mJ",),
        lambda mj: f"{_digits(mj)} mJ",
        counted=False,
        unavailable="a search has no limits in energy, which edgemtl profile measures: give one in ms, FLOPs or MB, "
        "for example 2GFLOPs",
    ),
    *(_estimated(*each) for each in (("luts", "LUT"), ("dsps", "DSP"), ("brams", "BRAM"), ("cycles", "cycles"))),
    Quantity("drop", {}, (), lambda fraction: f"{_percent(fraction)} %"),
    Quantity("score", {}, (), lambda value: _trimmed(_digits(value, 4))),
)
_BUILT_IN = {quantity.name: quantity for quantity in _TABLE}
_QUANTITIES: Registry[Quantity] = Registry(
    "quantity",
    "edgemtl.quantities",
    {name: partial(_BUILT_IN.__getitem__, name) for name in _BUILT_IN},
    instance_of=Quantity,
)


@cache
def find_quantity(name: str) -> Quantity:
    """The quantity called `name`, built in or a target's own; raises `UserError` with the nearest names."""
    return _QUANTITIES.find(name)


_BUDGET = re.compile(
    r"(?:(?P<task>[A-Za-z][\w-]*):)?(?P<value>\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?P<unit>%?[A-Za-z]+|%)"
    r"(?:@(?P<device>[\w.-]+)(?:/(?P<runtime>[\w.-]+))?)?"
)
TEXT_LIMIT = 300
EXAMPLES = "2GFLOPs, 1GMACs, 8ms, 8ms@host/openvino, 5MB, 60%FLOPs, depth:1GFLOPs"


@dataclass(frozen=True)
class Budget:
    """An upper limit that a design must keep.

    `value` is in the unit of its `quantity`, a `Quantity`'s name (FLOPs, parameters, ms, bytes or mJ), or a fraction of
    the largest design where `relative`. `task` limits it to what one task runs alone; `device` and `runtime` say where
    what is measured is measured (none: the search's own device and target).
    """

    quantity: str
    value: float
    text: str
    relative: bool = False
    task: str | None = None
    device: str | None = None
    runtime: str | None = None

    @property
    def counted(self) -> bool:
        """Whether the quantity is counted on the net, not measured."""
        return find_quantity(self.quantity).counted

    def limit(self, largest: float) -> float:
        """The limit in the quantity's unit, given the largest design's value."""
        return self.value * largest if self.relative else self.value


def parse_budget(text: str) -> Budget:
    """Read `2GFLOPs`, `8ms@host/openvino`, `60%FLOPs` or `depth:1GFLOPs`; `UserError` with the nearest spelling.

    >>> parse_budget("1.5GMACs").value
    3000000000.0
    >>> parse_budget("60%FLOPs").limit(2e9)
    1200000000.0
    >>> parse_budget("depth:8ms@host/openvino").task
    'depth'
    """
    match = _BUDGET.fullmatch(text) if len(text) <= TEXT_LIMIT else None
    if match is None:
        squeezed = re.sub(r"\s+", "", text)
        hint = (
            ": no space belongs between number and unit"
            if squeezed != text
            else ": a positive number and its unit are wanted, 15 digits at most"
        )
        raise UserError(f"budget {brief(text)} is not understood{hint}; examples: {EXAMPLES}")
    quantity, scale, relative = _unit(text, match["unit"])
    value = float(match["value"]) * scale
    if not math.isfinite(value) or value <= 0:
        raise UserError(f"budget {brief(text)} is no finite number above zero; examples: {EXAMPLES}")
    if match["device"] and quantity.counted:
        own = f"that of the search's device: add --device {match['device']} and"
        same = "the same on every device," if quantity.count is None else own
        raise UserError(f"budget {brief(text)}: a {match['unit']} limit is {same} drop @{match['device']}")
    return Budget(quantity.name, value, text, relative, match["task"], match["device"], match["runtime"])


def _unit(text: str, unit: str) -> tuple[Quantity, float, bool]:
    """The quantity of a unit, how much of it one is, and whether it is a share."""
    if unit == "%":
        raise UserError(f"budget {brief(text)} does not say of what: write 60%FLOPs, 60%ms or 60%MB")
    quantities = list(_TABLE)
    if not any(unit in (*each.units, *each.shares) for each in quantities):
        quantities = [find_quantity(name) for name in _QUANTITIES.names()]
    for each in quantities:
        if unit in each.shares:
            return each, 0.01, True
        if unit in each.units:
            return each, each.units[unit], False
    possible = [each for each in quantities if not each.unavailable]  # of others only the refusal says why
    offered = [
        *(name for each in possible for name in each.units),
        *(name for each in possible for name in each.shares),
    ]
    same = [name for name in offered if name.lower().rstrip("s") == unit.lower().rstrip("s")]
    if same and unit not in _PREFIXES:
        raise UserError(f"budget {brief(text)}: unknown unit {unit!r}, did you mean {same[0]!r}? examples: {EXAMPLES}")
    raise unknown_name(f"unit in budget {brief(text)}:", unit, offered)


_BYTES = _prefixed("B", prefixes="kMGT")
_AMOUNTS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "bytes": ("8 GiB", _BYTES | {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}),
    "bytes/s": ("68 GB/s", {f"{unit}/s": scale for unit, scale in _BYTES.items()}),
    "operations/s": ("40 TOPS", _prefixed("OPS", prefixes="MGT") | _prefixed("FLOPS", prefixes="MGT")),
    "watts": ("15 W", {"mW": 1e-3, "W": 1.0}),
}
"""Kinds of amounts in device files: an example, and how much of the base unit one of each unit is."""
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]+(?:/[A-Za-z]+)?)")


def parse_amount(text: object, base: str) -> float:
    """Read an amount with its unit; in its base unit: bytes, bytes/s, operations/s or watts.

    Raises `UserError` for a number without a unit, and with the nearest units for an unknown one.

    >>> parse_amount("8 GiB", "bytes")
    8589934592.0
    >>> parse_amount("1.28 TFLOPS", "operations/s")
    1280000000000.0
    """
    example, units = _AMOUNTS[base]
    match = _AMOUNT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UserError(f"{brief(text)} is no amount with a unit: write, for example, {example}")
    if match[2] not in units:
        raise unknown_name(f"unit in {brief(text)}:", match[2], units)
    return float(f"{float(match[1]) * units[match[2]]:.15g}")  # 17.1 GB/s is no fraction of a byte more


def parse_preference(text: str, tasks: Iterable[str]) -> dict[str, float]:
    """Read `depth=2,semseg=1`: weights of tasks, at least one above zero; a task that is not named weighs 1.

    >>> parse_preference("depth=2", ["semseg", "depth"])
    {'semseg': 1.0, 'depth': 2.0}
    """
    weights, named = dict.fromkeys(tasks, 1.0), set[str]()
    for part in text.split(","):
        name, _, amount = part.partition("=")
        if name not in weights:
            raise unknown_name("task in preference", name, weights)
        if name in named:
            raise UserError(f"preference {brief(text)} names {name} twice: give each task one weight")
        named.add(name)
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", amount):
            raise UserError(
                f"preference {brief(part)} is not understood: write TASK=WEIGHT, a weight of 0 to 999999999, "
                "for example depth=2"
            )
        weights[name] = float(amount)
    if not 0 < sum(weights.values()) < math.inf:
        raise UserError(f"preference {brief(text)}: the weights must add up to a finite number above 0")
    return weights


def preference_text(weights: Mapping[str, float]) -> str:
    """`depth=2,semseg=1`; empty where no task is preferred."""
    if len(set(weights.values())) < 2:
        return ""
    return ",".join(f"{task}={weight:g}" for task, weight in weights.items())


def format_flops(flops: float) -> str:
    """`2.00 GFLOPs (1.00 GMACs)`."""
    return format_quantity("flops", flops)


def format_bytes(count: float) -> str:
    """`1.25 MB`, decimal prefixes."""
    return format_quantity("weight_bytes", count)


def format_duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_quantity(quantity: str, value: float) -> str:
    """A value with its unit; with its quantity's name where no installed package says what that is."""
    if quantity in _BUILT_IN or quantity in _QUANTITIES.names():
        return find_quantity(quantity).text(value)
    return f"{_digits(value)} {quantity}"


def format_limit(quantity: str, value: float) -> str:
    """A limit with its unit: nothing about it is estimated, whatever is held against it."""
    return format_quantity(quantity, value).removesuffix(_ESTIMATED)


def _scaled(value: float) -> str:
    rounded = float(f"{value:.3g}")  # 999,600 is 1.00 M, not 1000 k
    prefix = next((prefix for prefix, scale in reversed(_PREFIXES.items()) if abs(rounded) >= scale), "")
    return f"{_digits(rounded / _PREFIXES[prefix])} {prefix}"


def _percent(fraction: float) -> str:
    """Two decimals at most, and no zeros at the end."""
    return _trimmed(f"{round(100 * fraction, 2) + 0.0:.2f}")  # never -0


def _trimmed(digits: str) -> str:
    """A number without zeros at the end of its decimals."""
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _digits(value: float, significant: int = 3) -> str:
    """So many significant digits, never with an exponent."""
    rounded = float(f"{value:.{significant}g}")
    last = significant - 1
    decimals = last - math.floor(math.log10(abs(rounded))) if rounded else last
    return f"{rounded:.{max(0, decimals)}f}"
