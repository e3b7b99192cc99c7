"""Every window of a grid by what becomes of it: the parts of a split, and why the others are left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tiling.chips.job import BETWEEN
from tiling.plan import BLANK, OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from tiling.grid import TileGrid, Window

_COLORS = ("#0072b2", "#e69f00", "#cc3d74", "#009e73", "#56b4e9", "#7a4b9d", "#8a6d00", "#000000")
"""Told apart also by people who see fewer colours, after Okabe and Ito."""
_GREY = "#4a5259"
_USUAL = ("train", "val", "test")
_MOST_COUNTED = 200_000


@dataclass(frozen=True, slots=True)
class Kind:
    """Tiles that are drawn alike."""

    name: str
    kept: bool
    color: str
    edges: NDArray[np.float64]
    """(N, 4): first column, first row, end column and end row in canvas pixels."""
    count: int


def sort_windows(
    grid: TileGrid,
    windows: Sequence[Window],
    parts: Sequence[str | None] | None,
    left_out: Mapping[str, Iterable[Window]],
    area: BaseGeometry | None,
) -> list[Kind]:
    """Sort all windows of a grid into kinds: the parts, then what is left out.

    Args:
        grid: The grid.
        windows: The windows that are kept.
        parts: For each its part of a split, None when it lies between two; all are "tiles" without a split.
        left_out: Reason, and windows that were left out for it. Those named nowhere count as outside the area where
            they miss it, else as too few valid pixels; in a grid of more than 200,000 windows just as left out.
        area: The area of interest in canvas pixels.
    """
    names = ["tiles"] * len(windows) if parts is None else [part or "" for part in parts]
    order = sorted(Counter(name for name in names if name).items(), key=lambda item: (_rank(item[0]), -item[1]))
    edges = _edges(windows)
    which = np.array(names, object)
    kinds = [
        Kind(name, True, _COLORS[index % len(_COLORS)], edges[which == name], int((which == name).sum()))
        for index, (name, _) in enumerate(order)
    ]
    lost = {reason: _edges(list(some)) for reason, some in left_out.items()}
    if "" in names:
        lost[BETWEEN] = np.concatenate([lost.get(BETWEEN, _edges([])), edges[which == ""]])
    known = len(windows) + sum(len(some) for reason, some in lost.items()) - names.count("")
    if known < len(grid) <= _MOST_COUNTED:
        named = {(window.row, window.col) for window in windows}
        named |= {(window.row, window.col) for some in left_out.values() for window in some}
        edges = _edges([window for window in grid if (window.row, window.col) not in named])
        missed = _misses(area, edges)
        for reason, some in ((OUTSIDE, edges[missed]), (BLANK, edges[~missed])):
            lost[reason] = np.concatenate([lost.get(reason, _edges([])), some])
    kinds += [Kind(reason, False, _GREY, some, len(some)) for reason, some in lost.items() if len(some)]
    if len(grid) > _MOST_COUNTED and known < len(grid):
        kinds.append(Kind("left out", False, _GREY, _edges([]), len(grid) - known))
    return kinds


def left_out_ground(
    kinds: Sequence[Kind], width_px: int, height_px: int
) -> tuple[BaseGeometry, dict[str, BaseGeometry]]:
    """Return the ground of no kept tile in canvas pixels, and for each reason its share of that, none of it twice.

    A kind without edges, whose windows were only counted, takes what the others leave.
    """
    import shapely

    kept = [kind.edges for kind in kinds if kind.kept]
    whole = shapely.box(0, 0, width_px, height_px)
    free = bare = _surface(shapely.difference(whole, _union(np.concatenate([_edges([]), *kept]))))
    grounds = {}
    for kind in kinds:
        if kind.kept:
            continue
        own = _union(kind.edges) if len(kind.edges) else free
        ground, free = _surface(shapely.intersection(free, own)), _surface(shapely.difference(free, own))
        if ground:
            grounds[kind.name] = ground
    return bare, grounds


def _union(edges: NDArray[np.float64]) -> BaseGeometry:
    import shapely

    return shapely.union_all(shapely.box(*edges.T))


def _surface(ground: BaseGeometry) -> BaseGeometry:
    """Return the polygons of a geometry, without the lines and points where others touch."""
    import shapely

    parts = shapely.get_parts(ground)
    return shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])


def _rank(part: str) -> int:
    return _USUAL.index(part) if part in _USUAL else len(_USUAL)


def _edges(windows: Sequence[Window]) -> NDArray[np.float64]:
    rows = [(window.col_off_px, window.row_off_px, window.col_end_px, window.row_end_px) for window in windows]
    return np.array(rows, np.float64).reshape(-1, 4)


def _misses(area: BaseGeometry | None, edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    import shapely

    if area is None:
        return np.zeros(len(edges), np.bool_)
    boxes = shapely.box(*edges.T)
    return np.asarray(~shapely.intersects(area, boxes) | shapely.touches(area, boxes), np.bool_)
