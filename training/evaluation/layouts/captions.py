"""Images with their captions: SkyScript's tables, and all layouts that the training data's readers know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.data.readers import detect
from training.data.readers.base import peek
from training.evaluation.layouts.records import CAPTIONS, open_records
from training.evaluation.layouts.tables import IMAGES, read_table, root_of, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from training.data.schema import Record

MULTI, TITLE = "title_multi_objects", "title"
TEXTS = (TITLE, "caption", "text", "sentence", "raw")
SATELLITE = ("rsicd", "rsitmd", "ucm")
"""Beginnings of the names of the sets that SkyScript's protocol puts a prefix before."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """N images and their texts."""

    name: str
    root: Path
    """The folder that images are relative to."""
    images: tuple[str, ...]
    """Each once, as :attr:`training.data.schema.Record.image`."""
    texts: tuple[tuple[str, ...], ...]
    """Of each image, at least one."""
    split: str | None
    """The part that was taken; None where the data has no parts."""
    without: int
    """Images left out because they have no text."""
    note: str = ""

    def take(self, places: Iterable[int]) -> Captioned:
        """Return some of the images."""
        chosen = [int(place) for place in places]
        return replace(
            self,
            images=tuple(self.images[place] for place in chosen),
            texts=tuple(self.texts[place] for place in chosen),
        )

    @property
    def satellite(self) -> bool:
        """Whether this is RSICD, RSITMD or UCM-captions, by its name."""
        return of_satellites(self.name)


def of_satellites(name: str) -> bool:
    """Say whether a name is that of RSICD, RSITMD or UCM-captions."""
    return name.lower().removeprefix("dataset_").startswith(SATELLITE)


def read_captions(path: Path, *, split: str | None = None, column: str | None = None, long: bool = False) -> Captioned:
    """Read captioned images.

    Args:
        path: A table, a file or folder of another known layout.
        split: The part; by default the test part where there is one, else everything.
        column: The table's column of texts; by default ``title_multi_objects``, but ``title`` for RSICD, RSITMD and
            UCM-captions, as SkyScript's evaluation has it.
        long: Take detailed captions instead of the others.

    Raises:
        DataError: The layout is unknown or damaged, the part or the texts are missing.
    """
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the file or folder of a data set")
    tables = path.is_dir() and detect(path) is None and any(path.glob("*.[ct]sv"))
    if tables or path.suffix.lower() in (".csv", ".tsv"):
        found = _from_table(table_of(path, split), split, column, named=path.is_dir())
    else:
        if column is not None:
            raise DataError("is not a table", path=path, remedy="leave out the column")
        found = _from_records(path, split, long=long)
    if not found.images:
        kind = "detailed captions" if long else "captions"
        raise DataError(f"has no images with {kind}", path=path, remedy="check the split and the layout")
    return found


def _from_table(path: Path, split: str | None, column: str | None, *, named: bool) -> Captioned:
    table = read_table(path)
    names = (path.resolve().parent.name, path.stem) if named else (path.stem,)
    name = next((name for name in names if of_satellites(name)), names[0])
    default = (TITLE, MULTI, *TEXTS) if of_satellites(name) else (MULTI, *TEXTS)
    text = table.need((column,) if column else default)
    grouped: dict[str, list[str]] = {}
    for where, (image, caption) in table.cells(table.need(IMAGES), text):
        if not image:
            raise DataError("a row has no image", path=where)
        grouped.setdefault(image, []).extend([caption] if caption else [])
    kept = {image: tuple(texts) for image, texts in grouped.items() if texts}
    root, images = root_of(path.parent, tuple(kept))
    note = f"Texts are the column {table.columns[text]} of {path.name}, {table.encoding}."
    return Captioned(name, root, images, tuple(kept.values()), split, len(grouped) - len(kept), note)


def _from_records(path: Path, split: str | None, *, long: bool) -> Captioned:
    first = peek(path) if path.is_file() else None
    only_long = isinstance(first, dict) and "long" in first and detect(path) is None
    source = open_records(path, CAPTIONS, layout="short-long" if only_long else None)
    records = list(source.records())
    part = chosen_split(records, split, path)
    taken = [record for record in records if part is None or record.split == part]
    merged: dict[str, list[str]] = {}
    for record in taken:
        merged.setdefault(record.image, []).extend(_texts(record, long=long))
    kept = {image: tuple(texts) for image, texts in merged.items() if texts}
    told = {record.source for record in taken if record.source}
    name = told.pop() if len(told) == 1 else source.name
    note = parts_note(records, split)
    return Captioned(name, source.root, tuple(kept), tuple(kept.values()), part, len(merged) - len(kept), note)


def _texts(record: Record, *, long: bool) -> list[str]:
    if long:
        return [record.detailed_caption.strip()] if record.detailed_caption and record.detailed_caption.strip() else []
    texts = (record.brief_caption or "", *record.captions)
    return [text.strip() for text in texts if text.strip()]


def parts_note(records: Sequence[Record], split: str | None) -> str:
    """Return which part was taken without being asked for: a model may have learnt from what is no test part."""
    parts = sorted({record.split for record in records if record.split})
    if split is not None or not parts:
        return ""
    listed = ", ".join(parts)[:90]
    return "The part 'test' was taken." if "test" in parts else f"There is no test part; all was taken: {listed}."


def chosen_split(records: Sequence[Record], split: str | None, path: Path) -> str | None:
    """Return the part to take: the one asked for, else ``test`` where there is one, else None for everything.

    Raises:
        DataError: There is no such part; those that are there are named.
    """
    parts = sorted({record.split for record in records if record.split})
    if split is None:
        return "test" if "test" in parts else None
    if split not in parts:
        raise DataError(f"has no split {split!r}", path=path, measured=", ".join(parts)[:90] or "no splits at all")
    return split
