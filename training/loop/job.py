"""A run from its recipe to its model: what ``geoalign-train run`` and ``export`` carry out.

A run's folder holds ``recipe.yaml`` and ``run.json`` (what is trained on what), ``checkpoints/``, ``metrics.csv``,
``curves.png``, ``tensorboard/``, and at the end ``model/``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geoalign_core.models.config import ModelConfig
from tiling.errors import OutputExistsError, UsageError
from tiling.files import atomic_file, write_error
from tiling.progress import silent
from training.recipe_file import RUN_RECIPE, build, dump_recipe, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn

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

RECIPE, RUN, MODEL, LOCK = "recipe.yaml", "run.json", "model", ".lock"
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
    from training.data.dataset import RsfgDataset
    from training.loop import checkpoint
    from training.loop.engine import make_engine
    from training.loop.loader import Loader
    from training.loop.schedule import total_steps
    from training.loop.trainer import Trainer
    from training.loop.validate import Validator

    dataset = RsfgDataset(recipe.data.train)
    held_out = RsfgDataset(recipe.data.validation) if recipe.data.validation else None
    say(f"{recipe.name}: {_count(len(dataset), 'record')}; making the model")
    last = checkpoint.find(folder)
    student, config = _student(recipe, folder, resumed=last is not None)
    loader = Loader(dataset, recipe, config, rank=ranks.rank, world=ranks.world, workers=recipe.data.workers)
    data = _describe({"training": dataset, "validation": held_out}, recipe)
    if ranks.rank == 0 and last is None:  # a run that goes on stays what it was
        _write_run(folder, recipe, config, data, options.notes)
    steps, images = total_steps(recipe.optim, len(loader)), ranks.world * recipe.optim.batch
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

        known = _known(outcome.step, outcome.step * images, data, log.last, log.figures)
        write_model(weights, config, recipe, target, trained=known, overwrite=True)
        say(f"{_count(outcome.step, 'step')} in {outcome.seconds:.0f} s; the model: {target}")
        say(f'ask with it: geoalign ask RASTER "…" --model {target}')
    return target


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _student(recipe: Recipe, folder: Path, *, resumed: bool) -> tuple[Student, ModelConfig]:
    """Return the model that a run starts from; one that goes on has all its weights in its checkpoint."""
    from training.model.start import start
    from training.model.student import Student

    if not resumed:
        return start(recipe, seed=recipe.run.seed)
    config = read_run(folder)[1]
    return Student(config, recipe), config


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
    counts = {name: count for name, count in loader.skipped.items() if count}
    if counts:
        yield "skipped: " + ", ".join(f"{count} {name}" for name, count in counts.items())


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
    step: int, images: int, data: Mapping[str, Any], losses: Mapping[str, float], figures: Mapping[str, float]
) -> Trained:
    import torch

    from training.loop.export import Trained
    from training.loop.plots import LOSSES

    software = {"python": platform.python_version(), "torch": torch.__version__}
    own = {name: value for name, value in losses.items() if name in LOSSES}
    return Trained(step, images, data, own, figures, software)


def _write_run(
    folder: Path, recipe: Recipe, config: ModelConfig, data: Mapping[str, Any], notes: Mapping[str, str]
) -> None:
    """Write down what the run is, so that its checkpoints can be exported without its data or start model."""
    description = {"recipe": to_dict(recipe), "config": dataclasses.asdict(config), "data": data}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / RECIPE, overwrite=True) as path:
            path.write_text(dump_recipe(recipe, notes=notes), encoding="utf-8")
        with atomic_file(folder / RUN, overwrite=True) as path:
            path.write_text(json.dumps(description, indent=1), encoding="utf-8")
    except OSError as error:
        raise write_error(folder, error) from error


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
    recipe, config, data = read_run(folder)
    position, held = checkpoint.read(last)
    weights = {name.removeprefix(_CLIP): value for name, value in held.items() if name.startswith(_CLIP)}
    losses, figures = _last_metrics(folder, position.samples)
    known = _known(position.step, position.samples, data, losses, figures)
    return write_model(weights, config, recipe, target, trained=known)


def read_run(folder: Path) -> tuple[Recipe, ModelConfig, dict[str, Any]]:
    """Return what a run's folder says of it: recipe, model and data sets.

    Raises:
        UsageError: The description is missing or damaged.
    """
    try:
        description = json.loads((folder / RUN).read_text(encoding="utf-8"))
        recipe = build(description["recipe"], RUN_RECIPE, where=str(folder / RUN))
        return recipe, ModelConfig.from_dict(description["config"]), dict(description["data"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "is not a run's description", path=folder / RUN, measured=" ".join(str(error).split())[:120],
            remedy="give the folder of a run whose run.json is whole",
        ) from error  # fmt: skip


def _last_metrics(folder: Path, samples: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the last logged losses and validation figures up to so many images."""
    from training.loop.logs import METRICS
    from training.loop.plots import VALIDATION, read_metrics

    if not (folder / METRICS).is_file():
        return {}, {}
    last = {}
    for name, (seen, values) in read_metrics(folder / METRICS, by="samples").items():
        before = [value for at, value in zip(seen, values, strict=True) if at <= samples]
        if before:
            last[name] = before[-1]
    figures = {name.removeprefix(VALIDATION): value for name, value in last.items() if name.startswith(VALIDATION)}
    return {name: value for name, value in last.items() if not name.startswith(VALIDATION)}, figures
