"""From scores to precision: fits a model's map on labelled images, and tells how far precisions are off with it.

Without a map, a score is read as a precision; that is ``before``. All of ``after`` is from images held out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import expit

from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.calibration import METHODS, fit
from training.evaluation.calibration_data import groups_of, labelled, look
from training.evaluation.fingerprints import files_of
from training.evaluation.metrics import calibration as measure
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.result import Dataset, Metric, Result
from training.evaluation.tasks import groundwork as gw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geoalign_core.models.calibration import Calibration
    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.calibration import Fitted, Method, Samples
    from training.evaluation.calibration_data import Labelled
    from training.evaluation.task import Job

WINDOWS, PROGRAM = "calibration-windows", "calibration-program"
_OWN = {WINDOWS: ("window_px", "scale", "object_px"), PROGRAM: ("source_gsd", "gsd")}
_WHERE = ("calibration", "store", "images", "masks")
"""Settings that only say where something lies or goes."""
FEWEST = 50
"""Images, or groups of them, below which no map is written: it would say more of them than of the model."""


@dataclass(frozen=True, slots=True)
class _Views:
    """N samples with what is predicted of them."""

    truth: NDArray[np.bool_]
    groups: NDArray[np.int32]
    count: int
    """Of the groups."""
    before: NDArray[np.float64]
    """(N,) the scores."""
    after: NDArray[np.float64]
    """(N,) precisions by maps that were made without the sample's scene."""

    def some(self, rows: NDArray[np.bool_]) -> _Views:
        """Return some of the samples."""
        return _Views(self.truth[rows], self.groups[rows], self.count, self.before[rows], self.after[rows])


class CalibrateTask:
    """See the module."""

    name = "calibrate"
    title = "From scores to precision: reliability before and after."
    protocols = (WINDOWS, PROGRAM)
    files: ClassVar[frozenset[str]] = frozenset({"classes", "colours", "only", "words"})
    settings: ClassVar[Mapping[str, str]] = {
        "truth": "what says what is where: boxes (default) or masks",
        "calibration": f"file to write the map into, JSON, of {FEWEST} images or groups at least; default: none",
        "store": "whether to put the map beside the model, where geoalign finds it: no (default), yes",
        "methods": f"what to choose from, by log loss on held-out images; default: {','.join(METHODS)}",
        "groups": "regular expression: images with the same match in their names are held out together; default: none",
        "unreadable": gw.UNREADABLE,
        "words": "boxes: what to ask for, CATEGORY=word|word;… or a JSON file; default: the categories' names",
        "rim": "boxes: patches that a box only touches: outside (default), ignore, inside",
        "unboxed": "boxes: images without a box of a category are empty of it (default) or unknown: they do not count",
        "most": "at most so many places of an image for each word, drawn at random; default: all",
        "only": "boxes: text file with the names of the images to look at; default: all",
        "object_px": f"boxes, {WINDOWS}: resize each image until its median box is so long; default: off",
        "window_px": f"{WINDOWS}: side of the windows; default: the model's",
        "scale": f"{WINDOWS}: factor on the images' sides; default: 1",
        "source_gsd": f"{PROGRAM}: metres per pixel of the images; default: as they are, at one level",
        "gsd": f"{PROGRAM}: metres per pixel to look at; default: the model's",
        "leave_out": "masks: classes that are not asked for, commas between; default: a known set's background",
        "set": "masks: whose classes and masks, as in segment; default: by the folder's name",
        "classes": "masks: file of own classes: one a line, words between commas; default: the set's",
        "images": "masks: folder of the images from the data's; default: img_dir/SPLIT, SPLIT/src …",
        "masks": "masks: folder of the masks",
        "mask_ending": "masks: what masks have behind the name of their image; default: the set's",
        "colours": "masks: file of red green blue class; default: the set's",
        "zero_is_unlabelled": "masks: whether they count classes from 1: no, yes; default: the set's",
        "ignore": "masks: the number of pixels that do not count; default: 255",
        "unknown": "masks: labels that are no class: refuse (default) or ignore",
    }
    place: ClassVar[frozenset[str]] = frozenset(
        {"truth", "calibration", "store", "only", "set", "images", "masks", "mask_ending", "colours", "unreadable"}
    )

    def run(self, job: Job) -> Result:
        """Fit and measure.

        Memory: about 60 bytes per patch and word of all images.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, a setting is out of range, there are too
                few images, or the model's folder has no place for the map.
        """
        from geoalign_core.models.calibration import write_calibration
        from geoalign_core.models.encoder import require_text

        gw.check_settings(job, self.settings)
        protocol = gw.known_protocol(job, self.protocols)
        _refuse_foreign(job)
        methods, keep = _methods(job), gw.choice(job, "store", ("no", "yes")) == "yes"
        data = labelled(job)
        if keep or "calibration" in job.settings:
            _refuse_few(job, len(set(groups_of(job, data))))
        encoder = job.encoder()
        require_text(encoder)
        targets = [Path(job.settings["calibration"])] if "calibration" in job.settings else []
        targets += [_store_place(job, encoder)] if keep else []
        seconds: dict[str, float] = {}
        with gw.stage(seconds, "images"):
            samples, questions = look(job, data, encoder, program=protocol == PROGRAM)
        with gw.stage(seconds, "fit"):
            fitted = fit(samples, methods, int(PROTOCOLS[protocol].numbers["folds"]))
        with gw.stage(seconds, "figures"):
            views = _Views(
                samples.truth, samples.groups, len(samples.names), expit(samples.odds.astype(np.float64)),
                fitted.held_out,
            )  # fmt: skip
            metrics = _metrics(views, fitted, PROTOCOLS[protocol].numbers)
        dataset = Dataset(data.name, data.digest, _counts(data, samples))
        found = _calibration(job, encoder, fitted, dataset, metrics)
        for path in targets:
            write_calibration(path, found)
        return Result(
            task=self.name, protocol=protocol, dataset=dataset,
            model=gw.measured(encoder, encoder.config.prompts.templates, dense=True), metrics=metrics,
            seconds=seconds, settings=_effective(job, encoder, data, methods), notes=_notes(data, samples, fitted),
            details=_details(views, data, questions, found, PROTOCOLS[protocol].numbers),
        )  # fmt: skip


def _refuse_foreign(job: Job) -> None:
    """Refuse settings of the other protocol: they would change nothing."""
    for protocol, names in _OWN.items():
        given = [name for name in names if name in job.settings]
        if given and protocol != job.protocol:
            raise UsageError(f"{given[0]} is a setting of {protocol}", remedy=f"ask with --protocol {protocol}")


def _refuse_few(job: Job, count: int) -> None:
    """Refuse to write a map of too few images or groups: whoever reads it would not know.

    Raises:
        DataError: There are fewer than :data:`FEWEST`.
    """
    if count < FEWEST:
        raise DataError(
            "has too few images or groups for a map to be kept", path=job.data, measured=f"{count}, not {FEWEST}",
            remedy="give more, or leave out calibration and store: the result has the map, too",
        )  # fmt: skip


def _methods(job: Job) -> tuple[Method, ...]:
    given = [name.strip() for name in job.settings.get("methods", ",".join(METHODS)).split(",")]
    unknown = [name for name in given if name not in METHODS]
    if unknown:
        raise UsageError("methods has no such method", measured=unknown[0][:40], remedy=f"use {', '.join(METHODS)}")
    return tuple(method for method in METHODS if method in given)


def _store_place(job: Job, encoder: TorchEncoder) -> Path:
    """Return where the program looks for the map of a model: beside its files, in the store or in its own folder.

    Raises:
        UsageError: Where the model lies is not known.
    """
    from geoalign_core.errors import ModelError
    from geoalign_core.models.calibration import FILE_NAME, place_of
    from geoalign_core.models.registry import locate

    try:
        return place_of(locate(job.model or encoder.config.name))
    except ModelError as error:
        raise UsageError(
            f"{encoder.config.name} is not in the store", remedy=f"give -s calibration=ITS_FOLDER/{FILE_NAME}"
        ) from error


def _calibration(
    job: Job, encoder: TorchEncoder, fitted: Fitted, dataset: Dataset, metrics: Mapping[str, Metric]
) -> Calibration:
    from geoalign_core.models.calibration import Calibration, score_key_of

    figures = {name: round(metric.value, 6) for name, metric in metrics.items() if np.isfinite(metric.value)}
    return Calibration(
        model=encoder.config.name, key=score_key_of(encoder), prior=fitted.prior, scores=fitted.scores,
        precisions=fitted.precisions, method=fitted.method, protocol=job.protocol,
        data={
            "name": dataset.name, "digest": dataset.digest, "counts": dict(dataset.counts), "settings": _told(job),
        },
        figures={**figures, "precision": encoder.precision},
    )  # fmt: skip


def _effective(job: Job, encoder: TorchEncoder, data: Labelled, methods: tuple[Method, ...]) -> dict[str, Any]:
    """Return the settings with the values that count."""
    truth, groups = gw.choice(job, "truth", ("boxes", "masks")), job.settings.get("groups")
    return {
        **_told(job), **gw.sizes(job, encoder, program=job.protocol == PROGRAM), **data.settings, "truth": truth,
        "methods": list(methods), "most": gw.number_of(job, "most"), "groups": groups, "split": job.split,
        "limit": job.limit,
    }  # fmt: skip


def _told(job: Job) -> dict[str, str]:
    """Return the settings that decide figures, files by their names: where they lie is nobody's business."""
    given = {**job.settings, **{name: path.name for name, path in files_of(CalibrateTask.files, job.settings).items()}}
    return {name: value for name, value in given.items() if name not in _WHERE}


def _counts(data: Labelled, samples: Samples) -> dict[str, int]:
    return {
        "images": len(data.scenes), "groups": len(samples.names), **data.counts, "words": len(data.questions),
        "places": len(samples.truth), "right": int(samples.truth.sum()),
    }  # fmt: skip


def _metrics(views: _Views, fitted: Fitted, numbers: Mapping[str, Any]) -> dict[str, Metric]:
    bins, shown = int(numbers["bins"]), views.some(views.before >= float(numbers["shown"]))
    found: dict[str, Metric] = {}
    for when in ("before", "after"):
        found[f"ECE {when}"] = _ece(views, getattr(views, when), measure.mass_edges(getattr(views, when), bins))
        found[f"ECE of equal widths {when}"] = _ece(views, getattr(views, when), measure.width_edges(bins))
        found[f"ECE of what is shown {when}"] = _ece(
            shown, getattr(shown, when), measure.mass_edges(getattr(shown, when), bins)
        )
        found[f"Brier {when}"] = _brier(views, getattr(views, when))
        loss = measure.log_loss(getattr(views, when), views.truth, ~views.truth)
        found[f"log loss {when}"] = Metric(loss, unit="", better="lower")
    found["base rate"] = Metric(fitted.prior, unit="share")
    found["highest precision"] = Metric(fitted.precisions[-1], unit="share")
    return found


def _ece(views: _Views, predictions: NDArray[np.float64], edges: NDArray[np.float64]) -> Metric:
    """Return the error with an interval over groups, the bins fixed."""
    from training.evaluation.intervals import bootstrap_sums

    value = measure.reliability(predictions, views.truth, edges).ece
    if not np.isfinite(value) or views.count < 2:
        return Metric(value, unit="share", better="lower")
    bins = len(edges) + 1
    cells = views.groups.astype(np.int64) * bins + np.searchsorted(edges, predictions, side="right")
    gaps = np.bincount(cells, views.truth - predictions, views.count * bins).reshape(views.count, bins)
    table = np.column_stack([gaps, np.bincount(views.groups, minlength=views.count)])
    low, high = bootstrap_sums(table, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])
    return Metric(value, low, high, unit="share", better="lower")


def _brier(views: _Views, predictions: NDArray[np.float64]) -> Metric:
    from training.evaluation.intervals import bootstrap_sums

    value = measure.brier(predictions, views.truth)
    errors = np.bincount(views.groups, (predictions - views.truth) ** 2, views.count)
    table = np.column_stack([errors, np.bincount(views.groups, minlength=views.count)])
    low, high = bootstrap_sums(table, lambda sums: sums[:, 0] / sums[:, 1])
    return Metric(value, low, high, unit="share", better="lower")


def _details(
    views: _Views, data: Labelled, questions: NDArray[np.int16], found: Calibration, numbers: Mapping[str, Any]
) -> dict[str, Any]:
    bins, rows = int(numbers["bins"]), []
    categories = list(dict.fromkeys(question.category for question in data.questions))
    owner = np.array([categories.index(question.category) for question in data.questions])[questions]
    for place, category in enumerate(categories):
        part = views.some(owner == place)
        error = measure.expected_calibration_error(part.after, part.truth, bins=bins, mass=True)
        rows.append({"name": category, "value": error if np.isfinite(error) else None, "count": len(part.truth)})

    def diagram(title: str, predictions: NDArray[np.float64]) -> dict[str, Any]:
        table = measure.reliability(predictions, views.truth, measure.width_edges(bins))
        error = measure.expected_calibration_error(predictions, views.truth, bins=bins, mass=True)
        return {"title": title, "ece": error, "bins": table.rows()}

    points = [list(point) for point in zip(found.scores, found.precisions, strict=True)]
    return {
        "reliability": [
            diagram("Scores read as precision", views.before),
            diagram("Precision by the map, on images held out", views.after),
        ],
        "curves": [{"title": "The map", "x": "score", "y": "precision", "lines": [
            {"name": found.method, "points": points}, {"name": "no map", "points": [[0, 0], [1, 1]]},
        ]}],
        "per_class": [
            {"title": "ECE of each category by the map of all, and its patches", "unit": "share", "rows": rows}
        ],
        "calibration": asdict(found),
    }  # fmt: skip


def _notes(data: Labelled, samples: Samples, fitted: Fitted) -> tuple[str, ...]:
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in fitted.losses.items())
    notes = [
        f"Method {fitted.method}, by log loss on held-out images ({losses}).",
        f"The map holds where {fitted.prior:.2%} of the places are what is asked for; a prior shifts it.",
        "It is one for all categories: a single one may be off by more.",
        *data.notes,
    ]
    if len(samples.names) < FEWEST:
        notes.append(f"Only {len(samples.names)} images or groups: a map that is kept needs {FEWEST}.")
    return tuple(notes)


TASK = CalibrateTask()
