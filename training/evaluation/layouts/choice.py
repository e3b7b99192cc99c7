"""Multiple choice in CHOICE's layout: JSON lists of ``{id, image_path, question, answer}`` in a tree of tasks.

A question ends in its options, one a line, ``A.`` to ``Z.`` without gaps; the answer is a letter. Questions of other
kinds (boxes to be named, two images) are counted and named, not guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.readers.base import json_items, load_json
from training.evaluation.layouts.tables import root_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]*(.*)$")
_ANSWER = re.compile(r"^\s*\(?([A-Z])[.):]?\s*$")
_KEYS = ("id", "image_path", "question", "answer")


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one image."""

    id: str
    image: str
    stem: str
    options: tuple[str, ...]
    """At least two."""
    right: int
    """Place of the right option."""
    task: str
    """Name of the JSON file, without suffix."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions of a data set."""

    name: str
    root: Path
    questions: tuple[Question, ...]
    unparsed: tuple[tuple[str, str], ...]
    """Id and reason of those that are no multiple choice."""

    def take(self, places: Iterable[int]) -> Questions:
        """Return some of the questions."""
        return replace(self, questions=tuple(self.questions[int(place)] for place in places))


def parse_options(question: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the stem and the options of a question; None where it has none, or their letters have gaps.

    Lines after an option that are none themselves belong to it.
    """
    stem: list[str] = []
    options: list[str] = []
    for line in question.splitlines():
        match = _OPTION.match(line)
        expected = chr(ord("A") + len(options))
        if match and match[1] == expected:
            options.append(match[2].strip())
        elif match and options:
            return None
        elif options:
            options[-1] = f"{options[-1]} {line.strip()}".strip()
        else:
            stem.append(line.strip())
    if len(options) < 2 or not all(options):
        return None
    return " ".join(part for part in stem if part), tuple(options)


def read_choice(path: Path, *, only: Iterable[str] = ()) -> Questions:
    """Read questions.

    Args:
        path: A JSON file, or a folder that has such files somewhere.
        only: Parts of the tree, folders or files by name; empty takes all.

    Raises:
        DataError: There are no questions, a file is damaged, or a part is not there.
    """
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the data set's folder or one of its JSON files")
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*.json")) if _is_mine(file)]
    wanted = tuple(only)
    for part in wanted:
        if not any(part in _parts(file, path) for file in files):
            known = sorted({name for file in files for name in _parts(file, path)})
            raise DataError(f"has no part {part!r}", path=path, measured=", ".join(known)[:200])
    files = [file for file in files if not wanted or set(wanted) & set(_parts(file, path))]
    good: list[Question] = []
    bad: list[tuple[str, str]] = []
    for file in files:
        for found in _read(file):
            (good if isinstance(found, Question) else bad).append(found)  # type: ignore[arg-type]
    if not good:
        raise DataError(
            "has no multiple-choice questions", path=path, measured=f"{len(bad)} of other kinds",
            remedy="give a folder in CHOICE's layout",
        )  # fmt: skip
    root, names = _root(path, [question.image for question in good])
    questions = tuple(replace(question, image=name) for question, name in zip(good, names, strict=True))
    return Questions(path.resolve().name if path.is_dir() else path.stem, root, questions, tuple(bad))


def _parts(file: Path, top: Path) -> tuple[str, ...]:
    return (*(file.relative_to(top).parent.parts if top.is_dir() else ()), file.stem)


def _is_mine(file: Path) -> bool:
    """Say whether a file is a list of questions, or damaged, which reading it will tell."""
    try:
        items = load_json(file)
    except DataError:
        return True
    return isinstance(items, list) and bool(items) and isinstance(items[0], dict) and "question" in items[0]


def _read(file: Path) -> Iterator[Question | tuple[str, str]]:
    for where, item in json_items(file):
        if not isinstance(item, dict) or not isinstance(item.get("question"), str):
            raise DataError("has no question", path=where, remedy=f"give {', '.join(_KEYS)}")
        yield _question(item, where, file.stem)


def _question(item: dict[str, Any], where: str, task: str) -> Question | tuple[str, str]:
    name = str(item.get("id") or Path(where).name)
    image, answer = item.get("image_path"), item.get("answer")
    if not isinstance(image, str) or not image:
        return name, "not one image"
    parsed = parse_options(item["question"])
    if parsed is None:
        return name, "no options"
    letter = _ANSWER.match(answer) if isinstance(answer, str) else None
    right = -1 if letter is None else ord(letter[1]) - ord("A")
    if not 0 <= right < len(parsed[1]):
        return name, "the answer is none of the options"
    return Question(name, image, parsed[0], parsed[1], right, task)


def _root(path: Path, images: list[str]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that images are relative to: CHOICE names them from the top of its tree."""
    folder = path if path.is_dir() else path.parent
    names: tuple[str, ...] = ()
    for home in (folder, *list(folder.resolve().parents)[:4]):
        root, names = root_of(home, images)
        if any((root / name).is_file() for name in names[:50]):
            return root, names
    return folder, names
