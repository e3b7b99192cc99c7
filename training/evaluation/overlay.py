"""What a model sees, as pictures of a result: its scores over the image, with the truth and its best place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

SIDE_PX = 480
HEAT_PX = 256
"""Scores of more rows or columns are averaged: finer than this nobody sees in a picture of the page."""
MOST = 3


def best_and_worst(values: Sequence[float], most: int = MOST) -> Iterator[tuple[str, int]]:
    """Yield names (``best 1`` …, ``worst 1`` …) and places of the highest and the lowest values, none twice."""
    order = [int(place) for place in np.argsort(values, kind="stable")[::-1] if np.isfinite(values[int(place)])]
    best = order[:most]
    worst = order[max(len(best), len(order) - most) :][::-1]
    yield from ((f"best {rank}", place) for rank, place in enumerate(best, start=1))
    yield from ((f"worst {rank}", place) for rank, place in enumerate(worst, start=1))


def may_be_shown(values: Sequence[float], most: int = MOST) -> bool:
    """Say whether the last value is, so far, one that :func:`best_and_worst` yields."""
    before, last = np.asarray(values[:-1], np.float64), values[-1]
    return bool(np.isfinite(last)) and min(int((before > last).sum()), int((before <= last).sum())) < most


def overlaid(image: NDArray[np.uint8], scores: NDArray[np.float32], shapes: Sequence[ArrayLike]) -> dict[str, Any]:
    """Return a picture with its heatmap and the truth, for ``pictures`` of :attr:`Result.details`.

    Args:
        image: (H, W, 3) uint8 RGB.
        scores: (h, w) 0..1, spread over the whole image; NaN where there is none.
        shapes: True polygons (N, 2) of x, y in the image's pixels.
    """
    from PIL import Image

    from training.evaluation.report.thumbs import heat_picture, thumbnail

    heat = Image.fromarray(np.nan_to_num(scores).astype(np.float32))
    size = min(heat.width, HEAT_PX), min(heat.height, HEAT_PX)
    return {
        "picture": thumbnail(image, SIDE_PX),
        "heat": heat_picture(np.asarray(heat.resize(size, Image.Resampling.BOX))),
        "boxes": [
            {"corners": np.asarray(shape, np.float64).round(1).tolist(), "kind": "truth"} for shape in shapes
        ],
    }  # fmt: skip
