"""Boxes that heatmaps give: a plain image is asked as ``geoalign ask`` asks a raster, and its regions are boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.task import Job

SETTINGS = {
    "threshold": "heatmap: lowest score of a region, 0 to 1; default: as geoalign ask (0.5, outlined at 0.35)",
    "source_gsd": "heatmap: metres per pixel of the images; default: as they are, at one level",
    "gsd": "heatmap: metres per pixel to look at; default: the model's",
}
_OUTLINE = 0.7
"""Share of the best score down to which a best region reaches where none is automatic: :func:`best_box` always answers.
Automatic regions have the same ratio, 0.35 to 0.5."""


@dataclass(frozen=True, slots=True)
class Found:
    """Regions of one question on one image, best first."""

    boxes: NDArray[np.float64]
    """(n, 4) in the image's pixels."""
    scores: NDArray[np.float64]
    """(n,) 0..1"""


def heatmaps(job: Job, encoder: TorchEncoder, root: Path, image: str, queries: Sequence[str]) -> list[Heatmap]:
    """Return the heatmap of each question, its transform leading to the image's pixels.

    Raises:
        GeoAlignError: The image is damaged, or a setting is out of range.
    """
    from geoalign_core.grounding.heatmap import PIXELS_PER_PATCH, HeatLattice
    from geoalign_core.grounding.text import encode_queries
    from training.data.images import picture_size, read_bytes
    from training.evaluation.lattices import as_asked
    from training.evaluation.layouts.boxes import BoxedScene

    width, height = picture_size(read_bytes(root, image), image)
    scene = BoxedScene(root, image, width, height, {})
    texts = encode_queries(encoder, queries)
    gsds = ground.number_of(job, "source_gsd"), ground.number_of(job, "gsd")
    lattice = as_asked(scene, encoder, texts, *gsds, job.cache, job.cancel)
    rows, cols = lattice.odds.shape[1:]
    (left, top), (wide, high) = lattice.origin_xy_px, lattice.patch_xy_px
    fine = PIXELS_PER_PATCH
    frame = HeatLattice(
        height_px=rows * fine, width_px=cols * fine,
        transform=Affine.translation(left, top) * Affine.scale(wide / fine, high / fine), crs=None, gsd_m=None,
        frame_px=((width - left) / wide * fine, (height - top) / high * fine),
    )  # fmt: skip
    return [frame.heatmap(odds) for odds in lattice.odds]


def found_boxes(heat: Heatmap, threshold: float | None) -> Found:
    """Return the regions of a heatmap: automatic ones, or all above a threshold."""
    from geoalign_core.grounding.regions import AUTO_OUTLINE, AUTO_SEED, find_regions

    lowest, seed = (AUTO_OUTLINE, AUTO_SEED) if threshold is None else (threshold, 0.0)
    regions = find_regions(heat, lowest, seed=seed)
    boxes = np.array([region.box.bounds for region in regions], np.float64).reshape(-1, 4)
    return Found(boxes, np.array([region.score for region in regions], np.float64))


def best_box(heat: Heatmap, threshold: float | None) -> NDArray[np.float64]:
    """Return (4,) the box of the best region, and where none passes that around the best place; NaN without scores."""
    found = found_boxes(heat, threshold)
    if not len(found.boxes):
        best = float(np.nanmax(heat.values)) if np.isfinite(heat.values).any() else math.nan
        found = found_boxes(heat, best * _OUTLINE) if best > 0 else found
    return found.boxes[0] if len(found.boxes) else np.full(4, np.nan)


def picture_of(root: Path, image: str) -> dict[str, Any] | None:
    """Return a small picture for the report, None where the file is missing or damaged: figures need none."""
    try:
        return ground.thumbnail(root, image)
    except DataError:
        return None


def effective(job: Job) -> dict[str, float | None]:
    """Return :data:`SETTINGS` with the values that count; a threshold of None is the automatic one."""
    return {"threshold": threshold_of(job), **ground.sizes(job, job.encoder(), program=True)}


def threshold_of(job: Job) -> float | None:
    """Return the lowest score of a region, None for automatic ones.

    Raises:
        UsageError: It is no number between 0 and 1.
    """
    value = ground.number_of(job, "threshold")
    if value is not None and value > 1:
        raise UsageError("the threshold is not between 0 and 1", measured=f"{value:g}")
    return value
