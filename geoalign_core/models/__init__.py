"""Models: configurations as data, loaders, and the one protocol that the rest of the house knows."""

from geoalign_core.models.config import ModelConfig
from geoalign_core.models.encoder import Encoder, RawFeatures, Readout
from geoalign_core.models.registry import (
    DEFAULT_MODEL,
    find_config,
    list_models,
    load_encoder,
    pull_model,
    verify_model,
)

__all__ = [
    "DEFAULT_MODEL", "Encoder", "ModelConfig", "RawFeatures", "Readout", "find_config", "list_models", "load_encoder",
    "pull_model", "verify_model",
]  # fmt: skip
