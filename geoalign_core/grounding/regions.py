"""Regions: connected places whose score passes a threshold, as polygons and boxes in map units.

The heatmap is cut into blocks so that memory does not grow with it; a region that a block border cuts in two is put
together again from its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from scipy import ndimage
from shapely import affinity

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geoalign_core.grounding.heatmap import Heatmap

    Precision = Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """Scores 0..1 → precisions 0..1, NaN staying NaN."""

_BLOCK_PX = 2048
_EIGHT = np.ones((3, 3), dtype=int)
NMS_IOU = 0.5
AUTO_SEED = 0.5
"""Automatic regions hold a place where the question outweighs everything generic …"""
AUTO_OUTLINE = 0.35
"""… and reach as far as this score: things fade at their rims, where a patch sees something else as well."""


@dataclass(frozen=True, slots=True)
class Region:
    """One place."""

    polygon: shapely.Geometry
    """In the heatmap's pixels until :func:`find_regions` returns, then in the CRS."""
    box: shapely.Polygon
    """The polygon's bounding rectangle along the image's axes, so it turns with a rotated raster."""
    score: float
    """Mean of the region's mean and its best pixel, 0..1."""
    area_m2: float | None
    """True ground area of the polygon; None in pixel mode."""
    precision: float | None = None
    """Share of the region's pixels that is to be expected to be what was asked for, 0..1; None when nothing is known
    of the model's precision (:mod:`geoalign_core.models.calibration`)."""


@dataclass(slots=True)
class _Part:
    polygon: shapely.Geometry
    total: float
    count: int
    best: float
    right: float
    """Sum of the pixels' precisions; NaN when they are not known."""


def _parts(
    values: NDArray[np.float32], threshold: float, row: int, col: int, precision: Precision | None
) -> list[_Part]:
    """Label one block and outline its components, in heatmap pixels."""
    from rasterio.features import shapes

    hot = np.nan_to_num(values, nan=-1.0) >= threshold
    labels, count = ndimage.label(hot, structure=_EIGHT)
    if not count:
        return []
    index = np.arange(1, count + 1)
    totals = ndimage.sum_labels(values, labels, index)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    best = ndimage.maximum(values, labels, index)
    rights = np.full(count, np.nan) if precision is None else ndimage.sum_labels(precision(values), labels, index)
    outlines: dict[int, list[shapely.Geometry]] = {}
    offset = Affine.translation(col, row)
    for geometry, label in shapes(labels.astype(np.int32), mask=hot, connectivity=4, transform=offset):
        outlines.setdefault(int(label), []).append(shapely.geometry.shape(geometry))
    return [
        _Part(
            shapely.union_all(outlines[label]),
            float(totals[label - 1]),
            int(sizes[label - 1]),
            float(best[label - 1]),
            float(rights[label - 1]),
        )
        for label in index
    ]


def _join(parts: list[_Part], seams: shapely.Geometry) -> list[_Part]:
    """Put together what the block borders cut: parts that meet, even at a corner, on a seam."""
    if seams.is_empty or not parts:
        return parts
    geometries = np.array([part.polygon for part in parts])
    at_seam = np.flatnonzero(shapely.intersects(geometries, seams))
    tree = shapely.STRtree(geometries[at_seam])
    leader = {int(i): int(i) for i in at_seam}

    def root(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for left, right in tree.query(geometries[at_seam], predicate="intersects").T:
        a, b = root(int(at_seam[left])), root(int(at_seam[right]))
        leader[max(a, b)] = min(a, b)
    groups: dict[int, list[_Part]] = {}
    for i, part in enumerate(parts):
        groups.setdefault(root(i) if i in leader else i, []).append(part)
    return [
        group[0] if len(group) == 1 else _Part(
            shapely.union_all([part.polygon for part in group]),
            sum(part.total for part in group), sum(part.count for part in group), max(part.best for part in group),
            sum(part.right for part in group),
        )
        for group in groups.values()
    ]  # fmt: skip


def _keep_best(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Non-maximum suppression of axis-aligned boxes at :data:`NMS_IOU`, best first."""
    order = np.argsort(-scores, kind="stable")
    rectangles = shapely.box(*boxes.T)
    tree = shapely.STRtree(rectangles)
    areas = shapely.area(rectangles)
    gone = np.zeros(len(boxes), dtype=bool)
    kept = []
    for i in order:
        if gone[i]:
            continue
        kept.append(i)
        near = tree.query(rectangles[i])
        common = shapely.area(shapely.intersection(rectangles[near], rectangles[i]))
        gone[near[common > NMS_IOU * (areas[near] + areas[i] - common)]] = True
    return np.array(kept, dtype=np.intp)


def find_regions(
    heat: Heatmap,
    threshold: float,
    *,
    seed: float = 0.0,
    min_area_m2: float = 0.0,
    top: int | None = None,
    precision: Precision | None = None,
    block_px: int = _BLOCK_PX,
) -> list[Region]:
    """Find the regions of a heatmap, best first.

    Args:
        heat: The heatmap.
        threshold: Lowest score of a region's pixels, 0..1.
        seed: A region counts only when its best pixel reaches this (hysteresis thresholding).
        min_area_m2: Smallest true ground area; in pixel mode, smallest area in image pixels.
        top: Keep at most this many.
        precision: The model's map from scores to precisions, for :attr:`Region.precision`.
        block_px: Side of the blocks that are outlined at a time; memory grows with its square. The result does not
            depend on it.

    Returns:
        Regions in the heatmap's CRS. Two regions whose boxes overlap by more than an IoU of 0.5 count as one find:
        the better is kept.
    """
    from tiling.geodesy import area_m2

    height, width = heat.values.shape
    parts: list[_Part] = []
    for row in range(0, height, block_px):
        for col in range(0, width, block_px):
            parts += _parts(heat.values[row : row + block_px, col : col + block_px], threshold, row, col, precision)
    lines = [[(0, row), (width, row)] for row in range(block_px, height, block_px)]
    lines += [[(col, 0), (col, height)] for col in range(block_px, width, block_px)]
    parts = _join(
        parts,
        shapely.multilinestrings([shapely.linestrings(line) for line in lines]) if lines else shapely.Point(),
    )
    parts = [part for part in parts if part.best >= seed]
    if not parts:
        return []
    pixels = np.array([part.polygon for part in parts])
    if heat.frame_px is not None:
        pixels = shapely.intersection(pixels, shapely.box(0, 0, *heat.frame_px))
    t = heat.transform
    polygons = np.array([affinity.affine_transform(p, (t.a, t.b, t.d, t.e, t.c, t.f)) for p in pixels])
    bounds = shapely.bounds(pixels)
    boxes = [affinity.affine_transform(b, (t.a, t.b, t.d, t.e, t.c, t.f)) for b in shapely.box(*bounds.T)]
    areas = area_m2(polygons, heat.crs) if heat.crs else None
    measured = shapely.area(polygons) if areas is None else np.asarray(areas)
    scores = np.array([(part.total / part.count + part.best) / 2 for part in parts])
    big = np.flatnonzero(measured >= min_area_m2)
    if not len(big):
        return []
    kept = big[_keep_best(bounds[big], scores[big])][:top]
    return [
        Region(
            polygons[i], boxes[i], float(scores[i]), None if areas is None else float(areas[i]),
            None if precision is None else parts[i].right / parts[i].count,
        )
        for i in kept
    ]  # fmt: skip
