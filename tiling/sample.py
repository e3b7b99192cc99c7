"""About a million pixels spread over a raster, for statistics: cheap whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.source import SourceRect, overview_size, read_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiling.radiometry import BandChoice
    from tiling.raster import Raster

WHOLE_PX = 4 * 2**20
"""Up to this many pixels an overview (or the raster) is read whole; larger ones are probed in places."""
_PROBE_PX = 256
_FLAT_PROBE_PX = 16
_PROBES = (8, 32)
_KEEP = 2**20


def sample_pixels(raster: Raster, bands: BandChoice) -> NDArray[Any]:
    """Return valid samples of the chosen bands, the same ones on every call.

    The largest overview of at most 4 Mpx is read whole. Without one, 8 × 8 places are read at full resolution, and
    32 × 32 when none of those holds a valid pixel. Memory stays below about 100 MB.

    Args:
        raster: The open raster.
        bands: Its chosen bands, not paletted.

    Returns:
        (C, N) samples with N up to about a million; N is 0 when no valid pixel was found.

    Raises:
        RasterReadError: The file is damaged.
    """
    for overview in (1, *raster.info.overviews):
        width, height = overview_size(raster, overview)
        if width * height <= WHOLE_PX:
            return _valid(raster, bands, [SourceRect(0, 0, width, height)], overview)
    for side in _PROBES:
        samples = _valid(raster, bands, list(_probes(raster, side)), 1)
        if samples.size:
            return samples
    return samples


def _probes(raster: Raster, side: int) -> Iterator[SourceRect]:
    info = raster.info
    width, height = min(_PROBE_PX, info.width_px), min(_PROBE_PX, info.height_px)
    if info.block_px.width_px >= info.width_px:
        # Every probe of a file in strips decodes strips of the full width: flat probes keep that cheap.
        height = min(height, max(_FLAT_PROBE_PX, info.block_px.height_px))
    rows = np.unique(np.linspace(0, info.height_px - height, side).astype(int))
    cols = np.unique(np.linspace(0, info.width_px - width, side).astype(int))
    for row in rows:
        for col in cols:
            yield SourceRect(int(col), int(row), width, height)


def _valid(raster: Raster, bands: BandChoice, rects: list[SourceRect], overview: int) -> NDArray[Any]:
    step = max(1, sum(rect.width_px * rect.height_px for rect in rects) // _KEEP)
    kept = []
    for rect in rects:
        array, valid = read_source(raster, bands.indexes, rect, overview=overview)
        flat = array.reshape(len(array), -1) if valid is None else array[:, valid]
        kept.append(flat[:, ::step])
    return np.concatenate(kept, axis=1)
