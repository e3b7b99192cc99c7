"""How an image lies on the page: size, scale and north, from its affine and its coordinate system alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.geodesy import ground_size_m

if TYPE_CHECKING:
    from affine import Affine

LONG_SIDE_PX = 1600
TALLEST_PX = 1400
SMALLEST_LONG_SIDE_PX = 1100
THINNEST_PX = 24
"""A side that would be thinner than this is stretched, for nobody could see it."""


@dataclass(frozen=True, slots=True)
class View:
    """The frame of a picture, in display pixels, which are square on the ground unless ``stretch`` says otherwise."""

    width_px: int
    height_px: int
    zoom_x: float
    """Display pixels per image pixel along a row."""
    zoom_y: float
    to_map: Affine
    """Display pixels to map coordinates."""
    unit_per_px: float | None
    """Length of one display pixel in :attr:`unit`; None when the scale is unknown."""
    unit: str
    """``"m"`` of true ground, or ``"px"`` of the raster when it has no coordinate system."""
    stretch: float
    """How many times the short side is drawn longer than true; 1 = not at all."""


def plan_view(width_px: int, height_px: int, transform: Affine, crs: Any) -> View:  # noqa: ANN401
    """Choose the size at which an image is drawn.

    The aspect is that of the ground, so a raster in degrees at 60° north is not drawn twice too wide.

    Args:
        width_px: Columns of the image.
        height_px: Rows of the image.
        transform: Image pixels to map coordinates.
        crs: The coordinate system, or None.
    """
    from affine import Affine

    ground = ground_size_m(crs, transform, width_px, height_px)
    lengths = ground or (math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e))
    pixel_aspect = float(np.clip(lengths[1] / lengths[0], 0.2, 5.0)) if min(lengths) > 0 else 1.0
    wide, tall = float(width_px), height_px * pixel_aspect
    target = min(max(2 * max(wide, tall), SMALLEST_LONG_SIDE_PX), LONG_SIDE_PX)
    zoom = min(target / wide, target / tall, (TALLEST_PX / tall) if wide > 0.6 * tall else math.inf)
    true_w, true_h = wide * zoom, tall * zoom
    shown_w, shown_h = max(round(true_w), THINNEST_PX), max(round(true_h), THINNEST_PX)
    zoom_x, zoom_y = shown_w / width_px, shown_h / height_px
    along_x = shown_w >= shown_h
    length = lengths[0] / zoom_x if along_x else lengths[1] / zoom_y
    return View(
        width_px=shown_w,
        height_px=shown_h,
        zoom_x=zoom_x,
        zoom_y=zoom_y,
        to_map=transform * Affine.scale(1 / zoom_x, 1 / zoom_y),
        unit_per_px=length if length > 0 and (ground or crs is None) else None,
        unit="px" if crs is None else "m",
        stretch=max(shown_w / true_w, shown_h / true_h) if min(true_w, true_h) < THINNEST_PX - 1 else 1.0,
    )


def north_on_page(view: View, crs: Any) -> tuple[float, float] | None:  # noqa: ANN401
    """Return the unit vector (x right, y down) that points to true north at the centre of the frame.

    Where true north cannot be computed the direction of growing y of the map stands in; without a coordinate
    system there is none.
    """
    if crs is None:
        return None
    x, y = view.to_map * (view.width_px / 2, view.height_px / 2)
    dx, dy = _true_north(crs, x, y) or (0.0, 1.0)
    inverse = ~view.to_map
    right, down = inverse.a * dx + inverse.b * dy, inverse.d * dx + inverse.e * dy
    length = math.hypot(right, down)
    return (right / length, down / length) if length > 0 and math.isfinite(length) else None


def _true_north(crs: Any, x: float, y: float) -> tuple[float, float] | None:  # noqa: ANN401
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        projected = CRS.from_user_input(crs if isinstance(crs, str) else crs.to_wkt()).to_2d()
        if projected.geodetic_crs is None:
            return None
        transformer = Transformer.from_crs(projected, projected.geodetic_crs.to_2d(), always_xy=True)
        lon, lat = transformer.transform(x, y)
        step = 1e-4 if lat < 89.9 else -1e-4
        ahead = transformer.transform([lon, lon], [lat, lat + step], direction="INVERSE")
    except ProjError:
        return None
    dx, dy = (ahead[0][1] - ahead[0][0]) / step, (ahead[1][1] - ahead[1][0]) / step
    return (dx, dy) if math.isfinite(dx) and math.isfinite(dy) and (dx or dy) else None


def round_length(longest: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20 … (and 0.5, 0.2 …) that is not above ``longest`` (> 0)."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max((step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)), default=power)


def length_label(length: float, unit: str) -> str:
    """Return ``"50 m"``, ``"2 km"``, ``"20 cm"`` or ``"500 px"``."""
    if unit == "px":
        return f"{length:g} px"
    if length >= 1000:
        return f"{length / 1000:,.0f} km" if length >= 1e6 else f"{length / 1000:g} km"
    return f"{length:g} m" if length >= 1 else f"{length * 100:g} cm"
