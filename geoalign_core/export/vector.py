"""Boxes and regions as vector files; the suffix chooses the format.

Every file appears whole or not at all, is read back before it takes its name, and states its own schema even when
nothing was found.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from geoalign_core.export.failures import writing
from geoalign_core.export.frames import encoded_bytes, polygon_type, with_schema
from tiling.errors import UsageError
from tiling.files import atomic_file, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geopandas import GeoDataFrame

VECTOR_SUFFIXES: tuple[str, ...] = (".gpkg", ".shp", ".geojson", ".fgb", ".parquet")
"""Suffixes that :func:`write_vector` understands: GeoPackage, Shapefile, GeoJSON, FlatGeobuf, GeoParquet."""


def write_vector(path: str | Path, layers: Mapping[str, GeoDataFrame], *, overwrite: bool = False) -> Path:
    """Write answers to a vector file in the format that the suffix names.

    A GeoPackage holds all layers, each with its QGIS style. The other formats hold one layer: the first one given.
    GeoJSON is written as RFC 7946 asks (longitude and latitude on WGS 84, split at 180°); every other format keeps
    the coordinate system of the frame, or states none when the frame has none. Memory is that of the frames and
    one encoded copy of the layer being written.

    Args:
        path: The target; its suffix is one of :data:`VECTOR_SUFFIXES`.
        layers: Frames by layer name, such as ``{"boxes": ..., "polygons": ...}``. Columns are those of
            :data:`geoalign_core.export.frames.COLUMNS`; others pass unchanged.
        overwrite: Whether a file that is already there may be replaced.

    Returns:
        The path written.

    Raises:
        UsageError: The suffix is unknown or ``layers`` is empty.
        NotGeoreferencedError: GeoJSON is asked for a frame without a coordinate system.
        OutputExistsError: The target exists and ``overwrite`` is false.
        OutputWriteError: The disk or the format refuses.
    """
    target = Path(path)
    suffix = check_suffix(target)
    if not layers:
        raise UsageError("there is no layer to write", path=target)
    refuse_existing(target, overwrite=overwrite)
    frames = {name: with_schema(frame) for name, frame in layers.items()}
    name, frame = next(iter(frames.items()))
    if suffix == ".shp":
        from geoalign_core.export.shapefile import write_shapefile

        return write_shapefile(target, frame, overwrite=overwrite)
    if suffix == ".geojson":
        from geoalign_core.export.geojson import to_lonlat

        frame = to_lonlat(frame, path=target)
    needed_bytes = sum(map(encoded_bytes, frames.values()))
    with atomic_file(target, overwrite=overwrite) as temporary, writing(target, needed_bytes=needed_bytes):
        if suffix == ".gpkg":
            from geoalign_core.export.geopackage import fill_geopackage, remove_journals

            fill_geopackage(temporary, frames)
            remove_journals(target)
        elif suffix == ".parquet":
            frame.to_parquet(
                temporary, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0"
            )
        elif suffix == ".geojson":
            options = {"RFC7946": "YES", "COORDINATE_PRECISION": "7", "SIGNIFICANT_FIGURES": "7", "ID_GENERATE": "NO"}
            write_layer(temporary, frame, driver="GeoJSON", layer=name, options=options)
        else:
            write_layer(temporary, frame, driver="FlatGeobuf", layer=name, options={"SPATIAL_INDEX": "YES"})
    return target


def check_suffix(path: str | Path) -> str:
    """Return the lower-case suffix of a vector path.

    Raises:
        UsageError: No vector format has this suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in VECTOR_SUFFIXES:
        raise UsageError(
            "no vector format has this suffix",
            path=path,
            measured=suffix or "no suffix",
            remedy=f"use one of {' '.join(VECTOR_SUFFIXES)}",
        )
    return suffix


def write_layer(
    path: Path,
    frame: GeoDataFrame,
    *,
    driver: str,
    layer: str,
    append: bool = False,
    options: Mapping[str, str] | None = None,
) -> None:
    """Write one layer through GDAL and read it back.

    Args:
        path: A temporary file.
        frame: With a schema from :func:`~geoalign_core.export.frames.with_schema`.
        driver: GDAL's name of the format.
        layer: The layer's name.
        append: Whether the file is already there and gets another layer.
        options: Dataset and layer creation options of the driver.

    Raises:
        OSError: Fewer features can be read than were written, as happens on a full disk.
    """
    import pyogrio

    kind = polygon_type(frame)
    with warnings.catch_warnings():
        # A frame without a coordinate system is the documented pixel mode, not an accident.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.write_dataframe(
            frame, path, layer=layer, driver=driver, encoding="UTF-8", append=append, geometry_type=kind,
            promote_to_multi=kind == "MultiPolygon" and driver not in {"GeoJSON", "ESRI Shapefile"}, **(options or {}),
        )  # fmt: skip
        _, _, geometry, _ = pyogrio.raw.read(path, layer=None if driver != "GPKG" else layer, columns=[])
    if len(geometry) != len(frame):
        raise OSError(errno.EIO, f"only {len(geometry)} of {len(frame)} features reached the disk")
