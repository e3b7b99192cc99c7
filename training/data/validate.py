"""Checking records: every problem is found, counted by kind, and named by file and line."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.progress import silent
from training.data.dataset import RsfgDataset, parse_line, record_files
from training.data.errors import DataError
from training.data.images import decode, read_bytes
from training.data.schema import NEGATIVE_KEYS, RECORD_KEYS, REGION_KEYS, Record, parse_record, problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiling.progress import CancelToken, Progress

SHORT_TOKENS, LONG_TOKENS = 77, 248
"""CLIP's context and Long-CLIP's, start and end token included."""
_CLOSE = 0.8
_NOT_WORDS = ("rsfg", "origin", "id", "tags", "title", "text", "name")
"""Unknown keys that are meant, however much they look like known ones."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem."""

    kind: str
    where: str
    """``FILE:LINE`` or ``SHARD.tar!SAMPLE``."""
    measured: str
    is_error: bool
    """Warnings do not keep a record from being used."""

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.where}: {self.kind}" + (f" ({self.measured})" if self.measured else "")


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found."""

    files: tuple[str, ...]
    records: int
    regions: int
    hard_negatives: int
    errors: dict[str, int]
    """How often each kind of error was found."""
    warnings: dict[str, int]
    issues: tuple[Issue, ...]
    """The first of each kind."""

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def __str__(self) -> str:
        """Return the issues, one a line, and the totals."""
        lines = [f"{'error' if item.is_error else 'warning'}: {item}" for item in self.issues]
        for counts in (self.errors, self.warnings):
            lines += [f"{times:8,} × {kind}" for kind, times in counts.items()]
        totals = f"{self.records:,} records, {self.regions:,} regions, {self.hard_negatives:,} hard negatives"
        return "\n".join(
            [*lines, f"{totals}: {sum(self.errors.values()):,} errors, {sum(self.warnings.values()):,} warnings"]
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        counts = {"records": self.records, "regions": self.regions, "hard_negatives": self.hard_negatives}
        found = [
            {"kind": item.kind, "where": item.where, "measured": item.measured, "error": item.is_error}
            for item in self.issues
        ]
        return {"files": list(self.files), **counts, "errors": self.errors, "warnings": self.warnings, "issues": found}


@dataclass(slots=True)
class _Findings:
    """Collects issues: all are counted, the first of each kind are kept."""

    most: int
    errors: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    issues: list[Issue] = field(default_factory=list)

    def add(self, kind: str, where: str, measured: str = "", *, is_error: bool = True) -> None:
        counts = self.errors if is_error else self.warnings
        counts[kind] += 1
        if counts[kind] <= self.most:
            self.issues.append(Issue(kind, where, " ".join(measured.split()), is_error))


def validate(
    path: str | Path,
    *,
    check_images: bool = True,
    check_tokens: bool = False,
    most: int = 20,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Report:
    """Check the records of a data set, and their pictures.

    It goes on after every problem. Memory is that of the images' names and, for each image with an ``md5``, 32 bytes.

    Args:
        path: A folder, a ``.jsonl`` file or a ``.tar`` shard, as :class:`~training.data.dataset.RsfgDataset` takes it.
        check_images: Whether each picture is decoded and its size and MD5 are compared with the record's.
        check_tokens: Whether texts are counted in CLIP tokens (77, and 248 for detailed captions); loads open_clip.
        most: Issues of each kind that are listed; all are counted.
        progress: Told after each record.
        cancel: Stops between two records.

    Raises:
        DataError: The path is missing, or a folder without a file of records. (A file without any is an error of the
            report.)
        CancelledError: ``cancel`` was set.
    """
    found, checks = _Findings(most), _Checks()
    files = record_files(Path(path))
    count = _counter() if check_tokens else None
    records = 0
    for file in files:
        for number, total, where, record in _records(file, found):
            if cancel is not None:
                cancel.check()
            records += 1
            if record is not None:
                checks.record(record, where, found)
                if check_images:
                    _check_image(record, file.parent, where, found)
                if count is not None:
                    _check_tokens(record, where, found, count)
            progress(number, total, f"checking {file.name}")
    if not records and not found.errors:
        found.add("holds no records", str(path))
    return Report(
        tuple(map(str, files)),
        records,
        checks.regions,
        checks.negatives,
        dict(found.errors.most_common()),
        dict(found.warnings.most_common()),
        tuple(found.issues),
    )


def _records(file: Path, found: _Findings) -> Iterator[tuple[int, int, str, Record | None]]:
    """Yield position, total, place and record of each entry of a file; None where it breaks the schema."""
    try:
        dataset = RsfgDataset([file])
    except DataError as error:
        found.add(error.what, str(file), error.measured or "")
        return
    for index in range(len(dataset)):
        where = dataset.key(index)
        if file.suffix == ".tar":
            try:
                record: Record | None = dataset[index]
            except DataError as error:
                found.add(error.what, where, error.measured or "")
                record = None
        else:
            record = _parsed(dataset.line(index), where, found)
        yield index + 1, len(dataset), where, record


def _parsed(line: bytes, where: str, found: _Findings) -> Record | None:
    try:
        item = parse_line(line, where)
    except DataError as error:
        found.add(error.what, where, error.measured or "")
        return None
    wrong = list(problems(item))
    for problem in wrong:
        found.add(problem.kind, where, problem.measured)
    if isinstance(item, dict):
        for measured in _misspelt(item):
            found.add("an unknown key looks like a known one", where, measured, is_error=False)
    return None if wrong else parse_record(item, where=where)


def _misspelt(item: dict[str, Any]) -> Iterator[str]:
    """Yield the keys that are probably meant to be others."""
    levels: list[tuple[str, Any, tuple[str, ...]]] = [("", item, RECORD_KEYS)]
    regions = item.get("regions")
    for index, region in enumerate(regions if isinstance(regions, list) else ()):
        levels.append((f"regions[{index}].", region, REGION_KEYS))
        negatives = region.get("hard_negatives") if isinstance(region, dict) else None
        for number, entry in enumerate(negatives if isinstance(negatives, list) else ()):
            levels.append((f"regions[{index}].hard_negatives[{number}].", entry, NEGATIVE_KEYS))
    for place, entry, known in levels:
        for key in entry.keys() - set(known) - set(_NOT_WORDS) if isinstance(entry, dict) else ():
            near = difflib.get_close_matches(key.lower(), [name for name in known if name not in entry], 1, _CLOSE)
            if near:
                yield f"{place}{key}, perhaps {near[0]}"


class _Checks:
    """What can only be seen across records, and in a record that keeps the schema."""

    def __init__(self) -> None:
        self.regions = self.negatives = 0
        self._seen: dict[str, dict[str, str]] = defaultdict(dict)
        self._splits: dict[str, str | None] = {}

    def record(self, record: Record, where: str, found: _Findings) -> None:
        self.regions += len(record.regions)
        split = self._splits.setdefault(record.image, record.split)
        if split != record.split:
            found.add("an image is in two splits", where, f"{record.image}: {split} and {record.split}")
        else:
            self._once("an image appears twice", "image", record.image, where, found)
        if (number := record.extra.get("id")) is not None:
            self._once("an id appears twice", "id", repr(number), where, found)
        if record.md5:
            side = f" in split {record.split}" if record.split else ""
            self._once("two images have the same bytes", "md5", f"MD5 {record.md5.lower()}{side}", where, found)
        for place, text in texts_of(record):
            if not text.strip():
                found.add("a text is empty", where, place, is_error=False)
        for index, region in enumerate(record.regions):
            self.negatives += len(region.hard_negatives)
            positives = {_plain(text) for text in (region.phrase, region.description) if text}
            earlier: set[str] = set()
            for number, text in enumerate(_plain(negative.text) for negative in region.hard_negatives):
                place = f"regions[{index}].hard_negatives[{number}] = {text!r:.60}"
                if text in positives:
                    found.add("a hard negative equals its positive", where, place)
                elif text in earlier:
                    found.add("a hard negative appears twice", where, place, is_error=False)
                earlier.add(text)

    def _once(self, kind: str, group: str, value: str, where: str, found: _Findings) -> None:
        first = self._seen[group].setdefault(value, where)
        if first != where:
            found.add(kind, where, f"{value}, first at {first}", is_error=group != "md5")


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(" .")


def texts_of(record: Record) -> Iterator[tuple[str, str]]:
    """Yield every text of a record and its place."""
    for key in ("brief_caption", "detailed_caption"):
        if (text := getattr(record, key)) is not None:
            yield key, text
    yield from ((f"captions[{index}]", text) for index, text in enumerate(record.captions))
    for index, region in enumerate(record.regions):
        for key in ("phrase", "description"):
            if (text := getattr(region, key)) is not None:
                yield f"regions[{index}].{key}", text
        for number, negative in enumerate(region.hard_negatives):
            yield f"regions[{index}].hard_negatives[{number}]", negative.text


def _check_image(record: Record, root: Path, where: str, found: _Findings) -> None:
    try:
        payload = read_bytes(root, record.image)
        height, width = decode(payload, where).shape[:2]
    except DataError as error:
        found.add(error.what, where, f"{record.image}: {error.measured}")
        return
    told = (record.width or width, record.height or height)
    if told != (width, height):
        found.add("an image has another size", where, f"{width} × {height} px, not {told[0]} × {told[1]}")
    if record.md5 and record.md5.lower() != hashlib.md5(payload, usedforsecurity=False).hexdigest():
        found.add("an image has another MD5", where, record.image)


def _counter() -> Callable[[str], int]:
    from geoalign_core.models.tokens import Tokenizer

    return Tokenizer().count


def _check_tokens(record: Record, where: str, found: _Findings, count: Callable[[str], int]) -> None:
    for place, text in texts_of(record):
        limit = LONG_TOKENS if place == "detailed_caption" else SHORT_TOKENS
        # A token holds at least one letter: most texts need no counting.
        if len(text) + 2 > limit and (tokens := count(text)) > limit:
            kind = f"a text is longer than {limit} tokens"
            found.add(kind, where, f"{place}: {tokens} tokens", is_error=False)
