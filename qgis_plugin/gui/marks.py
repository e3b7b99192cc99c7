"""What the user said is right or wrong, and how to take it back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgis.core import QgsGeometry, QgsRectangle

from ..layers.area import geojson, geometry_of

if TYPE_CHECKING:
    from qgis.core import QgsPointXY

    from ..layers.project import Question

_SAME = 0.5
"""Boxes with this intersection over union are the same match, before and after a refit."""

Places = tuple[dict[str, Any], ...]


class Marks:
    """The examples of one question, with undo."""

    def __init__(self, question: Question) -> None:
        self.include: Places = tuple(question.include)
        self.exclude: Places = tuple(question.exclude)
        self._past: list[tuple[Places, Places]] = []
        self._needed = 0 if question.text else 1
        """A question without words needs an example."""

    @property
    def can_undo(self) -> bool:
        """Whether there is a mark to take back."""
        return bool(self._past or self.exclude or len(self.include) > self._needed)

    def verdict_at(self, point: QgsPointXY) -> str:
        """Return ``yes``, ``no`` or nothing: what was said of this place."""
        place = QgsGeometry.fromPointXY(point)
        if any(geometry_of(item).intersects(place) for item in self.exclude):
            return "no"
        return "yes" if any(geometry_of(item).intersects(place) for item in self.include) else ""

    def verdict_of(self, match: QgsGeometry) -> str:
        """Return what was said of a match: of a place with about the same extent, not of a spot inside it."""
        box = match.boundingBox()
        if any(_overlap(geometry_of(item).boundingBox(), box) > _SAME for item in self.exclude):
            return "no"
        return "yes" if any(_overlap(geometry_of(item).boundingBox(), box) > _SAME for item in self.include) else ""

    def mark(self, geometry: QgsGeometry, verdict: str) -> None:
        """Say that a place is right (``yes``), wrong (``no``), or take back what was said of it."""
        self._past.append((self.include, self.exclude))
        self.include, self.exclude = (
            tuple(item for item in items if not _is_there(geometry_of(item), geometry))
            for items in (self.include, self.exclude)
        )
        if verdict == "yes":
            self.include += (geojson(geometry),)
        elif verdict == "no":
            self.exclude += (geojson(geometry),)

    def undo(self) -> bool:
        """Take the last mark back; of an earlier session's, whose order is not known, the wrong ones first."""
        if self._past:
            self.include, self.exclude = self._past.pop()
        elif self.exclude:
            self.exclude = self.exclude[:-1]
        elif len(self.include) > self._needed:
            self.include = self.include[:-1]
        else:
            return False
        return True

    def applied(self, question: Question) -> Question:
        """Return the question with these examples."""
        return replace(question, include=self.include, exclude=self.exclude)


def _is_there(marked: QgsGeometry, place: QgsGeometry) -> bool:
    """Whether a mark is about a place: about the same extent, or around its middle."""
    return _overlap(marked.boundingBox(), place.boundingBox()) > _SAME or marked.intersects(place.pointOnSurface())


def _overlap(first: QgsRectangle, second: QgsRectangle) -> float:
    """Return the intersection over union of two boxes."""
    common = first.intersect(second).area()
    return common / max(first.area() + second.area() - common, 1e-12)
