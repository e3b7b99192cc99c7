"""Pictures of a detection for the report: what was found, what was missed, and what is no such thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.metrics.detection import match_boxes, order_of, overlaps_of
from training.evaluation.tasks.textboxes import picture_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from training.evaluation.layouts.detection import Detections
    from training.evaluation.layouts.regions import Boxed
    from training.evaluation.metrics.detection import Rules

LEAST_SCORE = 0.3
_SHOWN = 6


def pictures(data: Boxed, found: Detections, rules: Rules) -> list[dict[str, Any]]:
    """Return the images with the most true boxes that can be read, for :attr:`Result.details`.

    Detections below :data:`LEAST_SCORE` are not drawn, and those that count neither way neither. Surer ones are
    matched first, so what is left out changes no verdict on what is drawn.
    """
    shown: list[dict[str, Any]] = []
    for place in sorted(range(len(data.scenes)), key=lambda number: -len(data.scenes[number].boxes)):
        if len(shown) == _SHOWN:
            break
        if (picture := picture_of(data.root, data.scenes[place].image)) is None:
            continue
        boxes = [mark for label in range(len(data.classes)) for mark in _marks(data, found, place, label, rules)]
        shown.append({
            "title": data.scenes[place].image, "picture": picture, "boxes": boxes,
            "caption": f"{sum(mark['kind'] == 'missed' for mark in boxes)} missed, "
            f"{sum(mark['kind'] == 'false' for mark in boxes)} wrong, with scores of at least {LEAST_SCORE:g}",
        })  # fmt: skip
    return shown


def _marks(data: Boxed, found: Detections, place: int, label: int, rules: Rules) -> Iterator[dict[str, Any]]:
    """Yield the true boxes of a class on an image, then the detections."""
    scene, name = data.scenes[place], data.classes[label]
    mine = scene.labels == label
    rows = np.flatnonzero((found.image == place) & (found.labels == label) & (found.scores >= LEAST_SCORE))
    true = scene.corners if rules.oriented and scene.corners is not None else scene.boxes
    answers = found.corners if rules.oriented and found.corners is not None else found.boxes
    rows = rows[order_of(answers[rows], found.scores[rows], found.image[rows])]
    verdict, owner = match_boxes(
        overlaps_of(answers[rows], true[mine], rules), scene.difficult[mine], rules.iou, rules.matching
    )
    for number, (shape, difficult) in enumerate(zip(true[mine], scene.difficult[mine].tolist(), strict=True)):
        seen = difficult or (owner[verdict == 1] == number).any()
        kind, said = "truth" if seen else "missed", f"{name}, difficult" if difficult else name
        yield {**_outline(shape), "kind": kind, "label": said}
    for row, right in zip(rows.tolist(), verdict.tolist(), strict=True):
        if right >= 0:
            kind, score = "hit" if right else "false", round(float(found.scores[row]), 3)
            yield {**_outline(answers[row]), "kind": kind, "label": name, "score": score}


def _outline(shape: NDArray[np.float64]) -> dict[str, Any]:
    return {"box": shape.tolist()} if shape.size == 4 else {"corners": shape.reshape(-1, 2).tolist()}
