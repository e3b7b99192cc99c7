"""The table of answers: its columns, their types, and how it is made fit for narrow formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

COLUMNS: dict[str, str] = {
    "query": "str",
    "score": "float64",
    "rank": "int32",
    "area_m2": "float64",
    "gsd_m": "float64",
    "model": "str",
}
"""Name and type of each column besides ``geometry``; every name fits the ten characters of a Shapefile."""
PRECISION = "precision"
"""A column that only answers of a calibrated model have, float64, beside the score."""


def with_schema(frame: GeoDataFrame) -> GeoDataFrame:
    """Return a copy whose known columns have their types; an empty frame gets all of them.

    Columns that :data:`COLUMNS` does not name pass unchanged. The index is dropped.

    Args:
        frame: Answers, or anything else with a geometry column.
    """
    frame = frame.reset_index(drop=True)
    if frame.empty:
        for name in COLUMNS:
            if name not in frame.columns:
                frame[name] = np.empty(0)
    order = [name for column in COLUMNS for name in ((column, PRECISION) if column == "score" else (column,))]
    for name, kind in {**COLUMNS, PRECISION: "float64"}.items():
        if name in frame.columns:
            frame[name] = frame[name].astype(kind)
    known = [name for name in order if name in frame.columns]
    other = [name for name in frame.columns if name not in order and name != frame.geometry.name]
    return frame[[*known, *other, frame.geometry.name]]


def polygon_type(frame: GeoDataFrame) -> str | None:
    """Return the one geometry type under which all polygons of the frame can be stored.

    Returns:
        ``"Polygon"``, ``"MultiPolygon"`` or, when other kinds are among them, None.
    """
    kinds = set(frame.geometry.geom_type.dropna())
    if kinds <= {"Polygon"}:
        return "Polygon"
    return "MultiPolygon" if kinds <= {"Polygon", "MultiPolygon"} else None


def encoded_bytes(frame: GeoDataFrame) -> int:
    """Return about how much disk the frame takes in a plain binary encoding."""
    import shapely

    return 16 * int(shapely.get_num_coordinates(frame.geometry.to_numpy()).sum()) + 64 * len(frame)


def short_names(names: list[str], *, limit: int = 10) -> dict[str, str]:
    """Map column names to unique names of at most ``limit`` bytes, keeping those that fit.

    Args:
        names: Unique column names.
        limit: Longest name in UTF-8 bytes; a Shapefile allows 10.
    """
    result = {name: name for name in names if len(name.encode()) <= limit}
    taken = {name.lower() for name in result}
    for name in names:
        if name in result:
            continue
        candidate, number = cut_utf8(name, limit), 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{cut_utf8(name, limit - 1 - len(str(number)))}_{number}"
        result[name] = candidate
        taken.add(candidate.lower())
    return result


def cut_utf8(text: str, limit: int) -> str:
    """Return the longest start of ``text`` that takes at most ``limit`` bytes in UTF-8, never half a character."""
    data = text.encode("utf-8", errors="replace")
    return data.decode() if len(data) <= limit else data[:limit].decode("utf-8", errors="ignore")
