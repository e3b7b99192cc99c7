"""What pixels look like in words: colour names by hue, brightness, texture; measured, never guessed.

Texture is the mean local standard deviation of the grey value; colours are those of
:mod:`training.builder.colours`.

A box holds background too: the tarmac around an aircraft is most of its box. So a region is described by the pixels
in its middle that differ from what surrounds it, and a colour is named only where it covers most of them and little
of the surroundings. Where that is not so, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.builder.colours import COLOURS, UNNAMED, colour_indices, colours_possible, tint_of
from training.data.fingerprints import luma, reduced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data.schema import Region

_DARK, _BRIGHT = 0.28, 0.68  # mean value
_SMOOTH, _ROUGH = 4.0, 16.0  # mean local standard deviation, grey levels of 255
_LEAST_SHARE = 0.2
_LEAST_PIXELS = 9
_MIDDLE, _INNER_EDGE, _OUTER_EDGE = 0.6, 1.05, 1.5  # of the region's sides: its middle, and the ring around it
_APART = 28.0  # grey levels by which an object's pixel differs from the median of its surroundings
_OBJECT_SHARE, _SURE, _MOST, _MOST_SHADE, _AROUND = 0.35, 0.6, 0.4, 0.5, 0.3
_SHADES = ("black", "gray")
_PRESENT, _HALF = 0.1, 0.5
_LONGEST_PX = 256


@dataclass(frozen=True, slots=True)
class Appearance:
    """Colour and texture statistics of some pixels."""

    colours: tuple[tuple[str, float], ...]
    """Names with their shares of the pixels, largest first; only shares of a fifth and more."""
    brightness: str
    """``dark``, ``medium`` or ``bright``."""
    texture: str
    """``smooth``, ``moderately textured`` or ``rough``."""
    mean_value: float
    """Mean of HSV value, 0 to 1."""
    local_std: float
    """Mean standard deviation in 3 × 3 windows, grey levels of 255."""

    @property
    def colour(self) -> str | None:
        """The one colour that covers at least three fifths of the pixels, or None."""
        return self.colours[0][0] if self.colours and self.colours[0][1] >= _SURE else None


def local_std(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation in the 3 × 3 window around every pixel (H, W), edges mirrored."""
    from scipy.ndimage import uniform_filter

    wide = values.astype(np.float64)
    mean = uniform_filter(wide, 3, mode="mirror")
    return np.sqrt(np.maximum(uniform_filter(wide * wide, 3, mode="mirror") - mean * mean, 0)).astype(np.float32)


def appearance(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None, tint: NDArray[np.float32] | None = None
) -> Appearance | None:
    """Describe pixels (H, W, 3), or those under a mask (H, W), of a picture with a tint; None for fewer than nine."""
    inside = np.ones(pixels.shape[:2], dtype=bool) if mask is None else mask
    if int(inside.sum()) < _LEAST_PIXELS:
        return None
    chosen = pixels[inside]
    share = np.bincount(colour_indices(chosen, tint), minlength=UNNAMED + 1)[:UNNAMED] / len(chosen)
    order = np.argsort(-share, kind="stable")
    named = tuple((COLOURS[i], round(float(share[i]), 3)) for i in order if share[i] >= _LEAST_SHARE)
    value = float(chosen.max(axis=-1).mean()) / 255
    std = float(local_std(luma(pixels))[inside].mean())
    return Appearance(
        named,
        "dark" if value < _DARK else "bright" if value > _BRIGHT else "medium",
        "smooth" if std < _SMOOTH else "rough" if std > _ROUGH else "moderately textured",
        round(value, 3),
        round(std, 2),
    )


def region_appearance(
    image: NDArray[np.uint8], region: Region, tint: NDArray[np.float32] | None = None
) -> Appearance | None:  # fmt: skip
    """Describe the object in a region of an image (H, W, 3) by the pixels that are surely its own.

    Args:
        image: Whole picture.
        region: Its box.
        tint: From :func:`training.builder.colours.tint_of`, where several regions of a picture are asked for.

    Returns:
        None for a few pixels, or where the middle does not differ from what is around. ``colours`` is empty where no
        colour is sure.
    """
    part, masks = _cut(image, region)
    middle, whole, ring = masks
    if int(middle.sum()) < _LEAST_PIXELS:
        return None
    if int(ring.sum()) < _LEAST_PIXELS:  # the region fills the image, which has no grey of its own to judge by
        return appearance(part, whole)
    apart = np.abs(part.astype(np.float32) - np.median(part[ring], axis=0)).max(axis=-1) > _APART
    own = middle & apart
    if own.sum() < max(_LEAST_PIXELS, _OBJECT_SHARE * middle.sum()):
        return None
    tint = tint_of(image) if tint is None else tint
    look = appearance(part, own, tint)
    if look is None:
        return None
    names = colour_indices(part, tint)
    return look if look.colour and _sure(look.colour, names, apart, masks) else replace(look, colours=())


def _sure(colour: str, names: NDArray[np.intp], apart: NDArray[np.bool_], masks: tuple[NDArray[np.bool_], ...]) -> bool:
    """Whether a colour is the object's: of more than its middle (a roof), and neither its windows nor its ground.

    What differs from the ground of a grey car is its windows: a car is black or grey only if all of its middle is.
    """
    middle, whole, ring = masks
    has = names == COLOURS.index(colour)
    if has[ring].mean() > _AROUND:
        return False
    if colour in _SHADES:
        return bool(has[middle].mean() >= _SURE and has[whole & apart].mean() >= _MOST_SHADE)
    return bool(has[whole & apart].mean() >= _MOST)


def colours_present(image: NDArray[np.uint8], region: Region) -> frozenset[str]:
    """Return the colours that a tenth of a region's box or of its middle may have: all others are surely absent.

    Doubt counts for a colour: between two, and whether the picture is tinted or the scene is.
    """
    part, (middle, whole, _) = _cut(image, region)
    shares = [
        colours_possible(part[mask], tint).sum(axis=0) / max(1, mask.sum())
        for tint in (None, tint_of(image))
        for mask in (middle, whole)
    ]
    return frozenset(COLOURS[i] for i in np.flatnonzero(np.max(shares, axis=0) >= _PRESENT))


def colours_shown(
    image: NDArray[np.uint8], region: Region, tint: NDArray[np.float32] | None = None
) -> frozenset[str] | None:  # fmt: skip
    """Return the colours that a region shows: clearly on a tenth of its box or middle, or maybe on half of one.

    Unlike :func:`region_appearance` this takes all pixels, whatever surrounds them, and both the picture as it is and
    without its tint, so that a colour that is missing here is one that people would not see either.

    Returns:
        None for fewer than nine pixels: nothing can be said.
    """
    part, (middle, whole, _) = _cut(image, region)
    if min(middle.sum(), whole.sum()) < _LEAST_PIXELS:
        return None
    tint, found = tint_of(image) if tint is None else tint, set[str]()
    for pixels in (part[middle], part[whole]):
        for names in (colour_indices(pixels), colour_indices(pixels, tint)):
            clear = np.bincount(names, minlength=UNNAMED + 1)[:UNNAMED] / len(pixels)
            found |= {COLOURS[i] for i in np.flatnonzero(clear >= _PRESENT)}
        maybe = colours_possible(pixels, tint).mean(axis=0)
        found |= {COLOURS[i] for i in np.flatnonzero(maybe >= _HALF)}
    return frozenset(found)


def _cut(image: NDArray[np.uint8], region: Region) -> tuple[NDArray[np.uint8], tuple[NDArray[np.bool_], ...]]:
    """Cut a region and its surroundings out of an image, at most 256 px; with masks of middle, whole and ring."""
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    x1, y1, x2, y2 = region.bbox
    corners = np.reshape(region.obb or (x1, y1, x2, y1, x2, y2, x1, y2), (4, 2)) * (width, height)
    centre = corners.mean(axis=0)
    # A thin region still has a ring of two pixels around it.
    outer = centre + (corners - centre) * _OUTER_EDGE + 2 * np.sign(corners - centre)
    left, top = (max(0, int(edge)) for edge in np.floor(outer.min(axis=0)))
    right, bottom = np.ceil(outer.max(axis=0)).astype(int)
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    small = reduced(part, _LONGEST_PX)
    scale = np.array([small.shape[1] / max(1, part.shape[1]), small.shape[0] / max(1, part.shape[0])])

    def mask(shape: NDArray[np.float64]) -> NDArray[np.bool_]:
        canvas = Image.new("1", (small.shape[1], small.shape[0]))
        points = (shape - (left, top)) * scale - 0.5  # pixels' middles are whole numbers here
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1)
        return np.asarray(canvas, dtype=bool)

    inner = mask(centre + (corners - centre) * _INNER_EDGE)
    return small, (mask(centre + (corners - centre) * _MIDDLE), mask(corners), mask(outer) & ~inner)


def colours_in_words(look: Appearance) -> str:
    """Return the colours as words: "white", "gray and brown", or "of mixed colours"."""
    names = [name for name, _ in look.colours[:2]]
    return " and ".join(names) if names else "of mixed colours"
