"""Indexing as far as a request needs it: in pieces from the middle outwards, so that answers need not wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely import affinity

from geoalign_core.answer import refuse_empty, refuse_endless
from geoalign_core.indexing import IndexBusyError, build_index, open_index
from geoalign_core.indexing.areas import shards_in_area

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from geoalign_core.engine.job import Job
    from geoalign_core.engine.session import Opened
    from geoalign_core.indexing import Index, IndexSpec
    from geoalign_core.indexing.shard import ShardId
    from tiling.progress import Progress

PROGRESSIVE_WINDOWS = 40
"""With more missing windows than this, what is ready is shown while the rest is made."""
_BUSY_S = 0.5


def missing_shards(opened: Opened, area: shapely.Geometry | None) -> list[ShardId]:
    """Return the shards of an area that are not indexed."""
    wanted = shards_in_area(opened.spec, area)
    there = open_index(opened.raster.path, opened.spec)
    return wanted if there is None else [shard_id for shard_id in wanted if there.get(shard_id) is None]


def window_count(spec: IndexSpec, shards: Sequence[ShardId]) -> int:
    """Return how many windows some shards have."""
    return sum(len(spec.levels[at.level].shard_windows(at.row, at.col)) for at in shards)


def build(opened: Opened, area: shapely.Geometry | None, job: Job, progress: Progress | None = None) -> Index:
    """Make sure that an area is indexed. While another process builds the same index, wait, and stay stoppable.

    Raises:
        GeoAlignError: The raster, the disk or the area refuses.
    """
    refuse_endless(opened.spec, area, opened.raster.path, opened.settings.max_windows)
    waiting = False
    while True:
        job.token.check()
        try:
            index = build_index(
                opened.raster, opened.encoder, opened.spec, area=area, jobs=opened.settings.jobs,
                batch=opened.encoder.batch, progress=progress or job.progress, cancel=job.token,
            )  # fmt: skip
            break
        except IndexBusyError:
            if not waiting:
                job.note("another program is building the same index: waiting for it")
            waiting = True
            time.sleep(_BUSY_S)
        finally:
            opened.raster.rest()
    return opened.hold(index)


def build_in_pieces(opened: Opened, area: shapely.Geometry | None, job: Job) -> Generator[Index, None, None]:
    """Index an area and yield the index whenever another piece is ready, the last time when all is.

    Progress counts the windows of all pieces together.
    """
    spec = opened.spec
    refuse_endless(spec, area, opened.raster.path, opened.settings.max_windows)
    missing = missing_shards(opened, area)
    total = window_count(spec, missing)
    before = piece = 0

    def told(step: int, of: int, stage: str, /) -> None:
        nonlocal piece
        piece = of
        # When the image has changed, windows are checked that nobody has counted as missing.
        job.progress(before + step, max(total, before + of), stage)

    if total > PROGRESSIVE_WINDOWS:
        for place in _pieces(spec, missing, area):
            yield build(opened, place, job, told)
            before, piece = before + piece, 0
    index = build(opened, area, job, told)
    refuse_empty(index, opened.raster.path)
    yield index


def _pieces(spec: IndexSpec, missing: Sequence[ShardId], area: shapely.Geometry | None) -> Iterator[shapely.Geometry]:
    """Yield places in growing groups of the finest level's missing shards, those in the middle first."""
    finest = [shard_id for shard_id in missing if shard_id.level == 0]
    if not finest:
        return
    cores = [_core(spec, shard_id) for shard_id in finest]
    middle = (area or shapely.union_all(cores)).centroid
    order = np.argsort(shapely.distance(np.array(cores), middle), kind="stable")
    at, size = 0, 1
    while at < len(order):
        chosen = order[at : at + size]
        yield shapely.union_all([cores[number] for number in chosen])
        at += size
        size = min(2 * size, max(2, len(order) // 8))


def _core(spec: IndexSpec, shard_id: ShardId) -> shapely.Geometry:
    """Return a place in the CRS that only this shard's windows cover: around the middle of a window, no larger."""
    level = spec.levels[shard_id.level]
    windows = [window for _, window in level.shard_windows(shard_id.row, shard_id.col)]
    left, top = windows[0].col_off_px, windows[0].row_off_px
    right, bottom = windows[-1].col_end_px, windows[-1].row_end_px
    inset_x, inset_y = (right - left) * 0.45, (bottom - top) * 0.45
    box = shapely.box(left + inset_x, top + inset_y, right - inset_x, bottom - inset_y)
    return affinity.affine_transform(box, level.canvas.transform.to_shapely())
