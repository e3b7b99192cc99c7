"""Pictures of what a model sees: its scores over the image, with the truth and its best place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

LONGEST_PX = 1280
MOST = 3
_TRUTH, _POINT = (0, 255, 255), (255, 255, 255)


def best_and_worst(values: Sequence[float], most: int = MOST) -> Iterator[tuple[str, int]]:
    """Yield names (``best-1`` …, ``worst-1`` …) and places of the highest and the lowest values, none twice."""
    order = [int(place) for place in np.argsort(values, kind="stable")[::-1] if np.isfinite(values[int(place)])]
    best = order[:most]
    worst = order[max(len(best), len(order) - most) :][::-1]
    yield from ((f"best-{rank}", place) for rank, place in enumerate(best, start=1))
    yield from ((f"worst-{rank}", place) for rank, place in enumerate(worst, start=1))


def draw(
    path: Path, image: NDArray[np.uint8], scores: NDArray[np.float32], shapes: Sequence[ArrayLike],
    point_xy_px: Sequence[float] | None = None, threshold: float = 0.5,
) -> None:  # fmt: skip
    """Write a picture, its longer side at most 1280 px.

    Args:
        path: A PNG; its folder is made.
        image: (H, W, 3) uint8 RGB.
        scores: (h, w) 0..1, spread over the whole image; NaN where there is none.
        shapes: True polygons (N, 2) of x, y in the image's pixels.
        point_xy_px: The model's best place.
        threshold: Score below which hardly any colour is laid on.
    """
    from PIL import Image, ImageDraw

    from geoalign_core.export.colors import heat_alpha, heat_rgb
    from tiling.files import atomic_file

    height, width = image.shape[:2]
    factor = min(1.0, LONGEST_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    ground = np.asarray(Image.fromarray(image).resize(size), np.float32)
    heat = np.asarray(Image.fromarray(np.nan_to_num(scores).astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    alpha = np.asarray(heat_alpha(heat, threshold), np.float32)[..., None]
    picture = Image.fromarray(np.rint(ground * (1 - alpha) + heat_rgb(heat, threshold) * alpha).astype(np.uint8))
    pencil = ImageDraw.Draw(picture)
    for shape in shapes:
        corners = [(float(x) * factor, float(y) * factor) for x, y in np.asarray(shape, np.float64)]
        pencil.line([*corners, corners[0]], fill=_TRUTH, width=2)
    if point_xy_px is not None:
        x, y = (value * factor for value in point_xy_px)
        pencil.ellipse((x - 9, y - 9, x + 9, y + 9), outline=_POINT, width=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as temporary:
        picture.save(temporary, "PNG")
