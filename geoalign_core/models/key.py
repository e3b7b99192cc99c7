"""What the features of images depend on, in one number."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoalign_core.models.config import ModelConfig


def feature_key(config: ModelConfig, digests: str, precision: str) -> str:
    """Return the SHA-256 over everything that decides a model's image features, and over nothing else.

    An index stores image features only, so prompts and the text tower stay out of it, and so do name, title, licence
    and where the model lies: another wording of the questions must not embed a raster again. The precision belongs
    to it, because bfloat16 turns patch vectors by more than the index's own int8 does.

    Args:
        config: The model's configuration with the user's choices in it.
        digests: SHA-256 of the weights, of several files one after the other.
        precision: ``float32``, ``bfloat16`` or ``int8``: the one chosen, not the one asked for.
    """
    decisive = {
        "embedded": config.family == "embedded",
        "vision": config.vision_cfg,
        "activation": config.activation,
        "mean": config.preprocess.mean,
        "std": config.preprocess.std,
        "dense": dataclasses.asdict(config.dense),
        "embed_dim": config.embed_dim,
        "patch_px": config.patch_px,
        "weights": digests,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def score_key(config: ModelConfig, digests: str) -> str:
    """Return the SHA-256 over everything that decides a model's scores of words, the precision excepted.

    Prompts belong to it, as another wording of the questions or another scale moves every score. bfloat16 and int8 do
    not: they scatter scores about those of float32 and leave in place what is counted of many.

    Args:
        config: The model's configuration with the user's choices in it.
        digests: As for :func:`feature_key`.
    """
    decisive = {
        "features": feature_key(config, digests, ""),
        "text": config.text_cfg,
        "prompts": dataclasses.asdict(config.prompts),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
