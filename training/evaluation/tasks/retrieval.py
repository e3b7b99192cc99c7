"""Image–text retrieval: which captions an image finds, and which image a caption finds.

``retrieval-5cap`` ranks all captions as they are, a caption that several images share once for each of them.
``retrieval-unique`` merges equal captions and takes any match for a hit, with a prefix for three sets (SkyScript,
FarSLIP). ``retrieval-long`` is the first with one detailed caption for each image. ``retrieval-own`` lets an image
rank the distinct captions and each caption of each image ask for that image only (the embedded model's card).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from training.evaluation.layouts.captions import Captioned, read_captions
from training.evaluation.metrics import retrieval as metric
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.retrieval_cards import Way, cards
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.result import Result
    from training.evaluation.task import Job

FIVE, UNIQUE, LONG, OWN = "retrieval-5cap", "retrieval-unique", "retrieval-long", "retrieval-own"
PREFIX: str = PROTOCOLS[UNIQUE].numbers["prefix"]
_CURVE = 100
_TIES = ("pessimistic", "optimistic")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Who belongs to whom."""

    texts: tuple[str, ...]
    """M candidates, without prefix."""
    of_image: tuple[tuple[int, ...], ...]
    """Texts of each image."""
    of_text: tuple[tuple[int, ...], ...]
    """Images of each text."""


def pair(data: Captioned, *, unique: bool) -> Pairs:
    """Lay out images and texts; ``unique`` merges equal texts."""
    texts: list[str] = []
    places: dict[str, int] = {}
    of_image: list[tuple[int, ...]] = []
    of_text: list[list[int]] = []
    for image, captions in enumerate(data.texts):
        mine = []
        for caption in captions:
            place = places.get(caption) if unique else None
            if place is None:
                place = places[caption] = len(texts)
                texts.append(caption)
                of_text.append([])
            mine.append(place)
            if of_text[place][-1:] != [image]:
                of_text[place].append(image)
        of_image.append(tuple(dict.fromkeys(mine)))
    return Pairs(tuple(texts), tuple(of_image), tuple(tuple(images) for images in of_text))


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors, and the ranks of both directions."""

    images: Any
    """(N, D) rows."""
    texts: Any
    """(M, D) rows."""
    i2t: NDArray[np.int64]
    t2i: NDArray[np.int64]


class Retrieval:
    """The task."""

    name = "retrieval"
    title = "Image–text retrieval: R@k, means of both directions, mR"
    protocols = (FIVE, UNIQUE, LONG, OWN)
    files: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[Mapping[str, str]] = {
        "column": "column of the texts in a table (default title_multi_objects; title for RSICD, RSITMD, UCM)",
        "prefix": f"put before every text: auto (default: {PREFIX!r} for RSICD, RSITMD, UCM in {UNIQUE}), none, or it",
        "ties": f"pessimistic (default): equal scores count against the model; or optimistic ({OWN}'s default)",
        "unreadable": ground.UNREADABLE,
    }
    place: ClassVar[frozenset[str]] = frozenset({"unreadable"})

    def run(self, job: Job) -> Result:
        """Measure both directions.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout, or the model has no text tower.
        """
        from geoalign_core.models.encoder import require_text
        from training.evaluation.result import Dataset, Result

        ground.check_settings(job, self.settings)
        protocol = ground.known_protocol(job, self.protocols)
        numbers = PROTOCOLS[protocol].numbers
        ties = ground.choice(job, "ties", _TIES, numbers["ties"])
        whole = read_captions(
            job.data, split=job.split, column=job.settings.get("column"), long=bool(numbers["detailed"])
        )
        data = whole.take(ground.spread(len(whole.images), job.limit))
        sizes, there = ground.present(job, data.root, data.images)
        digest = ground.digest_of(zip(data.images, sizes, data.texts, strict=True))
        data = data.take(there)
        encoder = job.encoder()
        require_text(encoder)
        seconds: dict[str, float] = {}
        prefix = _prefix(job, data, protocol)
        data, pairs, found = _embed(job, encoder, data, prefix, ties, seconds)
        cut, words = ground.lost_words(encoder, [prefix + text for text in dict.fromkeys(pairs.texts)])
        counts = {
            "images": len(data.images), "texts": len(pairs.texts), "unique_texts": len(set(pairs.texts)),
            "skipped_images": len(sizes) - len(data.images), "images_without_text": whole.without,
            "cut_texts": cut, "lost_words": words,
        }  # fmt: skip
        ks = tuple(numbers["ks"])
        return Result(
            task=self.name, protocol=protocol, dataset=Dataset(data.name, digest, counts),
            model=ground.measured(encoder, (prefix + "{}",) if prefix else ()),
            metrics=ground.with_intervals(
                metric.per_image(found.i2t, found.t2i, _owners(pairs), ks),
                lambda sums: metric.figures(sums, ks),
            ),
            seconds=seconds,
            settings={
                **ground.given(job, self.place), "prefix": prefix, "ties": ties, "split": data.split,
                "limit": job.limit,
            },
            notes=_notes(job, whole, counts, encoder, ties),
            details={"curves": [_curve(found)], "retrievals": _examples(job, data, pairs, found, ties)},
        )  # fmt: skip


def _prefix(job: Job, data: Captioned, protocol: str) -> str:
    given = job.settings.get("prefix", "auto")
    if given == "auto":
        return str(PROTOCOLS[protocol].numbers["prefix"]) if data.satellite else ""
    return "" if given == "none" else given


def _embed(
    job: Job, encoder: TorchEncoder, data: Captioned, prefix: str, ties: str, seconds: dict[str, float]
) -> tuple[Captioned, Pairs, Embedded]:
    from training.evaluation.bank import image_bank, text_bank
    from training.evaluation.ranking import ranks

    with ground.stage(seconds, "images"):
        bank = image_bank(
            encoder, ground.items_of(data.root, data.images), job.cache, batch=ground.batch_of(encoder),
            progress=job.progress, cancel=job.cancel,
        )  # fmt: skip
    rows = ground.readable(job, data.root, bank)
    images = bank[rows] if len(rows) < len(bank) else bank
    data = data.take(rows)
    pairs = pair(data, unique=bool(PROTOCOLS[job.protocol].numbers["unique"]))
    with ground.stage(seconds, "texts"):
        texts = text_bank(
            encoder, [prefix + text for text in pairs.texts], job.cache, progress=job.progress, cancel=job.cancel
        )
    how: dict[str, Any] = {
        "ties": ties, "device": str(encoder.device), "progress": job.progress, "cancel": job.cancel
    }  # fmt: skip
    with ground.stage(seconds, "ranks"):
        distinct = pairs.texts if PROTOCOLS[job.protocol].numbers.get("distinct") else None
        i2t = ranks(images, texts, pairs.of_image, same=distinct, **how)
        t2i = ranks(texts, images, pairs.of_text, **how)
    return data, pairs, Embedded(images, texts, i2t, t2i)


def _owners(pairs: Pairs) -> NDArray[np.int64]:
    """Return (M,) the image that each text is drawn with by the bootstrap: the first it belongs to."""
    return np.array([images[0] for images in pairs.of_text], np.int64)


def _notes(job: Job, data: Captioned, counts: Mapping[str, int], encoder: TorchEncoder, ties: str) -> tuple[str, ...]:
    notes = [data.note] if data.note else []
    if job.limit is not None and job.limit < len(data.images):
        notes.append(f"Only {job.limit} of {len(data.images)} images were taken: fewer candidates make it easier.")
    if counts["skipped_images"]:
        notes.append(f"{counts['skipped_images']} images cannot be read and were left out, with their texts.")
    if (copies := counts["texts"] - counts["unique_texts"]) and job.protocol not in (UNIQUE, OWN):
        notes.append(
            f"{copies} of {counts['texts']} texts repeat others and tie with them; equal scores were counted "
            f"{'against' if ties == 'pessimistic' else 'for'} the model."
        )
    if counts["cut_texts"]:
        notes.append(
            f"{counts['cut_texts']} texts are longer than the {encoder.max_tokens} tokens that the model reads: "
            f"{counts['lost_words']} words were lost."
        )
    return tuple(notes)


def _curve(found: Embedded) -> dict[str, Any]:
    """Return R@k for the k up to 100."""
    lines = []
    for name, ranks, candidates in (("I2T", found.i2t, len(found.t2i)), ("T2I", found.t2i, len(found.i2t))):
        ks = range(1, min(_CURVE, candidates) + 1)
        lines.append({"name": name, "points": [[k, round(value, 2)] for k, value in metric.recalls(ranks, ks).items()]})
    return {"title": "Recall at k", "x": "k", "y": "%", "lines": lines}


def _examples(job: Job, data: Captioned, pairs: Pairs, found: Embedded, ties: str) -> list[dict[str, Any]]:
    """Return a few of the best and worst queries of both directions, with what they found."""
    pictures: dict[int, dict[str, Any]] = {}

    def image(place: int) -> dict[str, Any]:
        if place not in pictures:
            pictures[place] = ground.thumbnail(data.root, data.images[place])
        return {"picture": pictures[place], "name": data.images[place]}

    def text(place: int) -> dict[str, Any]:
        return {"text": pairs.texts[place]}

    captions = [tuple(dict.fromkeys(texts)) for texts in data.texts]
    once = bool(PROTOCOLS[job.protocol].numbers.get("distinct"))
    ways = (
        Way("I2T", found.images, found.texts, pairs.of_image, found.i2t, captions, pairs.texts, once, image, text),
        Way(
            "T2I", found.texts, found.images, pairs.of_text, found.t2i, pairs.texts, range(len(data.images)), False,
            text, image,
        ),
    )  # fmt: skip
    return [card for way in ways for card in cards(way, pessimistic=ties == "pessimistic", cancel=job.cancel)]


TASK = Retrieval()
