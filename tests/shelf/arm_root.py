"""Arm's processors without a board: aarch64 Debian, ONNX Runtime and OpenVINO in root file systems that QEMU runs.

They are made once, below the folder that EDGEMTL_ARM_ROOT names or in the cache, and take 600 MB and a few minutes.
Needed are root's rights (for chroot), and on Debian or Ubuntu: apt install qemu-user-static debootstrap gcc.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

__all__ = ["arm_python", "missing"]

QEMU = "qemu-aarch64-static"
PYTHON, EMULATED_PYTHON = "/usr/bin/python3", "/usr/bin/python3.11"
TOOLS = (QEMU, "debootstrap", "dpkg-deb", "gcc")
SITE = "usr/local/lib/python3.11/dist-packages"
WHEELS = ("numpy", "onnxruntime", "openvino")
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(27, 37)))
"""Of Debian 12, whose C library is 2.36."""
MOST_FILES = 1024
"""Open files of a process: without /proc, Python closes every possible one when it starts another program."""
LAUNCHER = """
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **given) {
  char *first[] = {"/usr/bin/%(qemu)s", "-cpu", "%(cpu)s", "-0", "%(python)s", "%(emulated)s"};
  int own = sizeof first / sizeof *first;
  char **all = calloc(own + count, sizeof *all);
  for (int i = 0; i < own; i++) all[i] = first[i];
  for (int i = 1; i < count; i++) all[own + i - 1] = given[i];
  execv(all[0], all);
  return 127;
}
"""
"""The root's `python3`: this machine's kernel starts it, QEMU then runs the real one, and so what that starts."""
DESCRIBE = """
import ctypes, mmap, struct
libc = ctypes.CDLL(None)
libc.getauxval.restype = ctypes.c_ulong
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(struct.pack("<2I", 0xD5380000, 0xD65F03C0))  # mrs x0, midr_el1; ret
midr = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print(libc.getauxval(16), libc.getauxval(26), midr)
"""
FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 "
    "sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
"""Names of the bits of AT_HWCAP, lowest first, as the kernel writes them into /proc/cpuinfo."""
FEATURES_2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16"
)
"""The same for AT_HWCAP2."""
TOPOLOGY = {"physical_package_id": "0", "core_id": "0", "thread_siblings": "1", "core_siblings": "1"}
"""One processor of one core; OpenVINO ends with a segmentation fault where nothing is said."""


def missing() -> str:
    """Things that this machine lacks to emulate Arm, empty where nothing is."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root's rights, for chroot"
    if platform.machine() != "x86_64":
        return "needs an x86 machine: on Arm, run the engines themselves"
    tools = [name for name in TOOLS if shutil.which(name) is None]
    return f"needs {' and '.join(tools)}: apt install qemu-user-static debootstrap gcc" if tools else ""


def arm_python(cpu: str) -> Path:
    """A program that is to its caller what `python3` is on a board with this processor.

    `cpu` is one that `qemu-aarch64-static -cpu help` lists. Its root file system is made where it is not there yet, and
    again where other packages are installed here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgemtl-arm-root"
    folder = Path(os.environ.get("EDGEMTL_ARM_ROOT") or cache)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = " ".join(f"{name}=={version(name)}" for name in WHEELS)
        base = _made(folder / "base", wanted, _make_base)
        root = _made(folder / cpu, wanted, lambda path: _make_cpu(base, cpu, path))
    starter = folder / f"python-{cpu}"
    command = f'ulimit -n {MOST_FILES}\nTMPDIR=/tmp exec chroot "{root}" {PYTHON} "$@"\n'
    starter.write_text(f"#!/bin/sh\n{command}")
    starter.chmod(0o755)
    return starter


def _made(root: Path, wanted: str, make: Callable[[Path], None]) -> Path:
    """The file system `root`, as `make` makes it for these packages: whole or not at all."""
    ready = root.with_name(f"{root.name}.ready")
    if not ready.is_file() or ready.read_text() != wanted:
        ready.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        make(root)
        ready.write_text(wanted)
    return root


def _make_base(root: Path) -> None:
    """Debian's smallest system with Python, unpacked without running any of it, and the wheels for aarch64."""
    _run("debootstrap", "--arch=arm64", "--variant=minbase", "--foreign", "--include=python3", "bookworm", str(root))
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(root))
    shutil.copy(shutil.which(QEMU) or QEMU, root / "usr/bin" / QEMU)
    (root / PYTHON[1:]).unlink()
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wanted = [f"{name}=={version(name).split('-')[0]}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--python-version", "3.11", "--no-deps"]
    with tempfile.TemporaryDirectory() as wheels:
        _run(*pip, *platforms, "-d", wheels, *wanted)
        for wheel in Path(wheels).glob("*.whl"):
            with zipfile.ZipFile(wheel) as content:
                content.extractall(root / SITE)


def _make_cpu(base: Path, cpu: str, root: Path) -> None:
    """The same files once more, linked, and what tells programs of the processor.

    /sys and /proc have the files that runtimes read, by what the emulated processor says of itself: those of this
    machine describe another one.
    """
    _run("cp", "-al", str(base), str(root))
    words = {"qemu": QEMU, "cpu": cpu, "python": PYTHON, "emulated": EMULATED_PYTHON}
    _run("gcc", "-static", "-O1", "-x", "c", "-", "-o", str(root / PYTHON[1:]), given=LAUNCHER % words)
    hwcap, hwcap2, midr = map(int, _run("chroot", str(root), PYTHON, "-I", "-c", DESCRIBE).split())
    features = [name for bit, name in enumerate(FEATURES.split()) if hwcap >> bit & 1]
    features += [name for bit, name in enumerate(FEATURES_2.split()) if hwcap2 >> bit & 1]
    lines = {
        "processor": "0",
        "model name": f"{cpu}, emulated by QEMU",
        "Features": " ".join(features),
        "CPU implementer": hex(midr >> 24 & 0xFF),
        "CPU architecture": "8",
        "CPU variant": hex(midr >> 20 & 0xF),
        "CPU part": hex(midr >> 4 & 0xFFF),
        "CPU revision": str(midr & 0xF),
    }
    (root / "proc/cpuinfo").write_text("".join(f"{name}\t: {value}\n" for name, value in lines.items()) + "\n")
    files = {name: "0" for name in ("possible", "present", "online")}
    files |= {f"cpu0/topology/{name}": value for name, value in TOPOLOGY.items()}
    files["cpu0/regs/identification/midr_el1"] = f"0x{midr:016x}"
    for name, value in files.items():
        path = root / "sys/devices/system/cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def _run(*command: str, given: str | None = None) -> str:
    """Run a program; its output. Raises `RuntimeError` with what a failing one wrote."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
