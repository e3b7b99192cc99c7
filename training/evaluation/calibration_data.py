"""Images whose places are known to be of a category or not, by boxes or by masks, and the scores that words get there.

A place is a patch of the model's lattice. Inside a box, or of a mask's class, is what its centre says.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import UsageError
from training.data.errors import DataError
from training.data.images import picture_size, read_bytes
from training.evaluation.calibration import Samples
from training.evaluation.layouts.boxes import BoxedScene, read_boxes, read_names, words_for
from training.evaluation.metrics.pointing import RIMS
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as gw
from training.evaluation.tasks.point import Question, typical_length

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from geoalign_core.grounding.text import TextQueries
    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.lattices import Lattice, Sizing
    from training.evaluation.layouts.masks import MaskReader
    from training.evaluation.task import Job

    Truth = Callable[[Lattice, str], NDArray[np.int8]]
    """Lattice and category → (rows, cols): 1 what was asked for, 0 not, −1 does not count."""

BOXES_ONLY = ("words", "rim", "object_px", "only", "unboxed")
READING = ("set", "classes", "images", "masks", "mask_ending", "colours", "zero_is_unlabelled", "ignore", "unknown")
"""How masks are read, as in the task ``segment``."""
MASKS_ONLY = (*READING, "leave_out")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images, what is asked of them, and what is true."""

    name: str
    scenes: tuple[BoxedScene, ...]
    """Without boxes where masks say what is true."""
    questions: tuple[Question, ...]
    truth: Callable[[BoxedScene], Truth]
    digest: str
    counts: Mapping[str, int]
    settings: Mapping[str, Any]
    """Those that decide what is true, with the values that count."""
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Looked:
    """Samples as they come in, 11 bytes for each place and word."""

    odds: list[NDArray[np.float32]] = field(default_factory=list)
    truth: list[NDArray[np.bool_]] = field(default_factory=list)
    groups: list[NDArray[np.int32]] = field(default_factory=list)
    questions: list[NDArray[np.int16]] = field(default_factory=list)

    def add(self, lattice: Lattice, truth: Truth, questions: tuple[Question, ...], group: int) -> None:
        """Add the places of a lattice that count."""
        by_category = {name: truth(lattice, name) for name in dict.fromkeys(item.category for item in questions)}
        for number, question in enumerate(questions):
            odds, labels = lattice.odds[number], by_category[question.category]
            kept = np.isfinite(odds) & (labels >= 0)
            count = int(kept.sum())
            self.odds.append(odds[kept].astype(np.float32))
            self.truth.append(labels[kept] == 1)
            self.groups.append(np.full(count, group, np.int32))
            self.questions.append(np.full(count, number, np.int16))

    def draw(self, scene: Looked, most: int | None, seed: int) -> None:
        """Add the places of a whole scene, of each question at most so many, drawn at random."""
        if not scene.odds:
            return
        numbers = np.concatenate(scene.questions)
        rows = np.arange(len(numbers))
        if most is not None:
            rng = np.random.default_rng(seed)
            drawn = [rng.permutation(np.flatnonzero(numbers == number))[:most] for number in np.unique(numbers)]
            rows = np.sort(np.concatenate(drawn))
        self.odds.append(np.concatenate(scene.odds)[rows])
        self.truth.append(np.concatenate(scene.truth)[rows])
        self.groups.append(np.concatenate(scene.groups)[rows])
        self.questions.append(numbers[rows])

    def samples(self, names: tuple[str, ...]) -> tuple[Samples, NDArray[np.int16]]:
        """Return all of them, and the place of each one's question."""
        odds, truth = np.concatenate(self.odds), np.concatenate(self.truth)
        return Samples(odds, truth, np.concatenate(self.groups), names), np.concatenate(self.questions)


def labelled(job: Job) -> Labelled:
    """Read what a job is about; no picture is decoded.

    Raises:
        GeoAlignError: The data is missing, damaged or of another layout, or a setting is out of range or of no use.
    """
    kind = gw.choice(job, "truth", ("boxes", "masks"))
    foreign = [name for name in (MASKS_ONLY if kind == "boxes" else BOXES_ONLY) if name in job.settings]
    if foreign:
        other = "masks" if kind == "boxes" else "boxes"
        raise UsageError(f"{foreign[0]} is a setting of {other}", remedy=f"leave it out, or add -s truth={other}")
    found = _boxes(job) if kind == "boxes" else _masks(job)
    if not found.questions:
        raise UsageError("nothing is asked for", remedy="leave out fewer classes")
    return found


def _boxes(job: Job) -> Labelled:
    rim = gw.choice(job, "rim", RIMS, PROTOCOLS[job.protocol].numbers["rim"])
    unknown = gw.choice(job, "unboxed", ("empty", "unknown")) == "unknown"
    names = read_names(Path(job.settings["only"])) if "only" in job.settings else None
    data = read_boxes(job.data, split=job.split, names=names)
    table = words_for(data.categories, job.settings.get("words"))
    questions = tuple(Question(category, word) for category, words in table.items() for word in words)
    scenes = [data.scenes[place] for place in gw.spread(len(data.scenes), job.limit)]
    _, there = gw.present(job, scenes[0].root, [scene.image for scene in scenes])
    scenes = [scenes[place] for place in there]
    parts = [
        (scene.image, gw.size_of(scene.root, scene.image), {
            name: boxes.tolist() for name, boxes in sorted(scene.boxes_xyxy_px.items()) if name in table
        })
        for scene in scenes
    ]  # fmt: skip
    counts = {"boxes": sum(len(boxes) for _, _, found in parts for boxes in found.values()), "categories": len(table)}

    def truth(scene: BoxedScene) -> Truth:
        def labels(lattice: Lattice, category: str) -> NDArray[np.int8]:
            if unknown and not len(scene.boxes_xyxy_px.get(category, ())):
                return np.full(lattice.odds.shape[1:], -1, np.int8)
            found = lattice.labels(scene.boxes_xyxy_px.get(category, np.zeros((0, 4))))
            if rim != "ignore":
                found[found == -1] = rim == "inside"
            return found

        return labels

    missing = sorted(set(data.categories) - set(table))
    return Labelled(
        data.name, tuple(scenes), questions, truth, gw.digest_of([rim, unknown, *parts]), counts,
        {"rim": rim, "unboxed": "unknown" if unknown else "empty"},
        (f"Not asked for: {', '.join(missing)[:120]}.",) if missing else (),
    )  # fmt: skip


def _masks(job: Job) -> Labelled:
    from training.evaluation.layouts.masks import find_pairs
    from training.evaluation.segment_plan import plan_of

    own = {name: value for name, value in job.settings.items() if name in READING}
    plan = plan_of(replace(job, settings=own), "ovss-farslip")
    whole = find_pairs(
        job.data, split=job.split, images=own.get("images"), masks=own.get("masks"),
        ending=own.get("mask_ending", plan.known.mask_ending),
    )  # fmt: skip
    lonely = [*whole.lonely_images, *whole.lonely_masks]
    if lonely and gw.choice(job, "unreadable", ("refuse", "skip")) == "refuse":
        raise DataError(
            "has no mask or no image beside it", path=whole.root / lonely[0], measured=f"{len(lonely)} of them",
            remedy="complete the folders, or leave them out with -s unreadable=skip",
        )  # fmt: skip
    data = whole.take(gw.spread(len(whole.images), job.limit))
    left = _left_out(job, plan.classes.names, plan.known.background if plan.known.id else None)
    questions = tuple(
        Question(plan.classes.names[owner], word)
        for word, owner in zip(plan.classes.words, plan.classes.owners, strict=True)
        if plan.classes.names[owner] not in left
    )
    masks = dict(zip(data.images, data.masks, strict=True))
    scenes = tuple(_scene(data.root, image) for image in data.images)
    parts = [(a, gw.size_of(data.root, a), b, gw.size_of(data.root, b)) for a, b in masks.items()]
    rules: list[object] = [plan.classes.names, [(item.category, item.word) for item in questions], sorted(own.items())]

    def truth(scene: BoxedScene) -> Truth:
        return _of_mask(scene, masks[scene.image], plan.reader, plan.classes.names)

    counts = {"masks": len(masks), "categories": len({question.category for question in questions})}
    return Labelled(
        plan.known.id or data.name, scenes, questions, truth, gw.digest_of([*rules, *parts]), counts,
        {
            "set": plan.known.id or None, "leave_out": sorted(left), "ignore": plan.reader.ignore,
            "zero_is_unlabelled": plan.reader.zero_is_unlabelled, "unknown": plan.reader.unknown,
        },
        (f"Not asked for: {', '.join(sorted(left))[:120]}.",) if left else (),
    )  # fmt: skip


def _left_out(job: Job, names: tuple[str, ...], background: int | None) -> set[str]:
    """Return the classes that are not asked for, by default a known set's background."""
    given = job.settings.get("leave_out")
    if given is None:
        return set() if background is None else {names[background]}
    left = {name.strip() for name in given.split(",") if name.strip()}
    unknown = sorted(left - set(names))
    if unknown:
        raise UsageError("leave_out names no class", measured=", ".join(unknown)[:60], remedy=f"use {', '.join(names)}")
    return left


def _scene(root: Path, image: str) -> BoxedScene:
    width, height = picture_size(read_bytes(root, image), image)
    return BoxedScene(root, image, width, height, {})


def _of_mask(scene: BoxedScene, mask: str, reader: MaskReader, names: tuple[str, ...]) -> Truth:
    labels, _ = reader.read(scene.root, mask)
    if labels.shape != (scene.height_px, scene.width_px):
        raise DataError(
            "a mask is not as large as its image", path=scene.root / mask,
            measured=f"{labels.shape[1]} × {labels.shape[0]}, not {scene.width_px} × {scene.height_px} px",
        )  # fmt: skip

    def truth(lattice: Lattice, category: str) -> NDArray[np.int8]:
        cols, rows = np.floor(lattice.centres_xy_px()).astype(np.int64).transpose(2, 0, 1)
        inside = (rows < scene.height_px) & (cols < scene.width_px)
        found = labels[np.minimum(rows, scene.height_px - 1), np.minimum(cols, scene.width_px - 1)]
        return np.where(inside & (found >= 0), found == names.index(category), -1).astype(np.int8)

    return truth


def look(job: Job, data: Labelled, encoder: TorchEncoder, *, program: bool) -> tuple[Samples, NDArray[np.int16]]:
    """Score every word on every image.

    Args:
        job: Settings, progress and where features are kept.
        data: The images.
        encoder: The model.
        program: Whether to see images as ``geoalign ask`` does, instead of through plain windows.

    Returns:
        The samples, by groups of images that belong together, and the place of each one's question.

    Raises:
        GeoAlignError: An image or a mask is damaged, or a setting is out of range.
    """
    from geoalign_core.grounding.text import encode_queries

    texts = encode_queries(encoder, [question.word for question in data.questions])
    groups = groups_of(job, data)
    names = tuple(sorted(set(groups)))
    places = {name: place for place, name in enumerate(names)}
    typical, found = typical_length(data.scenes), Looked()
    sizing = None if program else _sizing(job, encoder)
    most = gw.number_of(job, "most")
    for done, (scene, group) in enumerate(zip(data.scenes, groups, strict=True), start=1):
        job.cancel.check()
        truth, part = data.truth(scene), Looked()
        for lattice in _lattices(job, scene, encoder, texts, sizing, typical):
            part.add(lattice, truth, data.questions, places[group])
        found.draw(part, None if most is None else max(1, round(most)), _seed(scene.image))
        job.progress(done, len(data.scenes), "looking at images")
    if not sum(map(len, found.odds)):
        raise DataError("has no place that counts", path=job.data, remedy="look at rim, unboxed and ignore")
    return found.samples(names)


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def groups_of(job: Job, data: Labelled) -> list[str]:
    """Return what each image belongs to: what the setting ``groups`` matches in its name, else the name."""
    if "groups" not in job.settings:
        return [scene.image for scene in data.scenes]
    try:
        pattern = re.compile(job.settings["groups"])
    except re.error as error:
        raise UsageError("groups is no regular expression", measured=str(error)[:60]) from error
    matches = [pattern.search(scene.image) for scene in data.scenes]
    return [match[0] if match else scene.image for match, scene in zip(matches, data.scenes, strict=True)]


def _sizing(job: Job, encoder: TorchEncoder) -> Sizing:
    from training.evaluation.lattices import Sizing

    if "scale" in job.settings and "object_px" in job.settings:
        raise UsageError("scale and object_px exclude each other", remedy="leave one of them out")
    patch = encoder.config.patch_px
    window = round(gw.number_of(job, "window_px", encoder.config.dense.window_px) or 0)
    if window < patch or window % patch:
        near = max(1, round(window / patch)) * patch
        raise UsageError("window_px is not made of whole patches", measured=f"{window}", remedy=f"use {near}")
    return Sizing(window, patch, gw.number_of(job, "scale", 1.0) or 1.0, gw.number_of(job, "object_px"))


def _lattices(
    job: Job, scene: BoxedScene, encoder: TorchEncoder, texts: TextQueries, sizing: Sizing | None, typical_px: float
) -> list[Lattice]:
    from training.evaluation.lattices import as_asked, through_windows

    if sizing is not None:
        return through_windows(scene, encoder, texts, sizing, typical_px, job.cache, job.cancel)
    sizes: tuple[Any, Any] = gw.number_of(job, "source_gsd"), gw.number_of(job, "gsd")
    return [as_asked(scene, encoder, texts, *sizes, job.cache, job.cancel)]
