"""What a region is like, in words that its geometry and its pixels make true.

The predicates are those of :mod:`training.builder.geometry`, so that the consistency check reads the same meaning back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from training.builder.ambiguity import ambiguous, fitting
from training.builder.appearance import Appearance, colours_shown, region_appearance
from training.builder.colours import tint_of
from training.builder.geometry import (
    matching_regions,
    orientation_word,
    position_words,
    rank_from,
    relations,
    size_word,
)
from training.builder.statements import ORDINALS, vector_of
from training.builder.wording import RULES, may_write, one, sentence, signed, singular, spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from training.data.schema import Record, Region

_SIDES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "bottommost"}


def noun_of(region: Region) -> str:
    """Return what a region shows, in words: "object" where nothing is known."""
    return singular(spoken(region.category)) if region.category else "object"


def place(region: Region) -> str:
    """Return the cell of the 3 × 3 grid that holds the box's middle, as a phrase."""
    words = position_words(region.bbox)
    if words == ("center",):
        return "in the center of the image"
    if words in {("left",), ("right",)}:
        return f"on the {words[0]} side of the image"
    return f"in the {' '.join(words)} {'corner' if len(words) == 2 else 'part'} of the image"


def phrases(
    record: Record, looks: Sequence[Appearance | None], shown: Sequence[frozenset[str] | None] = ()
) -> list[str]:  # fmt: skip
    """Return a short expression for each region: size among its like, colour where it is sure, category, place.

    Where one fits another region as well ("a car on the right side" also a white one there), what tells them apart is
    added: its place counted from a side, else a neighbour. Where neither does, it stays as it is.

    Args:
        record: Boxes in shares of the image.
        looks: One per region; None says nothing of colours.
        shown: Colours that each region shows, to know which others a colour fits; empty without pixels.
    """
    plain = [_phrase(record, index, look) for index, look in enumerate(looks)]
    told = list(plain)
    for index in ambiguous(record, plain, shown):
        longer = (more(record, index, plain[index]) for more in (_ordered, _beside))
        clear = (text for text in longer if text and not any(True for _ in fitting(record, index, text, shown)))
        told[index] = next(clear, plain[index])
    again = Counter(told)  # two may have like neighbours
    return [new if again[new] == 1 else old for new, old in zip(told, plain, strict=True)]


def _phrase(record: Record, index: int, look: Appearance | None) -> str:
    region = record.regions[index]
    words = (size_word(record, index), look.colour if look else None, noun_of(region))
    return f"{one(' '.join(word for word in words if word))} {place(region)}"


def _ordered(record: Record, index: int, alone: str) -> str | None:
    """Count a region among its category from the nearest side where its rank is certain, at most the tenth."""
    region = record.regions[index]
    if region.category is None:
        return None
    rivals, found = matching_regions(region.category, record, besides=index), []
    for side, word in _SIDES.items():
        if rank := rank_from(vector_of(side), record, index, rivals):
            found.append((rank, side, word))
    rank, side, word = min(found, default=(0, "", ""), key=lambda item: item[0])
    if not rank or rank > len(ORDINALS) + 1:
        return None
    noun = noun_of(region)
    return f"the {word} {noun}, {alone}" if rank == 1 else f"{alone}, the {ORDINALS[rank - 2]} {noun} from the {side}"


def _beside(record: Record, index: int, alone: str) -> str | None:
    own = noun_of(record.regions[index])
    for relation in relations(record, index):
        if (noun := noun_of(record.regions[relation.other])) != own:
            return f"{alone}, {relation.word} {one(noun)}"
    return None


def description(record: Record, index: int, look: Appearance | None) -> str:
    """Return sentences on size, place, direction, neighbours and looks of a region."""
    region = record.regions[index]
    noun = noun_of(region)
    share = 100 * (region.bbox[2] - region.bbox[0]) * (region.bbox[3] - region.bbox[1])
    size = "less than 0.1" if share < 0.1 else f"about {share:.1f}" if share < 10 else f"about {share:.0f}"
    parts = [f"{one(noun)} {place(region)}, covering {size} percent of it"]
    if direction := orientation_word(region, record.width, record.height):
        parts.append(f"The {noun} is elongated and has a {direction} orientation")
    parts += _neighbours(record, index)
    if look:
        colour = f"mainly {look.colour}, " if look.colour else ""
        parts.append(f"Its surface is {colour}{_BRIGHTNESS[look.brightness]} and {look.texture}")
    return " ".join(sentence(part) for part in parts)


_BRIGHTNESS = {"dark": "dark", "medium": "of medium brightness", "bright": "bright"}


def _neighbours(record: Record, index: int) -> list[str]:
    """Say what lies beside a region: the nearest other category, and the nearest of its own."""
    own = noun_of(record.regions[index])
    found: dict[bool, str] = {}
    for relation in relations(record, index):
        noun = noun_of(record.regions[relation.other])
        same = noun == own
        if same not in found:
            found[same] = f"It is {relation.word} {f'another {noun}' if same else one(noun)}"
    return [found[same] for same in (False, True) if same in found]


def describe_regions(record: Record, image: NDArray[np.uint8] | None, *, overwrite: bool = False) -> Record:
    """Return the record with a phrase and a description for every region that lacks them.

    Args:
        record: Boxes in shares of the image.
        image: Its pixels (H, W, 3); without them nothing is said of colours.
        overwrite: Whether texts of people and of models are replaced too.
    """
    wanted = [
        [key for key in ("phrase", "description") if may_write(region, key, author=RULES, overwrite=overwrite)]
        for region in record.regions
    ]
    if not any(wanted):
        return record
    tint = None if image is None else tint_of(image)
    looks = [None if image is None else region_appearance(image, region, tint) for region in record.regions]
    shown = [] if image is None else [colours_shown(image, region, tint) for region in record.regions]
    short, regions = phrases(record, looks, shown), []
    for index, (region, keys) in enumerate(zip(record.regions, wanted, strict=True)):
        texts = {"phrase": short[index], "description": description(record, index, looks[index])}
        written: dict[str, Any] = {key: texts[key] for key in keys}
        regions.append(replace(region, **written, extra=signed(region, keys, RULES)) if keys else region)
    return replace(record, regions=tuple(regions))
