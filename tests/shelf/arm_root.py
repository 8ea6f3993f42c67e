"""A root file system of aarch64 Debian with ONNX Runtime, run by QEMU: Arm's kernels without a board.

It is made once, in the folder that EDGEMTL_ARM_ROOT names or under the cache, and takes 600 MB and a few minutes.
Needed are root's rights (for chroot), and on Debian or Ubuntu: apt install qemu-user-static debootstrap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

QEMU = "qemu-aarch64-static"
READY = "opt/edgemtl-ready"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
RUN = """
import sys
sys.path.insert(0, "/opt/site")
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
session = ort.InferenceSession("/opt/model.onnx", options, providers=["CPUExecutionProvider"],
                               disabled_optimizers=sys.argv[1:])
names = [output.name for output in session.get_outputs()]
feeds = {i.name: np.array([True]) for i in session.get_inputs() if i.name != "image"}
runs = [session.run(names, {**feeds, "image": image[None]}) for image in np.load("/opt/images.npy")]
np.savez("/opt/outputs.npz", **{name: np.concatenate([run[n] for run in runs]) for n, name in enumerate(names)})
"""


def missing() -> str:
    """Things that this machine lacks to emulate Arm, empty where nothing is."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root's rights, for chroot"
    tools = [name for name in (QEMU, "debootstrap", "dpkg-deb") if shutil.which(name) is None]
    return f"needs {' and '.join(tools)}: apt install qemu-user-static debootstrap" if tools else ""


def arm_root() -> Path:
    """The root file system, made where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgemtl-arm-root"
    root = Path(os.environ.get("EDGEMTL_ARM_ROOT") or cache)
    if not (root / READY).is_file():
        shutil.rmtree(root, ignore_errors=True)
        _make(root)
        (root / READY).touch()
    return root


def _make(root: Path) -> None:
    debian = ["debootstrap", "--arch=arm64", "--variant=minbase", "--foreign", "--include=python3", "bookworm"]
    subprocess.run([*debian, str(root)], check=True, capture_output=True)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True, capture_output=True)
    shutil.copy(shutil.which(QEMU) or QEMU, root / "usr/bin" / QEMU)
    wheels = root / "opt/wheels"
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wanted = [f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")]
    pip = [sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--python-version", "3.11", "--no-deps"]
    subprocess.run([*pip, *platforms, "-d", str(wheels), *wanted], check=True, capture_output=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(root / "opt/site")


def run_on_arm(
    cpu: str, model: Path, images: NDArray[np.float32], disabled_optimizers: tuple[str, ...]
) -> Mapping[str, NDArray[np.float32]]:
    """Outputs of an engine's file for images (N, 3, H, W) on an emulated processor, all tasks wanted.

    /sys and /proc are not there: ONNX Runtime would read the host's own processor from them.
    """
    root = arm_root()
    shutil.copy(model, root / "opt/model.onnx")
    np.save(root / "opt/images.npy", images)
    (root / "opt/run.py").write_text(RUN, encoding="utf-8")
    command = ["chroot", str(root), f"/usr/bin/{QEMU}", "-cpu", cpu, "/usr/bin/python3.11", "/opt/run.py"]
    subprocess.run([*command, *disabled_optimizers], check=True, capture_output=True, timeout=600)
    with np.load(root / "opt/outputs.npz") as found:
        return {name: found[name] for name in found.files}
