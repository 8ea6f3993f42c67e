"""Text, swatches and scales as images, and images arranged in rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["PAPER", "Color", "label", "scale_bar", "scaled", "side_by_side", "stacked", "swatches", "tag", "written"]

INK, PAPER, SOFT = (22, 32, 44), (255, 255, 255), (90, 102, 117)
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """Pillow's own font, so that pictures look alike on every machine."""
    return ImageFont.load_default(size)


def label(text: str, width: int, height: int = 26) -> Image.Image:
    """A column's title."""
    strip = Image.new("RGB", (width, height), PAPER)
    ImageDraw.Draw(strip).text((0, height / 2), _fitted(text, width, font(15)), INK, font(15), anchor="lm")
    return strip


def tag(picture: Image.Image, text: str) -> None:
    """Write a short word into a picture's upper left corner, on a dark ground."""
    pen = ImageDraw.Draw(picture, "RGBA")
    box = pen.textbbox((7, 5), text, font(12))
    pen.rounded_rectangle((box[0] - 5, box[1] - 3, box[2] + 5, box[3] + 4), 4, (10, 14, 20, 165))
    pen.text((7, 5), text, PAPER, font(12))


def written(picture: Image.Image, lines: Sequence[tuple[str, float | None]]) -> None:
    """Lines of text over a picture's lower edge; a line's share (0 to 1) is drawn as a bar behind it."""
    pen = ImageDraw.Draw(picture, "RGBA")
    high = 21
    top = max(0, picture.height - high * len(lines) - 6)
    pen.rectangle((0, top, picture.width, picture.height), (10, 14, 20, 170))
    for number, (text, share) in enumerate(lines):
        y = top + 4 + number * high
        if share is not None:
            pen.rectangle((4, y, 4 + share * (picture.width - 8), y + high - 4), (58, 123, 213, 190))
        pen.text((9, y + (high - 4) / 2), _fitted(text, picture.width - 18, font(13)), PAPER, font(13), anchor="lm")


def swatches(names: Sequence[str], colors: Sequence[Color], width: int) -> Image.Image:
    """Named colours in as many lines as they need."""
    corners, x, y = [], 0, 3
    for name in names:
        space = 18 + round(_length(name, font(12))) + 12
        if x and x + space > width:
            x, y = 0, y + 19
        corners.append((x, y))
        x += space
    strip = Image.new("RGB", (width, y + 22), PAPER)
    pen = ImageDraw.Draw(strip)
    for (left, top), name, color in zip(corners, names, colors, strict=True):
        pen.rounded_rectangle((left, top + 2, left + 12, top + 14), 3, color)
        pen.text((left + 18, top + 8), _fitted(name, width - left - 18, font(12)), SOFT, font(12), anchor="lm")
    return strip


def scale_bar(
    colors: Callable[[NDArray[np.float64]], NDArray[np.uint8]], marks: Sequence[str], width: int
) -> Image.Image:
    """A strip of colours from 0 to 1 with marks at even distances below it, the first and last at its ends."""
    strip = Image.new("RGB", (width, 36), PAPER)
    ramp = np.broadcast_to(colors(np.linspace(0, 1, width))[None], (12, width, 3))
    strip.paste(Image.fromarray(np.ascontiguousarray(ramp)), (0, 4))
    pen = ImageDraw.Draw(strip)
    for number, text in enumerate(marks):
        share = number / (len(marks) - 1)
        anchor = "la" if number == 0 else "ra" if number == len(marks) - 1 else "ma"
        pen.text((share * width, 19), text, SOFT, font(12), anchor=anchor)
    return strip


def scaled(picture: Image.Image, width: int) -> Image.Image:
    """The picture at another width, in proportion."""
    if picture.width == width:
        return picture
    return picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.BICUBIC)


def stacked(pictures: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Pictures below each other, on paper."""
    height = sum(each.height for each in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(each.width for each in pictures), height), PAPER)
    y = 0
    for each in pictures:
        sheet.paste(each, (0, y))
        y += each.height + gap
    return sheet


def side_by_side(pictures: Sequence[Image.Image], gap: int = 0, margin: int = 0) -> Image.Image:
    """Pictures side by side, aligned at the top, on paper colour."""
    width = sum(each.width for each in pictures) + gap * (len(pictures) - 1) + 2 * margin
    sheet = Image.new("RGB", (width, max(each.height for each in pictures) + 2 * margin), PAPER)
    x = margin
    for each in pictures:
        sheet.paste(each, (x, margin))
        x += each.width + gap
    return sheet


def _length(text: str, used: Font) -> float:
    return used.getlength(text)


def _fitted(text: str, width: float, used: Font) -> str:
    """One line of the text, cut with dots where it is too long."""
    text = " ".join(text.split())[:200]
    if _length(text, used) <= width:
        return text
    while text and _length(text + "...", used) > width:
        text = text[:-1]
    return text + "..."
