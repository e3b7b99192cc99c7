"""``geoalign-eval``: every protocol in one command."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiling.clikit import run_cli, tqdm_progress
from tiling.errors import UsageError
from training.evaluation.opening import CACHE, DEVICE, MODEL, PRECISION, READING, cache_folder, model_loader
from training.evaluation.registry import TITLES, UNTEMPLATED, WHOLE, find_task
from training.evaluation.table_text import number
from training.evaluation.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.evaluation.result import Result
    from training.evaluation.task import Task

_FILE = click.Path(dir_okay=False, path_type=Path)


class _Edge(click.Group):
    """A group whose errors are one line and an exit code, as those of the house's other commands."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
        standalone_mode: bool = True, **extra: Any,  # noqa: ANN401 - click's signature
    ) -> Any:  # fmt: skip # noqa: ANN401 - click's signature
        """Run the command and end the process; without ``standalone_mode`` raise what is raised."""
        if standalone_mode:
            sys.exit(run_cli(self, args, name=prog_name))
        return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the tasks and what else there is, each in its order."""
        for title, names in (("Tasks", TITLES), ("Besides", TOOLS)):
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(100)) for name in names])


class _TaskCommand(click.Command):
    """A task, whose help also tells its protocols and settings."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write protocols and settings below the options."""
        from training.evaluation.protocols import PROTOCOLS

        task = find_task(self.name or "")
        with formatter.section("Protocols, the default first"):
            formatter.write_dl([(name, PROTOCOLS[name].title) for name in task.protocols])
        if task.settings:
            with formatter.section("Settings, -s NAME=VALUE"):
                formatter.write_dl(sorted(task.settings.items()))


@click.group(cls=_Edge, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure a model by the protocols of GeoAlignCLIP, FarSLIP, DGTRS-CLIP and their kin.

    geoalign-eval TASK --data FOLDER --model NAME -o result.json

    geoalign-eval report result.json … -o page.html
    """


_OPTIONS = (
    click.option("--data", type=click.Path(path_type=Path), required=True, help="The data set's folder or file."),
    MODEL,
    click.option("--protocol", metavar="ID", help="By default the task's first."),
    click.option("--split", metavar="NAME", help="Part of the data set.  [default: the protocol's]"),
    click.option("--limit", type=click.IntRange(1), help="Only so many items, spread evenly; the result says so."),
    click.option("-s", "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the task."),
    click.option(
        "--dataset", metavar="ID",
        help="Which data set of geoalign-eval data it is.  [default: by the names of file and folders]",
    ),
    DEVICE,
    PRECISION,
    click.option("--dense-mode", metavar="MODE", help="Last-block variant of a CLIP model.  [default: its own]"),
    click.option(
        "--cls-bias", type=float, metavar="λ",
        help="Weight of the class token in patches.  [default: the protocol's or the model's]",
    ),
    click.option("--templates", metavar="NAME", help="Prompt template set.  [default: the protocol's]"),
    CACHE,
    click.option("--trust-pickle", is_flag=True, help="Read data sets that come as Python pickles."),
    click.option("-o", "--out", type=_FILE, help="Write the result as JSON, what it is drawn from beside it."),
    click.option("--overwrite", is_flag=True, help="Replace the result that is there."),
    click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."),
)  # fmt: skip


def _task_command(name: str) -> click.Command:
    def run(**options: Any) -> None:  # noqa: ANN401 - click's values
        click.echo(_show(_run(name, options)))

    command = _TaskCommand(name, callback=run, help=TITLES[name], short_help=TITLES[name])
    for option in reversed(_OPTIONS):
        option(command)
    command.params.reverse()
    return command


def _run(name: str, options: Mapping[str, Any]) -> Result:
    from tiling.progress import CancelToken
    from training.evaluation.measuring import measure
    from training.evaluation.task import Job

    task = find_task(name)
    protocol = options["protocol"] or task.protocols[0]
    if protocol not in task.protocols:
        raise UsageError(f"{name} has no protocol {protocol!r}", remedy=f"choose one of {', '.join(task.protocols)}")
    settings, of_model = _settings(task, options)
    _check_paths(options["data"], options["out"], overwrite=options["overwrite"])
    with tqdm_progress() as progress:
        progress(0, 1, READING)
        job = Job(
            data=options["data"], protocol=protocol, encoder=model_loader(options, of_model, progress),
            cache=options["cache"] or cache_folder(), progress=progress, cancel=CancelToken(), split=options["split"],
            limit=options["limit"], settings=settings, trust_pickle=options["trust_pickle"],
            dataset=options["dataset"], model=options["model"],
        )  # fmt: skip
        result = measure(task, job)
    told = {name: of_model[name] for name in ("dense_mode", "cls_bias") if of_model[name] is not None}
    result = replace(result, settings={**result.settings, **told})
    if options["out"]:
        result.write(options["out"])
    return result


def _check_paths(data: Path, out: Path | None, *, overwrite: bool) -> None:
    """Refuse data that is not there, and a place where no result may be written: before hours of computing."""
    from tiling.files import refuse_existing
    from training.data.errors import DataError

    if not data.exists():
        raise DataError("is missing", path=data, remedy="give a data set's file or folder; see geoalign-eval data")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)


def _settings(task: Task, options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the task's settings and the model's options.

    ``--templates`` and ``--cls-bias`` are a setting of the task where it has one of that name, else the model's; where
    they would change nothing they are refused.

    Raises:
        UsageError: A setting is unknown (the known ones are named), given twice, or changes nothing.
    """
    found = {}
    for text in options["settings"]:
        name, equals, value = text.partition("=")
        if not equals or name not in task.settings:
            names = ", ".join(sorted(task.settings)) or "none"
            raise UsageError(f"{task.name} has no setting {text!r}", remedy=f"write NAME=VALUE with one of: {names}")
        if name in found:
            raise UsageError(f"the setting {name} is given twice", remedy="give it once")
        found[name] = value
    of_model = {name: options[name] for name in ("dense_mode", "cls_bias", "templates")}
    for name, value in of_model.items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if name in task.settings:
            if name in found:
                raise UsageError(f"{flag} and the setting {name} are both given", remedy="give one of them")
            found[name], of_model[name] = str(value), None
        elif task.name in (UNTEMPLATED if name == "templates" else WHOLE):
            raise UsageError(f"{flag} changes nothing in {task.name}", remedy="leave it out")
    return found, of_model


def _show(result: Result) -> str:
    """Return the figures as lines for a terminal."""
    width = max((len(name) for name in result.metrics), default=0)
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in result.dataset.counts.items() if count)
    lines = [f"{result.task} · {result.protocol} · {result.dataset.name} ({counts})"]
    for name, metric in result.metrics.items():
        unit = metric.unit if metric.unit == "%" else f" {metric.unit}" if metric.unit not in ("", "share") else ""
        value, *ends = (
            "–" if end is None or not math.isfinite(end) else number(end, metric.unit)
            for end in (metric.value, metric.low, metric.high)
        )
        span = "" if metric.low is None or metric.high is None else f"   [{ends[0]}, {ends[1]}]"
        lines.append(f"  {name:<{width}}  {value:>8}{unit}{span}")
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes)])


for _name in TITLES:
    main.add_command(_task_command(_name))
for _name, _tool in TOOLS.items():
    main.add_command(_tool, _name)


if __name__ == "__main__":
    main()
