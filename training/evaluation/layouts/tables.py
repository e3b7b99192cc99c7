"""Comma- or tab-separated tables: UTF-8 or GB 18030, with names of columns, and the pictures that they speak of."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGES = ("filepath", "filename", "image", "img_name", "image_path", "img_path", "path")
"""Names of the column with the pictures, SkyScript's first."""
_LONGEST_CELL = 1 << 24


@dataclass(frozen=True, slots=True)
class Table:
    """A table in memory."""

    path: Path
    encoding: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """Line of the file where a row ends, and its cells, as many as there are columns."""

    def column(self, names: Sequence[str]) -> int | None:
        """Return the place of the first of some columns that is there."""
        return next((self.columns.index(name) for name in names if name in self.columns), None)

    def need(self, names: Sequence[str]) -> int:
        """Return the place of the first of some columns that is there.

        Raises:
            DataError: None is.
        """
        place = self.column(names)
        if place is None:
            raise DataError(
                f"has no column {' or '.join(names)}", path=self.path, measured=", ".join(self.columns)[:90],
                remedy="name the columns in the first line",
            )  # fmt: skip
        return place

    def cells(self, *places: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the place in the file, for errors, and some cells of each row, without blanks around them."""
        for line, row in self.rows:
            yield f"{self.path}:{line}", tuple(row[place].strip() for place in places)


def read_table(path: Path) -> Table:
    """Read a table whose first line names the columns.

    Raises:
        DataError: It cannot be read, is empty, or a line has another number of cells; the line is named.
    """
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError("cannot be read", path=path, measured=error.strerror or str(error)) from error
    text, encoding = _decoded(payload, path)
    head = text.partition("\n")[0]
    delimiter = "\t" if head.count("\t") > head.count(",") else ","
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        columns = tuple(name.strip() for name in next(reader, []))
        for row in reader:
            if not row:
                continue
            if len(row) != len(columns):
                raise DataError(
                    "a line has another number of cells", path=f"{path}:{reader.line_num}",
                    measured=f"{len(row)}, not {len(columns)}", remedy="put texts with commas into quotes",
                )  # fmt: skip
            rows.append((reader.line_num, tuple(row)))
    except csv.Error as error:
        raise DataError("is not a table", path=f"{path}:{reader.line_num}", measured=str(error)) from error
    if not rows:
        raise DataError("has no rows", path=path, remedy="give a table with a line of names and at least one row")
    return Table(path, encoding, columns, tuple(rows))


def _decoded(payload: bytes, path: Path) -> tuple[str, str]:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return payload.decode(encoding), encoding.removesuffix("-sig")
        except ValueError:
            continue
    raise DataError("is neither UTF-8 nor GB 18030 text", path=path, remedy="save it as UTF-8")


def table_of(path: Path, split: str | None) -> Path:
    """Return the table that a path means: itself, or a folder's only one, or its only one of a split (``…_test.csv``).

    Raises:
        DataError: A folder has none or several, or a split is asked of a file.
    """
    if path.is_dir():
        return _only_table(path, split)
    if split is not None:
        raise DataError("a table has no splits", path=path, remedy="give the folder, or the table of the split")
    return path


def _only_table(folder: Path, split: str | None) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".csv", ".tsv"))
    for names in [split] if split else ["test", "val"]:
        part = [file for file in files if names in file.stem.lower().split("_")]
        if len(part) == 1:
            return part[0]
    if len(files) != 1 or split:
        measured = ", ".join(file.name for file in files)[:120] or "none"
        raise DataError(
            f"has not one table{f' of the split {split}' if split else ''}", path=folder, measured=measured,
            remedy="give the file",
        )  # fmt: skip
    return files[0]


def root_of(folder: Path, names: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that pictures are relative to, and their names from there.

    Tables of SkyScript name pictures from the folder above, others from their own or from one called ``images``.

    Raises:
        DataError: A picture is named by an absolute path, or lies outside of the data set.
    """
    names = tuple(name.replace("\\", "/").removeprefix("./") for name in names)
    for name in names:
        if Path(name).is_absolute() or os.path.normpath(name).startswith(os.pardir):
            raise DataError(
                "a picture lies outside of its data set", path=folder, measured=name[:90],
                remedy="name pictures from the data set's folder",
            )  # fmt: skip
    homes = (folder, folder / "images", folder.parent)
    probe = names[:50] or ("",)
    best = max(homes, key=lambda home: sum((home / name).is_file() for name in probe))
    return best, names
