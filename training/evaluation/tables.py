"""Our figures beside the printed ones: one table for each protocol and data set.

Figures are comparable, and the best of a column is marked, only among rows of one protocol, one data set and one
sample. Printed figures that are doubtful are shown with the reason and are never the best. What was measured on
another sample than the printed figures, or on one whose size was never printed, says so in a note. Where a mean over
several sets is printed, a table of its own has it beside ours.
"""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.evaluation.catalogue import catalogue, dataset_id, dataset_title
from training.evaluation.departures import DIGITS, departures, told_apart
from training.evaluation.printed import Column, PrintedTable, printed_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
        Tables in the order in which their data set and protocol first occur, then those of means.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        known = dataset_id(result.dataset.known_as)
        groups.setdefault((known, result.protocol), []).append(result)
    tables = [_table(dataset, protocol, group) for (dataset, protocol), group in groups.items()]
    means = _means(groups)
    if not mixed:
        return (*tables, *means)
    by_dataset: dict[str, list[Table]] = {}
    for (dataset, _), table in zip(groups, tables, strict=True):
        by_dataset.setdefault(dataset, []).append(table)
    return (*(_merged(dataset_title(dataset), parts) for dataset, parts in by_dataset.items()), *means)


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
    sources = _sources(dataset, protocol)
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
    sizes = _sizes(dataset, protocol)
    names = told_apart(results)
    several = len({result.dataset.digest for result in results}) > 1
    rows += [
        _measured_row(name, result, heads, sizes if first else None, notes, several_data=several)
        for name, result in zip(names, results, strict=True)
    ]
    said = [*notes.lines, *_of_sources(sources)]
    other = {
        column.protocol for table in printed_tables() for column in table.columns if column.dataset == dataset
    } - {protocol}  # fmt: skip
    if other:
        said.append(f"Printed figures of {_listed(other)} are of another protocol and not shown.")
    elif not sources and (sets := _printed_sets(results[0].task, protocol, dataset)):
        said.append(
            f"It is not known which data set this is. There are printed figures of {sets}: if it is one of them, "
            "measure again with --dataset ID."
        )
    elif not sources and any(entry.id == dataset for entry in catalogue()):
        said.append("There are no printed figures of this data set.")
    title = f"{dataset_title(dataset)}, protocol {protocol}"
    return Table(title, tuple(heads.values()), _with_best(rows, tuple(heads.values())), tuple(dict.fromkeys(said)))


def _sources(dataset: str, protocol: str) -> list[tuple[PrintedTable, list[Column]]]:
    """Return the published tables with figures of a data set, or of means where it is empty, and their columns."""
    found = [
        (table, [column for column in table.columns if (column.dataset, column.protocol) == (dataset, protocol)])
        for table in printed_tables()
    ]
    return [(table, columns) for table, columns in found if columns]


def _sizes(dataset: str, protocol: str) -> set[int]:
    """Return the sizes of the printed sample; none where they are not known."""
    columns = (column for _, columns in _sources(dataset, protocol) for column in columns)
    return {number for column in columns for number in column.n.values()}


def _of_sources(sources: Sequence[tuple[PrintedTable, list[Column]]]) -> list[str]:
    """Return the notes of published tables, and which ones they are."""
    notes = [note for table, _ in sources for note in table.notes]
    return notes + [f"Printed figures: {table.source}." for table, _ in sources]


def _means(groups: Mapping[tuple[str, str], Sequence[Result]]) -> list[Table]:
    """Lay the means of ours beside those that are printed, for every protocol with results of one of their sets."""
    tables = []
    for protocol in dict.fromkeys(protocol for _, protocol in groups):
        sources = _sources("", protocol)
        column = next((column for _, columns in sources for column in columns if column.sets), None)
        if column is None:
            continue
        mine = {name: groups[name, protocol] for name in column.sets if (name, protocol) in groups}
        if not mine:
            continue
        head, notes = Head(column.metric, column.unit, column.better), _Notes()
        heads = {spelling(column.metric): head}
        rows = [row for table, columns in sources for row in _printed_rows(table, columns, heads, protocol, notes)]
        rows += _mean_rows(mine, column, head, notes)
        tables.append(Table(
            f"Mean of {len(column.sets)} data sets, protocol {protocol}", (head,), _with_best(rows, (head,)),
            tuple(dict.fromkeys([*notes.lines, *_of_sources(sources)])),
        ))  # fmt: skip
    return tables


def _mean_rows(mine: Mapping[str, Sequence[Result]], column: Column, head: Head, notes: _Notes) -> list[TableRow]:
    """Return each model's mean over one result of every set, all measured alike; a note says what others lack."""
    models: dict[object, dict[object, dict[str, list[Result]]]] = {}
    for dataset, results in mine.items():
        for result in results:
            model = None if result.model is None else replace(result.model, device="")
            models.setdefault(model, {}).setdefault(_way(result), {}).setdefault(dataset, []).append(result)
    shown: list[tuple[dict[str, list[Result]], str]] = []
    for ways in models.values():
        whole = [parts for parts in ways.values() if not _lack([parts], column, head)]
        most = max(ways.values(), key=len)
        shown += [(parts, "") for parts in whole] or [(most, _lack(list(ways.values()), column, head))]
    rows: list[TableRow] = []
    lacking: list[str] = []
    names = told_apart([next(iter(parts.values()))[0] for parts, _ in shown])
    for name, (parts, lack) in zip(names, shown, strict=True):
        if lack:
            lacking.append(f"No mean of {name}: {lack}.")
        else:
            results = [parts[key][0] for key in column.sets]
            rows.append(_mean_row(name, results, [_value(result, column, head) for result in results], notes))
    for line in lacking:  # behind those that a row refers to
        notes.number(line)
    return rows


def _way(result: Result) -> object:
    """Return in what a result departs from its protocol: names and values; each set has files of its own."""
    return tuple((name, "" if name in result.files else str(result.settings.get(name))) for name in departures(result))


def _value(result: Result, column: Column, head: Head) -> float | None:
    return _cell(_metrics(result).get(spelling(column.metric)), head).value


def _lack(ways: Sequence[Mapping[str, Sequence[Result]]], column: Column, head: Head) -> str:
    """Return why results, given by how they were measured and by set, have no mean; nothing where they have one."""
    found = {
        key for parts in ways for key, results in parts.items()
        if any(_value(result, column, head) is not None for result in results)
    }  # fmt: skip
    if lost := [dataset_title(key) for key in column.sets if key not in found]:
        return f"there is no result of {_listed(lost)}"
    if twice := {dataset_title(key) for parts in ways for key, results in parts.items() if len(results) > 1}:
        return f"there are several results of {_listed(twice)}"
    return "its results differ in settings from set to set" if len(ways) > 1 else ""


def _mean_row(name: str, results: Sequence[Result], values: Sequence[float | None], notes: _Notes) -> TableRow:
    """Return one model's mean over every set, comparable if each of its results is."""
    apart = [
        dataset_title(result.dataset.known_as) for result in results
        if _why_not(result, _sizes(dataset_id(result.dataset.known_as), result.protocol))
    ]  # fmt: skip
    said = f"Not compared with printed means, as its figures of {_listed(apart)} are not; see there." if apart else None
    mark = notes.number(said)
    sample = _sample(results, apart=True) if apart else "printed"
    cell = Cell(statistics.fmean(value for value in values if value is not None))
    return TableRow(name, "measured", results[0].protocol, (cell,), sample, () if mark is None else (mark,))


def _printed_sets(task: str, protocol: str, dataset: str) -> str:
    """Return which sets of a task and protocol have printed figures; nothing where ``dataset`` is one of the task."""
    if any(entry.id == dataset and entry.of_task(task) for entry in catalogue()):
        return ""
    sets = {
        column.dataset for table in printed_tables() for column in table.columns
        if (column.task, column.protocol) == (task, protocol) and column.dataset
    }  # fmt: skip
    return f"{_listed(sets)} ({protocol})" if sets else ""


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


def _measured_row(
    name: str, result: Result, heads: dict[str, Head], sizes: set[int] | None, notes: _Notes, *, several_data: bool
) -> TableRow:
    """One of our results; ``sizes`` are the printed sample's, None where nothing is printed."""
    metrics = _metrics(result)
    said = () if sizes is None else _why_not(result, sizes)
    sample = "printed" if sizes is not None and not said else _sample([result], apart=bool(said))
    lines = [*said, *result.notes]
    if several_data:
        lines.insert(0, f"Data with the checksum {result.dataset.digest[:DIGITS]}; rows of another are of other data.")
    marks = tuple(number for number in map(notes.number, lines) if number is not None)
    cells = tuple(_cell(metrics.get(key), head) for key, head in heads.items())
    return TableRow(name, "measured", result.protocol, cells, sample, marks)


def _metrics(result: Result) -> dict[str, Metric]:
    return {spelling(name): metric for name, metric in result.metrics.items()}


def _why_not(result: Result, sizes: set[int]) -> tuple[str, ...]:
    """Return why a result cannot be compared with figures of a sample of these sizes; nothing where it can."""
    used = {unit.replace("_", " "): number for unit, number in result.dataset.counts.items() if number}
    counts = ", ".join(f"{number:,} {unit}" for unit, number in used.items())
    reasons = []
    if not sizes:
        reasons.append(f"Measured on {counts}; the printed sample is not known, so the figures are not compared.")
    elif not sizes <= set(result.dataset.counts.values()):
        there = " and ".join(f"{number:,}" for number in sorted(sizes))
        reasons.append(f"Measured on {counts}; the printed figures are of {there}, so they are not compared.")
    if changed := departures(result):
        reasons.append(f"Not as the protocol says ({_listed(changed)}), so the figures are not compared.")
    return tuple(reasons)


def _sample(results: Sequence[Result], *, apart: bool) -> str:
    """Return what ours must share to be compared: the data, and ``apart`` from the printed also what departs."""
    return " ".join(
        part for result in results for part in (result.dataset.digest, *(departures(result) if apart else ()))
    )


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
