"""CLIP vision transformers of open_clip behind the :class:`~geoalign_core.models.encoder.Encoder` protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from geoalign_core.errors import ModelError
from geoalign_core.models.config import Dense, GroundResolution, ModelConfig, Preprocess, Prompts
from geoalign_core.models.dense import clip_features
from geoalign_core.models.encoder import RawFeatures, Readout

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
_DEFAULT_PROMPTS = Path(__file__).parent / "prompts-clip.json"


def default_prompts() -> Prompts:
    """Return the templates and contrast prompts of CLIP models that bring none of their own."""
    data = json.loads(_DEFAULT_PROMPTS.read_text(encoding="utf-8"))
    return Prompts(tuple(data["templates"]), tuple(data["contrast"]), float(data["logit_scale"]))


def config_from_folder(folder: Path) -> ModelConfig:
    """Describe a folder in open_clip's hub layout (``open_clip_config.json`` + ``open_clip_model.safetensors``).

    Raises:
        ModelError: The configuration is missing, unreadable, or of a tower without a patch grid.
    """
    try:
        data = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        model, pixels = data["model_cfg"], data.get("preprocess_cfg", {})
        vision = model["vision_cfg"]
        patch, size = vision["patch_size"], vision["image_size"]
        embed_dim = model["embed_dim"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "is not an open_clip model folder", path=folder, measured=f"{type(error).__name__}: {error}",
            remedy=f"give a folder with {CONFIG_NAME} and {WEIGHTS_NAME} of a vision transformer",
        ) from error  # fmt: skip
    return ModelConfig(
        name=folder.name,
        title=f"{folder.name} (local folder)",
        family="open_clip",
        embed_dim=embed_dim,
        patch_px=patch,
        vision_cfg=vision,
        text_cfg=model["text_cfg"] | {"quick_gelu": model.get("quick_gelu", False)},
        preprocess=Preprocess(
            mean=tuple(pixels.get("mean", (0.48145466, 0.4578275, 0.40821073))),
            std=tuple(pixels.get("std", (0.26862954, 0.26130258, 0.27577711))),
            image_px=size,
        ),
        gsd=GroundResolution(default_m=0.5, min_m=0.1, max_m=10.0),
        dense=Dense(mode="segearth", window_px=size, overlap_px=size // 2 // patch * patch, window_weight=0.0),
        prompts=default_prompts(),
        files=(),
        source=str(folder),
        licence="unknown",
        terms="see where the weights come from",
    )  # fmt: skip


def _build(config: ModelConfig, weights: Path) -> Any:  # noqa: ANN401 - open_clip has no public type for it
    import open_clip
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    text = dict(config.text_cfg)
    quick_gelu = text.pop("quick_gelu", False)
    try:
        model = open_clip.CLIP(config.embed_dim, dict(config.vision_cfg), text, quick_gelu=quick_gelu)
        model.load_state_dict(load_file(weights), strict=True)
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(
            "is not the weights file of this model", path=weights, measured=str(error).splitlines()[0],
            remedy="check the file, or download the model again",
        ) from error  # fmt: skip
    return model.eval()


class OpenClipEncoder:
    """A CLIP ViT: raw features are already in the joint space, so its readout is the identity.

    Args:
        config: The model's configuration.
        folder: Where :data:`WEIGHTS_NAME` lies.
        key: SHA-256 over configuration and weights.
        device: A torch device.
    """

    def __init__(self, config: ModelConfig, folder: Path, *, key: str, device: str = "cpu") -> None:
        import open_clip

        self.config = config
        self.key = key
        self._device = torch.device(device)
        self._model = _build(config, folder / WEIGHTS_NAME).to(self._device)
        self._context = int(config.text_cfg.get("context_length", 77))
        self._tokenize = open_clip.SimpleTokenizer(context_length=self._context)
        self._mean = torch.tensor(config.preprocess.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(config.preprocess.std, device=self._device).view(1, 3, 1, 1)
        eye = np.eye(config.embed_dim, dtype=np.float32)
        self.readout = Readout(
            patch=eye, window=eye * config.dense.window_weight, bias=np.zeros(config.embed_dim, np.float32)
        )

    @property
    def max_tokens(self) -> int:
        """Number of tokens that a text may have, start and end included."""
        return self._context

    def count_tokens(self, text: str) -> int:
        """Return the tokens that ``text`` takes, start and end included."""
        return len(self._tokenize.encode(text)) + 2

    def encode_text(self, texts: list[str]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        with torch.inference_mode():
            vectors = self._model.encode_text(self._tokenize(texts).to(self._device))
            return functional.normalize(vectors.float(), dim=-1).cpu().numpy()

    def encode_raw(self, images: NDArray[np.uint8]) -> RawFeatures:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        with torch.inference_mode():
            patches, image = clip_features(self._model.visual, self._pixels(images), self.config.dense.mode)
            return RawFeatures(patches.float().cpu().numpy(), image.float().cpu().numpy())

    def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self.encode_raw(images).window

    def encode_dense(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self.readout.joint(self.encode_raw(images))

    def _pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        batch = torch.from_numpy(images).to(self._device).float().div_(255.0)
        return (batch - self._mean) / self._std
