"""Where a raster holds pixels, told from an overview or from the file's block table before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tiling.source import SourceRect, overview_size, read_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiling.canvas import Canvas
    from tiling.grid import Window
    from tiling.raster import Raster

MAX_CELLS = 16 * 2**20
_STRIP_CELLS = 2**20
_MIN_WINDOW_CELLS = 8


@dataclass(frozen=True, slots=True)
class Coverage:
    """A coarse map of where the raster may hold valid pixels; it rules out, it never rules in."""

    sums: NDArray[np.int64]
    """(rows + 1, cols + 1) summed-area table of cells that may hold valid pixels."""
    cell_width_px: float
    """Width of a cell in canvas pixels."""
    cell_height_px: float
    told_by: str
    """``overview 1:8`` or ``block table``."""

    def at_most(self, window: Window) -> float:
        """Return an upper bound of the share of a window's pixels that are valid."""
        rows, cols = self.sums.shape[0] - 1, self.sums.shape[1] - 1
        left = min(cols, math.floor(window.col_off_px / self.cell_width_px))
        right = min(cols, math.ceil(window.col_end_px / self.cell_width_px))
        top = min(rows, math.floor(window.row_off_px / self.cell_height_px))
        bottom = min(rows, math.ceil(window.row_end_px / self.cell_height_px))
        sums = self.sums
        cells = int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])
        area = cells * self.cell_width_px * self.cell_height_px
        return min(1.0, area / (window.width_px * window.height_px))


def survey(raster: Raster, canvas: Canvas, indexes: tuple[int, ...], tile_px: int) -> Coverage | None:
    """Survey where a raster may hold valid pixels, without reading it at full resolution.

    An overview on which a tile is at least 8 cells wide and that has at most 16 million cells is read strip by
    strip; cells beside a valid one count as valid, because overviews may lose thin parts. Without such an overview
    the block table of a sparse GeoTIFF tells which blocks were never written.

    Args:
        raster: The open raster.
        canvas: The canvas of the windows to come.
        indexes: The bands that will be read.
        tile_px: Side of a window, in canvas pixels.

    Returns:
        The coverage; None when every pixel is valid by its format, or when only reading can tell.

    Raises:
        RasterReadError: The overview is damaged.
    """
    info = raster.info
    may_be_empty = info.alpha_band is not None or info.has_mask or "float" in info.dtype
    if not may_be_empty and any(info.band_nodata[index - 1] is None for index in indexes):
        return None
    source_tile_px = tile_px * min(canvas.scale_x, canvas.scale_y)
    for factor in sorted(info.overviews, reverse=True):
        width, height = overview_size(raster, factor)
        if source_tile_px / factor >= _MIN_WINDOW_CELLS and width * height <= MAX_CELLS:
            grown = _grown(_read(raster, indexes, factor, width, height))
            return _coverage(grown, canvas, f"overview 1:{factor}")
    written = _written_blocks(raster, indexes)
    if written is None:
        return None
    block = info.block_px
    sums = _summed(written)
    return Coverage(sums, block.width_px / canvas.scale_x, block.height_px / canvas.scale_y, "block table")


def _coverage(cells: NDArray[np.bool_], canvas: Canvas, told_by: str) -> Coverage:
    rows, cols = cells.shape
    return Coverage(_summed(cells), canvas.raster_width_px / cols, canvas.raster_height_px / rows, told_by)


def _summed(cells: NDArray[np.bool_]) -> NDArray[np.int64]:
    sums = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1), np.int64)
    np.cumsum(cells, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    return sums


def _read(raster: Raster, indexes: tuple[int, ...], factor: int, width: int, height: int) -> NDArray[np.bool_]:
    valid = np.ones((height, width), np.bool_)
    step = max(1, _STRIP_CELLS // width)
    for top in range(0, height, step):
        rows = min(step, height - top)
        _, good = read_source(raster, indexes, SourceRect(0, top, width, rows), overview=factor)
        if good is not None:
            valid[top : top + rows] = good
    return valid


def _grown(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(cells, np.ones((3, 3), np.bool_)))


def _written_blocks(raster: Raster, indexes: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return which blocks of a GeoTIFF lie in the file; a block that does not is nodata or transparent."""
    info = raster.info
    block = info.block_px
    rows, cols = math.ceil(info.height_px / block.height_px), math.ceil(info.width_px / block.width_px)
    by_nodata = info.alpha_band is None and not info.has_mask
    if info.driver != "GTiff" or info.has_mask or rows * cols > MAX_CELLS:
        return None
    if by_nodata and any(info.band_nodata[index - 1] is None for index in indexes):
        return None
    dataset = raster.handle()
    band = indexes[0] if info.alpha_band is None else info.alpha_band

    def offsets() -> Iterator[bool]:
        for row in range(rows):
            for col in range(cols):
                yield dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is not None

    written = np.fromiter(offsets(), np.bool_, rows * cols).reshape(rows, cols)
    return None if written.all() else written
