"""Sentences that each refer to one box: DIOR-RSVG, VRSBench, RRSIS-D, and records with phrases."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.errors import DataError
from training.data.images import picture_size, read_bytes
from training.data.readers.base import json_items, need, numbers, peek, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

VRSBENCH = "VRSBench_EVAL_referring.json"
_PICTURES = ("Images_val", "images", "Images")
_MARKS = re.compile(r"<\s*(-?\d+(?:\.\d+)?)\s*>")
_TEXTS = ("text", "question", "phrase", "sentence", "query")
_IMAGES = ("image", "image_id", "file_name")
_BOXES = ("bbox", "box", "answer", "ground_truth")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the box that it means."""

    image: str
    text: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    key: str
    """The data set's own number of it, else its place."""


@dataclass(frozen=True, slots=True)
class Referred:
    """A data set of sentences."""

    name: str
    root: Path
    sentences: tuple[Sentence, ...]
    layout: str
    split: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(N, 4) true boxes in pixels."""
        return np.array([item.box for item in self.sentences], np.float64).reshape(-1, 4)

    def take(self, places: Iterable[int]) -> Referred:
        """Return some of the sentences."""
        return replace(self, sentences=tuple(self.sentences[int(number)] for number in places))


def read_referred(path: Path, *, split: str | None = None, trust_pickle: bool = False) -> Referred:
    """Read sentences and boxes; which layout it is is found out.

    Args:
        path: A folder, or VRSBench's file.
        split: The part; by default ``test`` where there is one, else everything.
        trust_pickle: Consent to read RRSIS-D's pickle, of plain values alone.

    Raises:
        DataError: The data is missing, damaged or of no known layout, or no sentence is left.
    """
    from training.evaluation.layouts import rrsisd

    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the data set's folder")
    file = path / VRSBENCH if (path / VRSBENCH).is_file() else path
    if rrsisd.detect(path):
        found = _from_references(rrsisd.read(path, split, trust_pickle=trust_pickle))
    elif file.is_file() and isinstance(first := peek(file), dict) and {"question", "ground_truth"} <= set(first):
        found = _vrsbench(file)
    else:
        found = _from_records(path, split)
    if not found.sentences:
        raise DataError("has no sentences with a box", path=path, remedy="check the layout and the split")
    return found


def _from_references(data: Any) -> Referred:  # noqa: ANN401 - rrsisd.References
    sentences = [
        Sentence(item.image, text, item.box, str(number))
        for number, (item, text) in enumerate((item, text) for item in data.references for text in item.sentences)
    ]
    return Referred(data.name, data.root, tuple(sentences), "rrsisd", data.split, data.notes)


def _vrsbench(file: Path) -> Referred:
    """Read VRSBench's list: boxes are whole hundredths of the picture's sides, ``{<x1><y1><x2><y2>}``."""
    sentences: list[Sentence] = []
    sizes: dict[str, tuple[int, int]] = {}
    for where, item in json_items(file):
        image = place(need(item, "image_id", str, where), file.parent, _PICTURES)
        if image not in sizes:
            sizes[image] = picture_size(read_bytes(file.parent, image), image)
        box = _hundredths(need(item, "ground_truth", str, where), sizes[image], where)
        key = str(item.get("question_id", len(sentences)))
        sentences.append(Sentence(image, need(item, "question", str, where).strip(), box, key))
    note = "True boxes are given in whole hundredths of the picture's sides."
    return Referred(file.parent.resolve().name, file.parent, tuple(sentences), "vrsbench", None, (note,))


def _hundredths(text: str, size: tuple[int, int], where: str) -> tuple[float, float, float, float]:
    marks = [float(mark) for mark in _MARKS.findall(text)]
    if len(marks) != 4:
        raise DataError("is no box of VRSBench", path=where, measured=text[:60], remedy="write {<x1><y1><x2><y2>}")
    width, height = size
    return marks[0] * width / 100, marks[1] * height / 100, marks[2] * width / 100, marks[3] * height / 100


def _from_records(path: Path, split: str | None) -> Referred:
    from training.evaluation.layouts.records import SENTENCES, open_records

    source = open_records(path, SENTENCES)
    records = list(source.records())
    parts = {record.split for record in records}
    if split is not None and split not in parts:
        there = ", ".join(sorted(filter(None, parts))) or "none"
        raise DataError(f"has no part {split!r}", path=path, measured=f"parts: {there}", remedy="give another split")
    part = split or ("test" if "test" in parts else None)
    sentences: list[Sentence] = []
    for record in records:
        if part is not None and record.split != part:
            continue
        width, height = record.width, record.height
        for region in record.regions:
            text = region.phrase or region.description
            if not text:
                continue
            if width is None or height is None:
                width, height = picture_size(read_bytes(source.root, record.image), record.image)
            x1, y1, x2, y2 = region.bbox
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            sentences.append(Sentence(record.image, text.strip(), box, str(len(sentences))))
    return Referred(source.name, source.root, tuple(sentences), source.format, part)


def read_answers(path: Path, data: Referred) -> tuple[NDArray[np.float64], int]:
    """Read a file of predicted boxes.

    An entry says which sentence it answers by ``id`` or ``question_id``, or by ``image`` and ``text`` (VRSBench's
    names are understood too), and where by ``bbox`` (left, top, right, bottom in pixels; null: no answer) or ``answer``
    (``{<x1><y1><x2><y2>}`` in hundredths). Where an image has one text several times, the answers to it are taken in
    their order, and the last stands for what remains.

    Returns:
        (N, 4) boxes in the order of the sentences, NaN where there is no answer, and how many entries fit none.

    Raises:
        DataError: An entry is damaged or answers a sentence twice (it is named), or none fits.
    """
    places: dict[Any, list[int]] = {}
    for number, item in enumerate(data.sentences):
        places.setdefault(item.key, []).append(number)
        places.setdefault((Path(item.image).stem, item.text), []).append(number)
    boxes, lost = np.full((len(data.sentences), 4), np.nan), 0
    seen: set[int] = set()
    sizes: dict[str, tuple[int, int]] = {}
    for where, item in json_items(path):
        if not isinstance(item, dict):
            raise DataError("is not an answer", path=where, measured=f"{item!r:.40}")
        found = _answered(item, places)
        if not found:
            lost += 1
            continue
        left = [place for place in found if place not in seen]
        if not left:
            raise DataError("answers a sentence twice", path=where, measured=data.sentences[found[0]].text[:60])
        seen.add(left[0])
        boxes[left] = _box_of(item, data, data.sentences[left[0]].image, sizes, where)
    if not seen:
        raise DataError(
            "answers none of the sentences", path=path, measured=f"{lost} entries",
            remedy="give id, or image and text, and bbox",
        )  # fmt: skip
    return boxes, lost


def _answered(item: dict[str, Any], places: dict[Any, list[int]]) -> Sequence[int]:
    key = next((item[name] for name in ("id", "question_id") if isinstance(item.get(name), int | str)), None)
    if key is not None:
        return places.get(str(key), ())
    image = next((item[name] for name in _IMAGES if isinstance(item.get(name), str)), "")
    text = next((item[name] for name in _TEXTS if isinstance(item.get(name), str)), "")
    return places.get((Path(image).stem, text.strip()), ())


def _box_of(
    item: dict[str, Any], data: Referred, image: str, sizes: dict[str, tuple[int, int]], where: str
) -> tuple[float, ...]:
    given = next((item[name] for name in _BOXES if item.get(name) is not None), None)
    if given is None:
        return (np.nan,) * 4  # the model gave no box
    if isinstance(given, str):
        if image not in sizes:
            sizes[image] = picture_size(read_bytes(data.root, image), image)
        return _hundredths(given, sizes[image], where) if len(_MARKS.findall(given)) == 4 else (np.nan,) * 4
    box = numbers(given, 4, where)
    if not np.isfinite(box).all():
        raise DataError(
            "a box is not finite", path=where, measured=f"{given!r:.60}", remedy="write null where there is no answer"
        )
    return box
