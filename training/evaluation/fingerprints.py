"""What files hold, as SHA-256: the data behind a result, and the files that its settings name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

_LARGEST = 1 << 26
"""In a folder, files of up to so many bytes that are no pictures are known by their contents, others by their size."""


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's contents, or of a folder's names with what :data:`_LARGEST` says.

    Raises:
        DataError: It is missing or cannot be read.
    """
    if path.is_dir():
        return hashlib.sha256("\n".join(_lines_of_folder(path)).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError("cannot be read", path=path, measured=error.strerror, remedy="check the path") from error


def lines_of(data: Path) -> Iterator[str]:
    """Yield what a data set's folder or file holds, a text for each part.

    Pictures count by name and size. Where the data is a file of records, so do the pictures that it lists.

    Raises:
        DataError: It is missing or damaged.
    """
    from training.data.readers import detect, open_source
    from training.evaluation.tasks.groundwork import size_of

    if not data.exists():
        raise DataError("is missing", path=data, remedy="give a data set's file or folder; see geoalign-eval data")
    if data.is_dir():
        yield from _lines_of_folder(data)
        return
    yield digest_of(data)
    if detect(data) is not None:
        source = open_source(data)
        yield from (f"{record.image} {size_of(source.root, record.image)}" for record in source.records())


def files_of(names: AbstractSet[str], settings: Mapping[str, str]) -> dict[str, Path]:
    """Return the files that settings of these names name, by setting; those that are a word or a sentence are none."""
    named = {name: found_file(name, settings[name]) for name in sorted(names & settings.keys())}
    return {name: path for name, path in named.items() if path is not None}


def found_file(name: str, value: str, root: Path | None = None) -> Path | None:
    """Return the file that a setting's value names, below ``root`` or from here, or the folder where it may be one.

    The names of template sets are no files, whatever lies about, and no value is none.
    """
    from geoalign_core.models.prompts import template_sets

    if not value or (name == "templates" and value in ("model", *template_sets())):
        return None
    for path in (Path(value),) if root is None else (root / value, Path(value)):
        try:
            if path.is_file() or (name in ("detections", "images") and path.is_dir()):
                return path
        except (OSError, ValueError):  # a sentence can be no name
            continue
    return None


def _lines_of_folder(folder: Path) -> Iterator[str]:
    from training.data.images import SUFFIXES

    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        size = path.stat().st_size
        known = size > _LARGEST or path.suffix[1:].lower() in SUFFIXES
        yield f"{path.relative_to(folder).as_posix()} {size if known else digest_of(path)}"
