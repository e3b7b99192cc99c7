"""Colour names of pixels: judged in CIELAB, relative to the picture's own grey, and only where they are clear.

Cameras and shade tint what is grey. Its tint is taken from the picture: the median of its dull pixels is what this
camera shows of grey, and the channels are scaled (von Kries, in linear light) until it is grey. Then chroma decides
whether there is a hue. Chroma of CIELAB is near to what people see, also in the dark, where ratios of channels such
as HSV's saturation make dark grey as "coloured" as a red roof. Between grey and a hue lies doubt, as between black,
grey and white: such a pixel has no name. The borders are ours (no standard names colours of aerial images), set by
looking at cars seen from a drone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = ("black", "white", "gray", "red", "brown", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
UNNAMED = len(COLOURS)
"""Index of pixels between two names."""

# Chroma C* and lightness L* of CIELAB (L* is 0 to 100): greys end where a hue may be seen at all; a hue is sure where
# people would call it no grey: steel blue paint lies at 20 to 30, dark paint that mirrors the sky at 8 to 15.
_GREY_CHROMA, _HUE_CHROMA = 10.0, 22.0
_HUE_L = 13.0  # darker is called black or a dark hue, as people please
_REDDISH = 5.0  # a* as shown
_BLACK_L, _GREY_L, _WHITE_L = 26.0, (40.0, 70.0), 80.0
# Upper border of each hue in degrees of HSV and its name; red closes the circle.
_HUES = ((15.0, "red"), (42.0, "orange"), (68.0, "yellow"), (165.0, "green"), (195.0, "cyan"), (260.0, "blue"),
         (300.0, "purple"), (345.0, "pink"), (360.0, "red"))  # fmt: skip
_BROWN_VALUE, _DULL_RED_VALUE, _PINK_VALUE, _FULL_SATURATION = 0.65, 0.5, 0.6, 0.6

_SAMPLE_PX = 128
_DULL_CHROMA, _DULL_L, _LEAST_DULL = 16.0, (15.0, 95.0), 0.1
_CLIPPED = 0.98  # of the range: a channel at its end says nothing of the tint

# Linear sRGB → XYZ of D65, each row divided by the white point (IEC 61966-2-1).
_TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041],
], dtype=np.float32)  # fmt: skip
_TO_XYZ /= _TO_XYZ.sum(axis=1, keepdims=True)
_LEVELS = np.arange(256) / 255
_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)


def lab(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return CIELAB (L*, a*, b*) of linear sRGB (…, 3) in [0, 1] under D65."""
    xyz = linear @ _TO_XYZ.T
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def tint_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how much of each channel (3,) the picture's grey has, relative to its luminance; ones for no tint.

    Args:
        image: Whole picture (H, W, 3). One without a tenth of dull pixels (a forest, the sea) is left as it is.
    """
    step = max(1, max(image.shape[:2]) // _SAMPLE_PX)
    sample = image[::step, ::step].reshape(-1, 3)
    linear = _LINEAR[sample]
    light, a, b = np.moveaxis(lab(linear), -1, 0)
    dull = (np.hypot(a, b) < _DULL_CHROMA) & (light > _DULL_L[0]) & (light < _DULL_L[1])
    dull &= sample.max(axis=-1) < _CLIPPED * 255
    if dull.sum() < _LEAST_DULL * len(sample):
        return np.ones(3, dtype=np.float32)
    chosen = linear[dull]
    ratio = np.median(chosen / (chosen @ _TO_XYZ[1])[:, None], axis=0)
    return (ratio / (ratio @ _TO_XYZ[1])).astype(np.float32)


def colour_indices(pixels: NDArray[np.uint8], tint: NDArray[np.float32] | None = None) -> NDArray[np.intp]:
    """Name the pixels (…, 3) that have a clear colour: indices into :data:`COLOURS`, else :data:`UNNAMED`."""
    light, chroma, hue = _measured(pixels, tint)
    result = np.full(light.shape, UNNAMED, dtype=np.intp)
    grey = chroma < _GREY_CHROMA
    result[grey & _black(pixels) & (light < _BLACK_L)] = COLOURS.index("black")
    result[grey & (light >= _GREY_L[0]) & (light <= _GREY_L[1])] = COLOURS.index("gray")
    result[grey & (light >= _WHITE_L)] = COLOURS.index("white")
    return np.where((chroma >= _HUE_CHROMA) & (light >= _HUE_L), hue, result)


def _black(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether dark pixels (…, 3) may be black as the camera shows them: black paint mirrors the sky, so it is bluish.

    Reddish is maroon, also where the tint of reddish concrete would make it grey.
    """
    _, a, b = np.moveaxis(lab(_LINEAR[pixels]), -1, 0)
    return (np.hypot(a, b) < _GREY_CHROMA) & (a < _REDDISH)


def colours_possible(pixels: NDArray[np.uint8], tint: NDArray[np.float32] | None = None) -> NDArray[np.bool_]:
    """Return which colours each pixel (…, 3) may have, (…, 12): the clear one, or all between which it lies."""
    light, chroma, hue = _measured(pixels, tint)
    result = (hue[..., None] == np.arange(len(COLOURS))) & (chroma >= _GREY_CHROMA)[..., None]
    shades = {
        "black": light < _GREY_L[0],
        "gray": (light > _BLACK_L) & (light < _WHITE_L),
        "white": light > _GREY_L[1],
    }
    for name, may in shades.items():
        result[..., COLOURS.index(name)] = may & ((chroma < _HUE_CHROMA) | (light < _HUE_L))
    return result


def _measured(
    pixels: NDArray[np.uint8], tint: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """Return lightness, chroma and the index of the hue's name of every pixel without the tint."""
    linear = _LINEAR[pixels]
    if tint is not None:
        linear = np.minimum(linear / tint, 1)
    light, a, b = np.moveaxis(lab(linear), -1, 0)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return light, np.hypot(a, b), _hue_names(encoded)


def _hue_names(rgb: NDArray[np.float32]) -> NDArray[np.intp]:
    """Name the hue of sRGB values (…, 3) in [0, 1], of whatever chroma."""
    hue, saturation, value = hsv(rgb)
    at = COLOURS.index
    named = np.asarray([at(name) for _, name in _HUES])
    result = named[np.searchsorted([border for border, _ in _HUES[:-1]], hue, side="right")]
    # Dark orange and dull dark red are what people call brown: soil, roofs, dry grass. Dark or full pink is red.
    result = np.where((result == at("orange")) & (value < _BROWN_VALUE), at("brown"), result)
    dull_red = (result == at("red")) & (value < _DULL_RED_VALUE) & (saturation < _FULL_SATURATION)
    result = np.where(dull_red, at("brown"), result)
    full = (value < _PINK_VALUE) | (saturation > _FULL_SATURATION)
    return np.where((result == at("pink")) & full, at("red"), result)


def hsv(rgb: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return hue in degrees [0, 360), saturation and value in [0, 1] of sRGB values (…, 3) in [0, 1]."""
    value, low = rgb.max(axis=-1), rgb.min(axis=-1)
    span = value - low
    safe = np.where(span > 0, span, 1)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = np.where(value == r, (g - b) / safe % 6, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    return np.where(span > 0, hue, 0), span / np.where(value > 0, value, 1), value
