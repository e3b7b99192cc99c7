"""Seam-free joining of overlapping windows: Hann ramps in the overlaps only, never at the outer edge.

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

    from numpy.typing import NDArray

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

    Memory: (channels + 1) × height × width × bytes of ``dtype``; above ``spill_bytes`` the sums lie in files of a
    temporary folder that goes away with the mosaic. Close it, or use ``with``.

    Args:
        shape: (height, width) in cells.
        channels: Values per cell.
        dtype: Type of the sums; float32 halves the memory and is good to 1e-5 under dozens of windows.
        spill_bytes: Largest size kept in memory.
        folder: Where the temporary folder is made; the system's default when None.

    Raises:
        OutputWriteError: The disk has no room for the sums.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int = 1,
        *,
        dtype: type[np.floating[Any]] = np.float64,
        spill_bytes: int = SPILL_BYTES,
        folder: str | Path | None = None,
    ) -> None:
        self.shape = shape
        self.channels = channels
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if (channels + 1) * shape[0] * shape[1] * np.dtype(dtype).itemsize > spill_bytes:
            self._folder = tempfile.TemporaryDirectory(prefix="geoalign-mosaic-", dir=folder)
        self._sum = self._zeros("sum", (channels, *shape), dtype)
        self._weight = self._zeros("weight", shape, dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the sums; arrays given out before stay good."""
        self._sum = self._weight = np.zeros((0, 0))
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
        with np.errstate(invalid="ignore"):
            product = np.where(part > 0, values[(slice(None), *inner)] * part, 0)
        self._sum[(slice(None), *outer)] += product
        self._weight[outer] += part

    def rows(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return the mean (C, last − first, W), NaN where nothing was added, and the weights of some rows."""
        weight = np.array(self._weight[first:last])
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self._sum[:, first:last] / weight
        values[:, weight <= 0] = np.nan
        return values.astype(np.float32, copy=False), weight

    def blocks(self, height: int = _ROWS_PER_BLOCK) -> Iterator[tuple[int, NDArray[np.float32], NDArray[Any]]]:
        """Yield (first row, mean, weights) strip by strip."""
        for first in range(0, self.shape[0], height):
            yield first, *self.rows(first, min(first + height, self.shape[0]))

    def result(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return the whole mean (C, H, W), NaN where nothing was added, and the summed weights (H, W)."""
        return self.rows(0, self.shape[0])

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> NDArray[Any]:
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
                "has no room for the sums of the map",
                path=path.parent,
                measured=f"{size / 2**30:.1f} GB, {error.strerror}",
                remedy="free some space or set TMPDIR to another disk",
            ) from error
