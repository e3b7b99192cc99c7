"""Boxes and points that lie over a picture; only what is wrong is labelled, and where a label has room."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Room = tuple[float, float, float, float]
    """Left, top, right, bottom."""

KINDS = {"truth": "truth", "missed": "truth, missed", "hit": "answer, right", "false": "answer, wrong"}
_LABELLED = ("missed", "false")
_LETTERS = 0.03
"""Height of letters, as a share of the picture's width."""
_ADVANCE = 0.6
"""Width of a letter, as a share of its height."""


def marks(item: Mapping[str, Any], width: float, height: float) -> str:
    """Return the boxes and points of one of ``pictures`` as a drawing.

    Every box tells its label when it is pointed at. Those that are wrong are labelled, too: above the box, in it or
    below it, wherever the label stays in the picture and off the others; one that has no such place is not written.

    Args:
        item: With ``boxes`` and ``points``, both optional.
        width: Of the picture, in pixels of the original.
        height: Of the picture.
    """
    letters = _LETTERS * width
    shapes, texts, points = [], [], []
    taken: list[Room] = []
    for mark in item.get("boxes", ()):
        kind, corners, label = _kind(mark), _corners(mark), _label(mark)
        title = f"{label} ({KINDS[kind]})" if label else KINDS[kind]
        ring = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        shapes.append(f'<polygon class={kind} points="{ring}"><title>{html.escape(title)}</title></polygon>')
        if label and kind in _LABELLED:
            short = _shortened(label, int(width / (_ADVANCE * letters)))
            room = next(_rooms(corners, len(short) * _ADVANCE * letters, 1.15 * letters, (width, height), taken), None)
            if room is not None:
                taken.append(room)
                texts.append(
                    f'<text class={kind} x="{room[0]:.1f}" y="{room[3] - 0.25 * letters:.1f}" '
                    f'style="font-size:{letters:.1f}px;stroke-width:{0.13 * letters:.2f}px">{html.escape(short)}</text>'
                )
    for mark in item.get("points", ()):
        x, y = _finite(mark["x"]), _finite(mark["y"])
        points.append(f'<circle class={_kind(mark)} cx="{x:.1f}" cy="{y:.1f}" r="{0.6 * letters:.1f}"/>')
    drawn = "".join([*shapes, *texts, *points])  # letters lie over all boxes
    return f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none">{drawn}</svg>' if drawn else ""


def _rooms(
    corners: NDArray[np.float64], wide: float, high: float, size: tuple[float, float], taken: list[Room]
) -> Iterator[Room]:
    """Yield places for a label inside the picture that are still free, the best first."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    for start in (min(max(x, 0.0), size[0] - wide) for x in (left, right - wide)):
        for upper in (top - high, top, bottom, bottom - high):
            room = (start, upper, start + wide, upper + high)
            if upper >= 0 and room[3] <= size[1] and not any(_meet(room, other) for other in taken):
                yield room


def _meet(one: Room, other: Room) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _label(mark: Mapping[str, Any]) -> str:
    score = mark.get("score")
    sure = f"{float(score):.2f}" if isinstance(score, (int, float)) else ""
    return " ".join(text for text in (str(mark.get("label") or ""), sure) if text)


def _corners(mark: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the outline (N, 2) of a box or of any other shape."""
    if "box" in mark:
        left, top, right, bottom = mark["box"]
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    else:
        corners = np.array(mark["corners"], np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise ValueError("a shape that is no outline")
    return corners


def _finite(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError("a place that is no number")
    return number


def _kind(mark: Mapping[str, Any]) -> str:
    if mark["kind"] not in KINDS:
        raise ValueError(f"a mark of the kind {mark['kind']}"[:60])
    return str(mark["kind"])
