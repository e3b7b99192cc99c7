"""The stretch of an index stays put: a small edit of the raster must not move every pixel's brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoalign_core.indexing.location import index_homes
from geoalign_core.indexing.sealed import unseal
from tiling.errors import StretchError
from tiling.fingerprint import SourceFingerprint, fingerprint
from tiling.radiometry import Stretch, plan_stretch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiling.radiometry import BandChoice
    from tiling.raster import Raster

JOURNAL_FILE = "build.json"
"""In every index's folder: what it was planned from, and which state of the raster its shards show."""
_SAME = 0.02


def settle_stretch(raster: Raster, bands: BandChoice, request: str) -> Stretch:
    """Return the stretch for an index, preferably the one that an index of this raster already has.

    A stored stretch is taken when it was asked for in the same words for the same bands, and either the raster is
    unchanged or its own stretch would differ by no more than 2 % of the range. Then an edit of one corner costs one
    corner.

    Raises:
        StretchError: The request cannot be understood.
        UnsupportedRasterError: The raster has no valid pixel.
    """
    stored = list(_stored(raster.path, bands, request))
    present = fingerprint(raster.path) if stored else None
    for source, stretch in stored:
        if source == present:
            return stretch
    fresh = plan_stretch(raster, bands, request)
    return next((stretch for _, stretch in stored if _near(stretch, fresh)), fresh)


def journal(request: str, bands: BandChoice, stretch: Stretch, source: SourceFingerprint) -> dict[str, Any]:
    """Return what the journal says about the stretch and the raster's state."""
    return {
        "stretch_request": request,
        "bands": list(bands.indexes),
        "stretch": stretch.to_dict(),
        "source": source.to_dict(),
    }


def _stored(path: Path, bands: BandChoice, request: str) -> Iterator[tuple[SourceFingerprint, Stretch]]:
    for home in index_homes(path):
        for file in sorted(home.glob(f"*/{JOURNAL_FILE}")):
            try:
                data = unseal(file.read_bytes())
                if data["stretch_request"] == request and data["bands"] == list(bands.indexes):
                    yield SourceFingerprint.from_dict(data["source"]), Stretch.from_dict(data["stretch"])
            except (OSError, ValueError, KeyError, TypeError, StretchError):
                continue


def _near(stored: Stretch, fresh: Stretch) -> bool:
    if stored.kind != fresh.kind or len(stored.low) != len(fresh.low):
        return False
    ends = zip(stored.low, fresh.low, stored.high, fresh.high, strict=True)
    return all(max(abs(a - b), abs(c - d)) <= _SAME * (d - b) for a, b, c, d in ends)
