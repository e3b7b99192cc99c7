"""What words of place say, and whether the boxes agree: the one definition for captions, negatives and checks.

A statement is judged true, false or open (None). Margins [D], in units of the image's width or height: a centre
more than 0.1 beyond the middle line is on that side; within 1/6 of the middle of both axes is central; the centres
of two regions must be 0.1 apart to be left of or above each other. Between true and false lies doubt, and only
false statements make hard negatives. North is taken to be up, as in north-up imagery.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from training.builder.lexicon import categories
from training.builder.statements import Statement, parse_statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.builder.lexicon import Vector
    from training.data.schema import Record, Region

__all__ = [
    "Relation", "Statement", "centre", "holds", "matching_regions", "orientation_word", "parse_statements",
    "position_words", "rank_from", "relations", "size_word",
]  # fmt: skip

SIDE = 0.1
"""Distance from the middle line, of the image's side, from which a side is certain."""
CENTRAL, NOT_CENTRAL = 1 / 6, 0.3
"""Distance from the middle up to which a centre is central, and from which it is not."""
APART = 0.1
"""Distance of two centres, of the image's side, from which one is left of (above) the other."""
LONG = 2.0
"""Long side over short side from which an upright box has a direction."""
LONG_OBB = 1.5
_AXIS_DEG = 20.0

LARGER = 2.0
"""Area over the median of the others of its category from which a region is large, and below whose inverse small."""
LINED_UP, RANKED = 0.02, 0.01
"""Distance of two centres along an axis from which one is the outermost, and from which they can be counted."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One region beside another."""

    word: str
    """left of, right of, above, below."""
    other: int
    """Number of the other region in the record."""
    distance: float
    """Between the centres, in units of the image's sides."""


def centre(bbox: tuple[float, float, float, float]) -> tuple[float, float]:
    """Return the middle (x, y) of a normalised box."""
    return (bbox[0] + bbox[2]) / 2, (bbox[1] + bbox[3]) / 2


def position_words(bbox: tuple[float, float, float, float]) -> tuple[str, ...]:
    """Name the cell of the 3 × 3 grid that holds the box's middle.

    Returns:
        ("upper" | "lower", "left" | "right"), one of them alone on an edge, or ("center",).
    """
    x, y = centre(bbox)
    vertical = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    horizontal = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return tuple(word for word in (vertical, horizontal) if word) or ("center",)


def size_word(record: Record, index: int) -> str | None:
    """Say whether a region is small or large among the others of its category, of which there are two or more."""

    def area(region: Region) -> float:
        return (region.bbox[2] - region.bbox[0]) * (region.bbox[3] - region.bbox[1])

    region = record.regions[index]
    others = [area(other) for i, other in enumerate(record.regions) if i != index and other.category == region.category]
    if region.category is None or len(others) < 2:
        return None
    ratio = area(region) / float(np.median(others))
    return "large" if ratio >= LARGER else "small" if ratio <= 1 / LARGER else None


def rank_from(vector: Vector, record: Record, index: int, rivals: list[int]) -> int | None:
    """Return a region's place among rivals, counted from a side; None where one is too near to tell."""
    axis = 0 if vector[0] else 1
    own, *others = (vector[axis] * centre(record.regions[i].bbox)[axis] for i in (index, *rivals))
    if any(abs(own - other) <= RANKED for other in others):
        return None
    return 1 + sum(other > own for other in others)


def orientation_word(region: Region, width: int | None, height: int | None) -> str | None:
    """Name the direction of a long region: horizontal, vertical, diagonal; None for a compact one.

    An oriented box decides when there is one (sides at least 3:2), else the upright box (2:1). An upright box says
    nothing about diagonals.

    Args:
        region: The region.
        width: Of the image in pixels; None takes a square image.
        height: Of the image in pixels.
    """
    w, h = (width, height) if width and height else (1, 1)
    if region.obb is None:
        box_w, box_h = (region.bbox[2] - region.bbox[0]) * w, (region.bbox[3] - region.bbox[1]) * h
        if box_w >= LONG * box_h > 0:
            return "horizontal"
        return "vertical" if box_h >= LONG * box_w > 0 else None
    corners = np.asarray(region.obb, dtype=np.float64).reshape(4, 2) * (w, h)
    sides = corners[1:3] - corners[:2]
    lengths = np.hypot(*sides.T)
    if min(lengths) <= 0 or max(lengths) < LONG_OBB * min(lengths):
        return None
    dx, dy = sides[int(np.argmax(lengths))]
    angle = math.degrees(math.atan2(abs(dy), abs(dx)))
    return "horizontal" if angle <= _AXIS_DEG else "vertical" if angle >= 90 - _AXIS_DEG else "diagonal"


def relations(record: Record, index: int) -> Iterator[Relation]:
    """Yield the relations of one region to every other that are certain, nearest first."""
    x, y = centre(record.regions[index].bbox)
    found = []
    for other, region in enumerate(record.regions):
        ox, oy = centre(region.bbox)
        dx, dy = ox - x, oy - y
        distance = math.hypot(dx, dy)
        if other != index and max(abs(dx), abs(dy)) > APART:
            if abs(dx) >= abs(dy):
                found.append(Relation("left of" if dx > 0 else "right of", other, distance))
            else:
                found.append(Relation("above" if dy > 0 else "below", other, distance))
    yield from sorted(found, key=lambda item: (item.distance, item.other))


def matching_regions(noun: str, record: Record, *, besides: int | None = None) -> list[int]:
    """Return the numbers of the regions whose category or phrase names what ``noun`` names."""
    found = categories().head(noun)
    wanted = found[0] if found else noun.lower()
    meant = {wanted, *categories().kinds.get(wanted, ())}
    names = (_class(region.category or region.phrase or "") for region in record.regions)
    return [i for i, name in enumerate(names) if i != besides and name in meant]


@lru_cache(maxsize=4096)
def _class(name: str) -> str:
    """Return the class that a category or phrase names; its own words for a stranger."""
    table = categories()
    return table.of(name) or (table.head(name) or (name.lower(), 0, 0))[0]


def holds(statement: Statement, record: Record, region_index: int | None) -> bool | None:
    """Judge a statement about a region by the boxes.

    Args:
        statement: From :func:`parse_statements`.
        record: The record with its boxes.
        region_index: The region that the text is about; None where it is about the whole image, which leaves
            statements without a subject open.

    Returns:
        True, False, or None when the boxes do not decide (within a margin, or of things without a box).
    """
    if region_index is None:
        subjects = matching_regions(statement.subject, record) if statement.subject else []
        return _any([holds(statement, record, index) for index in subjects])
    region = record.regions[region_index]
    match statement.kind:
        case "position":
            return _position(statement.vector, centre(region.bbox))
        case "axis":
            word = orientation_word(region, record.width, record.height)
            decided = word is not None and (region.obb is not None or statement.axis != "diagonal")
            return word == statement.axis if decided else None
        case "extreme":
            return _extreme(statement, record, region_index)
        case _:
            others = matching_regions(statement.other or "", record, besides=region_index)
            return _any([_beside(statement.vector, region, record.regions[other]) for other in others])


def _any(verdicts: list[bool | None]) -> bool | None:
    """Whether one of several is meant: true when it holds for one, false when for none, open when there is none."""
    return True if True in verdicts else None if None in verdicts or not verdicts else False


def _all(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _position(vector: Vector, point: tuple[float, float]) -> bool | None:
    if vector == (0, 0):
        off = max(abs(point[0] - 0.5), abs(point[1] - 0.5))
        return True if off <= CENTRAL else False if off > NOT_CENTRAL else None
    return _all([_signed(sign * (value - 0.5), SIDE) for sign, value in zip(vector, point, strict=True) if sign])


def _signed(value: float, margin: float) -> bool | None:
    return True if value > margin else False if value < -margin else None


def _beside(vector: Vector, region: Region, other: Region) -> bool | None:
    here, there = centre(region.bbox), centre(other.bbox)
    if vector == (0, 0):
        left, top, right, bottom = other.bbox
        inside = left <= here[0] <= right and top <= here[1] <= bottom
        return None if inside else False
    return _all([_signed(sign * (a - b), APART) for sign, a, b in zip(vector, here, there, strict=True) if sign])


def _extreme(statement: Statement, record: Record, index: int) -> bool | None:
    """Whether a region has its place among those of its category; one within the margin leaves it open."""
    region = record.regions[index]
    rivals = matching_regions(region.category or region.phrase or "", record, besides=index)
    if not rivals:
        return None
    if statement.rank > 1:
        rank = rank_from(statement.vector, record, index, rivals)
        return None if rank is None else rank == statement.rank
    axis = 0 if statement.vector[0] else 1
    sign = statement.vector[axis]
    own = sign * centre(region.bbox)[axis]
    return _signed(own - max(sign * centre(record.regions[other].bbox)[axis] for other in rivals), LINED_UP)
