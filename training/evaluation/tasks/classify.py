"""Zero-shot classification of whole images: the class whose text is nearest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from training.evaluation.layouts.classes import Labelled, read_classes, read_folders
from training.evaluation.metrics.classification import Classified, classify
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.bank import Bank
    from training.evaluation.result import Metric, Result
    from training.evaluation.task import Job

TABLES, FOLDERS = "zsc-skyscript", "zsc-folders"
SKYSCRIPT: tuple[str, ...] = tuple(PROTOCOLS[TABLES].numbers["templates"])
"""The two sentences of SkyScript's ``prompt_templates.py``, the second without a full stop."""
_BLOCK = 8192


class Classification:
    """The task."""

    name = "classify"
    title = "Zero-shot classification: top-1, top-5, balanced"
    protocols = (TABLES, FOLDERS)
    files: ClassVar[frozenset[str]] = frozenset({"templates", "words"})
    settings: ClassVar[Mapping[str, str]] = {
        "templates": "SkyScript's two (default), model, a set's name, a file of sentences, or a sentence with {}",
        "words": f"JSON file from class to the words that a model is told, for {FOLDERS}",
        "unreadable": ground.UNREADABLE,
    }
    place: ClassVar[frozenset[str]] = frozenset({"unreadable"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or the model has no text tower.
        """
        from geoalign_core.models.encoder import require_text
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol = ground.known_protocol(job, self.protocols)
        whole = _read(job, protocol)
        data = whole.take(ground.spread(len(whole.images), job.limit))
        sizes, there = ground.present(job, data.root, data.images)
        digest = ground.digest_of(
            [data.classes, data.words, *zip(data.images, sizes, data.labels.tolist(), strict=True)]
        )
        data = data.take(there)
        encoder = job.encoder()
        require_text(encoder)
        templates = ground.templates_of(job, PROTOCOLS[protocol].numbers["templates"], encoder)
        seconds: dict[str, float] = {}
        data, found = _judge(job, encoder, data, templates, seconds)
        counts = {
            "images": len(data.images), "classes": len(data.classes),
            "classes_without_images": int((found.support == 0).sum()),
            "skipped_images": len(sizes) - len(data.images), "images_without_label": whole.without,
        }  # fmt: skip
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts),
            model=ground.measured(encoder, templates), metrics=_metrics(found), seconds=seconds,
            settings={**ground.given(job, self.place), "split": data.split, "limit": job.limit},
            notes=_notes(job, whole, counts),
            details={
                "confusion": {"classes": list(data.classes), "counts": found.confusion.tolist()},
                "per_class": [_per_class(data, found)],
                "words": dict(zip(data.classes, data.words, strict=True)),
            },
        )  # fmt: skip


def _read(job: Job, protocol: str) -> Labelled:
    words = job.settings.get("words")
    if protocol == FOLDERS:
        return read_folders(job.data, split=job.split, words=Path(words) if words else None)
    if words:
        from tiling.errors import UsageError

        raise UsageError("classnames.txt has the words of this protocol", remedy=f"leave out words, or use {FOLDERS}")
    return read_classes(job.data, split=job.split)


def _judge(
    job: Job, encoder: TorchEncoder, data: Labelled, templates: tuple[str, ...], seconds: dict[str, float]
) -> tuple[Labelled, Classified]:
    from training.evaluation.bank import image_bank, text_bank

    with ground.stage(seconds, "texts"):
        texts = text_bank(encoder, data.words, job.cache, templates=templates, progress=job.progress, cancel=job.cancel)
    with ground.stage(seconds, "images"):
        images = image_bank(
            encoder, ground.items_of(data.root, data.images), job.cache, batch=ground.batch_of(encoder),
            progress=job.progress, cancel=job.cancel,
        )  # fmt: skip
    rows = ground.readable(job, data.root, images)
    data = data.take(rows)
    with ground.stage(seconds, "scores"):
        return data, classify(scores_of(images, rows, texts.vectors), data.labels)


def scores_of(images: Bank, rows: NDArray[np.int64], classes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, C) cosines, computed a block of images at a time.

    Sums are made in float64 and rounded, so that classes of equal words have equal scores wherever they stand.
    """
    exact = classes.astype(np.float64).T
    parts = [
        (images[rows[start : start + _BLOCK]].astype(np.float64) @ exact).astype(np.float32)
        for start in range(0, len(rows), _BLOCK)
    ]
    return np.concatenate(parts)


def _metrics(found: Classified) -> dict[str, Metric]:
    from training.evaluation.result import Metric

    ones = np.ones(len(found.labels))
    table = np.stack([found.within(1), found.within(5), ones], axis=1).astype(np.float64)
    return {**ground.with_intervals(table, ground.shares(("top1", "top5"))), "balanced": Metric(found.balanced)}


def _per_class(data: Labelled, found: Classified) -> dict[str, Any]:
    rows = [
        {"name": name, "value": float(value) if count else None, "count": int(count)}
        for name, value, count in zip(data.classes, found.per_class, found.support, strict=True)
    ]
    return {"title": "Top-1 accuracy of each class", "unit": "%", "rows": rows}


def _notes(job: Job, whole: Labelled, counts: Mapping[str, int]) -> tuple[str, ...]:
    notes = [whole.note] if whole.note else []
    if job.limit is not None and job.limit < len(whole.images):
        notes.append(f"Only {job.limit} of {len(whole.images)} images were taken.")
    if counts["skipped_images"]:
        notes.append(f"{counts['skipped_images']} images cannot be read and were left out.")
    if counts["classes_without_images"]:
        notes.append(f"{counts['classes_without_images']} classes have no images; they stay candidates.")
    if counts["classes"] <= 5:
        notes.append("With no more than five classes, top-5 is always 100 %.")
    return tuple(notes)


TASK = Classification()
