"""A device file of one's own: a template that explains itself, or a shipped board's file to change."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgemtl.devices.loading import FOLDER, HOST, device_file, device_names, load_device
from edgemtl.devices.schema import Device
from edgemtl.errors import UserError, brief
from edgemtl.files.disk import write_atomic
from edgemtl.files.share import is_shipped

__all__ = ["new_device", "own_file"]

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_HEAD = """\
# A board of your own. `edgemtl devices {name}` shows what is understood of this file, `edgemtl doctor --device {name}`
# what is missing. Lines that begin with #> are examples: take these two characters away to use one.
"""
_REACH = """\
# Where ssh reaches it; engines are then measured on the board itself. Keys live in your ssh agent, never here.
#>reach: {host: 192.168.1.20, user: me}
"""
_TEMPLATE = """\
schema: edgemtl.device/1
name: board
title: board
kind: board
#>soc: Broadcom BCM2712
#>cpu: 4 x Arm Cortex-A76, 2.4 GHz
#>accelerator: none that a runtime here uses

# Sizes are in B, kB, MB, GB, TB, KiB, MiB, GiB or TiB. An estimate of latency needs the bandwidth of the memory.
#>memory: 8 GiB
#>bandwidth: 17.1 GB/s

# What engines may compute in: fp32, fp16, bf16, fp8, fp4, int8, int4; of an FPGA fixed, int12, int10, int8.
precisions: [fp32, int8]

# What the processor multiplies eight-bit numbers with, which decides how INT8 is written: `edgemtl doctor` on the board
# says it (CPU class). One of amx, avx512-vnni, avx-vnni, avx2, arm-dot, arm; with other, INT8 is right on all of them.
arithmetic: other

# What runs there, on which unit of the board, and what it computes in there. Name the one to search for first.
runtimes:
  - {name: onnxruntime, precisions: [fp32, int8]}
#>  - {name: openvino, precisions: [fp32]}
#>  - {name: tensorrt, precisions: [fp32, int8], unit: gpu, arithmetic: gpu}

# The systems that it runs, and what they bring.
#>systems:
#>  - {name: Raspberry Pi OS 12, python: "3.11", versions: {onnxruntime: "1.23"}}

# The most that a unit computes in a precision, in MOPS, GOPS or TOPS (or MFLOPS, GFLOPS, TFLOPS), 2 a multiplication
# with its addition: stated by the vendor, or derived from cores, lanes and clock. An estimate needs that of fp32.
#>peaks:
#>  - {unit: cpu, precision: fp32, rate: 153.6 GFLOPS, kind: derived, note: 4 cores x 2 units x 4 lanes x 2 x 2.4 GHz}
#>  - {unit: cpu, precision: int8, rate: 614.4 GOPS, kind: derived, note: 4 cores x 2 units x 16 lanes x 2 x 2.4 GHz}

#>power_modes:
#>  - {name: 15W, limit: 15 W}

# Readings: energy (a counter), power, temperature, clock or throttling, and where they stand.
#>sensors:
#>  - {name: SoC, quantity: temperature, read: /sys/class/thermal/thermal_zone0/temp}

# The part and the resources of an FPGA.
#>fpga: {part: xczu7ev-ffvc1156-2-e, luts: 230400, flip_flops: 460800, bram_36k: 312, dsps: 1728, urams: 96}

# How many deep-learning accelerators (DLA) an NVIDIA module has.
#>dla: 2

# The documents that these facts were read in.
#>sources:
#>  - {facts: [memory, bandwidth], document: "Data sheet of the board", url: "https://example.org/board.pdf"}

"""


def new_device(name: str, like: str | None = None) -> Path:
    """Write `profiles/NAME.yaml` in the working directory; it can be used as it is. Returns the file.

    With `like` it begins with the facts of that board. Raises `UserError` for a name that is none or is taken, so that
    no file is written over, and for `like` this machine, which is detected.
    """
    _check_name(name)
    if like == HOST:
        raise UserError(f"--like {HOST}: this machine is detected, no file describes it; leave it out or name a board")
    text = device_file(load_device(like).name).read_text(encoding="utf-8") if like else _TEMPLATE
    title = f"{name}, begun as {like}" if like else name
    text = re.sub(r"^name: .*$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^title: .*$", lambda _: f"title: {json.dumps(title)}", text, count=1, flags=re.MULTILINE)
    reach = "" if re.search(r"^reach:", text, re.MULTILINE) else _REACH
    text = _HEAD.format(name=name) + ("" if like else "\n") + text.rstrip("\n") + "\n\n" + reach
    path = Path(FOLDER) / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, text)
    return path


def own_file(device: Device) -> str:
    """The user's own file of a device, for words on what to add to it; of any other device how such a file begins."""
    if device.name in device_names() and not is_shipped(path := device_file(device.name)):
        return str(path)
    like = f" --like {device.name}" if device.name in device_names() else ""
    return f"a device file of your own (edgemtl devices new NAME{like})"


def _check_name(name: str) -> None:
    """Raise `UserError` for a name that is none, and for one that a device has."""
    if not _NAME.fullmatch(name):
        raise UserError(f"device name {brief(name)}: give small letters, digits, dots and dashes, for example my-board")
    if name in device_names() and not is_shipped(path := device_file(name)):
        raise UserError(f"device name {name!r} is taken: change {path}, or choose another one")
    if name in device_names() or name == "new":
        raise UserError(f"device name {name!r} is taken: choose another one, for example my-{name}")
