"""Open-vocabulary detection: average precision of any file of detections, or of the boxes of our heatmaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.evaluation.detection_pictures import pictures
from training.evaluation.layouts.detection import Detections, read_detections
from training.evaluation.layouts.regions import Boxed, plain, read_boxed, words_of
from training.evaluation.metrics.detection import Judged, Rules, judge, mean_of, resampled, without_area
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground
from training.evaluation.tasks.textboxes import SETTINGS, effective, found_boxes, heatmaps, threshold_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.evaluation.metrics.detection import Area
    from training.evaluation.result import Measured, Metric, Result
    from training.evaluation.task import Job

ELEVEN, ALL, TEXT = "voc11", "voc-all", "text-boxes"
_SAMPLES = 1000
_LEAST_SAMPLES = 100
_WORK = 2_000_000_000
"""Detections times resamples: about a minute."""
_LINES = 12


class Detection:
    """The task."""

    name = "detect"
    title = "Boxes against true boxes: AP at IoU 0.5, base and novel classes"
    protocols = (ELEVEN, ALL, TEXT)
    files: ClassVar[frozenset[str]] = frozenset({"classes", "detections", "words"})
    settings: ClassVar[Mapping[str, str]] = {
        "detections": f"{ELEVEN}, {ALL}: COCO results, a folder of Task1_CLASS.txt, or what geoalign ask wrote",
        "classes": "file with the classes that category_id counts, one a line, where the data has no ids",
        "first_id": "the category_id of the first of them: 1 (default) or 0",
        "iou": "least intersection over union; default: 0.5",
        "novel": "novel classes, A|B, or none; default: DIOR's four where the data has DIOR's classes",
        "boxes": "auto (oriented where both are; default), upright or oriented",
        "coordinates": "continuous (default), or inclusive: the last pixel belongs to the box, as in VOC's kit",
        "matching": "voc (default): the box overlapped most; coco: the most of those that are free",
        "words": f"{TEXT}: JSON file from class to the words to ask for; default: the names in plain words",
        **{name: text.replace("heatmap", TEXT) for name, text in SETTINGS.items()},
    }
    place: ClassVar[frozenset[str]] = frozenset({"detections", "classes", "first_id", "layout", "oriented"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data or the detections are missing, damaged or of another layout, or a setting is wrong.
        """
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol = ground.known_protocol(job, self.protocols)
        _refuse_foreign(job)
        numbers = PROTOCOLS[protocol].numbers
        whole = read_boxed(job.data, split=job.split, trust_pickle=job.trust_pickle)
        data = whole.take(ground.spread(len(whole.scenes), job.limit))
        novel = _novel(job, data.classes, numbers["novel"])
        seconds: dict[str, float] = {}
        model: Measured | None = None
        asked: tuple[str, ...] = ()
        if protocol == TEXT:
            found, model, asked = _asked(job, data, seconds)
        else:
            with ground.stage(seconds, "detections"):
                found = _from_file(job, data, whole)
        rules = _rules(job, data, found, numbers)
        with ground.stage(seconds, "figures"):
            judged = [_class(data, found, label, rules) for label in range(len(data.classes))]
            metrics, per_class, samples = _metrics(data, judged, numbers["area"], novel)
        counts = _counts(data, found, judged, rules)
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, _digest(data), counts), model=model,
            metrics=metrics, seconds=seconds,
            settings={
                **job.settings, "split": data.split, "limit": job.limit, "layout": data.layout, "iou": rules.iou,
                "area": numbers["area"], "matching": rules.matching, "oriented": rules.oriented,
                "coordinates": "inclusive" if rules.rim else "continuous", "novel": sorted(novel),
                **(effective(job) if protocol == TEXT else {}),
            },
            notes=(*_notes(job, whole, found, rules, novel, samples), *asked),
            details={
                "per_class": [per_class], "curves": [_curves(data, judged)],
                "pictures": pictures(data, found, rules),
            },
        )  # fmt: skip


def _refuse_foreign(job: Job) -> None:
    """Refuse settings of the other protocols: they would change nothing."""
    own = ("words", *SETTINGS) if job.protocol == TEXT else ("detections", "classes", "first_id")
    others = {"words", *SETTINGS, "detections", "classes", "first_id"} - set(own)
    given = [name for name in job.settings if name in others]
    if given:
        raise UsageError(f"{given[0]} is no setting of {job.protocol}", remedy="leave it out, or take another protocol")
    if job.protocol != TEXT and "detections" not in job.settings:
        raise UsageError(
            "there are no detections to measure", remedy=f"give -s detections=FILE, or take --protocol {TEXT}"
        )


def _novel(job: Job, classes: Sequence[str], known: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the names of the novel classes, as the data has them.

    Raises:
        UsageError: One of those given is no class.
    """
    words = {plain(name): name for name in classes}
    given = job.settings.get("novel")
    if given == "none":
        return frozenset()
    if given is None:
        dior = {plain(name) for name in known["dior"]}
        return frozenset(words[name] for name in dior) if dior <= set(words) and len(words) == 20 else frozenset()
    found = {name.strip(): words.get(plain(name.strip())) for name in given.split("|") if name.strip()}
    unknown = [name for name, title in found.items() if title is None]
    if unknown or not found:
        raise UsageError(
            "a novel class is none of the data's", measured=", ".join(unknown)[:80], remedy=f"use {', '.join(classes)}"
        )
    return frozenset(title for title in found.values() if title)


def _from_file(job: Job, data: Boxed, whole: Boxed) -> Detections:
    """Read the detections; those of images that a limit left out are not counted as strangers."""
    from training.evaluation.layouts.classes import class_names

    classes = class_names(Path(job.settings["classes"])) if "classes" in job.settings else None
    first = int(ground.choice(job, "first_id", ("1", "0")))
    if "first_id" in job.settings and classes is None:
        raise UsageError("first_id counts nothing without classes", remedy="add -s classes=FILE, or leave it out")
    every = read_detections(Path(job.settings["detections"]), whole, classes=classes, first_id=first)
    if len(data.scenes) == len(whole.scenes):
        return every
    new = {scene.image: place for place, scene in enumerate(data.scenes)}
    moved = np.array([new.get(scene.image, -1) for scene in whole.scenes])[every.image]
    kept = moved >= 0
    return Detections(
        moved[kept], every.labels[kept], every.scores[kept], every.boxes[kept],
        None if every.corners is None else every.corners[kept], every.elsewhere, every.unnamed,
    )  # fmt: skip


def _asked(job: Job, data: Boxed, seconds: dict[str, float]) -> tuple[Detections, Measured, tuple[str, ...]]:
    """Return the regions of the heatmap of every class on every image."""
    words = words_of(data.classes, Path(job.settings["words"]) if "words" in job.settings else None)
    threshold = threshold_of(job)
    ground.present(job, data.root, [scene.image for scene in data.scenes])
    encoder = job.encoder()
    images, labels, scores, boxes = [], [], [], []
    with ground.stage(seconds, "images"):
        for place, scene in enumerate(data.scenes):
            job.cancel.check()
            for label, heat in enumerate(heatmaps(job, encoder, data.root, scene.image, words)):
                found = found_boxes(heat, threshold)
                images += [place] * len(found.boxes)
                labels += [label] * len(found.boxes)
                scores += found.scores.tolist()
                boxes += found.boxes.tolist()
            job.progress(place + 1, len(data.scenes), "asking images")
    return (
        Detections(
            np.array(images, np.int64), np.array(labels, np.int64), np.array(scores, np.float64),
            np.array(boxes, np.float64).reshape(-1, 4),
        ),
        ground.measured(encoder, encoder.config.prompts.templates, dense=True),
        ("Boxes are regions of our heatmaps; they stand in no table with a trained detector's.",),
    )  # fmt: skip


def _rules(job: Job, data: Boxed, found: Detections, numbers: Mapping[str, Any]) -> Rules:
    boxes = ground.choice(job, "boxes", ("auto", "upright", "oriented"), numbers["boxes"])
    both = data.oriented and found.corners is not None
    if boxes == "oriented" and not both:
        raise UsageError("the true boxes or the detections are not oriented", remedy="leave out -s boxes=oriented")
    iou = ground.number_of(job, "iou", float(numbers["iou"])) or 0.0
    if iou > 1:
        raise UsageError("iou is not between 0 and 1", measured=f"{iou:g}")
    coco = ground.choice(job, "matching", ("voc", "coco"), numbers["matching"]) == "coco"
    sides = ground.choice(job, "coordinates", ("continuous", "inclusive"), numbers["coordinates"])
    inclusive = sides == "inclusive"
    oriented = both and boxes != "upright"
    if inclusive and oriented:
        raise UsageError("inclusive coordinates are of upright boxes", remedy="add -s boxes=upright, or leave them out")
    return Rules(iou, "coco" if coco else "voc", float(inclusive), oriented)


def _class(data: Boxed, found: Detections, label: int, rules: Rules) -> Judged:
    truth = []
    for scene in data.scenes:
        mine = scene.labels == label
        shapes = scene.corners if rules.oriented and scene.corners is not None else scene.boxes
        truth.append((shapes[mine], scene.difficult[mine]))
    mine = found.labels == label
    shapes = found.corners if rules.oriented and found.corners is not None else found.boxes
    return judge(truth, shapes[mine], found.scores[mine], found.image[mine], rules)


def _metrics(
    data: Boxed, judged: Sequence[Judged], area: Area, novel: frozenset[str]
) -> tuple[dict[str, Metric], dict[str, Any], int]:
    """Return mAPs in per cent with intervals over images, the classes' APs, and the number of resamples."""
    from training.evaluation.result import Metric

    values = 100 * np.array([item.precision(area) for item in judged])
    work = sum(len(item.hit) for item in judged) + len(data.scenes)
    samples = int(np.clip(_WORK // work, _LEAST_SAMPLES, _SAMPLES))
    drawn = 100 * resampled(judged, area, samples)
    new = np.array([name in novel for name in data.classes])
    groups = {"map": np.ones(len(new), bool)} | ({"map_base": ~new, "map_novel": new} if new.any() else {})
    metrics = {}
    for name, chosen in groups.items():
        means = np.array([mean_of(row[chosen]) for row in drawn])
        low, high = np.nanquantile(means, [0.025, 0.975]) if np.isfinite(means).any() else (None, None)
        metrics[name] = Metric(
            mean_of(values[chosen]), None if low is None else float(low), None if high is None else float(high)
        )
    metrics["recall"] = Metric(100 * mean_of([item.recall for item in judged]))
    rows = [
        {"name": f"{name} (novel)" if name in novel else name, "value": None if np.isnan(value) else float(value),
         "count": int(item.positives.sum())}
        for name, value, item in zip(data.classes, values, judged, strict=True)
    ]  # fmt: skip
    return metrics, {"title": "AP of each class", "unit": "%", "rows": rows}, samples


def _counts(data: Boxed, found: Detections, judged: Sequence[Judged], rules: Rules) -> dict[str, int]:
    return {
        "images": len(data.scenes), "boxes": sum(int(item.positives.sum()) for item in judged),
        "classes": len(data.classes), "classes_without_boxes": sum(not item.positives.any() for item in judged),
        "difficult_boxes": sum(int(scene.difficult.sum()) for scene in data.scenes),
        "detections": len(found.scores), "detections_elsewhere": found.elsewhere,
        "detections_unnamed": found.unnamed, "detections_without_area": without_area(found.boxes, rules.rim),
    }  # fmt: skip


def _digest(data: Boxed) -> str:
    return ground.digest_of([data.classes, *(
        [scene.image, ground.size_of(data.root, scene.image), scene.boxes.tolist(), scene.labels.tolist(),
         scene.difficult.tolist(), None if scene.corners is None else scene.corners.tolist()]
        for scene in data.scenes
    )])  # fmt: skip


def _curves(data: Boxed, judged: Sequence[Judged]) -> dict[str, Any]:
    most = sorted(range(len(judged)), key=lambda place: -int(judged[place].positives.sum()))[:_LINES]
    lines = [{"name": data.classes[place], "points": judged[place].curve()} for place in sorted(most)]
    return {"title": "Precision and recall", "x": "recall", "y": "precision", "lines": lines}


def _notes(
    job: Job, whole: Boxed, found: Detections, rules: Rules, novel: frozenset[str], samples: int
) -> tuple[str, ...]:
    notes = list(whole.notes)
    if novel:
        notes.append(f"Novel classes: {', '.join(sorted(novel))}; all classes were candidates.")
    if whole.oriented and not rules.oriented:
        notes.append("True boxes are oriented; they were compared as the upright boxes around them.")
    if rules.matching == "coco":
        notes.append("Matching is COCO's: a detection takes the box that it overlaps most of those that are free.")
    if found.elsewhere or found.unnamed:
        notes.append(
            f"{found.elsewhere} detections of other images and {found.unnamed} of other classes were left out."
        )
    if flat := without_area(found.boxes, rules.rim):
        notes.append(f"{flat} detections have no area, or right and left exchanged; each counts as a false one.")
    if samples < _SAMPLES:
        notes.append(f"Intervals are of {samples} resamples.")
    if job.split is None and whole.split is not None:
        notes.append(f"The part {whole.split!r} was taken.")
    if job.limit is not None and job.limit < len(whole.scenes):
        notes.append(f"Only {job.limit} of {len(whole.scenes)} images were taken.")
    return tuple(notes)


TASK = Detection()
