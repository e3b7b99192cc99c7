"""A Shapefile: several files that must appear together, narrow texts, short names and a hard limit of 2 GB."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import numpy as np

from geoalign_core.export.failures import writing
from geoalign_core.export.frames import cut_utf8, short_names
from geoalign_core.export.vector import write_layer
from tiling.errors import UsageError
from tiling.files import atomic_folder, fsync_path, refuse_existing, write_error

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame

TEXT_BYTES = 254
"""Longest text of a dBASE field."""

PART_LIMIT_BYTES = 2**31 - 1
"""Longest .shp or .dbf that every reader opens."""

_PARTS = (".shx", ".dbf", ".cpg", ".prj", ".shp")
_DERIVED = (".qix", ".sbn", ".sbx", ".qpj", ".shp.xml")


def write_shapefile(target: Path, frame: GeoDataFrame, *, overwrite: bool = False) -> Path:
    """Write one layer as a Shapefile with ``.cpg``; ``.shp`` takes its name last.

    When the writer is killed, ``.shp`` is the old one, is missing, or is complete with all its parts; it never
    stands beside parts of another file. Texts are cut to 254 bytes between characters.

    Args:
        target: The ``.shp`` file.
        frame: With a schema from :func:`~geoalign_core.export.frames.with_schema`.
        overwrite: Whether files that are already there may be replaced.

    Raises:
        UsageError: The file would exceed 2 GB.
        OutputExistsError: A part exists and ``overwrite`` is false.
        OutputWriteError: The disk or the format refuses.
    """
    for suffix in _PARTS:
        refuse_existing(target.with_suffix(suffix), overwrite=overwrite)
    narrow = _narrow(frame)
    size = estimate_bytes(narrow)
    if size > PART_LIMIT_BYTES:
        raise UsageError(
            "a Shapefile cannot hold this many answers", path=target,
            measured=f"about {size / 1e9:.1f} GB, limit 2.1 GB",
            remedy="use .gpkg",
        )  # fmt: skip
    with atomic_folder(target.parent, prefix=f".{target.name}.") as folder, writing(target):
        temporary = folder / target.name
        write_layer(temporary, narrow, driver="ESRI Shapefile", layer=target.stem)
        _publish(temporary, target)
    return target


def estimate_bytes(frame: GeoDataFrame) -> int:
    """Return the size of the larger of ``.shp`` and ``.dbf``, rounded up.

    Args:
        frame: With names and texts that already fit.
    """
    import shapely

    geometry = frame.geometry.to_numpy()
    points = int(shapely.get_num_coordinates(geometry).sum())
    rings = int(shapely.get_num_interior_rings(shapely.get_parts(geometry)).sum()) + len(shapely.get_parts(geometry))
    shp = 100 + 52 * len(frame) + 4 * rings + 16 * points
    row = 1
    for name in frame.columns.drop(frame.geometry.name):
        if frame[name].dtype.kind in "iufb":
            row += 24
        else:
            row += max([80, *(len(str(text).encode()) for text in frame[name])])
    return max(shp, 65536 + row * len(frame))


def _narrow(frame: GeoDataFrame) -> GeoDataFrame:
    """Return the frame with short column names and texts that fit."""
    columns = [name for name in frame.columns if name != frame.geometry.name]
    frame = frame.rename(columns=short_names(columns))
    for name in frame.columns.drop(frame.geometry.name):
        if frame[name].dtype.kind not in "iufbM":
            frame[name] = frame[name].map(lambda text: cut_utf8(text, TEXT_BYTES) if isinstance(text, str) else text)
    return frame.replace({np.inf: np.nan, -np.inf: np.nan})


def _publish(temporary: Path, target: Path) -> None:
    """Move the parts to their place: first take the old ``.shp`` away, at the end put the new one there."""
    parts = [suffix for suffix in _PARTS if temporary.with_suffix(suffix).exists()]
    for suffix in parts:
        fsync_path(temporary.with_suffix(suffix))
    try:
        target.unlink(missing_ok=True)
        for suffix in (*_PARTS, *_DERIVED):
            if suffix not in parts:
                target.with_suffix(suffix).unlink(missing_ok=True)
        for suffix in parts:
            os.replace(temporary.with_suffix(suffix), target.with_suffix(suffix))  # noqa: PTH105
        with contextlib.suppress(OSError):
            fsync_path(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
