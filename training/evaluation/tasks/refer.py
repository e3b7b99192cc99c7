"""Referring grounding: one box for each sentence, from a file of answers or from our heatmap's best region."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.evaluation.layouts.rsvg import Referred, read_answers, read_referred
from training.evaluation.metrics.detection import without_area
from training.evaluation.metrics.referring import THRESHOLDS, figures, overlap
from training.evaluation.tasks import groundwork as ground
from training.evaluation.tasks.textboxes import SETTINGS, best_box, effective, heatmaps, picture_of, threshold_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from training.evaluation.metrics.referring import Overlap
    from training.evaluation.result import Result
    from training.evaluation.task import Job

RSVG = "rsvg"
_SHOWN = 4


class Referring:
    """The task."""

    name = "refer"
    title = "One box per sentence: Pr@0.5 to 0.9, mean and cumulative IoU"
    protocols = (RSVG,)
    files: ClassVar[frozenset[str]] = frozenset({"answers"})
    settings: ClassVar[Mapping[str, str]] = {
        "answers": "file of predicted boxes, JSON list or lines: id, or image and text; bbox; default: our heatmaps",
        **SETTINGS,
    }
    place: ClassVar[frozenset[str]] = frozenset({"answers", "layout"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or a setting is out of range.
        """
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol = ground.known_protocol(job, self.protocols)
        from_file = "answers" in job.settings
        extra = [name for name in SETTINGS if from_file and name in job.settings]
        if extra:
            raise UsageError(f"{extra[0]} changes no file of answers", remedy="leave it or the answers out")
        whole = read_referred(job.data, split=job.split, trust_pickle=job.trust_pickle)
        chosen = ground.spread(len(whole.sentences), job.limit)
        data, lost, model = whole.take(chosen), 0, None
        seconds: dict[str, float] = {}
        own: dict[str, float | None] = {}
        if from_file:
            with ground.stage(seconds, "answers"):
                every, lost = read_answers(Path(job.settings["answers"]), whole)
            answers = every[chosen]
        else:
            answers = _asked(job, data, seconds)
            encoder, own = job.encoder(), effective(job)
            model = ground.measured(encoder, encoder.config.prompts.templates, dense=True)
        found = overlap(answers, data.boxes)
        counts = {
            "images": len({item.image for item in data.sentences}), "sentences": len(data.sentences),
            "boxes": len(data.sentences), "unanswered": int(np.isnan(answers).any(axis=1).sum()),
            "answers_to_nothing": lost, "answers_without_area": without_area(answers),
        }  # fmt: skip
        digest = ground.digest_of(
            [item.image, ground.size_of(data.root, item.image), item.text, item.box] for item in data.sentences
        )
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts), model=model,
            metrics=ground.with_intervals(found.table(), figures, [item.image for item in data.sentences]),
            seconds=seconds,
            settings={"split": data.split, "limit": job.limit, "layout": data.layout, **job.settings, **own},
            notes=_notes(job, whole, counts),
            details={"pictures": _pictures(data, answers, found), "curves": [_curve(found)]},
        )  # fmt: skip


def _asked(job: Job, data: Referred, seconds: dict[str, float]) -> NDArray[np.float64]:
    """Return (N, 4) boxes of the heatmaps' best regions; an image is embedded once for all its sentences."""
    threshold, encoder = threshold_of(job), job.encoder()
    by_image: dict[str, list[int]] = {}
    for number, item in enumerate(data.sentences):
        by_image.setdefault(item.image, []).append(number)
    answers = np.full((len(data.sentences), 4), np.nan)
    with ground.stage(seconds, "images"):
        for done, (image, places) in enumerate(by_image.items(), start=1):
            job.cancel.check()
            texts = [data.sentences[number].text for number in places]
            for number, heat in zip(places, heatmaps(job, encoder, data.root, image, texts), strict=True):
                answers[number] = best_box(heat, threshold)
            job.progress(done, len(by_image), "asking images")
    return answers


def _curve(found: Overlap) -> dict[str, Any]:
    levels = np.linspace(0, 1, 51)
    points = [[round(float(level), 2), round(100 * float((found.iou >= level).mean()), 2)] for level in levels]
    return {"title": "Pr@X", "x": "IoU", "y": "%", "lines": [{"name": "sentences", "points": points}]}


def _pictures(data: Referred, answers: NDArray[np.float64], found: Overlap) -> list[dict[str, Any]]:
    """Return the best and the worst answers whose pictures can be read."""
    order = np.argsort(-found.iou, kind="stable")
    places = list(dict.fromkeys([*order[:_SHOWN].tolist(), *order[::-1][:_SHOWN].tolist()]))
    shown = []
    for place in places:
        item = data.sentences[place]
        if (picture := picture_of(data.root, item.image)) is None:
            continue
        boxes: list[dict[str, Any]] = [{"box": list(item.box), "kind": "truth"}]
        if np.isfinite(answers[place]).all():
            kind = "hit" if found.iou[place] >= THRESHOLDS[0] else "false"
            boxes.append({"box": answers[place].tolist(), "kind": kind, "label": f"IoU {found.iou[place]:.2f}"})
        shown.append({
            "title": f"IoU {found.iou[place]:.2f}: {item.text}", "caption": item.image,
            "picture": picture, "boxes": boxes,
        })  # fmt: skip
    return shown


def _notes(job: Job, whole: Referred, counts: Mapping[str, int]) -> tuple[str, ...]:
    notes = [*whole.notes, "An IoU equal to a threshold counts; RSVG-pytorch's own script asks for more."]
    if job.split is None and whole.split is not None:
        notes.append(f"The part {whole.split!r} was taken.")
    if "answers" not in job.settings:
        notes.append("Boxes are those of our heatmaps' best regions, not of a detector trained for sentences.")
    if counts["unanswered"]:
        notes.append(f"{counts['unanswered']} sentences have no answer and count with an IoU of 0.")
    if counts["answers_without_area"]:
        notes.append(
            f"{counts['answers_without_area']} answers have no area, or right and left exchanged; their IoU is 0."
        )
    if counts["answers_to_nothing"]:
        notes.append(f"{counts['answers_to_nothing']} answers belong to none of the sentences.")
    if job.limit is not None and job.limit < len(whole.sentences):
        notes.append(f"Only {job.limit} of {len(whole.sentences)} sentences were taken.")
    return tuple(notes)


TASK = Referring()
