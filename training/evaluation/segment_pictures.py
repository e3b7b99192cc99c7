"""Pictures of a segmentation for the report: the image, the truth, the answer and a legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.overlay import MOST, best_and_worst

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Shown = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]
    """Image (H, W, 3), truth (H, W) and answer, this as large or :func:`reduced`."""

SIDE_PX = 360
_COLOURS = (
    "#9aa0a6", "#d7301f", "#f5c542", "#2b6cb0", "#8c6d46", "#1b7837", "#b8e186", "#762a83", "#f781bf", "#00b8c4",
    "#ff7f0e", "#4d4d4d", "#e7298a", "#66a61e", "#1f3b73", "#c7b299", "#a50f15", "#5ab4ac", "#d8b7dd", "#6a51a3",
)  # fmt: skip
_UNLABELLED = (0, 0, 0)


def colour(place: int) -> tuple[int, int, int]:
    """Return the colour of a class; from the 21st on they come again, darker."""
    text, factor = _COLOURS[place % len(_COLOURS)], 0.7 ** (place // len(_COLOURS))
    red, green, blue = (round(int(text[start : start + 2], 16) * factor) for start in (1, 3, 5))
    return red, green, blue


def painted(labels: NDArray[np.int32], classes: int, side: int = SIDE_PX) -> NDArray[np.uint8]:
    """Return labels (H, W) as colours (h, w, 3), −1 as black; as large as a thumbnail, each pixel a label's own."""
    table = np.array([*(colour(place) for place in range(classes)), _UNLABELLED], np.uint8)
    drawn: NDArray[np.uint8] = table[reduced(labels, side)]
    return drawn


def reduced(labels: NDArray[np.int32], side: int = SIDE_PX) -> NDArray[np.int32]:
    """Return labels (H, W) as they are drawn, (h, w): those at the middles of a thumbnail's pixels."""
    factor = min(1.0, side / max(labels.shape))
    rows, columns = (
        np.minimum((np.arange(max(1, round(length * factor))) + 0.5) / factor, length - 1).astype(np.int64)
        for length in labels.shape
    )
    return labels[rows[:, None], columns]


def pictures(
    images: Sequence[str], miou: NDArray[np.float64], names: Sequence[str], show: Callable[[int], Shown]
) -> list[dict[str, Any]]:
    """Return the best and the worst images, for :attr:`Result.details`.

    Args:
        images: N names.
        miou: (N,) in per cent; images without a figure are not shown.
        names: Of the classes.
        show: Gives an image, its truth and its answer.
    """
    from training.evaluation.report.thumbs import thumbnail

    found = []
    for title, number in best_and_worst(miou.tolist(), MOST):
        image, truth, answer = show(number)
        there = sorted({*np.unique(truth).tolist(), *np.unique(answer).tolist()} - {-1})
        legend = [{"name": names[place], "colour": "#{:02x}{:02x}{:02x}".format(*colour(place))} for place in there]
        if (truth < 0).any():
            legend.append({"name": "does not count", "colour": "#000000"})
        found.append({
            "title": images[number].rsplit("/", 1)[-1],
            "caption": f"{title}: mIoU {miou[number]:.1f} % of the classes in this image or its answer",
            "picture": thumbnail(image, SIDE_PX),
            "others": [
                {"title": name, "picture": thumbnail(painted(labels, len(names)), SIDE_PX)}
                for name, labels in (("truth", truth), ("answer", answer))
            ],
            "legend": legend,
        })  # fmt: skip
    return found
