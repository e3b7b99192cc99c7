"""What a job would do, before it does it: windows, reads, memory, bytes and time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tiling.chips.cut import encode_tile
from tiling.reader import CACHE_BYTES

if TYPE_CHECKING:
    from tiling.chips.job import Job, Work

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
    tile_bytes = grid.tile_px**2 * (len(work.tiles.pixels.indexes) + 1) * _item_bytes(work)
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
        read_px=_read_px(work),
        memory_bytes=CACHE_BYTES + work.raster.cache_bytes + jobs * _JOB_BYTES + 6 * jobs * tile_bytes,
        disk_bytes=round(written * share),
        seconds=seconds * share,
        sampled=len(sample),
    )


def _item_bytes(work: Work) -> int:
    import numpy as np

    return np.dtype(work.encoding.dtype).itemsize


def _read_px(work: Work) -> int:
    """Return the source pixels under the windows, counted once where windows overlap."""
    import numpy as np

    canvas, grid, layout = work.tiles.canvas, work.tiles.grid, work.tiles.layout
    scale = canvas.scale_x * canvas.scale_y / canvas.overview**2
    # Cells of the stride: a window covers its own, and its overlap reaches into those of its neighbours.
    reach = -(-grid.tile_px // grid.stride_px)
    cells = np.zeros((grid.rows + reach, grid.cols + reach), np.bool_)
    for window in layout.windows:
        cells[window.row : window.row + reach, window.col : window.col + reach] = True
    covered = min(int(cells.sum()) * grid.stride_px**2, canvas.width_px * canvas.height_px)
    return round(covered * scale)


def _crs_name(crs: Any) -> str:  # noqa: ANN401 - rasterio's CRS has no types
    authority = crs.to_authority()
    return ":".join(authority) if authority else "a CRS without a code"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
