"""Figures that the papers print, as data; none of them was measured by us.

Each file of ``printed/`` is one published table. Figures that contradict others or cannot be are flagged: they are
shown with the reason and never count as best.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
FOLDER = Path(__file__).parent / "printed"


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of a published table holds."""

    key: str
    dataset: str
    """Id in the catalogue; empty for a mean over several sets."""
    metric: str
    task: str
    protocol: str
    sets: tuple[str, ...] = ()
    """What a mean is over; empty where that is not published."""
    n: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Sizes of the sample by unit; empty where they are not known."""
    n_is: str = "unknown"
    """``printed``, ``deduced`` from which percentages are possible, or ``unknown``."""
    unit: str = "%"
    better: str = "higher"


@dataclass(frozen=True, slots=True)
class Row:
    """One method's figures, in the order of the columns; None where nothing is printed."""

    method: str
    model: str
    values: tuple[float | None, ...]
    kind: str = ""

    @property
    def name(self) -> str:
        """Method and model."""
        return f"{self.method} {self.model}".strip()


@dataclass(frozen=True, slots=True)
class PrintedTable:
    """One published table."""

    id: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    flags: Mapping[tuple[str, str, str], str] = field(hash=False)
    """(method, model, column) → why the figure is doubtful."""
    notes: tuple[str, ...]

    def doubt(self, row: Row, column: Column) -> str | None:
        """Return why a figure is doubtful, or None."""
        return self.flags.get((row.method, row.model, column.key))

    def value(self, row: Row, key: str) -> float | None:
        """Return a row's figure in the column ``key``.

        Raises:
            KeyError: There is no such column.
        """
        for column, value in zip(self.columns, row.values, strict=True):
            if column.key == key:
                return value
        raise KeyError(key)


@functools.cache
def printed_tables() -> tuple[PrintedTable, ...]:
    """Return every published table, by id."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.json")))


def _read(path: Path) -> PrintedTable:
    """Read one file; whoever edits it learns at once what does not fit."""
    try:
        item: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if item["format"] != FORMAT or item["printed"] is not True or item["id"] != path.stem:
            raise ValueError("format, printed or id")
        common = {"unit": item["unit"], "better": item["better"]}
        columns = tuple(
            Column(**{**common, **column, "sets": tuple(column.get("sets", ()))}) for column in item["columns"]
        )
        rows = tuple(Row(**{**row, "values": tuple(row["values"])}) for row in item["rows"])
        flags = {(flag["method"], flag["model"], flag["column"]): str(flag["why"]) for flag in item["flags"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("is not a published table", path=path, measured=str(error)[:80]) from error
    cells = {(row.method, row.model, column.key) for row in rows for column in columns}
    wrong = [row.name for row in rows if len(row.values) != len(columns)] + [str(key) for key in flags.keys() - cells]
    if wrong or len({(row.method, row.model) for row in rows}) != len(rows):
        raise DataError("has rows or flags that do not fit its columns", path=path, measured=", ".join(wrong)[:120])
    return PrintedTable(item["id"], item["title"], item["source"], columns, rows, flags, tuple(item["notes"]))
