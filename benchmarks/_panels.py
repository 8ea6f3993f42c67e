"""Maps as colours a person can read, and sheets of them with captions: what the benchmarks' pictures are made of."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgemtl.files.disk import write_atomic
from edgemtl.tasks import kind_of, make_task

Array = NDArray[Any]
Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

INK: Colour = (22, 32, 44)
SOFT: Colour = (90, 102, 117)
PAPER: Colour = (255, 255, 255)
NO_VALUE: Colour = (214, 218, 224)
KMEANS_ROUNDS = 3

CLASS_COLOURS: dict[str, Colour] = {
    "wall": (205, 203, 196),
    "floor": (128, 112, 98),
    "ceiling": (236, 236, 232),
    "window": (126, 196, 240),
    "door": (134, 74, 40),
    "table": (232, 146, 50),
    "chair": (46, 110, 190),
    "sofa": (168, 92, 178),
    "bed": (222, 110, 142),
    "shelf": (124, 160, 62),
    "lamp": (252, 216, 72),
    "plant": (36, 146, 86),
    "box": (206, 172, 112),
    "clutter": (214, 62, 54),
    "picture": (64, 188, 180),
    "rug": (136, 132, 220),
}
"""Colours of the scenes' classes: what bounds a room is pale, what stands in it is strong."""

_DEPTH_STOPS = ((255, 244, 176), (253, 187, 92), (236, 112, 84), (172, 60, 118), (96, 40, 122), (32, 22, 74))


def class_map(classes: Array, names: Sequence[str]) -> Picture:
    """Class ids (H, W) as the classes' colours."""
    table = np.array([CLASS_COLOURS.get(name, SOFT) for name in names], np.uint8)
    return table[classes]


def depth_map(depth: Array, limits: tuple[float, float], measured: Array | None = None) -> Picture:
    """Depths in metres (H, W), near bright to far dark between the limits; grey where nothing was measured."""
    low, high = limits
    return _masked(_between((depth - low) / max(high - low, 1e-6)), measured)


def _between(position: Array) -> Array:
    """Colours of depth for places from 0 (near) to 1 (far)."""
    stops, channels = np.linspace(0, 1, len(_DEPTH_STOPS)), zip(*_DEPTH_STOPS, strict=True)
    return np.stack([np.interp(position, stops, channel) for channel in channels], -1)


def normal_map(normals: Array, trusted: Array | None = None) -> Picture:
    """Vectors (H, W, 3) of any length: right is red, up green, towards the camera blue; grey where there is none."""
    unit = normals / np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-6)
    return _masked((unit * [1, -1, -1] + 1) * 127.5, trusted)


def edge_map(chance: Array) -> Picture:
    """Edge probabilities (H, W), dark on white."""
    strength = np.clip(chance, 0, 1)[..., None]
    return np.rint(np.array(PAPER) * (1 - strength) + np.array(INK) * strength).astype(np.uint8)


def predicted_maps(
    outputs: Mapping[str, Mapping[str, Array]], classes: Sequence[str], limits: tuple[float, float], scale: float = 1.0
) -> dict[str, Picture]:
    """The scenes' four tasks from an engine's raw outputs (1, C, H, W); depths times `scale` before they are drawn."""
    return {
        "semseg": class_map(_decoded("semseg", "segmentation", outputs, classes), classes),
        "depth": depth_map(_decoded("depth", "depth", outputs) * scale, limits),
        "normals": normal_map(_decoded("normals", "normals", outputs)),
        "edges": edge_map(_decoded("edges", "edges", outputs)),
    }


def _decoded(name: str, kind: str, outputs: Mapping[str, Mapping[str, Array]], classes: Sequence[str] = ()) -> Array:
    task = make_task(name, kind, classes=classes)
    (raw,) = outputs[name].values()
    prediction: Array = kind_of(task).decode(task, outputs[name], raw.shape[2:])
    return prediction


def _masked(colours: Array, kept: Array | None) -> Picture:
    picture = np.rint(colours).astype(np.uint8)
    if kept is not None:
        picture[~kept] = NO_VALUE
    return picture


def font(size: int) -> Any:
    """The typeface that comes with Pillow: the same on every machine."""
    return ImageFont.load_default(size=size)


@dataclass
class Sheet:
    """A white page that pictures and words are put on; places are (left, top) in pixels."""

    page: Image.Image

    @classmethod
    def blank(cls, width: int, height: int) -> Sheet:
        """An empty page."""
        return cls(Image.new("RGB", (width, height), PAPER))

    def put(self, picture: Picture, position: tuple[int, int]) -> None:
        """Paste a picture as it is, pixel for pixel."""
        self.page.paste(Image.fromarray(picture), position)

    def write(
        self, text: str, position: tuple[int, int], size: int = 14, colour: Colour = INK, anchor: str = "ls"
    ) -> None:
        """Words; `anchor` is Pillow's: "ls" starts at the baseline's left end, "ms" stands in its middle."""
        ImageDraw.Draw(self.page).text(position, text, colour, font(size), anchor=anchor)

    def write_upwards(self, text: str, middle: tuple[int, int], size: int = 13, colour: Colour = SOFT) -> None:
        """Words that read from bottom to top around a middle."""
        left, top, right, bottom = (round(side) for side in font(size).getbbox(text))
        strip = Image.new("RGB", (right - left, bottom - top), PAPER)
        ImageDraw.Draw(strip).text((-left, -top), text, colour, font(size))
        turned = strip.rotate(90, expand=True)
        self.page.paste(turned, (middle[0] - turned.width // 2, middle[1] - turned.height // 2))

    def legend(self, entries: Mapping[str, Colour], position: tuple[int, int], step: int, columns: int) -> None:
        """Squares of colour with their names, row by row, `step` pixels apart."""
        draw = ImageDraw.Draw(self.page)
        for number, (name, colour) in enumerate(entries.items()):
            left, top = position[0] + number % columns * step, position[1] + number // columns * 22
            draw.rectangle((left, top, left + 13, top + 13), colour, (160, 166, 174))
            self.write(name, (left + 20, top + 12), 13)

    def depth_scale(self, limits: tuple[float, float], position: tuple[int, int], width: int) -> None:
        """A strip of the depths' colours between its two ends in metres."""
        near, far = (f"{limit:.1f} m" for limit in limits)
        strip = np.broadcast_to(_between(np.linspace(0, 1, width)), (14, width, 3))
        self.write(near, (position[0], position[1] + 12), 13)
        left = position[0] + round(font(13).getlength(near)) + 8
        self.put(np.rint(strip).astype(np.uint8), (left, position[1]))
        self.write(far, (left + width + 8, position[1] + 12), 13)

    def save(self, path: Path) -> int:
        """Write a PNG file, atomically; its size in bytes.

        The page is brought to its 256 most fitting colours: noise in full colour would make it three times as big.
        """
        content = io.BytesIO()
        self.page.quantize(256, kmeans=KMEANS_ROUNDS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
        write_atomic(path, content.getvalue())
        return len(content.getvalue())
