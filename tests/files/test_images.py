"""Every kind of picture, through a data set and through an engine's input: the same numbers, or the same words."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgemtl.data import collate
from edgemtl.data.folder import FolderSource
from edgemtl.errors import UserError
from edgemtl.files.images import open_picture, read_picture, resize_picture
from edgemtl.runtime import load_image, prepare_image

RAW = (24, 36)
ORIENTATION = 0x0112
SPEC = """\
images: {train: train, validation: validation, test: test}
tasks:
  l: {kind: regression, csv: l.csv, image: file, columns: [x], partial: true}
"""
MODES = {
    "png": ("1", "L", "P", "RGB", "RGBA", "LA"),
    "jpg": ("1", "L", "RGB", "CMYK"),
    "tif": ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
}
TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def photo() -> Image.Image:
    rows, columns = np.mgrid[: RAW[0], : RAW[1]]
    array = np.stack([rows * 10, columns * 7, (rows + columns) * 4, 255 - 6 * columns], -1)
    return Image.fromarray(array.astype(np.uint8), "RGBA")


def in_mode(mode: str) -> Image.Image:
    return photo().convert("RGB").convert(mode) if mode in ("1", "L", "P", "CMYK") else photo().convert(mode)


def seen_in_training(file: Path, root: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """What a data set of this picture feeds to a net."""
    blank = Image.new("RGB", (8, 8))
    for split in ("train", "validation", "test"):
        (root / split).mkdir(parents=True)
        blank.save(root / split / "blank.png")
    (root / "test" / "blank.png").unlink()
    os.link(file, root / "test" / file.name)
    (root / "l.csv").write_text("file,x\ntrain/blank.png,1\nvalidation/blank.png,1\n" + f"test/{file.name},1\n")
    (root / "data.yaml").write_text(SPEC)
    return collate([FolderSource(root, size).split("test")[0]]).image


def words(action: Callable[[], object]) -> str:
    """The refusal without the file's name."""
    with pytest.raises(UserError) as error:
        action()
    return str(error.value).splitlines()[-1].partition(": ")[2]


@pytest.mark.parametrize(("way", "mode"), [(way, mode) for way, modes in MODES.items() for mode in modes])
def test_training_and_running_see_the_same_picture(tmp_path: Path, way: str, mode: str) -> None:
    for turn in (1, 6) if way != "bmp" else (1,):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        file = tmp_path / f"{turn}.{way}"
        in_mode(mode).save(file, **({} if way == "bmp" else {"exif": exif}))
        for size in ((12, 18), (48, 30)):
            running = prepare_image(file, size)
            assert np.array_equal(running, seen_in_training(file, tmp_path / f"{turn}-{size}", size))
            assert np.array_equal(running, prepare_image(load_image(file), size))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("way", ["png", "tif", "webp"])
def test_every_orientation_is_followed_in_every_format(tmp_path: Path, way: str, turn: int) -> None:
    exif, picture = Image.Exif(), photo().convert("RGB")
    exif[ORIENTATION] = turn
    file = tmp_path / f"turned.{way}"
    picture.save(file, exif=exif, **({"lossless": True} if way == "webp" else {}))
    assert np.array_equal(read_picture(file), TURNS[turn](np.array(picture)))


def test_what_is_transparent_shows_white_and_a_palette_its_colours(tmp_path: Path) -> None:
    picture, file = np.array(photo()), tmp_path / "a.png"
    Image.fromarray(picture).save(file)
    share = picture[..., 3:] / 255
    assert np.abs(read_picture(file) - (picture[..., :3] * share + 255 * (1 - share))).max() <= 1
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([200, 10, 20, 0, 255, 0, 9, 9, 9])
    palette.save(file, transparency=1)
    assert read_picture(file).tolist() == [[[200, 10, 20], [255, 255, 255], [9, 9, 9]]]
    Image.fromarray(np.array([[7, 8]], np.uint8)).save(file, transparency=8)
    assert read_picture(file).tolist() == [[[7, 7, 7], [255, 255, 255]]]
    Image.new("LA", (4, 4), (80, 255)).save(file)
    assert (read_picture(file) == 80).all()


def deep_png(path: Path, colours: int) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write in colour: grey (0), RGB (2) or RGBA (6)."""
    channels = {0: 1, 2: 3, 6: 4}[colours]
    rows = b"".join(b"\0" + bytes(2 * channels * 4) for _ in range(4))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colours, 0, 0, 0)), (b"IDAT", zlib.compress(rows)))
    write_png(path, *chunks)


def write_png(path: Path, *chunks: tuple[bytes, bytes]) -> None:
    ends = ((name, data, zlib.crc32(name + data)) for name, data in (*chunks, (b"IEND", b"")))
    body = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", check) for name, data, check in ends)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def deep_tiff(path: Path) -> None:
    """A TIFF of 16-bit RGB, which Pillow opens as 8-bit RGB."""
    tags = ((256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128))
    tags += ((277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24))
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    path.write_bytes(content.ljust(122, b"\0") + struct.pack("<3H", 16, 16, 16) + bytes(24))


def grey(dtype: str) -> Image.Image:
    return Image.fromarray(np.arange(64, dtype=dtype).reshape(8, 8))


def several(file: Path) -> None:
    photo().save(file, save_all=True, append_images=[Image.new("RGBA", RAW[::-1], "red")])


@pytest.mark.parametrize(
    ("ending", "make", "reason"),
    [
        ("png", lambda file: grey("u2").save(file), "holds whole numbers of 16 bits: 8 bits a channel are needed"),
        ("tif", lambda file: grey("u2").save(file), "holds whole numbers of 16 bits: 8 bits a channel are needed"),
        ("tif", lambda file: grey(">u2").save(file), "holds whole numbers of 16 bits: 8 bits a channel are needed"),
        ("tif", lambda file: grey("i4").save(file), "holds whole numbers of 32 bits: 8 bits a channel are needed"),
        ("tif", lambda file: grey("f4").save(file), "holds floats of 32 bits: 8 bits a channel are needed"),
        ("png", lambda file: deep_png(file, 0), "16 bits: 8 bits a channel are needed"),
        ("png", lambda file: deep_png(file, 2), "16 bits: 8 bits a channel are needed"),
        ("png", lambda file: deep_png(file, 6), "16 bits: 8 bits a channel are needed"),
        ("tiff", deep_tiff, "16 bits: 8 bits a channel are needed"),
        ("tif", lambda file: Image.new("LAB", (8, 8)).save(file), "has colours of mode LAB: RGB or grey is needed"),
        ("png", lambda file: Image.new("RGBA", (8, 8)).save(file), "is transparent everywhere"),
        ("png", several, "holds several frames"),
        ("webp", several, "holds several frames"),
        ("tif", several, "holds several frames"),
        ("jpg", lambda file: photo().save(file, "GIF"), "no content of a BMP, JPEG, PNG, TIFF or WebP file"),
        ("jpg", lambda file: photo().convert("RGB").save(file, "EPS"), "no content of a BMP, JPEG, PNG"),
        ("png", lambda file: file.write_bytes(b""), "no content of a BMP"),
        ("png", lambda file: photo().save(file) or truncate(file), "cannot be read ("),
        ("jpg", lambda file: photo().convert("RGB").save(file) or truncate(file), "cannot be read ("),
    ],
)  # fmt: skip
def test_what_is_refused_is_refused_in_the_same_words(
    tmp_path: Path, ending: str, make: Callable[[Path], object], reason: str
) -> None:
    file = tmp_path / f"picture.{ending}"
    make(file)
    running = words(lambda: prepare_image(file, (8, 8)))
    assert reason in running
    assert running == words(lambda: seen_in_training(file, tmp_path / "set", (8, 8)))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def test_the_content_decides_the_format_and_the_ending_whether_it_is_a_picture(tmp_path: Path) -> None:
    for name in ("A.JPG", "b.jfif", "c.jpe", "d.png"):
        photo().convert("RGB").save(tmp_path / name, "JPEG", quality=95)
        assert read_picture(tmp_path / name).shape == (*RAW, 3)
    photo().convert("RGB").save(tmp_path / "e.gif")
    (tmp_path / "f").write_bytes((tmp_path / "d.png").read_bytes())
    for name, ending in (("e.gif", r"\.gif"), ("f", r"\(none\)")):
        with pytest.raises(UserError, match=f"{name}: the ending {ending} is none of those of pictures"):
            load_image(tmp_path / name)


def test_pictures_that_pillow_opened_are_refused_like_files(tmp_path: Path) -> None:
    several(tmp_path / "a.png")
    photo().save(tmp_path / "b.png")
    truncate(tmp_path / "b.png")
    deep_png(tmp_path / "c.png", 2)
    for name in ("a.png", "b.png", "c.png"):
        with Image.open(tmp_path / name) as picture:
            opened = words(partial(prepare_image, picture, (8, 8)))
        assert opened == words(partial(prepare_image, tmp_path / name, (8, 8)))


def test_the_photo_of_a_camera_with_a_preview_is_read(tmp_path: Path) -> None:
    main = photo().convert("RGB")
    main.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[main.resize((6, 4))])
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.format == "MPO"
    assert read_picture(tmp_path / "a.jpg").shape == (*RAW, 3)


def test_a_turn_that_stands_behind_the_pixels_of_a_png_is_followed(tmp_path: Path) -> None:
    array, exif = np.array(photo().convert("RGB")), Image.Exif()
    exif[ORIENTATION] = 6
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    header = struct.pack(">IIBBBBB", RAW[1], RAW[0], 8, 2, 0, 0, 0)
    note = exif.tobytes().removeprefix(b"Exif\0\0")
    write_png(tmp_path / "a.png", (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"eXIf", note))
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.rot90(array, -1))
    training = seen_in_training(tmp_path / "a.png", tmp_path / "set", (12, 8))
    assert np.array_equal(training, prepare_image(tmp_path / "a.png", (12, 8)))


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").symlink_to("/dev/zero")
    (tmp_path / "d.png").symlink_to("d.png")
    (tmp_path / "e.png").symlink_to("nowhere.png")
    for name, reason in (
        ("a.png", "it is a pipe (FIFO), a regular file is wanted"),
        ("b.png", "it is a directory, a regular file is wanted"),
        ("c.png", "it is a device, a regular file is wanted"),
        ("d.png", "Too many levels of symbolic links"),
        ("e.png", "No such file or directory"),
        ("f\0.png", "embedded null byte"),
    ):
        with pytest.raises(UserError) as error:
            read_picture(tmp_path / name)
        assert str(error.value).startswith("cannot read picture ")
        assert str(error.value).endswith(reason)
    photo().save(tmp_path / "g.png")
    with (
        pytest.raises(UserError, match="is larger than 100 bytes, the most that is read: make it smaller"),
        open_picture(tmp_path / "g.png", limit_bytes=100),
    ):
        pass


@pytest.mark.parametrize("side", [11_600, 100_000])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    write_png(tmp_path / "a.png", (b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))))
    with warnings.catch_warnings(), pytest.raises(UserError) as error:
        warnings.simplefilter("ignore")
        read_picture(tmp_path / "a.png")
    assert "pixels" in str(error.value)


def test_areas_are_averaged_where_a_picture_shrinks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*RAW, 3), np.uint8)
    mean = pixels.reshape(12, 2, 18, 2, 3).mean((1, 3))
    assert np.abs(resize_picture(pixels, (12, 18)) - mean).max() <= 1
    assert resize_picture(pixels, RAW) is pixels
    assert resize_picture(pixels[..., 0], (48, 18)).shape == (48, 18)
