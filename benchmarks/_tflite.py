"""TensorFlow Lite's nets: converted to ONNX and run, by TensorFlow in an environment of its own.

edgemtl does not need TensorFlow, so that it is installed beside the nets, once: 1.5 GB and some minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import say
from numpy.typing import NDArray

from edgemtl.files.disk import write_atomic

__all__ = ["convert", "run_lite"]

PACKAGES = ("tensorflow-cpu==2.21.0", "tf2onnx==1.17.0")
RUN = """
import sys
import numpy as np
import tensorflow as tf

net = tf.lite.Interpreter(sys.argv[1], num_threads=1)
net.allocate_tensors()
(read,) = net.get_input_details()
for number, image in enumerate(np.load(sys.argv[2])):
    net.set_tensor(read["index"], image)
    net.invoke()
    outputs = {each["name"]: net.get_tensor(each["index"]) for each in net.get_output_details()}
    np.savez(f"{sys.argv[3]}/{number}.npz", **outputs)
"""


def convert(source: Path, folder: Path) -> Path:
    """The ONNX file of a net in TensorFlow Lite, by tf2onnx, beside it; it is written once."""
    path = source.with_suffix(".onnx")
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "net.onnx"
            options = ["--tflite", str(source), "--output", str(made), "--opset", "13"]
            _run(folder, "-m", "tf2onnx.convert", *options)
            write_atomic(path, made.read_bytes())
    return path


def run_lite(source: Path, images: Sequence[NDArray[Any]], folder: Path) -> list[Mapping[str, NDArray[Any]]]:
    """All outputs of a net in TensorFlow Lite for each image, of the shape and type that it reads."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        np.save(Path(scratch) / "images.npy", np.stack(images))
        _run(folder, "-c", RUN, str(source), f"{scratch}/images.npy", scratch)
        files = [Path(scratch) / f"{number}.npz" for number in range(len(images))]
        return [dict(np.load(file)) for file in files]


def _run(folder: Path, *arguments: str) -> None:
    """Run the environment's Python; ends the process where it fails."""
    done = subprocess.run([_python(folder), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"TensorFlow in {folder / 'tensorflow'} failed: {done.stdout.strip()[-500:]}")


def _python(folder: Path) -> str:
    """The Python of the environment, which is made where it is not whole."""
    home = folder / "tensorflow"
    if not (home / "installed").exists():
        say(f"installing {' and '.join(PACKAGES)} to {home}")
        venv.create(home, clear=True, with_pip=True)
        command = [home / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            sys.exit("TensorFlow cannot be installed: see what pip says above, and run this again")
        (home / "installed").touch()
    return str(home / "bin" / "python")
