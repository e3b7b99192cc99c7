"""A run from its first step, or from its last checkpoint, to its end."""

from __future__ import annotations

import json
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, fields
from math import isfinite, isnan
from typing import TYPE_CHECKING, Protocol

from tiling.errors import CancelledError, GeoAlignError
from tiling.progress import CancelToken, silent
from training.loop import checkpoint
from training.loop.checkpoint import Position
from training.loop.engine import make_engine
from training.loop.failures import CheckpointError, NotFiniteError
from training.loop.ranks import one_line_for_lost_ranks
from training.loop.schedule import rate, total_steps
from training.loop.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from tiling.progress import Progress
    from training.batch import Batch
    from training.loop.engine import Engine
    from training.recipe import Recipe


class Batches(Protocol):
    """Where a run's batches come from."""

    def __len__(self) -> int:
        """Return the steps of an epoch."""

    def batches(self, step: int, /) -> Iterator[Batch]:
        """Yield this rank's batches from a step of the run on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    step: int
    taken: int
    """Steps of this process; 0 where a finished run was resumed"""
    seconds: float
    """Of this process's part of the run"""
    checkpoint: Path | None
    figures: dict[str, float]
    """Of the last validation"""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; the run goes on."""


class Trainer:
    """Carries out a run; every rank makes one.

    Args:
        student: The model; see :func:`training.loop.engine.make_engine`.
        recipe: The run.
        loader: This rank's batches.
        folder: The run's, the same on every rank.
        validate: Called on every rank with the student in evaluation mode and the step; returns figures.
        log: Called on rank 0 with the step and its figures: ``samples`` (images seen by all ranks), means of what the
            student reports over the steps that measured it (what none did is left out), ``grad_norm``, ``rate``,
            ``epoch``, ``samples_per_s``, ``seconds_per_step``, ``data_share`` (of the time spent waiting for data) and
            ``eta_s``; after a validation its figures as ``validation/NAME``.
        progress: Steps done and to do; called on every rank, so give :func:`tiling.progress.silent` to all but rank 0.
        cancel: Stops the run at the next step, on all ranks, with a checkpoint.
        resume: Go on from the folder's last checkpoint, where there is one.
        data: Digest of the records; by default the loader's ``dataset.digest``.
        engine: By default what the recipe asks for.

    Raises:
        CheckpointError: The folder holds checkpoints and ``resume`` is false.
        EngineError: The engine cannot be used.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: Recipe,
        loader: Batches,
        folder: Path,
        *,
        validate: Callable[[nn.Module, int], dict[str, float]] | None = None,
        log: Callable[[int, dict[str, float]], None] | None = None,
        progress: Progress = silent,
        cancel: CancelToken | None = None,
        resume: bool = False,
        data: str | None = None,
        engine: Engine | None = None,
    ) -> None:
        start = checkpoint.find(folder)
        if start and not resume:
            raise CheckpointError(
                "holds checkpoints of an earlier run",
                path=folder,
                measured=start.name,
                remedy="add --resume to go on from there, or choose another folder",
            )
        self.engine = engine or make_engine(student, recipe)
        self.total = total_steps(recipe.optim, len(loader))
        self._recipe, self._loader, self._folder = recipe, loader, folder
        self._validate, self._log, self._progress = validate, log, progress
        self._cancel = cancel or CancelToken()
        self._data = data if data is not None else getattr(getattr(loader, "dataset", None), "digest", "")
        self._start = start
        self._step = 0
        self._saved: Path | None = None
        self._unsaved: GeoAlignError | None = None
        self._figures: dict[str, float] = {}

    @property
    def images_per_step(self) -> int:
        """Images of all ranks in a step."""
        return self._recipe.optim.batch * self.engine.ranks.world

    def run(self) -> Outcome:
        """Train to the end.

        Raises:
            CancelledError: The run was stopped (SIGTERM, Ctrl-C, ``cancel``); a checkpoint is written.
            NotFiniteError: A loss or gradient was not finite; each rank's batch is saved in the folder.
            RankLostError: Another process ended or hangs.
            CheckpointError: The checkpoint is not of this run, or the last one could not be written.
        """
        begun, ranks = time.monotonic(), self.engine.ranks
        with one_line_for_lost_ranks(world=ranks.world, timeout_s=ranks.timeout_s), stop_on_signals(self._cancel):
            self._resume()
            before = self._step
            self._train()
        if self._unsaved:
            raise self._unsaved
        return Outcome(self._step, self._step - before, time.monotonic() - begun, self._saved, self._figures)

    def _resume(self) -> None:
        if self.engine.ranks.rank == 0:
            checkpoint.sweep(self._folder)
        if self._start is None:
            return
        position = checkpoint.load(self._start, self.engine, self._recipe, data=self._data)
        # With another number of ranks, what was seen counts in images: the order of records goes on from there.
        self._step = position.samples // self.images_per_step
        self._saved = self._start

    def _train(self) -> None:
        recipe, meter = self._recipe, _Meter(self.images_per_step)
        batches = self._batches()
        while self._step < self.total:
            batch = meter.waiting(lambda: next(batches))
            self.engine.rate = rate(self._step, self.total, recipe.optim)
            report = self.engine.step(batch, self._step / self.total)
            self._check(report, batch)
            self._step += 1
            meter.add(report)
            self._progress(self._step, self.total, "training")
            if self._due(recipe.run.log_every):
                self._write_log(meter)
            if self._validate and self._due(recipe.run.validate_every):
                self._evaluate(self._validate)
                meter.restart()
            stop = self.engine.ranks.any(self._cancel.cancelled)
            if stop or self._due(recipe.run.save_every):
                self._save()
                meter.restart()
            if stop and self._step < self.total:
                raise self._unsaved or CancelledError(
                    f"stopped after step {self._step} of {self.total}", remedy="go on with --resume"
                )

    def _due(self, every: int) -> bool:
        return self._step == self.total or (every > 0 and self._step % every == 0)

    def _batches(self) -> Iterator[Batch]:
        """Yield batches without end; a loader may stop at the end of an epoch."""
        step = self._step
        while True:
            before = step
            for batch in self._loader.batches(step):
                yield batch
                step += 1
            if step == before:
                raise GeoAlignError("the data gave no batch", remedy="look at data.train and optim.batch")

    def _write_log(self, meter: _Meter) -> None:
        figures = meter.figures(self.total - self._step)
        self._tell(figures | {"rate": self.engine.rate, "epoch": self._step / max(len(self._loader), 1)})

    def _tell(self, figures: dict[str, float]) -> None:
        if self._log and self.engine.ranks.rank == 0:
            self._log(self._step, figures | {"samples": self._step * self.images_per_step})

    def _evaluate(self, validate: Callable[[nn.Module, int], dict[str, float]]) -> None:
        student = self.engine.module.eval()
        try:
            self._figures = validate(student, self._step)
        finally:
            student.train()
        self._tell({f"validation/{name}": value for name, value in self._figures.items()})

    def _save(self) -> None:
        """Write a checkpoint; a failure is a warning, and the run's error when it is the last word."""
        ranks, batch = self.engine.ranks, self._recipe.optim.batch
        position = Position(self._step, self._step * self.images_per_step, ranks.world, batch, self._data)
        try:
            self._saved = checkpoint.save(self._folder, self.engine, self._recipe, position)
            self._unsaved = None
        except GeoAlignError as error:
            self._unsaved = error
            if ranks.rank == 0:
                warnings.warn(f"step {self._step} is not saved: {error}", CheckpointWarning, stacklevel=2)

    def _check(self, report: dict[str, float], batch: Batch) -> None:
        """Give up, on all ranks at once, where a step was not finite."""
        wrong = [name for name in ("loss", "grad_norm") if not isfinite(report[name])]
        if not wrong:
            return
        saved = self._save_batch(batch)
        raise NotFiniteError(
            f"the {'loss' if wrong[0] == 'loss' else 'gradient'} of step {self._step} is not finite",
            path=saved,
            measured=f"{wrong[0]} {report[wrong[0]]}",
            remedy="this file holds the batch and its records' keys; lower optim.rate or leave the records out, "
            + ("then go on with --resume" if self._saved else "then start again"),
        )

    def _save_batch(self, batch: Batch) -> Path | None:
        import torch
        from safetensors.torch import save_file

        from tiling.files import atomic_file

        ranks = self.engine.ranks
        part = f"-rank-{ranks.rank}" if ranks.world > 1 else ""
        path = self._folder / f"nan-step-{self._step:08d}{part}.safetensors"
        values = {item.name: getattr(batch, item.name) for item in fields(batch)}
        tensors = {name: value.cpu().contiguous() for name, value in values.items() if isinstance(value, torch.Tensor)}
        try:
            with atomic_file(path, overwrite=True) as temporary:
                save_file(tensors, temporary, {"keys": json.dumps(list(batch.keys))})
        except (GeoAlignError, OSError):
            return None  # a full disk must not hide the reason
        return path


class _Meter:
    """Means of reports and times since the last figures; a figure that is NaN was not measured at that step."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._known: dict[str, list[float]] = defaultdict(list)
        self._steps = 0
        self._seconds = self._waited = 0.0
        self._mark = time.monotonic()

    def waiting(self, fetch: Callable[[], Batch]) -> Batch:
        """Return the next batch and count the wait."""
        begun = time.monotonic()
        batch = fetch()
        self._waited += time.monotonic() - begun
        return batch

    def add(self, report: dict[str, float]) -> None:
        """Count a step."""
        for name, value in report.items():
            if not isnan(value):
                self._known[name].append(value)
        self._steps += 1
        now = time.monotonic()
        self._seconds, self._mark = self._seconds + now - self._mark, now

    def restart(self) -> None:
        """Leave the time since the last step, spent on validation or a checkpoint, out."""
        self._mark = time.monotonic()

    def figures(self, left: int) -> dict[str, float]:
        """Return the means of what was measured and begin anew; ``left`` are the steps that are left."""
        each = self._seconds / max(self._steps, 1)
        figures = {name: sum(values) / len(values) for name, values in self._known.items()} | {
            "seconds_per_step": each,
            "samples_per_s": self._images / max(each, 1e-9),
            "data_share": self._waited / max(self._seconds, 1e-9),
            "eta_s": each * left,
        }
        self._known.clear()
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        return figures
