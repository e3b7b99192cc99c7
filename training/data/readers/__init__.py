"""Readers of other data sets: each gives records, all are found by what a path holds."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiling.errors import UsageError
from training.data.errors import DataError, LayoutError
from training.data.images import split_name
from training.data.readers import (
    captions,
    coco,
    dior_rsvg,
    dota,
    finehard,
    mgrs,
    pairs,
    records,
    tiles,
    vrsbench,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.data.readers.base import Placed, Reader
    from training.data.schema import Record

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        records.READER,
        tiles.READER,
        vrsbench.READER,
        dior_rsvg.READER,
        dota.READER,
        mgrs.READER,
        finehard.READER,
        captions.LINES,
        captions.KARPATHY,
        coco.READER,
        pairs.READER,
        pairs.RSTELLER,
        records.SHARDS,
    )
}
"""By name, in the order in which they look at a path."""
OUTSIDE = "a picture lies outside of its data set"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set of another layout, opened."""

    name: str
    """Name of its folder, or of its file without suffix."""
    path: Path
    root: Path
    """The folder that the records' images are relative to."""
    reader: Reader

    @property
    def format(self) -> str:
        """Name of the layout."""
        return self.reader.name

    def records(self) -> Iterator[Record]:
        """Yield the records, one at a time. Boxes are as the source tells them: they may leave the image.

        Raises:
            DataError: Something does not fit the layout, or :func:`outside` tells that a picture lies elsewhere; file
                and line are named.
        """
        for where, record in self.placed():
            if (error := outside(record, where)) is not None:
                raise error
            yield record

    def placed(self) -> Iterator[Placed]:
        """Yield each record with its place in the source, also those whose picture lies outside of the data set.

        Raises:
            DataError: Something does not fit the layout; file and line are named.
        """
        yield from self.reader.read(self.path, None if self.root == self.reader.root(self.path) else self.root)


def outside(record: Record, where: str) -> DataError | None:
    """Return the error of a record whose picture lies outside of its data set, else None.

    A list of records from elsewhere must not reach into other folders of this machine.
    """
    name = split_name(record.image)[0].replace("\\", "/")
    if not Path(name).is_absolute() and Path(os.path.normpath(name)).parts[:1] != (os.pardir,):
        return None
    return DataError(
        OUTSIDE, path=where, measured=record.image[:90], remedy="name the folder that holds all pictures with --images"
    )


def detect(path: str | Path) -> str | None:
    """Return the name of the layout that a path has, by its contents, or None."""
    return next((name for name, reader in READERS.items() if reader.detect(Path(path))), None)


def _only_file(folder: Path, format: str | None) -> Path | None:  # noqa: A002
    """Return the one file of a folder that is a data set by itself (of a format), None where there is none.

    Raises:
        DataError: There are several.
    """
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".json", ".jsonl", ".ndjson")]
    found = [file for file in files if (READERS[format].detect(file) if format else detect(file))]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:6])
        raise DataError("holds several data sets", path=folder, measured=names, remedy="give one of the files")
    return found[0] if found else None


def open_source(path: str | Path, format: str | None = None, *, images: str | Path | None = None) -> Source:  # noqa: A002
    """Open a data set of any known layout.

    Args:
        path: Its folder or file.
        format: Name of the layout, one of :data:`READERS`; by default it is found out.
        images: Folder of the pictures, where it is not the one beside the file.

    Raises:
        DataError: The path or the pictures' folder is missing.
        LayoutError: The path has no layout that is known.
        UsageError: There is no layout of this name.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the file or folder of a data set")
    if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
        raise DataError("is neither a folder nor a plain file", path=path, remedy="copy it into a file first")
    if format is not None and format not in READERS:
        raise UsageError("is no format", measured=format, remedy=f"use one of {', '.join(READERS)}")
    if not path.is_dir() and not path.stat().st_size:
        raise DataError("is empty", path=path, remedy="give a file that holds records")
    title = path.resolve().name if path.is_dir() else path.stem
    if path.is_dir() and not (READERS[format].detect(path) if format else detect(path)):
        path = _only_file(path, format) or path
    name = format or detect(path)
    if name is None:
        raise LayoutError(
            "has no layout that is known", path=path, remedy=f"name one with --format: {', '.join(READERS)}"
        )
    if images is not None and not Path(images).is_dir():
        raise DataError("is no folder", path=images, remedy="give the folder of the pictures")
    reader = READERS[name]
    return Source(title, path, Path(images) if images is not None else reader.root(path), reader)
