"""Embeddings that are computed once: vectors of images, texts and boxes in a folder, read through a memory map.

A bank lies in a folder of its own under the cache, named by a digest of the model, its preparation, the items and the
number format. Shards of about 1,024 rows are written when they are full, and in parts when that takes long: killing the
program at any moment loses some 20 seconds of work or one batch, and the next run goes on behind. Two processes share
one computation. Nothing is dropped: row i is item i, and an item that could not be read is a row of NaN, listed in
:attr:`Bank.skipped`; it is tried again by the next run.

float16 halves the disk (10⁵ × 768: 154 MB); rows are normalised again when they are read. Measured by
``benchmarks/evaluation_ranking.py --half`` on 20,000 made-up texts about 4,000 images of 768 dimensions: cosines move
by up to 6·10⁻⁵, 0.18 % of the ranks move, by one place, and R@1, 5 and 10 by at most 0.005 points. ``float32`` is
there for the last digit.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from geoalign_core.features.boxes import CROP_RULE
from geoalign_core.models.encoder import TextCutWarning, require_text
from tiling.progress import CancelToken, silent
from training.data.errors import DataError
from training.evaluation.bank_fill import NO_BOX, Filling, Pictures
from training.evaluation.bank_store import Plan, Store, checked, cut, keys_digest, unit

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from geoalign_core.features.choices import Fit, View
    from geoalign_core.models.encoder import Encoder
    from tiling.progress import Progress
    from training.evaluation.ahead import Load
    from training.evaluation.bank_fill import Made, Rows
    from training.evaluation.bank_store import Shard

SHARD_ROWS = 1024
TEXT_SHARD_ROWS = 8192
"""Texts are quick, and many."""
OnDisk = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Item:
    """One image."""

    key: str
    """Its name."""
    load: Load
    """Gives uint8 RGB (H, W, 3), in a thread. GeoAlignError, OSError and ValueError mean that it is unreadable."""
    version: str = ""
    """What changes with the file: a changed file is another item."""


def file_version(path: Path) -> str:
    """Return a file's size and time: uncompressed pictures all have one size. A missing file says so."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return "missing"
    return f"{about.st_size} {about.st_mtime_ns}"


def file_item(root: Path, image: str) -> Item:
    """Return the item of a picture's file, named as in :attr:`training.data.schema.Record.image`.

    Its version is that of the file, or of the archive that it lies in; a missing file is unreadable later.
    """
    from training.data.images import decode, read_bytes, split_name

    return Item(image, lambda: decode(read_bytes(root, image), image), file_version(root / split_name(image)[0]))


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item without a vector."""

    row: int
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Bank:
    """N vectors of D dimensions, L2-normalised float32, read as they are asked for.

    An index (a row, a slice, an array of rows or a mask) gives an array, ``np.asarray(bank)`` all of them.
    """

    parts: tuple[tuple[NDArray[np.int64], tuple[Shard, ...]], ...]
    """Views whose normalised mean is the vector (one, or RoI and crop): first row of each shard and N, the shards."""
    width: int
    digest: str
    """Of everything that decides the vectors."""
    skipped: tuple[Skipped, ...] = ()
    """Rows of NaN."""
    index: NDArray[np.int64] | None = None
    """(N,) stored row of each vector, where equal texts are stored once."""
    seconds: float = 0.0
    """Spent on computing; 0 when all was there."""

    def __len__(self) -> int:
        """Return N."""
        return int(self.parts[0][0][-1]) if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (N, D)."""
        return len(self), self.width

    @property
    def vectors(self) -> NDArray[np.float32]:
        """All of them in memory, (N, D)."""
        return self.rows(0, len(self))

    @property
    def readable(self) -> NDArray[np.int64]:
        """Rows that are not skipped, ascending."""
        return np.setdiff1d(np.arange(len(self)), [item.row for item in self.skipped])

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return (stop − start, D)."""
        return self[start:stop]

    @overload
    def __getitem__(self, key: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any] | Sequence[int]) -> NDArray[np.float32]: ...
    def __getitem__(self, key: int | slice | NDArray[Any] | Sequence[int]) -> NDArray[np.float32]:
        """Return (D,) for a row, and (n, D) for several."""
        wanted = np.arange(len(self))[key]
        rows = np.atleast_1d(wanted if self.index is None else self.index[wanted])
        views = [unit(_gather(starts, shards, rows, self.width)) for starts, shards in self.parts]
        vectors = unit(np.sum(views, axis=0)) if len(views) > 1 else views[0]
        return vectors if np.ndim(wanted) else vectors[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return self.vectors.astype(dtype or np.float32, copy=False)


def image_bank(
    encoder: Encoder,
    items: Sequence[Item],
    folder: Path,
    *,
    batch: int = 16,
    dtype: OnDisk = "float16",
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Bank:
    """Give the vectors of whole images, as the model's family prepares its images.

    Args:
        encoder: The model; it runs where it was loaded to.
        items: The images; they are decoded by a few threads while the model runs.
        folder: Of all banks.
        batch: Images at a time; vectors do not depend on it.
        dtype: On disk; see the module.
        progress: Told the images done.
        cancel: Looked at after each batch.

    Raises:
        DataError: The model gives no usable vector; the item is named.
        OutputWriteError: The disk is full or refuses.
        CancelledError: The token was set; finished shards stay.
    """
    from geoalign_core.features.images import encode_images

    counts = np.ones(len(items), np.int64)
    firsts, starts = cut(counts, SHARD_ROWS)
    plan = Plan("image", _about(encoder), _items_digest(items), starts, encoder.config.embed_dim, dtype)
    job = Filling(Store(folder, plan), firsts, counts, "embedding images", progress, cancel or CancelToken())

    def encode(numbers: Sequence[int], pictures: list[NDArray[np.uint8]]) -> Rows:
        vectors = encode_images(encoder, _channels_first(pictures), batch=batch)
        return checked(vectors, [items[number].key for number in numbers]), [""] * len(vectors)

    loads = [item.load for item in items]
    shards, seconds = job.fill(Pictures(job, loads, encode, batch).make, loads)
    return _bank(plan, shards, [item.key for item in items], seconds)


def text_bank(
    encoder: Encoder,
    texts: Sequence[str],
    folder: Path,
    *,
    templates: Sequence[str] | None = None,
    batch: int = 256,
    dtype: OnDisk = "float16",
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Bank:
    """Give the vectors of texts: with templates, the normalised mean over the templates' normalised vectors.

    Equal texts are computed and stored once. Texts that the model cuts are no warning here: see
    :func:`geoalign_core.models.encoder.words_beyond`.

    Args:
        encoder: The model.
        texts: The texts.
        folder: Of all banks.
        templates: Sentences with one ``{}`` each (Radford et al. 2021, §3.1.4); None takes the texts as they are.
        batch: Sentences at a time.
        dtype: On disk; see the module.
        progress: Told the texts done.
        cancel: Looked at after each batch.

    Raises:
        ModelError: The model has no text tower.
        DataError: A template has no ``{}``, or the model gives no usable vector; the text is named.
        OutputWriteError: The disk is full or refuses.
        CancelledError: The token was set; finished shards stay.
    """
    require_text(encoder)
    forms = _forms(templates)
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    unique, index = list(places), np.array([places[text] for text in texts], np.int64)
    counts = np.ones(len(unique), np.int64)
    firsts, starts = cut(counts, TEXT_SHARD_ROWS)
    about = {**_about(encoder), "text": encoder.config.text_cfg, "max_tokens": encoder.max_tokens, "templates": forms}
    plan = Plan("text", about, keys_digest(unique), starts, encoder.config.embed_dim, dtype)
    job = Filling(Store(folder, plan), firsts, counts, "embedding texts", progress, cancel or CancelToken())

    def make(missing: Sequence[int]) -> Generator[Made, None, None]:
        step = max(1, batch // len(forms))
        for shard in missing:
            words, begun = [unique[number] for number in job.numbers(shard)], job.begun(shard)
            vectors = np.zeros((len(words), plan.width), np.float32)
            vectors[: begun.items] = begun.vectors
            if begun.items:
                job.tell(begun.items)
            for start in range(begun.items, len(words), step):
                part = words[start : start + step]
                vectors[start : start + step] = _templated(encoder, part, forms)
                job.keep(shard, [vectors[: start + len(part)]])
                job.tell(len(part))
            yield shard, vectors, {}

    shards, seconds = job.fill(make)
    return Bank(((starts, shards),), plan.width, plan.digest, index=index, seconds=seconds)


def region_bank(
    encoder: Encoder,
    items: Sequence[tuple[Item, ArrayLike]],
    folder: Path,
    *,
    view: View = "both",
    fit: Fit = "squash",
    grid_px: int | None = None,
    batch: int = 16,
    dtype: OnDisk = "float16",
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Bank:
    """Give the vectors of boxes: :func:`geoalign_core.features.region_features` of many images.

    ``both`` is the normalised mean of the two views, which are stored each for itself: whoever asks for ``roi`` or
    ``crop`` afterwards waits for nothing.

    Args:
        encoder: The model.
        items: Images, and for each (K_i, 4) xyxy boxes in its pixels.
        folder: Of all banks.
        view: ``roi``, ``crop`` or ``both``.
        fit: How the dense pass sees an image.
        grid_px: Side of its square.
        batch: Images at a time.
        dtype: On disk; see the module.
        progress: Told the images done.
        cancel: Looked at after each batch.

    Returns:
        Rows for the boxes of the first image, then of the second, … Boxes that show nothing, and those of unreadable
        images, are skipped.

    Raises:
        DataError: The model gives no usable vector; the box is named.
        ExamplesError: An argument is out of range.
        OutputWriteError: The disk is full or refuses.
        CancelledError: The token was set; finished shards stay.
    """
    views: tuple[Literal["roi", "crop"], ...] = ("roi", "crop") if view == "both" else (view,)
    boxes = [np.asarray(given, np.float64).reshape(-1, 4) for _, given in items]
    banks = [
        _one_view(encoder, items, boxes, folder, one, {"fit": fit, "grid_px": grid_px}, batch, dtype, progress,
                  cancel or CancelToken())
        for one in views
    ]  # fmt: skip
    skipped = {item.row: item for bank in reversed(banks) for item in bank.skipped}
    return Bank(
        tuple(part for bank in banks for part in bank.parts),
        banks[0].width,
        banks[0].digest if len(banks) == 1 else keys_digest([bank.digest for bank in banks]),
        tuple(skipped[row] for row in sorted(skipped)),
        seconds=sum(bank.seconds for bank in banks),
    )


def _one_view(encoder: Encoder, items: Sequence[tuple[Item, ArrayLike]], boxes: list[NDArray[np.float64]],
              folder: Path, view: Literal["roi", "crop"], how: dict[str, Any], batch: int, dtype: OnDisk,
              progress: Progress, cancel: CancelToken) -> Bank:  # fmt: skip
    from geoalign_core.features.images import region_features

    how = how if view == "roi" else {}
    counts = np.array([len(part) for part in boxes], np.int64)
    firsts, starts = cut(counts, SHARD_ROWS)
    keys = [_items_digest([item for item, _ in items]), *(part.tobytes().hex() for part in boxes)]
    about = {**_about(encoder), **(how or {"rule": CROP_RULE})}
    plan = Plan(view, about, keys_digest(keys), starts, encoder.config.embed_dim, dtype)
    job = Filling(Store(folder, plan), firsts, counts, f"embedding boxes ({view})", progress, cancel)

    def encode(numbers: Sequence[int], pictures: list[NDArray[np.uint8]]) -> Rows:
        found = region_features(
            _channels_first(pictures), [boxes[number] for number in numbers],
            encoder=encoder, view=view, batch=batch, cancel=cancel, **how,
        )  # fmt: skip
        vectors, names = found.mean, _box_names(items, boxes, numbers)
        good = np.flatnonzero(found.valid)
        vectors[good] = checked(vectors[good], [names[row] for row in good])
        return vectors, ["" if valid else NO_BOX for valid in found.valid]

    loads = [item.load for item, _ in items]
    shards, seconds = job.fill(Pictures(job, loads, encode, batch).make, loads)
    return _bank(plan, shards, _box_names(items, boxes, range(len(items))), seconds)


def _bank(plan: Plan, shards: tuple[Shard, ...], names: Sequence[str], seconds: float) -> Bank:
    skipped = tuple(
        Skipped(int(start) + row, names[int(start) + row], reason)
        for start, shard in zip(plan.starts, shards, strict=False)
        for row, reason in shard.skipped.items()
    )
    return Bank(((plan.starts, shards),), plan.width, plan.digest, skipped, seconds=seconds)


def _gather(starts: NDArray[np.int64], shards: tuple[Shard, ...], rows: NDArray[np.int64], width: int) -> NDArray[Any]:
    """Return (n, D) stored rows as float32."""
    out, homes = np.empty((len(rows), width), np.float32), np.searchsorted(starts, rows, side="right") - 1
    for home in np.unique(homes):
        here = np.flatnonzero(homes == home)
        out[here] = shards[home].map()[rows[here] - starts[home]]
    return out


def _forms(templates: Sequence[str] | None) -> tuple[str, ...]:
    """Return sentences with one ``{}`` each; of no templates that of the texts as they are."""
    forms = ("{}",) if templates is None else tuple(templates)
    if not forms or any(form.count("{}") != 1 for form in forms):
        raise DataError(
            "a template needs one {} for the words", measured=str(list(forms))[:80], remedy='write "a photo of {}."'
        )
    return forms


def _templated(encoder: Encoder, words: Sequence[str], forms: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, D) vectors of length 1."""
    sentences = [form.replace("{}", word) for word in words for form in forms]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TextCutWarning)
        vectors = checked(encoder.encode_text(sentences), sentences)
    return checked(vectors.reshape(len(words), len(forms), -1).mean(axis=1), words)


def _about(encoder: Encoder) -> dict[str, Any]:
    """Return what decides a model's vectors of whole images and boxes; the key leaves the resizing out."""
    return {"model": encoder.key, "preprocess": asdict(encoder.config.preprocess)}


def _items_digest(items: Sequence[Item]) -> str:
    return keys_digest([text for item in items for text in (item.key, item.version)])


def _box_names(items: Sequence[tuple[Item, ArrayLike]], boxes: Sequence[NDArray[np.float64]],
               numbers: Sequence[int]) -> list[str]:  # fmt: skip
    return [f"{items[number][0].key}, box {box}" for number in numbers for box in range(1, len(boxes[number]) + 1)]


def _channels_first(pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [np.ascontiguousarray(picture.transpose(2, 0, 1)) for picture in pictures]
