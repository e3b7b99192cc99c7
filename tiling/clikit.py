"""The edge of every command line: one line on stderr per error, fixed exit codes, a bar only on a terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

import click

from tiling.errors import CancelledError, GeoAlignError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiling.progress import Progress

EXIT_ERROR, EXIT_USAGE, EXIT_PARTIAL, EXIT_INTERRUPTED = 1, 2, 3, 130
STOPPED = "stopped; run the same command again to go on where it stopped"


def run_cli(command: click.Command, args: Sequence[str] | None = None, *, name: str | None = None) -> int:
    """Run a click command and return its exit code instead of raising.

    0 is success, 1 an error, 2 wrong usage, 3 partial failure (which a command returns), 130 an interruption.
    ``--debug`` anywhere among the arguments shows the traceback of an error.

    Args:
        command: The command; a whole number that it returns is the exit code.
        args: Its arguments, by default those of the process.
        name: What the help calls the command, by default the program's name.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # Asked to end, a job cleans up and tells how to go on, as it does for Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", None)
        hint = f"; see {where} --help" if where else ""
        return _tell(f"error: {error.format_message().rstrip('.')}{hint}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _tell(STOPPED, EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (a pager, `head`): point stdout away so that its flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the edge of the process: a user sees a line, never a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        return explain(error)
    return result if isinstance(result, int) else 0


def explain(error: Exception) -> int:
    """Tell an error in one line on stderr and return its exit code."""
    if isinstance(error, CancelledError):
        return _tell(str(error), error.exit_code)
    if isinstance(error, GeoAlignError):
        return _tell(f"error: {error}", error.exit_code)
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return _tell(f"internal error: {text}; run again with --debug and report it", EXIT_ERROR)


def _tell(line: str, code: int) -> int:
    click.echo(line, err=True)
    return code


def note(line: str) -> None:
    """Tell the user something that is not an error, on stderr."""
    click.echo(f"note: {line}", err=True)


@contextlib.contextmanager
def tqdm_progress(*, disable: bool | None = None) -> Iterator[Progress]:
    """Give a progress callback that draws one bar per stage, with the time left, on stderr.

    Args:
        disable: None draws only when stderr is a terminal.
    """
    from tqdm import tqdm

    hidden = (not sys.stderr.isatty()) if disable is None else disable
    bars: dict[str, tqdm] = {}

    def report(done: int, total: int, stage: str, /) -> None:
        if hidden:
            return
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm(total=total, desc=stage, file=sys.stderr, dynamic_ncols=True, leave=True)
        bar = bars[stage]
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
