"""The sets of samples that the model learns from and is measured on: which pixels, at which ground resolution.

A *dense* sample carries a label per patch: 1 where the patch centre lies in a box, 0 where the patch touches none,
-1 (not used) in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from training.data.images import resize
from training.embedded.data import caption_tars, decode, index_tars, read_aircraft, read_chips, read_vehicles
from training.embedded.features import SampleSet
from training.evaluation.metrics.pointing import patch_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.embedded.data import BoxedImage, CaptionedImage, Chip, TarMember

PATCH_PX = 14
AID_PX = 224
AIRCRAFT_GSD_M = 0.5
CAR_LENGTH_M = 4.5
CAR_GSDS_M = (0.12, 0.2, 0.3)
POOL_CELLS_PX = (56, 28)
_POOL_SIDE = 224


@dataclass(frozen=True, slots=True)
class DenseSet:
    """Samples with boxes and the labels that these give the patches."""

    samples: SampleSet
    boxes_xyxy_px: tuple[NDArray[np.float64], ...]
    """N arrays (M, 4) in the sample's pixels; they may leave it."""
    labels: tuple[NDArray[np.int8], ...]
    """N grids (h, w) of -1, 0, 1"""
    groups: tuple[str, ...]
    """N names of the scene or recording that a sample is from."""


def aid_set(images: Sequence[CaptionedImage], data: Path) -> SampleSet:
    """Return whole AID images at 224 × 224 px, in the order of ``images``."""

    @cache
    def members() -> dict[str, TarMember]:
        return index_tars(caption_tars(data))

    def load(keys: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        for key in keys:
            yield resize(decode(members()[key].read()), AID_PX, AID_PX)

    return SampleSet("aid-224", tuple(image.name for image in images), load)


def aid_view_set(images: Sequence[CaptionedImage], data: Path, *, seed: int = 7) -> SampleSet:
    """Return a second view of AID images: 55 to 100 % of the area, turned and mirrored at random, 224 × 224 px.

    RSICD's captions hardly say left or right, so they hold for a turned image as well.
    """
    whole = aid_set(images, data)
    places = {image.name: number for number, image in enumerate(images)}

    def load(keys: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        for key, image in zip(keys, whole.load(keys), strict=True):
            rng = np.random.default_rng([seed, places[key]])
            side = int(AID_PX * rng.uniform(0.55, 1.0) ** 0.5)
            top, left = rng.integers(0, AID_PX - side + 1, size=2)
            part = np.rot90(image[top : top + side, left : left + side], int(rng.integers(4)))
            yield resize(np.ascontiguousarray(part[:, :: int(rng.choice([-1, 1]))]), AID_PX, AID_PX)

    return SampleSet("aid-view-224", whole.keys, load)


def _dense_set(
    samples: SampleSet, boxes_xyxy_px: Sequence[NDArray[np.float64]], sides_px: Sequence[int], groups: Sequence[str]
) -> DenseSet:
    """Label the patches of square samples by their boxes."""
    grids = [side // PATCH_PX for side in sides_px]
    labels = [patch_labels(boxes, grid, grid, PATCH_PX) for boxes, grid in zip(boxes_xyxy_px, grids, strict=True)]
    return DenseSet(samples, tuple(boxes_xyxy_px), tuple(labels), tuple(groups))


@cache
def _scene(path: Path, width_px: int, height_px: int) -> NDArray[np.uint8]:
    return resize(decode(path.read_bytes()), width_px, height_px)


def aircraft_set(
    data: Path,
    *,
    held_out: bool,
    gsd_m: float,
    window_px: int,
    windows: int | None = None,
    far: int = 6,
    seed: int = 0,
) -> DenseSet:
    """Return windows of the aircraft scenes at a ground resolution.

    Args:
        data: Folder of the training data.
        held_out: The validation scenes or the others.
        gsd_m: Metres per pixel.
        window_px: Side of the windows, a multiple of the patch.
        windows: None for the grid that covers the scene (the last row and column shifted inwards); a number for
            that many windows per scene at random places, most of them around an aircraft.
        far: With ``windows``: one in how many lies anywhere.
        seed: Of the random places.
    """
    scenes = [scene for scene in read_aircraft(data) if scene.held_out == held_out]
    factor = AIRCRAFT_GSD_M / gsd_m
    side = round(2560 * factor)
    spans: dict[str, tuple[BoxedImage, int, int]] = {}
    for number, scene in enumerate(scenes):
        if windows is None:
            steps = sorted({min(start, side - window_px) for start in range(0, side, window_px)})
            places = [(x, y) for y in steps for x in steps]
        else:
            rng = np.random.default_rng([seed, number, window_px])
            places = _places(rng, scene.boxes_xyxy_px * factor, side - window_px, window_px, windows, far)
        for x, y in places:
            spans[f"{scene.path.name}@{x},{y}"] = (scene, x, y)

    def load(keys: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        for key in keys:
            scene, x, y = spans[key]
            yield _scene(scene.path, side, side)[y : y + window_px, x : x + window_px]
        _scene.cache_clear()

    boxes = [scene.boxes_xyxy_px * factor - [x, y, x, y] for scene, x, y in spans.values()]
    groups = [scene.path.name for scene, _, _ in spans.values()]
    name = f"aircraft-{'val' if held_out else 'train'}-{gsd_m:g}m-{window_px}px"
    return _dense_set(SampleSet(name, tuple(spans), load), boxes, [window_px] * len(boxes), groups)


def _places(
    rng: np.random.Generator, boxes: NDArray[np.float64], most: int, window_px: int, count: int, far: int
) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for index in range(count):
        x, y = rng.integers(0, most + 1, size=2)
        if index % far and len(boxes):
            box = boxes[rng.integers(len(boxes))]
            centre = (box[:2] + box[2:]) / 2
            x, y = np.clip(centre - rng.uniform(0.15, 0.85, size=2) * window_px, 0, most).astype(int)
        places.append((int(x), int(y)))
    return places


def vehicle_set(data: Path, *, held_out: bool, gsd_m: float) -> DenseSet:
    """Return the drone images, each reduced until its cars are as long as 4.5 m are at ``gsd_m``.

    The images' ground resolution is unknown; an image's median car (longer box side) stands for 4.5 m.
    """
    images = {item.path.name: item for item in read_vehicles(data) if item.held_out == held_out}
    sides: dict[str, int] = {}
    boxes = []
    for name, item in images.items():
        length = np.median((item.boxes_xyxy_px[:, 2:] - item.boxes_xyxy_px[:, :2]).max(axis=1))
        cells = round(640 * CAR_LENGTH_M / gsd_m / length / PATCH_PX)
        sides[name] = int(np.clip(cells, 5, 46)) * PATCH_PX
        boxes.append(item.boxes_xyxy_px * sides[name] / 640)

    def load(keys: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        for key in keys:
            yield resize(decode(images[key].path.read_bytes()), sides[key], sides[key])

    name = f"vehicles-{'val' if held_out else 'train'}-{gsd_m:g}m"
    return _dense_set(SampleSet(name, tuple(images), load), boxes, list(sides.values()), list(images))


def pool_set(data: Path, *, held_out: bool, cell_px: int, seed: int = 0) -> DenseSet:
    """Return mosaics of shuffled pool chips: 224 × 224 px of cells of ``cell_px``.

    The box of a pool is the inner half of its cell and a pixel around, so that the inner patches are labelled 1, the
    others of the cell -1; at 28 px it is the whole cell.
    """
    chips = [chip for chip in read_chips(data) if chip.held_out == held_out]
    order = np.random.default_rng([seed, cell_px]).permutation(len(chips))
    side = _POOL_SIDE // cell_px
    count = len(chips) // side**2
    boards: dict[str, list[Chip]] = {
        f"{cell_px}px-{board}": [chips[index] for index in order[board * side**2 : (board + 1) * side**2]]
        for board in range(count)
    }

    def load(keys: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        for key in keys:
            cells = [resize(chip.image, cell_px, cell_px) for chip in boards[key]]
            rows = [np.concatenate(cells[row * side : (row + 1) * side], axis=1) for row in range(side)]
            yield np.concatenate(rows)

    rim = 0 if cell_px < 3 * PATCH_PX else cell_px // PATCH_PX // 4 * PATCH_PX - 1
    inner = np.array([rim, rim, cell_px - rim, cell_px - rim], np.float64)
    boxes = [
        np.array([
            inner + np.tile([place % side, place // side], 2) * cell_px
            for place, chip in enumerate(members) if chip.pool
        ]).reshape(-1, 4)
        for members in boards.values()
    ]  # fmt: skip
    name = f"pools-{'val' if held_out else 'train'}-{cell_px}px"
    return _dense_set(SampleSet(name, tuple(boards), load), boxes, [_POOL_SIDE] * len(boards), list(boards))
