"""``rio geoalign-tile``: the same command as a plugin of rasterio's command line."""

from __future__ import annotations

import click

from tiling.cli import command
from tiling.clikit import run_cli


@click.command(
    "geoalign-tile",
    short_help="Cut rasters into tiles, and stitch them back together.",
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def plugin(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Hand everything on to ``geoalign-tile``, with its one-line errors and exit codes."""
    context.exit(run_cli(command, arguments, name="rio geoalign-tile"))
