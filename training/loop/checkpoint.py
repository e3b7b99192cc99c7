"""Checkpoints that survive whatever ends a run, and that any engine on any number of ranks can go on from.

``FOLDER/checkpoints/step-00001234/`` holds ``weights.safetensors`` (float32 masters, frozen weights and buffers),
``moments.safetensors`` (AdamW's, as ``NAME.mean`` and ``NAME.square``), ``random.safetensors`` (generators, per rank)
and ``state.json``. The file ``latest`` beside them names the newest. Rank 0 writes under another name, flushes and
renames, so a folder of that name is whole; every rank reads.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tiling.errors import GeoAlignError
from tiling.files import atomic_file, atomic_folder, fsync_path, write_error
from training.loop import random_state
from training.loop.engine import State
from training.loop.failures import CheckpointError
from training.recipe import ModelRecipe, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from training.loop.engine import Engine

_FORMAT = 1
_STEP = re.compile(r"step-(\d{8,})")
# What may differ between a run and its continuation; the rest of a recipe decides what is learned. The data are
# compared by the digest of their records, and where the run started from no longer matters.
_FREE = re.compile(
    r"name|model\.init|start\..*|run\.(?!seed).*|data\.(train|validation|workers)|optim\.(batch|checkpointing)"
)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come."""

    step: int
    samples: int
    """Images seen by all ranks together"""
    world: int = 1
    batch: int = 1
    """Images per rank and step"""
    data: str = ""
    """Digest of the records"""


# ---- writing


def save(folder: Path, engine: Engine, recipe: Recipe, position: Position) -> Path:
    """Write a checkpoint, then remove the oldest beyond ``recipe.run.keep``; all ranks must call it.

    Args:
        folder: The run's.
        engine: Weights and moments.
        recipe: Written beside them; a continuation is compared with it.
        position: How far the run has come.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: On every rank, when rank 0 cannot write. Earlier checkpoints are as they were.
    """
    weights, moments = _whole(engine)
    dice = random_state.collect(engine.ranks)
    target = folder / "checkpoints" / f"step-{position.step:08d}"
    error: GeoAlignError | None = None
    if engine.ranks.rank == 0:
        state = {
            "format": _FORMAT,
            **asdict(position),
            "updates": engine.updates,
            "engine": type(engine).__name__,
            "torch": torch.__version__,
            "recipe": asdict(recipe),
        }
        try:
            _write(target, {"weights": weights, "moments": moments, "random": dice}, state)
            _prune(target, max(recipe.run.keep, 1))
        except GeoAlignError as failure:
            error = failure
    if engine.ranks.any(error is not None):
        raise error or CheckpointError("rank 0 could not write it", path=target, remedy="see its message")
    return target


def _whole(engine: Engine) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copy weights and moments to the memory of rank 0; all ranks take part."""
    weights: dict[str, Tensor] = {}
    moments: dict[str, Tensor] = {}
    for name, state in engine.states():
        if engine.ranks.rank == 0:
            weights[name] = _copy(state.weight)
            moments |= {f"{name}.mean": _copy(state.mean), f"{name}.square": _copy(state.square)}
    if engine.ranks.rank == 0:
        weights |= {name: _copy(value) for name, value in _rest(engine, weights).items()}
    return weights, moments


def _rest(engine: Engine, trained: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what the student holds besides its trained weights: frozen ones, a teacher, buffers."""
    held = engine.module.state_dict()
    return {name: value for name, value in held.items() if name not in trained and isinstance(value, torch.Tensor)}


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()


def _write(target: Path, files: Mapping[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    need = sum(value.nbytes for tensors in files.values() for value in tensors.values())
    try:
        with atomic_folder(target.parent, prefix=f".{target.name}.") as work:
            free = shutil.disk_usage(work).free
            if need > free:
                raise CheckpointError(
                    "no space left for a checkpoint",
                    path=target,
                    measured=f"{need / 1e9:.3g} GB needed, {free / 1e9:.3g} GB free",
                    remedy="free some space; the earlier checkpoints are kept",
                )
            fresh = work / "fresh"
            fresh.mkdir()
            for name, tensors in files.items():
                save_file(tensors, fresh / f"{name}.safetensors")
            (fresh / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
            for path in (*fresh.iterdir(), fresh):
                fsync_path(path)
            if target.exists():  # of a run that was continued from an earlier checkpoint
                target.rename(work / "stale")
            fresh.rename(target)
            fsync_path(target.parent)
        with atomic_file(target.parent / "latest", overwrite=True) as pointer:
            pointer.write_text(f"{target.name}\n", encoding="utf-8")
    except SafetensorError as error:
        raise write_error(target, error) from error


def _prune(newest: Path, keep: int) -> None:
    earlier = [path for number, path in _steps(newest.parent) if path != newest and number < _number(newest)]
    for path in earlier[: max(len(earlier) - keep + 1, 0)]:
        shutil.rmtree(path, ignore_errors=True)


# ---- reading


def find(folder: Path) -> Path | None:
    """Return the checkpoint that ``latest`` names, or the newest whole one; None where there is none."""
    parent = folder / "checkpoints"
    pointer = parent / "latest"
    if pointer.is_file():
        named = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if _STEP.fullmatch(named) and (parent / named / "state.json").is_file():
            return parent / named
    steps = list(_steps(parent))
    return steps[-1][1] if steps else None


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in (folder / "checkpoints").glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def load(path: Path, engine: Engine, recipe: Recipe, *, data: str = "") -> Position:
    """Put a checkpoint into an engine: masters, moments, AdamW's count, buffers and this rank's generators.

    Args:
        path: Folder of the checkpoint.
        engine: Of any kind and any number of ranks; every rank calls it.
        recipe: Must be the checkpoint's, but for what does not decide what is learned and the batch per rank.
        data: Digest of the records; must be the checkpoint's.

    Raises:
        CheckpointError: It is damaged, or of another recipe, model or data.
    """
    with _whole_or_damaged(path):
        state, found = _state(path)
        _compare(path, state, recipe, data)
        with (
            safe_open(path / "weights.safetensors", "pt") as weights,
            safe_open(path / "moments.safetensors", "pt") as moments,
            safe_open(path / "random.safetensors", "pt") as dice,
        ):
            _fill(path, engine, weights, moments)
            engine.restored(int(state["updates"]))
            random_state.restore(dice, engine.ranks, seed=recipe.run.seed + found.step)
    return found


def read(path: Path) -> tuple[Position, dict[str, Tensor]]:
    """Return how far a checkpoint's run had come, and its weights.

    Raises:
        CheckpointError: It is damaged.
    """
    with _whole_or_damaged(path):
        return _state(path)[1], load_file(path / "weights.safetensors")


def position(path: Path) -> Position:
    """Return how far a checkpoint's run had come.

    Raises:
        CheckpointError: It is damaged.
    """
    with _whole_or_damaged(path):
        return _state(path)[1]


def _state(path: Path) -> tuple[dict[str, Any], Position]:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    found = Position(**{name: state[name] for name in Position.__dataclass_fields__})
    if not (isinstance(found.data, str) and min(map(int, (found.step, found.samples))) >= 0):
        raise ValueError("state.json holds no position")
    return state, found


@contextlib.contextmanager
def _whole_or_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "is damaged",
            path=path,
            measured=" ".join(f"{type(error).__name__}: {error}".split())[:120],
            remedy="remove this folder and run the same command again: it takes the checkpoint before",
        ) from error


def _fill(path: Path, engine: Engine, weights: Any, moments: Any) -> None:  # noqa: ANN401 - safetensors has no types
    trained = {name: state.weight.shape for name, state in engine.states()}
    rest = _rest(engine, trained)
    shapes = {name: tuple(shape) for name, shape in trained.items()}
    shapes |= {name: tuple(value.shape) for name, value in rest.items()}
    found = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 - no mapping
    if wrong := sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)):
        raise CheckpointError(
            "is of another model",
            path=path,
            measured=f"{wrong[0]} is {found.get(wrong[0])} there, {shapes.get(wrong[0])} here"
            + (f", and {len(wrong) - 1} more" if wrong[1:] else ""),
            remedy="start a new run in another folder, with this one's model as model.init",
        )
    with torch.no_grad():
        for name, value in rest.items():
            value.copy_(weights.get_tensor(name))
        for name in trained:
            mean, square = (moments.get_tensor(f"{name}.{part}") for part in ("mean", "square"))
            engine.restore(name, State(weights.get_tensor(name), mean, square))


def _compare(path: Path, state: dict[str, Any], recipe: Recipe, data: str) -> None:
    unset = Recipe(name="", model=ModelRecipe(init=""))
    plain, here = (_flat(json.loads(json.dumps(asdict(item)))) for item in (unset, recipe))
    there = plain | _flat(state["recipe"])  # a key that is younger than the run changed nothing in it, as by default
    differ = [
        f"{name} is {json.dumps(there.get(name))} there, {json.dumps(here.get(name))} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name) and not _FREE.fullmatch(name)
    ]
    if state["data"] != data:
        differ.append(f"the records' digest is {state['data'][:12] or 'none'} there, {data[:12] or 'none'} here")
    if differ:
        raise CheckpointError(
            "is of another run",
            path=path,
            measured="; ".join(differ[:4]) + (f"; and {len(differ) - 4} more" if differ[4:] else ""),
            remedy="go on with the recipe and the data it was made with, or start a new run in another folder",
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _steps(parent: Path) -> Iterator[tuple[int, Path]]:
    """Yield whole checkpoints, oldest first."""
    paths = parent.iterdir() if parent.is_dir() else iter(())
    whole = [path for path in paths if _STEP.fullmatch(path.name) and (path / "state.json").is_file()]
    yield from sorted((_number(path), path) for path in whole)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[2])
