"""Windows over a canvas: pure numbers, never materialised, so a raster of 400,000 × 400,000 costs nothing.

Four rules say what happens where the last window would reach beyond the canvas: ``shift`` moves it back inside,
``pad`` lets it reach out, ``partial`` cuts it, ``drop`` leaves it away. A canvas smaller than a window still
gets one: cut to the canvas under ``shift`` and ``partial``, whole under ``pad`` and ``drop``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

Edge = Literal["shift", "pad", "partial", "drop"]
Unit = Literal["px", "m", "%"]
_LENGTH = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(px|m|%)?\s*")


@dataclass(frozen=True, slots=True)
class Length:
    """A length in pixels, metres or per cent of the tile."""

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Length:
        """Read ``512px``, ``64``, ``100m`` or ``20%``; a bare number is pixels.

        Raises:
            UsageError: The text is not a length.
        """
        match = _LENGTH.fullmatch(text)
        if match is None or not math.isfinite(float(match[1])):
            raise UsageError("is not a length", measured=text, remedy="write 512px, 100m or 20%")
        unit: Unit = match[2] or "px"  # type: ignore[assignment]
        return cls(float(match[1]), unit)

    def to_px(self, *, gsd_m: float | None = None, tile_px: int | None = None) -> int:
        """Return the nearest whole number of pixels.

        Args:
            gsd_m: Metres per pixel, for metres.
            tile_px: The tile's side, for per cent.

        Raises:
            UsageError: The unit needs what was not given.
        """
        if self.unit == "px":
            return round(self.value)
        if self.unit == "m":
            if gsd_m is None:
                raise UsageError("metres are unknown here", measured=str(self), remedy="give the length in px")
            return round(self.value / gsd_m)
        if tile_px is None:
            raise UsageError("per cent of what?", measured=str(self), remedy="give the length in px or m")
        return round(self.value * tile_px / 100)

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of canvas pixels and its place in the grid."""

    col_off_px: int
    row_off_px: int
    width_px: int
    height_px: int
    col: int = 0
    row: int = 0

    @property
    def col_end_px(self) -> int:
        """First column behind the window."""
        return self.col_off_px + self.width_px

    @property
    def row_end_px(self) -> int:
        """First row behind the window."""
        return self.row_off_px + self.height_px

    def scaled(self, patch_px: int) -> Window:
        """Return the window in cells of ``patch_px`` pixels.

        Raises:
            ValueError: The window does not consist of whole cells.
        """
        numbers = (self.col_off_px, self.row_off_px, self.width_px, self.height_px)
        col_off, row_off, width, height = (_exact(number, patch_px) for number in numbers)
        return Window(col_off, row_off, width, height, self.col, self.row)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Square windows laid over a canvas in rows and columns.

    Raises:
        UsageError: A size is not positive, the stride is larger than the tile, or a size is no multiple of the
            snap.
    """

    width_px: int
    height_px: int
    tile_px: int
    stride_px: int
    edge: Edge = "shift"
    snap_px: int = 1

    def __post_init__(self) -> None:
        sizes = (self.width_px, self.height_px, self.tile_px, self.stride_px, self.snap_px)
        shown = f"canvas {self.width_px} × {self.height_px}, tile {self.tile_px}, stride {self.stride_px} px"
        if min(sizes) < 1:
            raise UsageError("every size of a grid is at least one pixel", measured=shown)
        if self.stride_px > self.tile_px:
            raise UsageError("the stride is larger than the tile, which leaves gaps", measured=shown)
        if any(size % self.snap_px for size in sizes):
            raise UsageError(f"sizes must be multiples of {self.snap_px} px", measured=shown)
        if self.edge not in get_args(Edge):
            raise UsageError("unknown edge rule", measured=self.edge, remedy=f"use {', '.join(get_args(Edge))}")

    @classmethod
    def lay(
        cls,
        width_px: int,
        height_px: int,
        tile: Length,
        overlap: Length,
        *,
        gsd_m: float | None = None,
        edge: Edge = "shift",
        snap_px: int = 1,
    ) -> TileGrid:
        """Lay a grid from lengths; the tile and the stride become multiples of ``snap_px`` of at least one.

        Raises:
            UsageError: The overlap is not smaller than the tile, or a length cannot be told in pixels.
        """
        tile_px = max(1, round(tile.to_px(gsd_m=gsd_m) / snap_px)) * snap_px
        overlap_px = overlap.to_px(gsd_m=gsd_m, tile_px=tile_px)
        if overlap_px >= tile_px:
            raise UsageError(
                "the overlap must be smaller than the tile", measured=f"overlap {overlap_px}, tile {tile_px} px"
            )
        stride_px = max(1, (tile_px - overlap_px) // snap_px) * snap_px
        return cls(width_px, height_px, tile_px, stride_px, edge, snap_px)

    @property
    def cols(self) -> int:
        """Number of windows side by side."""
        return self._count(self.width_px)

    @property
    def rows(self) -> int:
        """Number of windows one below the other."""
        return self._count(self.height_px)

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Window]:
        for row in range(self.rows):
            for col in range(self.cols):
                yield self.window(row, col)

    def __getitem__(self, index: int) -> Window:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.window(*divmod(index % len(self), self.cols))

    def window(self, row: int, col: int) -> Window:
        """Return the window at a place of the grid.

        Raises:
            IndexError: There is no such place.
        """
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise IndexError((row, col))
        col_off, width = self._span(col, self.cols, self.width_px)
        row_off, height = self._span(row, self.rows, self.height_px)
        return Window(col_off, row_off, width, height, col, row)

    def overlaps_px(self, row: int, col: int) -> tuple[int, int, int, int]:
        """Return how far a window overlaps its left, right, upper and lower neighbour; 0 at the outer edge."""
        return (
            *self._shared(col, self.cols, self.width_px),
            *self._shared(row, self.rows, self.height_px),
        )

    def scaled(self, patch_px: int) -> TileGrid:
        """Return the same grid in cells of ``patch_px`` pixels.

        Raises:
            ValueError: A size is not made of whole cells.
        """
        sizes = (self.width_px, self.height_px, self.tile_px, self.stride_px)
        snap = self.snap_px // patch_px if self.snap_px % patch_px == 0 else 1
        width, height, tile, stride = (_exact(size, patch_px) for size in sizes)
        return TileGrid(width, height, tile, stride, self.edge, snap)

    def blocks(
        self, block_px: int, within: tuple[float, float, float, float] | None = None
    ) -> Iterator[tuple[range, range]]:
        """Yield (rows, cols) of windows grouped into neighbourhoods of about ``block_px``, in row-major order.

        Walking a wide canvas block by block keeps what is read close together.

        Args:
            block_px: Side of a neighbourhood.
            within: First column and row, end column and row in canvas pixels; windows that are surely beside that
                rectangle are passed over. The others come in the same order as without it.
        """
        side = max(1, block_px // self.stride_px)
        all_rows, all_cols = range(self.rows), range(self.cols)
        if within is not None:
            col_min, row_min, col_max, row_max = within
            all_rows = self._near(row_min, row_max, self.rows)
            all_cols = self._near(col_min, col_max, self.cols)
        for rows in _chunks(all_rows, side):
            for cols in _chunks(all_cols, side):
                yield rows, cols

    def edges(self, rows: range, cols: range) -> NDArray[np.int64]:
        """Return (N, 4): first column and row, end column and row of windows, in row-major order."""
        import numpy as np

        tops = np.array([self._span(row, self.rows, self.height_px) for row in rows], np.int64).reshape(-1, 2)
        lefts = np.array([self._span(col, self.cols, self.width_px) for col in cols], np.int64).reshape(-1, 2)
        row, col = (index.ravel() for index in np.indices((len(rows), len(cols))))
        starts = np.stack([lefts[col, 0], tops[row, 0]], axis=1)
        return np.hstack([starts, starts + np.stack([lefts[col, 1], tops[row, 1]], axis=1)])

    def touching(self, col_min: float, row_min: float, col_max: float, row_max: float) -> Iterator[Window]:
        """Yield the windows that overlap a rectangle of canvas pixels."""
        for row in self._near(row_min, row_max, self.rows):
            for col in self._near(col_min, col_max, self.cols):
                window = self.window(row, col)
                beside = window.col_off_px >= col_max or window.col_end_px <= col_min
                if not (beside or window.row_off_px >= row_max or window.row_end_px <= row_min):
                    yield window

    def _near(self, low: float, high: float, count: int) -> range:
        first = max(0, math.floor((low - self.tile_px) / self.stride_px))
        last = min(count - 1, math.ceil(high / self.stride_px))
        # A shifted last window begins before its place in the grid, so it is always looked at.
        return range(min(first, count - 1), max(last, min(first, count - 1)) + 1)

    def _count(self, length_px: int) -> int:
        if length_px <= self.tile_px:
            return 1
        steps = (length_px - self.tile_px) / self.stride_px
        return 1 + (math.floor(steps) if self.edge == "drop" else math.ceil(steps))

    def _span(self, index: int, count: int, length_px: int) -> tuple[int, int]:
        start = index * self.stride_px
        if index < count - 1:
            return start, self.tile_px
        if self.edge == "shift":
            start = max(0, min(start, length_px - self.tile_px))
        if self.edge in ("shift", "partial"):
            return start, min(self.tile_px, length_px - start)
        return start, self.tile_px

    def _shared(self, index: int, count: int, length_px: int) -> tuple[int, int]:
        start, size = self._span(index, count, length_px)
        before = after = 0
        if index > 0:
            left, left_size = self._span(index - 1, count, length_px)
            before = left + left_size - start
        if index < count - 1:
            after = start + size - self._span(index + 1, count, length_px)[0]
        return before, after


def _chunks(places: range, side: int) -> Iterator[range]:
    """Yield runs of places, cut where ``side`` cuts all places from 0 on."""
    start = places.start
    while start < places.stop:
        stop = min(places.stop, (start // side + 1) * side)
        yield range(start, stop)
        start = stop


def _exact(number: int, patch_px: int) -> int:
    cells, rest = divmod(number, patch_px)
    if rest:
        raise ValueError(f"{number} px is not a whole number of cells of {patch_px} px")
    return cells
