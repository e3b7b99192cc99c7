"""Plain facts about an open raster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from affine import Affine
    from rasterio.crs import CRS


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Size of one compressed block."""

    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """Facts about an open raster; nothing here needs another look at the file."""

    path: Path
    driver: str
    width_px: int
    height_px: int
    count: int
    dtype: str
    """numpy name of the first band's type; GDAL's ``complex_int16`` for that one."""
    crs: CRS | None
    """None also when there is no geotransform, because map coordinates would then be wrong."""
    transform: Affine
    is_georeferenced: bool
    """Whether there is a geotransform. Control points and RPCs alone are not one."""
    nodata: float | None
    band_nodata: tuple[float | None, ...]
    alpha_band: int | None
    has_mask: bool
    """Whether a mask band (internal or ``.msk``) lies beside the bands."""
    colorinterp: tuple[str, ...]
    has_palette: bool
    nbits: int | None
    """Bits used per sample where fewer than the type has (1, 4, 12)."""
    overviews: tuple[int, ...]
    block_px: BlockShape
    gsd_x_m: float | None
    """Ground metres of one column step at the centre, on the ellipsoid; None without a CRS."""
    gsd_y_m: float | None
    has_gcps: bool = False
    has_rpcs: bool = False

    @property
    def gsd_m(self) -> float | None:
        """Side in metres of a square as large as one pixel, or None."""
        return math.sqrt(self.gsd_x_m * self.gsd_y_m) if self.gsd_x_m and self.gsd_y_m else None

    @property
    def is_rotated(self) -> bool:
        """Whether rows and columns are not along the axes of the CRS."""
        return bool(self.transform.b or self.transform.d)

    @property
    def is_south_up(self) -> bool:
        """Whether the first row is the southernmost."""
        return bool(self.transform.e > 0) and self.is_georeferenced

    @property
    def validity(self) -> Literal["alpha", "mask", "nodata", "none"]:
        """What tells missing pixels apart, the highest in rank; a nodata value that the type cannot hold does not."""
        if self.alpha_band is not None:
            return "alpha"
        if self.has_mask:
            return "mask"
        return "nodata" if all(_holds(self.dtype, value) for value in self.band_nodata) else "none"

    @property
    def is_complex(self) -> bool:
        """Whether samples are complex numbers."""
        return self.dtype.startswith("complex")

    def why_no_metres(self) -> str | None:
        """Say in a few words why ground distances are unknown, or None when they are known."""
        if self.gsd_x_m is not None:
            return None
        if self.has_gcps or self.has_rpcs:
            kind = "ground control points" if self.has_gcps else "RPCs"
            return f"it is placed only by {kind}"
        if not self.is_georeferenced:
            return "it has no geotransform"
        return "it has no CRS" if self.crs is None else "its centre lies outside its CRS"


def _holds(dtype: str, value: float | None) -> bool:
    """Say whether samples of a type can be equal to ``value``, NaN included."""
    import numpy as np

    if value is None or dtype == "complex_int16":
        return False
    if not np.issubdtype(dtype, np.integer):
        return True
    return math.isfinite(value) and value == int(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def sample_bytes(dtype: str) -> int:
    """Return the size of one sample; rasterio's ``complex_int16`` is no name of numpy's."""
    import numpy as np

    return 4 if dtype == "complex_int16" else int(np.dtype(dtype).itemsize)
