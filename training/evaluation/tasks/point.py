"""Heatmaps against boxes: do the patches that a word lights up lie in the boxes of what it names?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.evaluation.layouts.boxes import read_boxes, read_names, words_for
from training.evaluation.metrics.pointing import RIMS, TOLERANCE_PX, near_boxes, patch_figures
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.result import Dataset, Metric, Result
from training.evaluation.tasks import groundwork as gw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.grounding.text import TextQueries
    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.lattices import Lattice
    from training.evaluation.layouts.boxes import BoxedScene, Boxes
    from training.evaluation.metrics.pointing import PatchFigures
    from training.evaluation.task import Job

WINDOWS, PROGRAM = "point-windows", "point-program"
_OWN = {
    WINDOWS: ("window_px", "scale", "object_px"),
    PROGRAM: ("source_gsd", "gsd"),
}
_BINS = 256
_MOST_QUESTIONS = 32
"""Beyond so many, intervals would take more memory than they are worth."""


@dataclass(frozen=True, slots=True)
class Question:
    """A word and the category that it should find."""

    category: str
    word: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """One window of a scene, or all of it."""

    scene: str
    odds: NDArray[np.float32]
    """(Q, rows, cols)"""
    labels: Mapping[str, NDArray[np.int8]]
    """By category."""
    near: Mapping[str, NDArray[np.bool_]] | None


class PointTask:
    """See the module."""

    name = "point"
    title = "Heatmaps against boxes: pointing game and average precision of patches."
    protocols = (WINDOWS, PROGRAM)
    files: ClassVar[frozenset[str]] = frozenset({"only", "words"})
    settings: ClassVar[Mapping[str, str]] = {
        "words": "what to ask for, CATEGORY=word|word;… or a JSON file; default: the categories' names",
        "rim": f"patches that a box only touches: {', '.join(RIMS)}; default: {RIMS[0]}",
        "tolerance_px": f"how far from a box a hit may be (the literature: {TOLERANCE_PX:g}); default: inside it",
        "window_px": f"{WINDOWS}: side of the windows; default: the model's",
        "scale": f"{WINDOWS}: factor on the images' sides; default: 1",
        "object_px": f"{WINDOWS}: resize each image until its median box is so long; default: off",
        "source_gsd": f"{PROGRAM}: metres per pixel of the images; default: as they are, at one level",
        "gsd": f"{PROGRAM}: metres per pixel to look at; default: the model's",
        "only": "text file with the names of the images to look at; default: all",
    }
    place: ClassVar[frozenset[str]] = frozenset({"only"})

    def run(self, job: Job) -> Result:
        """Measure.

        Memory: 4 bytes per patch and word, and 1 per patch and category, of all scenes.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or a setting is out of range.
        """
        from geoalign_core.grounding.text import encode_queries

        gw.check_settings(job, self.settings)
        protocol = gw.known_protocol(job, self.protocols)
        _refuse_foreign(job)
        rim = gw.choice(job, "rim", RIMS, PROTOCOLS[protocol].numbers["rim"])
        names = read_names(Path(job.settings["only"])) if "only" in job.settings else None
        data = read_boxes(job.data, split=job.split, names=names)
        questions = [
            Question(category, word)
            for category, words in words_for(data.categories, job.settings.get("words")).items()
            for word in words
        ]
        scenes = [data.scenes[place] for place in gw.spread(len(data.scenes), job.limit)]
        seconds: dict[str, float] = {}
        encoder = job.encoder()
        with gw.stage(seconds, "texts"):
            texts = encode_queries(encoder, [question.word for question in questions])
        with gw.stage(seconds, "images"):
            seen = _look(job, scenes, questions, encoder, texts)
        with gw.stage(seconds, "figures"):
            found = [_figures(seen, questions, number, rim) for number in range(len(questions))]
            metrics = _metrics(seen, questions, found, rim)
            rows = _scene_rows(seen, questions, rim)
        with gw.stage(seconds, "pictures"):
            pictures = _pictures(job, scenes, rows, encoder, texts)
        return Result(
            task=self.name,
            protocol=protocol,
            dataset=_dataset(data, scenes, questions, seen),
            model=gw.measured(encoder, encoder.config.prompts.templates, dense=True),
            metrics=metrics,
            seconds=seconds,
            settings={
                **job.settings, **gw.sizes(job, encoder, program=protocol == PROGRAM), "rim": rim,
                "tolerance_px": gw.number_of(job, "tolerance_px", zero=True), "split": job.split, "limit": job.limit,
            },
            notes=(*_notes(data, scenes, questions, rim), *texts.notes),
            details={
                "questions": [
                    asdict(question) | asdict(figures) | {
                        "average_precision_without_rims": _figures(seen, questions, number, "ignore").average_precision
                    }
                    for number, (question, figures) in enumerate(zip(questions, found, strict=True))
                ],
                "scenes": rows,
                "pictures": pictures,
            },
        )  # fmt: skip


def _refuse_foreign(job: Job) -> None:
    """Refuse settings of the other protocol: they would change nothing."""
    for protocol, names in _OWN.items():
        given = [name for name in names if name in job.settings]
        if given and protocol != job.protocol:
            raise UsageError(f"{given[0]} is a setting of {protocol}", remedy=f"ask with --protocol {protocol}")
    if "scale" in job.settings and "object_px" in job.settings:
        raise UsageError("scale and object_px exclude each other", remedy="leave one of them out")


def _lattices(
    job: Job, scene: BoxedScene, encoder: TorchEncoder, texts: TextQueries, typical_px: float
) -> list[Lattice]:
    """Score a scene as the protocol says."""
    from training.evaluation.lattices import Sizing, as_asked, through_windows

    if job.protocol == PROGRAM:
        gsds = gw.number_of(job, "source_gsd"), gw.number_of(job, "gsd")
        return [as_asked(scene, encoder, texts, *gsds, job.cache, job.cancel)]
    patch = encoder.config.patch_px
    window = round(gw.number_of(job, "window_px", encoder.config.dense.window_px) or 0)
    if window < patch or window % patch:
        near = max(1, round(window / patch)) * patch
        raise UsageError("window_px is not made of whole patches", measured=f"{window}", remedy=f"use {near}")
    sizing = Sizing(window, patch, gw.number_of(job, "scale", 1.0) or 1.0, gw.number_of(job, "object_px"))
    return through_windows(scene, encoder, texts, sizing, typical_px, job.cache, job.cancel)


def _look(
    job: Job, scenes: Sequence[BoxedScene], questions: Sequence[Question], encoder: TorchEncoder, texts: TextQueries
) -> list[_Seen]:
    tolerance = gw.number_of(job, "tolerance_px", zero=True)
    categories = list(dict.fromkeys(question.category for question in questions))
    typical, seen = typical_length(scenes), []
    for done, scene in enumerate(scenes, start=1):
        job.cancel.check()
        for lattice in _lattices(job, scene, encoder, texts, typical):
            boxes = {name: scene.boxes_xyxy_px.get(name, np.zeros((0, 4))) for name in categories}
            centres = lattice.centres_xy_px() if tolerance is not None else None
            near = None if centres is None else {
                name: near_boxes(centres, part, tolerance or 0.0) for name, part in boxes.items()
            }  # fmt: skip
            labels = {name: lattice.labels(part) for name, part in boxes.items()}
            seen.append(_Seen(scene.image, lattice.odds[: len(questions)], labels, near))
        job.progress(done, len(scenes), "looking at scenes")
    return seen


def typical_length(scenes: Sequence[BoxedScene]) -> float:
    """Return the median over scenes of their median box's longer side, for scenes without boxes; 1 without any."""
    from training.evaluation.lattices import median_length

    lengths = [median_length(scene, math.nan) for scene in scenes]
    known = [length for length in lengths if math.isfinite(length) and length > 0]
    return float(np.median(known)) if known else 1.0


def _figures(seen: Sequence[_Seen], questions: Sequence[Question], number: int, rim: Any) -> PatchFigures:  # noqa: ANN401
    category = questions[number].category
    return patch_figures(
        [item.odds[number] for item in seen], [item.labels[category] for item in seen], [item.scene for item in seen],
        rim=rim, near=_near(seen, category),
    )  # fmt: skip


def _near(seen: Sequence[_Seen], category: str) -> list[NDArray[np.bool_]] | None:
    found = [item.near[category] for item in seen if item.near is not None]
    return found if len(found) == len(seen) else None


def _scene_rows(seen: Sequence[_Seen], questions: Sequence[Question], rim: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Measure every scene for itself; average precision is null where the scene has nothing of the category."""
    scenes: dict[str, list[_Seen]] = {}
    for item in seen:
        scenes.setdefault(item.scene, []).append(item)
    return [
        {
            "image": name, "word": question.word, "category": question.category,
            "average_precision": figures.average_precision, "base_rate": figures.base_rate,
            "hit": bool(figures.pointing_hits) if figures.pointing_scenes else None,
        }
        for number, question in enumerate(questions)
        for name, part in scenes.items()
        for figures in (_figures(part, questions, number, rim),)
    ]  # fmt: skip


def _metrics(
    seen: Sequence[_Seen], questions: Sequence[Question], found: Sequence[PatchFigures], rim: Any  # noqa: ANN401
) -> dict[str, Metric]:  # fmt: skip
    """Average over the words of a category, then over categories; NaN where no category has it."""
    sides = _intervals(seen, questions, rim) if 1 <= len(questions) <= _MOST_QUESTIONS else {}

    def mean(name: str) -> float:
        values: dict[str, list[float]] = {}
        for question, figures in zip(questions, found, strict=True):
            values.setdefault(question.category, []).append(float(getattr(figures, name)))
        means = np.array([np.mean(part) for part in values.values()])
        return float(means[np.isfinite(means)].mean()) if np.isfinite(means).any() else math.nan

    low, high = sides.get("AP", (None, None))
    metrics = {
        "AP": Metric(mean("average_precision"), low, high, unit="share"),
        "ROC AUC": Metric(mean("roc_auc"), unit="share"),
        "base rate": Metric(mean("base_rate"), unit="share"),
        "pointing": Metric(100 * mean("pointing"), *sides.get("pointing", (None, None))),
        "F1 at 0.5": Metric(mean("f1_at_half"), unit="share"),
        "best F1": Metric(mean("f1_best"), unit="share"),
    }
    if 1 < len(questions) <= _MOST_QUESTIONS:
        for question, figures in zip(questions, found, strict=True):
            metrics[f"AP {question.word}"] = Metric(figures.average_precision, unit="share")
    return metrics


def _intervals(
    seen: Sequence[_Seen], questions: Sequence[Question], rim: Any  # noqa: ANN401
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Draw whole scenes; average precision from counts between 256 quantiles of what is inside."""
    from training.evaluation.intervals import bootstrap_sums

    scenes: dict[str, list[_Seen]] = {}
    for item in seen:
        scenes.setdefault(item.scene, []).append(item)
    if len(scenes) < 2:
        return {}
    counts = np.zeros((len(scenes), 2, len(questions), _BINS))
    plays = np.zeros((len(scenes), 2, len(questions)))
    for number, question in enumerate(questions):
        samples = [_known(part, question.category, number, rim) for part in scenes.values()]
        positive = np.concatenate([odds[truth] for odds, truth in samples])
        edges = np.quantile(positive, np.linspace(0, 1, _BINS)[:-1]) if len(positive) else np.zeros(_BINS - 1)
        for place, (part, (odds, truth)) in enumerate(zip(scenes.values(), samples, strict=True)):
            bins = _BINS - 1 - np.searchsorted(edges, odds, side="right")
            counts[place, 0, number] = np.bincount(bins[truth], minlength=_BINS)
            counts[place, 1, number] = np.bincount(bins[~truth], minlength=_BINS)
            figures = _figures(part, questions, number, rim)
            plays[place, :, number] = figures.pointing_hits, figures.pointing_scenes
    weights = _weights(questions)

    def precision(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        yes, no = sums.reshape(len(sums), 2, len(questions), _BINS).transpose(1, 0, 2, 3)
        above = yes.cumsum(axis=-1)
        share = above / np.maximum(above + no.cumsum(axis=-1), 1)
        return _weighted((yes * share).sum(axis=-1) / yes.sum(axis=-1), weights)

    def pointing(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return _weighted(100 * sums[:, : len(questions)] / sums[:, len(questions) :], weights)

    return {
        "AP": bootstrap_sums(counts.reshape(len(scenes), -1), precision),
        "pointing": bootstrap_sums(plays.reshape(len(scenes), -1), pointing),
    }


def _known(
    part: Sequence[_Seen], category: str, number: int, rim: Any  # noqa: ANN401
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:  # fmt: skip
    """Return the log-odds (N,) of a scene's patches that count, and whether they are inside."""
    odds = np.concatenate([item.odds[number].ravel() for item in part])
    labels = np.concatenate([item.labels[category].ravel() for item in part])
    kept = np.isfinite(odds) & ((labels >= 0) | (rim != "ignore"))
    return odds[kept], ((labels == 1) | ((labels == -1) & (rim == "inside")))[kept]


def _weights(questions: Sequence[Question]) -> NDArray[np.float64]:
    counts = {name: sum(item.category == name for item in questions) for name in {item.category for item in questions}}
    return np.array([1 / counts[item.category] for item in questions])


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (S, Q) over the questions that have a value."""
    known = np.isfinite(values)
    total = known @ weights
    return np.where(total > 0, np.where(known, values, 0.0) @ weights / np.maximum(total, 1e-12), np.nan)


def _pictures(
    job: Job, scenes: Sequence[BoxedScene], rows: Sequence[Mapping[str, Any]], encoder: TorchEncoder, texts: TextQueries
) -> list[dict[str, Any]]:
    """Return the best and the worst scenes by each category's first word, scored again from the stored vectors."""
    from geoalign_core.grounding.relevance import score
    from training.evaluation.lattices import best_place, joined
    from training.evaluation.overlay import best_and_worst, overlaid

    pictures, typical = [], typical_length(scenes)
    named = {scene.image: scene for scene in scenes}
    first = {row["category"]: row["word"] for row in reversed(rows)}
    chosen = [(place // len(named), row) for place, row in enumerate(rows) if row["word"] == first[row["category"]]]
    for name, place in best_and_worst([row["average_precision"] for _, row in chosen]):
        number, row = chosen[place]
        scene = named[row["image"]]
        lattices = _lattices(job, scene, encoder, texts, typical)
        odds = joined(lattices, number, scene.height_px, scene.width_px)
        corners = [[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in scene.boxes_xyxy_px.get(row["category"], [])]
        x, y = best_place(lattices, number)
        pictures.append({
            "title": scene.image.rsplit("/", 1)[-1],
            "caption": f"“{row['word']}”, {name}: average precision {row['average_precision']:.3f}",
            **overlaid(scene.pixels(), score(odds), corners),
            "points": [{"x": x, "y": y, "kind": "hit" if row["hit"] else "false"}],
        })  # fmt: skip
    return pictures


def _dataset(
    data: Boxes, scenes: Sequence[BoxedScene], questions: Sequence[Question], seen: Sequence[_Seen]
) -> Dataset:
    categories = {question.category for question in questions}
    parts = [
        (scene.image, gw.size_of(scene.root, scene.image), {
            name: boxes.tolist() for name, boxes in sorted(scene.boxes_xyxy_px.items()) if name in categories
        })
        for scene in scenes
    ]  # fmt: skip
    boxes = sum(len(part) for _, _, found in parts for part in found.values())
    counts = {
        "images": len(scenes), "boxes": boxes, "categories": len(categories), "words": len(questions),
        "patches": sum(int(np.isfinite(item.odds[0]).sum()) for item in seen), "boxes_without_category": data.unnamed,
    }  # fmt: skip
    return Dataset(data.name, gw.digest_of(parts), counts)


def _notes(data: Boxes, scenes: Sequence[BoxedScene], questions: Sequence[Question], rim: str) -> tuple[str, ...]:
    notes = [f"Patches that a box only touches are counted {rim}." if rim != "ignore" else "Rims are not counted."]
    if len(scenes) < len(data.scenes):
        notes.append(f"{len(scenes)} of {len(data.scenes)} images were looked at.")
    missing = sorted(set(data.categories) - {question.category for question in questions})
    if missing:
        notes.append(f"Not asked for: {', '.join(missing)[:120]}.")
    return tuple(notes)


TASK = PointTask()
