"""The values that travel between the panel and its controller (no Qt)."""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD_MIN = 10
THRESHOLD_MAX = 95
THRESHOLD_STEP = 5


def snap_threshold(percent: float) -> int:
    """Return the nearest threshold the engine has prepared: 10, 15, … 95 percent."""
    step = round(percent / THRESHOLD_STEP) * THRESHOLD_STEP
    return max(THRESHOLD_MIN, min(THRESHOLD_MAX, step))


@dataclass(frozen=True)
class SearchOptions:
    """How to look at the image.

    Attributes:
        gsd_m: Ground resolution in metres per pixel, None for the model's own.
        bands: The three bands shown as red, green and blue (1-based), None for the layer's.
        stretch_as_shown: Brighten the image as the layer shows it on the canvas.
        avoid: Words that lower the match.
        model: Name of the model, "" for the default.
        device: Name of the device, "" for the best one.
        min_area_m2: Matches smaller than this are left out.
    """

    gsd_m: float | None = None
    bands: tuple[int, ...] | None = None
    stretch_as_shown: bool = True
    avoid: tuple[str, ...] = ()
    model: str = ""
    device: str = ""
    min_area_m2: float = 0.0


@dataclass(frozen=True)
class Row:
    """One match in the list; the verdict is "yes", "no" or ""."""

    id: int
    score: float
    place: str
    verdict: str = ""


@dataclass(frozen=True)
class Results:
    """What the result block shows: rows may hold fewer matches than `count`."""

    rows: tuple[Row, ...] = ()
    count: int = 0
    histogram: tuple[int, ...] = ()
    threshold_pct: int = 55
