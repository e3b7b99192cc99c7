"""Windows of the canvas as pictures: each block decoded once, threads with a handle each, bounded memory.

The canvas is cut into cells that follow the file's blocks. Cells are read by threads, kept while windows need
them and as long as there is room, and windows are sliced out of them. A pixel of a window depends on its place
alone, never on the other windows, their order or the cells, so partly rebuilt results are equal to the bit.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import local
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tiling.cells import CellLayout, cell_dtype, lay_cells, read_cell
from tiling.source import open_handles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio import DatasetReader
    from rasterio.crs import CRS

    from tiling.canvas import Canvas
    from tiling.grid import Window
    from tiling.progress import CancelToken
    from tiling.radiometry import BandChoice, Stretch
    from tiling.raster import Raster

CACHE_BYTES = 96 * 2**20
"""Cells kept for windows to come. One window's own cells are kept even when they are more."""
_SLAB_BYTES = 16 * 2**20
_ONE_PASS = ("PNG", "JPEG")
_BIG_BLOCK_BYTES = 64 * 2**20

Samples = tuple["NDArray[Any]", "NDArray[np.bool_] | None"]
CellKey = tuple[int, int]
Slot: TypeAlias = "NDArray[np.uint8]"
"""Flat memory of one cell."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One window with its pixels and its place on the ground."""

    window: Window
    array: NDArray[Any]
    """(C, h, w): a picture of three uint8 bands from :func:`read_windows`; samples from :func:`read_raw`, of the
    file's type where the canvas is the raster's own, else floating point."""
    valid: NDArray[np.bool_]
    """(h, w), read-only; False where the raster holds nothing: nodata, transparency, or beyond its edge."""
    transform: Affine
    """From the tile's pixels to CRS coordinates."""
    crs: CRS | None

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(h, w), 255 where valid and 0 elsewhere, as rasterio's ``dataset_mask``."""
        return self.valid.astype(np.uint8) * np.uint8(255)


def read_windows(
    raster: Raster,
    canvas: Canvas,
    windows: Iterable[Window],
    *,
    bands: BandChoice,
    stretch: Stretch,
    jobs: int = 2,
    cancel: CancelToken | None = None,
) -> Iterator[Tile]:
    """Yield the windows' pictures in the order given.

    Beyond the raster (snap, ``pad``) the last pixels are repeated and not valid. Pixels that are not valid for
    another reason are 0. Peak memory above the caller's own tiles is at most 96 MB of cells, GDAL's
    block cache (8 MB for tiles of 512 px, never more than ``raster.cache_bytes``) and 60 MB per job, whatever the
    raster's height. The cells that one window touches are held even when they are more: those of a file in strips
    are as wide as the raster, so that its width counts (``geoalign-tile --dry-run`` tells the sum).

    Args:
        raster: The open raster, which stays open until the iterator ends.
        canvas: From ``plan_canvas``.
        windows: Any windows of the canvas, also a whole ``TileGrid``; neighbours one after another read fastest.
        bands: From ``choose_bands``.
        stretch: From ``plan_stretch``.
        jobs: Reading threads.
        cancel: Looked at before each window.

    Raises:
        RasterReadError: A block is damaged or missing.
        CancelledError: The token was set.
    """
    layout = lay_cells(raster, canvas)

    def load(dataset: DatasetReader, key: CellKey, slot: Slot) -> Samples:
        samples, valid = read_cell(
            raster, layout, key, bands.indexes, palette=bands.palette, room=slot, dataset=dataset
        )
        return _settle(stretch.apply(samples, valid), slot), valid

    store = _CellStore(load, layout.cell_px, 3, open_handles(raster, layout.overview, _threads(raster, jobs)))
    yield from _tiles(canvas, windows, layout, store, cancel)


def read_raw(
    raster: Raster,
    canvas: Canvas,
    windows: Iterable[Window],
    *,
    indexes: tuple[int, ...],
    jobs: int = 2,
    cancel: CancelToken | None = None,
) -> Iterator[Tile]:
    """Yield the windows' samples, unstretched; otherwise like :func:`read_windows`."""
    layout = lay_cells(raster, canvas)

    def load(dataset: DatasetReader, key: CellKey, slot: Slot) -> Samples:
        samples, valid = read_cell(raster, layout, key, indexes, palette=False, room=slot, dataset=dataset)
        return _settle(samples, slot), valid

    pixel_bytes = len(indexes) * cell_dtype(raster, layout).itemsize
    handles = open_handles(raster, layout.overview, _threads(raster, jobs))
    store = _CellStore(load, layout.cell_px, pixel_bytes, handles)
    yield from _tiles(canvas, windows, layout, store, cancel)


def _tiles(
    canvas: Canvas, windows: Iterable[Window], layout: CellLayout, store: _CellStore, cancel: CancelToken | None
) -> Iterator[Tile]:
    ahead: deque[tuple[Window, list[CellKey]]] = deque()
    source = iter(windows)
    try:
        while True:
            _look_ahead(ahead, source, layout, store)
            if not ahead:
                return
            if cancel is not None:
                cancel.check()
            window, keys = ahead.popleft()
            array, valid = _cut(window, layout, {key: store.get(key) for key in keys})
            place = canvas.transform * canvas.transform.translation(window.col_off_px, window.row_off_px)
            yield Tile(window, array, valid, place, canvas.crs)
            store.release(keys)
    finally:
        store.close()


def _threads(raster: Raster, jobs: int) -> int:
    """Return how many threads help: formats that decode from the top, and huge blocks, gain nothing."""
    block = raster.info.block_px
    if raster.info.driver in _ONE_PASS or block.height_px * block.width_px * raster.info.count > _BIG_BLOCK_BYTES:
        return 1
    return max(1, jobs)


def _look_ahead(
    ahead: deque[tuple[Window, list[CellKey]]], source: Iterator[Window], layout: CellLayout, store: _CellStore
) -> None:
    """Queue windows until the threads have enough to do; always at least one."""
    while not ahead or store.wants_more(len(ahead)):
        window = next(source, None)
        if window is None:
            return
        keys = layout.keys(window)
        store.need(keys)
        ahead.append((window, keys))


def _settle(array: NDArray[Any], slot: Slot) -> NDArray[Any]:
    """Move an array into its slot, unless it lies there already or does not fit."""
    if array.nbytes > slot.nbytes or np.may_share_memory(array, slot):
        return array
    home = slot[: array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(home, array)
    return home


class _CellStore:
    """Cells on their way and at hand. Those that a queued window needs stay; others make room, oldest first.

    Their memory is a few large slabs that cells take turns in: to have fresh memory from the system for each cell
    costs about as much as decoding it.
    """

    def __init__(
        self,
        load: Callable[[DatasetReader, CellKey, Slot], Samples],
        cell_px: int,
        pixel_bytes: int,
        handles: list[DatasetReader],
    ) -> None:
        self._load = load
        self._handles = handles
        self._threads = len(handles)
        self._slot_bytes = cell_px * pixel_bytes
        self._capacity = max(1, CACHE_BYTES // (cell_px * (pixel_bytes + 1)))
        self._spare = iter(handles)
        self._own = local()
        self._pool = ThreadPoolExecutor(self._threads, "geoalign-read", initializer=self._take_handle)
        self._cells: OrderedDict[CellKey, tuple[Future[Samples], Slot]] = OrderedDict()
        self._free: list[Slot] = []
        self._needed: Counter[CellKey] = Counter()
        self._unread: list[Future[Samples]] = []

    def wants_more(self, queued: int) -> bool:
        """Whether another window may be queued."""
        if len(self._needed) >= self._capacity or queued > 16 * self._threads:
            return False
        self._unread = [cell for cell in self._unread if not cell.done()]
        return len(self._unread) < 4 * self._threads

    def need(self, keys: list[CellKey]) -> None:
        """Start reading what is not there yet."""
        self._needed.update(keys)
        for key in keys:
            if key in self._cells:
                self._cells.move_to_end(key)
            else:
                slot = self._slot()
                self._cells[key] = self._pool.submit(self._read, key, slot), slot
                self._unread.append(self._cells[key][0])

    def _take_handle(self) -> None:
        self._own.dataset = next(self._spare)

    def _read(self, key: CellKey, slot: Slot) -> Samples:
        return self._load(self._own.dataset, key, slot)

    def _slot(self) -> Slot:
        if len(self._cells) >= self._capacity:
            spare = next((key for key in self._cells if key not in self._needed), None)
            if spare is not None:
                return self._cells.pop(spare)[1]
        if not self._free:
            count = min(self._capacity, max(1, _SLAB_BYTES // self._slot_bytes))
            self._free.extend(np.empty((count, self._slot_bytes), np.uint8))
        return self._free.pop()

    def get(self, key: CellKey) -> Samples:
        """Wait for a needed cell."""
        return self._cells[key][0].result()

    def release(self, keys: list[CellKey]) -> None:
        """Say that a window has had its cells."""
        self._needed.subtract(keys)
        for key in keys:
            if self._needed[key] <= 0:
                del self._needed[key]

    def close(self) -> None:
        """Stop the threads after the cells they are at, and close their handles."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for dataset in self._handles:
            dataset.close()
        self._cells.clear()


@lru_cache(maxsize=8)
def _all_valid(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return one array for all the windows of a shape that hold no invalid pixel, which are most."""
    valid = np.ones(shape, np.bool_)
    valid.flags.writeable = False
    return valid


def _cut(window: Window, layout: CellLayout, cells: dict[CellKey, Samples]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Slice a window out of its cells and repeat the last pixels beyond the raster."""
    col0, col1 = layout.clip_cols(window.col_off_px, window.col_end_px)
    row0, row1 = layout.clip_rows(window.row_off_px, window.row_end_px)
    first = next(iter(cells.values()))[0]
    array = np.empty((len(first), row1 - row0, col1 - col0), first.dtype)
    shape = array.shape[1:]
    valid = _all_valid(shape) if all(good is None for _, good in cells.values()) else np.ones(shape, np.bool_)
    for key, (samples, good) in cells.items():
        top, left, bottom, right = layout.bounds(key)
        r0, r1, c0, c1 = max(top, row0), min(bottom, row1), max(left, col0), min(right, col1)
        there = slice(r0 - row0, r1 - row0), slice(c0 - col0, c1 - col0)
        here = slice(r0 - top, r1 - top), slice(c0 - left, c1 - left)
        array[(slice(None), *there)] = samples[(slice(None), *here)]
        if good is not None:
            valid[there] = good[here]
    if (row0, row1, col0, col1) == (window.row_off_px, window.row_end_px, window.col_off_px, window.col_end_px):
        return array, valid
    rows = np.clip(np.arange(window.row_off_px, window.row_end_px), row0, row1 - 1)
    cols = np.clip(np.arange(window.col_off_px, window.col_end_px), col0, col1 - 1)
    on_raster = (rows == np.arange(window.row_off_px, window.row_end_px))[:, None] & (
        cols == np.arange(window.col_off_px, window.col_end_px)
    )
    padded = array[:, (rows - row0)[:, None], cols - col0]
    return padded, valid[(rows - row0)[:, None], cols - col0] & on_raster
