"""Tables as Markdown and as LaTeX (package booktabs)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from training.evaluation.tables import Cell, Head, Table

_DIGITS = {"%": 2, "m": 2}
_RAISED, _TEX_RAISED = " <sup>{}</sup>", r"\textsuperscript{{{}}}"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
    "≠": r"$\neq$", "→": r"$\to$", "−": "--", "–": "--",
}  # fmt: skip
"""Brackets too: one that follows a line's end would be taken for its option."""


_PARTS = {
    "i2t": "I2T", "t2i": "T2I", "r@": "R@", "acc@": "Acc@", "mr": "mR", "map": "mAP", "miou": "mIoU", "top1": "top-1",
    "top5": "top-5", "pr@": "Pr@", "iou": "IoU", "macc": "mAcc", "fwiou": "fwIoU",
    "rsu": "Rsu", "ras": "Ras", "rda": "Rda", "rmi": "Rmi",
}  # fmt: skip
_SPOKEN = re.compile(rf"(?<![a-z])(?:{'|'.join(_PARTS)})(?![a-z])")


def markdown(tables: Sequence[Table]) -> str:
    """Write tables for a page; names with signs of Markdown or HTML come out as they are."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def latex(tables: Sequence[Table]) -> str:
    r"""Write tables for a paper; it needs ``\usepackage{booktabs}``."""
    return "\n\n".join(_latex(table) for table in tables) + "\n"


def number(value: float, unit: str) -> str:
    """Write a figure with its unit's digits: two after the point for per cent and metres, four for all else."""
    return f"{value:.{_DIGITS.get(unit, 4)}f}"


def spoken(metric: str) -> str:
    """Return a metric as papers write it: ``i2t_r@1`` is I2T R@1."""
    return _SPOKEN.sub(lambda part: _PARTS[part[0]], metric).replace("_", " ")


def titled(head: Head) -> str:
    """Return a column's title with its unit."""
    return spoken(head.title) + (f", {head.unit}" if head.unit in ("%", "m") else "")


def heading(head: Head) -> str:
    """Return a column's title with its unit, and with the direction where lower is better."""
    return titled(head) + (" (lower is better)" if head.better == "lower" else "")


def noted(table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the notes that rows and cells refer to by number, and those that belong to the whole table."""
    marks = {mark for row in table.rows for mark in (*row.notes, *(cell.note for cell in row.cells if cell.note))}
    count = max(marks, default=0)
    return table.notes[:count], table.notes[count:]


def _grid(
    table: Table, escaped: Callable[[str], str], cell_text: Callable[[Cell, str], str], raised: str
) -> tuple[list[str], list[list[str]]]:
    """Return the titles and the cells of every row, ready to be joined; ``raised`` is how notes' numbers are set."""
    protocol = ["Protocol"] if table.several_protocols else []
    titles = ["Method", "Figures", *protocol, *(escaped(heading(head)) for head in table.heads)]
    rows = []
    for row in table.rows:
        mark = raised.format(",".join(map(str, row.notes))) if row.notes else ""
        named = [escaped(row.name) + mark, row.origin] + ([escaped(row.protocol)] if protocol else [])
        rows.append(named + [cell_text(cell, head.unit) for cell, head in zip(row.cells, table.heads, strict=True)])
    return titles, rows


def _markdown(table: Table) -> str:
    titles, rows = _grid(table, _plain, _markdown_cell, _RAISED)
    texts = len(titles) - len(table.heads)
    rule = ["---"] * texts + ["---:"] * len(table.heads)
    lines = [f"**{_plain(table.title)}**", ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in (titles, rule, *rows)]
    numbered, others = noted(table)
    lines += ["", *(f"{index}. {_plain(note)}" for index, note in enumerate(numbered, start=1))] if numbered else []
    lines += ["", *(f"- {_plain(note)}" for note in others)] if others else []
    return "\n".join(lines)


def _markdown_cell(cell: Cell, unit: str) -> str:
    if cell.value is None:
        return "–"
    text = number(cell.value, unit)
    text = f"**{text}**" if cell.best else text
    if cell.low is not None and cell.high is not None:
        text += f" ({number(cell.low, unit)} to {number(cell.high, unit)})"
    return text + (_RAISED.format(cell.note) if cell.note else "")


def _latex(table: Table) -> str:
    titles, rows = _grid(table, _tex, _latex_cell, _TEX_RAISED)
    texts = len(titles) - len(table.heads)
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{_tex(table.title)}}}",
        rf"\begin{{tabular}}{{{'l' * texts}{'r' * len(table.heads)}}}", r"\toprule", " & ".join(titles) + r" \\",
        r"\midrule",
    ]  # fmt: skip
    last = table.rows[0].origin if table.rows else ""
    for row, cells in zip(table.rows, rows, strict=True):
        if row.origin != last:
            lines.append(r"\midrule")
        last = row.origin
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    numbered, others = noted(table)
    if notes := [*(rf"\textsuperscript{{{index}}}\,{_tex(note)}" for index, note in enumerate(numbered, 1)),
                 *map(_tex, others)]:  # fmt: skip
        lines += ["", rf"\smallskip\footnotesize {' '.join(notes)}"]
    return "\n".join([*lines, r"\end{table}"])


def _latex_cell(cell: Cell, unit: str) -> str:
    if cell.value is None:
        return "--"
    text = number(cell.value, unit)
    text = rf"\textbf{{{text}}}" if cell.best else text
    if cell.low is not None and cell.high is not None:
        text += rf" {{\scriptsize {number(cell.low, unit)}--{number(cell.high, unit)}}}"
    return text + (_TEX_RAISED.format(cell.note) if cell.note else "")


def _plain(text: str) -> str:
    """Return a text that neither Markdown nor the HTML made of it takes for a sign."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", text)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
