"""A run from its recipe to its model: what ``geoalign-train run`` and ``export`` carry out.

A run's folder holds ``recipe.yaml`` and ``run.json`` (what is trained on what), ``checkpoints/``, ``metrics.csv``,
``curves.png``, ``tensorboard/``, and at the end ``model/``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tiling.errors import OutputExistsError, UsageError
from tiling.files import write_error
from tiling.progress import silent
from training.loop.cautions import cautions
from training.loop.record import RUN, RunRecord, last_metrics, read_run, write_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn

    from geoalign_core.models.config import ModelConfig
    from tiling.progress import CancelToken, Progress
    from training.data.dataset import RsfgDataset
    from training.loop.engine import Engine
    from training.loop.export import Trained
    from training.loop.loader import Loader
    from training.loop.logs import RunLog
    from training.loop.ranks import Ranks
    from training.loop.validate import Validator
    from training.model.student import Student
    from training.recipe import Recipe

MODEL, LOCK = "model", ".lock"
PICTURE = "first-batch.png"
"""What a dry run leaves in the folder."""
_CLIP = "clip."


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a user may say about a run beside its recipe."""

    resume: bool = False
    allow_untested: bool = False
    limit: int = 2000
    """Images of a validation."""
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Sources of the recipe's values, for ``recipe.yaml``."""


def check_ready(recipe: Recipe, *, started: bool = False) -> None:
    """Refuse a recipe that still lacks what only the user can say; a run that has started needs no start model.

    Raises:
        UsageError: There is no start model or no training data.
    """
    if not (recipe.model.init or started):
        raise UsageError(
            f"{recipe.name} starts from another run's model", remedy="give that run's folder with --init FOLDER"
        )
    if not recipe.data.train:
        raise UsageError(f"{recipe.name} names no training data", remedy="give data sets with --data PATH")


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a run folder that something else lies in.

    Raises:
        OutputExistsError: It is not empty, and this is not to go on with the run in it.
    """
    if folder.is_dir() and any(item.name not in (PICTURE, LOCK) for item in folder.iterdir()):
        if not resume:
            raise OutputExistsError("is not empty", path=folder, remedy="give another folder, or go on with --resume")
        if not (folder / RUN).is_file():
            raise OutputExistsError("holds no run to go on with", path=folder, remedy="give the folder of a run")
    elif folder.exists() and not folder.is_dir():
        raise OutputExistsError("is not a folder", path=folder, remedy="give a folder")


@contextlib.contextmanager
def only_run(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Keep another run out of a folder; the system frees the lock when rank 0 dies, however it dies.

    Raises:
        UsageError: On every rank, when another run is at work there.
        OutputWriteError: The folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock, error = FileLock(folder / LOCK, thread_local=False), None
    if ranks.rank == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except (Timeout, OSError) as failure:
            error = failure
    try:
        if isinstance(error, OSError) and not isinstance(error, Timeout):
            ranks.any(True)
            raise write_error(folder, error) from error
        if ranks.any(error is not None):
            raise UsageError("another run is at work here", path=folder, remedy="wait for it, or give another folder")
        yield
    finally:
        if lock.is_locked:
            lock.release()
            (folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # a run that was refused leaves nothing


def train(
    recipe: Recipe,
    folder: Path,
    say: Callable[[str], None],
    *,
    options: Options | None = None,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Path:
    """Carry out a run and export its model; every rank calls it, rank 0 speaks and writes.

    Args:
        recipe: The run.
        folder: Where everything goes, the same on every rank.
        say: Prints one line.
        options: Resuming, and what else a user may say.
        progress: Called with steps done and to do.
        cancel: Stops the run with a checkpoint.

    Returns:
        The model's folder.

    Raises:
        GeoAlignError: The recipe, the folder, the data or the start model is not usable, or the run failed; see
            :class:`training.loop.trainer.Trainer`.
    """
    from training.loop.ranks import join, leave

    options = options or Options()
    check_folder(folder, resume=options.resume)
    check_ready(recipe, started=(folder / RUN).is_file())
    ranks = join()
    if ranks.rank:
        say, progress = _quiet, silent
    try:
        with only_run(folder, ranks), _spoken(say):
            return _train(recipe, folder, say, ranks, options, progress, cancel)
    finally:
        leave()


def _quiet(_line: str) -> None:
    """Say nothing: the other ranks."""


@contextlib.contextmanager
def _spoken(say: Callable[[str], None]) -> Iterator[None]:
    """Say warnings as lines, without the place in the source that gave them."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"warning: {' '.join(str(message).split())}")
        yield


def _train(
    recipe: Recipe,
    folder: Path,
    say: Callable[[str], None],
    ranks: Ranks,
    options: Options,
    progress: Progress,
    cancel: CancelToken | None,
) -> Path:
    from training.loop import checkpoint
    from training.loop.engine import make_engine
    from training.loop.loader import Loader
    from training.loop.schedule import total_steps
    from training.loop.trainer import Trainer
    from training.loop.validate import Validator

    dataset, held_out = _sets(recipe, ranks)
    say(f"{recipe.name}: {_count(len(dataset), 'record')}; making the model")
    last = checkpoint.find(folder)
    data = _describe({"training": dataset, "validation": held_out}, recipe)
    student, record = _student(recipe, folder, data, resumed=last is not None)
    config = record.config
    loader = Loader(dataset, recipe, config, rank=ranks.rank, world=ranks.world, workers=recipe.data.workers)
    if ranks.rank == 0 and last is None:  # a run that goes on stays what it was
        write_run(folder, record, options.notes)
    steps, images = total_steps(recipe.optim, len(loader)), ranks.world * recipe.optim.batch
    for line in cautions(recipe, steps, dataset, held_out, record.departures):
        say(line)
    log = _log(folder, last, recipe, config, student, say, ranks, steps) if ranks.rank == 0 else None
    validator = Validator(held_out, config, recipe, limit=options.limit) if held_out else None
    trainer = Trainer(
        student, recipe, loader, folder, progress=progress, cancel=cancel, resume=options.resume, data=dataset.digest,
        engine=make_engine(student, recipe, ranks=ranks, allow_untested=options.allow_untested), log=log,
        validate=_validating(validator, say) if validator else None,
    )  # fmt: skip
    say(f"{recipe.name}: {_count(len(dataset), 'record')}, {_count(steps, 'step')} of {ranks.world} × "
        f"{_count(recipe.optim.batch, 'image')}")  # fmt: skip
    try:
        outcome = trainer.run()
    finally:
        if log:
            log.draw()
        for line in _skipped(loader):
            say(line)
    target = folder / MODEL
    if not outcome.taken:
        say(f"this run is already finished, with {_count(outcome.step, 'step')}; the model: {target}")
        if log and not target.exists():  # it was stopped between its last checkpoint and its model
            export_run(folder, target)
        return target
    weights = _masters(trainer.engine, ranks)
    if log:
        from training.loop.export import write_model

        known = _known(outcome.step, outcome.step * images, record, log.last, log.figures)
        write_model(weights, config, recipe, target, trained=known, overwrite=True)
        say(f"{_count(outcome.step, 'step')} in {outcome.seconds:.0f} s; the model: {target}")
        say(f'ask with it: geoalign ask RASTER "…" --model {target}')
    return target


def _sets(recipe: Recipe, ranks: Ranks) -> tuple[RsfgDataset, RsfgDataset | None]:
    """Return the records to learn from and those held out; too few are told before the model is made, for minutes."""
    from training.data.dataset import RsfgDataset
    from training.loop.loader import Sampler

    dataset = RsfgDataset(recipe.data.train)
    held_out = RsfgDataset(recipe.data.validation) if recipe.data.validation else None
    Sampler(len(dataset), recipe.optim.batch, ranks.world, ranks.rank, recipe.run.seed)
    return dataset, held_out


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _student(recipe: Recipe, folder: Path, data: Mapping[str, Any], *, resumed: bool) -> tuple[Student, RunRecord]:
    """Return the model that a run starts from, and its record; one that goes on has all weights in its checkpoint."""
    from training.model.fit import check_start
    from training.model.start import start
    from training.model.student import Student

    if not resumed:
        departures = check_start(recipe)
        student, config = start(recipe, seed=recipe.run.seed)
        return student, RunRecord(recipe, config, data, departures)
    record = dataclasses.replace(read_run(folder), recipe=recipe, data=data)
    return Student(record.config, recipe), record


def _validating(validator: Validator, say: Callable[[str], None]) -> Callable[[nn.Module, int], dict[str, float]]:
    """Return the validation, which is announced and tells when images could not be read."""

    def validate(student: nn.Module, step: int) -> dict[str, float]:
        say(f"step {step}  validating")
        figures = validator(cast("Student", student), step)
        if validator.unread:
            say(f"warning: {_count(validator.unread, 'validation record')} could not be read and did not count")
        return figures

    return validate


def _log(
    folder: Path,
    last: Path | None,
    recipe: Recipe,
    config: ModelConfig,
    student: Student,
    say: Callable[[str], None],
    ranks: Ranks,
    steps: int,
) -> RunLog:
    """Return the log of rank 0, which begins where the folder's last checkpoint ends."""
    from training.loop import checkpoint
    from training.loop.flops import peak_flops
    from training.loop.logs import Meter, RunLog

    seen = checkpoint.position(last).samples if last else 0
    meter = Meter(config)
    meter.watch(student)
    return RunLog(
        folder, say, steps=steps, step=seen // (ranks.world * recipe.optim.batch), samples=seen, meter=meter,
        title=recipe.name, peak=peak_flops(str(ranks.device), recipe.optim.precision),
    )  # fmt: skip


def _skipped(loader: Loader) -> Iterator[str]:
    """Yield one line about the records that were left out, if some were."""
    if counts := loader.skipped:
        yield "skipped: " + ", ".join(f"{count} × {name}" for name, count in counts.items())


def _masters(engine: Engine, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Return the CLIP's float32 weights on rank 0, whatever the engine keeps; all ranks take part."""
    held = engine.module.state_dict()
    weights = {name: value.detach() for name, value in held.items() if name.startswith(_CLIP)}
    for name, state in engine.states():
        if ranks.rank == 0 and name in weights:
            weights[name] = state.weight.detach().to("cpu", copy=True)
    return {name.removeprefix(_CLIP): value for name, value in weights.items()}


def _describe(sets: Mapping[str, RsfgDataset | None], recipe: Recipe) -> dict[str, Any]:
    paths = {"training": recipe.data.train, "validation": recipe.data.validation}
    return {
        name: {"paths": [Path(path).name for path in paths[name]], "records": len(item), "digest": item.digest}
        for name, item in sets.items()
        if item is not None
    }


def _known(
    step: int, images: int, record: RunRecord, losses: Mapping[str, float], figures: Mapping[str, float]
) -> Trained:
    import torch

    from training.loop.export import Trained
    from training.loop.plots import LOSSES

    software = {"python": platform.python_version(), "torch": torch.__version__}
    own = {name: value for name, value in losses.items() if name in LOSSES}
    return Trained(step, images, record.data, own, figures, software, record.departures)


def export_run(folder: Path, target: Path) -> Path:
    """Write the model of a run's last checkpoint, also of one that is not finished.

    Args:
        folder: Of the run.
        target: The model folder to write.

    Raises:
        UsageError: The folder holds no run, or no checkpoint yet.
        CheckpointError: The checkpoint is damaged.
        ModelError: The weights are no numbers, or ``target`` is taken.
    """
    from training.loop import checkpoint
    from training.loop.export import write_model

    last = checkpoint.find(folder)
    if last is None:
        raise UsageError("holds no checkpoint of a run", path=folder, remedy="give the folder of geoalign-train run -o")
    record = read_run(folder)
    position, held = checkpoint.read(last)
    weights = {name.removeprefix(_CLIP): value for name, value in held.items() if name.startswith(_CLIP)}
    known = _known(position.step, position.samples, record, *last_metrics(folder, position.samples))
    return write_model(weights, record.config, record.recipe, target, trained=known)
