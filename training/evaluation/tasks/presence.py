"""Yes-or-no questions about whole images, by the scores of their patches: is there a beach?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.data.images import picture_size, read_bytes
from training.evaluation.layouts.boxes import BoxedScene, word_table
from training.evaluation.layouts.classes import Labelled, read_folders
from training.evaluation.metrics.presence import Answers, answers, best_share
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.result import Metric, Result
    from training.evaluation.task import Job

QUARTER = "presence-quarter"


class Presence:
    """The task."""

    name = "presence"
    title = "Yes-or-no questions about whole images: ROC AUC and F1"
    protocols = (QUARTER,)
    files: ClassVar[frozenset[str]] = frozenset({"questions"})
    settings: ClassVar[Mapping[str, str]] = {
        "questions": "words and the classes that have it, beach=Beach;bridge=Bridge|Viaduct or a JSON file; "
        "default: each class by its words",
    }  # fmt: skip
    place: ClassVar[frozenset[str]] = frozenset()

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or a question names no class of it.
        """
        from geoalign_core.models.encoder import require_text
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol = ground.known_protocol(job, self.protocols)
        whole = read_folders(job.data, split=job.split)
        questions = _questions(whole, job.settings.get("questions"))
        data = whole.take(ground.spread(len(whole.images), job.limit))
        sizes, _ = ground.present(job, data.root, data.images)
        digest = ground.digest_of([data.classes, *zip(data.images, sizes, data.labels.tolist(), strict=True)])
        encoder = job.encoder()
        require_text(encoder)
        seconds: dict[str, float] = {}
        with ground.stage(seconds, "images"):
            odds = _look(job, encoder, data, list(questions), float(PROTOCOLS[protocol].numbers["share"]))
        truth = np.stack([np.isin(data.labels, list(places)) for places in questions.values()])
        found = [answers(row, yes) for row, yes in zip(odds, truth, strict=True)]
        counts = {"images": len(data.images), "classes": len(data.classes), "questions": len(questions)}
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts),
            model=ground.measured(encoder, encoder.config.prompts.templates, dense=True),
            metrics=_metrics(odds, truth, list(questions), found), seconds=seconds,
            settings={**job.settings, "split": data.split, "limit": job.limit},
            notes=() if len(data.images) == len(whole.images) else (
                f"Only {len(data.images)} of {len(whole.images)} images were taken.",
            ),
            details={
                "questions": [{"word": word} | asdict(item) for word, item in zip(questions, found, strict=True)]
            },
        )  # fmt: skip


def _questions(data: Labelled, given: str | None) -> dict[str, tuple[int, ...]]:
    """Return the places of the classes that answer yes, by question."""
    if given is None:
        return {word: (place,) for place, word in enumerate(data.words)}
    table = word_table(given)
    unknown = sorted({name for names in table.values() for name in names} - set(data.classes))
    if unknown or not table:
        raise UsageError(
            "a question names a class that the data does not have", measured=", ".join(unknown)[:80] or "no question",
            remedy=f"use {', '.join(data.classes[:12])}",
        )  # fmt: skip
    return {word: tuple(data.classes.index(name) for name in names) for word, names in table.items()}


def _look(job: Job, encoder: TorchEncoder, data: Labelled, words: list[str], share: float) -> NDArray[np.float32]:
    """Return (Q, N): the mean log-odds of the best patches of each image."""
    from geoalign_core.grounding.text import encode_queries
    from training.evaluation.lattices import Sizing, through_windows

    texts = encode_queries(encoder, words)
    sizing = Sizing(encoder.config.dense.window_px, encoder.config.patch_px)
    columns = []
    for done, image in enumerate(data.images, start=1):
        width, height = picture_size(read_bytes(data.root, image), image)
        scene = BoxedScene(data.root, image, width, height, {})
        lattices = through_windows(scene, encoder, texts, sizing, 1.0, job.cache, job.cancel)
        flat = [item.odds.reshape(len(item.odds), -1)[: len(words)] for item in lattices]
        columns.append(best_share(np.concatenate(flat, axis=1), share))
        job.progress(done, len(data.images), "looking at images")
    return np.stack(columns, axis=1)


def _metrics(
    odds: NDArray[np.float32], truth: NDArray[np.bool_], words: list[str], found: list[Answers]
) -> dict[str, Metric]:
    """Average over the questions that have both answers."""
    from training.evaluation.intervals import bootstrap
    from training.evaluation.metrics.pointing import Curve
    from training.evaluation.result import Metric

    def area(places: Any) -> float:  # noqa: ANN401 - (N,) images drawn
        values = [Curve.of(row[places], yes[places]).roc_auc() for row, yes in zip(odds, truth, strict=True)]
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")

    def mean(name: str) -> float:
        return float(np.mean([getattr(item, name) for item in found if item.positives and item.negatives] or [np.nan]))

    metrics = {
        "ROC AUC": Metric(mean("roc_auc"), *bootstrap(np.arange(odds.shape[1]), area), unit="share"),
        "F1 at 0.5": Metric(mean("f1_at_half"), unit="share"),
        "best F1": Metric(mean("f1_best"), unit="share"),
    }
    return metrics | {
        f"ROC AUC {word}": Metric(item.roc_auc, unit="share") for word, item in zip(words, found, strict=True)
    }


TASK = Presence()
