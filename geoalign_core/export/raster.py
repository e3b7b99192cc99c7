"""Heatmaps and class maps as Cloud Optimized GeoTIFFs with statistics, overviews and their own description."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.export.colors import class_colors
from geoalign_core.export.failures import writing
from geoalign_core.export.style import classes_qml, heatmap_qml
from tiling.cog import Cog, write_cog
from tiling.errors import UsageError
from tiling.files import atomic_file, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from rasterio import Affine
    from rasterio.crs import CRS

__all__ = ["class_colors", "write_classes", "write_heatmap"]

_STRIP_PX = 512
MAX_CLASSES = 255


def write_heatmap(
    path: str | Path,
    heat: NDArray[np.float32],
    *,
    transform: Affine,
    crs: CRS | None,
    tags: Mapping[str, str],
    threshold: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a heatmap as a Cloud Optimized GeoTIFF.

    Nodata is NaN: no reader can take it for a score, averages skip it, and QGIS draws it transparent. The band
    carries exact statistics and the question as its description. Besides ``heat`` (which may be a memory map),
    memory is one strip of 512 rows and GDAL's block cache; the disk holds an uncompressed copy for a while.

    Args:
        path: The target, by convention with suffix ``.tif``.
        heat: (H, W) float32, 0..1, NaN where there is no data.
        transform: Heatmap pixels to map coordinates.
        crs: The coordinate system, or None in pixel mode.
        tags: Dataset tags, such as ``query``, ``model``, ``threshold``; the one
            named ``query`` (or ``GEOALIGN_QUERY``) also becomes the band's description.
        threshold: When given, a QGIS style that is transparent below it is written beside the raster as
            ``<name>.qml``.
        overwrite: Whether files that are already there may be replaced.

    Raises:
        UsageError: ``heat`` is not a plane with at least one pixel.
        OutputExistsError: A target exists and ``overwrite`` is false.
        OutputWriteError: The disk refuses.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    if threshold is not None:
        refuse_existing(target.with_suffix(".qml"), overwrite=overwrite)
    _check_plane(heat, target)
    band_tags = _statistics(heat)
    height_px, width_px = heat.shape
    cog = Cog(
        width_px, height_px, 1, "float32", transform, crs, math.nan, tags=tags, band_tags=band_tags,
        descriptions=_question(tags),
    )  # fmt: skip
    write_cog(target, cog, _blocks(heat, cog), overwrite=overwrite)
    if threshold is not None:
        _write_text(target.with_suffix(".qml"), heatmap_qml(threshold), overwrite=overwrite)
    return target


def write_classes(
    path: str | Path,
    classes: NDArray[np.uint8],
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]] | None = None,
    *,
    transform: Affine,
    crs: CRS | None,
    tags: Mapping[str, str],
    overwrite: bool = False,
) -> Path:
    """Write a land-cover map as a Cloud Optimized GeoTIFF with a colour table and class names.

    GeoTIFF has no place of its own for class names. They are kept twice: inside the file as tags (``CLASS_NAMES``
    of the dataset, a JSON list in the order of the values; ``CLASS_1`` … of the band), and in GDAL's sidecar
    ``<name>.tif.aux.xml`` as category names. ``<name>.qml`` gives QGIS a legend of just these classes. A kill
    between the files leaves a complete raster that lacks the other two.

    Args:
        path: The target, by convention with suffix ``.tif``.
        classes: (H, W) uint8, 0 = no data, k = ``names[k - 1]``.
        names: One name per class, at most 255.
        colors: RGB 0..255 per class; by default :func:`class_colors`.
        transform: Pixels to map coordinates.
        crs: The coordinate system, or None in pixel mode.
        tags: Dataset tags.
        overwrite: Whether files that are already there may be replaced.

    Raises:
        UsageError: There are more than 255 names, names and colours differ in number, or a pixel has no name.
        OutputExistsError: A target exists and ``overwrite`` is false.
        OutputWriteError: The disk refuses.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    sidecar = target.with_name(target.name + ".aux.xml")
    for companion in (sidecar, target.with_suffix(".qml")):
        refuse_existing(companion, overwrite=overwrite)
    _check_plane(classes, target)
    palette = class_colors(len(names)) if colors is None else list(colors)
    _check_classes(classes, names, palette, target)
    band_tags = {f"CLASS_{value}": name for value, name in enumerate(names, start=1)}
    height_px, width_px = classes.shape
    cog = Cog(
        width_px, height_px, 1, "uint8", transform, crs, 0, resampling="MODE", has_predictor=False,
        colormap={0: (0, 0, 0, 0), **{k: (*color, 255) for k, color in enumerate(palette, start=1)}},
        tags={**tags, "CLASS_NAMES": json.dumps(list(names), ensure_ascii=False)}, band_tags=band_tags,
        descriptions=_question(tags),
    )  # fmt: skip
    write_cog(target, cog, _blocks(classes, cog), overwrite=overwrite)
    _write_text(sidecar, _category_xml(names), overwrite=overwrite)
    _write_text(target.with_suffix(".qml"), classes_qml(names, palette), overwrite=overwrite)
    return target


def _question(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the question as the description of the only band, if there is one."""
    return tuple(value for name, value in tags.items() if name.lower() in {"query", "geoalign_query"} and value)[:1]


def _check_plane(array: NDArray[Any], target: Path) -> None:
    if array.ndim != 2 or 0 in array.shape:
        raise UsageError("a raster needs rows and columns", path=target, measured=f"shape {array.shape}")


def _check_classes(
    classes: NDArray[np.uint8], names: Sequence[str], colors: Sequence[tuple[int, int, int]], target: Path
) -> None:
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(
            "a class map holds 1 to 255 classes", path=target, measured=f"{len(names)} names", remedy="ask for fewer"
        )
    if len(colors) != len(names):
        raise UsageError(
            "each class needs one colour", path=target, measured=f"{len(names)} names, {len(colors)} colours"
        )
    highest = max(int(classes[rows].max()) for rows in _strips(classes.shape[0]))
    if highest > len(names):
        raise UsageError("a pixel has no class name", path=target, measured=f"value {highest}, {len(names)} names")


def _strips(height_px: int) -> Iterator[slice]:
    for row in range(0, height_px, _STRIP_PX):
        yield slice(row, min(row + _STRIP_PX, height_px))


def _statistics(heat: NDArray[np.float32]) -> dict[str, str]:
    """Return GDAL's statistics tags, exact, in two passes over strips; none when no pixel is valid."""
    count, total, low, high = 0, 0.0, math.inf, -math.inf
    for rows in _strips(heat.shape[0]):
        values = heat[rows][~np.isnan(heat[rows])].astype(np.float64)
        if values.size:
            count, total = count + values.size, total + float(values.sum())
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    percent = f"{100 * count / heat.size:.4g}"
    if not count:
        return {"STATISTICS_VALID_PERCENT": percent}
    mean = total / count
    squares = 0.0
    for rows in _strips(heat.shape[0]):
        values = heat[rows][~np.isnan(heat[rows])].astype(np.float64)
        squares += float(np.square(values - mean).sum())
    return {
        "STATISTICS_MINIMUM": f"{low:.9g}",
        "STATISTICS_MAXIMUM": f"{high:.9g}",
        "STATISTICS_MEAN": f"{mean:.9g}",
        "STATISTICS_STDDEV": f"{math.sqrt(squares / count):.9g}",
        "STATISTICS_VALID_PERCENT": percent,
    }


def _blocks(array: NDArray[Any], cog: Cog) -> Iterator[tuple[NDArray[Any], None]]:
    for place in cog.blocks:
        rows, cols = slice(place.row_off_px, place.row_end_px), slice(place.col_off_px, place.col_end_px)
        yield array[None, rows, cols], None


def _category_xml(names: Sequence[str]) -> str:
    root = ET.Element("PAMDataset")
    categories = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in ("no data", *names):
        ET.SubElement(categories, "Category").text = name
    ET.indent(root, "  ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _write_text(path: Path, text: str, *, overwrite: bool) -> None:
    with atomic_file(path, overwrite=overwrite) as temporary, writing(path):
        temporary.write_text(text, encoding="utf-8")
