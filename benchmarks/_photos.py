"""Unlabelled pictures for nets that nobody here trained: real photos of public packages, and rendered rooms."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from edgemtl.data import open_source

__all__ = ["photos"]

ROOMS, ROOM_SIZE = 48, (240, 320)
LONGEST = 720
"""Pixels of a photo's longer side: larger ones are made smaller once, as windows of them are read again and again."""
PYTHON = {
    "skimage": ("data/*.png", "data/*.jpg"),
    "sklearn": ("datasets/images/*.jpg",),
    "matplotlib": ("mpl-data/sample_data/*.jpg",),
}
DEBIAN = {
    "opencv-doc": ("usr/share/doc/opencv-doc/examples/data/*",),
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature/*.jpg",),
    "lomiri-wallpapers-16.04": ("usr/share/backgrounds/*.jpg",),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/*.jpg",),
}
"""Of Debian bookworm and later; `apt-get download` needs no rights."""
NO_PHOTOS = (
    "chessboard", "clock", "color.png", "horse", "logo", "microaneurysms", "motorcycle_right", "phantom",
    "left", "right", "mask", "digits", "notes", "sudoku", "imageText", "text", "ela_", "detect_blob", "ellipses",
    "pca_", "LinuxLogo", "WindowsLogo", "opencv", "gradient", "aloeGT", "aloeR", "leuvenB", "graf3", "rubberwhale2",
    "basketball2", "aero3", "pic", "templ", "tmpl", "ml.png", "Blender", "box.png", "analogpattern",
)  # fmt: skip
"""Beginnings of names of drawings, of the second of a pair, and of what is too small."""
ENDINGS = (".png", ".jpg")


def photos(folder: Path) -> Path:
    """A folder of real photos and rendered rooms, made where it is not there; exits where none can be had."""
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for path in (*_of_python(), *_of_debian(Path(scratch))):
            if path.suffix in ENDINGS and not path.name.startswith(NO_PHOTOS):
                with Image.open(path) as picture:
                    small = picture.convert("RGB")
                small.thumbnail((LONGEST, LONGEST))
                small.save(unfinished / f"real-{path.stem}.png")
    rooms = open_source("scenes", ROOM_SIZE).split("train")
    for number in range(ROOMS):
        Image.fromarray(rooms[number].image).save(unfinished / f"room-{number}.png")
    unfinished.rename(folder)
    return folder


def _of_python() -> Iterator[Path]:
    """Pictures that installed Python packages ship."""
    for package, patterns in PYTHON.items():
        spec = find_spec(package)
        if spec is None or not spec.origin:
            sys.exit(f"photos come with {package}, which is not installed: install it, or give a folder by --photos")
        yield from (path for pattern in patterns for path in sorted(Path(spec.origin).parent.glob(pattern)))


def _of_debian(scratch: Path) -> Iterator[Path]:
    """Pictures of Debian's packages, which are downloaded and unpacked, not installed."""
    for package, patterns in DEBIAN.items():
        try:
            subprocess.run(["apt-get", "download", "-qq", package], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
            (archive,) = scratch.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, scratch / package], check=True)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            sys.exit(f"photos come from Debian's package {package} ({error}): give a folder of your own by --photos")
        yield from (path for pattern in patterns for path in sorted((scratch / package).glob(pattern)))
