"""What a run is, written down in its folder: ``run.json`` for programs, ``recipe.yaml`` for people.

With it a run's checkpoints can be exported without its data or its start model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from geoalign_core.models.config import ModelConfig
from tiling.errors import UsageError
from tiling.files import atomic_file, write_error
from training.recipe_file import RUN_RECIPE, build, dump_recipe, to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.recipe import Recipe

RECIPE, RUN = "recipe.yaml", "run.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run trains, from what, on what."""

    recipe: Recipe
    config: ModelConfig
    """The student's."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Data sets by use: names of their paths, records and digest."""
    departures: tuple[str, ...] = ()
    """In what the start model is not what the recipe is for."""


def write_run(folder: Path, record: RunRecord, notes: Mapping[str, str]) -> None:
    """Write both files.

    Args:
        folder: Of the run; made where it is missing.
        record: The run.
        notes: Sources of the recipe's values, by ``section.key``.

    Raises:
        OutputWriteError: The folder cannot be written.
    """
    description = {
        "recipe": to_dict(record.recipe), "config": asdict(record.config), "data": record.data,
        "departures": record.departures,
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / RECIPE, overwrite=True) as path:
            path.write_text(dump_recipe(record.recipe, notes=notes), encoding="utf-8")
        with atomic_file(folder / RUN, overwrite=True) as path:
            path.write_text(json.dumps(description, indent=1), encoding="utf-8")
    except OSError as error:
        raise write_error(folder, error) from error


def read_run(folder: Path) -> RunRecord:
    """Return what a run's folder says of it.

    Raises:
        UsageError: The description is missing or damaged.
    """
    try:
        description = json.loads((folder / RUN).read_text(encoding="utf-8"))
        recipe = build(description["recipe"], RUN_RECIPE, where=str(folder / RUN))
        config, data = ModelConfig.from_dict(description["config"]), dict(description["data"])
        return RunRecord(recipe, config, data, tuple(map(str, description.get("departures", ()))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "is not a run's description", path=folder / RUN, measured=" ".join(str(error).split())[:120],
            remedy="give the folder of a run whose run.json is whole",
        ) from error  # fmt: skip


def last_metrics(folder: Path, samples: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the last logged losses and validation figures up to so many images; nothing where nothing was logged.

    Raises:
        UsageError: The run's table of metrics is damaged.
    """
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
