"""Scoring every row of an index with linear forms: an exact scan, no approximation, no vector database."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.errors import IndexStaleError
from geoalign_core.indexing.areas import cells_in_area, windows_in_area
from geoalign_core.indexing.cores import SCAN_THREADS, single_threaded_blas
from geoalign_core.indexing.shard import SHARD_WINDOWS, ShardEntry
from tiling.blend import Mosaic, window_weights
from tiling.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS
    from shapely.geometry.base import BaseGeometry

    from geoalign_core.indexing.shard import ShardArrays
    from geoalign_core.indexing.spec import LevelSpec
    from geoalign_core.indexing.store import Index
    from geoalign_core.models.encoder import Readout
    from tiling.progress import CancelToken, Progress

_CHUNK_ROWS = 2048
"""Rows turned into float32 at a time: with 512 channels 4 MB, which stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class LinearQuery:
    """Q linear forms on rows: ``patch · p + window · w + bias``, for joint ones divided by the joint norm."""

    patch: NDArray[np.float32]
    """(Q, C)"""
    window: NDArray[np.float32]
    """(Q, C_w); (Q, 0) when windows do not count."""
    bias: NDArray[np.float32]
    """(Q,)"""
    joint: bool
    """Whether the form is divided by the norm of the row's joint vector, which makes it a cosine."""

    @classmethod
    def from_text(cls, vectors: NDArray[np.float32], readout: Readout) -> LinearQuery:
        """Return the cosine with (Q, D) L2-normalised vectors of the joint space."""
        vectors = np.asarray(vectors, np.float32)
        patch, window, bias = vectors @ readout.patch, vectors @ readout.window, vectors @ readout.bias
        return cls(patch, window, bias, joint=True)

    @classmethod
    def from_raw(cls, vectors: NDArray[np.float32], bias: NDArray[np.float32] | float = 0.0) -> LinearQuery:
        """Return the product with (Q, C) vectors of the raw space plus a bias (Q,): a linear classifier's logit."""
        vectors = np.asarray(vectors, np.float32)
        count = len(vectors)
        full = np.ascontiguousarray(np.broadcast_to(np.asarray(bias, np.float32), (count,)))
        return cls(vectors, np.zeros((count, 0), np.float32), full, joint=False)


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """Scores of one level on its lattice of patch cells, or on the part of it around an area."""

    level: int
    scores: NDArray[np.float32]
    """(Q, rows, cols); NaN where nothing valid was indexed, and outside the area."""
    transform: Affine
    """From (col, row) of the map to CRS coordinates."""
    crs: CRS | None
    gsd_m: float | None
    """Side of a cell on the ground; None in pixel mode."""
    row_off: int = 0
    """First row of the map on the level's lattice."""
    col_off: int = 0


def score_rows(shard: ShardArrays, query: LinearQuery, ranks: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Score the rows of some windows of a shard.

    Args:
        shard: The shard.
        query: Q linear forms.
        ranks: Which of its embedded windows, ascending; all when None.

    Returns:
        (Q, windows, rows per window) float32.
    """
    per_window = shard.entry.shape.rows_per_window
    ranks = np.arange(len(shard.entry.positions)) if ranks is None else ranks
    weights = np.ascontiguousarray(query.patch.T)
    out = np.empty((len(ranks) * per_window, len(query.bias)), np.float32)
    buffer = np.empty((_CHUNK_ROWS, weights.shape[0]), np.float32)
    at = 0
    for first, last in _runs(ranks, per_window):
        for start in range(first, last, _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, last)
            part = buffer[: stop - start]
            np.copyto(part, shard.values[start:stop])
            scores = np.matmul(part, weights, out=out[at : at + stop - start])
            scores *= shard.scales[start:stop, None]
            at += stop - start
    shaped = out.reshape(len(ranks), per_window, len(query.bias))
    offset = np.broadcast_to(query.bias, (len(ranks), len(query.bias)))
    if query.window.shape[1]:
        offset = offset + shard.windows[ranks] @ query.window.T
    shaped += offset[:, None, :]
    if query.joint:
        shaped *= shard.inv_norms.reshape(-1, per_window)[ranks][:, :, None]
    return np.ascontiguousarray(shaped.transpose(2, 0, 1))


def score_shards(index: Index, query: LinearQuery) -> Iterator[tuple[ShardEntry, NDArray[np.float32]]]:
    """Score every row of an index, shard by shard in order: (entry, (Q, windows, rows per window)).

    Raises:
        IndexCorruptError: A shard is damaged.
    """
    jobs = [(entry, np.arange(len(entry.positions))) for entry in index.shards]
    for shard, _, scores in _scan(index, query, jobs):
        yield shard.entry, scores


def score_maps(
    index: Index,
    query: LinearQuery,
    *,
    area: BaseGeometry | None = None,
    min_valid: float = 0.5,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> list[ScoreMap]:
    """Score every row and join the windows without seams.

    Inside ``area`` the scores equal those of the whole map. Memory: the maps ((Q + 1) · rows · cols · 4 bytes,
    summed in files above 2 GB) and, per thread, the scores of one shard.

    Args:
        index: The index.
        query: Q linear forms.
        area: In the raster's CRS; the maps are cut to its bounding box and NaN outside it.
        min_valid: Cells with a smaller share of valid pixels, of those on the raster, do not count.
        progress: Told the shards done, stage ``scoring``.
        cancel: Looked at before every shard.

    Returns:
        One map per level, finest first; a level that the area misses has a map without cells.

    Raises:
        IndexStaleError: The query was made for another model.
        IndexCorruptError: A shard is damaged.
        CancelledError: ``cancel`` was set.
    """
    if query.patch.shape[1] != index.spec.channels or query.window.shape[1] not in (0, index.spec.window_channels):
        raise IndexStaleError(
            "the index was made by another model than the query",
            path=index.root,
            measured=f"{index.spec.channels} and {query.patch.shape[1]} channels",
            remedy="build the index with the model that you ask with",
        )
    done = 0
    maps = []
    for number, level in enumerate(index.spec.levels):
        jobs = list(_select(index, number, level, area))

        def tell(shards: int, before: int = done) -> None:
            if cancel is not None:
                cancel.check()
            progress(before + shards, len(index.shards), "scoring")

        scored = _scan(index, query, jobs)
        maps.append(_join(level, number, query, _counted(scored, tell), area, round(min_valid * 255)))
        done += len(index.level_shards(number))
    return maps


def _select(
    index: Index, number: int, level: LevelSpec, area: BaseGeometry | None
) -> Iterator[tuple[ShardEntry, NDArray[np.int64]]]:
    """Yield the shards of a level with the ranks of their windows that count."""
    if area is None:
        for entry in index.level_shards(number):
            yield entry, np.arange(len(entry.positions))
        return
    wanted: dict[tuple[int, int], set[int]] = {}
    for row, col in windows_in_area(level, area).tolist():
        block = row // SHARD_WINDOWS, col // SHARD_WINDOWS
        wanted.setdefault(block, set()).add(row % SHARD_WINDOWS * SHARD_WINDOWS + col % SHARD_WINDOWS)
    for entry in index.level_shards(number):
        chosen = wanted.get((entry.id.row, entry.id.col), set())
        ranks = [rank for rank, position in enumerate(entry.positions) if position in chosen]
        if ranks:
            yield entry, np.array(ranks)


_Scored = tuple["ShardArrays", "NDArray[np.int64]", "NDArray[np.float32]"]


def _scan(index: Index, query: LinearQuery, jobs: list[tuple[ShardEntry, NDArray[np.int64]]]) -> Iterator[_Scored]:
    """Score shards side by side, each thread with a single-threaded matrix product, in the order given."""

    def work(job: tuple[ShardEntry, NDArray[np.int64]]) -> _Scored:
        shard = index.arrays(job[0].id)
        return shard, job[1], score_rows(shard, query, job[1])

    with single_threaded_blas(), ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="geoalign-scan") as pool:
        waiting: deque[Future[_Scored]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) > 2 * SCAN_THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _counted(scored: Iterable[_Scored], tell: Any) -> Iterator[_Scored]:  # noqa: ANN401
    for done, item in enumerate(scored, 1):
        tell(done)
        yield item


def _join(level: LevelSpec, number: int, query: LinearQuery, scored: Iterable[_Scored], area: BaseGeometry | None,
          min_valid: int) -> ScoreMap:  # fmt: skip
    rows, cols = level.cells
    down, across, inside = slice(0, rows), slice(0, cols), None
    if area is not None:
        down, across, inside = cells_in_area(level, area)
    top, left = down.start, across.start
    shape = down.stop - top, across.stop - left
    if 0 in shape:
        scores = np.zeros((len(query.bias), *shape), np.float32)
        for _ in scored:
            pass
    else:
        scores = _blend(level, len(query.bias), scored, (top, left), shape, min_valid)
    if inside is not None:
        scores[:, ~inside] = np.nan
    transform = level.cell_transform * level.cell_transform.translation(left, top)
    return ScoreMap(number, scores, transform, level.canvas.crs, level.cell_gsd_m, top, left)


def _blend(level: LevelSpec, channels: int, scored: Iterable[_Scored], corner: tuple[int, int],
           shape: tuple[int, int], min_valid: int) -> NDArray[np.float32]:  # fmt: skip
    height, width = level.window_cells
    grid = level.grid.scaled(level.patch_px)
    needed = min_valid * _on_raster(level, corner, shape)
    with Mosaic(shape, channels) as mosaic:
        for shard, ranks, scores in scored:
            valid = shard.valid.reshape(-1, height, width)
            places = shard.entry.windows()
            for number, rank in enumerate(ranks):
                window = grid.window(*places[rank])
                down, across = window_weights(window, grid)
                row, col = window.row_off_px - corner[0], window.col_off_px - corner[1]
                enough = valid[rank] >= _part(needed, row, col, height, width)
                weight = np.outer(down, across) * (enough & (valid[rank] > 0))
                values = scores[:, number].reshape(channels, height, width)
                mosaic.add(row, col, values, weight)
        return mosaic.result()[0]


def _on_raster(level: LevelSpec, corner: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the share of each cell that lies on the raster: below 1 only in the canvas's last row and column.

    What lies beyond the raster's edge is not missing, so it must not make a cell on the edge count as nodata.
    """
    tall = np.clip(level.canvas.raster_height_px / level.patch_px - corner[0] - np.arange(shape[0]), 0, 1)
    wide = np.clip(level.canvas.raster_width_px / level.patch_px - corner[1] - np.arange(shape[1]), 0, 1)
    return np.outer(tall, wide)


def _part(values: NDArray[np.float64], row: int, col: int, height: int, width: int) -> NDArray[np.float64]:
    """Cut (height, width) at (row, col), which may lie partly outside; there, nothing is needed."""
    result = np.zeros((height, width))
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + height, values.shape[0]), min(col + width, values.shape[1])
    if bottom > top and right > left:
        result[top - row : bottom - row, left - col : right - col] = values[top:bottom, left:right]
    return result


def _runs(ranks: NDArray[np.int64], per_window: int) -> Iterator[tuple[int, int]]:
    """Yield the (first, last) row of every run of neighbouring windows."""
    if len(ranks) == 0:
        return
    breaks = np.flatnonzero(np.diff(ranks) != 1) + 1
    for run in np.split(ranks, breaks):
        yield int(run[0]) * per_window, (int(run[-1]) + 1) * per_window
