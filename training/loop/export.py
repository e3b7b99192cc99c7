"""The result of a run as a model folder: what ``geoalign ask --model FOLDER`` and ``models import`` take.

The weights are the student's CLIP in float32 under the internal layout's keys; what serves training only (teacher,
samplers, curricula) is not in them. The folder is written whole under a temporary name and then renamed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoalign_core.errors import ModelError
from geoalign_core.models.architecture import deduce
from geoalign_core.models.families import find_family
from geoalign_core.models.store import CONFIG_NAME, HEADER_KEY, PROVENANCE_NAME, WEIGHTS_NAME, sha256_of
from tiling.files import atomic_folder, fsync_path, write_error
from training.loop.card import CARD_NAME, model_card
from training.recipe_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from geoalign_core.models.config import ModelConfig
    from training.recipe import Recipe

_UNKNOWN_TERMS = "trained by its owner; the terms of the start model and of the data apply"


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of a run when its model is written."""

    step: int
    """Optimiser steps."""
    images: int = 0
    """Images seen, over all ranks."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Data sets: paths, records and digests."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Last logged losses."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Last validation."""
    software: Mapping[str, str] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    """In what the start model was not what the recipe is for."""


def write_model(
    weights: Mapping[str, torch.Tensor],
    config: ModelConfig,
    recipe: Recipe,
    folder: Path,
    *,
    trained: Trained | None = None,
    overwrite: bool = False,
) -> Path:
    """Write weights as a model folder.

    Args:
        weights: The CLIP's state dict. ZeRO's live weights are bfloat16: give the masters.
        config: Its configuration, from ``training.model.start``.
        recipe: What it was trained with.
        folder: The model folder to write; its name, or the run's around ``model``, is the model's.
        trained: What is known of the run, for the record and the card.
        overwrite: Whether a model folder that is already there may be replaced.

    Returns:
        The folder.

    Raises:
        ModelError: The weights hold NaN or infinity, or something is already there.
        OutputWriteError: The folder cannot be written; nothing is left behind.
    """
    trained = trained or Trained(0)
    tensors = _finite(weights, folder)
    _refuse_occupied(folder, overwrite=overwrite)
    config = _described(config, recipe, tensors, _name(folder))
    record = {
        "schema": 1, "source": config.source, "source_sha256": "", "layout": "openai", "family": config.family,
        "activation": config.activation, "activation_from": "family", "tables": config.text_cfg["tables"],
        "change": "", "dropped": [], "licence": config.licence,
        "training": {"recipe": to_dict(recipe), **dataclasses.asdict(trained)},
    }  # fmt: skip
    _write(folder, config, tensors, record, model_card(config, recipe, trained, tensors))
    return folder


def _finite(weights: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights as float32 on the CPU, contiguous, by key."""
    import torch

    own = {}
    for key, value in sorted(weights.items()):
        own[key] = value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).contiguous()
        if value.is_floating_point() and not bool(torch.isfinite(own[key]).all()):
            raise ModelError(
                "is not exported: the weights are no numbers", path=folder, measured=f"NaN or infinity in {key}",
                remedy="go back to an earlier checkpoint",
            )  # fmt: skip
    return own


def _refuse_occupied(folder: Path, *, overwrite: bool) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ModelError("is no folder that a model could be written as", path=folder, remedy="give another name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite or not (folder / PROVENANCE_NAME).is_file():
        raise ModelError("is already there", path=folder, remedy="give another folder")


def _name(folder: Path) -> str:
    stem = folder.resolve().name
    if stem == "model":  # the model of a run folder is called as the run
        stem = folder.resolve().parent.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:90] or "model"


def _described(config: ModelConfig, recipe: Recipe, tensors: Mapping[str, torch.Tensor], name: str) -> ModelConfig:
    """Return the configuration that the weights' own shapes and the recipe ask for."""
    heads = {"head_width": config.vision_cfg.get("head_width"), "text_heads": config.text_cfg.get("heads")}
    there = deduce(tensors, **heads)
    family = find_family(recipe.model.family)
    text = there.text_cfg | {"pad": config.text_cfg.get("pad", "zero")}
    image_px = there.image_px
    return dataclasses.replace(
        config, name=name, title=f"{family.title}, {recipe.name}", family=family.name, vision_cfg=there.vision_cfg,
        text_cfg=text, embed_dim=there.embed_dim, patch_px=there.patch_px,
        preprocess=dataclasses.replace(config.preprocess, image_px=image_px),
        dense=dataclasses.replace(
            config.dense, mode=recipe.model.dense_mode, window_px=image_px,
            overlap_px=image_px // 2 // there.patch_px * there.patch_px,
        ),
        files=(), source=f"geoalign-train: {recipe.name}", licence="not stated", terms=_UNKNOWN_TERMS,
    )  # fmt: skip


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a report holds
    """Return JSON's own kinds of values: NaN and infinity, which it has not, become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _write(
    folder: Path, config: ModelConfig, tensors: dict[str, torch.Tensor], record: dict[str, Any], card: str
) -> None:
    """Write the files beside the target, the record last, then rename the folder."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    header = {key: record[key] for key in ("family", "activation", "tables")}
    with atomic_folder(folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh = temporary / "new"
        fresh.mkdir()
        try:
            save_file(tensors, fresh / WEIGHTS_NAME, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
            (fresh / CONFIG_NAME).write_text(json.dumps(dataclasses.asdict(config), indent=1), encoding="utf-8")
            (fresh / CARD_NAME).write_text(card, encoding="utf-8")
            (fresh / WEIGHTS_NAME).chmod((fresh / CONFIG_NAME).stat().st_mode)  # safetensors' are the owner's alone
            digests = {item: sha256_of(fresh / item) for item in (CONFIG_NAME, WEIGHTS_NAME)}
            record |= {"source_sha256": digests[WEIGHTS_NAME], "sha256": digests}
            (fresh / PROVENANCE_NAME).write_text(json.dumps(_plain(record), indent=1), encoding="utf-8")
            for item in (*digests, CARD_NAME, PROVENANCE_NAME):
                fsync_path(fresh / item)
            if folder.exists():
                folder.rename(temporary / "old")
            try:
                fresh.rename(folder)
            except OSError:
                with contextlib.suppress(OSError):
                    (temporary / "old").rename(folder)
                raise
            fsync_path(folder.parent)
        except (OSError, SafetensorError) as error:
            raise write_error(folder, error) from error
