"""The closed vocabularies of the builder, as data: ``lexicon/*.json``.

``attributes.json`` holds families of words that exclude each other (synonyms share a set), ``orientation.json`` the
words of direction, ``categories.json`` the classes of aerial data sets with what they are mistaken for.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training.builder.wording import plural, singular

_FOLDER = Path(__file__).parent / "lexicon"
Vector = tuple[int, int]
"""Direction in the image, x to the right and y down, each -1, 0 or 1."""

SIZES = {
    **dict.fromkeys(("small", "tiny", "little"), "small"),
    **dict.fromkeys(("large", "big", "huge", "massive"), "large"),
}
"""Words of size that the boxes of one category can decide."""


def _read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return data


@dataclass(frozen=True, slots=True)
class Orientation:
    """Words of direction."""

    vectors: dict[str, Vector]
    central: frozenset[str]
    opposite: dict[str, str]
    """Both ways."""
    one_axis: dict[str, tuple[str, ...]]
    """Of a one-word diagonal ("northwest"), the words with one of its two directions turned round."""
    axes: dict[str, str]
    """Words for the direction of a long object: horizontal, vertical, diagonal."""


@dataclass(frozen=True, slots=True)
class Family:
    """Sets of synonyms of which at most one is true of a thing."""

    kind: str
    """colour, size, material, shape, count or state."""
    members: tuple[tuple[str, ...], ...]
    near: tuple[frozenset[str], ...]
    """First words of sets that may both be true (silver and gray), so that neither replaces the other."""

    def alternatives(self, word: str) -> tuple[str, ...]:
        """Return the words that contradict ``word``: one of each other set, its first; empty for a stranger."""
        own = next((synonyms for synonyms in self.members if word in synonyms), None)
        if own is None:
            return ()
        kin = frozenset[str]().union(*(pair for pair in self.near if own[0] in pair))
        return tuple(synonyms[0] for synonyms in self.members if synonyms is not own and synonyms[0] not in kin)

    def same(self, one: str, other: str) -> bool:
        """Whether two words of the family may both be true of a thing; ``other`` may be a stranger."""
        sets = [next((item for item in self.members if word in item), None) for word in (one, other)]
        first, second = sets
        if first is None or second is None:
            return False
        return first is second or any({first[0], second[0]} <= pair for pair in self.near)


@dataclass(frozen=True, slots=True)
class Categories:
    """Classes of things seen from above."""

    canonical: dict[str, str]
    """Every name, singular, to the name of its class."""
    confusable: dict[str, tuple[str, ...]]
    """Per class, the classes it is mistaken for; symmetric."""
    kinds: dict[str, frozenset[str]]
    """Per class, the classes that are special cases of it."""
    codes: dict[str, str]
    """Names as data sets write them, without spaces, to the name of the class."""
    spoken: dict[str, str]
    """Per class whose name people would not say, the name they would."""

    def of(self, name: str) -> str | None:
        """Return the class that a name (any number, case, hyphens or underscores) stands for."""
        plain = " ".join(re.sub(r"[^a-z0-9 ]+", " ", name.lower()).split())
        joined = plain.replace(" ", "")
        return (
            self.canonical.get(plain) or self.canonical.get(singular(plain))
            or self.codes.get(joined) or self.codes.get(singular(joined))
        )  # fmt: skip

    def head(self, phrase: str) -> tuple[str, int, int] | None:
        """Find the first class named in a text, longest name first: class, start and end in ``phrase``."""
        return next(iter(self.mentions(phrase)), None)

    def mentions(self, text: str) -> list[tuple[str, int, int]]:
        """Return every class named in a text with its place, left to right, longest names first."""
        return [(self.canonical[singular(" ".join(m.group().lower().replace("-", " ").split()))], *m.span())
                for m in _names_pattern().finditer(text)]  # fmt: skip

    def related(self, one: str, other: str) -> bool:
        """Whether one class is the other or a special case of it."""
        return one == other or other in self.kinds.get(one, ()) or one in self.kinds.get(other, ())


@cache
def orientation() -> Orientation:
    """Return the words of direction."""
    data = _read("orientation")
    pairs = data["opposites"]
    return Orientation(
        vectors={word: (dx, dy) for word, (dx, dy) in data["words"].items()},
        central=frozenset(data["central"]),
        opposite=dict(pairs) | {b: a for a, b in pairs},
        one_axis={word: tuple(others) for word, others in data["one_axis"].items()},
        axes=dict(data["axes"]),
    )


@cache
def families() -> tuple[Family, ...]:
    """Return the families of attribute words."""
    return tuple(
        Family(item["kind"], tuple(map(tuple, item["members"])), tuple(map(frozenset, item.get("near", []))))
        for item in _read("attributes")["families"]
    )


@cache
def colour_family() -> Family:
    """Return the family of colour words."""
    return next(family for family in families() if family.kind == "colour")


@cache
def attribute_families(word: str) -> tuple[Family, ...]:
    """Return the families that know a word: one, but for words marked ``shared``."""
    return tuple(family for family in families() if any(word in synonyms for synonyms in family.members))


@cache
def shared_words() -> frozenset[str]:
    """Return the words that are marked as having two roles."""
    return frozenset(_read("attributes")["shared"])


@cache
def categories() -> Categories:
    """Return the classes and what they are mistaken for."""
    data = _read("categories")
    confusable: dict[str, list[str]] = {names[0]: [] for names in data["classes"]}
    for one, others in data["confusable"].items():
        for other in others:
            for a, b in ((one, other), (other, one)):
                if b not in confusable[a]:
                    confusable[a].append(b)
    return Categories(
        canonical={name.replace("-", " "): names[0] for names in data["classes"] for name in names},
        confusable={name: tuple(others) for name, others in confusable.items()},
        kinds={name: frozenset(others) for name, others in data["kinds"].items()},
        codes={name.replace(" ", "").replace("-", ""): names[0] for names in data["classes"] for name in names}
        | {code: name for name, codes in data["codes"].items() for code in codes},
        spoken=dict(data["spoken"]),
    )


@cache
def _names_pattern() -> re.Pattern[str]:
    forms = {form for name in categories().canonical for form in (name, plural(name))}
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    joined = "|".join(r"[\s-]+".join(map(re.escape, form.split())) for form in ordered)
    return re.compile(rf"(?<![\w-])(?:{joined})(?![\w-])", re.IGNORECASE)
