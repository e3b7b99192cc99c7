"""From a trained head to a model folder, and back to a loaded encoder.

A model folder holds towers, vocabulary, head, description and record side by side, and can be given as ``--model``
wherever a model is asked for. The package keeps its own weights and description apart.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from geoalign_core.errors import ModelError
from geoalign_core.models.config import CONFIG_DIR, ModelConfig, WeightFile
from geoalign_core.models.convert import label
from geoalign_core.models.embedded import HEAD_NAME, TOWERS_NAME, VOCAB_NAME, EmbeddedEncoder
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.registry import WEIGHTS_DIR, load_encoder, locate
from geoalign_core.models.retrained import write_description
from geoalign_core.models.store import CONFIG_NAME, sha256_of
from tiling.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.embedded.align import Head

MODEL_NAME = "geoalign-s"
RETRAINED_TITLE = "Learnt anew by geoalign-train align (DINOv2 ViT-S/14 + MiniLM-L6)"
PACKAGE = CONFIG_DIR.parent


def is_package(model: Path) -> bool:
    """Return whether a model folder is the package's own."""
    return model.resolve() == PACKAGE.resolve()


def config_path(model: Path) -> Path:
    """Return where a model folder keeps its description."""
    return CONFIG_DIR / f"{MODEL_NAME}.json" if is_package(model) else model / CONFIG_NAME


def weights_of(model: Path) -> Path:
    """Return where a model folder keeps its weights."""
    return WEIGHTS_DIR if is_package(model) else model


def load_config(model: Path) -> ModelConfig:
    """Read a model folder's description, or make one after the package's where the folder has none yet.

    Raises:
        ModelError: The folder has one that is damaged, or of another kind of model.
    """
    own = ModelConfig.load(config_path(PACKAGE))
    if is_package(model):
        return own
    if config_path(model).exists():
        found = locate(str(model.absolute())).config
        if found.family != own.family:
            raise ModelError("holds a model of another kind", path=model, remedy="give another folder")
        return found
    return replace(
        own, name=label(model.resolve().name), title=RETRAINED_TITLE,
        source="geoalign-train align", licence="Apache-2.0 (towers)",
        terms="Head and changes were learnt from data of the user's own, whose terms hold for them.",
    )  # fmt: skip


def copy_towers(model: Path) -> None:
    """Copy the packaged towers and vocabulary into a model folder that has none."""
    weights = weights_of(model)
    for name in (TOWERS_NAME, VOCAB_NAME):
        if not (weights / name).exists() and (WEIGHTS_DIR / name).exists():
            with atomic_file(weights / name) as path:
                shutil.copyfile(WEIGHTS_DIR / name, path)


def write_head(
    head: Head, weights: Path, *, changes: Mapping[str, torch.Tensor] | None = None, provenance: dict[str, str]
) -> Path:
    """Write the learnt part as float16.

    Args:
        head: The trained head.
        weights: Folder of the weights.
        changes: Low-rank changes of the towers, see :meth:`training.embedded.changes.TunedTowers.changes`.
        provenance: Strings for the file's metadata.
    """
    from safetensors.torch import save

    tensors = {
        "image.weight": head.image.weight, "image.bias": head.image.bias,
        **{f"text.{name}": value for name, value in head.text.named_parameters()},
        **(changes or {}),
    }  # fmt: skip
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in tensors.items()}
    payload = save(half, metadata={"geoalign": json.dumps(provenance, sort_keys=True)})
    with atomic_file(weights / HEAD_NAME, overwrite=True) as path:
        path.write_bytes(payload)
    return weights / HEAD_NAME


def write_config(config: ModelConfig, model: Path, *, provenance: dict[str, str]) -> ModelConfig:
    """Write the description with the digests and sizes of the files as they are now, and a folder's record.

    Args:
        config: The description.
        model: The model folder.
        provenance: Strings for the record; the package's are in its head's metadata alone.
    """
    if not is_package(model):
        return write_description(model, config, provenance)
    files = tuple(
        WeightFile(name, sha256_of(WEIGHTS_DIR / name), (WEIGHTS_DIR / name).stat().st_size)
        for name in (TOWERS_NAME, HEAD_NAME, VOCAB_NAME)
    )
    config = replace(config, files=files)
    with atomic_file(config_path(model), overwrite=True) as path:
        path.write_text(json.dumps(asdict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return config


def load_model(model: Path) -> EmbeddedEncoder:
    """Load a model folder in float32 on the CPU, after checking its files.

    Raises:
        ModelError: A file is missing, damaged or does not fit, or it is a model of another kind.
    """
    spec = MODEL_NAME if is_package(model) else str(model.absolute())
    encoder = load_encoder(spec, device="cpu", options=EncoderOptions(precision="float32"))
    if not isinstance(encoder, EmbeddedEncoder):
        raise ModelError(
            "is no model of the embedded kind", path=model, remedy="measure others with: geoalign-eval suite"
        )  # fmt: skip
    return encoder
