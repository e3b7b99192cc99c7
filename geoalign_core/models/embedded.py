"""The model that ships in the package: DINOv2 ViT-S/14 and MiniLM-L6 towers in int8, joined by a learnt head.

With c the L2-normalised class token of a window and p_i its L2-normalised patch tokens,

    image  = L2(W_c c + W_p m + b),   m = L2(mean_i p_i)
    dense_i = L2(W_p p_i + w W_c c + b)           w = ``config.dense.window_weight``
    text   = L2(V_2 gelu(V_1 t + a_1) + a_2)      t = the sentence vector

so a patch's joint vector is linear in its raw features. The positional table (37 × 37) is resized to the window's
grid by bicubic interpolation without antialiasing, in training and here alike: there is only this code.

The image tower runs in the precision of :mod:`geoalign_core.models.precision`. The text tower, a few milliseconds
per question, stays float32.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from geoalign_core.errors import ModelError
from geoalign_core.models.encoder import RawFeatures, Readout, check_images, warn_of_cuts
from geoalign_core.models.key import feature_key, score_key
from geoalign_core.models.lowrank import merge
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.positions import Grids
from geoalign_core.models.precision import attend, compiled, in_full_steps, prepare
from geoalign_core.models.quantise import unpack
from geoalign_core.models.sentence import SentenceEncoder, load_tokenizer
from geoalign_core.models.vit import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geoalign_core.models.config import ModelConfig

TOWERS_NAME = "geoalign-s-towers.safetensors"
HEAD_NAME = "geoalign-s-head.safetensors"
VOCAB_NAME = "geoalign-s-vocab.txt"
IMAGE_CHANGE, TEXT_CHANGE = "image_change.", "text_change."
"""Prefixes, in the head's file, of what learning changed inside the towers."""
_TOKENS_PER_PASS = {"cpu": 2100, "cuda": 66_000}
"""Images are run in parts of about this many patches: 8 and 256 windows of 224 px. On a CPU a part's largest
activation (fp32, 1536 wide) is then 13 MB: beyond 32 MB the allocator asks the system for fresh pages every time,
which was measured to cost a fifth of the speed. On a GPU it is 0.4 GB."""


class ImageTower(nn.Module):
    """A timm vision transformer that takes any multiple of its patch size.

    Args:
        timm_model_name: Name of the timm model; it must have a class token and learnt positions.
    """

    def __init__(self, timm_model_name: str) -> None:
        super().__init__()
        import timm

        self.vit = timm.create_model(timm_model_name, pretrained=False, num_classes=0, dynamic_img_size=True)
        self.grids = Grids()
        self.vit.register_load_state_dict_post_hook(lambda *_: self.grids.forget())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the tower once.

        Args:
            images: (B, 3, H, W) normalised.

        Returns:
            Class tokens (B, C) and patch tokens (B, C, h, w) after the last norm, each L2-normalised.
        """
        x = self.finish(self.hidden(images, 0), 0)
        grid = [side // patch for side, patch in zip(images.shape[2:], self.vit.patch_embed.patch_size, strict=True)]
        return x[:, 0], x[:, 1:].transpose(1, 2).unflatten(2, grid)

    def hidden(self, images: torch.Tensor, blocks: int) -> torch.Tensor:
        """Return (B, 1 + h·w, C): the tokens of normalised images (B, 3, H, W) behind the first ``blocks`` blocks."""
        x = run(self.vit.patch_embed.proj, images)
        batch, width, rows, cols = x.shape
        x = x.flatten(2).transpose(1, 2).to(self.vit.norm.weight.dtype)
        x = torch.cat([self.vit.cls_token.expand(batch, 1, width), x], dim=1)
        x = x + self.grids.get(self.vit.pos_embed[0], rows, cols)
        for block in self.vit.blocks[:blocks]:
            x = _block(block, x)
        return x

    def finish(self, x: torch.Tensor, blocks: int) -> torch.Tensor:
        """Run the blocks behind the first ``blocks`` and the last norm; return (B, 1 + h·w, C), L2-normalised."""
        for block in self.vit.blocks[blocks:]:
            x = _block(block, x)
        return functional.normalize(self.vit.norm(x), dim=-1)


def _block(block: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - timm's block
    """Run one of timm's blocks: ``x + γ₁ attention(LN(x))``, then ``x + γ₂ MLP(LN(x))``."""
    batch, tokens, _ = x.shape
    attention, mlp = block.attn, block.mlp
    qkv = run(attention.qkv, block.norm1(x)).view(batch, tokens, 3, attention.num_heads, attention.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    update = run(attention.proj, attend(q, k, v).transpose(1, 2).flatten(2))
    x = torch.addcmul(x, update.to(x.dtype), block.ls1.gamma)
    update = run(mlp.fc2, mlp.act(run(mlp.fc1, block.norm2(x))))
    return torch.addcmul(x, update.to(x.dtype), block.ls2.gamma)


class TextHead(nn.Module):
    """Sentence vectors into the joint space: linear, GELU, linear.

    Args:
        width: Width of the sentence vectors.
        hidden: Width between the two linear layers.
        embed_dim: Width of the joint space.
    """

    def __init__(self, width: int, hidden: int, embed_dim: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, embed_dim)

    def forward(self, sentences: torch.Tensor) -> torch.Tensor:
        """Return (N, D) joint vectors, not yet normalised, of (N, width) sentence vectors."""
        return self.outer(functional.gelu(self.inner(sentences)))


class Towers:
    """Both frozen towers with their tokenizer and pixel normalisation: everything before the head.

    Args:
        config: The model's configuration.
        weights_dir: Where :data:`TOWERS_NAME` and :data:`VOCAB_NAME` lie.
        device: A torch device.
        changes: Low-rank changes of both towers, under :data:`IMAGE_CHANGE` and :data:`TEXT_CHANGE`; see
            :mod:`geoalign_core.models.lowrank`. None leaves the towers as they were pretrained.
        precision: The image tower's, one of :data:`geoalign_core.models.precision.PRECISIONS`.
        compile: Whether ``torch.compile`` fuses the image tower.

    Raises:
        ModelError: A file is missing or does not fit the configuration, or the precision is unknown.
    """

    def __init__(
        self, config: ModelConfig, weights_dir: Path, *, changes: Mapping[str, torch.Tensor] | None = None,
        device: str = "cpu", precision: str = "float32", compile: bool = False,  # noqa: A002 - as in the options
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        path = self._path = Path(weights_dir) / TOWERS_NAME
        tensors = {name: torch.from_numpy(value) for name, value in unpack(read_tensors(path)).items()}
        text = config.text_cfg
        vocab = Path(weights_dir) / VOCAB_NAME
        try:
            self.tokenizer = load_tokenizer(vocab)
        except (OSError, ValueError) as error:
            raise ModelError("is not the model's vocabulary", path=vocab, measured=str(error)) from error
        self.image = ImageTower(config.vision_cfg["timm_model_name"])
        self.text = SentenceEncoder(
            text["vocab_size"], text["width"], text["layers"], text["heads"], text["hidden"], text["context_length"]
        )
        load_strictly(self.image.vit, tensors, "image.", path)
        load_strictly(self.text, tensors, "text.", path)
        own = (IMAGE_CHANGE, TEXT_CHANGE)
        self._changes = {name: value for name, value in (changes or {}).items() if name.startswith(own)}
        merge(self.image.vit, self._changes, IMAGE_CHANGE, path)
        merge(self.text, self._changes, TEXT_CHANGE, path)
        for tower in (self.image, self.text):
            tower.to(self.device).eval().requires_grad_(False)
        self.precision = prepare(self.image, precision, self.device)
        self._compiled = compile
        self._forward = compiled(self.image, self.device) if compile else self.image
        self._patch_px = config.patch_px
        self._mean = torch.tensor(config.preprocess.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(config.preprocess.std, device=self.device).view(1, 3, 1, 1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what raw features come from: the towers' file, their changes and the precision."""
        digest = hashlib.sha256(self._path.read_bytes())
        for name, value in sorted(self._changes.items()):
            digest.update(name.encode() + value.numpy().tobytes())
        digest.update(self.precision.encode())
        return digest.hexdigest()

    @torch.inference_mode()
    def images(self, images: NDArray[np.uint8]) -> RawFeatures:
        """Return the raw features of uint8 images (B, 3, H, W)."""
        check_images(images)
        step = self.images_per_pass(images.shape[2], images.shape[3])
        parts = []
        for start in range(0, max(1, len(images)), step):
            part = np.require(images[start : start + step], requirements=["C", "W"])
            window, patches = self.forward(torch.from_numpy(part).to(self.device))
            parts.append((window.cpu().numpy(), patches.cpu().numpy()))
        return RawFeatures(np.concatenate([part[1] for part in parts]), np.concatenate([part[0] for part in parts]))

    @torch.inference_mode()
    def tensors(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class tokens (B, C) and patch tokens (B, C, h, w) of uint8 images (B, 3, H, W) on the device."""
        parts = [self.forward(part) for part in images.split(self.images_per_pass(*images.shape[2:]))]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def images_per_pass(self, height_px: int, width_px: int) -> int:
        """Return how many images of a size are run together."""
        tokens = 1 + (height_px // self._patch_px) * (width_px // self._patch_px)
        return max(1, _TOKENS_PER_PASS.get(self.device.type, _TOKENS_PER_PASS["cpu"]) // tokens)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the image tower once over uint8 images on the device: see :class:`ImageTower`."""
        pixels = self.normalised(images)
        if not self._compiled:
            return self._forward(pixels)
        window, patches = in_full_steps(self._forward, self.images_per_pass(*images.shape[2:]))(pixels)
        return window, patches

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images (B, 3, H, W) on the device as the image tower takes them."""
        return images.float().div_(255.0).sub_(self._mean).div_(self._std)

    def sentences(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (N, width) L2-normalised sentence vectors."""
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        vectors: NDArray[np.float32] = self.text.encode(encoded).cpu().numpy()
        return vectors


def read_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read a safetensors file.

    Raises:
        ModelError: It is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            "is not a readable weights file", path=path, measured=str(error).splitlines()[0],
            remedy="install the package again",
        ) from error  # fmt: skip


def load_strictly(module: nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Load the tensors under ``prefix`` into ``module``.

    Raises:
        ModelError: A tensor is missing, left over or of another shape.
    """
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError("does not fit the model", path=path, measured=" ".join(str(error).split())[:300]) from error


def pool_image(features: RawFeatures) -> NDArray[np.float32]:
    """Return what an image vector is read from: (B, C_w + C) = [window; L2(mean of the patch vectors)]."""
    mean = features.patches.mean(axis=(2, 3), dtype=np.float64)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return np.concatenate([features.window, mean.astype(np.float32)], axis=1)


class EmbeddedEncoder:
    """The embedded model behind the :class:`~geoalign_core.models.encoder.TorchEncoder` protocol.

    Args:
        config: The model's configuration.
        weights_dir: Where the files that the configuration names lie.
        device: A torch device.
        options: How it is run; left out, in float32, as it was trained.

    Raises:
        ModelError: A file is missing, damaged or does not fit the configuration.
    """

    has_text = True

    def __init__(
        self, config: ModelConfig, weights_dir: Path, *, device: str = "cpu", options: EncoderOptions | None = None
    ) -> None:
        self.config = config
        options = options or EncoderOptions(precision="float32")
        path = Path(weights_dir) / HEAD_NAME
        head = {name: torch.from_numpy(value) for name, value in unpack(read_tensors(path)).items()}
        self.towers = Towers(
            config, weights_dir, changes=head, device=device, precision=options.precision, compile=options.compile
        )  # fmt: skip
        self.device, self.precision = self.towers.device, self.towers.precision
        digests = "".join(item.sha256 for item in config.files)
        self.key, self.score_key = feature_key(config, digests, self.precision), score_key(config, digests)
        self._head = TextHead(config.text_cfg["width"], config.text_cfg["head_hidden"], config.embed_dim)
        load_strictly(self._head, head, "text.", path)
        self._head.to(self.towers.device).eval().requires_grad_(False)
        width = config.vision_cfg["width"]
        weight = head["image.weight"].numpy()
        if weight.shape != (config.embed_dim, 2 * width):
            raise ModelError("does not fit the model", path=path, measured=f"image.weight is {weight.shape}")
        self._image_weight, self._bias = weight, head["image.bias"].numpy()
        self.readout = Readout(
            patch=np.ascontiguousarray(weight[:, width:]),
            window=weight[:, :width] * np.float32(config.dense.window_weight),
            bias=self._bias,
        )
        self._joint = tuple(
            torch.from_numpy(np.ascontiguousarray(part)).to(self.device)
            for part in (self.readout.patch, self.readout.window, self._image_weight, self._bias)
        )

    @property
    def max_tokens(self) -> int:
        """Number of tokens that a text may have, start and end included."""
        return self.towers.text.max_tokens

    def count_tokens(self, text: str) -> int:
        """Return the tokens that ``text`` takes, start and end included."""
        return len(self.towers.tokenizer.encode(text).ids)

    @torch.inference_mode()
    def encode_text(self, texts: list[str]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        if not texts:
            return np.zeros((0, self.config.embed_dim), np.float32)
        warn_of_cuts(texts, lambda text: self.count_tokens(text) <= self.max_tokens)
        return self.text_from_sentences(self.towers.sentences(texts))

    @torch.inference_mode()
    def text_from_sentences(self, sentences: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, D) text vectors of (N, width) sentence vectors."""
        inner = torch.from_numpy(np.ascontiguousarray(sentences, dtype=np.float32)).to(self.towers.device)
        vectors: NDArray[np.float32] = functional.normalize(self._head(inner), dim=-1).cpu().numpy()
        return vectors

    def encode_raw(self, images: NDArray[np.uint8]) -> RawFeatures:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self.towers.images(images)

    def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self.image_from_pooled(pool_image(self.encode_raw(images)))

    def image_from_pooled(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D) window vectors of what :func:`pool_image` gives."""
        joint = pooled @ self._image_weight.T + self._bias
        joint /= np.maximum(np.linalg.norm(joint, axis=1, keepdims=True), 1e-12)
        return joint.astype(np.float32, copy=False)

    def encode_dense(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self.readout.joint(self.encode_raw(images))

    @torch.inference_mode()
    def dense_tensor(self, images: torch.Tensor, *, normalise: bool = True) -> torch.Tensor:  # noqa: ARG002
        """See :class:`~geoalign_core.models.encoder.TorchEncoder`."""
        window, patches = self.towers.tensors(images)
        of_patch, of_window, _, bias = self._joint
        joint = torch.einsum("dc,bchw->bdhw", of_patch, patches)
        return functional.normalize(joint + (window @ of_window.T + bias)[:, :, None, None], dim=1)

    @torch.inference_mode()
    def image_tensor(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`~geoalign_core.models.encoder.TorchEncoder`."""
        window, patches = self.towers.tensors(images)
        _, _, weight, bias = self._joint
        mean = functional.normalize(patches.mean(dim=(2, 3)), dim=-1)
        return functional.normalize(torch.cat([window, mean], dim=1) @ weight.T + bias, dim=-1)
