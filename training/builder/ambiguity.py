"""Which regions a phrase fits: a referring expression is of use only if it fits one region of the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.builder.colour_words import colour_words, may_be
from training.builder.geometry import holds, matching_regions, parse_statements, size_word
from training.builder.lexicon import SIZES, categories
from training.builder.statements import ORDINALS
from training.builder.wording import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from training.builder.geometry import Statement
    from training.data.schema import Record

_BINDING = frozenset({
    "a", "an", "the", "in", "on", "at", "of", "to", "from", "and", "is", "side", "part", "corner", "half", "edge",
    "area", "hand", "image", "picture", "photo", "scene", "object", *ORDINALS,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a phrase says that boxes and pixels can decide."""

    noun: str
    """The first class that it names, else that of its region."""
    statements: tuple[Statement, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    whole: bool
    """Whether that is all it says."""


def fitting(
    record: Record, index: int, text: str, shown: Sequence[frozenset[str] | None]
) -> Iterator[int]:  # fmt: skip
    """Yield the other regions of a record that a phrase of one region fits as well.

    A region fits when everything that the phrase says is true of it: the class, the places, the size, and the colours,
    which must be among those that it shows. What the boxes leave open is not taken as true. A phrase that says more
    than boxes and pixels can decide ("parked", "damaged") fits no other region here.

    Args:
        record: The record.
        index: Of the region that the phrase is of.
        text: The phrase.
        shown: What each region shows (:func:`training.builder.appearance.colours_shown`). Of one that is None, and of
            all when it is empty, no colour is known: a phrase with a colour does not fit it.
    """
    claim = _claim(text, record.regions[index].category or "")
    if claim.whole and not _outstanding(claim, record, index):
        yield from (other for other in _satisfying(claim, record, shown) if other != index)


def ambiguous(record: Record, phrases: Sequence[str], shown: Sequence[frozenset[str] | None]) -> dict[int, list[int]]:
    """Return the regions whose phrase fits others as well, with these; an empty phrase is none.

    Args:
        record: The record.
        phrases: One per region.
        shown: As for :func:`fitting`.
    """
    alike: dict[str, list[int]] = {}
    for index, phrase in enumerate(phrases):
        alike.setdefault(plain(phrase), []).append(index)
    known: dict[_Claim, frozenset[int]] = {}  # a picture with a thousand boxes has a few dozen different claims
    found = {}
    for index, phrase in enumerate(phrases):
        if not plain(phrase):
            continue
        fits = set(alike[plain(phrase)])
        claim = _claim(phrase, record.regions[index].category or "")
        if claim.whole and not _outstanding(claim, record, index):
            if claim not in known:
                known[claim] = frozenset(_satisfying(claim, record, shown))
            fits |= known[claim]
        if others := sorted(fits - {index}):
            found[index] = others
    return found


def _outstanding(claim: _Claim, record: Record, index: int) -> bool:
    """Whether a region has a place in a row (the leftmost, the third from the top) that a phrase names: one has it."""
    return any(holds(item, record, index) for item in claim.statements if item.kind == "extreme")


def _satisfying(claim: _Claim, record: Record, shown: Sequence[frozenset[str] | None]) -> Iterator[int]:
    for index in matching_regions(claim.noun, record):
        seen = (shown[index] if shown else None) or ()
        if (
            all(may_be(word, seen, shaded=False) for word in claim.colours)
            and all(holds(item, record, index) for item in claim.statements)
            and all(size_word(record, index) == SIZES[word] for word in claim.sizes)
        ):
            yield index


def plain(text: str) -> str:
    """Return the words of a text without articles, case and marks."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _claim(text: str, category: str) -> _Claim:
    table, statements = categories(), parse_statements(text)
    mentions = table.mentions(text)
    taken = [*((item.start, item.end) for item in statements), *((start, end) for _, start, end in mentions)]
    words = {
        match.group()
        for match in re.finditer(r"[a-z]+|\d+", text.lower())
        if not any(start <= match.start() < end for start, end in taken)
    }
    colours = colour_words(text)
    sizes = tuple(word for word in words if word in SIZES)
    rest = words - _BINDING - {*colours, *sizes, *spoken(category).split()}
    return _Claim(mentions[0][0] if mentions else category, tuple(statements), colours, sizes, not rest)
