"""Curves of a run, drawn from its ``metrics.csv``: losses, rate and scales, collapse, validation."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from tiling.errors import UsageError
from tiling.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

Series = dict[str, tuple[list[int], list[float]]]
VALIDATION = "validation/"
"""What names of validation figures start with."""
LOSSES = (
    "loss", "image_text", "region", "hard_negative", "consistency", "textual", "distil", "category", "long", "short",
)  # fmt: skip
_COLOURS = (
    "#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c564b", "#5f6b6d",
)  # fmt: skip
"""Okabe and Ito's, which colour-blind readers tell apart; black is for the total."""
_POINTS = 100
"""Fewer points than these are drawn with markers."""


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return a run's metrics as columns and rows; a row that a killed process did not finish is left out.

    Raises:
        UsageError: The file is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            columns = list(reader.fieldnames or ())
            rows = [row for row in reader if (row.get("step") or "").isdigit() and (row.get("samples") or "").isdigit()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error
    if columns[:2] != ["step", "samples"]:
        raise _damaged(path, "its columns do not begin with step and samples")
    return columns, rows


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError("is damaged", path=path, measured=why, remedy="move this file away: a new one is begun")


def read_metrics(path: Path, *, by: str = "step") -> Series:
    """Return every column of a run's metrics as ``step`` or ``samples`` (images seen) and values, without empty cells.

    Raises:
        UsageError: The file is no such table.
    """
    series: Series = {}
    for row in read_rows(path)[1]:
        at = int(row[by])
        for name, text in row.items():
            if name not in ("step", "samples") and text:
                try:
                    value = float(text)
                except ValueError as error:
                    raise _damaged(path, f"{name} is {text[:20]!r} at step {row['step']}") from error
                places, values = series.setdefault(name, ([], []))
                places.append(at)
                values.append(value)
    return series


def draw_curves(metrics: Path, target: Path, *, title: str = "") -> Path:
    """Draw a run's curves as one PNG.

    Args:
        metrics: The run's ``metrics.csv``.
        target: The picture; one that is there is replaced.
        title: Above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = read_metrics(metrics, by="samples")  # steps begin anew where a run goes on with another batch
    figure = Figure(figsize=(12, 7.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss, rate, collapse, validation = figure.subplots(2, 2).ravel()
    _lines(
        loss, series, [name for name in LOSSES if name in series], "losses: the total with its weights, parts without"
    )
    _lines(rate, series, _scales(series), "logit scale")
    _rate(rate, series)
    monitors = [name for name in series if name.startswith(("collapse", "accuracy"))]
    _lines(collapse, series, monitors, "collapse: mean cosine of regions · accuracy within the batch")
    figures = [name for name in series if name.startswith(VALIDATION) and name.endswith(("_r1", "_top1"))]
    _lines(validation, series, figures, "validation, % right at rank 1", strip=VALIDATION)
    if title:
        figure.suptitle(title, fontsize=12)
    with atomic_file(target, overwrite=True) as temporary:
        figure.savefig(temporary)
    return target


def _scales(series: Mapping[str, object]) -> list[str]:
    return [name for name in series if name.startswith("scale")]


def _lines(axes: Axes, series: Series, names: Sequence[str], label: str, strip: str = "") -> None:
    axes.set_title(label, fontsize=10, loc="left")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("images seen", fontsize=9)
    for number, name in enumerate(names):
        steps, values = with_gaps(series, name)
        total = name == "loss"
        axes.plot(
            steps, values, label=name.removeprefix(strip), linewidth=2.0 if total else 1.2,
            color=_COLOURS[number % len(_COLOURS)], marker="o", markevery=_marked(values), markersize=2.5,
            linestyle="-" if number < len(_COLOURS) else "--",
        )  # fmt: skip
    if names:
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none", ncols=1 + len(names) // 8)
    else:
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color="#888888")


def with_gaps(series: Series, name: str) -> tuple[list[int], list[float]]:
    """Return a curve with NaN at the rows of training that did not measure it; validation has rows of its own."""
    places, values = series[name]
    if name.startswith(VALIDATION) or "loss" not in series:
        return places, values
    known = dict(zip(places, values, strict=True))
    every = sorted({*places, *series["loss"][0]})
    return every, [known.get(place, math.nan) for place in every]


def _marked(values: Sequence[float]) -> list[int]:
    """Return which points get a marker: all of a short curve, and those that no line reaches."""
    there = [False, *(not math.isnan(value) for value in values), False]
    short = len(values) < _POINTS
    return [
        place for place in range(len(values))
        if there[place + 1] and (short or not (there[place] or there[place + 2]))
    ]  # fmt: skip


def _rate(axes: Axes, series: Series) -> None:
    """Draw the learning rate on an axis of its own, for it is a million times smaller than a scale."""
    if "rate" not in series:
        return
    steps, values = series["rate"]
    right = axes.twinx()
    right.plot(steps, values, color="#5f6b6d", linestyle=":", linewidth=1.2)
    right.set_ylabel("learning rate (dotted)", fontsize=8, color="#5f6b6d")
    right.tick_params(labelsize=7, colors="#5f6b6d")
    top = max((value for value in values if math.isfinite(value)), default=0)
    right.set_ylim(0, 1.1 * top or 1)
    right.spines["top"].set_visible(False)
