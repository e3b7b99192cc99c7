"""Open-vocabulary segmentation: classes of pixels by words, mIoU over a set of images with masks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.data.errors import DataError
from training.data.images import decode, read_bytes
from training.evaluation.classlists import SETS
from training.evaluation.layouts.masks import Masked, find_pairs
from training.evaluation.metrics.segmentation import confusion, segmented, sums_of
from training.evaluation.overlay import may_be_shown
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.segment_plan import Plan, not_published, plan_of
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.classlists import ClassList
    from training.evaluation.result import Metric, Result
    from training.evaluation.sliding import Sliding
    from training.evaluation.tallies import Tallies
    from training.evaluation.task import Job

FARSLIP, SEGEARTH = "ovss-farslip", "ovss-segearth"
_STEPS = 1
"""To be raised when an image's answer changes with the code: counts that were kept are made anew."""
_BANDS = {"bilinear": "bilinear", "guided": "guided filter"}


class Segmentation:
    """The task."""

    name = "segment"
    title = "Open-vocabulary segmentation: mIoU"
    protocols = (FARSLIP, SEGEARTH)
    files: ClassVar[frozenset[str]] = frozenset({"classes", "colours", "templates"})
    settings: ClassVar[Mapping[str, str]] = {
        "set": f"whose classes and masks: {', '.join(SETS)}; default: by the folder's name",
        "classes": "file of own classes: one a line, words between commas; default: the set's",
        "images": "folder of the images from the data's; default: img_dir/SPLIT, SPLIT/src …",
        "masks": "folder of the masks",
        "mask_ending": "what masks have behind the name of their image; default: the set's",
        "colours": "file of red green blue class, for masks in colours; default: the set's",
        "zero_is_unlabelled": "whether masks count classes from 1 (reduce_zero_label): no, yes; default: the set's",
        "ignore": "the number of pixels that do not count; default: 255",
        "unknown": "labels that are no class: refuse (default) or ignore",
        "unreadable": "images without mask, of another size or unreadable: refuse (default) or skip",
        "templates": "imagenet-80 (default), model, a set's name, a file of sentences, or a sentence with {}",
        "side_px": "longer side that images are resized to, 0 for as they are; default: 448",
        "antialias": "whether images are smoothed before they are reduced: no (default, as published), yes",
        "window_px": "side of the windows; default: 224",
        "stride_px": "from window to window; default: 112",
        "scale": "factor on scores before the softmax; default: 50",
        "cls_bias": f"weight of the class token's scores; default: 0, {SEGEARTH} -0.3",
        "threshold": f"least probability, 0..1, of what is not background; default: 0, {SEGEARTH} the set's",
        "background": "name or place of the background's class; default: the set's",
        "upsample": "from patches to pixels: bilinear (default) or guided (guided filter)",
        "guided_radius_px": "half the guided filter's boxes; default: 16",
        "guided_epsilon": "the guided filter's ridge; default: 0.01",
    }
    place: ClassVar[frozenset[str]] = frozenset({"set", "images", "masks", "mask_ending", "colours", "unreadable"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, a setting is out of range, or the model
                has no text tower.
        """
        from geoalign_core.models.encoder import require_text
        from geoalign_core.models.prompts import template_set
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        plan = plan_of(job, ground.known_protocol(job, self.protocols))
        whole = find_pairs(
            job.data, split=job.split, images=job.settings.get("images"), masks=job.settings.get("masks"),
            ending=job.settings.get("mask_ending", plan.known.mask_ending), first=plan.known.split,
        )  # fmt: skip
        _refuse_lonely(job, whole)
        data = whole.take(ground.spread(len(whole.images), job.limit))
        digest = _digest(data, plan)
        encoder = job.encoder()
        require_text(encoder)
        if encoder.config.dense.cls_bias:
            raise UsageError("the class token's weight is the protocol's", remedy="give -s cls_bias=NUMBER instead")
        default = template_set(PROTOCOLS[job.protocol].numbers["templates"])
        templates = ground.templates_of(job, default, encoder)
        seconds: dict[str, float] = {}
        seen = _look(job, encoder, data, plan, templates, digest, seconds)
        if not seen.images:
            raise DataError("has no image that can be measured", path=job.data, remedy="check images and masks")
        with ground.stage(seconds, "figures"):
            sums = np.stack([sums_of(table) for table in seen.tables])
            metrics = _metrics(sums, plan.classes)
        with ground.stage(seconds, "pictures"):
            details = _details(job, encoder, data, plan, seen, sums)
        counts = _counts(whole, data, plan, seen, sums)
        return Result(
            task=self.name, protocol=job.protocol, dataset=Dataset(plan.known.id or data.name, digest, counts),
            model=ground.measured(encoder, templates, dense=True), metrics=metrics, seconds=seconds,
            settings={
                **ground.given(job, self.place), "split": data.split, "limit": job.limit, **_effective(plan.how),
                "zero_is_unlabelled": plan.reader.zero_is_unlabelled, "ignore": plan.reader.ignore,
            },
            notes=_notes(job, whole, plan, encoder, counts), details=details,
        )  # fmt: skip


def _effective(how: Sliding) -> dict[str, Any]:
    """Return the numbers that decide anything: the guided filter's only where it is used."""
    numbers = asdict(how)
    return {key: value for key, value in numbers.items() if how.upsample == "guided" or not key.startswith("guided_")}


@dataclass(frozen=True, slots=True)
class _Seen:
    """N images that were measured; lists that grow."""

    images: list[int]
    """Their places in the data."""
    tables: list[NDArray[np.int64]]
    """(C, C) each."""
    unknown: list[int]
    """Pixels of no known class."""
    texts: NDArray[np.float32]
    problems: list[str]
    """Why others were left out."""
    kept: Tallies
    """With the answers that may be drawn."""


def _refuse_lonely(job: Job, data: Masked) -> None:
    """Refuse images without masks and masks without images, unless they may be skipped."""
    lonely = data.lonely_images or data.lonely_masks
    if lonely and ground.choice(job, "unreadable", ("refuse", "skip")) == "refuse":
        what = "an image has no mask" if data.lonely_images else "a mask has no image"
        raise DataError(
            what, path=data.root / lonely[0],
            measured=f"{len(data.lonely_images)} images, {len(data.lonely_masks)} masks alone",
            remedy="complete the folders, or leave them out with -s unreadable=skip",
        )  # fmt: skip


def _digest(data: Masked, plan: Plan) -> str:
    """Return the digest of the pairs, their sizes and how labels are read."""
    reader = plan.reader
    rules: list[object] = [
        plan.classes.names, plan.classes.words, plan.classes.owners.tolist(), reader.ignore, reader.unknown,
        reader.zero_is_unlabelled, sorted(reader.colours.items()) if reader.colours else None,
    ]  # fmt: skip
    return ground.digest_of([*rules, *(
        (image, ground.size_of(data.root, image), mask, ground.size_of(data.root, mask))
        for image, mask in zip(data.images, data.masks, strict=True)
    )])  # fmt: skip


def _look(
    job: Job, encoder: TorchEncoder, data: Masked, plan: Plan, templates: tuple[str, ...], digest: str,
    seconds: dict[str, float],
) -> _Seen:  # fmt: skip
    """Answer every image; those of an earlier run are not looked at again."""
    from training.evaluation.bank import text_bank
    from training.evaluation.segment_pictures import reduced
    from training.evaluation.tallies import Tallies

    with ground.stage(seconds, "texts"):
        bank = text_bank(
            encoder, plan.classes.words, job.cache, templates=templates, dtype="float32", progress=job.progress,
            cancel=job.cancel,
        )  # fmt: skip
        texts = np.asarray(bank.vectors, np.float32)
    whole = _key_of(encoder, templates, asdict(plan.how), digest, data)
    kept = Tallies(job.cache, whole, len(plan.classes.names))
    seen, skip = _Seen([], [], [], texts, [], kept), ground.choice(job, "unreadable", ("refuse", "skip")) == "skip"
    mious: list[float] = []
    with ground.stage(seconds, "images"):
        for place, image in enumerate(data.images):
            job.cancel.check()
            found = kept.get(image)
            try:
                if found is None:
                    pixels, truth, unknown = _pair(data, place, plan)
                    answer = _answer(encoder, pixels, texts, plan, job)
                    found = confusion(truth, answer, len(plan.classes.names)), unknown
                    shown = may_be_shown([*mious, _miou(found[0])])
                    kept.add(image, *found, reduced(answer) if shown else None)
            except DataError as error:
                if not skip:
                    raise
                seen.problems.append(str(error))
            else:
                seen.images.append(place)
                seen.tables.append(found[0])
                seen.unknown.append(found[1])
                mious.append(_miou(found[0]))
            job.progress(place + 1, len(data.images), "segmenting")
    return seen


def _miou(table: NDArray[np.int64]) -> float:
    return float(segmented(sums_of(table)).miou[0])


def _key_of(
    encoder: TorchEncoder, templates: Sequence[str], how: Mapping[str, Any], digest: str, data: Masked
) -> str:  # fmt: skip
    """Return the digest of everything that decides an image's counts.

    The data's digest knows sizes only, and uncompressed masks all have one: the files' times tell them apart.
    """
    from training.evaluation.bank import file_version

    files = [file_version(data.root / name) for name in (*data.images, *data.masks)]
    about = [encoder.key, encoder.precision, encoder.device.type, encoder.config.text_cfg, templates, how]
    return ground.digest_of([_STEPS, *about, digest, files])


def _pair(data: Masked, place: int, plan: Plan) -> tuple[NDArray[np.uint8], NDArray[np.int32], int]:
    image = data.images[place]
    pixels = decode(read_bytes(data.root, image), str(data.root / image))
    truth, unknown = plan.reader.read(data.root, data.masks[place])
    if truth.shape != pixels.shape[:2]:
        sizes = [f"{width} × {height}" for height, width in (truth.shape, pixels.shape[:2])]
        raise DataError(
            "a mask is not as large as its image", path=data.root / data.masks[place],
            measured=f"{sizes[0]}, not {sizes[1]} px", remedy="mend it, or leave it out with -s unreadable=skip",
        )  # fmt: skip
    return pixels, truth, unknown


def _answer(
    encoder: TorchEncoder, pixels: NDArray[np.uint8], texts: NDArray[np.float32], plan: Plan, job: Job
) -> NDArray[np.int32]:
    from training.evaluation.sliding import segment

    return segment(encoder, pixels, texts, plan.classes.owners, plan.how, cancel=job.cancel)


def _counts(whole: Masked, data: Masked, plan: Plan, seen: _Seen, sums: NDArray[np.float64]) -> dict[str, int]:
    classes = len(plan.classes.names)
    return {
        "images": len(seen.images), "classes": classes, "words": len(plan.classes.words),
        "pixels": int(sums[:, classes : 2 * classes].sum()), "unknown_pixels": sum(seen.unknown),
        "skipped_images": len(data.images) - len(seen.images) + len(whole.lonely_images),
        "masks_without_image": len(whole.lonely_masks),
        "classes_without_pixels": int((sums[:, classes : 2 * classes].sum(axis=0) == 0).sum()),
    }  # fmt: skip


def _metrics(sums: NDArray[np.float64], classes: ClassList) -> dict[str, Metric]:
    def figures(part: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        found = segmented(part)
        means = {"miou": found.miou, "accuracy": found.accuracy, "macc": found.macc, "fwiou": found.fwiou}
        return means | {f"iou {name}": found.iou[:, place] for place, name in enumerate(classes.names)}

    from training.evaluation.result import Metric

    metrics = ground.with_intervals(sums, figures)
    return {name: item if math.isfinite(item.value) else Metric(math.nan) for name, item in metrics.items()}


def _details(
    job: Job, encoder: TorchEncoder, data: Masked, plan: Plan, seen: _Seen, sums: NDArray[np.float64]
) -> dict[str, Any]:
    from training.evaluation.segment_pictures import pictures, reduced

    names, figures = plan.classes.names, segmented(sums.sum(axis=0))
    rows = [
        {"name": name, "value": float(iou) if math.isfinite(iou) else None, "count": int(count)}
        for name, iou, count in zip(names, figures.iou[0], sums.sum(axis=0)[len(names) :], strict=False)
    ]

    def show(number: int) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        pixels, truth, unknown = _pair(data, seen.images[number], plan)
        answer = seen.kept.drawn(data.images[seen.images[number]])
        if answer is None:  # its line was damaged
            answer = reduced(_answer(encoder, pixels, seen.texts, plan, job))
            seen.kept.add(data.images[seen.images[number]], seen.tables[number], unknown, answer)
        return pixels, truth, answer

    images = [data.images[place] for place in seen.images]
    return {
        "confusion": {"classes": list(names), "counts": sum(seen.tables[1:], seen.tables[0]).tolist()},
        "per_class": [{"title": "IoU of each class, and its pixels", "unit": "%", "rows": rows}],
        "pictures": pictures(images, segmented(sums).miou, names, show),
        "words": {
            name: [word for word, owner in zip(plan.classes.words, plan.classes.owners, strict=True) if owner == place]
            for place, name in enumerate(names)
        },
        "skipped": seen.problems[:100],
    }


def _notes(job: Job, whole: Masked, plan: Plan, encoder: TorchEncoder, counts: Mapping[str, int]) -> tuple[str, ...]:
    numbers, how, notes = PROTOCOLS[job.protocol].numbers, plan.how, []
    if job.split is None and whole.split is not None:
        notes.append(f"The part {whole.split!r} was taken.")
    if job.limit is not None and job.limit < len(whole.images):
        notes.append(f"Only {job.limit} of {len(whole.images)} images were taken.")
    if job.protocol == SEGEARTH:
        notes.append(
            f"Scores are enlarged by {_BANDS[how.upsample]}; the published figures use SimFeatUp, a learnt upsampler."
        )
    if encoder.config.dense.mode != numbers["dense_mode"]:
        notes.append(f"The model was read by {encoder.config.dense.mode}, the published ones by segearth.")
    changed = not_published(plan, job.protocol)
    if changed:
        notes.append(f"Other than published: {', '.join(changed)}.")
    notes.append(f"Computed in {encoder.precision}, where the published code takes float16.")
    if counts["skipped_images"]:
        notes.append(f"{counts['skipped_images']} images were left out.")
    if counts["unknown_pixels"]:
        notes.append(f"{counts['unknown_pixels']:,} pixels have a label that is no class and do not count.")
    if counts["classes_without_pixels"]:
        notes.append(f"{counts['classes_without_pixels']} classes have no pixels; they stay candidates.")
    return tuple(notes)


TASK = Segmentation()
