"""Cells: the pieces in which a canvas is read, laid so that each compressed block is decoded once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiling.errors import UnsupportedRasterError
from tiling.resample import plan_taps, resample, result_type
from tiling.source import SourceRect, overview_block, overview_size, read_source, sample_dtype

if TYPE_CHECKING:
    import numpy as np
    import rasterio
    from numpy.typing import NDArray

    from tiling.canvas import Canvas
    from tiling.grid import Window
    from tiling.raster import Raster

_CELL_PX = 512
_SOURCE_SIDE_PX = 2048
_STRIP_PX = 4 * 2**20
_MAX_SCALE = 4096


@dataclass(frozen=True, slots=True)
class CellLayout:
    """A lattice of cells over the part of a canvas that lies on the raster."""

    width_px: int
    """Canvas columns on the raster."""
    height_px: int
    cell_width_px: int
    cell_height_px: int
    overview: int
    scale_x: float
    """Pixels of the overview per canvas pixel."""
    scale_y: float
    source_width_px: int
    """Size of the overview."""
    source_height_px: int

    @property
    def is_native(self) -> bool:
        """Whether canvas pixels are pixels of the overview."""
        return self.scale_x == self.scale_y == 1

    @property
    def cell_px(self) -> int:
        """Pixels of a whole cell."""
        return self.cell_width_px * self.cell_height_px

    def clip_cols(self, start: int, stop: int) -> tuple[int, int]:
        """Return the columns on the raster of a span; the nearest one when there is none."""
        return _clip(start, stop, self.width_px)

    def clip_rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return the rows on the raster of a span; the nearest one when there is none."""
        return _clip(start, stop, self.height_px)

    def keys(self, window: Window) -> list[tuple[int, int]]:
        """Return the (row, column) of the cells that a window needs."""
        col0, col1 = self.clip_cols(window.col_off_px, window.col_end_px)
        row0, row1 = self.clip_rows(window.row_off_px, window.row_end_px)
        rows = range(row0 // self.cell_height_px, (row1 - 1) // self.cell_height_px + 1)
        cols = range(col0 // self.cell_width_px, (col1 - 1) // self.cell_width_px + 1)
        return [(row, col) for row in rows for col in cols]

    def bounds(self, key: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the first row, first column, end row and end column of a cell, in canvas pixels."""
        top, left = key[0] * self.cell_height_px, key[1] * self.cell_width_px
        bottom, right = min(top + self.cell_height_px, self.height_px), min(left + self.cell_width_px, self.width_px)
        return top, left, bottom, right


def _clip(start: int, stop: int, length: int) -> tuple[int, int]:
    low = min(max(start, 0), length - 1)
    return low, max(low + 1, min(stop, length))


def lay_cells(raster: Raster, canvas: Canvas) -> CellLayout:
    """Choose cells of about 512 pixels that follow tiles, or bands of full width for files in strips.

    Raises:
        UnsupportedRasterError: The canvas is coarser by thousands and there are no overviews to read it from.
    """
    width, height = overview_size(raster, canvas.overview)
    scale_x = canvas.scale_x * width / raster.info.width_px
    scale_y = canvas.scale_y * height / raster.info.height_px
    scale_x, scale_y = (1.0 if abs(scale - 1) < 1e-12 else scale for scale in (scale_x, scale_y))
    if max(scale_x, scale_y) > _MAX_SCALE:
        raise UnsupportedRasterError(
            "is far too fine for this ground resolution and has no overviews",
            path=raster.path,
            measured=f"{max(scale_x, scale_y):.0f} source pixels per pixel",
            remedy="add overviews with gdaladdo",
        )
    block = overview_block(raster, canvas.overview)
    columns = min(canvas.width_px, max(1, math.ceil(canvas.raster_width_px - 1e-3)))
    rows = min(canvas.height_px, max(1, math.ceil(canvas.raster_height_px - 1e-3)))
    if block.width_px >= width > _CELL_PX:
        cell_width = columns
        fitting = _STRIP_PX / (width * scale_y)
        cell_height = _multiple(min(fitting, _CELL_PX), block.height_px if scale_y == 1 else 1)
    else:
        cell_width = _side(scale_x, block.width_px)
        cell_height = _side(scale_y, block.height_px)
    return CellLayout(
        width_px=columns,
        height_px=rows,
        cell_width_px=min(cell_width, columns),
        cell_height_px=min(cell_height, rows),
        overview=canvas.overview,
        scale_x=scale_x,
        scale_y=scale_y,
        source_width_px=width,
        source_height_px=height,
    )


def _side(scale: float, block_px: int) -> int:
    if scale == 1:
        return _multiple(_CELL_PX, block_px)
    return max(1, min(2 * _CELL_PX, int(_SOURCE_SIDE_PX / scale)))


def _multiple(wanted: float, block_px: int) -> int:
    return max(1, int(wanted) // block_px) * block_px if block_px > 1 else max(1, int(wanted))


def read_cell(
    raster: Raster,
    layout: CellLayout,
    key: tuple[int, int],
    indexes: tuple[int, ...],
    *,
    palette: bool,
    room: NDArray[np.uint8] | None = None,
    dataset: rasterio.DatasetReader | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read one cell at the canvas's resolution: (C, h, w) samples and (h, w) validity or None.

    Samples that need no resampling are read into ``room``, flat memory, when they fit.

    Raises:
        RasterReadError: The file is damaged there.
    """
    top, left, bottom, right = layout.bounds(key)
    if layout.is_native:
        rect = SourceRect(left, top, right - left, bottom - top)
        return read_source(raster, indexes, rect, overview=layout.overview, palette=palette, room=room, dataset=dataset)
    rows = plan_taps(top, bottom, layout.scale_y, layout.source_height_px)
    cols = plan_taps(left, right, layout.scale_x, layout.source_width_px)
    rect = SourceRect(cols.first, rows.first, cols.count, rows.count)
    array, valid = read_source(raster, indexes, rect, overview=layout.overview, palette=palette, dataset=dataset)
    return resample(array, valid, rows, cols)


def cell_dtype(raster: Raster, layout: CellLayout) -> np.dtype[Any]:
    """Return the type of a cell's samples: the file's own, or floating point after resampling."""
    kind = sample_dtype(raster)
    return kind if layout.is_native else result_type(kind)
