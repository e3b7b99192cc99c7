"""``geoalign engine``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

MAX_WINDOWS = 200_000
"""As in :data:`geoalign_core.settings.MAX_WINDOWS`, which loads too much to say hello."""


@click.command()
@click.option("--stdio", is_flag=True, help="Speak over standard input and output, as a map program does.")
@click.option("--http", "address", metavar="HOST:PORT", help="Serve a map program on another machine.")
@click.option("--max-memory", metavar="SIZE", help="Stop jobs that take more, such as 4GB.  [default: 80 %]")
@click.option("--max-windows", type=click.IntRange(1), default=MAX_WINDOWS, show_default=True, help="Refuse more.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Read the token of --http from this file.")
@click.option("--root", "roots", type=click.Path(path_type=Path), multiple=True, metavar="DIR",
              help="A folder that clients of --http may name files in; may be repeated.")  # fmt: skip
@click.option("--files", type=click.Path(path_type=Path), metavar="DIR",
              help="Where --http keeps uploads and results.  [default: a temporary folder]")  # fmt: skip
@click.option("--max-upload", default="20GB", show_default=True, metavar="SIZE", help="Largest upload of --http.")
@click.option("--keep-hours", type=click.FloatRange(min=0.1, max=1e5), default=24.0, show_default=True, metavar="HOURS",
              help="Remove uploads of --http that nobody has used for so long.")  # fmt: skip
@click.option("--host-name", "names", multiple=True, metavar="NAME",
              help="A name by which clients call this machine, besides the address; may be repeated.")  # fmt: skip
@click.option("--certfile", type=click.Path(path_type=Path), help="Certificate for TLS.")
@click.option("--keyfile", type=click.Path(path_type=Path), help="Its key.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def engine(
    *,
    stdio: bool,
    address: str | None,
    max_memory: str | None,
    max_windows: int,
    debug: bool,
    **http: Any,  # noqa: ANN401 - click
) -> None:
    """Run as a process that a map program talks to, in JSON lines.

    The token of --http is taken from --token-file, else from GEOALIGN_TOKEN; without either one is made up and
    printed.
    """
    from geoalign_core.engine.memory import Watch
    from tiling.errors import UsageError

    del debug
    if stdio == (address is not None):
        raise UsageError("the engine speaks one way", remedy="give either --stdio or --http HOST:PORT")
    memory = Watch.of(max_memory)
    if address is not None:
        from geoalign_core.engine.http import HttpOptions, serve_http

        serve_http(HttpOptions.read(address, **http), max_windows=max_windows, memory=memory)
        return
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # the map stays quick while the engine works
    from geoalign_core.engine.stdio import serve

    serve(max_windows=max_windows, memory=memory)
