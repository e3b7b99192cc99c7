"""Hard negatives: is the true text of a region nearer than texts that differ from it in one part (FG-OVD)?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.layouts.negatives import Regions, read_negatives
from training.evaluation.metrics.negatives import TIES, Judged, judge
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.bank import Bank
    from training.evaluation.result import Metric, Result
    from training.evaluation.task import Job

FGOVD = "fgovd"
VIEWS = ("roi", "crop", "both")
_SHOWN = 6
_BLOCK = 512


class Negatives:
    """The task."""

    name = "negatives"
    title = "Hard negatives: Acc@k of the true text, ties against and for the model"
    protocols = (FGOVD,)
    files: ClassVar[frozenset[str]] = frozenset({"images", "templates"})
    settings: ClassVar[Mapping[str, str]] = {
        "view": "roi (default), crop, or both: the normalised mean of the two",
        "k": "the k of Acc@k, with commas (default 1,5)",
        "images": "folder of the pictures (default: the one of the file, or its images/)",
        "templates": "as the texts are (default), model, a set's name, a file of sentences, or a sentence with {}",
        "unreadable": ground.UNREADABLE,
    }
    place: ClassVar[frozenset[str]] = frozenset({"images", "k", "unreadable"})

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or the model has no text tower.
        """
        from geoalign_core.models.encoder import require_text
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol, ks = ground.known_protocol(job, self.protocols), _ks(job)
        view = ground.choice(job, "view", VIEWS, PROTOCOLS[protocol].numbers["view"])
        folder = job.settings.get("images")
        whole = read_negatives(job.data, images=Path(folder) if folder else None, split=job.split)
        data = whole.take(ground.spread(len(whole.items), job.limit))
        sizes, there = ground.present(job, data.root, [item.image for item in data.items])
        digest = ground.digest_of(
            [item.image, size, item.box_xyxy, item.positives, item.negatives]
            for item, size in zip(data.items, sizes, strict=True)
        )
        data = data.take(there)
        encoder = job.encoder()
        require_text(encoder)
        templates = ground.templates_of(job, PROTOCOLS[protocol].numbers["templates"], encoder)
        seconds: dict[str, float] = {}
        data, scores = _scores(job, encoder, data, view, templates, seconds)
        found = judge(scores, [len(item.positives) for item in data.items])
        counts = {
            "items": len(data.items), "images": len({item.image for item in data.items}),
            "texts": int(found.candidates.sum()), "fewest_candidates": int(found.candidates.min()),
            "most_candidates": int(found.candidates.max()), "skipped_items": len(sizes) - len(data.items),
            "items_without_negatives": whole.without, "ties": int((found.pessimistic != found.optimistic).sum()),
        }  # fmt: skip
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts),
            model=ground.measured(encoder, templates, dense=view != "crop"),
            metrics=_metrics(data, found, ks), seconds=seconds,
            settings={
                **ground.given(job, self.place), "view": view, "k": list(ks), "split": job.split, "limit": job.limit,
            },
            notes=_notes(job, whole, counts),
            details={"curves": [_curve(found)], "pictures": _pictures(data, scores, found)},
        )  # fmt: skip


def _ks(job: Job) -> tuple[int, ...]:
    given = job.settings.get("k")
    try:
        parts = PROTOCOLS[job.protocol].numbers["k"] if given is None else given.split(",")
        found = tuple(sorted({int(part) for part in parts}))
    except ValueError:
        found = ()
    if not found or found[0] < 1:
        raise UsageError("k are whole numbers from 1", measured=str(given)[:40], remedy="write -s k=1,5")
    return found


def _scores(
    job: Job, encoder: TorchEncoder, data: Regions, view: str, templates: tuple[str, ...], seconds: dict[str, float]
) -> tuple[Regions, list[NDArray[np.float32]]]:
    """Return the items that can be seen, and the cosines of each one's texts.

    Texts that differ in a word are near ties, which float16 would put in another order.
    """
    from training.evaluation.bank import region_bank, text_bank

    names = list(dict.fromkeys(item.image for item in data.items))
    boxes: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    order = {name: place for place, name in enumerate(names)}
    data = data.take(sorted(range(len(data.items)), key=lambda place: order[data.items[place].image]))
    for item in data.items:
        boxes[item.image].append(item.box_xyxy or _whole(data.root, item.image))
    pictures = ground.items_of(data.root, names)
    with ground.stage(seconds, "regions"):
        bank = region_bank(
            encoder, [(picture, np.array(boxes[picture.key])) for picture in pictures], job.cache,
            view=cast("Literal['roi', 'crop', 'both']", view), batch=ground.batch_of(encoder), dtype="float32",
            progress=job.progress, cancel=job.cancel,
        )  # fmt: skip
    rows = ground.readable(job, data.root, bank, "a region cannot be seen")
    data = data.take(rows)
    with ground.stage(seconds, "texts"):
        flat = [text for item in data.items for text in item.texts]
        texts = text_bank(
            encoder, flat, job.cache, templates=templates, dtype="float32", progress=job.progress, cancel=job.cancel
        )
    return data, cosines(bank, rows, texts, [len(item.texts) for item in data.items])


def cosines(
    seen: Bank, rows: Sequence[int] | NDArray[np.int64], texts: Bank, counts: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Return the cosines of each item's candidates, which lie one item after the other.

    Each is a sum of its own in float64, so that equal texts have equal scores.

    Args:
        seen: Vectors of regions or images.
        rows: (N,) the row of each item.
        texts: (sum of counts, D) vectors.
        counts: (N,) candidates of each item.
    """
    ends = np.cumsum([0, *counts])
    found: list[NDArray[np.float32]] = []
    for first in range(0, len(counts), _BLOCK):
        last = min(first + _BLOCK, len(counts))
        repeated = np.repeat(seen[np.asarray(rows[first:last])].astype(np.float64), counts[first:last], axis=0)
        scores = (texts.rows(int(ends[first]), int(ends[last])) * repeated).sum(axis=1).astype(np.float32)
        found.extend(np.split(scores, ends[first + 1 : last] - ends[first]))
    return found


def _whole(root: Path, image: str) -> tuple[float, ...]:
    """Return the box of a whole picture; that of one that cannot be read is of no consequence."""
    from training.data.images import picture_size, read_bytes

    try:
        width, height = picture_size(read_bytes(root, image), image)
    except DataError:
        width = height = 1
    return 0.0, 0.0, float(width), float(height)


def _metrics(data: Regions, found: Judged, ks: Sequence[int]) -> dict[str, Metric]:
    """Return Acc@k by both tie rules, images drawn with all their items, and chance."""
    from training.evaluation.result import Metric

    names = [f"acc@{k}" if ties == TIES[0] else f"acc@{k}_{ties}" for ties in TIES for k in ks]
    hits = [found.ranks(ties) <= k for ties in TIES for k in ks]
    table = np.stack([*hits, np.ones(len(data.items))], axis=1).astype(np.float64)
    metrics = ground.with_intervals(table, ground.shares(names), [item.image for item in data.items])
    return metrics | {f"chance@{k}": Metric(found.chance(k)) for k in ks}


def _curve(found: Judged) -> dict[str, Any]:
    ks = range(1, min(int(found.candidates.max()), 100) + 1)
    lines = [
        {"name": ties, "points": [[k, round(found.accuracy(k, ties), 2)] for k in ks]} for ties in TIES
    ] + [{"name": "chance", "points": [[k, round(found.chance(k), 2)] for k in ks]}]  # fmt: skip
    return {"title": "Accuracy at k", "x": "k", "y": "%", "lines": lines}


def _pictures(data: Regions, scores: Sequence[NDArray[np.float32]], found: Judged) -> list[dict[str, Any]]:
    """Return the items whose true text is farthest down, with the text that was nearest."""
    shown = []
    for place in np.argsort(-found.pessimistic, kind="stable")[:_SHOWN].tolist():
        item, values = data.items[place], scores[place]
        nearest = int(values.argmax())
        boxes = [] if item.box_xyxy is None else [{"box": list(item.box_xyxy), "kind": "truth"}]
        shown.append({
            "title": f"Rank {found.pessimistic[place]} of {found.candidates[place]}: {item.positives[0]}",
            "caption": f"Nearest: {item.texts[nearest]} ({values[nearest]:.3f}); true: {values[0]:.3f}",
            "picture": ground.thumbnail(data.root, item.image), "boxes": boxes,
        })  # fmt: skip
    return shown


def _notes(job: Job, whole: Regions, counts: Mapping[str, int]) -> tuple[str, ...]:
    ties, items, fewest, most = (counts[key] for key in ("ties", "items", "fewest_candidates", "most_candidates"))
    notes = [
        f"Equal scores ({ties} of {items} items) count against the model in Acc@k, for it in the optimistic figures.",
        f"Items have {fewest} to {most} candidates; chance@k is what random scores give.",
    ]
    if job.limit is not None and job.limit < len(whole.items):
        notes.append(f"Only {job.limit} of {len(whole.items)} items were taken.")
    if counts["skipped_items"]:
        notes.append(f"{counts['skipped_items']} items cannot be seen and were left out.")
    if whole.without:
        notes.append(f"{whole.without} regions have no negatives and were left out.")
    return tuple(notes)


TASK = Negatives()
