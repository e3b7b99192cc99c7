"""The tasks by name; each lies in a module of its own that is imported when it is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from tiling.errors import UsageError

if TYPE_CHECKING:
    from training.evaluation.task import Task

TITLES = {
    "retrieval": "Images and captions find each other: R@k both ways, short and long texts.",
    "classify": "Zero-shot names of whole images: top-1, top-5, confusion.",
    "presence": "Yes-or-no questions about whole images, by their best patches: ROC AUC, F1.",
    "regions": "Zero-shot names of boxes, by RoI, by crop or by both: Acc@1, Acc@5.",
    "negatives": "The true text of a region among texts that differ in one part: Acc@k.",
    "choice": "Questions with options, the answer by similarity.",
    "selo": "Semantic localisation on large images: Rsu, Ras, Rda, Rmi.",
    "segment": "Open-vocabulary segmentation: mIoU.",
    "detect": "Boxes against true boxes: AP at IoU 0.5, base and novel classes.",
    "refer": "One box per sentence: Pr@0.5 to 0.9, mean and cumulative IoU.",
    "point": "Heatmaps against boxes: pointing game and average precision of patches.",
    "calibrate": "From scores to precision: reliability before and after.",
}
"""Name → one line; ``training.evaluation.tasks.NAME`` has ``TASK``."""
HEADLINES = {"retrieval": "mr", "selo": "Rmi"}
"""What a summary shows of tasks whose first figure is but a part of it."""
WHOLE = frozenset({"retrieval", "classify", "choice", "selo"})
"""Tasks that look at whole images and tiles: how a model makes its patches changes nothing there."""
UNTEMPLATED = frozenset({"retrieval", "choice"})
"""Tasks whose texts are sentences already, for which a model's templates change nothing."""


def find_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UsageError: There is none; near names are offered.
    """
    if name not in TITLES:
        near = difflib.get_close_matches(name, TITLES, n=2) or list(TITLES)
        raise UsageError(f"no task is called {name!r}", remedy=f"choose one of {', '.join(near)}")
    task: Task = import_module(f"training.evaluation.tasks.{name}").TASK
    return task
