"""Records themselves, in a folder or as JSON lines, and webdataset's archives of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiling.errors import GeoAlignError
from training.data.dataset import RECORDS, RsfgDataset
from training.data.images import rebase
from training.data.readers.base import Placed, Reader, parent, peek
from training.data.schema import RECORD_KEYS
from training.data.shards import index_tar, is_compressed
from training.data.webdataset import TEXTS, picture_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OURS = ("regions", "brief_caption", "detailed_caption")


def detect(path: Path) -> bool:
    """Say whether a folder has ``records.jsonl``, or the first line of a file is a record."""
    if path.is_dir():
        return (path / RECORDS).is_file()
    first = peek(path) if path.suffix == ".jsonl" else None
    if not isinstance(first, dict) or "image" not in first:
        return False
    return path.name == RECORDS or any(key in first for key in _OURS) or set(first) <= set(RECORD_KEYS)


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records as they are; those whose pictures lie under ``images`` with their path from there.

    Raises:
        DataError: One breaks the schema; file and line are named.
    """
    dataset = RsfgDataset([path])
    for index, record in enumerate(dataset):
        moved = record if images is None else rebase(record, dataset.root(index), images)
        yield dataset.key(index), record if moved.image.startswith("../") else moved


def detect_shards(path: Path) -> bool:
    """Say whether the first archive holds samples: pictures with texts of the same name."""
    first = next(iter(sorted(path.glob("*.tar"))), None) if path.is_dir() else path
    if first is None or first.suffix != ".tar":
        return first is not None and is_compressed(first)  # reading it will say that it must be unpacked
    try:
        index = index_tar(first)
    except GeoAlignError:
        return path.is_file()  # reading it will say what is wrong
    names = index.sample(0) if index.samples else {}
    return picture_of(names) is not None and any(text in names for text in TEXTS)


READER = Reader("rsfg", "RSFG records", detect, read, parent)
SHARDS = Reader("webdataset", "tar shards: RSFG, RSTeller, RS5M, {short, long}, captions", detect_shards, read, parent)
