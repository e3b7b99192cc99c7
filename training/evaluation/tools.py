"""What ``geoalign-eval`` does besides measuring once: suites, data sets, tables, pages, CastDet's class vectors.

Like the tasks, a command imports what is heavy when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.evaluation.castdet import main as castdet
from training.evaluation.suite_command import suite

if TYPE_CHECKING:
    from training.evaluation.result import Result

_FILE = click.Path(dir_okay=False, path_type=Path)
_RESULTS = click.argument("results", nargs=-1, required=True, type=_FILE)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace the file.")
_DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")


@click.command(short_help="Where each data set comes from, its terms and layout; check a folder.")
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@_DEBUG
def data(name: str | None, folder: Path | None) -> int:
    """List the data sets; tell where NAME comes from, its terms and layout; or check FOLDER, or a list, for it.

    Nothing is ever downloaded. A check opens no picture and no pickle; it ends with 1 unless FOLDER is complete.
    """
    from training.evaluation.catalogue import description, find, listing
    from training.evaluation.catalogue_check import check_folder

    if name is None:
        click.echo(listing())
        return 0
    entry = find(name)
    if folder is None:
        click.echo(description(entry))
        return 0
    report = check_folder(entry, folder)
    click.echo(str(report))
    return report.exit_code


@click.command(short_help="Results beside printed figures, as Markdown or LaTeX.")
@_RESULTS
@click.option("--latex", "as_latex", is_flag=True, help="LaTeX (package booktabs) and not Markdown.")
@click.option("--mixed", is_flag=True, help="Put the protocols of a data set into one table, each row naming its own.")
@click.option("-o", "--out", type=_FILE, help="File to write.  [default: the terminal]")
@_OVERWRITE
@_DEBUG
def table(results: tuple[Path, ...], as_latex: bool, mixed: bool, out: Path | None, overwrite: bool) -> None:
    """Lay RESULTS, files written with -o, beside the printed figures of the same protocol and data set."""
    from tiling.files import atomic_file, refuse_existing
    from training.evaluation.table_text import latex, markdown
    from training.evaluation.tables import beside

    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    text = (latex if as_latex else markdown)(beside(_read(results), mixed=mixed))
    if out is None:
        click.echo(text, nl=False)
        return
    with atomic_file(out, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(str(out))


def _read(paths: tuple[Path, ...]) -> list[Result]:
    from training.evaluation.result import read_result

    return [read_result(path) for path in paths]


@click.command(short_help="One HTML page of results with pictures.")
@_RESULTS
@click.option("-o", "--out", type=_FILE, required=True, help="HTML file to write.")
@_OVERWRITE
@_DEBUG
def report(results: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Make one page of RESULTS, files written with -o: figures, printed figures, charts and pictures."""
    from tiling.clikit import tqdm_progress
    from tiling.files import refuse_existing
    from training.evaluation.report.page import write_report

    refuse_existing(out, overwrite=overwrite)
    with tqdm_progress() as progress:
        write_report(results, out, overwrite=overwrite, progress=progress)
    click.echo(str(out))


TOOLS = {"suite": suite, "data": data, "table": table, "report": report, "castdet": castdet}
"""By name."""
