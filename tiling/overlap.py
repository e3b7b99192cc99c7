"""The arithmetic of overlaps: Hann ramps where windows overlap, never at the outer edge, and means of windows.

Nothing here is tied to pixels: a map of model patches is joined in units of patches ("cells").
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tiling.errors import OutputWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from tiling.grid import TileGrid, Window

SPILL_BYTES = 2 * 2**30
_ROWS_PER_BLOCK = 256


def overlap_weights(size: int, before: int = 0, after: int = 0) -> NDArray[np.float32]:
    """Return the weights of a window along one axis.

    Args:
        size: Cells of the window.
        before: Cells shared with the previous window; 0 at the outer edge, where the weight stays 1.
        after: Cells shared with the next window.

    Returns:
        (size,) in (0, 1]: 1 in the middle, rising and falling as a Hann window over the shared cells, so that two
        neighbours sum to one.
    """
    weights = np.ones(size, np.float64)
    before, after = min(before, size), min(after, size)
    weights[:before] *= _ramp(before)
    weights[size - after :] *= _ramp(after)[::-1]
    return weights.astype(np.float32)


def _ramp(count: int) -> NDArray[np.float64]:
    return np.asarray(np.sin((np.arange(count) + 0.5) * (np.pi / (2 * max(count, 1)))) ** 2)


def window_weights(window: Window, grid: TileGrid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights (height,) and (width,) of a window of the grid; their outer product weighs its cells.

    Use ``grid.scaled(patch_px)`` and ``window.scaled(patch_px)`` to weigh patches instead of pixels.
    """
    left, right, above, below = grid.overlaps_px(window.row, window.col)
    return overlap_weights(window.height_px, above, below), overlap_weights(window.width_px, left, right)


class Mosaic:
    """A weighted mean of overlapping windows over a map of any size.

    The mean is kept up to date by West's rule (1979), mean += (value − mean) · weight / weights so far, instead of
    being divided out of sums: windows that agree give back their very value, to the last bit, whatever the weights.

    Memory: (channels + 1) × height × width × bytes of ``dtype``; above ``spill_bytes`` the map lies in files of a
    temporary folder that goes away with the mosaic. Close it, or use ``with``.

    Args:
        shape: (height, width) in cells.
        channels: Values per cell.
        dtype: Type of the means; float32 halves the memory and is good to 1e-6 under dozens of windows.
        spill_bytes: Largest size kept in memory.
        folder: Where the temporary folder is made; the system's default when None.

    Raises:
        OutputWriteError: The disk has no room for the map.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int = 1,
        *,
        dtype: DTypeLike = np.float64,
        spill_bytes: int = SPILL_BYTES,
        folder: str | Path | None = None,
    ) -> None:
        self.shape = shape
        self.channels = channels
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if (channels + 1) * shape[0] * shape[1] * np.dtype(dtype).itemsize > spill_bytes:
            self._folder = tempfile.TemporaryDirectory(prefix="geoalign-mosaic-", dir=folder)
        self._mean = self._zeros("mean", (channels, *shape), dtype)
        self._weight = self._zeros("weight", shape, np.result_type(dtype, np.float32))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the map; arrays given out before stay good."""
        self._mean = self._weight = np.zeros((0, 0))
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def add(self, row: int, col: int, values: NDArray[Any], weight: NDArray[Any]) -> None:
        """Add a window; what reaches beyond the map is cut off.

        Args:
            row: First row of the window on the map.
            col: First column.
            values: (C, h, w), or (h, w) for one channel; ignored where the weight is 0.
            weight: (h, w), at least 0; 0 where the window knows nothing.
        """
        values = values[None] if values.ndim == 2 else values
        height, width = weight.shape
        top, left = max(0, -row), max(0, -col)
        bottom, right = min(height, self.shape[0] - row), min(width, self.shape[1] - col)
        if bottom <= top or right <= left:
            return
        inner = slice(top, bottom), slice(left, right)
        outer = slice(row + top, row + bottom), slice(col + left, col + right)
        part = weight[inner].astype(self._weight.dtype, copy=False)
        known = np.where(part > 0, values[(slice(None), *inner)], 0)
        self._merge(self._mean[(slice(None), *outer)], self._weight[outer], known, part)

    def _merge(self, mean: NDArray[Any], total: NDArray[Any], values: NDArray[Any], weight: NDArray[Any]) -> None:
        """Add values (C, h, w) with their weights (h, w) to views of the means and of the weights so far."""
        total += weight
        share = np.divide(weight, total, out=np.zeros_like(weight), where=weight > 0)
        mean += (values - mean) * share

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return the mean (C, last − first, W), NaN where nothing was added, and the weights of some rows."""
        weight = np.array(self._weight[first:last])
        values = self._mean[:, first:last].astype(np.float32)
        values[:, weight <= 0] = np.nan
        return values, weight

    def part(self, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a copy of the means (C, H, w) of some columns, 0 where nothing was added, and where it was."""
        return self._mean[:, :, cols].copy(), self._weight[:, cols] > 0

    def blocks(self, height: int = _ROWS_PER_BLOCK) -> Iterator[tuple[int, NDArray[np.float32], NDArray[Any]]]:
        """Yield (first row, mean, weights) strip by strip."""
        for first in range(0, self.shape[0], height):
            yield first, *self.rows(first, min(first + height, self.shape[0]))

    def result(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return the whole mean (C, H, W), NaN where nothing was added, and the summed weights (H, W)."""
        return self.rows(0, self.shape[0])

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        if self._folder is None:
            return np.zeros(shape, dtype)
        path = Path(self._folder.name) / f"{name}.dat"
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        try:
            with path.open("wb") as stream:
                # Reserving the room now turns a full disk into an error; later it would kill the process.
                os.posix_fallocate(stream.fileno(), 0, size)
            return np.memmap(path, dtype, "r+", shape=shape)
        except OSError as error:
            self._folder.cleanup()
            raise OutputWriteError(
                "has no room for the map",
                path=path.parent,
                measured=f"{size / 2**30:.1f} GB, {error.strerror}",
                remedy="free some space or set TMPDIR to another disk",
            ) from error


class NearestMosaic(Mosaic):
    """Every cell from the window with the greatest weight there; the first one when several have it."""

    def _merge(self, mean: NDArray[Any], total: NDArray[Any], values: NDArray[Any], weight: NDArray[Any]) -> None:
        nearer = weight > total
        np.copyto(mean, values, where=nearer)
        np.copyto(total, weight, where=nearer)


def inwardness(window: Window, grid: TileGrid) -> NDArray[np.float32]:
    """Return (h, w): cells to the nearest edge of the window that another one overlaps; infinite without any."""
    left, right, above, below = grid.overlaps_px(window.row, window.col)
    return np.minimum(_depth(window.height_px, above, below)[:, None], _depth(window.width_px, left, right))


def _depth(size: int, before: int, after: int) -> NDArray[np.float32]:
    steps, endless = np.arange(1, size + 1, dtype=np.float32), np.full(size, np.inf, np.float32)
    return np.minimum(steps if before else endless, steps[::-1] if after else endless)
