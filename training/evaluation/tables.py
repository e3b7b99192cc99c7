"""Our figures beside the printed ones: one table for each protocol and data set.

Figures are comparable, and the best of a column is marked, only among rows of one protocol, one data set and one
sample. Printed figures that are doubtful are shown with the reason and are never the best. What was measured on
another sample than the printed figures, or on one whose size was never printed, says so in a note.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.evaluation.catalogue import dataset_id, dataset_title
from training.evaluation.departures import departures, told_apart
from training.evaluation.printed import Column, PrintedTable, printed_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from training.evaluation.result import Metric, Result

ALIASES = {
    "accuracy": "acc", "accuracytop1": "top1", "top1accuracy": "top1", "mapn": "mapnovel",
    "mapb": "mapbase", "mapall": "map", "i2tmeanr": "i2tmean", "t2imeanr": "t2imean",
}  # fmt: skip
"""Other spellings of a metric, without signs and capitals."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of a table."""

    value: float | None
    """In the column's unit; None where there is none."""
    low: float | None = None
    high: float | None = None
    note: int | None = None
    """Number of the note that says why it is doubtful."""
    best: bool = False


@dataclass(frozen=True, slots=True)
class TableRow:
    """One method."""

    name: str
    origin: str
    """``printed`` or ``measured``."""
    protocol: str
    cells: tuple[Cell, ...]
    sample: str
    """Rows of equal samples are comparable."""
    notes: tuple[int, ...] = ()
    """Numbers of the notes that belong to all of it."""


@dataclass(frozen=True, slots=True)
class Head:
    """A column's title and how its figures are written."""

    title: str
    unit: str = "%"
    better: str = "higher"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that may be compared, and what must be said of them."""

    title: str
    heads: tuple[Head, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    several_protocols: bool = False


def beside(results: Sequence[Result], *, mixed: bool = False) -> tuple[Table, ...]:
    """Lay results beside the printed figures of the same protocol and data set.

    Args:
        results: Ours, in any order.
        mixed: Whether one data set's protocols share a table; each row then names its protocol, a note says that
            they cannot be compared, and the best is marked within each.

    Returns:
        Tables in the order in which their data set and protocol first occur.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((dataset_id(result.dataset.name), result.protocol), []).append(result)
    tables = [_table(dataset, protocol, group) for (dataset, protocol), group in groups.items()]
    if not mixed:
        return tuple(tables)
    by_dataset: dict[str, list[Table]] = {}
    for (dataset, _), table in zip(groups, tables, strict=True):
        by_dataset.setdefault(dataset, []).append(table)
    return tuple(_merged(dataset_title(dataset), parts) for dataset, parts in by_dataset.items())


def published(table: PrintedTable) -> Table:
    """Return a printed table as it stands, doubtful figures with their reasons."""
    notes = _Notes()
    heads = tuple(
        Head(f"{dataset_title(column.dataset)} {column.metric}".strip(), column.unit, column.better)
        for column in table.columns
    )
    rows = [
        TableRow(
            row.name,
            "printed",
            "",
            tuple(
                Cell(value, note=notes.number(table.doubt(row, column)))
                for column, value in zip(table.columns, row.values, strict=True)
            ),
            "printed",
        )
        for row in table.rows
    ]
    said = (*notes.lines, *table.notes, f"Printed figures: {table.source}.")
    return Table(table.title, heads, _with_best(rows, heads), said)


def spelling(metric: str) -> str:
    """Return a metric's name without signs and capitals, the same for all its spellings."""
    plain = re.sub(r"[^a-z0-9]", "", metric.lower())
    return re.sub(r"[^a-z0-9]", "", ALIASES.get(plain, plain))


class _Notes:
    """Numbered notes; a reason that returns keeps its number."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def number(self, line: str | None) -> int | None:
        if line is None:
            return None
        if line not in self.lines:
            self.lines.append(line)
        return self.lines.index(line) + 1

    def again(self, table: Table, number: int | None) -> int | None:
        """Take over another table's note."""
        return None if number is None else self.number(table.notes[number - 1])


def _table(dataset: str, protocol: str, results: Sequence[Result]) -> Table:
    """One data set, one protocol."""
    sources = [
        (table, [column for column in table.columns if (column.dataset, column.protocol) == (dataset, protocol)])
        for table in printed_tables()
    ]
    sources = [(table, columns) for table, columns in sources if columns]
    first: dict[str, Column] = {}
    for _, columns in sources:
        for column in columns:
            first.setdefault(spelling(column.metric), column)
    heads = {key: Head(column.metric, column.unit, column.better) for key, column in first.items()}
    for result in results:
        for name, metric in result.metrics.items():
            heads.setdefault(spelling(name), Head(name, metric.unit, metric.better))
    notes = _Notes()
    rows = [row for table, columns in sources for row in _printed_rows(table, columns, heads, protocol, notes)]
    sizes = {number for column in first.values() for number in column.n.values()}
    names = told_apart(results)
    rows += [
        _measured_row(name, result, heads, sizes if first else None, notes)
        for name, result in zip(names, results, strict=True)
    ]
    said = [*notes.lines, *(note for table, _ in sources for note in table.notes)]
    said += [f"Printed figures: {table.source}." for table, _ in sources]
    other = {
        column.protocol for table in printed_tables() for column in table.columns if column.dataset == dataset
    } - {protocol}  # fmt: skip
    if other:
        said.append(f"Printed figures of {_listed(other)} are of another protocol and not shown.")
    title = f"{dataset_title(dataset)}, protocol {protocol}"
    return Table(title, tuple(heads.values()), _with_best(rows, tuple(heads.values())), tuple(dict.fromkeys(said)))


def _printed_rows(
    table: PrintedTable, columns: Sequence[Column], heads: dict[str, Head], protocol: str, notes: _Notes
) -> Iterable[TableRow]:
    """Rows of a published table that have a figure in one of the columns."""
    at = {spelling(column.metric): column for column in columns}
    for row in table.rows:
        cells = []
        for key in heads:
            column = at.get(key)
            value = None if column is None else table.value(row, column.key)
            doubt = None if column is None or value is None else table.doubt(row, column)
            cells.append(Cell(value, note=notes.number(doubt)))
        if any(cell.value is not None for cell in cells):
            yield TableRow(row.name, "printed", protocol, tuple(cells), "printed")


def _measured_row(name: str, result: Result, heads: dict[str, Head], sizes: set[int] | None, notes: _Notes) -> TableRow:
    """One of our results; ``sizes`` are the printed sample's, None where nothing is printed."""
    metrics = {spelling(name): metric for name, metric in result.metrics.items()}
    said = None if sizes is None else _why_not(result, sizes)
    sample = "printed" if sizes is not None and said is None else result.dataset.digest
    lines = ([] if said is None else [said]) + list(result.notes)
    marks = tuple(number for number in map(notes.number, lines) if number is not None)
    cells = tuple(_cell(metrics.get(key), head) for key, head in heads.items())
    return TableRow(name, "measured", result.protocol, cells, sample, marks)


def _why_not(result: Result, sizes: set[int]) -> str | None:
    """Return why a result cannot be compared with figures of a sample of these sizes, or None."""
    counts = ", ".join(f"{number:,} {unit.replace('_', ' ')}" for unit, number in result.dataset.counts.items())
    if not sizes:
        return f"Measured on {counts}; the printed sample is not known, so the figures are not compared."
    if not sizes <= set(result.dataset.counts.values()):
        there = " and ".join(f"{number:,}" for number in sorted(sizes))
        return f"Measured on {counts}; the printed figures are of {there}, so they are not compared."
    if changed := departures(result):
        return f"Not as the protocol says ({_listed(changed)}), so the figures are not compared."
    return None


def _cell(metric: Metric | None, head: Head) -> Cell:
    if metric is None or not math.isfinite(metric.value):
        return Cell(None)
    scale = {("share", "%"): 100.0, ("%", "share"): 0.01}.get((metric.unit, head.unit), 1.0)
    low, high = (None if end is None else end * scale for end in (metric.low, metric.high))
    return Cell(metric.value * scale, low, high)


def _with_best(rows: Sequence[TableRow], heads: Sequence[Head]) -> tuple[TableRow, ...]:
    """Mark the best of every column among rows of one protocol and sample, where there are at least two."""
    chosen: set[tuple[int, int]] = set()
    for column, head in enumerate(heads):
        groups: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for index, row in enumerate(rows):
            cell = row.cells[column]
            if cell.value is not None and cell.note is None:
                groups.setdefault((row.protocol, row.sample), []).append((cell.value, index))
        for values in groups.values():
            if len(values) > 1:
                best = (max if head.better == "higher" else min)(value for value, _ in values)
                chosen |= {(index, column) for value, index in values if value == best}
    return tuple(
        replace(
            row,
            cells=tuple(replace(cell, best=(index, column) in chosen) for column, cell in enumerate(row.cells)),
        )
        for index, row in enumerate(rows)
    )


def _merged(title: str, parts: Sequence[Table]) -> Table:
    """Several protocols in one table that says so."""
    if len(parts) == 1:
        return parts[0]
    heads: dict[str, Head] = {}
    for part in parts:
        for head in part.heads:
            heads.setdefault(spelling(head.title), head)
    notes = _Notes()
    rows = []
    for part in parts:
        keys = [spelling(head.title) for head in part.heads]
        for row in part.rows:
            cells = dict(zip(keys, row.cells, strict=True))
            moved = (cells.get(key, Cell(None)) for key in heads)
            renumbered = tuple(replace(cell, note=notes.again(part, cell.note)) for cell in moved)
            marks = tuple(number for mark in row.notes if (number := notes.again(part, mark)) is not None)
            rows.append(replace(row, cells=renumbered, notes=marks))
    protocols = {row.protocol for row in rows}
    said = [*notes.lines, f"Rows of {_listed(protocols)} are of different protocols and cannot be compared."]
    said += [note for part in parts for note in part.notes if not note.endswith("another protocol and not shown.")]
    return Table(title, tuple(heads.values()), tuple(rows), tuple(dict.fromkeys(said)), several_protocols=True)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ordered[0] if len(ordered) == 1 else f"{', '.join(ordered[:-1])} and {ordered[-1]}"
