"""Look at a folder and say whether it holds a data set of the catalogue: one line for each thing.

Files are counted and lists are read; no picture is opened and no pickle is loaded.
"""

from __future__ import annotations

import csv
import fnmatch
import glob
import io
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from training.evaluation.catalogue import Check, Entry, Layout

GOOD, MISSING, DIFFERS, ABSENT = "there", "missing", "differs", "not there"
"""A finding's state; ``not there`` is said of what may be missing."""
_ENCODINGS = ("utf-8-sig", "gb18030")
_MOST_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    state: str
    """:data:`GOOD`, :data:`MISSING`, :data:`DIFFERS` or :data:`ABSENT`."""
    what: str
    said: str
    """What was found and what was expected."""

    @property
    def good(self) -> bool:
        """Whether it does not stand in the way."""
        return self.state in (GOOD, ABSENT)

    def __str__(self) -> str:
        """Return the line."""
        return f"{self.state:<9}  {self.what}  {self.said}".rstrip()


@dataclass(frozen=True, slots=True)
class Report:
    """What a folder holds of a data set."""

    entry: Entry
    layout: Layout
    """The one that fits best."""
    findings: tuple[Finding, ...]

    @property
    def complete(self) -> bool:
        """Whether everything is there and every count agrees."""
        return all(finding.good for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 where it is complete, else 1."""
        return 0 if self.complete else 1

    def __str__(self) -> str:
        """Return the lines with a head and a conclusion."""
        wrong = sum(not finding.good for finding in self.findings)
        end = "complete" if self.complete else f"{wrong} of {len(self.findings)} do not fit"
        lines = [f"{self.entry.title}, layout {self.layout.name}", *(f"  {finding}" for finding in self.findings), end]
        if not self.complete and not any(finding.state == GOOD for finding in self.findings):
            lines[-1] += "; expected:\n" + "\n".join(f"    {line}" for line in self.layout.tree)
        return "\n".join(lines)


def check_folder(entry: Entry, folder: Path) -> Report:
    """Compare a folder with a data set's layouts and report on the one that fits best.

    Args:
        entry: The data set.
        folder: Its folder, or its list, as the tasks take them: then no other list in the same folder counts.

    Raises:
        DataError: The folder does not exist, or a file is none of the data set's lists.
    """
    layouts = entry.layouts if folder.is_dir() else _of_list(entry, folder)
    if not layouts:
        wrong = "is no list of this data set" if folder.is_file() else "is not a folder"
        raise DataError(wrong, path=folder, remedy=f"see geoalign-eval data {entry.id} for its layout")
    root = folder if folder.is_dir() else folder.absolute().parent
    reports = [
        Report(entry, layout, tuple(_CHECKS[check.kind](root, check) for check in layout.checks)) for layout in layouts
    ]
    return max(reports, key=lambda report: (report.complete, _share(report)))


def _of_list(entry: Entry, file: Path) -> tuple[Layout, ...]:
    """Return the layouts whose list, which lies at the top of the folder, may be this file, looking at no other."""

    def fits(check: Check) -> bool:
        pure = PurePosixPath(check.path).parts
        return check.kind in ("json", "csv", "lines") and len(pure) == 1 and _fits(file.name, pure[0])

    def only(layout: Layout) -> Layout:
        narrowed = (replace(check, path=glob.escape(file.name)) if fits(check) else check for check in layout.checks)
        return replace(layout, checks=tuple(narrowed))

    return tuple(only(layout) for layout in entry.layouts if any(map(fits, layout.checks))) if file.is_file() else ()


def _share(report: Report) -> float:
    needed = [finding for finding in report.findings if finding.state != ABSENT]
    return sum(finding.state == GOOD for finding in needed) / max(len(needed), 1)


def _file(folder: Path, check: Check) -> Finding:
    found = next(_matches(folder, check.path), None)
    if found is None:
        return _missing(check)
    size = found.stat().st_size
    return Finding(GOOD, check.path, f"{size:,} bytes") if size else Finding(DIFFERS, check.path, "is empty")


def _files(folder: Path, check: Check) -> Finding:
    number = sum(1 for _ in _matches(folder, check.path))
    return _counted(check, number, "files") if number else _missing(check)


def _folders(folder: Path, check: Check) -> Finding:
    """Count the folders that have such files: of classes, one without pictures is none."""
    number = len({path.parent for path in _matches(folder, check.path)})
    return _counted(check, number, "folders") if number else _missing(check)


def _lines(folder: Path, check: Check) -> Finding:
    found = next(_matches(folder, check.path), None)
    if found is None:
        return _missing(check)
    try:
        return _counted(check, sum(bool(line.strip()) for line in _text(found).splitlines()), "lines")
    except DataError as error:
        return Finding(DIFFERS, check.path, error.what)


def _csv(folder: Path, check: Check) -> Finding:
    found = next(_matches(folder, check.path), None)
    if found is None:
        return _missing(check)
    try:
        reader = csv.DictReader(io.StringIO(_text(found), newline=""))
        absent = sorted(set(check.columns) - set(reader.fieldnames or ()))
        if absent:
            return Finding(DIFFERS, check.path, f"has no column {', '.join(absent)}")
        rows = list(reader)
    except DataError as error:
        return Finding(DIFFERS, check.path, error.what)
    except csv.Error as error:
        return Finding(DIFFERS, check.path, f"is no CSV: {error}"[:90])
    return _with_files(folder, check, _counted(check, len(rows), "rows"), [row.get(check.refers) for row in rows])


def _json(folder: Path, check: Check) -> Finding:
    found = list(_matches(folder, check.path))
    if not found:
        return _missing(check)
    entries: list[Any] = []
    for path in found:
        try:
            item = _records(path)
        except DataError as error:
            return Finding(DIFFERS, path.relative_to(folder).as_posix(), error.what)
        part = item.get(check.items) if check.items and isinstance(item, dict) else item
        if not isinstance(part, list):
            return Finding(DIFFERS, path.relative_to(folder).as_posix(), f"has no list {check.items}".rstrip())
        entries += part
    chosen = [
        entry
        for entry in entries
        if isinstance(entry, dict) and all(str(entry.get(key)) == value for key, value in check.where.items())
    ]
    unit = "entries" + "".join(f" with {key} {value}" for key, value in check.where.items())
    return _with_files(folder, check, _counted(check, len(chosen), unit), [row.get(check.refers) for row in chosen])


def _pairs(folder: Path, check: Check) -> Finding:
    """Compare names without their endings: every picture has its mask, and every mask its picture."""
    pictures = {path.stem for path in _matches(folder, check.path)}
    stems = {path.stem for path in _matches(folder, check.below)}
    masks = {stem.removesuffix(check.skip_after) for stem in stems if stem.endswith(check.skip_after)}
    if not pictures and not masks:
        return _missing(check)
    for path, names, others in ((check.path, pictures, masks), (check.below, masks, pictures)):
        alone = sorted(names - others)
        if alone:
            return Finding(DIFFERS, path, f"{len(alone):,} of {len(names):,} have no partner, such as {alone[0]}")
    return _counted(check, len(pictures), "pairs")


_CHECKS: dict[str, Callable[[Path, Check], Finding]] = {
    "file": _file, "files": _files, "folders": _folders, "lines": _lines, "csv": _csv, "json": _json, "pairs": _pairs,
}  # fmt: skip


def _missing(check: Check) -> Finding:
    expected = "" if check.count is None else f"{check.count:,} expected"
    return Finding(ABSENT if check.optional else MISSING, check.path, expected)


def _counted(check: Check, number: int, unit: str) -> Finding:
    if check.count is None or number == check.count:
        return Finding(GOOD if number else DIFFERS, check.path, f"{number:,} {unit}")
    return Finding(DIFFERS, check.path, f"{number:,} {unit}, {check.count:,} expected")


def _with_files(folder: Path, check: Check, finding: Finding, names: Sequence[Any]) -> Finding:
    """Add that files which a list names are missing."""
    if not check.refers:
        return finding
    absent = [name for name in names if not isinstance(name, str) or not _lies_in(folder, check.below, name)]
    if not absent:
        return finding
    said = f"{finding.said}; {len(absent):,} of the files that it names are missing, such as {str(absent[0])[:80]!r}"
    return Finding(DIFFERS, finding.what, said)


def _lies_in(folder: Path, below: str, name: str) -> bool:
    """Whether a named file is there; names that leave the folder are not."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name:
        return False
    roots = [*(folder / name for name in below.split("|")), folder]
    if pure.parts and pure.parts[0] == folder.absolute().name:  # SkyScript's tables name the data set's folder, too
        roots.append(folder.absolute().parent)
    try:
        return any((root / pure).is_file() for root in roots)
    except OSError:  # a name that is too long
        return False


def _records(path: Path) -> Any:  # noqa: ANN401 - JSON
    """Read a JSON file, or one with an object on each line, as its list."""
    text = _text(path)
    try:
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {error}"[:90], path=path) from error


def _text(path: Path) -> str:
    """Read a text in one of the encodings in which the lists come."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError("is too large to be a list", path=path)
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from error
    for encoding in _ENCODINGS:
        try:
            return payload.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError("is no text in UTF-8 or GB 18030", path=path)


def _matches(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files below a folder that fit, by name, the shallowest first.

    ``**`` stands for any folders, or none; links to folders are followed once, by ``**`` never.
    """
    yield from _walk(folder, PurePosixPath(pattern).parts)


def _walk(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _walk(folder, rest)
    try:
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except OSError:
        return
    for child in children:
        if child.name.startswith("."):
            continue
        if head == "**":
            if child.is_dir(follow_symlinks=False):
                yield from _walk(Path(child.path), parts)
        elif _fits(child.name, head):
            if rest and child.is_dir():
                yield from _walk(Path(child.path), rest)
            elif not rest and child.is_file():
                yield Path(child.path)


def _fits(name: str, pattern: str) -> bool:
    """Compare without capitals; alternatives are parted by ``|``."""
    return any(fnmatch.fnmatchcase(name.lower(), part) for part in pattern.lower().split("|"))
