"""What a job would do, before it does it: windows, reads, memory, bytes and time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tiling.cells import cell_dtype, lay_cells
from tiling.chips.cut import encode_tile
from tiling.reader import CACHE_BYTES
from tiling.source import sample_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiling.cells import CellLayout
    from tiling.chips.job import Job, Work
    from tiling.grid import Window

_SAMPLE = 8
_JOB_BYTES = 60 * 2**20


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one raster's part of a job will take."""

    raster: str
    width_px: int
    height_px: int
    crs: str
    gsd_m: float | None
    """Ground metres per pixel of the tiles."""
    overview: int
    """Reduction factor of the overview that is read."""
    tile_px: int
    stride_px: int
    edge: str
    windows: int
    """Tiles that will be read; those with too few valid pixels may still fall out."""
    in_grid: int
    told_by: str
    """What told which windows are blank, before reading."""
    read_px: int
    """Source pixels decoded, each block once."""
    memory_bytes: int
    """An upper bound of the memory above that of the program itself."""
    disk_bytes: int
    """Estimated from a few tiles."""
    seconds: float
    """Estimated from a few tiles."""
    sampled: int
    """Tiles that the estimates come from."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        metres = "unknown ground size" if self.gsd_m is None else f"{self.gsd_m:.4g} m per pixel"
        source = "full resolution" if self.overview == 1 else f"overview 1:{self.overview}"
        overlap = self.tile_px - self.stride_px
        left = self.in_grid - self.windows
        told = f", blank ones told by the {self.told_by}" if self.told_by else ""
        lines = (
            f"{self.raster}: {self.width_px:,} × {self.height_px:,} px, {self.crs}",
            f"  reads   {source}, {self.read_px / 1e6:,.1f} Mpx, each block once; tiles have {metres}",
            f"  grid    {self.in_grid:,} windows of {self.tile_px} px, overlap {overlap} px, edge {self.edge}",
            f"  cuts    {self.windows:,} tiles ({left:,} left out{told})",
            f"  memory  at most {self.memory_bytes / 2**20:,.0f} MB",
            f"  disk    about {_size(self.disk_bytes)}",
            f"  time    about {_span(self.seconds)}, by {self.sampled} tiles tried",
        )
        return "\n".join(lines)


def forecast(job: Job, *, jobs: int) -> list[Forecast]:
    """Explain a job without writing anything; a few tiles of each raster are read and encoded.

    Raises:
        RasterReadError: A raster is damaged.
    """
    return [_forecast_one(work, jobs) for work in job.works]


def _forecast_one(work: Work, jobs: int) -> Forecast:
    info, canvas, grid = work.raster.info, work.tiles.canvas, work.tiles.grid
    windows = work.tiles.layout.windows
    begun, written = time.perf_counter(), 0
    # One neighbourhood, as the job reads it: windows far apart would not share their blocks.
    sample = windows[len(windows) // 2 :][:_SAMPLE]
    for tile in work.tiles.read(sample):
        written += len(encode_tile(tile, work))
    seconds, share = time.perf_counter() - begun, len(windows) / max(1, len(sample))
    layout = lay_cells(work.raster, canvas)
    cells, most_cells, read_px = _cells(windows, layout)
    return Forecast(
        raster=str(work.raster.path),
        width_px=info.width_px,
        height_px=info.height_px,
        crs="no CRS" if canvas.crs is None else _crs_name(canvas.crs),
        gsd_m=canvas.gsd_m,
        overview=work.raster.source_overview(canvas.overview),
        tile_px=grid.tile_px,
        stride_px=grid.stride_px,
        edge=grid.edge,
        windows=len(windows),
        in_grid=len(grid),
        told_by=work.tiles.layout.told_by,
        read_px=read_px,
        memory_bytes=_memory_bytes(work, layout, cells, most_cells, jobs),
        disk_bytes=round(written * share),
        seconds=seconds * share,
        sampled=len(sample),
    )


def _item_bytes(work: Work) -> int:
    import numpy as np

    return np.dtype(work.encoding.dtype).itemsize


def _memory_bytes(work: Work, layout: CellLayout, cells: int, most_cells: int, jobs: int) -> int:
    """Return what the reader keeps (see :class:`tiling.plan.Tiles`), its threads work with, and the encoders hold."""
    raster, pixels, grid = work.raster, work.tiles.pixels, work.tiles.grid
    bands, sample = len(pixels.indexes), sample_dtype(raster).itemsize
    is_picture = pixels.picture is not None and pixels.stretch is not None
    kept = 3 if is_picture else bands * cell_dtype(raster, layout).itemsize
    store = CACHE_BYTES + most_cells * layout.cell_px * (kept + 1)
    # Samples that are kept as they are need no second room, only flags of what is valid.
    decoding = bands if layout.is_native and not is_picture else 2 * bands * sample + 2
    decoded = round(layout.cell_px * layout.scale_x * layout.scale_y) * decoding
    window = grid.window(0, 0)
    tile = window.width_px * window.height_px * (bands + 1) * max(sample, _item_bytes(work))
    return store + raster.cache_bytes + max(jobs * _JOB_BYTES, min(jobs, cells) * decoded) + 6 * jobs * tile


def _cells(windows: Sequence[Window], layout: CellLayout) -> tuple[int, int, int]:
    """Return how many cells are needed, how many by one window at most, and the source pixels under them."""
    spans: dict[tuple[int, int, int, int], int] = {}
    needed: set[tuple[int, int]] = set()
    for window in windows:
        top, bottom = layout.clip_rows(window.row_off_px, window.row_end_px)
        left, right = layout.clip_cols(window.col_off_px, window.col_end_px)
        high, wide = layout.cell_height_px, layout.cell_width_px
        span = top // high, left // wide, (bottom - 1) // high, (right - 1) // wide
        # Most windows need the same cells as another one.
        if span not in spans:
            keys = layout.keys(window)
            spans[span] = len(keys)
            needed.update(keys)
    covered = 0
    for key in needed:
        top, left, bottom, right = layout.bounds(key)
        covered += (bottom - top) * (right - left)
    return len(needed), max(spans.values(), default=0), round(covered * layout.scale_x * layout.scale_y)


def _crs_name(crs: Any) -> str:  # noqa: ANN401 - rasterio's CRS has no types
    authority = crs.to_authority()
    return ":".join(authority) if authority else "a CRS without a code"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
