"""Run a command as if this x86 processor were an older one: python benchmarks/as_processor.py avx2 COMMAND...

ONNX Runtime and OpenVINO choose their kernels by `cpuid`, and the former has no switch for it. Here they run as copies
in which that instruction traps and is answered with newer instruction sets hidden (cpuid_mask.c), so what they compute
is what they compute on the older processor, at this one's speed. torch, which trains and simulates in FP32, is held by
its own switch; /proc/cpuinfo tells the same story, with "held to" in the processor's name, so that results say it.
Needs Linux on x86-64, gcc and objdump. Copies are kept in ~/.cache/edgemtl.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edgemtl.environment import environment

MASK_SOURCE = Path(__file__).parent / "cpuid_mask.c"
CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("onnxruntime", "openvino")
LIBRARIES = ("capi/*onnxruntime*.so*", "libs/libopenvino.so*", "libs/libopenvino_intel_cpu_plugin.so")
"""Where the two decide which kernels to run."""

VNNI = {"avx_vnni": (7, 1, 0, 4), "avx512_vnni": (7, 0, 2, 11)}
NEWER_THAN_AVX_VNNI = {
    "avx512f": (7, 0, 1, 16), "avx512dq": (7, 0, 1, 17), "avx512ifma": (7, 0, 1, 21), "avx512cd": (7, 0, 1, 28),
    "avx512bw": (7, 0, 1, 30), "avx512vl": (7, 0, 1, 31), "avx512vbmi": (7, 0, 2, 1), "avx512_vbmi2": (7, 0, 2, 6),
    "gfni": (7, 0, 2, 8), "vaes": (7, 0, 2, 9), "vpclmulqdq": (7, 0, 2, 10), "avx512_vnni": (7, 0, 2, 11),
    "avx512_bitalg": (7, 0, 2, 12), "avx512_vpopcntdq": (7, 0, 2, 14), "avx512_vp2intersect": (7, 0, 3, 8),
    "amx_bf16": (7, 0, 3, 22), "avx512_fp16": (7, 0, 3, 23), "amx_tile": (7, 0, 3, 24), "amx_int8": (7, 0, 3, 25),
    "avx512_bf16": (7, 1, 0, 5), "amx_fp16": (7, 1, 0, 21), "avx_vnni_int8": (7, 1, 3, 4),
    "avx_ne_convert": (7, 1, 3, 5), "avx_vnni_int16": (7, 1, 3, 10), "avx10": (7, 1, 3, 19),
}  # fmt: skip
"""Flag in /proc/cpuinfo to leaf, subleaf, register and bit of `cpuid`."""


@dataclass(frozen=True)
class Older:
    """A class of processor to be held to: what it lacks, a flag that it has, and what torch calls it."""

    hidden: dict[str, tuple[int, int, int, int]]
    needs: str
    aten: str


CLASSES = {
    "avx2": Older({**NEWER_THAN_AVX_VNNI, **VNNI}, "avx2", "avx2"),
    "avx-vnni": Older(NEWER_THAN_AVX_VNNI, "avx_vnni", "avx2"),
}


def environment_of(name: str) -> dict[str, str]:
    """Variables under which Python and what it starts run as the class `name`; exits with a line where it cannot."""
    older = CLASSES[name]
    if platform.machine() != "x86_64" or older.needs not in _flags():
        sys.exit(f"as_processor: this processor cannot be held to {name}: it lacks {older.needs}")
    for tool in ("gcc", "objdump"):
        if shutil.which(tool) is None:
            sys.exit(f"as_processor: {tool} is needed and missing: install gcc and binutils")
    cache = _cache()
    cpuinfo = cache / f"cpuinfo.{name}"
    cpuinfo.write_text(_masked_cpuinfo(name), encoding="utf-8")
    masks = ",".join(f"{a:x}.{b:x}.{register:x}.{1 << bit:x}" for a, b, register, bit in older.hidden.values())
    paths = [str(cache / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "LD_PRELOAD": str(cache / "cpuid_mask.so"),
        "CPUID_MASK": masks,
        "CPUID_CPUINFO": str(cpuinfo),
        "PYTHONPATH": os.pathsep.join(paths),
        "ATEN_CPU_CAPABILITY": older.aten,
    }


def _flags() -> set[str]:
    found = re.search(r"^flags\s*:(.*)$", CPUINFO.read_text(encoding="utf-8"), re.MULTILINE)
    return set(found[1].split()) if found else set()


def _masked_cpuinfo(name: str) -> str:
    hidden = CLASSES[name].hidden
    text = re.sub(
        r"^(flags\s*:)(.*)$",
        lambda line: f"{line[1]} {' '.join(flag for flag in line[2].split() if flag not in hidden)}",
        CPUINFO.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    return re.sub(r"^(model name\s*: .*)$", rf"\1 (held to {name})", text, flags=re.MULTILINE)


def _cache() -> Path:
    """The folder of patched copies for the installed versions, made once: whole or not at all."""
    versions = [platform.python_version(), *(f"{package} {version(package)}" for package in PACKAGES)]
    digest = hashlib.sha256(" ".join(versions).encode() + MASK_SOURCE.read_bytes()).hexdigest()[:12]
    cache = Path("~/.cache/edgemtl").expanduser() / f"as-processor-{digest}"
    if not cache.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache.parent))
        shared = ["-shared", "-fPIC", "-O2", "-o", str(scratch / "cpuid_mask.so")]
        subprocess.run(["gcc", *shared, str(MASK_SOURCE), "-ldl"], check=True)
        for package in PACKAGES:
            _copy_patched(package, scratch / "packages")
        scratch.replace(cache)
    return cache


def _copy_patched(package: str, folder: Path) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"as_processor: {package} is not installed")
    copy = shutil.copytree(Path(spec.origin).parent, folder / package, symlinks=True)
    for pattern in LIBRARIES:
        for library in copy.glob(pattern):
            if not library.is_symlink():
                print(f"as_processor: {library.name}: {_patch(library)} places patched", file=sys.stderr, flush=True)


def _patch(library: Path) -> int:
    """Replace every `cpuid` (0f a2) that the disassembler finds by `ud2` (0f 0b); returns how many there were."""
    heads = subprocess.run(["objdump", "-h", "-w", library], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in heads.splitlines() if "CODE" in line]
    sections = [(int(row[3], 16), int(row[2], 16), int(row[5], 16)) for row in rows]  # address, size, offset
    content = bytearray(library.read_bytes())
    count = 0
    with subprocess.Popen(["objdump", "-d", "-w", library], stdout=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        for line in listing.stdout:
            if "cpuid" in line and (found := re.match(r"\s*([0-9a-f]+):\s+0f a2\s+cpuid", line)):
                address = int(found[1], 16)
                start, _, offset = next(s for s in sections if s[0] <= address < s[0] + s[1])
                content[address - start + offset + 1] = 0x0B
                count += 1
    library.write_bytes(content)
    return count


def main() -> None:
    """Parse and run; exits as the command does."""
    if len(sys.argv) < 3 or sys.argv[1] not in CLASSES:
        sys.exit(f"usage: python benchmarks/as_processor.py {{{','.join(CLASSES)}}} COMMAND...")
    name, command = sys.argv[1], sys.argv[2:]
    if environment()["cpu"]["class"] == name:
        os.execvp(command[0], command)
    os.execvpe(command[0], command, {**os.environ, **environment_of(name)})


if __name__ == "__main__":
    main()
