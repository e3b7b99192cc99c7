"""Where the ablation's regions come from: the boxes of the training data, in the windows whose features are cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.builder.colours import tint_of
from training.data.images import resize
from training.embedded.ablation_regions import Box, Placed, colours, place, size_word
from training.embedded.corpus import training_sets
from training.embedded.data import decode, read_aircraft, read_chips, read_vehicles
from training.embedded.evaluate import held_out_sets
from training.embedded.features import SampleSet
from training.embedded.samples import AIRCRAFT_GSD_M, CAR_GSDS_M, PATCH_PX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tiling.progress import Progress
    from training.embedded.samples import DenseSet

CROP_PX = 224
POOL_BOARDS = 28
"""Mosaics of pool chips that are learnt from; more would only repeat the easiest category."""
POOL_CELL_PX = 56
_VEHICLE_PX = 640
_AIRPLANE, _CAR, _POOL = range(3)


@dataclass(frozen=True, slots=True)
class Windows:
    """A set of samples with the regions of each."""

    dense: DenseSet
    regions: tuple[tuple[Placed, ...], ...]


@dataclass(frozen=True, slots=True)
class Objects:
    """Every box of the data."""

    boxes: dict[str, tuple[Box, ...]]
    """By file name; a pool chip by its own."""
    chips: dict[bool, tuple[str, ...]]
    """Names of all chips, with a pool or without, of the training side (False) and the held-out one (True)."""


def read_objects(data: Path, progress: Progress) -> Objects:
    """Read every box of the data with the words for its size and colour.

    Args:
        data: Folder of the training data.
        progress: Told after every image.

    Raises:
        DataError: The data is missing or not as expected.
    """
    images = [(item, _AIRPLANE) for item in read_aircraft(data)] + [(item, _CAR) for item in read_vehicles(data)]
    boxes: dict[str, tuple[Box, ...]] = {}
    for done, (item, category) in enumerate(images, start=1):
        pixels = decode(item.path.read_bytes())
        found, tint = [], tint_of(pixels)
        for number, xyxy in enumerate(item.boxes_xyxy_px):
            x0, y0, x1, y1 = np.clip(xyxy.round().astype(int), 0, [*pixels.shape[1::-1]] * 2).tolist()
            if x1 <= x0 or y1 <= y0:
                continue
            size = size_word(category, max(x1 - x0, y1 - y0) * AIRCRAFT_GSD_M)
            key = f"{item.path.name}#{number}@{x0},{y0},{x1},{y1}"
            found.append(Box(key, (x0, y0, x1, y1), category, size, *colours(pixels, (x0, y0, x1, y1), tint)))
        boxes[item.path.name] = tuple(found)
        progress(done, len(images), "reading boxes")
    chips = read_chips(data)
    for chip in chips:
        height, width = chip.image.shape[:2]
        box = Box(chip.name, (0, 0, width, height), _POOL, "", "", ())  # nobody knows where in a chip the pool lies
        boxes[chip.name] = (box,) if chip.pool else ()
    names = {side: tuple(chip.name for chip in chips if chip.held_out == side) for side in (False, True)}
    return Objects(boxes, names)


def training_windows(data: Path, objects: Objects) -> list[Windows]:
    """Return the windows that regions are learnt from."""
    sets = training_sets(data)
    found = [_aircraft(dense, objects, gsd) for dense, gsd in zip(sets["aircraft"], (0.5, 1.0), strict=True)]
    found += [_vehicles(dense, objects) for dense in sets["vehicle"]]
    return [*found, _pools(sets["pool"][0], objects.chips[False], objects, POOL_BOARDS)]


def held_out_windows(data: Path, objects: Objects, window_px: int) -> dict[str, Windows]:
    """Return the windows whose regions and patches are measured, by the names of the model card."""
    sets = {name: dense for name, (_, dense) in held_out_sets(data, window_px).items()}
    found = {"aircraft 0.5 m": _aircraft(sets["aircraft 0.5 m"], objects, AIRCRAFT_GSD_M)}
    found |= {f"vehicles {gsd:g} m": _vehicles(sets[f"vehicles {gsd:g} m"], objects) for gsd in CAR_GSDS_M}
    name = f"pools {POOL_CELL_PX} px"
    return found | {name: _pools(sets[name], objects.chips[True], objects, None)}


def _aircraft(dense: DenseSet, objects: Objects, gsd_m: float) -> Windows:
    regions = []
    for key, label in zip(dense.samples.keys, dense.labels, strict=True):
        name, _, corner = key.rpartition("@")
        offset = np.array([int(value) for value in corner.split(",")] * 2)
        scale = AIRCRAFT_GSD_M / gsd_m
        regions.append(_placed(objects.boxes[name], scale, -offset, label.shape[0] * PATCH_PX))
    return Windows(dense, tuple(regions))


def _vehicles(dense: DenseSet, objects: Objects) -> Windows:
    regions = []
    for key, label in zip(dense.samples.keys, dense.labels, strict=True):
        side = label.shape[0] * PATCH_PX
        regions.append(_placed(objects.boxes[key], side / _VEHICLE_PX, np.zeros(4), side))
    return Windows(dense, tuple(regions))


def _pools(dense: DenseSet, names: Sequence[str], objects: Objects, boards: int | None) -> Windows:
    """Find the chips of the mosaics again: ``pool_set`` shuffles them by (seed 0, cell)."""
    order = np.random.default_rng([0, POOL_CELL_PX]).permutation(len(names))
    side_px = dense.labels[0].shape[0] * PATCH_PX
    side = side_px // POOL_CELL_PX
    regions: list[tuple[Placed, ...]] = []
    for board in range(len(dense.labels)):
        found: list[Placed] = []
        for cell, chip in enumerate(order[board * side**2 : (board + 1) * side**2]):
            row, col = divmod(cell, side)
            boxes = objects.boxes[names[chip]]
            scale = POOL_CELL_PX / boxes[0].xyxy_px[2] if boxes else 1.0
            found += _placed(boxes, scale, np.array([col, row, col, row]) * POOL_CELL_PX, side_px)
        regions.append(tuple(found) if boards is None or board < boards else ())
    return Windows(dense, tuple(regions))


def _placed(
    boxes: Sequence[Box], scale: float, offset: NDArray[np.float64] | NDArray[np.int64], side: int
) -> tuple[Placed, ...]:
    found = (place(box, np.array(box.xyxy_px) * scale + offset, side) for box in boxes)
    return tuple(item for item in found if item is not None)


def crop_set(data: Path, windows: Sequence[Windows]) -> SampleSet:
    """Return every box of the windows, cut out without a margin and squashed to 224 × 224 px, once each."""
    boxes = {item.box.key: item.box for part in windows for regions in part.regions for item in regions}
    files = {item.path.name: item.path for item in [*read_aircraft(data), *read_vehicles(data)]}

    def load(keys: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        shown, pixels = "", np.zeros((0, 0, 3), np.uint8)
        chips = {chip.name: chip.image for chip in read_chips(data)} if not all("#" in key for key in keys) else {}
        for key in keys:
            name = key.partition("#")[0]
            if name != shown:
                shown, pixels = name, chips[name] if name in chips else decode(files[name].read_bytes())
            x0, y0, x1, y1 = (round(value) for value in boxes[key].xyxy_px)
            yield resize(np.ascontiguousarray(pixels[y0:y1, x0:x1]), CROP_PX, CROP_PX)

    return SampleSet("ablation-crops", tuple(sorted(boxes)), load)
