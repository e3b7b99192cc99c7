"""Another image tower in the place of DINOv2, with the same text tower, recipe, data and figures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from geoalign_core.models.embedded import Towers
from geoalign_core.models.encoder import Readout
from geoalign_core.models.registry import WEIGHTS_DIR, load_encoder
from training.embedded.align import PhraseBook, train_head
from training.embedded.card import SCENES
from training.embedded.corpus import gather_boxes, gather_captions, training_sets
from training.embedded.evaluate import evaluate
from training.embedded.package import PACKAGE, load_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.models.config import ModelConfig
    from geoalign_core.models.encoder import Encoder, RawFeatures
    from tiling.progress import Progress
    from training.embedded.align import Head
    from training.embedded.recipe import EmbeddedRecipe

_IMAGES_PER_PASS = 4


class OtherTowers:
    """An encoder's image tower beside the embedded text tower, where :class:`Towers` are expected.

    Images are enlarged until the encoder's patches are as many as the embedded tower's: both read the same places,
    and the labels of patches fit.

    Args:
        encoder: Its patch vectors and image vectors are the raw features.
        towers: The text tower, and the patch size of the labels.
        patch_px: Side of the embedded tower's patches.
    """

    def __init__(self, encoder: Encoder, towers: Towers, patch_px: int) -> None:
        self._encoder, self._towers = encoder, towers
        self._factor = encoder.config.patch_px / patch_px
        self.digest = hashlib.sha256(f"{encoder.key}:{self._factor}".encode()).hexdigest()

    def images(self, images: NDArray[np.uint8]) -> RawFeatures:
        """Return the raw features of uint8 images (B, 3, H, W)."""
        size = [round(side * self._factor) for side in images.shape[2:]]
        parts = []
        for start in range(0, len(images), _IMAGES_PER_PASS):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + _IMAGES_PER_PASS])).float()
            larger = functional.interpolate(pixels, size, mode="bicubic", antialias=True).round().clamp(0, 255)
            parts.append(self._encoder.encode_raw(larger.to(torch.uint8).numpy()))
        return replace(
            parts[0],
            patches=np.concatenate([part.patches for part in parts]),
            window=np.concatenate([part.window for part in parts]),
        )

    def sentences(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (N, width) L2-normalised sentence vectors."""
        return self._towers.sentences(texts)


class HeadEncoder:
    """A head that is still in memory, where the figures expect an :class:`EmbeddedEncoder`."""

    def __init__(self, config: ModelConfig, towers: Any, head: Head, text: Towers) -> None:  # noqa: ANN401 - either kind
        self.config, self.towers, self._head, self._text = config, towers, head, text
        self.key = towers.digest
        weight, bias = head.image.weight.detach().numpy(), head.image.bias.detach().numpy()
        width = head.width
        self.readout = Readout(
            patch=np.ascontiguousarray(weight[:, width:]),
            window=weight[:, :width] * np.float32(config.dense.window_weight), bias=bias,
        )  # fmt: skip

    @property
    def max_tokens(self) -> int:
        """Number of tokens that a text may have, start and end included."""
        return self._text.text.max_tokens

    def count_tokens(self, text: str) -> int:
        """Return the tokens that ``text`` takes, start and end included."""
        return len(self._text.tokenizer.encode(text).ids)

    def encode_text(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (N, D) text vectors."""
        return self.text_from_sentences(self._text.sentences(texts))

    @torch.inference_mode()
    def text_from_sentences(self, sentences: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, D) text vectors of (N, width) sentence vectors."""
        vectors: NDArray[np.float32] = self._head.texts(torch.from_numpy(np.array(sentences, np.float32))).numpy()
        return vectors

    @torch.inference_mode()
    def image_from_pooled(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (B, D) image vectors of (B, 2 C) pooled features."""
        vectors: NDArray[np.float32] = self._head.images(torch.from_numpy(np.array(pooled, np.float32))).numpy()
        return vectors


def compare_towers(
    others: list[str], recipe: EmbeddedRecipe, data: Path, work: Path, progress: Progress, say: Callable[[str], object]
) -> dict[str, dict[str, Any]]:
    """Learn the head on the embedded image tower and on others, all frozen, and return the figures of each by name.

    Args:
        others: Models of the store whose image towers are tried.
        recipe: Its head's numbers are used; nothing is tuned.
        data: Folder of the training data.
        work: Folder of the feature cache.
        progress: Told about every stage.
        say: Told the name of the tower that is next.

    Raises:
        DataError: The data is missing.
        ModelError: There is no such model.
    """
    config = load_config(PACKAGE)
    own = Towers(config, WEIGHTS_DIR, precision="auto")
    contestants: dict[str, tuple[ModelConfig, Any]] = {"DINOv2 ViT-S/14": (config, own)}
    for name in others:
        encoder = load_encoder(name)
        width = encoder.config.embed_dim
        changed = replace(config, vision_cfg={**config.vision_cfg, "width": width})
        contestants[name] = (changed, OtherTowers(encoder, own, config.patch_px))
    figures = {}
    threads = torch.get_num_threads()
    for name, (settings, towers) in contestants.items():
        say(name)
        captions = gather_captions(data, towers, work, progress)
        boxes = gather_boxes(training_sets(data), towers, work, progress)
        torch.set_num_threads(1)  # the head is small
        book = PhraseBook(settings, towers.sentences)
        head = train_head(settings, captions, boxes, book, recipe.head, recipe.seed, progress)
        torch.set_num_threads(threads)
        del captions, boxes
        joined = HeadEncoder(settings, towers, head, own)
        figures[name] = evaluate(joined, data, work, progress)  # type: ignore[arg-type]
    return figures


_RECALLS = {
    "image_to_text_recall_1_5_10": "image → text, recall at 1 / 5 / 10 (%)",
    "text_to_image_recall_1_5_10": "text → image, recall at 1 / 5 / 10 (%)",
}


def render(figures: dict[str, dict[str, Any]]) -> str:
    """Return the figures side by side as a Markdown table."""
    lines = [f"| | {' | '.join(figures)} |", "|---|" + "---|" * len(figures)]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in _rows(list(figures.values()))]
    return "\n".join(lines)


def _rows(columns: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    captions = [column["captions"] for column in columns]
    for key, title in _RECALLS.items():
        yield title, [" / ".join(f"{value:.1f}" for value in part[key]) for part in captions]
    for key, title in SCENES.items():
        yield title, [f"{part[key]:.1f}" for part in captions]
    for name, words in columns[0].items():
        if name in ("captions", "scenes") or not isinstance(words, dict):
            continue
        for word in list(words)[:2]:
            items = [column[name][word] for column in columns]
            yield (
                f"{name}, “{word}”: average precision · pointing",
                [
                    f"{item['average_precision']:.3f} · {item['pointing_hits']} of {item['pointing_scenes']}"
                    for item in items
                ],
            )
