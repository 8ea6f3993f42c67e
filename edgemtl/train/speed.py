"""The speed at which this machine trains, measured: a processor's instruction sets do not say whether BF16 is faster.

A product of BF16 numbers can take twice the time of one of FP32 numbers where both have instructions: which of the two
trains faster differs between makers and generations.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgemtl.environment import BF16_FLAGS, environment
from edgemtl.errors import UserError
from edgemtl.files.cache import cache_root
from edgemtl.files.disk import write_json
from edgemtl.schema import Strict, read_document

__all__ = ["TimedPass", "TrainingSpeed", "speed_file", "timed_pass", "training_speed"]

SCHEMA = "edgemtl.speed/1"
_FOLDER = "training_speed"
_IMAGES, _CHANNELS, _HEIGHT, _WIDTH = 4, 64, 48, 64
_LAYERS, _REPEATS = 2, 3
_GFLOPS = 3 * 2 * _LAYERS * _IMAGES * _CHANNELS**2 * 9 * _HEIGHT * _WIDTH / 1e9
"""Of a forward and a backward pass."""
_LEAST_SHARE = 0.7
"""A process alone on its cores has over nine tenths of their time, one that shares them with another some half."""


class TrainingSpeed(Strict):
    """GFLOP/s at which all threads train convolutions; `bf16` is None where the processor has no instructions for it.

    Content of a file in the cache.
    """

    schema_: Literal["edgemtl.speed/1"] = Field(default="edgemtl.speed/1", alias="schema")
    fp32: float
    bf16: float | None = None

    @property
    def prefers_bf16(self) -> bool:
        """Whether BF16 trains faster."""
        return self.bf16 is not None and self.bf16 > self.fp32


@cache
def training_speed() -> TrainingSpeed:
    """The speed of this processor, of what was measured here first: a training that goes on computes as it began.

    Takes under a second the first time on a machine; kept in the cache of `cache_root`, by processor and torch, unless
    other work held the cores meanwhile.
    """
    file, cpu = speed_file(), environment()["cpu"]
    with suppress(UserError):
        return read_document(file, "training speed", TrainingSpeed, SCHEMA, "it is measured anew")
    fp32, *bf16 = _measured(cpu["usable_threads"], with_bf16=not BF16_FLAGS.isdisjoint(cpu["flags"]))
    speed = TrainingSpeed(fp32=_GFLOPS / fp32.computed, bf16=_GFLOPS / bf16[0].computed if bf16 else None)
    if all(each.share > _LEAST_SHARE for each in (fp32, *bf16)):
        with suppress(UserError):
            write_json(file, speed.model_dump(mode="json", by_alias=True))
    return speed


def speed_file() -> Path:
    """Where the speed of this processor, on as many threads and with this torch, is kept."""
    cpu, packages = environment()["cpu"], environment()["packages"]
    key = json.dumps([cpu["model"], cpu["flags"], cpu["usable_threads"], packages["torch"]])
    return cache_root() / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True, order=True)
class TimedPass:
    """A forward and a backward pass: seconds that each thread computed, and that it lasted by the clock.

    A busy machine is not taken for a slow one by the former, in which the passes have their order.
    """

    computed: float
    seconds: float

    @property
    def share(self) -> float:
        """The share of the cores' time that the process had."""
        return self.computed / self.seconds


def timed_pass(compute: Callable[[], object], threads: int) -> TimedPass:
    """One call of `compute`, which so many threads of this process share, and nothing else of it."""
    began, had = time.perf_counter(), time.process_time()
    compute()
    return TimedPass((time.process_time() - had) / threads, time.perf_counter() - began)


def _measured(threads: int, *, with_bf16: bool) -> list[TimedPass]:
    """The best of a few passes in FP32 and, in turns with them, in BF16, where instructions make that worth a try."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net, image = _convolutions()
        _pass(net, image, bf16=False)
        kinds = (False, True) if with_bf16 else (False,)
        passes = [
            [timed_pass(partial(_pass, net, image, bf16=bf16), threads) for bf16 in kinds] for _ in range(_REPEATS)
        ]
    finally:
        torch.set_num_threads(before)
    return [min(each) for each in zip(*passes, strict=True)]


def _convolutions() -> tuple[nn.Module, Tensor]:
    """Layers such as nets of the built-in spaces have, and images for them."""
    with torch.random.fork_rng(devices=[]):  # when this is measured must not change what a user's seed gives
        convolutions = [nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False) for _ in range(_LAYERS)]
    layers = [layer for each in convolutions for layer in (each, nn.BatchNorm2d(_CHANNELS), nn.ReLU())]
    image = torch.zeros(_IMAGES, _CHANNELS, _HEIGHT, _WIDTH)
    net = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net, image.contiguous(memory_format=torch.channels_last)


def _pass(net: nn.Module, image: Tensor, *, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = net(image)
    output.float().mean().backward()
