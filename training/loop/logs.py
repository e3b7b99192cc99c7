"""What a run tells while it goes: ``metrics.csv``, TensorBoard's events, curves, and one line on the console."""

from __future__ import annotations

import contextlib
import csv
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiling.errors import GeoAlignError
from tiling.files import atomic_file, write_error
from training.loop.flops import step_flops
from training.loop.plots import VALIDATION, draw_curves, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from geoalign_core.models.config import ModelConfig

METRICS, CURVES, EVENTS = "metrics.csv", "curves.png", "tensorboard"


class Metrics:
    """A CSV table with one row a step, which keeps what an earlier part of the run wrote.

    Args:
        path: The file; it is not touched before the first row.
        samples: Images that the run had seen where it goes on: rows of more, which it takes again, are dropped.

    Raises:
        UsageError: The file that is there is no such table.
    """

    def __init__(self, path: Path, *, samples: int = 0) -> None:
        self._path = path
        self._columns, self._rows = ["step", "samples"], list[dict[str, str]]()
        self._whole = False
        """Whether the file holds the rows."""
        if path.is_file():
            self._columns, rows = read_rows(path)
            self._rows = [row for row in rows if int(row["samples"]) <= samples]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row, or complete the last one if it is of the same step; ``samples`` is among the values.

        Raises:
            OutputWriteError: The disk refuses; the next row brings what is missing.
        """
        row = {"step": str(step), "samples": str(int(values["samples"]))}
        row |= {name: f"{value:.8g}" for name, value in values.items() if name not in row}
        again = bool(self._rows) and self._rows[-1]["samples"] == row["samples"]
        fresh = [name for name in row if name not in self._columns]
        self._columns += fresh
        if again:
            self._rows[-1] |= row
        else:
            self._rows.append(row)
        append = self._whole and not (again or fresh) and self._path.is_file()
        self._whole = False
        if append:
            try:
                with self._path.open("a", newline="", encoding="utf-8") as handle:
                    csv.DictWriter(handle, self._columns, restval="").writerow(row)
            except OSError as error:
                raise write_error(self._path, error) from error
        else:
            self._rewrite()
        self._whole = True

    def _rewrite(self) -> None:
        with (
            atomic_file(self._path, overwrite=True) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as handle,
        ):
            writer = csv.DictWriter(handle, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)


class Events:
    """TensorBoard's events, written at once: its own writer has a thread, which a full disk kills aloud.

    Args:
        folder: Made with the first event.
        purge: Events of this step and later ones, of an earlier part of the run, are not shown.
    """

    def __init__(self, folder: Path, *, purge: int | None = None) -> None:
        self._folder, self._purge = folder, purge
        self._path: Path | None = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by tag; after a failure the next ones go to another file, for this one is cut short.

        Raises:
            OSError: The disk refuses.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, path = time.time(), self._path
        events = []
        if path is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            host, number = socket.gethostname(), sum(1 for _ in self._folder.iterdir())
            path = self._folder / f"events.out.tfevents.{int(now):010d}.{host}.{os.getpid()}.{number}"
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            if self._purge is not None:
                begun = SessionLog(status=SessionLog.START)
                events.append(Event(wall_time=now, step=self._purge, session_log=begun))
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        events.append(Event(wall_time=now, step=step, summary=summary))
        self._path = None
        with path.open("ab") as handle:
            for event in events:
                RecordWriter(handle).write(event.SerializeToString())
        self._path, self._purge = path, None


@dataclass(slots=True)
class Meter:
    """Counts the FLOPs of the steps that a model sees on this rank, from the shapes of its batches alone."""

    config: ModelConfig
    steps: int = 0
    flops: float = 0.0

    def watch(self, student: nn.Module) -> None:
        """Count every batch that goes through the student from now on."""
        student.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module.training:
            self.steps += 1
            self.flops += step_flops(self.config, args[0])

    def take(self) -> float:
        """Return the FLOPs of a step, the mean since the last call, and start anew."""
        mean = self.flops / max(self.steps, 1)
        self.steps, self.flops = 0, 0.0
        return mean


class RunLog:
    """Everything that a run tells; the trainer calls it with a step and its numbers.

    Args:
        folder: Of the run.
        say: Prints one line.
        steps: Of the run in all.
        step: Where the run starts.
        samples: Images seen until there.
        meter: Counts what this rank computes.
        peak: FLOP/s of this rank's device; None leaves the utilisation out.
        title: Of the curves.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        *,
        steps: int,
        step: int = 0,
        samples: int = 0,
        meter: Meter | None = None,
        peak: float | None = None,
        title: str = "",
    ) -> None:
        self._folder, self._say, self._steps = folder, say, steps
        self._meter, self._peak, self._title = meter, peak, title
        self._metrics = Metrics(folder / METRICS, samples=samples)
        self._events = Events(folder / EVENTS, purge=step + 1 if step else None)
        self._warned: set[str] = set()
        self.last: dict[str, float] = {}
        """The last numbers of training; what the last step did not measure stays as it was."""
        self.figures: dict[str, float] = {}
        """The last figures of validation, without their prefix."""

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of a step; those whose names start with ``validation/`` are figures of validation."""
        samples = int(values.get("samples", step))
        values = {name: float(value) for name, value in values.items() if name != "samples"}
        figures = {name: value for name, value in values.items() if name.startswith(VALIDATION)}
        if len(figures) < len(values):
            values |= self._utilisation(values.get("seconds_per_step", 0.0))
            self.last |= {name: value for name, value in values.items() if name not in figures}
            self._say(self._line(step, self.last))
        with self._going_on():
            self._metrics.add(step, {**values, "samples": samples})
        with self._going_on():
            self._events.add(step, {name if "/" in name else f"train/{name}": value for name, value in values.items()})
        if figures:
            self.figures = {name.removeprefix(VALIDATION): value for name, value in figures.items()}
            self._say(f"step {step}  validation  " + "  ".join(f"{k} {v:.1f}" for k, v in self.figures.items()))
            self.draw()

    def draw(self) -> None:
        """Draw the curves anew, if something was told."""
        with self._going_on():
            if self.last or self.figures:  # else nothing was told: what is there stays as it is
                draw_curves(self._folder / METRICS, self._folder / CURVES, title=self._title)

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """Say that a number or a picture could not be written, and go on: a full disk must not end the training."""
        try:
            yield
        except (GeoAlignError, OSError) as error:
            line = f"warning: {error}"
            if line not in self._warned:
                self._warned.add(line)
                self._say(line)

    def _utilisation(self, seconds: float) -> dict[str, float]:
        """Return the share of the device's rate that a step of so many seconds made use of, in per cent."""
        if self._meter is None or not self._peak or seconds <= 0:
            return {}
        return {"mfu_percent": 100 * self._meter.take() / seconds / self._peak}

    def _line(self, step: int, values: Mapping[str, float]) -> str:
        forms = {
            "loss": lambda value: f"loss {value:.4f}", "rate": lambda value: f"rate {value:.1e}",
            "samples_per_s": lambda value: f"{value:.1f} images/s", "mfu_percent": lambda value: f"MFU {value:.0f} %",
            "eta_s": lambda value: f"{_duration(value)} left",
        }  # fmt: skip
        return "  ".join([
            f"step {step}/{self._steps}", *(form(values[name]) for name, form in forms.items() if name in values)
        ])  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
