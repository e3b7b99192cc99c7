"""Rectangles of source pixels with their validity: the one place where pixels are read from a file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from tiling.errors import RasterReadError
from tiling.info import BlockShape
from tiling.raster import gdal_env

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rasterio
    from numpy.typing import NDArray

    from tiling.raster import Raster

_LEAST_CACHE_BYTES = 8 * 2**20
_READERS = max(2, os.cpu_count() or 2)


@dataclass(frozen=True, slots=True)
class SourceRect:
    """Whole pixels of the raster at one overview, all inside it."""

    col_px: int
    row_px: int
    width_px: int
    height_px: int


def read_source(
    raster: Raster,
    indexes: Sequence[int],
    rect: SourceRect,
    *,
    overview: int = 1,
    palette: bool = False,
    room: NDArray[np.uint8] | None = None,
    dataset: rasterio.DatasetReader | None = None,
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
        room: Flat memory that the samples are read into when they fit.
        dataset: A handle on that overview; None takes this thread's own.

    Returns:
        (C, h, w) samples and (h, w) validity, None when all are valid.

    Raises:
        RasterReadError: The file is cut off or damaged there.
    """
    window = RasterioWindow(rect.col_px, rect.row_px, rect.width_px, rect.height_px)
    dataset = dataset or raster.handle(overview)
    with gdal_env(_cache_bytes(raster, dataset, rect)):
        try:
            array = dataset.read(list(indexes), window=window, out=_shaped(room, raster, len(indexes), rect))
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


def open_handles(raster: Raster, overview: int, count: int) -> list[rasterio.DatasetReader]:
    """Open handles for threads to come, which the caller closes.

    Opened by a new thread, each would set up PROJ for it first, ten times the work of the opening itself.

    Raises:
        RasterOpenError: The file cannot be opened any more, or the raster is closed.
    """
    raster.handle(overview)
    with gdal_env():
        return [raster.open_level(overview) for _ in range(count)]


def overview_size(raster: Raster, overview: int) -> tuple[int, int]:
    """Return (width, height) in pixels of an overview."""
    if overview == 1:
        return raster.info.width_px, raster.info.height_px
    dataset = raster.handle(overview)
    return dataset.width, dataset.height


def sample_dtype(raster: Raster) -> np.dtype[Any]:
    """Return the type that samples are read as; rasterio's ``complex_int16`` is no name of numpy's."""
    return np.dtype("complex64" if raster.info.dtype == "complex_int16" else raster.info.dtype)


def overview_block(raster: Raster, overview: int) -> BlockShape:
    """Return the size of one compressed block of an overview."""
    return raster.info.block_px if overview == 1 else BlockShape(*raster.handle(overview).block_shapes[0])


def _cache_bytes(raster: Raster, dataset: rasterio.DatasetReader, rect: SourceRect) -> int:
    """Return the block cache for as many threads as run at once, each with the blocks of such a rectangle.

    Blocks are decoded for all bands together. Handles share none, so a larger cache would only be memory; a virtual
    raster's rectangles do share the blocks of its files.
    """
    if raster.info.driver == "VRT":
        return raster.cache_bytes
    height, width = dataset.block_shapes[0]
    rows, cols = _blocks(rect.row_px, rect.height_px, height), _blocks(rect.col_px, rect.width_px, width)
    touched = rows * height * cols * width * (dataset.count + 1) * sample_dtype(raster).itemsize
    return min(raster.cache_bytes, max(_LEAST_CACHE_BYTES, _READERS * touched))


def _blocks(start: int, length: int, block_px: int) -> int:
    return (start + length - 1) // block_px - start // block_px + 1


def _shaped(room: NDArray[np.uint8] | None, raster: Raster, channels: int, rect: SourceRect) -> NDArray[Any] | None:
    kind, shape = sample_dtype(raster), (channels, rect.height_px, rect.width_px)
    size = math.prod(shape) * kind.itemsize
    return None if room is None or size > room.nbytes else room[:size].view(kind).reshape(shape)


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
