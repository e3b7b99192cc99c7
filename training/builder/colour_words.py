"""Colours that a text says of a region, against the colours that its pixels show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.builder.colours import COLOURS
from training.builder.lexicon import categories, colour_family

if TYPE_CHECKING:
    from collections.abc import Iterable

SHADES = frozenset({"black", "white", "gray"})


def colour_words(text: str) -> tuple[str, ...]:
    """Return the colours said of the thing itself: before the first class that is named; none without a class."""
    head = categories().head(text)
    words = re.findall(r"[a-z]+", text[: head[1]].lower()) if head else []
    return tuple(word for word in words if colour_family().alternatives(word))


def may_be(word: str, shown: Iterable[str], *, shaded: bool = True) -> bool:
    """Whether a colour word is true of one of the colours that pixels show.

    A word that is near in speech is true, too (silver of gray, golden of yellow), but no hue is near to black, gray or
    white: whether a pixel has a hue is measured.

    Args:
        word: Of a text.
        shown: Names of :data:`training.builder.colours.COLOURS`.
        shaded: Whether shade or glare may have made gray of black and white.
    """
    colours = colour_family()
    own = next((synonyms for synonyms in colours.members if word in synonyms), ())
    measured = set(own) & set(COLOURS)

    def near(colour: str) -> bool:
        if measured and (colour in SHADES or measured & SHADES):
            return shaded and colour in SHADES and bool(measured & SHADES) and colours.same(word, colour)
        return colours.same(word, colour)

    return any(colour in own or near(colour) for colour in shown)
