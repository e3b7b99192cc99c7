"""What of a test set is in the training set already: texts, pictures, files, parent scenes.

Four files come out: ``leakage.json`` (counts), ``offenders.csv`` (every pair that is above both danger lines or is the
same by a digest or scene), and the density plots ``texts.png`` and ``pictures.png``. No match of digests does not
exclude other crops of the same scene; the scenes and the encoder's likeness are for those.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiling.files import atomic_file
from tiling.progress import CancelToken, silent
from training.builder.leakage_image import Prints, image_pairs, parent_scenes, picture_signs
from training.builder.leakage_text import Pair, Texts, distinct, jaccard, rouge_l, text_pairs
from training.builder.steps import write_json
from training.data.errors import DataError
from training.data.fingerprints import pixel_md5

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import Encoder
    from tiling.progress import Progress
    from training.data.dataset import RsfgDataset

SCHEMA_VERSION = 1
_BATCH = 32
COLUMNS = (
    "channel", "test", "test_image", "train", "train_image", "surface", "meaning", "jaccard", "rouge_l", "test_text",
    "train_text",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakageOptions:
    """What counts as a leak. The lines are ours: the paper draws some and gives no values [U]."""

    lexical: float = 0.9
    """Danger line of the cosine of TF-IDF vectors."""
    semantic_text: float = 0.95
    """Danger line of the cosine of sentence vectors."""
    structural: float = 0.9
    """Danger line of hash likeness and structural similarity."""
    semantic_image: float = 0.95
    """Danger line of the cosine of image vectors."""
    model: str | None = "geoalign-s"
    """Encoder of the semantic likenesses; None leaves them and the plots out."""
    device: str = "auto"
    pictures: bool = True
    """Whether pictures are read; without, texts and recorded digests and scenes are compared."""


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """Numbers of test items found in training."""

    train_records: int
    test_records: int
    train_texts: int
    test_texts: int
    texts_above_both: int
    """Distinct test texts whose nearest training text is above both danger lines."""
    texts_identical: int
    pictures_above_both: int
    same_bytes: int
    same_pixels: int
    same_scene: int
    """Test records that share a parent scene with a training record."""
    test_scenes_known: int
    """Test records whose parent scene is known at all: 0 shared of 0 known says nothing."""
    unreadable: int
    """Pictures of both sets that could not be read."""
    folder: Path

    def text(self) -> str:
        """Return the report as a table in Markdown."""
        texts, records = self.test_texts, self.test_records
        rows = (
            ("texts above both lines", self.texts_above_both, f"{texts:,} texts"),
            ("texts identical", self.texts_identical, f"{texts:,} texts"),
            ("pictures above both lines", self.pictures_above_both, f"{records:,} pictures"),
            ("same bytes", self.same_bytes, f"{records:,} pictures"),
            ("same pixels", self.same_pixels, f"{records:,} pictures"),
            ("same parent scene", self.same_scene, f"{self.test_scenes_known:,} of known scene"),
        )
        lines = [f"| {name} | {count:,} | {of} |" for name, count, of in rows]
        unread = [f"{self.unreadable:,} pictures could not be read."] if self.unreadable else []
        return "\n".join(
            ["| of the test set | in training | of |", "|---|---:|---|", *lines, *unread, str(self.folder), ""]
        )


def analyse(
    train: RsfgDataset,
    test: RsfgDataset,
    out: str | Path,
    options: LeakageOptions | None = None,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> LeakageReport:
    """Compare a test set with a training set and write the report.

    Memory for N training and M test items: N + M vectors of the encoder (4 D bytes each), the sparse word vectors, 64
    bytes per training and 512 per test picture, and 32 MB per block. Measured by ``benchmarks/leakage.py``: 0.43 GB for
    10⁵ × 10⁴ without an encoder; geoalign-s takes 1.5 GB of its own on a CPU.

    Args:
        train: Records that a model learns from.
        test: Records that it is judged by.
        out: Folder of the four files; those of an earlier report are replaced.
        options: Danger lines and encoder.
        progress: Told after each picture.
        cancel: Looked at between pictures and blocks.

    Raises:
        DataError: One of the sets is empty, or a record breaks the schema.
        ModelError: The encoder is not on this machine.
        OutputWriteError: The disk refuses.
        CancelledError: The work was stopped; nothing is left behind.
    """
    options, cancel, out = options or LeakageOptions(), cancel or CancelToken(), Path(out)
    for name, dataset in (("training", train), ("test", test)):
        if not len(dataset):
            raise DataError(f"the {name} set has no records", remedy="give a folder with records")
    encoder = _encoder(options)
    found = _Offenders(train, test)
    there, here = distinct(enumerate(train)), distinct(enumerate(test))
    texts = text_pairs(there.texts, here.texts, None if encoder is None else _Sentences(encoder), cancel=cancel)
    above = found.texts([pair for pair in texts if _above(pair, options.lexical, options.semantic_text)], there, here)
    scenes = found.scenes()
    pictures: list[Pair] = []
    same_bytes = same_pixels = alike = unreadable = 0
    if options.pictures:
        base = _prints(train, encoder, turned=False, stage="training pictures", progress=progress, cancel=cancel)
        asked = _prints(test, encoder, turned=True, stage="test pictures", progress=progress, cancel=cancel)
        unreadable = len(train) + len(test) - len(base.indices) - len(asked.indices)
        same_bytes = found.same("bytes", base, asked, base.bytes_md5, asked.bytes_md5)
        same_pixels = found.same("pixels", base, asked, base.pixels_md5, asked.pixels_md5)
        pictures = image_pairs(base, asked, train.image, test.image, cancel=cancel)
        alike = found.pictures(
            [pair for pair in pictures if _above(pair, options.structural, options.semantic_image)]
        )  # fmt: skip
    report = LeakageReport(
        train_records=len(train), test_records=len(test), train_texts=len(there.texts), test_texts=len(here.texts),
        texts_above_both=above, texts_identical=len(_lowered(there) & _lowered(here)), pictures_above_both=alike,
        same_bytes=same_bytes, same_pixels=same_pixels, same_scene=scenes,
        test_scenes_known=sum(bool(parent_scenes(record)) for record in test), unreadable=unreadable, folder=out,
    )  # fmt: skip
    _write(report, options, train, test, found.rows, texts, pictures)
    return report


class _Offenders:
    """The rows of the table of leaks."""

    def __init__(self, train: RsfgDataset, test: RsfgDataset) -> None:
        self._train, self._test = train, test
        self.rows: list[dict[str, object]] = []

    def _add(self, channel: str, test: int, train: int, **more: object) -> None:
        names = {"test": self._test.key(test), "test_image": self._test[test].image}
        names |= {"train": self._train.key(train), "train_image": self._train[train].image}
        self.rows.append({"channel": channel, **names, **more})

    def texts(self, pairs: Sequence[Pair], there: Texts, here: Texts) -> int:
        for pair in pairs:
            one, other = here.texts[pair.test], there.texts[pair.train]
            self._add(
                "text", here.owners[pair.test], there.owners[pair.train], surface=_short(pair.surface),
                meaning=_short(pair.meaning), jaccard=_short(jaccard(one, other)), rouge_l=_short(rouge_l(one, other)),
                test_text=one, train_text=other,
            )  # fmt: skip
        return len(pairs)

    def pictures(self, pairs: Sequence[Pair]) -> int:
        for pair in pairs:
            self._add("picture", pair.test, pair.train, surface=_short(pair.surface), meaning=_short(pair.meaning))
        return len(pairs)

    def same(self, channel: str, base: Prints, asked: Prints, known: Sequence[str], own: Sequence[str]) -> int:
        """Add the test pictures with a digest that a training picture has."""
        first = {digest: i for i, digest in reversed(list(enumerate(known)))}
        hits = [(i, first[digest]) for i, digest in enumerate(own) if digest in first]
        for i, j in hits:
            self._add(channel, int(asked.indices[i]), int(base.indices[j]))
        return len(hits)

    def scenes(self) -> int:
        """Add the test records that share a parent scene with a training record."""
        first: dict[str, int] = {}
        for index, record in enumerate(self._train):
            for scene in parent_scenes(record):
                first.setdefault(scene, index)
        hits = 0
        for index, record in enumerate(self._test):
            shared = [first[scene] for scene in parent_scenes(record) if scene in first]
            if shared:
                hits += 1
                self._add("scene", index, min(shared))
        return hits


def _lowered(texts: Texts) -> set[str]:
    return {text.lower() for text in texts.texts}


def _above(pair: Pair, surface: float, meaning: float) -> bool:
    """Whether a pair is above both lines; without an encoder the first line decides."""
    return pair.surface >= surface and (math.isnan(pair.meaning) or pair.meaning >= meaning)


def _short(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _encoder(options: LeakageOptions) -> Encoder | None:
    if options.model is None:
        return None
    from geoalign_core.models.encoder import require_text
    from geoalign_core.models.registry import load_encoder

    encoder = load_encoder(options.model, device=options.device)
    require_text(encoder)
    return encoder


class _Sentences:
    """Unit vectors of texts: the embedded model's sentence vectors, which know more than its image space."""

    def __init__(self, encoder: Encoder) -> None:
        from geoalign_core.models.embedded import EmbeddedEncoder

        self._encode = encoder.towers.sentences if isinstance(encoder, EmbeddedEncoder) else encoder.encode_text

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike lengths need little padding
        parts = [self._encode([texts[i] for i in order[at : at + 256]]) for at in range(0, len(order), 256)]
        vectors = np.concatenate(parts)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result


def _prints(
    dataset: RsfgDataset, encoder: Encoder | None, *, turned: bool, stage: str, progress: Progress, cancel: CancelToken
) -> Prints:
    """Read every picture once; those that cannot be read are left out."""
    indices, signs, by_bytes, by_pixels, vectors = [], [], [], [], []
    waiting: list[NDArray[np.uint8]] = []

    def flush() -> None:
        if encoder is not None and waiting:
            vectors.append(encoder.encode_image(np.stack(waiting)))
        waiting.clear()

    for index, (payload, image) in _pictures(dataset):
        cancel.check()
        if image is not None:
            indices.append(index)
            signs.append(picture_signs(image, turned=turned))
            by_bytes.append(hashlib.md5(payload, usedforsecurity=False).hexdigest())
            by_pixels.append(pixel_md5(image))
            if encoder is not None:
                waiting.append(_squash(image, encoder.config.preprocess.image_px))
            if len(waiting) == _BATCH:
                flush()
        progress(index + 1, len(dataset), stage)
    flush()
    return Prints(
        np.array(indices, np.int64), np.stack(signs) if signs else np.zeros((0, 8 if turned else 1, 64), np.int8),
        np.concatenate(vectors) if vectors else None, tuple(by_bytes), tuple(by_pixels),
    )  # fmt: skip


def _pictures(dataset: RsfgDataset) -> Iterator[tuple[int, tuple[bytes, NDArray[np.uint8] | None]]]:
    for index in range(len(dataset)):
        try:
            yield index, (dataset.image_bytes(index), dataset.image(index))
        except DataError:
            yield index, (b"", None)


def _squash(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Return a picture as the encoder takes it, (3, side, side)."""
    from PIL import Image

    square = Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.moveaxis(np.asarray(square), -1, 0)


def _write(
    report: LeakageReport,
    options: LeakageOptions,
    train: RsfgDataset,
    test: RsfgDataset,
    rows: Sequence[dict[str, object]],
    texts: Sequence[Pair],
    pictures: Sequence[Pair],
) -> None:
    from training.builder.leakage_plot import density_plot

    out = report.folder
    numbers = {key: value for key, value in asdict(report).items() if key != "folder"}
    item = {"schema_version": SCHEMA_VERSION, **numbers, "options": asdict(options)}
    item |= {"train_digest": train.digest, "test_digest": test.digest}
    write_json(out / "leakage.json", item)
    with (
        atomic_file(out / "offenders.csv", overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as handle,
    ):
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for name, pairs, title, surface, meaning, lines in (
        ("texts.png", texts, "Test texts and their nearest training text", "lexical: cosine of TF-IDF",
         "semantic: cosine of sentence vectors", (options.lexical, options.semantic_text)),
        ("pictures.png", pictures, "Test pictures and their nearest training picture",
         "structural: hash likeness or SSIM", "semantic: cosine of image vectors",
         (options.structural, options.semantic_image)),
    ):  # fmt: skip
        if pairs and options.model is not None:
            density_plot(pairs, out / name, title=title, surface=surface, meaning=meaning, lines=lines)
