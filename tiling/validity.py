"""Where a raster holds pixels, told from an overview or from the file's block table before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rasterio.enums import Interleaving

from tiling.errors import RasterReadError
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
_FINEST = 4
_PROBES = 16
_PROBE_PX = 256


@dataclass(frozen=True, slots=True)
class Coverage:
    """A coarse map of where the raster may hold valid pixels: it can rule a window out, never in.

    A block table is exact: what was never written is not valid. An overview is a sample of the raster: it rules out
    only windows around which none of its cells is valid, and could still miss a few pixels that it was made without.
    """

    sums: NDArray[np.int64]
    """(rows + 1, cols + 1) summed-area table of cells that may hold valid pixels."""
    cell_width_px: float
    """Width of a cell in canvas pixels."""
    cell_height_px: float
    told_by: str
    """``overview 1:8`` or ``block table``."""
    counts: bool = False
    """Whether a cell that is not marked holds no valid pixel for sure, so that marked ones bound the valid share."""

    def at_most(self, window: Window) -> float:
        """Return the largest share of a window's pixels that may be valid.

        By a block table that is an upper bound. By an overview it is 1, or 0 where no cell of the overview that
        touches the window or lies beside it is valid.
        """
        rows, cols = self.sums.shape[0] - 1, self.sums.shape[1] - 1
        left = min(cols, math.floor(window.col_off_px / self.cell_width_px))
        right = min(cols, math.ceil(window.col_end_px / self.cell_width_px))
        top = min(rows, math.floor(window.row_off_px / self.cell_height_px))
        bottom = min(rows, math.ceil(window.row_end_px / self.cell_height_px))
        sums = self.sums
        cells = int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])
        if not self.counts:
            return float(cells > 0)
        area = cells * self.cell_width_px * self.cell_height_px
        return min(1.0, area / (window.width_px * window.height_px))


def survey(raster: Raster, canvas: Canvas, indexes: tuple[int, ...], tile_px: int) -> Coverage | None:
    """Survey where a raster may hold valid pixels, without reading it at full resolution.

    An overview is read strip by strip: the finest from 1:4 on that has at most 16 million cells, if a tile is at
    least 8 cells wide on it. 1:2 is the last choice, for to read it costs a quarter of the raster. Overviews may lose
    thin parts, those made by nearest neighbour even every valid column of a regular pattern. So cells beside a valid
    one count as valid, and up to 16 places that the overview calls empty are read at full resolution: one valid pixel
    there, and the overview is not believed. Then the block table of a sparse GeoTIFF tells which blocks were never
    written.

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
    # False sorts before True: 1:2 comes last.
    for factor in sorted(info.overviews, key=lambda factor: (factor < _FINEST, factor)):
        width, height = overview_size(raster, factor)
        if source_tile_px / factor >= _MIN_WINDOW_CELLS and width * height <= MAX_CELLS:
            sums = _summed(_grown(_read(raster, indexes, factor, width, height)))
            if _is_believed(raster, indexes, sums, max(1, int(source_tile_px / factor) // 2)):
                cell = canvas.raster_width_px / width, canvas.raster_height_px / height
                return Coverage(sums, *cell, f"overview 1:{factor}")
            break
    written = _written_blocks(raster, indexes)
    if written is None:
        return None
    block = info.block_px
    # Where pixels are resampled, those of one block also show in the next.
    sums = _summed(written if canvas.is_native else _grown(written))
    cell = block.width_px / canvas.scale_x, block.height_px / canvas.scale_y
    return Coverage(sums, *cell, "block table", counts=True)


def _is_believed(raster: Raster, indexes: tuple[int, ...], sums: NDArray[np.int64], side: int) -> bool:
    """Say whether places that an overview calls empty are so at full resolution, as far as a few of them tell.

    Every whole window without a valid cell contains a square of half its side, of those laid out from the corner.
    """
    info = raster.info
    rows, cols = sums.shape[0] - 1, sums.shape[1] - 1
    tops, lefts = np.arange(0, rows - side + 1, side), np.arange(0, cols - side + 1, side)
    corners = sums[np.ix_(tops, lefts)], sums[np.ix_(tops + side, lefts + side)]
    empty = corners[0] + corners[1] == sums[np.ix_(tops, lefts + side)] + sums[np.ix_(tops + side, lefts)]
    places = np.argwhere(empty)
    cell_width, cell_height = info.width_px / cols, info.height_px / rows
    width, height = (max(1, min(_PROBE_PX, int(side * cell))) for cell in (cell_width, cell_height))
    for index in np.unique(np.linspace(0, len(places) - 1, _PROBES).astype(int)) if len(places) else ():
        row, col = places[index]
        rect = SourceRect(math.ceil(lefts[col] * cell_width), math.ceil(tops[row] * cell_height), width, height)
        try:
            _, good = read_source(raster, indexes, rect)
        except RasterReadError:
            # A damaged place tells nothing, and an empty one is not going to be cut.
            continue
        if good is None or good.any():
            return False
    return True


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
    if info.alpha_band is not None and info.band_nodata[info.alpha_band - 1]:
        # What was never written reads as nodata, which is not transparent unless it is 0.
        return None
    dataset = raster.handle()
    bands = indexes if info.alpha_band is None else (info.alpha_band,)
    if dataset.interleaving == Interleaving.pixel:
        bands = bands[:1]

    def offsets() -> Iterator[bool]:
        for row in range(rows):
            for col in range(cols):
                name = f"BLOCK_OFFSET_{col}_{row}"
                yield any(dataset.get_tag_item(name, "TIFF", bidx=band) is not None for band in bands)

    written = np.fromiter(offsets(), np.bool_, rows * cols).reshape(rows, cols)
    return None if written.all() else written
