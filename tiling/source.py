"""Rectangles of source pixels with their validity: the one place where pixels are read from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from tiling.errors import RasterReadError
from tiling.raster import gdal_env

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rasterio
    from numpy.typing import NDArray

    from tiling.raster import Raster


@dataclass(frozen=True, slots=True)
class SourceRect:
    """Whole pixels of the raster at one overview, all inside it."""

    col_px: int
    row_px: int
    width_px: int
    height_px: int


def read_source(
    raster: Raster, indexes: Sequence[int], rect: SourceRect, *, overview: int = 1, palette: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read pixels and say which of them are valid.

    A transparency band outranks a mask band, which outranks the nodata value; a pixel whose chosen bands all hold
    nodata is not valid, nor is one that holds a NaN or an infinity in any.

    Args:
        raster: The open raster.
        indexes: One-based bands.
        rect: What to read, in pixels of the overview.
        overview: Reduction factor of the overview, 1 for the full resolution.
        palette: Turn numbers of colours into (3, h, w) colours.

    Returns:
        (C, h, w) samples and (h, w) validity, None when all are valid.

    Raises:
        RasterReadError: The file is cut off or damaged there.
    """
    window = RasterioWindow(rect.col_px, rect.row_px, rect.width_px, rect.height_px)
    with gdal_env(raster.cache_bytes):
        dataset = raster.handle(overview)
        try:
            array = dataset.read(list(indexes), window=window)
            valid = _mask(raster, dataset, window)
        except (RasterioError, OSError, ValueError, MemoryError) as error:
            raise _damaged(raster, rect, overview) from error
    if valid is None:
        valid = _without_nodata(array, [raster.info.band_nodata[index - 1] for index in indexes])
    valid = _without_nan(array, valid)
    if palette and raster.palette is not None:
        array, opaque = _coloured(array[0], raster.palette)
        valid = opaque if valid is None else valid & opaque
    if valid is not None and valid.all():
        valid = None
    return array, valid


def overview_size(raster: Raster, overview: int) -> tuple[int, int]:
    """Return (width, height) in pixels of an overview."""
    if overview == 1:
        return raster.info.width_px, raster.info.height_px
    dataset = raster.handle(overview)
    return dataset.width, dataset.height


def _damaged(raster: Raster, rect: SourceRect, overview: int) -> RasterReadError:
    place = f"columns {rect.col_px}–{rect.col_px + rect.width_px}, rows {rect.row_px}–{rect.row_px + rect.height_px}"
    level = "" if overview == 1 else f" of the overview 1:{overview}"
    return RasterReadError(
        "cannot be decoded, the file is cut off or damaged",
        path=raster.path,
        measured=place + level,
        remedy="get the file again, or repair it with gdal_translate",
    )


def _mask(raster: Raster, dataset: rasterio.DatasetReader, window: RasterioWindow) -> NDArray[np.bool_] | None:
    info = raster.info
    if info.alpha_band is not None:
        return np.asarray(dataset.read(info.alpha_band, window=window) > 0)
    if info.has_mask:
        return np.asarray(dataset.read_masks(1, window=window) > 0)
    return None


def _without_nodata(array: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_] | None:
    if any(value is None for value in nodata):
        return None
    empty: NDArray[np.bool_] | None = None
    for band, value in zip(array, nodata, strict=True):
        here = np.isnan(band) if value is not None and np.isnan(value) else _equal(band, value)
        empty = here if empty is None else empty & here
    return None if empty is None else ~empty


def _equal(band: NDArray[Any], value: float | None) -> NDArray[np.bool_]:
    # float32 samples hold the nearest float32 to a nodata value that was written in decimals.
    if np.issubdtype(band.dtype, np.floating):
        with np.errstate(over="ignore"):
            return np.asarray(band == np.asarray(value).astype(band.dtype))
    return np.asarray(band == value)


def _without_nan(array: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if not np.issubdtype(array.dtype, np.floating):
        return valid
    finite = np.isfinite(array).all(axis=0)
    return finite if valid is None else valid & finite


def _coloured(numbers: NDArray[Any], palette: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    known = np.minimum(numbers, len(palette) - 1).astype(np.intp)
    rgba = palette[known]
    return np.ascontiguousarray(rgba[..., :3].transpose(2, 0, 1)), (rgba[..., 3] > 0) & (numbers < len(palette))
