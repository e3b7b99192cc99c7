"""Charts as plain SVG and HTML: they take the page's colours, scale with it and need nothing else."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from training.evaluation.table_text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_BARS = 60
MOST_CELLS = 60
_WRITTEN = 12
"""Confusion matrices of up to so many classes have their counts written in."""
_WIDTH, _HEIGHT = 350, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 40


def bars(chart: Mapping[str, Any]) -> str:
    """Draw a bar for each class that has a value, with its interval as a whisker; the longest on top."""
    unit = str(chart.get("unit", "%"))
    rows = sorted((row for row in chart["rows"] if row.get("value") is not None), key=lambda row: -row["value"])
    without = len(chart["rows"]) - len(rows)
    said = f"<p class=no>{without:,} of {len(chart['rows']):,} classes have nothing to measure.</p>" if without else ""
    if not rows:
        return said
    left_out = max(len(rows) - MOST_BARS, 0)
    if left_out:
        rows = [*rows[: MOST_BARS // 2], *rows[-(MOST_BARS // 2) :]]
    most = _end(rows, 1.0 if unit == "share" else 100.0)
    counted = any(row.get("count") is not None for row in rows)
    lines = [_bar(row, unit, most, counted=counted) for row in rows]
    if left_out:
        lines.insert(MOST_BARS // 2, f"<tr><td class=no colspan=4>{left_out:,} in between</tr>")
    scale = "" if most in (1.0, 100.0) else f"bars end at {number(most, unit)}"
    head = f"<tr><th>class<th class=left><small>{scale}</small><th>{html.escape(unit)}"
    head += "<th>number" if counted else ""
    return f"<table class=bars>{head}{''.join(lines)}</table>{said}"


def _end(rows: Sequence[Mapping[str, Any]], full: float) -> float:
    """Return where bars end: less than the whole where all would be too short to see."""
    longest = max(float(row.get("high") or row["value"]) for row in rows)
    return longest if 0 < longest < full / 20 else full


def _bar(row: Mapping[str, Any], unit: str, most: float, *, counted: bool) -> str:
    value, low, high = float(row["value"]), row.get("low"), row.get("high")
    drawn = f'<i style="width:{_share(value, most)}%"></i>'
    if low is not None and high is not None:
        left, right = _share(low, most), _share(high, most)
        drawn += f'<b style="left:{left}%;width:{max(right - left, 0.4):.2f}%"></b>'
    count = f"<td>{int(row['count']):,}" if row.get("count") is not None else "<td>" if counted else ""
    name = html.escape(str(row["name"]))
    return f"<tr><td>{name}<td class=track><span>{drawn}</span><td>{number(value, unit)}{count}</tr>"


def _share(value: float, most: float) -> float:
    return round(100 * min(max(float(value) / most, 0.0), 1.0), 2)


def confusion(chart: Mapping[str, Any]) -> str:
    """Draw how often each true class got each answer, as shares of the row, and list the commonest mistakes."""
    classes, counts = [str(name) for name in chart["classes"]], chart["counts"]
    if len(counts) != len(classes) or any(len(row) != len(classes) for row in counts):
        raise ValueError("as many rows and columns as classes")
    wrong = sorted(
        ((int(times), truth, answer) for truth, row in enumerate(counts) for answer, times in enumerate(row)
         if truth != answer and times),
        reverse=True,
    )[:10]  # fmt: skip
    lines = [
        f"<tr><td>{html.escape(classes[truth])}<td class=left>{html.escape(classes[answer])}<td>{times:,}"
        f"<td>{100 * times / sum(counts[truth]):.0f} %</tr>"
        for times, truth, answer in wrong
    ]
    listed = "<p>No mistakes.</p>"
    if lines:
        listed = "<table><tr><th>truth<th class=left>answer<th>times<th>of the truth" + "".join(lines) + "</table>"
    grid, said = _matrix(classes, counts)
    return f"<div class=side>{grid}<div><h4>Commonest mistakes</h4>{listed}</div></div><p class=no>{said}</p>"


def _matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> tuple[str, str]:
    """Return the drawing, empty where there are too many classes, and a sentence below it."""
    shown = list(range(len(classes)))
    if len(shown) > MOST_CELLS:
        shown = [place for place in shown if any(counts[place]) or any(row[place] for row in counts)]
    if len(shown) > MOST_CELLS:
        return "", f"{len(shown):,} classes are too many for a matrix, which is drawn of up to {MOST_CELLS}."
    said = "A row is a true class, a column an answer; shades are shares of the row."
    if left_out := len(classes) - len(shown):
        said += f" {left_out:,} of {len(classes):,} classes are neither, and left out."
    return _grid(
        [classes[place] for place in shown], [[counts[row][column] for column in shown] for row in shown]
    ), said


def _grid(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw the matrix; names stand at both sides, turned above the columns."""
    size = len(classes)
    side = 34 if size <= _WRITTEN else max(9, 420 // size)
    names = max(min(max(map(len, classes)), 22), 5) * 6.2 + 10
    letters = f"font-size:{min(11, 0.95 * side):.1f}px"
    plain = "" if size <= _WRITTEN else " plain"
    parts = [
        (
            f'<svg class="matrix{plain}" viewBox="0 0 {names + size * side + 4:.0f} {names + size * side + 4:.0f}" '
            f'style="max-width:{names + size * side + 4:.0f}px" role=img aria-label="confusion matrix">'
        )
    ]
    for index, name in enumerate(classes):
        short = html.escape(name if len(name) <= 22 else f"{name[:21]}…")
        middle = names + (index + 0.5) * side
        base = middle + 0.35 * min(11, 0.95 * side)
        parts.append(
            f'<text x="{names - 5:.0f}" y="{base:.1f}" text-anchor="end" style="{letters}">{short}</text>'
            f'<text transform="translate({base:.1f} {names - 5:.0f}) rotate(-90)" style="{letters}">{short}</text>'
        )
    for truth, row in enumerate(counts):
        total = sum(row)
        for answer, times in enumerate(row):
            share = times / total if total else 0.0
            x, y = names + answer * side, names + truth * side
            kind = "hit" if truth == answer else "slip"
            title = html.escape(f"{classes[truth]} → {classes[answer]}: {times:,} of {total:,}")
            parts.append(
                f'<rect class={kind} x="{x:.1f}" y="{y:.1f}" width="{side - 1}" height="{side - 1}" '
                f'fill-opacity="{share:.3f}"><title>{title}</title></rect>'
            )
            if size <= _WRITTEN and times:
                bold = ' class="on"' if share > 0.65 else ""
                parts.append(
                    f'<text{bold} x="{x + side / 2 - 0.5:.1f}" y="{y + side / 2 + 4:.1f}" text-anchor="middle">'
                    f"{_short(times)}</text>"
                )
    return "".join([*parts, "</svg>"])


def _short(times: int) -> str:
    return f"{times}" if times < 10_000 else f"{times / 1000:.0f}k"


def curves(chart: Mapping[str, Any]) -> str:
    """Draw lines over common axes."""
    points = [(float(x), float(y)) for line in chart["lines"] for x, y in line["points"]]
    if not points:
        return "<p class=no>no points</p>"
    x_axis = _axis([x for x, _ in points])
    y_axis = _axis([*(y for _, y in points), 0.0])
    place = _placed(x_axis, y_axis)
    parts = [_frame(x_axis, y_axis, str(chart.get("x", "")), str(chart.get("y", "")))]
    for index, line in enumerate(chart["lines"]):
        path = " ".join("{:.1f},{:.1f}".format(*place(float(x), float(y))) for x, y in line["points"])
        parts.append(f'<polyline class="line c{index % 4}" points="{path}"/>')
    names = "".join(
        f"<span><i class=k{index % 4}></i>{html.escape(str(line['name']))}</span>"
        for index, line in enumerate(chart["lines"])
    )
    return f"{''.join(parts)}</svg><p class=legend>{names}</p>"


def reliability(chart: Mapping[str, Any]) -> str:
    """Draw precision over score; the dashed line is where both agree, a dot's size tells how many boxes it holds."""
    bins = [item for item in chart["bins"] if item.get("precision") is not None]
    unit = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    place = _placed(unit, unit)
    x1, y1 = place(0, 0)
    x2, y2 = place(1, 1)
    parts = [_frame(unit, unit, "score", "precision")]
    parts.append(f'<line class=ideal x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    path = " ".join("{:.1f},{:.1f}".format(*place(float(i["score"]), float(i["precision"]))) for i in bins)
    parts.append(f'<polyline class="line c0" points="{path}"/>')
    most = max((int(item["count"]) for item in bins), default=1)
    for item in bins:
        x, y = place(float(item["score"]), float(item["precision"]))
        radius = 2.5 + 5 * math.sqrt(int(item["count"]) / max(most, 1))
        title = f"score {item['score']:.3f}, precision {item['precision']:.3f}, {int(item['count']):,}"
        parts.append(f'<circle class=f0 cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{title}</title></circle>')
    error = chart.get("ece")
    said = "" if error is None else f"<p class=legend>expected calibration error {float(error):.4f}</p>"
    return f"{''.join(parts)}</svg>{said}"


def _axis(values: Sequence[float]) -> list[float]:
    """Return round marks from below the least to above the greatest value."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < len(values):
        raise ValueError("finite points")
    low, high = min(finite), max(finite)
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5.5)
    first = math.floor(low / step)
    return [round(index * step, 10) for index in range(first, math.ceil(high / step - 1e-9) + 1)] or [low, high]


def _placed(x_axis: Sequence[float], y_axis: Sequence[float]) -> Any:  # noqa: ANN401 - a local function
    """Return the function from values to places on the drawing."""
    x_span, y_span = (x_axis[-1] - x_axis[0]) or 1.0, (y_axis[-1] - y_axis[0]) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x_axis[0]) / x_span * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - y_axis[0]) / y_span * (_HEIGHT - _TOP - _BOTTOM)

    return place


def _frame(x_axis: Sequence[float], y_axis: Sequence[float], x_name: str, y_name: str) -> str:
    """Return the beginning of a drawing with its axes."""
    place = _placed(x_axis, y_axis)
    parts = [f'<svg class=chart viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img>']
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for mark in y_axis:
        _, y = place(x_axis[0], mark)
        parts.append(f'<line class=rule x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for mark in x_axis:
        x, _ = place(mark, y_axis[0])
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{mark:g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(x_name)}</text>')
    parts.append(
        f'<text transform="translate(12 {(bottom + _TOP) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_name)}</text>"
    )
    return "".join(parts)
