"""``geoalign-train run``, ``recipes``, ``export`` and ``profile``: training from recipes, on the command line.

``run`` works the same under plain Python, torchrun and the deepspeed launcher; then rank 0 speaks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiling.clikit import tqdm_progress
from tiling.errors import UsageError

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.recipe_file import Loaded

_FOLDER = click.Path(file_okay=False, path_type=Path)
SET = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of the recipe."
)
_INIT = click.option("--init", default=None, help="Start model: a name, a run's or model's folder, or random:ARCH.")


def _load(
    recipe: str, overrides: tuple[str, ...], *, init: str | None = None, data: tuple[str, ...] = (),
    validation: tuple[str, ...] = (), engine: str | None = None, steps: int | None = None,
) -> Loaded[Recipe]:  # fmt: skip
    """Read a recipe and lay the command line's values over it; ``-s`` has the last word."""
    from training.recipe_file import RUN_RECIPE, read_recipe

    own: list[str] = []
    given = {
        "model.init": init, "data.train": list(data) or None, "data.validation": list(validation) or None,
        "run.engine": engine, "optim.steps": steps,
    }  # fmt: skip
    own += [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    return read_recipe(recipe, [*own, *overrides], RUN_RECIPE)


@click.command("run")
@click.argument("recipe")
@click.option("-o", "--out", type=_FOLDER, default=None, help="Folder of the run.")
@click.option("--data", multiple=True, help="RSFG data set to train on: folder, .jsonl or .tar. May be repeated.")
@click.option("--validation", multiple=True, help="RSFG data set to validate on. May be repeated.")
@_INIT
@SET
@click.option("--engine", type=click.Choice(["auto", "plain", "deepspeed"]), default=None, help="How steps are done.")
@click.option("--steps", type=click.IntRange(min=1), default=None, help="Optimiser steps instead of epochs.")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder.")
@click.option("--limit", type=click.IntRange(min=1), default=2000, show_default=True, help="Images of a validation.")
@click.option("--print-config", is_flag=True, help="Print the whole recipe, explained, and stop.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, draw the first batch, and stop.")
@click.option("--allow-untested-deepspeed", is_flag=True, help="Use a DeepSpeed whose gradients nobody compared.")
@click.option("--local_rank", "--local-rank", type=int, default=None, hidden=True)
def run(
    recipe: str,
    out: Path | None,
    data: tuple[str, ...],
    validation: tuple[str, ...],
    init: str | None,
    overrides: tuple[str, ...],
    engine: str | None,
    steps: int | None,
    resume: bool,
    limit: int,
    print_config: bool,
    dry_run: bool,
    allow_untested_deepspeed: bool,
    local_rank: int | None,
) -> None:
    """Train after RECIPE, a packaged recipe's name or a YAML file."""
    if local_rank is not None:  # launchers pass it as an argument or in the environment
        os.environ.setdefault("LOCAL_RANK", str(local_rank))
    loaded = _load(recipe, overrides, init=init, data=data, validation=validation, engine=engine, steps=steps)
    if print_config:
        from training.recipe_file import dump_recipe

        click.echo(dump_recipe(loaded.recipe, notes=loaded.notes), nl=False)
        return
    if out is None:
        raise UsageError("a run needs a folder", remedy="give it with -o FOLDER")
    if dry_run:
        from training.loop import dry_run as rehearsal

        rehearsal.dry_run(loaded.recipe, out, _say)
        return
    from training.loop.job import Options, train

    options = Options(resume=resume, allow_untested=allow_untested_deepspeed, limit=limit, notes=loaded.notes)
    with tqdm_progress(disable=None if _first() else True) as progress:
        model = train(loaded.recipe, out, _say, options=options, progress=progress)
    if _first():
        click.echo(str(model))


def _first() -> bool:
    """Return whether this is the process that speaks."""
    return os.environ.get("RANK", "0") == "0"


def _say(line: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


@click.command("recipes")
def recipes() -> None:
    """List the packaged recipes."""
    from training.embedded.recipe import ALIGN_RECIPE
    from training.recipe_file import RUN_RECIPE, packaged

    for kind in (RUN_RECIPE, ALIGN_RECIPE):
        for name, path in packaged(kind).items():
            click.echo(f"{name:26}{path.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}")


@click.command("export")
@click.argument("folder", type=_FOLDER)
@click.option("-o", "--out", type=_FOLDER, default=None, help="Model folder to write; by default FOLDER/model.")
def export_command(folder: Path, out: Path | None) -> None:
    """Write the model of the last checkpoint of the run in FOLDER."""
    from training.loop.job import MODEL, export_run

    click.echo(str(export_run(folder, out or folder / MODEL)))


@click.command("profile")
@click.argument("recipe")
@_INIT
@SET
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Steps to time.")
@click.option("--negatives", type=click.IntRange(min=0), default=10, show_default=True, help="Hard negatives a region.")
@click.option("--tokens", type=click.IntRange(min=3, max=77), default=77, show_default=True, help="Of a short text.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def profile_command(
    recipe: str,
    init: str | None,
    overrides: tuple[str, ...],
    steps: int,
    negatives: int,
    tokens: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure memory and speed of a training step of RECIPE on a synthetic batch."""
    from training.loop.profile import profile, render_profile

    loaded = _load(recipe, overrides, init=init)
    found = profile(loaded.recipe, steps=steps, negatives=negatives, short_tokens=tokens, device=device)
    click.echo(json.dumps(dataclasses.asdict(found), indent=1) if as_json else render_profile(found))


COMMANDS = (run, recipes, export_command, profile_command)
"""What ``geoalign-train`` takes from here."""
