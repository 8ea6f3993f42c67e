"""How nets trained on rendered rooms only do on two real frames: the largest design of the shipped supernet, and the
chosen design of a run (`--run runs/first`), through ONNX Runtime's real engine.

The frames: Middlebury's motorcycle (dense stereo; it comes inside scikit-image) and one Kinect frame of a bookshelf
(Debian's package mrpt-common; `--kinect PATH`, skipped with a line where the file is missing). Each is cut to 4:3 in
the middle and brought to the net's input size. Normals are computed from the measured depth by plane fits.

Depths are compared after multiplying the prediction by one number per frame, the median ratio to the truth; the
unscaled error is given too. Each figure's aim is the best of two guesses that never see the frame: the same value
everywhere (normals: towards the camera), and the mean map of rendered training scenes. Beating them is not promised.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _panels import Sheet, depth_map, normal_map, predicted_maps
from _real_data import RealFrame, kinect, motorcycle
from _real_geometry import aligned, depth_errors, normal_errors
from _runs import ROOT, scenes_evaluator
from numpy.typing import NDArray

from edgemtl.data.scenes.layout import build_scene
from edgemtl.errors import UserError
from edgemtl.files.images import normalize
from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.nas.runs import RunFolder
from edgemtl.runtime import Outputs
from edgemtl.targets import find_target, measurer_of
from edgemtl.tasks import by_tensor, map_outputs
from edgemtl.train import batches_of

Array = NDArray[Any]
Errors = dict[str, dict[str, float]]

PICTURE = ROOT / "docs" / "pictures" / "real_frames.png"
MOST_BYTES = 400_000
KINECT = Path("/usr/share/mrpt/datasets/tests_rgbd.rawlog")
PRIOR_IMAGES = 256
QUICK_PRIOR_IMAGES = 64
CAMERAS = 256
NEAREST_M = 0.2

LOWER_IS_BETTER = {"abs_rel": True, "mean_angle": True}
SHOWN = {
    "depth": ("abs_rel", "log_correlation"),
    "normals": ("mean_angle",),
}
UNITS = {"mean_angle": "deg"}


def trivial_guesses(evaluator: Evaluator, images: int) -> dict[str, tuple[Array, Array]]:
    """Depth map and normals of guesses that never see a frame; made from rendered training scenes."""
    logs, normals, count = 0.0, 0.0, 0
    for batch in batches_of(evaluator.source.split("train"), 16, images, tasks=evaluator.source.tasks):
        logs = logs + np.log(batch.targets["depth"]).reshape(-1, *batch.image.shape[2:]).sum(0)
        normals = normals + batch.targets["normals"].sum(0)
        count += len(batch.image)
    mean_depth, mean_normals = np.exp(np.asarray(logs) / count), np.asarray(normals).transpose(1, 2, 0) / count
    facing = np.broadcast_to(np.array([0.0, 0.0, -1.0]), mean_normals.shape)
    return {"constant": (np.ones_like(mean_depth), facing), "mean_scene": (mean_depth, mean_normals)}


def errors(frame: RealFrame, depth: Array, normals: Array) -> Errors:
    """Scores of a depth map (scaled to the truth's median) and of normals (H, W, 3)."""
    scaled = aligned(depth, frame.depth, frame.measured)
    found = depth_errors(scaled, frame.depth, frame.measured)
    found["abs_rel_unscaled"] = depth_errors(depth, frame.depth, frame.measured)["abs_rel"]
    return {"depth": found, "normals": normal_errors(normals, frame.normals, frame.trusted)}


def maps_of(outputs: Outputs) -> tuple[Array, Array]:
    """Depth in metres (H, W) and normals (H, W, 3) out of raw outputs."""
    raw = by_tensor(outputs)
    depth = np.maximum(np.exp(raw["depth"][0, 0].astype(np.float64)), NEAREST_M)
    return depth, raw["normals"][0].transpose(1, 2, 0)


def scene_focal_px(width: int) -> tuple[float, float]:
    """The least and greatest focal length among rendered scenes, in pixels of a picture so wide."""
    focal = [width / 2 / math.tan(build_scene(seed).camera.fov_x / 2) for seed in range(CAMERAS)]
    return min(focal), max(focal)


def own_statistics(net: MultiTaskNet, frame: RealFrame, share: float) -> Errors:
    """For diagnosis only: scores with batch-norm statistics of which `share` comes from the frame and its mirror image.

    A net in use has no such statistics, since it must answer for the first frame.
    """
    image = torch.from_numpy(normalize(frame.image[None]))
    adapted = copy.deepcopy(net)
    recalibrate(adapted, [image, image.flip(3)])
    state = net.state_dict()
    for name, value in adapted.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.lerp_(state[name], 1 - share)
    with torch.no_grad():
        return errors(frame, *maps_of(map_outputs(torch.Tensor.numpy, adapted(image))))


def run(options: argparse.Namespace) -> Outcome:
    """Score every design on every frame, beside the trivial guesses; draw the largest design's maps."""
    space, evaluator = scenes_evaluator("onnxruntime")
    designs: dict[str, tuple[Candidate, Evaluator]] = {"largest": (evaluator.candidate(space.largest()), evaluator)}
    if options.run:
        folder = RunFolder(options.run)
        target = find_target(folder.config().target)
        engines = replace(evaluator, target=target, measurer=measurer_of(target))
        designs["chosen"] = (folder.load("best"), engines)
    frames = [motorcycle(space.size)]
    if options.kinect.is_file():
        frames.append(kinect(options.kinect, space.size))
    else:
        say(f"skipped: the Kinect frame, {options.kinect} is missing (Debian's package mrpt-common, or --kinect PATH)")
    guesses = trivial_guesses(evaluator, QUICK_PRIOR_IMAGES if options.quick else PRIOR_IMAGES)
    low, high = scene_focal_px(space.size[1])
    rows: list[Row] = []
    raw: dict[str, Any] = {"scene_focal_px": [low, high], "frames": {}}
    outputs = {name: engine_outputs(candidate, by, frames) for name, (candidate, by) in designs.items()}
    for frame in frames:
        trivial = {name: errors(frame, *maps) for name, maps in guesses.items()}
        found = {name: errors(frame, *maps_of(outputs[name][frame.name])) for name in designs}
        net = designs["largest"][0].net
        raw["frames"][frame.name] = {
            "focal_px": frame.focal_px,
            "depth_range_m": [float(frame.depth[frame.measured].min()), float(frame.depth.max())],
            "measured": float(frame.measured.mean()),
            "normals_trusted": float(frame.trusted.mean()),
            "designs": found,
            "trivial": trivial,
            "diagnosis_largest_with_the_frames_own_statistics": {
                f"{share:g}": own_statistics(net, frame, share) for share in (0.25, 0.5, 1.0)
            },
        }
        outside = "" if low <= frame.focal_px <= high else ", outside"
        say(f"{frame.name}: focal length {frame.focal_px:.0f} px; rendered scenes {low:.0f} to {high:.0f}{outside}")
        for name, values in found.items():
            rows += rows_of(f"{frame.name}_{name}", values, trivial)
    if not options.quick:
        size = draw(frames, outputs["largest"], evaluator.source.tasks[0].classes)
        rows.append(Row("picture", size / 1000, "kB", MOST_BYTES / 1000))
    return Outcome(rows, raw)


def engine_outputs(candidate: Candidate, by: Evaluator, frames: list[RealFrame]) -> dict[str, Outputs]:
    """Raw outputs of the exported engine for every frame, copied."""
    with by.engine(candidate) as session:
        return {
            frame.name: map_outputs(np.copy, session.run(normalize(frame.image[None]), session.tasks))
            for frame in frames
        }


def rows_of(name: str, found: Errors, trivial: Mapping[str, Errors]) -> list[Row]:
    """Rows of the shown metrics; the aim is the better of the trivial guesses."""
    rows = []
    for task, metrics in SHOWN.items():
        for metric in metrics:
            lower = LOWER_IS_BETTER.get(metric, False)
            best = (min if lower else max)(guess[task][metric] for guess in trivial.values())
            value = found[task][metric]
            rows.append(Row(f"{name}_{task}_{metric}", value, UNITS.get(metric, ""), None, round(best, 3), lower))
    return rows


def draw(frames: list[RealFrame], outputs: Mapping[str, Outputs], classes: tuple[str, ...]) -> int:
    """The picture: a row for a frame; its size in bytes."""
    titles = ("frame", *(f"{how} {what}" for what in ("depth", "normals") for how in ("predicted", "measured")))
    titles += ("predicted segmentation", "predicted edges")
    height, width = frames[0].depth.shape
    gap, top, label = 6, 30, 22
    sheet = Sheet.blank(len(titles) * (width + gap) + label, top + len(frames) * (height + gap))
    for column, title in enumerate(titles):
        sheet.write(title, (label + column * (width + gap) + width // 2, 20), 16, anchor="ms")
    for row, frame in enumerate(frames):
        depth = maps_of(outputs[frame.name])[0]
        scale = float(np.median(frame.depth[frame.measured] / depth[frame.measured]))
        limits = tuple(float(value) for value in np.percentile(frame.depth[frame.measured], (1, 99)))
        maps = predicted_maps(outputs[frame.name], classes, (limits[0], limits[1]), scale)
        true_depth = depth_map(frame.depth, (limits[0], limits[1]), frame.measured)
        true_normals = normal_map(frame.normals, frame.trusted)
        panels = (frame.image, maps["depth"], true_depth, maps["normals"], true_normals, maps["semseg"], maps["edges"])
        position = top + row * (height + gap)
        sheet.write_upwards(frame.title, (label // 2, position + height // 2), 15)
        for column, panel in enumerate(panels):
            sheet.put(panel, (label + column * (width + gap), position))
    return sheet.save(PICTURE)


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own flags."""
    parser.add_argument("--run", type=Path, help="a run whose chosen design is scored too")
    parser.add_argument("--kinect", type=Path, default=KINECT, help="tests_rgbd.rawlog (default: %(default)s)")


if __name__ == "__main__":
    try:
        main(run, __doc__, add)
    except UserError as error:
        sys.exit(f"real_frames: {error}")
