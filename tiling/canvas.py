"""The canvas: a raster seen at the ground resolution at which it is worked on.

It begins at the raster's first corner, has square pixels of true metres, and reaches right and down beyond the
raster by less than ``snap_px`` so that its size is a multiple of a model's patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiling.errors import NotGeoreferencedError, UsageError

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

    from tiling.info import RasterInfo

SAME = 0.01
"""Resolutions closer than this share of each other count as equal: resampling by 0.1 % only blurs."""
_SLIVER_PX = 1e-3


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where canvas pixels lie, and which source pixels they are made of."""

    width_px: int
    """Columns, a multiple of the snap."""
    height_px: int
    transform: Affine
    """From canvas pixel to CRS coordinates."""
    crs: CRS | None
    gsd_m: float | None
    """True ground metres per pixel as planned; None in pixel mode."""
    scale_x: float
    """Source pixels per canvas pixel, along rows; above 1 when the canvas is coarser."""
    scale_y: float
    raster_width_px: float
    """The raster's own width in canvas pixels."""
    raster_height_px: float
    overview: int
    """Reduction factor of the overview that will be read; 1 is the full resolution."""
    requested_gsd_m: float | None = None

    @property
    def is_clamped(self) -> bool:
        """Whether the raster is too coarse for the resolution asked for."""
        if self.requested_gsd_m is None or self.gsd_m is None:
            return False
        return self.gsd_m > self.requested_gsd_m * (1 + 2 * SAME)

    @property
    def is_native(self) -> bool:
        """Whether canvas pixels are source pixels."""
        return self.scale_x == 1 and self.scale_y == 1


def plan_canvas(info: RasterInfo, gsd_m: float | None, *, snap_px: int = 1, max_upsample: float = 2.0) -> Canvas:
    """Lay the canvas over a raster.

    Args:
        info: The raster.
        gsd_m: Ground metres per canvas pixel; None keeps the raster's own resolution (made square in metres
            when its pixels are not, as in degrees).
        snap_px: The canvas's size becomes a multiple of this.
        max_upsample: The canvas is at most so many times finer than the raster; ``Canvas.gsd_m`` then tells
            the resolution that was possible.

    Raises:
        NotGeoreferencedError: Metres were asked of a raster whose place on the ground is unknown.
        UsageError: A number is out of range.
    """
    if snap_px < 1 or max_upsample < 1:
        raise UsageError("the snap and the upsampling limit are at least 1", measured=f"{snap_px}, {max_upsample}")
    if gsd_m is not None and not (math.isfinite(gsd_m) and gsd_m > 0):
        raise UsageError("the ground resolution must be a positive number of metres", measured=str(gsd_m))
    if info.gsd_x_m is None or info.gsd_y_m is None:
        if gsd_m is not None:
            raise no_metres(info)
        return _lay(info, 1.0, 1.0, None, None, snap_px)
    x_m, y_m = info.gsd_x_m, info.gsd_y_m
    coarse_m, fine_m = max(x_m, y_m), min(x_m, y_m)
    wanted_m = max(gsd_m or fine_m, coarse_m / max_upsample)
    if coarse_m <= fine_m * (1 + SAME):
        native_m = math.sqrt(x_m * y_m)
        scale = _rounded(wanted_m / native_m) if gsd_m else 1.0
        return _lay(info, scale, scale, native_m * scale, gsd_m, snap_px)
    return _lay(info, wanted_m / x_m, wanted_m / y_m, wanted_m, gsd_m, snap_px)


def pixel_canvas(info: RasterInfo, *, snap_px: int = 1) -> Canvas:
    """Lay the canvas pixel on pixel, also when the raster's pixels are not square on the ground."""
    return _lay(info, 1.0, 1.0, info.gsd_m, None, snap_px)


def preview_canvas(info: RasterInfo, factor: float) -> Canvas:
    """Lay a canvas for looking at: pixels ``factor`` times larger, square on the raster's own grid.

    Works without a CRS, because nothing is measured in it.
    """
    gsd_m = None if info.gsd_m is None else info.gsd_m * factor
    return _lay(info, factor, factor, gsd_m, None, 1)


def no_metres(info: RasterInfo) -> NotGeoreferencedError:
    """Return the error for metres asked of a raster whose place on the ground is unknown."""
    warpable = info.has_gcps or info.has_rpcs
    return NotGeoreferencedError(
        "metres are unknown for this raster",
        path=info.path,
        measured=info.why_no_metres(),
        remedy="place it with --crs or gdalwarp, or work in pixels" if warpable else "assign a CRS, or work in pixels",
    )


def _rounded(scale: float) -> float:
    """Return the whole number (or its inverse) that a scale nearly is, else the scale."""
    for whole, back in ((scale, False), (1 / scale, True)):
        near = round(whole)
        if near >= 1 and abs(whole - near) <= SAME * near:
            return 1 / near if back else float(near)
    return scale


def _lay(
    info: RasterInfo, scale_x: float, scale_y: float, gsd_m: float | None, requested_m: float | None, snap_px: int
) -> Canvas:
    width, height = info.width_px / scale_x, info.height_px / scale_y
    fitting = [factor for factor in info.overviews if factor <= min(scale_x, scale_y) * (1 + 1e-9)]
    return Canvas(
        width_px=_snapped(width, snap_px),
        height_px=_snapped(height, snap_px),
        transform=info.transform * info.transform.scale(scale_x, scale_y),
        crs=info.crs,
        gsd_m=gsd_m,
        scale_x=scale_x,
        scale_y=scale_y,
        raster_width_px=width,
        raster_height_px=height,
        overview=max(fitting, default=1),
        requested_gsd_m=requested_m,
    )


def _snapped(length_px: float, snap_px: int) -> int:
    whole = max(1, math.ceil(length_px - _SLIVER_PX))
    return -(-whole // snap_px) * snap_px
