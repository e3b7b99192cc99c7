"""The index: raw features of every window of a raster on disk, built once, asked many times."""

from geoalign_core.indexing.build import build_index
from geoalign_core.indexing.examples import (
    BoxRows,
    DrawnRows,
    cells_of_place,
    draw_rows,
    rows_in_boxes,
    sample_rows,
)
from geoalign_core.indexing.lock import IndexBusyError
from geoalign_core.indexing.search import LinearQuery, ScoreMap, score_maps
from geoalign_core.indexing.spec import IndexSpec, LevelSpec, plan_index
from geoalign_core.indexing.store import BuildReport, Index, open_index

__all__ = [
    "BoxRows",
    "BuildReport",
    "DrawnRows",
    "Index",
    "IndexBusyError",
    "IndexSpec",
    "LevelSpec",
    "LinearQuery",
    "ScoreMap",
    "build_index",
    "cells_of_place",
    "draw_rows",
    "open_index",
    "plan_index",
    "rows_in_boxes",
    "sample_rows",
    "score_maps",
]
