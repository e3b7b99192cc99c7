"""The image behind a picture: the raster, or a part of it, small enough to print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from shapely import affinity

from tiling.canvas import preview_canvas
from tiling.grid import Window
from tiling.reader import read_windows

if TYPE_CHECKING:
    import shapely
    from numpy.typing import NDArray

    from tiling.radiometry import BandChoice, Stretch
    from tiling.raster import Raster

_WINDOW_PX = 1024


@dataclass(frozen=True, slots=True)
class Preview:
    """A decimated RGB image of a raster."""

    image: NDArray[np.uint8]
    """(H, W, 3)"""
    valid: NDArray[np.bool_]
    """(H, W)"""
    transform: Affine


def read_preview(
    raster: Raster,
    *,
    bands: BandChoice,
    stretch: Stretch,
    area: shapely.Geometry | None = None,
    max_px: int = 1600,
    jobs: int = 2,
) -> Preview:
    """Read at most ``max_px`` × ``max_px`` pixels of the raster, or of the bounding box of ``area``.

    Memory: the picture itself and the reader's bound; never the raster.
    """
    full = preview_canvas(raster.info, 1.0)
    left, top, right, bottom = 0.0, 0.0, full.raster_width_px, full.raster_height_px
    if area is not None:
        t = ~full.transform
        x0, y0, x1, y1 = affinity.affine_transform(area, (t.a, t.b, t.d, t.e, t.c, t.f)).bounds
        left, top, right, bottom = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
    factor = max(1.0, (right - left) / max_px, (bottom - top) / max_px)
    canvas = preview_canvas(raster.info, factor)
    x, y = int(left / factor), int(top / factor)
    width = max(1, min(canvas.width_px - x, round((right - left) / factor)))
    height = max(1, min(canvas.height_px - y, round((bottom - top) / factor)))
    image = np.zeros((height, width, 3), np.uint8)
    valid = np.zeros((height, width), bool)
    windows = [
        Window(x + col, y + row, min(_WINDOW_PX, width - col), min(_WINDOW_PX, height - row), 0, 0)
        for row in range(0, height, _WINDOW_PX)
        for col in range(0, width, _WINDOW_PX)
    ]
    for tile in read_windows(raster, canvas, windows, bands=bands, stretch=stretch, jobs=jobs):
        row, col = tile.window.row_off_px - y, tile.window.col_off_px - x
        place = np.s_[row : row + tile.window.height_px, col : col + tile.window.width_px]
        image[place] = tile.array.transpose(1, 2, 0)
        valid[place] = tile.valid
    return Preview(image, valid, canvas.transform * Affine.translation(x, y))
