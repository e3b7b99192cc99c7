"""The pixels inside the frame: the image, and over it the heat or the classes, in display pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.export.colors import heat_alpha, heat_rgb

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

    from geoalign_core.export.view import View

_CHECKER_PX = 12
_CHECKER_GREY = (250, 236)
_PIXELS_VISIBLE_FROM = 4.0
"""Zoom from which image pixels are shown as squares instead of being smoothed."""


def render_image(image: NDArray[np.uint8], valid: NDArray[np.bool_] | None, view: View) -> NDArray[np.float32]:
    """Return the image at display size, a light checker where there is no data.

    Args:
        image: (H, W, 3) uint8.
        valid: (H, W), or None when every pixel is.
        view: The frame.

    Returns:
        (height, width, 3) float32, 0..255.
    """
    from PIL import Image

    alpha = np.full(image.shape[:2], 255, np.uint8) if valid is None else np.where(valid, 255, 0).astype(np.uint8)
    zoom = min(view.zoom_x, view.zoom_y)
    method = Image.Resampling.LANCZOS if zoom < 1 else Image.Resampling.BICUBIC
    if zoom >= _PIXELS_VISIBLE_FROM:
        method = Image.Resampling.NEAREST
    picture = Image.fromarray(np.dstack([image, alpha])).resize((view.width_px, view.height_px), method)
    layered = np.asarray(picture, dtype=np.float32)
    opacity = layered[..., 3:] / 255
    shown = layered[..., :3] * opacity + _checker(view)[..., None] * (1 - opacity)
    return shown.astype(np.float32, copy=False)


def _checker(view: View) -> NDArray[np.float32]:
    rows, cols = np.ogrid[: view.height_px, : view.width_px]
    odd = (rows // _CHECKER_PX + cols // _CHECKER_PX) % 2
    return np.asarray(_CHECKER_GREY, dtype=np.float32)[odd]


def place_heat(heat: NDArray[np.float32], heat_transform: Affine, view: View) -> NDArray[np.float32]:
    """Resample a heatmap bilinearly into the frame; a heatmap finer than the frame is averaged first.

    Args:
        heat: (h, w), NaN where there is no data.
        heat_transform: Heat pixels to map coordinates.
        view: The frame.

    Returns:
        (height, width) float32, NaN outside the heatmap and where it has no data.
    """
    from scipy.ndimage import map_coordinates

    heat, heat_transform = _thin(np.asarray(heat, dtype=np.float32), heat_transform, view)
    rows, cols = _positions(heat_transform, view)
    inside = (rows >= -0.5) & (rows <= heat.shape[0] - 0.5) & (cols >= -0.5) & (cols <= heat.shape[1] - 0.5)
    known = ~np.isnan(heat)
    where = np.stack([rows, cols])
    weight = map_coordinates(known.astype(np.float32), where, order=1, mode="nearest")
    value = map_coordinates(np.where(known, heat, 0).astype(np.float32), where, order=1, mode="nearest")
    visible = inside & (weight > 0.5)
    return np.where(visible, value / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def place_classes(classes: NDArray[np.uint8], class_transform: Affine, view: View) -> NDArray[np.uint8]:
    """Resample a class map into the frame by the nearest pixel; 0 outside it."""
    rows, cols = (np.rint(axis).astype(np.int64) for axis in _positions(class_transform, view))
    inside = (rows >= 0) & (rows < classes.shape[0]) & (cols >= 0) & (cols < classes.shape[1])
    taken = classes[np.clip(rows, 0, classes.shape[0] - 1), np.clip(cols, 0, classes.shape[1] - 1)]
    return np.where(inside, taken, 0).astype(np.uint8)


def blend_heat(base: NDArray[np.float32], heat: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Lay the heat over the image, transparent below the threshold."""
    alpha = heat_alpha(heat, threshold)[..., None]
    return _mix(base, heat_rgb(heat, threshold), alpha)


def blend_classes(
    base: NDArray[np.float32], classes: NDArray[np.uint8], colors: list[tuple[int, int, int]], opacity: float
) -> NDArray[np.uint8]:
    """Lay class colours over the image with one opacity, 0..1; class 0 stays clear."""
    table = np.asarray([(0, 0, 0), *colors], dtype=np.float32)
    alpha = np.where(classes > 0, np.float32(opacity), np.float32(0))[..., None]
    return _mix(base, table[classes], alpha)


def _mix(base: NDArray[np.float32], top: NDArray[Any], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(base * (1 - alpha) + top * alpha, 0, 255).round().astype(np.uint8)


def _positions(transform: Affine, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the row and column in a grid of each display pixel's centre; 0 is the centre of the first pixel."""
    to_grid = ~transform * view.to_map
    x = (np.arange(view.width_px) + 0.5)[None, :]
    y = (np.arange(view.height_px) + 0.5)[:, None]
    cols = to_grid.a * x + to_grid.b * y + to_grid.c - 0.5
    rows = to_grid.d * x + to_grid.e * y + to_grid.f - 0.5
    return rows.astype(np.float32), cols.astype(np.float32)


def _thin(heat: NDArray[np.float32], transform: Affine, view: View) -> tuple[NDArray[np.float32], Affine]:
    """Average whole blocks when several heat pixels fall on one display pixel."""
    from affine import Affine

    to_grid = ~transform * view.to_map
    by_row = max(int(np.hypot(to_grid.d, to_grid.e)), 1)
    by_col = max(int(np.hypot(to_grid.a, to_grid.b)), 1)
    by_row, by_col = min(by_row, heat.shape[0]), min(by_col, heat.shape[1])
    if by_row == by_col == 1:
        return heat, transform
    pad = ((0, -heat.shape[0] % by_row), (0, -heat.shape[1] % by_col))
    blocks = np.pad(heat, pad, constant_values=np.nan)
    blocks = blocks.reshape(blocks.shape[0] // by_row, by_row, blocks.shape[1] // by_col, by_col)
    known = ~np.isnan(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0).sum(axis=(1, 3))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean, transform * Affine.scale(by_col, by_row)
