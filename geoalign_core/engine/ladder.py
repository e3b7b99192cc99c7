"""One heatmap as regions at every threshold, so that a slider needs no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geoalign_core.grounding.regions import find_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geopandas import GeoDataFrame

    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.grounding.regions import Precision, Region

BINS = 40
"""Of the histogram, 0.025 wide each."""


def histogram(heat: Heatmap) -> list[int]:
    """Count the heatmap's pixels per score bin; a score of 1 falls into the last."""
    values = heat.values[np.isfinite(heat.values)]
    return [int(count) for count in np.histogram(values, bins=BINS, range=(0.0, 1.0))[0]]


def best_score(heat: Heatmap) -> float | None:
    """Return the highest score, None when nothing is valid."""
    finite = heat.values[np.isfinite(heat.values)]
    return float(finite.max()) if finite.size else None


def climb(
    heat: Heatmap, rungs: Sequence[int], *, min_area_m2: float, top: int, tell: Callable[[int], None],
    precision: Precision | None = None,
) -> dict[int, list[Region]]:  # fmt: skip
    """Return the regions at every rung.

    Args:
        heat: The heatmap.
        rungs: Thresholds in whole per cent, ascending.
        min_area_m2: Smallest region.
        top: At most so many per rung.
        tell: Called with the number of rungs done; may raise to stop.
        precision: The model's map from scores to precisions, where it has one.
    """
    best = best_score(heat)
    found: dict[int, list[Region]] = {}
    for number, rung in enumerate(rungs):
        tell(number)
        above = best is not None and best >= rung / 100
        found[rung] = (
            find_regions(heat, rung / 100, min_area_m2=min_area_m2, top=top, precision=precision) if above else []
        )
    return found


def frames(
    regions: dict[int, list[Region]], heat: Heatmap, *, query: str, model: str, gsd_m: float | None
) -> dict[str, GeoDataFrame]:
    """Lay the regions of all rungs out as the layers ``boxes`` and ``polygons``, ``min_match`` naming the rung.

    The last column, precision, is there where it is known.
    """
    from geopandas import GeoDataFrame

    rows = [(rung, rank, region) for rung, some in regions.items() for rank, region in enumerate(some, 1)]
    columns = {
        "query": np.array([query] * len(rows), dtype=object),
        "score": np.array([region.score for _, _, region in rows], dtype=np.float64),
        "rank": np.array([rank for _, rank, _ in rows], dtype=np.int32),
        "area_m2": np.array([region.area_m2 for _, _, region in rows], dtype=np.float64),
        "gsd_m": np.array([gsd_m] * len(rows), dtype=np.float64),
        "model": np.array([model] * len(rows), dtype=object),
        "min_match": np.array([rung for rung, _, _ in rows], dtype=np.int32),
    }
    precisions = [region.precision for _, _, region in rows]
    if any(value is not None for value in precisions):
        columns["precision"] = np.array(precisions, dtype=np.float64)
    shapes = {"boxes": [r.box for _, _, r in rows], "polygons": [r.polygon for _, _, r in rows]}
    return {name: GeoDataFrame(columns, geometry=items, crs=heat.crs) for name, items in shapes.items()}
