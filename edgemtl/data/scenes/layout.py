"""From a seed to a scene: the room, the camera, where the objects stand, the lights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgemtl.data.scenes import fittings, furniture
from edgemtl.data.scenes.lighting import draw_lights, draw_look, look_along
from edgemtl.data.scenes.materials import FLOORS, WALLS, Material, draw_material
from edgemtl.data.scenes.parts import Item
from edgemtl.data.scenes.textures import NOISE
from edgemtl.data.scenes.types import (
    CLASSES,
    FIRST_PRIMITIVE,
    OUTSIDE,
    ROOM,
    Array,
    Camera,
    Opening,
    Scene,
    Surfaces,
    View,
)

_Maker = Callable[[np.random.Generator], Item]

_CLEAR_OF_CAMERA_M = 0.75
_AGAINST_WALL: tuple[_Maker, ...] = (
    furniture.sofa,
    furniture.bed,
    furniture.shelf,
    furniture.shelf,
    furniture.table,
    furniture.carton,
    fittings.plant,
    fittings.floor_lamp,
)
_FREE_STANDING: tuple[_Maker, ...] = (
    furniture.table,
    furniture.table,
    furniture.table,
    furniture.chair,
    furniture.chair,
    furniture.sofa,
    fittings.plant,
    furniture.carton,
    furniture.carton,
    furniture.clutter,
    fittings.floor_lamp,
)
_ON_TOP: tuple[_Maker, ...] = (
    furniture.clutter,
    furniture.clutter,
    furniture.clutter,
    furniture.carton,
    fittings.plant,
    fittings.table_lamp,
)
_ROOM_CLASSES = ("wall", "wall", "wall", "wall", "floor", "ceiling", "window")


@dataclass
class _Plan:
    """The scene under construction: rows for the surfaces, materials, footprints, lights."""

    size: Array
    camera: Camera
    rows: list[tuple[float, ...]] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    footprints: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    bulbs: list[tuple[float, float, float, int]] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    instances: int = FIRST_PRIMITIVE


def build_scene(seed: int) -> Scene:
    """Build the scene of a seed. The picture's size plays no part, so every size shows the same scene."""
    rng = np.random.default_rng(seed)
    size = np.array([rng.uniform(3.0, 6.6), rng.uniform(3.0, 6.6), rng.uniform(2.3, 3.1)])
    plan = _Plan(size, _draw_camera(rng, size))
    _paint_room(rng, plan)
    _hang_on_walls(rng, plan)
    _furnish(rng, plan)
    lights, ambient, sky = draw_lights(rng, size, plan.bulbs, list(zip(plan.openings, plan.frames, strict=True)))
    return Scene(
        size=size,
        surfaces=_surfaces(plan),
        materials=np.array(plan.materials, np.float32),
        openings=tuple(plan.openings),
        lights=lights,
        ambient=ambient,
        sky=sky,
        camera=plan.camera,
        look=draw_look(rng),
    )


def _draw_camera(rng: np.random.Generator, size: Array) -> Camera:
    """Stand near the room's edge, look across it, mostly a little down."""
    angle = rng.uniform(0.0, 2.0 * math.pi)
    reach = rng.uniform(0.55, 1.0) * (size[:2] / 2 - 0.25)
    toward = np.array([math.cos(angle), math.sin(angle)])
    toward /= max(abs(toward[0]), abs(toward[1])) if rng.random() < 0.7 else 1.0
    position = size[:2] / 2 + toward * reach
    target = size[:2] / 2 + rng.uniform(-0.25, 0.25, 2) * size[:2]
    heading = target - position
    yaw = math.atan2(heading[1], heading[0]) + rng.normal(0.0, 0.2)
    pitch = rng.normal(-0.2, 0.16)
    height = rng.uniform(0.7, min(2.0, float(size[2]) - 0.3))
    forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
    axes = look_along(forward, rng.normal(0.0, 0.05))
    return Camera(View(np.array([position[0], position[1], height]), axes), math.radians(rng.uniform(50.0, 75.0)))


def _paint_room(rng: np.random.Generator, plan: _Plan) -> None:
    """The room's faces and the outside; one wall may have its own wallpaper."""
    walls = draw_material(rng, WALLS, 0.8, light=0.55)
    accent = draw_material(rng, WALLS, 0.8, light=0.3)
    accent_at = int(rng.integers(0, 8))
    plan.materials += [accent if i == accent_at else walls for i in range(4)]
    plan.materials += [draw_material(rng, FLOORS, 1.1, light=0.2), draw_material(rng, WALLS[:3], 1.0, light=0.9)]
    plan.materials += [draw_material(rng, (NOISE,))]
    for face, name in enumerate(_ROOM_CLASSES):
        kind = OUTSIDE if face == FIRST_PRIMITIVE - 1 else ROOM
        plan.rows += [(kind, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0, CLASSES.index(name), face, face)]


def _stand_item(plan: _Plan, item: Item, x: float, y: float, z: float, yaw: float) -> None:
    """Add an item's parts at a position in the world, as one instance."""
    c, s = math.cos(yaw), math.sin(yaw)
    first = len(plan.materials)
    plan.materials += item.materials
    for kind, px, py, pz, hx, hy, hz, part_yaw, tilt, m, k, slot in item.parts:
        row = (kind, x + c * px - s * py, y + s * px + c * py, z + pz, hx, hy, hz, yaw + part_yaw, tilt, m, k)
        plan.rows += [(*row, item.class_id, plan.instances, first + slot)]
    if item.lamp_z:
        plan.bulbs += [(x, y, z + item.lamp_z, plan.instances)]
    plan.instances += 1


def _surfaces(plan: _Plan) -> Surfaces:
    """The rows as arrays, with yaw and tilt turned into rotations."""
    rows = np.array(plan.rows, np.float64)
    yaw, tilt = rows[:, 7], rows[:, 8]
    cy, sy, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
    zero = np.zeros_like(yaw)
    rotation = np.stack([cy, sy, zero, -sy * ct, cy * ct, st, sy * st, -cy * st, ct], 1).reshape(-1, 3, 3)
    whole = rows[:, [0, 11, 12, 13]].astype(np.int32)
    return Surfaces(
        whole[:, 0], rows[:, 1:4], rows[:, 4:7], rotation, rows[:, 9:11], whole[:, 1], whole[:, 2], whole[:, 3]
    )


def _wall_frame(face: int, size: Array, along: float, inset: float) -> tuple[float, float, float]:
    """Where (x, y) and with what yaw an item stands whose back is ``inset`` from its middle, at a wall."""
    if face == 0:
        return inset, along, math.pi / 2
    if face == 1:
        return float(size[0]) - inset, along, -math.pi / 2
    if face == 2:
        return along, inset, math.pi
    return along, float(size[1]) - inset, 0.0


def _faces_seen(plan: _Plan) -> list[int]:
    """The walls, the one the camera looks at most squarely first."""
    forward = plan.camera.view.axes[2]
    return sorted(range(4), key=lambda face: -float(forward[face // 2]) * (1 if face % 2 else -1))


def _hang_on_walls(rng: np.random.Generator, plan: _Plan) -> None:
    """Windows, doors and pictures in slots along the walls that the camera sees."""
    for rank, face in enumerate(_faces_seen(plan)[:3]):
        length = float(plan.size[1 - face // 2])
        at = rng.uniform(0.2, 0.6)
        while at < length - 0.5:
            choice, r = rng.random(), rng.random(5).tolist()
            if choice < 0.3 and len(plan.openings) < 2:
                half_x, half_z = 0.3 + 0.5 * r[0], 0.35 + 0.35 * r[1]
                middle = min(1.1 + half_z * 0.6 + 0.2 * r[2], float(plan.size[2]) - half_z - 0.12)
                if at + 2 * half_x + 0.1 < length:
                    x, y, yaw = _wall_frame(face, plan.size, at + half_x, 0.0)
                    plan.frames += [plan.instances]
                    _stand_item(plan, fittings.window_frame(rng, half_x, half_z), x, y, middle, yaw)
                    plan.openings += [Opening(face, (at, at + 2 * half_x), (middle - half_z, middle + half_z))]
            elif choice < 0.5 and rank < 2:
                item = fittings.door(rng)
                half_x = item.half_x
                if at + 2 * half_x < length:
                    x, y, yaw = _wall_frame(face, plan.size, at + half_x, 0.0)
                    _stand_item(plan, item, x, y, 0.0, yaw)
                    front_x, front_y, _ = _wall_frame(face, plan.size, at + half_x, 0.2)
                    plan.footprints += [(front_x, front_y, half_x, 0.2, yaw)]
            elif choice < 0.8:
                item = fittings.picture(rng)
                half_x = item.half_x
                if at + 2 * half_x < length:
                    x, y, yaw = _wall_frame(face, plan.size, at + half_x, 0.0)
                    _stand_item(plan, item, x, y, 1.35 + 0.35 * r[2], yaw)
            else:
                half_x = 0.3
            at += 2 * half_x + 0.15 + 0.8 * r[4]


def _overlap(one: tuple[float, float, float, float, float], two: tuple[float, float, float, float, float]) -> bool:
    """Whether two turned rectangles overlap (separating axes)."""
    dx, dy = two[0] - one[0], two[1] - one[1]
    for yaw in (one[4], one[4] + math.pi / 2, two[4], two[4] + math.pi / 2):
        c, s = math.cos(yaw), math.sin(yaw)
        extent = 0.0
        for _, _, a, b, own in (one, two):
            extent += a * abs(math.cos(own - yaw)) + b * abs(math.sin(own - yaw))
        if abs(dx * c + dy * s) > extent:
            return False
    return True


def _fits(plan: _Plan, footprint: tuple[float, float, float, float, float]) -> bool:
    """Inside the room, clear of the camera and of everything on the floor, and in the camera's sight."""
    x, y, a, b, yaw = footprint
    wide = a * abs(math.cos(yaw)) + b * abs(math.sin(yaw))
    deep = a * abs(math.sin(yaw)) + b * abs(math.cos(yaw))
    if not (wide - 0.01 <= x <= plan.size[0] - wide + 0.01 and deep - 0.01 <= y <= plan.size[1] - deep + 0.01):
        return False
    view = plan.camera.view
    dx, dy = x - float(view.position[0]), y - float(view.position[1])
    c, s = math.cos(yaw), math.sin(yaw)
    if abs(dx * c + dy * s) < a + _CLEAR_OF_CAMERA_M and abs(dy * c - dx * s) < b + _CLEAR_OF_CAMERA_M:
        return False
    bearing = math.atan2(dy, dx) - math.atan2(float(view.axes[2, 1]), float(view.axes[2, 0]))
    bearing = (bearing + math.pi) % (2 * math.pi) - math.pi
    if abs(bearing) > plan.camera.fov_x * 0.55:
        return False
    return not any(_overlap(footprint, other) for other in plan.footprints)


def _stand(rng: np.random.Generator, plan: _Plan, item: Item, at_wall: bool) -> bool:
    """Try to place an item on the floor; True if it fits somewhere."""
    for _ in range(14):
        r = rng.random(4).tolist()
        if at_wall:
            face = int(r[0] * 4)
            length = float(plan.size[1 - face // 2])
            x, y, yaw = _wall_frame(face, plan.size, r[1] * length, item.half_y + 0.01 + 0.05 * r[2])
        else:
            x, y, yaw = r[0] * float(plan.size[0]), r[1] * float(plan.size[1]), r[2] * 2 * math.pi
            yaw = yaw if r[3] < 0.6 else round(yaw / (math.pi / 2)) * (math.pi / 2)
        footprint = (x, y, item.half_x, item.half_y, yaw)
        if _fits(plan, footprint):
            plan.footprints += [footprint]
            _stand_item(plan, item, x, y, 0.0, yaw)
            _load(rng, plan, item, x, y, yaw)
            return True
    return False


def _load(rng: np.random.Generator, plan: _Plan, item: Item, x: float, y: float, yaw: float) -> None:
    """Put small things on an item's surfaces, and chairs around a table."""
    c, s = math.cos(yaw), math.sin(yaw)
    for sx, sy, sz, ax, ay in item.supports:
        taken: list[tuple[float, float, float]] = []
        wanted = int(rng.integers(0, 4)) if item.class_id != CLASSES.index("chair") else int(rng.random() < 0.15)
        for _ in range(wanted):
            small = _ON_TOP[int(rng.integers(len(_ON_TOP)))](rng)
            r = rng.random(3).tolist()
            px, py, wide = sx + (2 * r[0] - 1) * ax, sy + (2 * r[1] - 1) * ay, max(small.half_x, small.half_y)
            clear = all(math.hypot(px - ox, py - oy) > wide + other for ox, oy, other in taken)
            if wide < max(ax, ay) and clear and sz + small.height < plan.size[2] - 0.1:
                taken += [(px, py, wide)]
                _stand_item(plan, small, x + c * px - s * py, y + s * px + c * py, sz, yaw + 6.28 * r[2])
    if item.class_id == CLASSES.index("table") and item.height > 0.6:
        for side in range(4):
            if rng.random() < 0.5:
                seat = furniture.chair(rng)
                gap = (item.half_y if side % 2 == 0 else item.half_x) + seat.half_y * rng.uniform(0.35, 1.1)
                turn = yaw + side * math.pi / 2
                px, py = x - math.sin(turn) * gap, y + math.cos(turn) * gap
                footprint = (px, py, seat.half_x, seat.half_y, turn + rng.normal(0.0, 0.15))
                others, plan.footprints = plan.footprints, plan.footprints[:-1]
                fits = _fits(plan, footprint)
                plan.footprints = others
                if fits:
                    plan.footprints.insert(0, footprint)
                    _stand_item(plan, seat, px, py, 0.0, footprint[4])


def _furnish(rng: np.random.Generator, plan: _Plan) -> None:
    """Place 6 to 15 objects on the floor if they fit, big ones at the walls first, then rugs and a pendant."""
    wanted = int(rng.integers(6, 16))
    slender: set[int] = set()
    at_walls = round(wanted * rng.uniform(0.35, 0.65))
    for index in range(wanted):
        at_wall = index < at_walls
        makers = _AGAINST_WALL if at_wall else _FREE_STANDING
        item = makers[int(rng.integers(len(makers)))](rng)
        if item.class_id in slender:
            continue
        if _stand(rng, plan, item, at_wall) and item.class_id == CLASSES.index("lamp"):
            slender.add(item.class_id)
    for _ in range(int(rng.integers(0, 4))):
        _stand(rng, plan, furniture.clutter(rng), False)
    if rng.random() < 0.55:
        _roll_out_rug(rng, plan)
    if rng.random() < 0.6:
        item = fittings.pendant(rng)
        middle = plan.size[:2] * rng.uniform(0.3, 0.7, 2)
        away = np.hypot(*(middle - plan.camera.view.position[:2]))
        if away > 0.8:
            _stand_item(plan, item, float(middle[0]), float(middle[1]), float(plan.size[2]), 0.0)


def _roll_out_rug(rng: np.random.Generator, plan: _Plan) -> None:
    """A rug in front of the camera, under whatever stands there."""
    item = fittings.rug(rng)
    forward = plan.camera.view.axes[2, :2] / np.linalg.norm(plan.camera.view.axes[2, :2])
    middle = plan.camera.view.position[:2] + forward * rng.uniform(1.2, 3.0)
    radius = math.hypot(item.half_x, item.half_y)
    low, high = np.minimum(radius, plan.size[:2] / 2), np.maximum(plan.size[:2] - radius, plan.size[:2] / 2)
    middle = np.clip(middle, low, high)
    _stand_item(
        plan,
        item,
        float(middle[0]),
        float(middle[1]),
        0.0,
        float(rng.choice([0.0, math.pi / 2, rng.uniform(0.0, 6.28)])),
    )
