"""The page: a summary of all results, then each with its figures, what was printed, charts and pictures."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from tiling.files import atomic_file, write_error
from tiling.progress import CancelToken, silent
from training.data.errors import DataError
from training.evaluation.catalogue import dataset_title
from training.evaluation.registry import HEADLINES
from training.evaluation.report import charts
from training.evaluation.report.pictures import Album, retrievals, scenes
from training.evaluation.report.style import STYLE
from training.evaluation.result import Result, read_result
from training.evaluation.table_text import noted, number, spoken, titled
from training.evaluation.tables import Cell, Table, beside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tiling.progress import Progress
    from training.evaluation.result import Metric

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is fetched and nothing runs, whatever a caption holds."""


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    overwrite: bool = True,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Path:
    """Write one page from results.

    Args:
        paths: Files that ``geoalign-eval`` wrote.
        out: The page's file.
        overwrite: Whether a page that is there may be replaced.
        progress: Told after each result.
        cancel: Looked at before each result.

    Raises:
        DataError: There is none, or a file is not a result.
        OutputExistsError: The page is there and ``overwrite`` is false.
        OutputWriteError: The disk is full or refuses.
    """
    if not paths:
        raise DataError("no results to report", remedy="give files that geoalign-eval wrote with -o")
    results = [(path, read_result(path)) for path in paths]
    sections = []
    for done, (path, result) in enumerate(results, start=1):
        if cancel is not None:
            cancel.check()
        sections.append(_section(done, path.stem, result, Album(path.absolute().parent)))
        progress(done, len(results), "drawing results")
    page = _page(results, beside([result for _, result in results]), sections)
    with atomic_file(out, overwrite=overwrite) as temporary:
        try:
            temporary.write_text(page, encoding="utf-8")
        except OSError as error:
            raise write_error(out, error) from error
    return out


def _page(results: Sequence[tuple[Path, Result]], tables: Sequence[Table], sections: Sequence[str]) -> str:
    models = sorted({result.model.name for _, result in results if result.model is not None})
    title = f"Evaluation of {', '.join(models)}" if models else "Evaluation"
    return "".join([
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>", _summary(results), *sections,
        _comparisons(tables, [result for _, result in results]), "</html>\n",
    ])  # fmt: skip


def _summary(results: Sequence[tuple[Path, Result]]) -> str:
    rows = []
    for index, (path, result) in enumerate(results, start=1):
        whole = HEADLINES.get(result.task, "")
        name = whole if whole in result.metrics else next(iter(result.metrics), "")
        metric = result.metrics.get(name)
        shown, ends = ("", "") if metric is None else (_figure(metric), f"<small>{_ends(metric)}</small>")
        title = "" if metric is None else html.escape(spoken(name)) + _lower(metric.better)
        cells = (dataset_title(result.dataset.known_as), result.protocol, result.subject)
        rows.append(
            f'<tr><td><a href="#r{index}">{html.escape(path.stem)}</a><td class=left>{html.escape(result.task)}'
            + "".join(f"<td class=left>{html.escape(cell)}" for cell in cells)
            + f"<td class=left>{title}<td>{shown}<td class=left>{ends}</tr>"
        )
    heads = "<tr><th>result" + "".join(f"<th class=left>{head}" for head in ("task", "data set", "protocol", "model"))
    heads += "<th class=left>figure<th><th class=left>95 % interval</tr>"
    return f"<div class=wrap><table>{heads}{''.join(rows)}</table></div>"


def _section(index: int, name: str, result: Result, album: Album) -> str:
    title = f"{result.task.capitalize()}, {dataset_title(result.dataset.known_as)}: {name}"
    notes = "".join(f"<li>{html.escape(note)}" for note in result.notes)
    parts = [f'<h2 id="r{index}">{html.escape(title)}</h2>', _facts(result), _figures(result.metrics)]
    if notes:
        parts.append(f"<ul class=notes>{notes}</ul>")
    details = result.details
    parts += [
        _drawn(details, "confusion", "Confusion", charts.confusion),
        _drawn(details, "per_class", "By class", lambda items: "".join(map(_titled(charts.bars), items))),
        _drawn(details, "curves", "Curves", lambda items: _plots(items, charts.curves)),
        _drawn(details, "reliability", "Reliability of the score", lambda items: _plots(items, charts.reliability)),
        _drawn(details, "pictures", "Pictures", lambda items: scenes(items, album)),
        _drawn(details, "retrievals", "Retrievals", lambda items: retrievals(items, album)),
    ]
    return "".join(parts)


def _drawn(details: Mapping[str, Any], key: str, title: str, draw: Callable[[Any], str]) -> str:
    """Draw one of the details; one that is not as described says so and leaves the rest of the page alone."""
    if not details.get(key):
        return ""
    try:
        body = draw(details[key])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        reason = html.escape(f"{type(error).__name__}: {error}"[:120])
        body = (
            f"<p class=no>The details under <code>{key}</code> are not as described and cannot be drawn ({reason}).</p>"
        )
    return f"<h3>{title}</h3>{body}"


def _titled(draw: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], str]:
    return lambda item: f"<h4>{html.escape(str(item['title']))}</h4>{draw(item)}"


def _plots(items: Sequence[Mapping[str, Any]], draw: Callable[[Mapping[str, Any]], str]) -> str:
    body = "".join(
        f"<figure><figcaption>{html.escape(str(item['title']))}</figcaption>{draw(item)}</figure>" for item in items
    )
    return f"<div class=plots>{body}</div>"


def _facts(result: Result) -> str:
    """Everything that decides the figures."""
    counts = ", ".join(f"{count:,} {unit.replace('_', ' ')}" for unit, count in result.dataset.counts.items() if count)
    facts = [f"protocol {result.protocol}", counts, f"data {result.dataset.digest[:16]}"]
    if result.model is not None:
        facts += [f"model {result.model.name}", f"key {result.model.key[:16]}", result.model.precision]
        facts += [result.model.device, *([f"dense mode {result.model.dense_mode}"] if result.model.dense_mode else [])]
        some = result.model.templates[:2]
        more = f" and {len(result.model.templates) - 2} more" if len(result.model.templates) > 2 else ""
        facts += [f"templates {' | '.join(some)}{more}"] if some else []
    told = () if result.model is None else ("template", "templates", "dense_mode")
    facts += [_setting(name, value) for name, value in result.settings.items() if name not in told]
    facts += [f"{name} file {digest[:16]}" for name, digest in result.files.items()]
    facts += [f"geoalign-eval {result.version}"] if result.version else []
    if result.seconds:
        facts.append(", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items()))
    return f"<p class=facts>{html.escape(' · '.join(fact for fact in facts if fact))}</p>"


def _setting(name: str, value: object) -> str:
    """Return a setting in words; nothing for one that is not set."""
    said = _words(value)
    stem, _, unit = name.rpartition("_")
    if unit in ("px", "m") and stem:
        name, said = stem, f"{said} {unit}" if said else ""
    return f"{name.replace('_', ' ')} {said}" if said else ""


def _words(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figures(metrics: Mapping[str, Metric]) -> str:
    """Figures with their intervals; what is per cent or a share is also drawn."""
    rows = "".join(
        f"<tr><td>{html.escape(spoken(name))}{_lower(metric.better)}<td>{_figure(metric)}"
        f"<td class=left><small>{_ends(metric)}</small><td>{_span(metric)}</tr>"
        for name, metric in metrics.items()
    )
    heads = "<tr><th>figure<th>value<th class=left colspan=2>95 % interval</tr>"
    return f"<div class=wrap><table>{heads}{rows}</table></div>"


def _figure(metric: Metric) -> str:
    if not math.isfinite(metric.value):
        return "–"
    unit = f"\u00a0{metric.unit}" if metric.unit in ("%", "m") else ""
    return f"{number(metric.value, metric.unit)}{html.escape(unit)}"


def _ends(metric: Metric) -> str:
    if metric.low is None or metric.high is None or not math.isfinite(metric.value):
        return ""
    return f"{number(metric.low, metric.unit)} to {number(metric.high, metric.unit)}"


def _lower(better: str) -> str:
    return ' <span title="lower is better">↓</span>' if better == "lower" else ""


def _span(metric: Metric) -> str:
    most = 100.0 if metric.unit == "%" else 1.0
    if metric.unit not in ("%", "share", "") or not 0 <= metric.value <= most:
        return ""
    place = 100 * metric.value / most
    drawn = ""
    if metric.low is not None and metric.high is not None:
        left, right = max(100 * metric.low / most, 0.0), min(100 * metric.high / most, 100.0)
        drawn = f'<i style="left:{left:.2f}%;width:{max(right - left, 0.3):.2f}%"></i>'
    return f'<span class=span>{drawn}<b style="left:calc({place:.2f}% - 1px)"></b></span>'


def _comparisons(tables: Sequence[Table], results: Sequence[Result]) -> str:
    """Ours beside what was printed; then among themselves; last what can be compared with nothing."""
    printed = [table for table in tables if any(row.origin == "printed" for row in table.rows)]
    ours = [table for table in tables if table not in printed and len(table.rows) > 1]
    alone = [table for table in tables if table not in printed and table not in ours]
    said = "The best of a column is bold, among rows of one sample only. ↓: lower is better."
    parts = []
    if printed:
        parts += ["<h2>Beside the printed figures</h2>", f"<p class=no>{said} Doubtful figures are never the best.</p>"]
        parts += map(_beside, printed)
    if ours:
        parts += ["<h2>Side by side</h2>", f"<p class=no>{said}</p>", *map(_beside, ours)]
    if alone:
        told = {note for result in results for note in result.notes}
        lines = [table.title for table in alone]
        lines += dict.fromkeys(note for table in alone for note in table.notes if note not in told)
        listed = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        parts.append(f"<h2>Without printed figures</h2><ul class=notes>{listed}</ul>")
    return "".join(parts)


def _beside(table: Table) -> str:
    protocol = "<th class=left>protocol" if table.several_protocols else ""
    titles = (html.escape(titled(head)).replace(", ", ",&nbsp;") for head in table.heads)
    heads = "".join(f"<th>{title}{_lower(head.better)}" for title, head in zip(titles, table.heads, strict=True))
    rows = "".join(
        f"<tr class={row.origin}><td>{html.escape(row.name)}{_raised(*row.notes)}<td class=left>{row.origin}"
        + (f"<td class=left>{html.escape(row.protocol)}" if protocol else "")
        + "".join(f"<td>{_cell(cell, head.unit)}" for cell, head in zip(row.cells, table.heads, strict=True))
        + "</tr>"
        for row in table.rows
    )
    numbered, others = ("".join(f"<li>{html.escape(note)}" for note in notes) for notes in noted(table))
    lists = (f"<ol class=notes>{numbered}</ol>" if numbered else "") + (
        f"<ul class=notes>{others}</ul>" if others else ""
    )
    return (
        f"<h3>{html.escape(table.title)}</h3><div class=wrap><table class=beside><tr><th>method<th class=left>figures"
        f"{protocol}{heads}</tr>{rows}</table></div>{lists}"
    )


def _cell(cell: Cell, unit: str) -> str:
    if cell.value is None:
        return "–"
    text = number(cell.value, unit)
    text = f"<strong>{text}</strong>" if cell.best else text
    if cell.low is not None and cell.high is not None:
        text += f"<br><small>{number(cell.low, unit)} to&nbsp;{number(cell.high, unit)}</small>"
    return text + ("" if cell.note is None else _raised(cell.note))


def _raised(*notes: int) -> str:
    return f"<sup>{','.join(map(str, notes))}</sup>" if notes else ""
