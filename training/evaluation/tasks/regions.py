"""Zero-shot names of boxes: every true box among the class names, by RoI, by crop or by both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from training.data.errors import DataError
from training.evaluation.catalogue import class_count
from training.evaluation.layouts.regions import Boxed, read_boxed, words_of
from training.evaluation.metrics.classification import classify
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground
from training.evaluation.tasks.classify import scores_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.metrics.classification import Classified
    from training.evaluation.result import Metric, Result
    from training.evaluation.task import Job

ROI, CROP, BOTH = "region-roi", "region-crop", "region-both"
_SHOWN = 6


class RegionNames:
    """The task."""

    name = "regions"
    title = "Zero-shot names of boxes, by RoI, by crop or by both: Acc@1, Acc@5"
    protocols = (ROI, CROP, BOTH)
    files: ClassVar[frozenset[str]] = frozenset({"templates", "words"})
    settings: ClassVar[Mapping[str, str]] = {
        "templates": "imagenet-80 (default), model, a set's name, a file of sentences, or a sentence with {}",
        "words": "JSON file from class to the words that a model is told; default: the names in plain words",
        "fit": "how the dense pass sees an image: squash (default) or native",
        "grid_px": "side of the square of squash; default: the model's",
        "unreadable": ground.UNREADABLE,
    }
    place: ClassVar[frozenset[str]] = frozenset({"layout", "unreadable"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or the model has no text tower.
        """
        from geoalign_core.models.encoder import require_text
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol = ground.known_protocol(job, self.protocols)
        whole = read_boxed(job.data, split=job.split, trust_pickle=job.trust_pickle)
        words = words_of(whole.classes, Path(job.settings["words"]) if "words" in job.settings else None)
        seen = _seen(whole, job.data)
        data = seen.take(ground.spread(len(seen.scenes), job.limit))
        sizes, there = ground.present(job, data.root, [scene.image for scene in data.scenes])
        digest = ground.digest_of([data.classes, words, *(
            [scene.image, size, scene.boxes.tolist(), scene.labels.tolist()]
            for scene, size in zip(data.scenes, sizes, strict=True)
        )])  # fmt: skip
        asked = data.count
        data = data.take(there)
        encoder = job.encoder()
        require_text(encoder)
        numbers = PROTOCOLS[protocol].numbers
        templates = _templates(job, encoder, str(numbers["templates"]))
        seconds: dict[str, float] = {}
        rows, found = _judge(job, encoder, data, words, templates, seconds, str(numbers["view"]))
        counts = {
            "images": len(data.scenes), "boxes": len(rows), "classes": len(data.classes),
            "classes_without_boxes": int((found.support == 0).sum()), "skipped_boxes": asked - len(rows),
            "difficult_boxes": sum(int(scene.difficult.sum()) for scene in whole.scenes),
        }  # fmt: skip
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts),
            model=ground.measured(encoder, templates, dense=protocol != CROP), metrics=_metrics(data, rows, found),
            seconds=seconds,
            settings={
                **ground.given(job, self.place), "split": data.split, "limit": job.limit, "layout": data.layout,
            },
            notes=_notes(job, whole, len(seen.scenes), counts, numbers),
            details={
                "confusion": {"classes": list(data.classes), "counts": found.confusion.tolist()},
                "per_class": [_per_class(data, found)], "pictures": _pictures(data, rows, found),
                "words": dict(zip(data.classes, words, strict=True)),
            },
        )  # fmt: skip


def _seen(data: Boxed, path: Path) -> Boxed:
    """Return the images that have boxes which are not difficult, with these.

    Raises:
        DataError: There are none.
    """
    kept = (scene.keep(~scene.difficult) for scene in data.scenes)
    scenes = tuple(scene for scene in kept if len(scene.boxes))
    if not scenes:
        raise DataError(
            "has no boxes to be named", path=path, measured=f"{data.count} difficult ones", remedy="check the layout"
        )
    return replace(data, scenes=scenes)


def _templates(job: Job, encoder: TorchEncoder, default: str) -> tuple[str, ...]:
    from geoalign_core.models.prompts import template_set

    return ground.templates_of(job, () if "templates" in job.settings else template_set(default), encoder)


def _judge(
    job: Job, encoder: TorchEncoder, data: Boxed, words: Sequence[str], templates: tuple[str, ...],
    seconds: dict[str, float], view: str,
) -> tuple[NDArray[np.int64], Classified]:  # fmt: skip
    """Return the places of the boxes that could be seen, all images' boxes one after the other, and the judgement."""
    from training.evaluation.bank import region_bank, text_bank

    grid = ground.number_of(job, "grid_px")
    fit: Any = ground.choice(job, "fit", ("squash", "native"), PROTOCOLS[job.protocol].numbers["fit"])
    side: Any = view
    with ground.stage(seconds, "texts"):
        texts = text_bank(encoder, words, job.cache, templates=templates, progress=job.progress, cancel=job.cancel)
    items = ground.items_of(data.root, [scene.image for scene in data.scenes])
    with ground.stage(seconds, "boxes"):
        bank = region_bank(
            encoder, [(item, scene.boxes) for item, scene in zip(items, data.scenes, strict=True)], job.cache,
            view=side, fit=fit, grid_px=None if grid is None else round(grid), batch=ground.batch_of(encoder),
            progress=job.progress, cancel=job.cancel,
        )  # fmt: skip
    rows = ground.readable(job, data.root, bank, "a box cannot be seen")
    with ground.stage(seconds, "scores"):
        labels = np.concatenate([scene.labels for scene in data.scenes])[rows]
        return rows, classify(scores_of(bank, rows, texts.vectors), labels)


def _owners(data: Boxed) -> NDArray[np.int64]:
    """Return the image of each box."""
    return np.repeat(np.arange(len(data.scenes)), [len(scene.boxes) for scene in data.scenes])


def _metrics(data: Boxed, rows: NDArray[np.int64], found: Classified) -> dict[str, Metric]:
    """Return accuracies; images are drawn with all their boxes."""
    from training.evaluation.result import Metric

    table = np.stack([found.within(1), found.within(5), np.ones(len(rows))], axis=1).astype(np.float64)
    figures = ground.with_intervals(table, ground.shares(("acc@1", "acc@5")), _owners(data)[rows])
    return {**figures, "balanced": Metric(found.balanced)}


def _per_class(data: Boxed, found: Classified) -> dict[str, Any]:
    rows = [
        {"name": name, "value": float(value) if count else None, "count": int(count)}
        for name, value, count in zip(data.classes, found.per_class, found.support, strict=True)
    ]
    return {"title": "Acc@1 of each class", "unit": "%", "rows": rows}


def _pictures(data: Boxed, rows: NDArray[np.int64], found: Classified) -> list[dict[str, Any]]:
    """Return the images with the most boxes that got a wrong name."""
    owners, wrong = _owners(data)[rows], found.ranks > 1
    boxes = np.concatenate([scene.boxes for scene in data.scenes])[rows]
    errors = np.bincount(owners, weights=wrong, minlength=len(data.scenes))
    shown = []
    for place in np.argsort(-errors, kind="stable")[:_SHOWN].tolist():
        if not errors[place]:
            break
        mine = np.flatnonzero(owners == place)
        shown.append({
            "title": f"{data.scenes[place].image}: {int(errors[place])} of {len(mine)} boxes wrong",
            "picture": ground.thumbnail(data.root, data.scenes[place].image),
            "boxes": [{
                "box": boxes[row].tolist(), "kind": "false" if wrong[row] else "hit",
                "label": data.classes[found.predicted[row]],
            } for row in mine.tolist()],
        })  # fmt: skip
    return shown


def _notes(job: Job, whole: Boxed, seen: int, counts: Mapping[str, int], numbers: Mapping[str, Any]) -> tuple[str, ...]:
    notes = list(whole.notes)
    printed = numbers["printed_boxes"].get(whole.layout)
    if printed is not None:
        notes.append(f"The printed figures are of {printed:,} boxes (deduced), these of {counts['boxes']:,}.")
    if whole.layout == "rrsisd":
        notes.append(
            f"Part {whole.split or 'all'}; the printed figures fit neither test (3,481 boxes) nor val (1,740), and are "
            f"of another sample than these {counts['boxes']:,}."
        )
    if whole.oriented:
        notes.append("Oriented boxes were taken as the upright boxes around them.")
    if counts["difficult_boxes"]:
        notes.append(f"{counts['difficult_boxes']} difficult boxes and crowds of the whole set were left out.")
    if counts["skipped_boxes"]:
        notes.append(f"{counts['skipped_boxes']} boxes cannot be seen and were left out.")
    if job.limit is not None and job.limit < seen:
        notes.append(f"Only {job.limit} of {seen} images with boxes were taken.")
    every = class_count(job.dataset or whole.name) or 0
    if counts["classes"] < every:
        notes.append(
            f"Only {counts['classes']} of the data set's {every} classes occur in this part and are candidates: "
            "Acc@1 and Acc@5 are easier than among all."
        )
    if counts["classes"] <= 5:
        notes.append("With no more than five classes, Acc@5 is always 100 %.")
    return tuple(notes)


TASK = RegionNames()
