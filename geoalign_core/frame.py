"""Answers as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame

    from geoalign_core.answer import Answer

Shape = Literal["box", "polygon"]


def answers_frame(answers: Sequence[Answer], *, model: str, shape: Shape = "box") -> GeoDataFrame:
    """Lay answers out as rows: geometry, query, score, rank, area_m2, gsd_m, model, and precision where it is known.

    Args:
        answers: All on one raster.
        model: Name of the model that gave them.
        shape: Whether the geometry is the region's box or its outline.

    Returns:
        One row per region in the raster's CRS; rank 1 is the best of its query; area_m2 is the outline's true ground
        area (NaN in pixel mode). The column precision is there when one of the answers has a calibration.
    """
    if shape not in ("box", "polygon"):
        raise UsageError("a shape is box or polygon", measured=str(shape))
    from geopandas import GeoDataFrame

    from geoalign_core.export.frames import with_schema

    rows = [
        {
            "query": answer.query,
            "score": region.score,
            "precision": region.precision,
            "rank": rank,
            "area_m2": region.area_m2,
            "gsd_m": answer.gsd_m,
            "model": model,
            "geometry": region.box if shape == "box" else region.polygon,
        }
        for answer in answers
        for rank, region in enumerate(answer.regions, 1)
    ]
    columns = ["query", "score", "precision", "rank", "area_m2", "gsd_m", "model", "geometry"]
    if all(answer.calibration is None for answer in answers):
        columns.remove("precision")
    crs = answers[0].heatmap.crs if answers else None
    return with_schema(GeoDataFrame(rows, columns=columns, geometry="geometry", crs=crs))
