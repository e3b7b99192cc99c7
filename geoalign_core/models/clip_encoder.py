"""CLIP models behind the :class:`~geoalign_core.models.encoder.TorchEncoder` protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from geoalign_core.errors import ModelError
from geoalign_core.models import precision
from geoalign_core.models.clip import ClipModel
from geoalign_core.models.encoder import RawFeatures, Readout, check_images, require_text, warn_of_cuts
from geoalign_core.models.key import feature_key, score_key
from geoalign_core.models.tokens import Tokenizer
from geoalign_core.models.vocabulary import SHORT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.models.config import ModelConfig
    from geoalign_core.models.options import EncoderOptions

    _Reader = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

_PIXELS_PER_PASS = {"cpu": 8 * 224 * 224, "cuda": 256 * 224 * 224}
"""Images run in parts of at most this many pixels (one image at least). That bounds the activations, which are
largest in the MLP: three times B · N · 4 W numbers, 100 MB for an L/14 in float32 on a CPU, 1.6 GB in bfloat16 on a
GPU; an attention that is written out adds up to 4 N² bytes per head and image."""
_TEXTS_PER_PASS = 64


class ClipEncoder:
    """A CLIP model: raw features are already in the joint space, so its readout is the identity.

    The precision is the image tower's; texts are few and stay in float32.

    Args:
        config: The model's configuration.
        weights: A safetensors file in the internal layout (open_clip's keys, plus the extras).
        digest: SHA-256 of the file.
        device: A torch device.
        options: Precision and compilation; the other options are part of ``config`` by now.

    Raises:
        ModelError: The file is damaged or is not this model's.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Path,
        *,
        digest: str,
        device: str = "cpu",
        options: EncoderOptions,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.model = load_model(config, weights).to(self.device)
        self.model.visual.to(memory_format=torch.channels_last)
        self.precision = precision.prepare(self.model.visual, options.precision, self.device)
        self.key, self.score_key = feature_key(config, digest, self.precision), score_key(config, digest)
        text = config.text_cfg
        self.has_text = self.model.tables != "none"
        self._context = int(text.get("context_length", SHORT))
        self._has_short_path = text.get("tables") == "77+248"
        self._pad = str(text.get("pad", "zero"))
        mean, std = (torch.tensor(part, device=self.device).view(1, 3, 1, 1) for part in _moments(config))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._compiled = options.compile
        self._image, self._features = self._readers()
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
        return self._tokenizer().count(text)

    @torch.inference_mode()
    def encode_text(self, texts: list[str], *, path: str = "auto") -> NDArray[np.float32]:
        """Return (N, D) L2-normalised text vectors.

        Args:
            texts: Any number of texts; one that is too long is cut, with a warning that names the lost words.
            path: For models with tables for both lengths: ``short`` and ``long`` read every text that way, ``auto``
                reads texts of at most 77 tokens the short way and the others the long way, as FG-CLIP was trained.

        Raises:
            ModelError: The model has no text tower, or no such path.
        """
        self._check_text(path)
        vectors = np.zeros((len(texts), self.config.embed_dim), np.float32)
        lengths = [self.count_tokens(text) for text in texts]
        for long in (False, True):
            chosen = [index for index, length in enumerate(lengths) if self._reads_long(length, path) is long]
            chosen.sort(key=lengths.__getitem__)
            tokenizer = self._tokenizer(long=long)
            warn_of_cuts([texts[index] for index in chosen], tokenizer.fits)
            for start in range(0, len(chosen), _TEXTS_PER_PASS):
                part = chosen[start : start + _TEXTS_PER_PASS]
                tokens, _ = tokenizer.encode([texts[index] for index in part])
                rows = functional.normalize(self.model.text(tokens.to(self.device), long=long).float(), dim=-1)
                vectors[part] = rows.cpu().numpy()
        return vectors

    def _check_text(self, path: str) -> None:
        require_text(self)
        if path not in ("auto", "short", "long"):
            raise ModelError(f"no text path is called {path!r}", remedy="use auto, short or long")

    def _reads_long(self, length: int, path: str) -> bool:
        return self._has_short_path and (path == "long" or (path == "auto" and length > SHORT))

    def _tokenizer(self, *, long: bool = True) -> Tokenizer:
        short = self._has_short_path and not long
        return Tokenizer(SHORT if short else self._context, self._pad)

    @torch.inference_mode()
    def encode_raw(self, images: NDArray[np.uint8]) -> RawFeatures:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        patches, image = self._parts(self._features, torch.from_numpy(np.ascontiguousarray(images)))
        return RawFeatures(functional.normalize(patches, dim=1).cpu().numpy(), image.cpu().numpy())

    def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        vectors: NDArray[np.float32] = self.image_tensor(torch.from_numpy(np.ascontiguousarray(images))).cpu().numpy()
        return vectors

    def encode_dense(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self.readout.joint(self.encode_raw(images))

    @torch.inference_mode()
    def dense_tensor(self, images: torch.Tensor, *, normalise: bool = True) -> torch.Tensor:
        """See :class:`~geoalign_core.models.encoder.TorchEncoder`."""
        patches, image = self._parts(self._features, images)
        if weight := self.config.dense.window_weight:
            patches = functional.normalize(patches, dim=1) + weight * image[:, :, None, None]
        return functional.normalize(patches, dim=1) if normalise or weight else patches

    @torch.inference_mode()
    def image_tensor(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`~geoalign_core.models.encoder.TorchEncoder`."""
        return self._parts(self._image, images)[0]

    def _readers(self) -> tuple[_Reader, _Reader]:
        """Return what reads image vectors, and what reads patch and image vectors, of normalised pixels."""
        model, dense = self.model, self.config.dense

        def image(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (functional.normalize(model.image(pixels).float(), dim=-1),)

        def features(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return model.features(pixels, dense.mode, dense.cls_bias, normalise=False)

        if not self._compiled:
            return image, features
        return precision.compiled(image, self.device), precision.compiled(features, self.device)

    def _parts(self, read: _Reader, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run uint8 images (B, 3, H, W) in parts of bounded memory; uint8 is what travels to the device."""
        check_images(images)
        step = max(1, _PIXELS_PER_PASS.get(self.device.type, 0) // max(1, images.shape[2] * images.shape[3]))
        chosen = precision.in_full_steps(read, step) if self._compiled else read
        parts = [chosen(self._pixels(images[start : start + step])) for start in range(0, max(1, len(images)), step)]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(columns) for columns in zip(*parts, strict=True))

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Return ``(x / 255 − mean) / std`` as one multiply-add, channels last, on the device."""
        batch = images.to(self.device, non_blocking=True)
        return torch.addcmul(self._shift, batch.to(torch.float32, memory_format=torch.channels_last), self._scale)


def load_model(config: ModelConfig, weights: Path) -> ClipModel:
    """Build the model without allocating it and fill it with the file's tensors, in float32, for inference.

    Raises:
        ModelError: The file is damaged, or a tensor is missing, left over or of another shape.
    """
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        model = ClipModel(config)
    try:
        with safe_open(weights, framework="pt") as file:
            tensors = {name: _float32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a dict
        model.load_state_dict(tensors, strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            "is not the weights file of this model", path=weights, measured=" ".join(str(error).split())[:300],
            remedy="check the file, or import or pull the model again",
        ) from error  # fmt: skip
    return model.eval().requires_grad_(False)


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _moments(config: ModelConfig) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    return config.preprocess.mean, config.preprocess.std
