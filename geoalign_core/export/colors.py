"""The colours of answers, as data: one heat ramp, its transparency, and colours for classes.

The picture and the QGIS styles take their colours from here, so that a heatmap looks the same everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HEAT_STOPS: tuple[tuple[int, int, int], ...] = (
    (92, 1, 166),
    (143, 13, 164),
    (184, 50, 137),
    (219, 92, 104),
    (244, 136, 73),
    (254, 189, 42),
    (240, 249, 33),
)
"""RGB at equal steps from a weak to a strong match: violet, magenta, orange, yellow.

Lightness rises evenly along the ramp, so it reads without colour vision, and none of its hues is common in
imagery of the ground.
"""

HEAT_ALPHA_MAX = 0.72
"""Opacity of the strongest match; the image must stay readable below it."""

_CLASS_BASE: tuple[tuple[int, int, int], ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (86, 180, 233),
    (120, 94, 60),
    (153, 153, 153),
    (51, 34, 136),
)
"""The eight colours of Okabe and Ito (black replaced, for it hides in imagery) and three neutrals to go on."""


def heat_floor(threshold: float) -> float:
    """Return the score in 0..1 below which the heatmap is fully transparent: a little under ``threshold``."""
    return 0.8 * float(np.clip(threshold, 0.0, 0.999))


def heat_rgb(scores: ArrayLike, threshold: float) -> NDArray[np.uint8]:
    """Give each score its colour of the ramp, which is stretched from :func:`heat_floor` to 1.

    Args:
        scores: Any shape, 0..1; NaN gets the first colour.
        threshold: The limit of a match, 0..1.

    Returns:
        uint8 of shape ``scores.shape + (3,)``.
    """
    floor = heat_floor(threshold)
    position = (np.nan_to_num(np.asarray(scores, dtype=np.float32), nan=0.0) - floor) / (1.0 - floor)
    knots = np.linspace(0.0, 1.0, len(HEAT_STOPS))
    channels = np.asarray(HEAT_STOPS, dtype=np.float32).T
    return np.stack([np.interp(position, knots, channel) for channel in channels], axis=-1).round().astype(np.uint8)


def heat_alpha(scores: ArrayLike, threshold: float) -> NDArray[np.float32]:
    """Give each score its opacity: 0 below :func:`heat_floor` and for NaN, rising softly above the threshold.

    Args:
        scores: Any shape, 0..1, NaN where there is no data.
        threshold: The limit of a match, 0..1.

    Returns:
        float32 of the same shape, 0..:data:`HEAT_ALPHA_MAX`.
    """
    values = np.asarray(scores, dtype=np.float32)
    floor = heat_floor(threshold)
    full = threshold + 0.6 * (1.0 - threshold)
    ramp = np.clip((np.nan_to_num(values, nan=0.0) - floor) / max(full - floor, 1e-6), 0.0, 1.0)
    return (HEAT_ALPHA_MAX * ramp * ramp * (3.0 - 2.0 * ramp)).astype(np.float32)


def class_colors(n: int) -> list[tuple[int, int, int]]:
    """Return ``n`` distinct RGB colours; the first ten can be told apart without full colour vision.

    Beyond ten, hues go round by the golden angle at four alternating lightnesses, skipping any colour that is
    already taken.

    Args:
        n: How many, 0 or more.
    """
    import colorsys

    colors = list(_CLASS_BASE[:n])
    step = 0
    while len(colors) < n:
        hue = (step * 0.618033988749895) % 1.0
        lightness = (0.42, 0.66, 0.32, 0.78)[step % 4]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, (0.75, 0.55)[step // 4 % 2])
        color = (round(255 * red), round(255 * green), round(255 * blue))
        if color not in colors:
            colors.append(color)
        step += 1
    return colors
