"""Texts against boxes: what a record says that its own geometry contradicts, and leftovers of how it was made."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.builder.ambiguity import ambiguous
from training.builder.ambiguity import plain as _plain
from training.builder.appearance import colours_shown
from training.builder.colour_words import colour_words, may_be
from training.builder.colours import tint_of
from training.builder.geometry import holds, matching_regions, parse_statements, size_word
from training.builder.lexicon import SIZES, attribute_families, categories
from training.builder.wording import singular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.data.schema import Record, Region

SEVERITIES: Mapping[str, str] = {
    "position": "error", "count": "error", "category": "error", "negative_true": "error", "negative_same": "error",
    "image_size": "error", "empty": "error", "leftover": "error",
    "scene": "warning", "language": "warning", "length": "warning", "duplicate_box": "warning",
    "ambiguous": "warning", "colour": "warning",
}  # fmt: skip
"""Every kind of finding with how grave it is: an error is wrong, a warning deserves a look."""

MAX_WORDS = {"phrase": 40, "brief_caption": 60, "description": 180, "detailed_caption": 180}
"""Words beyond which the text towers cut: 77 and 248 tokens at about 1.35 tokens a word, less the two marks [D]."""
SAME_BOX_IOU = 0.95
_NAMED = 3
_LEFTOVER = re.compile(
    r"</?[a-z][^>]*>|<\||\|>|```|\*\*|^#+\s|\{[^}]*\}|https?://|\\[nt]|&(?:amp|lt|gt|nbsp);|\b(?:as an ai|i'm sorry|"
    r"i cannot|sure[,!]? here|here is (?:the|a) (?:caption|description)|assistant:|user:|lorem ipsum|n/a)\b",
    re.IGNORECASE | re.MULTILINE,
)
_WORDS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_NUMBERS = {word: number for number, word in enumerate(_WORDS, start=1)}
_COUNT = re.compile(rf"\b({'|'.join(_NUMBERS)}|\d{{1,2}})\s+(?:[a-z-]+\s+){{0,2}}$", re.IGNORECASE)
_VAGUE = re.compile(r"\b(?:about|around|over|at least|more than|nearly|almost|approximately)\s+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a record says and its boxes, its picture or good sense contradict."""

    kind: str
    """A key of :data:`SEVERITIES`."""
    where: str
    """Field of the record, such as ``regions[2].phrase``."""
    text: str
    """What was said, in short."""
    why: str

    @property
    def severity(self) -> str:
        """``error`` or ``warning``."""
        return SEVERITIES[self.kind]


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a kind of finding comes in a data set."""

    kind: str
    severity: str
    findings: int
    records: int
    """Records with at least one."""
    share: float
    """Of all records, in [0, 1]."""


def check(record: Record, image: NDArray[np.uint8] | None = None) -> list[Finding]:
    """Lay every text of a record against its boxes.

    Statements that the boxes leave open (within the margins of :mod:`training.builder.geometry`) are no findings.

    Args:
        record: The record.
        image: Its picture (H, W, 3), to check the recorded size and colours; None leaves that out.
    """
    found = [*_texts(record), *_boxes(record)]
    shown = [] if image is None else _shown(record, image)
    for index, region in enumerate(record.regions):
        where = f"regions[{index}]"
        for name, text in (("phrase", region.phrase), ("description", region.description)):
            if text:
                found += _statements(text, record, index, f"{where}.{name}")
                found += _counts(text, record, f"{where}.{name}", whole=False)
                if shown:
                    found += _colours(text, shown[index], f"{where}.{name}")
        found += _category(record, index)
        found += _negatives(record, index)
    for where, text in _captions(record):
        found += _statements(text, record, None, where)
        found += _counts(text, record, where)
    found += _scene(record)
    found += _ambiguous(record, shown)
    if image is not None and record.width and record.height and image.shape[:2] != (record.height, record.width):
        said, real = (f"{width} × {height} px" for height, width in ((record.height, record.width), image.shape[:2]))
        found.append(Finding("image_size", "width", said, f"the picture has {real}"))
    return found


def rates(findings: Iterable[Iterable[Finding]]) -> tuple[Rate, ...]:
    """Count findings per kind over the records of a data set; kinds that never came are there with 0."""
    total, kinds, records = 0, Counter[str](), Counter[str]()
    for total, of_record in enumerate(findings, start=1):  # noqa: B007 - the last number is the total
        counts = Counter(item.kind for item in of_record)
        kinds.update(counts)
        records.update(counts.keys())
    return tuple(
        Rate(kind, severity, kinds[kind], records[kind], records[kind] / max(total, 1))
        for kind, severity in SEVERITIES.items()
    )


def _captions(record: Record) -> Iterator[tuple[str, str]]:
    for name, text in (("brief_caption", record.brief_caption), ("detailed_caption", record.detailed_caption)):
        if text:
            yield name, text
    for index, text in enumerate(record.captions):
        yield f"captions[{index}]", text


def _all_texts(record: Record) -> Iterator[tuple[str, str]]:
    for name in ("brief_caption", "detailed_caption"):
        if (text := getattr(record, name)) is not None:
            yield name, text
    yield from ((f"captions[{index}]", text) for index, text in enumerate(record.captions))
    for index, region in enumerate(record.regions):
        for name in ("phrase", "description"):
            if (text := getattr(region, name)) is not None:
                yield f"regions[{index}].{name}", text
        yield from (
            (f"regions[{index}].hard_negatives[{n}]", item.text) for n, item in enumerate(region.hard_negatives)
        )


def _texts(record: Record) -> Iterator[Finding]:
    """Yield empty and over-long texts, markup and small talk of language models, and letters of other scripts."""
    for where, text in _all_texts(record):
        shown = text.strip()[:80]
        if not shown:
            yield Finding("empty", where, text[:20], "there is no word in it")
            continue
        if match := _LEFTOVER.search(text):
            yield Finding("leftover", where, shown, f"holds {match.group()[:30]!r}")
        letters = [char for char in text if char.isalpha()]
        foreign = sum(ord(char) > 0x24F for char in letters)
        if foreign > 0.1 * len(letters) or not letters:
            yield Finding("language", where, shown, f"{foreign} of {len(letters)} letters are not Latin")
        name = where.rpartition(".")[2]
        most, words = MAX_WORDS.get(name), len(text.split())
        if most is not None and words > most:
            yield Finding("length", where, shown, f"{words} words; the text tower reads about {most}")


def _statements(text: str, record: Record, index: int | None, where: str) -> Iterator[Finding]:
    for statement in parse_statements(text):
        if holds(statement, record, index) is False:
            said = text[max(0, statement.start - 25) : statement.end + 25].strip()
            place = "" if index is None else f"; the box is {_box(record, index)}"
            yield Finding("position", where, said, f"{statement.words!r} is false by the boxes{place}")


def _box(record: Record, index: int) -> str:
    return "[" + ", ".join(f"{value:.2f}" for value in record.regions[index].bbox) + "]"


def _counts(text: str, record: Record, where: str, *, whole: bool = True) -> Iterator[Finding]:
    """Yield numbers that the boxes contradict, of classes that have boxes with a category in this record.

    More boxes than the text says is a contradiction for exact numbers of more than one; a text that counts more than
    there are boxes contradicts too, for then either is wrong. A text that is not of the ``whole`` image may count some.
    """
    for name, start, end in categories().mentions(text):
        match = _COUNT.search(text[:start])
        if match is None or (match.group(1).lower() in ("one", "1") and text[start:end].lower() != singular(name)):
            continue
        boxes = len(matching_regions(name, record))
        said = _NUMBERS.get(match.group(1).lower()) or int(match.group(1))
        if boxes and (said > boxes or (whole and said < boxes)) and not _VAGUE.search(text[: match.start()]):
            yield Finding("count", where, text[match.start() : end], f"{boxes} boxes are of that class")


def _shown(record: Record, image: NDArray[np.uint8]) -> list[frozenset[str] | None]:
    """Return what each region shows, where some text names a colour: else there is nothing to look for."""
    tint = tint_of(image)
    said = any(_colours_said(region) for region in record.regions)
    return [colours_shown(image, region, tint) if said else None for region in record.regions]


def _colours_said(region: Region) -> list[str]:
    return [word for text in (region.phrase, region.description) for word in colour_words(text or "")]


def _colours(text: str, shown: frozenset[str] | None, where: str) -> Iterator[Finding]:
    """Yield a colour said of the region itself that its pixels do not show.

    The pixels are measured as :mod:`training.builder.colours` does, also for the rules' phrases, but all of them and
    with all doubt for the text: this finds what nothing in the box supports, not every wrong word.
    """
    for word in colour_words(text) if shown else ():
        if not may_be(word, shown or ()):
            seen = ", ".join(sorted(shown or ()))
            yield Finding("colour", where, text[:80], f"no clear {word} in the box; the pixels show {seen}")


def unjudged_colours(record: Record, image: NDArray[np.uint8]) -> int:
    """Return how many colours said of regions :func:`check` cannot judge: too few pixels, or none of a clear colour."""
    tint = tint_of(image)
    return sum(
        len(words) for region in record.regions
        if (words := _colours_said(region)) and not colours_shown(image, region, tint)
    )  # fmt: skip


def _ambiguous(record: Record, shown: Sequence[frozenset[str] | None]) -> Iterator[Finding]:
    """Yield the phrases that fit other regions of the picture as well."""
    texts = [region.phrase or "" for region in record.regions]
    for index, others in ambiguous(record, texts, shown).items():
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        why = f"it fits {', '.join(f'regions[{other}]' for other in others[:_NAMED])}{more} as well"
        yield Finding("ambiguous", f"regions[{index}].phrase", texts[index][:80], why)


def _category(record: Record, index: int) -> Iterator[Finding]:
    """Yield phrases whose head noun is a class that the region's category excludes."""
    table, region = categories(), record.regions[index]
    own = table.of(region.category or "")
    if own is None or not region.phrase:
        return
    mentions = [name for name, _, _ in table.mentions(region.phrase)]
    if mentions and not any(table.related(name, own) for name in mentions):
        why = f"the region's category is {region.category}"
        yield Finding("category", f"regions[{index}].phrase", region.phrase[:80], why)


def _scene(record: Record) -> Iterator[Finding]:
    """Yield captions that name a class confusable with the boxes' own while they never name the boxes' class."""
    table = categories()
    boxed = {name for region in record.regions if (name := table.of(region.category or ""))}
    for where, text in _captions(record):
        named = {name for name, _, _ in table.mentions(text)}
        for name in sorted(named):
            rivals = boxed & set(table.confusable.get(name, ()))
            seen = any(table.related(name, other) for other in boxed)
            if rivals and not seen and not any(table.related(rival, other) for rival in rivals for other in named):
                why = f"no box is one, and {', '.join(sorted(rivals))} is boxed and not named"
                yield Finding("scene", where, name, why)


def _negatives(record: Record, index: int) -> Iterator[Finding]:
    """Yield negatives that say what the positive says, or that are true of the region by what is known."""
    region = record.regions[index]
    positives = {_plain(text) for text in (region.phrase, region.description) if text}
    others = {_plain(other.phrase): n for n, other in enumerate(record.regions) if n != index and other.phrase}
    for number, item in enumerate(region.hard_negatives):
        where, plain = f"regions[{index}].hard_negatives[{number}]", _plain(item.text)
        if plain in positives:
            yield Finding("negative_same", where, item.text[:80], "it is the positive")
        elif plain in others:
            yield Finding("negative_true", where, item.text[:80], f"it is the phrase of regions[{others[plain]}]")
        elif why := _true(item.text, record, index):
            yield Finding("negative_true", where, item.text[:80], why)


def _true(negative: str, record: Record, index: int) -> str:
    """Say why a negative is true after all, whatever its wording; else "".

    It is when it says the positive in other words; and when everything in it that boxes can decide (places, sizes,
    counts, the class) is true, and it claims no attribute that the positive does not.
    """
    region = record.regions[index]
    positive = region.phrase or region.description or ""
    if _synonymous(_plain(positive), _plain(negative)):
        return "it says the same in other words"
    table = categories()
    heads = [table.head(text) for text in (negative, positive)]
    own = table.of(region.category or "") or (heads[1][0] if heads[1] else None)
    if heads[0] and (own is None or not table.related(heads[0][0], own)):
        return ""
    places = parse_statements(negative)
    spans = [
        *((item.start, item.end) for item in places),
        *((start, end) for _, start, end in table.mentions(negative)),
    ]
    verdicts = [holds(item, record, index) for item in places]
    known, decided = set(_plain(positive).split()), [item.words for item in places]
    for match in re.finditer(r"[a-z]+|\d+", negative.lower()):
        word = match.group()
        if any(start <= match.start() < end for start, end in spans):
            continue
        if word in _NUMBERS and (name := table.head(negative[match.end() :])):
            verdicts.append(len(matching_regions(name[0], record)) == _NUMBERS[word])
            decided.append(word)
        elif word in SIZES and (size := size_word(record, index)):
            verdicts.append(SIZES[word] == size)
            decided.append(word)
        elif word not in known and not _synonym_of(word, known) and attribute_families(word):
            return ""
    return f"{', '.join(decided)!r} is true by the boxes" if verdicts and all(v is True for v in verdicts) else ""


def _synonym_of(word: str, known: set[str]) -> bool:
    return any(word in synonyms and known & set(synonyms) for f in attribute_families(word) for synonyms in f.members)


def _synonymous(one: str, other: str) -> bool:
    a, b = one.split(), other.split()
    return len(a) == len(b) and all(x == y or _same_set(x, y) for x, y in zip(a, b, strict=True))


def _same_set(one: str, other: str) -> bool:
    table = categories()
    same_class = table.of(one) is not None and table.of(one) == table.of(other)
    in_set = any(one in synonyms and other in synonyms for f in attribute_families(one) for synonyms in f.members)
    return in_set or (same_class and (one == singular(one)) == (other == singular(other)))


def _boxes(record: Record) -> Iterator[Finding]:
    """Yield pairs of boxes of one category that are the same box."""
    for i, one in enumerate(record.regions):
        for j, other in enumerate(record.regions[:i]):
            if one.category == other.category and _iou(one.bbox, other.bbox) >= SAME_BOX_IOU:
                why = f"it is regions[{j}] again"
                yield Finding("duplicate_box", f"regions[{i}]", one.category or "", why)


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0
