"""Multiple choice by similarity: of a question's options, the one nearest to the image is the answer (CHOICE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.evaluation.layouts.choice import Question, Questions, read_choice
from training.evaluation.metrics.choice import Answered, answer
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground
from training.evaluation.tasks.negatives import cosines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.result import Metric, Result
    from training.evaluation.task import Job

CHOICE = "choice"
OPTION, STEM = "{option}", "{stem}"
_SHOWN = 6


class Choice:
    """The task."""

    name = "choice"
    title = "Multiple choice: accuracy of the nearest option"
    protocols = (CHOICE,)
    files: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[Mapping[str, str]] = {
        "template": f"what is compared: a sentence with {OPTION} and perhaps {STEM} (default {OPTION})",
        "only": "parts of the tree, folders or files by name, with commas (default all)",
        "unreadable": ground.UNREADABLE,
    }
    place: ClassVar[frozenset[str]] = frozenset({"only", "unreadable"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or the model has no text tower.
        """
        from geoalign_core.models.encoder import require_text
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol, template = ground.known_protocol(job, self.protocols), _template(job)
        if job.split is not None:
            raise UsageError("questions have no splits", remedy="choose parts with -s only=NAME")
        only = tuple(part.strip() for part in job.settings.get("only", "").split(",") if part.strip())
        whole = read_choice(job.data, only=only)
        data = whole.take(ground.spread(len(whole.questions), job.limit))
        sizes, there = ground.present(job, data.root, [question.image for question in data.questions])
        digest = ground.digest_of(
            [question.id, question.image, size, question.stem, question.options, question.right]
            for question, size in zip(data.questions, sizes, strict=True)
        )
        data = data.take(there)
        encoder = job.encoder()
        require_text(encoder)
        seconds: dict[str, float] = {}
        data, scores = _scores(job, encoder, data, template, seconds)
        found = answer(scores, [question.right for question in data.questions])
        counts = {
            "questions": len(data.questions), "images": len({question.image for question in data.questions}),
            "options": int(found.options.sum()), "unparsed": len(whole.unparsed),
            "skipped_questions": len(sizes) - len(data.questions), "ties": int(found.tied.sum()),
        }  # fmt: skip
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts),
            model=ground.measured(encoder, (template,)), metrics=_metrics(data, found), seconds=seconds,
            settings={**ground.given(job, self.place), "template": template, "only": list(only), "limit": job.limit},
            notes=_notes(job, whole, counts),
            details={
                "per_class": [_per_task(data, found)], "unparsed": [list(pair) for pair in whole.unparsed],
                "pictures": _pictures(data, scores, found),
            },
        )  # fmt: skip


def _template(job: Job) -> str:
    template = str(job.settings.get("template", PROTOCOLS[job.protocol].numbers["template"]))
    if template.count(OPTION) != 1 or "{" in template.replace(OPTION, "").replace(STEM, ""):
        raise UsageError(f"a template has {OPTION} once, and perhaps {STEM}", measured=template[:60])
    return template


def sentences(question: Question, template: str) -> list[str]:
    """Return what a question's options are compared as."""
    head, _, tail = template.partition(OPTION)
    return [
        head.replace(STEM, question.stem) + option + tail.replace(STEM, question.stem) for option in question.options
    ]


def _scores(
    job: Job, encoder: TorchEncoder, data: Questions, template: str, seconds: dict[str, float]
) -> tuple[Questions, list[NDArray[np.float32]]]:
    """Return the questions whose image can be read, and the cosines of each one's options."""
    from training.evaluation.bank import image_bank, text_bank

    names = {name: row for row, name in enumerate(dict.fromkeys(question.image for question in data.questions))}
    with ground.stage(seconds, "images"):
        bank = image_bank(
            encoder, ground.items_of(data.root, list(names)), job.cache, batch=ground.batch_of(encoder),
            dtype="float32", progress=job.progress, cancel=job.cancel,
        )  # fmt: skip
    seen = set(ground.readable(job, data.root, bank).tolist())
    data = data.take(place for place, question in enumerate(data.questions) if names[question.image] in seen)
    with ground.stage(seconds, "texts"):
        flat = [text for question in data.questions for text in sentences(question, template)]
        texts = text_bank(encoder, flat, job.cache, dtype="float32", progress=job.progress, cancel=job.cancel)
    rows = [names[question.image] for question in data.questions]
    return data, cosines(bank, rows, texts, [len(question.options) for question in data.questions])


def _metrics(data: Questions, found: Answered) -> dict[str, Metric]:
    """Return the accuracy, images drawn with all their questions, and chance."""
    from training.evaluation.result import Metric

    table = np.stack([found.correct, np.ones(len(found.correct))], axis=1).astype(np.float64)
    groups = [question.image for question in data.questions]
    return ground.with_intervals(table, ground.shares(("accuracy",)), groups) | {"chance": Metric(found.chance)}


def _per_task(data: Questions, found: Answered) -> dict[str, Any]:
    rows = found.by([question.task for question in data.questions])
    return {
        "title": "Accuracy of each task", "unit": "%",
        "rows": [{"name": name, "value": value, "count": count} for name, (value, count) in rows.items()],
    }  # fmt: skip


def _pictures(data: Questions, scores: Sequence[NDArray[np.float32]], found: Answered) -> list[dict[str, Any]]:
    """Return a few questions that were answered wrongly."""
    wrong = np.flatnonzero(~found.correct)
    shown = []
    for place in wrong[ground.spread(len(wrong), _SHOWN)].tolist():
        question, values = data.questions[place], scores[place]
        shown.append({
            "title": question.stem or question.id,
            "caption": f"Answer: {question.options[int(values.argmax())]} ({values.max():.3f}); right: "
                       f"{question.options[question.right]} ({values[question.right]:.3f})",
            "picture": ground.thumbnail(data.root, question.image),
        })  # fmt: skip
    return shown


def _notes(job: Job, whole: Questions, counts: Mapping[str, int]) -> tuple[str, ...]:
    notes = []
    if whole.unparsed:
        notes.append(
            f"{len(whole.unparsed)} questions are no multiple choice about one image and were left out, "
            f"the first {whole.unparsed[0][0][:60]} ({whole.unparsed[0][1]})."
        )
    if job.limit is not None and job.limit < len(whole.questions):
        notes.append(f"Only {job.limit} of {len(whole.questions)} questions were taken.")
    if counts["skipped_questions"]:
        notes.append(f"{counts['skipped_questions']} questions have no readable image and were left out.")
    if counts["ties"]:
        notes.append(f"In {counts['ties']} questions the right option ties with others, which counts as wrong.")
    return tuple(notes)


TASK = Choice()
