"""What the readers share: JSON with line numbers, where pictures lie, boxes in pixels as shares."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from training.data.dataset import parse_line
from training.data.errors import DataError
from training.data.images import SUFFIXES, picture_size, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from training.data.schema import Box, Corners, Record

_HEAD = 1 << 16
_LINES = (".jsonl", ".ndjson")


Placed: TypeAlias = "tuple[str, Record]"
"""A record and where it stands: file and line, or what else finds it in its source."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one layout is recognised and read."""

    name: str
    """As ``--format`` takes it."""
    title: str
    detect: Callable[[Path], bool]
    """Says by the contents whether a path has this layout; never raises."""
    read: Callable[[Path, Path | None], Iterator[Placed]]
    """Gives the records of a path; the second argument is the folder of the pictures, None where the layout says."""
    root: Callable[[Path], Path]
    """The folder that the records' images are relative to, unless the pictures' folder is given."""


def parent(path: Path) -> Path:
    """Return the folder of a file, or the folder itself."""
    return path if path.is_dir() else path.parent


def load_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return the value of a JSON file.

    Raises:
        DataError: It is missing or no JSON; the line is named.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError("is not JSON", path=f"{path}:{error.lineno}", measured=error.msg) from error
    except (ValueError, RecursionError) as error:
        raise DataError("is not JSON", path=path, measured=str(error)[:80]) from error
    except OSError as error:
        raise DataError("cannot be read", path=path, measured=error.strerror or str(error)) from error


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the objects of a JSON list or of a file of JSON lines, each with its place for errors.

    Raises:
        DataError: The file is missing or damaged, or holds something else.
    """
    if path.suffix.lower() in _LINES:
        try:
            with path.open("rb") as handle:
                for number, line in enumerate(handle, start=1):
                    if line.strip():
                        yield f"{path}:{number}", parse_line(line, f"{path}:{number}")
        except OSError as error:
            raise DataError("cannot be read", path=path, measured=error.strerror or str(error)) from error
        return
    items = load_json(path)
    if not isinstance(items, list):
        raise DataError("is not a list of records", path=path, measured=type(items).__name__)
    for index, item in enumerate(items):
        yield f"{path}[{index}]", item


def peek(path: Path) -> Any:  # noqa: ANN401 - whatever begins there
    """Return the first object of a JSON file, a JSON list or JSON lines, without reading a large file; else None.

    Of an object too large for that, the names of its first keys come with None.
    """
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".json", *_LINES):
        return None
    try:
        with path.open("rb") as handle:
            head = handle.read(_HEAD)
            if suffix in _LINES and b"\n" not in head.lstrip():
                head += handle.readline()  # one record may hold any number of hard negatives
            text = head.decode("utf-8-sig", "ignore").lstrip()
    except OSError:
        return None
    text = text.removeprefix("[").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        pass
    try:
        whole = json.loads(path.read_bytes()) if text.startswith("{") else None
    except (OSError, ValueError, RecursionError):
        return None
    return whole[0] if isinstance(whole, list) and whole else whole


def need(item: Any, key: str, kind: type, where: str) -> Any:  # noqa: ANN401 - a value of ``kind``
    """Return a value that a record must have.

    Raises:
        DataError: It is missing or of another type.
    """
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        raise DataError(
            f'has no "{key}"', path=where, measured=f"{value!r:.60}", remedy="mend it; it may be of another layout"
        )
    return value


def text_or_none(value: Any) -> str | None:  # noqa: ANN401 - a parsed JSON value
    """Return a text without blanks around it, or None for anything else and for an empty one."""
    return value.strip() or None if isinstance(value, str) else None


def numbers(values: Any, count: int, where: str) -> tuple[float, ...]:  # noqa: ANN401 - a parsed JSON value
    """Return so many numbers; they need not be finite.

    Raises:
        DataError: They are not.
    """
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("a box is not made of numbers", path=where, measured=f"{values!r:.60}") from error
    if len(found) != count:
        raise DataError(f"a box does not have {count} numbers", path=where, measured=f"{values!r:.60}")
    return found


def shares(box_px: Sequence[float], width: int, height: int) -> Box:
    """Return a box in pixels as shares of the image's sides, not cut at its edges."""
    left, top, right, bottom = box_px
    return left / width, top / height, right / width, bottom / height


def corner_shares(corners_px: Sequence[float], width: int, height: int) -> Corners:
    """Return four corners x, y in pixels as shares."""
    a, b, c, d, e, f, g, h = corners_px
    return a / width, b / height, c / width, d / height, e / width, f / height, g / width, h / height


def bounds(corners: Sequence[float]) -> Box:
    """Return the upright box around corners x, y."""
    xs, ys = corners[::2], corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def sized(width: Any, height: Any, root: Path, image: str, where: str) -> tuple[int, int]:  # noqa: ANN401
    """Return an image's size: as it is told, else from the picture's header.

    Raises:
        DataError: It is told nowhere and the picture cannot be read.
    """
    told = [int(value) for value in (width, height) if isinstance(value, (int, float)) and value > 0]
    if len(told) == 2:
        return told[0], told[1]
    return picture_size(read_bytes(root, image), f"{where}: {image}")


def place(name: str, root: Path, folders: Sequence[str] = ()) -> str:
    """Return an image's path from ``root``: as it is named, or in the first of some folders that has it.

    A name without suffix gets the one of the file that is there. What is found nowhere is named in the first folder
    that has pictures, else as it is, and is reported when it is read.
    """
    name = name.replace("\\", "/").removeprefix("./")
    for folder in ("", *folders):
        files = _listed(root / folder / Path(name).parent)
        stem = Path(name).name
        for found in (stem, *(f"{stem}.{suffix}" for suffix in SUFFIXES)):
            if found in files:
                return (Path(folder) / Path(name).parent / found).as_posix()
    homes = () if os.pardir in Path(name).parts else ("", *folders)  # what lies outside stays outside
    home = next((folder for folder in homes if _pictured(root / folder / Path(name).parent)), "")
    return (Path(home) / name).as_posix() if home else name


@lru_cache(maxsize=256)
def _pictured(folder: Path) -> bool:
    return any(name.rpartition(".")[2].lower() in SUFFIXES for name in _listed(folder))


@lru_cache(maxsize=256)
def _listed(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in os.scandir(folder))
    except OSError:
        return frozenset()
