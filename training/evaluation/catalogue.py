"""The data sets of the papers: where each comes from, its terms, how a folder must look. Nothing is ever downloaded.

Each file of ``catalogue/`` is one data set. Terms that the authors' own pages do not state, or that could not be
looked up, are marked as not verified: read them before the data is used.
"""

from __future__ import annotations

import functools
import json
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tiling.errors import UsageError
from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
FOLDER = Path(__file__).parent / "catalogue"
_ABOVE = 4
"""Folders around the data that may have a set's name: a leaf of CHOICE lies in ``CHOICE/perception/DIMENSION/TASK``."""
KINDS = ("file", "files", "folders", "lines", "json", "csv", "pairs")
"""What a check looks at, see :mod:`training.evaluation.catalogue_check`."""


@dataclass(frozen=True, slots=True)
class Use:
    """A task that takes the data set."""

    task: str
    protocols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a folder must hold."""

    kind: str
    """One of :data:`KINDS`."""
    path: str
    """Below the folder; ``*`` and ``**`` as in globs, ``|`` parts alternatives of one name, capitals do not matter."""
    count: int | None = None
    """How many there must be; None where it is not known."""
    optional: bool = False
    where: Mapping[str, str] = field(default_factory=dict, hash=False)
    """``json``: only entries with these values are counted."""
    items: str = ""
    """``json``: key of the list; empty where the file is the list."""
    refers: str = ""
    """``json`` and ``csv``: key or column with the name of a file that must be there."""
    below: str = ""
    """Folder that these names (or one of several, parted by ``|``), or the second half of pairs, lie in."""
    columns: tuple[str, ...] = ()
    """``csv``: columns that must be there."""
    skip_after: str = ""
    """``pairs``: endings of the second half's names that do not count ("_labelIds")."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which the data set comes."""

    name: str
    tree: tuple[str, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the data may be used for."""

    text: str
    verified: bool
    """Whether they were read where ``where`` says."""
    where: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set."""

    id: str
    title: str
    names: tuple[str, ...]
    """Other names under which it goes."""
    uses: tuple[Use, ...]
    split: str
    counts: Mapping[str, int] = field(hash=False)
    """Of the part that the papers measure on; empty where it is not known."""
    url: str
    paper: str
    terms: Terms
    layouts: tuple[Layout, ...]
    notes: tuple[str, ...]

    def of_task(self, task: str) -> bool:
        """Say whether a task takes it."""
        return any(use.task == task for use in self.uses)


@functools.cache
def catalogue() -> tuple[Entry, ...]:
    """Return every data set, by id."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.json")))


def find(name: str) -> Entry:
    """Return a data set by its id, title or another name; capitals and signs do not matter.

    Raises:
        UsageError: There is none.
    """
    entry = _names().get(_slug(name))
    if entry is None:
        import difflib

        near = difflib.get_close_matches(_slug(name), _names(), n=3, cutoff=0.6)
        remedy = "see geoalign-eval data"
        if near:
            remedy = f"did you mean {', '.join(dict.fromkeys(_names()[key].id for key in near))}?"
        raise UsageError("no data set of this name in the catalogue", measured=name[:60], remedy=remedy)
    return entry


def dataset_id(name: str) -> str:
    """Return the catalogue's id for a name; the name itself where the catalogue has none."""
    entry = _known(name)
    return name if entry is None else entry.id


def placed_id(place: Path, task: str, above: int = _ABOVE) -> str:
    """Return the id of a task's data set by the name of its folder or file, or of one around it; empty without one.

    Args:
        place: The data's folder or file.
        task: Whose data sets count.
        above: How many folders around it may have the name.
    """
    for path in dict.fromkeys((place.absolute(), place.resolve())):
        for around in (path, *path.parents)[: 1 + above]:
            if known := named_id(around.name, task) or named_id(around.stem, task):
                return known
    return ""


def named_id(name: str, task: str) -> str:
    """Return the id of a task's data set by one of its names; empty where none has it."""
    entry = _known(name)
    return entry.id if entry is not None and entry.of_task(task) else ""


def check_id(name: str, task: str) -> str:
    """Return the id of a data set that a user says is measured.

    Raises:
        UsageError: The catalogue has none of this name, and near ones are offered, or not for this task.
    """
    entry = find(name)
    if not entry.of_task(task):
        known = ", ".join(entry.id for entry in catalogue() if entry.of_task(task))
        remedy = f"use one of {known}" if known else "leave it out: there are no published figures of this task"
        raise UsageError(f"{entry.id} is no data set of {task}", remedy=remedy)
    return entry.id


def dataset_title(name: str) -> str:
    """Return the title for an id or a name; the name itself where the catalogue has none."""
    entry = _known(name)
    return name if entry is None else entry.title


def class_count(name: str) -> int | None:
    """Return how many classes a data set has; None where that is not known."""
    entry = _known(name)
    return None if entry is None else entry.counts.get("classes")


def listing() -> str:
    """Return one line for each data set: id, tasks, what is counted, terms."""
    rows = [
        (entry.id, ", ".join(dict.fromkeys(use.task for use in entry.uses)), _counts(entry), _short(entry.terms))
        for entry in catalogue()
    ]
    rows.insert(0, ("data set", "task", "measured on", "terms"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def description(entry: Entry) -> str:
    """Return everything known of a data set, for a terminal."""
    doubt = "" if entry.terms.verified else " (not verified: read them before the data is used)"
    lines = [f"{entry.title} ({entry.id})"]
    lines += _wrapped("from", entry.url) + _wrapped("paper", entry.paper)
    lines += _wrapped("terms", f"{entry.terms.text}{doubt}")
    if entry.terms.where:
        lines += _wrapped("", f"see {entry.terms.where}")
    lines += _wrapped("part", f"{entry.split}: {_counts(entry) or 'size not known'}")
    for use in entry.uses:
        lines += _wrapped("task", f"geoalign-eval {use.task} --protocol {' | '.join(use.protocols)}")
    for layout in entry.layouts:
        lines += ["", f"  layout: {layout.name}", *(f"    {line}" for line in layout.tree)]
    lines += [line for note in entry.notes for line in ("", *_wrapped("note", note))]
    return "\n".join(lines)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 110, initial_indent=f"  {label:<7}", subsequent_indent=" " * 9, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _counts(entry: Entry) -> str:
    return ", ".join(f"{number:,} {unit}" for unit, number in entry.counts.items())


def _short(terms: Terms) -> str:
    text = terms.text.split(";")[0].split(". ")[0].rstrip(".")
    return text if terms.verified else f"{text} (not verified)"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _known(name: str) -> Entry | None:
    """Find an entry by a name or by that of its list (``dataset_rsicd``, ``rsitmd_test``)."""
    slug = _slug(name)
    found = _names().get(slug)
    for end in ("test", "val"):
        found = found or _names().get(slug.removeprefix("dataset").removesuffix(end))
    return found


@functools.cache
def _names() -> dict[str, Entry]:
    """Every spelling that finds an entry."""
    return {_slug(name): entry for entry in catalogue() for name in (entry.id, entry.title, *entry.names)}


def _read(path: Path) -> Entry:
    """Read one file; whoever edits it learns at once what does not fit."""
    try:
        item: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if item["format"] != FORMAT or item["id"] != path.stem:
            raise ValueError("format or id")
        layouts = tuple(
            Layout(layout["name"], tuple(layout["tree"]), tuple(_check(check) for check in layout["checks"]))
            for layout in item["layouts"]
        )
        return Entry(
            item["id"], item["title"], tuple(item["names"]),
            tuple(Use(use["task"], tuple(use["protocols"])) for use in item["uses"]),
            item["split"], item["counts"], item["url"], item["paper"], Terms(**item["terms"]), layouts,
            tuple(item["notes"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("is not an entry of the catalogue", path=path, measured=str(error)[:80]) from error


def _check(item: dict[str, Any]) -> Check:
    if item["kind"] not in KINDS:
        raise ValueError(f"kind {item['kind']}")
    for pattern in (item["path"], item.get("below", "")):
        if any("*." in name for name in PurePosixPath(pattern).parts[:-1]):  # alternatives end at the next stroke
            raise ValueError(f"a file's ending in a folder of {pattern}")
    return Check(**{**item, "columns": tuple(item.get("columns", ()))})
