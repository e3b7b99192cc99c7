"""The page: a summary of all results, then each with its figures, what was printed, charts and pictures."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from tiling.files import atomic_file, write_error
from tiling.progress import CancelToken, silent
from training.data.errors import DataError
from training.evaluation.catalogue import dataset_title
from training.evaluation.report import charts
from training.evaluation.report.pictures import Album, retrievals, scenes
from training.evaluation.report.style import STYLE
from training.evaluation.result import Result, read_result
from training.evaluation.table_text import heading, number
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
        sections.append(_section(done, result, Album(path.absolute().parent)))
        progress(done, len(results), "drawing results")
    tables = beside([result for _, result in results])
    page = _page([result for _, result in results], tables, sections)
    with atomic_file(out, overwrite=overwrite) as temporary:
        try:
            temporary.write_text(page, encoding="utf-8")
        except OSError as error:
            raise write_error(out, error) from error
    return out


def _page(results: Sequence[Result], tables: Sequence[Table], sections: Sequence[str]) -> str:
    models = sorted({result.model.name for result in results if result.model is not None})
    title = f"Evaluation of {', '.join(models)}" if models else "Evaluation"
    return "".join([
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>", _summary(results), *sections,
        "<h2>Beside the printed figures</h2><p class=no>The best of a column is bold, among rows of one sample only; ",
        "doubtful printed figures are never the best.</p>", *(_beside(table) for table in tables), "</html>\n",
    ])  # fmt: skip


def _summary(results: Sequence[Result]) -> str:
    rows = []
    for index, result in enumerate(results, start=1):
        name, metric = next(iter(result.metrics.items()), ("", None))
        figure = "" if metric is None else f"{html.escape(name)} {_figure(metric)}"
        model = "detections file" if result.model is None else result.model.name
        cells = (dataset_title(result.dataset.name), result.protocol, model)
        rows.append(
            f'<tr><td><a href="#r{index}">{html.escape(result.task)}</a>'
            + "".join(f"<td class=left>{html.escape(cell)}" for cell in cells)
            + f"<td>{figure}</tr>"
        )
    heads = "<tr><th>task<th class=left>data set<th class=left>protocol<th class=left>model<th>first figure</tr>"
    return f"<div class=wrap><table>{heads}{''.join(rows)}</table></div>"


def _section(index: int, result: Result, album: Album) -> str:
    title = f"{result.task.capitalize()}: {dataset_title(result.dataset.name)}"
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
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
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
    facts += [f"{name} {value}" for name, value in result.settings.items() if value not in (None, "")]
    if result.seconds:
        facts.append(", ".join(f"{name} {value:.1f} s" for name, value in result.seconds.items()))
    return f"<p class=facts>{html.escape(' · '.join(fact for fact in facts if fact))}</p>"


def _figures(metrics: Mapping[str, Metric]) -> str:
    """Figures with their intervals; what is per cent or a share is also drawn."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{_figure(metric)}<td>{_span(metric)}</tr>" for name, metric in metrics.items()
    )
    return f"<div class=wrap><table><tr><th>figure<th>value<th>95 % interval</tr>{rows}</table></div>"


def _figure(metric: Metric) -> str:
    if not math.isfinite(metric.value):
        return "–"
    unit = f" {metric.unit}" if metric.unit in ("%", "m") else ""
    lower = " <small>lower is better</small>" if metric.better == "lower" else ""
    ends = ""
    if metric.low is not None and metric.high is not None:
        ends = f" <small>{_plain(metric.low, metric.unit)} to {_plain(metric.high, metric.unit)}</small>"
    return f"{_plain(metric.value, metric.unit)}{html.escape(unit)}{ends}{lower}"


def _plain(value: float, unit: str) -> str:
    return number(value, unit or "share")


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


def _beside(table: Table) -> str:
    protocol = "<th class=left>protocol" if table.several_protocols else ""
    heads = "".join(f"<th>{html.escape(heading(head))}" for head in table.heads)
    rows = "".join(
        f"<tr class={row.origin}><td>{html.escape(row.name)}{_raised(*row.notes)}<td class=left>{row.origin}"
        + (f"<td class=left>{html.escape(row.protocol)}" if protocol else "")
        + "".join(f"<td>{_cell(cell, head.unit)}" for cell, head in zip(row.cells, table.heads, strict=True))
        + "</tr>"
        for row in table.rows
    )
    notes = "".join(f"<li>{html.escape(note)}" for note in table.notes)
    return (
        f"<h3>{html.escape(table.title)}</h3><div class=wrap><table><tr><th>method<th class=left>figures{protocol}"
        f"{heads}</tr>{rows}</table></div><ol class=notes>{notes}</ol>"
    )


def _cell(cell: Cell, unit: str) -> str:
    if cell.value is None:
        return "–"
    text = number(cell.value, unit)
    text = f"<strong>{text}</strong>" if cell.best else text
    if cell.low is not None and cell.high is not None:
        text += f"<br><small>{number(cell.low, unit)} to {number(cell.high, unit)}</small>"
    return text + ("" if cell.note is None else _raised(cell.note))


def _raised(*notes: int) -> str:
    return f"<sup>{','.join(map(str, notes))}</sup>" if notes else ""
