"""The README's first picture, docs/pictures/scenes.png: test scenes through a real exported engine, above the truth.

From a bundle (`--bundle runs/first/bundle`), or without one from the largest design of the shipped supernet, exported
for ONNX Runtime. The scenes were chosen by looking at the inputs alone; give others with --scenes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import Outcome, Row, main
from _panels import CLASS_COLOURS, SOFT, Sheet, class_map, depth_map, edge_map, normal_map, predicted_maps
from _runs import ROOT, scenes_evaluator
from numpy.typing import NDArray

from edgemtl.data import Sample
from edgemtl.data.scenes import ScenesSource
from edgemtl.data.scenes.types import FAR_M
from edgemtl.errors import UserError
from edgemtl.files.images import normalize
from edgemtl.runtime import Engine, Outputs
from edgemtl.tasks import map_outputs
from edgemtl.train import Scorer

Array = NDArray[Any]

PICTURE = ROOT / "docs" / "pictures" / "scenes.png"
MOST_BYTES = 600_000
SCENES = (12, 33)
SIZE = (192, 256)
COLUMNS = {"semseg": "segmentation", "depth": "depth", "normals": "surface normals", "edges": "edges"}
MARGIN, GAP, BETWEEN, TOP, GUTTER, BOTTOM = 12, 4, 16, 36, 22, 82


def from_bundle(path: Path, images: Sequence[Array]) -> list[Outputs]:
    """Raw outputs of a bundle's first engine; the bundle must have been made for the scenes' tasks and this size."""
    with Engine(path) as engine:
        size = (engine.manifest.input.height, engine.manifest.input.width)
        missing = {*COLUMNS} - {task.name for task in engine.tasks}
        if missing or size != SIZE:
            found = f"{', '.join(task.name for task in engine.tasks)} at {size[0]} x {size[1]}"
            sys.exit(f"bundle {path} predicts {found}; {', '.join(COLUMNS)} at {SIZE[0]} x {SIZE[1]} are drawn here")
        return [engine.run(image) for image in images]


def from_supernet(images: Sequence[Array]) -> list[Outputs]:
    """Raw outputs of the largest design's engine."""
    space, evaluator = scenes_evaluator("onnxruntime")
    with evaluator.engine(evaluator.candidate(space.largest())) as session:
        found = []
        for image in images:
            outputs = session.run(normalize(image[None]), session.tasks)
            found.append(map_outputs(np.copy, outputs))  # a session may reuse its buffers
    return found


def true_maps(sample: Sample, classes: Sequence[str], limits: tuple[float, float]) -> dict[str, NDArray[np.uint8]]:
    """The labels of a scene in the colours of its predictions."""
    return {
        "semseg": class_map(sample.targets["semseg"], classes),
        "depth": depth_map(sample.targets["depth"], limits),
        "normals": normal_map(sample.targets["normals"]),
        "edges": edge_map(sample.targets["edges"]),
    }


def draw(samples: Sequence[Sample], outputs: Sequence[Outputs], scores: Sequence[Any], classes: Sequence[str]) -> int:
    """The sheet: per scene the input with its scores, predictions above the truth; its size in bytes."""
    height, width = SIZE
    block = 2 * height + GAP
    left = MARGIN + width + GUTTER
    wide = left + len(COLUMNS) * (width + GAP) - GAP + MARGIN
    sheet = Sheet.blank(wide, TOP + len(samples) * (block + BETWEEN) + BOTTOM)
    sheet.write("input", (MARGIN + width // 2, TOP - 12), 17, anchor="ms")
    for column, title in enumerate(COLUMNS.values()):
        sheet.write(title, (left + column * (width + GAP) + width // 2, TOP - 12), 17, anchor="ms")
    depths = np.concatenate([sample.targets["depth"].ravel() for sample in samples])
    near, far = np.percentile(depths[depths < FAR_M], (1, 99))  # beyond are windows only
    limits = (float(near), float(far))
    for number, (sample, found, score) in enumerate(zip(samples, outputs, scores, strict=True)):
        top = TOP + number * (block + BETWEEN)
        sheet.put(sample.image, (MARGIN, top))
        write_scores(sheet, score, (MARGIN + 4, top + height + 38))
        maps = (predicted_maps(found, classes, limits), true_maps(sample, classes, limits))
        for row, (word, pictures) in enumerate(zip(("predicted", "truth"), maps, strict=True)):
            position = top + row * (height + GAP)
            sheet.write_upwards(word, (MARGIN + width + GUTTER // 2, position + height // 2), 14)
            for column, name in enumerate(COLUMNS):
                sheet.put(pictures[name], (left + column * (width + GAP), position))
    write_keys(sheet, classes, limits, sheet.page.height - BOTTOM, wide)
    return sheet.save(PICTURE)


def write_scores(sheet: Sheet, score: Mapping[str, Mapping[str, float]], position: tuple[int, int]) -> None:
    """How far the predictions of one scene are from its truth."""
    lines = (
        ("segmentation, mIoU", f"{100 * score['semseg']['miou']:.0f} %"),
        ("depth, mean error", f"{100 * score['depth']['abs_rel']:.0f} %"),
        ("normals, mean angle", f"{score['normals']['mean_angle']:.0f}°"),
        ("edges, best F", f"{100 * score['edges']['ods_f']:.0f} %"),
    )
    for number, (what, value) in enumerate(lines):
        line = position[1] + number * 26
        sheet.write(what, (position[0], line), 15, SOFT)
        sheet.write(value, (position[0] + SIZE[1] - 12, line), 15, anchor="rs")


def write_keys(sheet: Sheet, classes: Iterable[str], limits: tuple[float, float], top: int, wide: int) -> None:
    """The legend of the colours."""
    half = (wide - 2 * MARGIN) // 8
    sheet.legend({name: CLASS_COLOURS[name] for name in classes}, (MARGIN, top), half, 8)
    sheet.depth_scale(limits, (MARGIN, top + 50), 3 * half - 110)
    keys = {"right": (255, 128, 128), "up": (128, 255, 128), "towards the camera": (128, 128, 255)}
    sheet.legend(keys, (MARGIN + 3 * half, top + 50), half, 3)


def run(options: argparse.Namespace) -> Outcome:
    """Predict, score, draw; the figures are those written into the picture."""
    source = ScenesSource(SIZE)
    split = source.split("test")
    samples = [split[number] for number in options.scenes]
    images = [sample.image for sample in samples]
    outputs = from_bundle(options.bundle, images) if options.bundle else from_supernet(images)
    scores = []
    for sample, found in zip(samples, outputs, strict=True):
        scorer = Scorer(source.tasks)
        scorer.update(found, [sample])
        scores.append(scorer.compute())
    size = draw(samples, outputs, scores, source.tasks[0].classes)
    return Outcome(
        [Row("picture", size / 1000, "kB", MOST_BYTES / 1000)], {"scenes": list(options.scenes), "scores": scores}
    )


def add(parser: argparse.ArgumentParser) -> None:
    """The script's own flags."""
    parser.add_argument("--bundle", type=Path, help="a bundle that edgemtl export wrote")
    parser.add_argument("--scenes", type=int, nargs="+", default=SCENES, help="numbers within the test split")


if __name__ == "__main__":
    try:
        main(run, __doc__, add)
    except UserError as error:
        sys.exit(f"pictures: {error}")
