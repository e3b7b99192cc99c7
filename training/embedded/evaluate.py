"""The figures of the model card for a head that is still in memory, on the cached features of the held-out side.

A packaged model is measured by ``geoalign-eval`` (:mod:`training.embedded.held_out`); the metrics are the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.grounding.relevance import log_odds
from geoalign_core.grounding.text import encode_queries
from geoalign_core.models.encoder import RawFeatures
from training.embedded.corpus import gather_held_out
from training.embedded.data import PROTOCOL
from training.embedded.features import cache_features
from training.embedded.held_out import WIDE_PX
from training.embedded.samples import CAR_GSDS_M, POOL_CELLS_PX, aircraft_set, pool_set, vehicle_set
from training.embedded.words import DENSE_WORDS, SCENE_QUESTIONS, SEVEN, TWENTY, scene_name
from training.evaluation.metrics.classification import classify
from training.evaluation.metrics.pointing import patch_figures
from training.evaluation.metrics.presence import answers, best_share
from training.evaluation.metrics.retrieval import recalls
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.ranking import ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.models.embedded import EmbeddedEncoder
    from tiling.progress import Progress
    from training.embedded.corpus import Captions
    from training.embedded.samples import DenseSet

_TOP_SHARE: float = PROTOCOLS["presence-quarter"].numbers["share"]


class Evaluator:
    """Questions to an encoder, encoded once and asked of raw features that are already there.

    Args:
        encoder: The model.
        words: The questions.
    """

    def __init__(self, encoder: EmbeddedEncoder, words: Sequence[str]) -> None:
        self._questions = encode_queries(encoder, words)
        self._readout = encoder.readout
        self._scale = encoder.config.prompts.logit_scale
        self._count = len(words)

    def odds(self, patches: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (Q, B, h, w) log-odds of the product's score for raw features (B, C, h, w) and (B, C_w)."""
        dense = self._readout.joint(RawFeatures(patches, window))
        cosines = np.einsum("qd,bdhw->qbhw", self._questions.vectors, dense, optimize=True)
        flat = cosines.reshape(len(cosines), -1, cosines.shape[-1])
        result = log_odds(flat, self._questions.competes, self._scale)
        return result.reshape(self._count, *cosines.shape[1:])


def scene_prompts(encoder: EmbeddedEncoder, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return (M, D) vectors of scene classes, averaged over the model's templates."""
    phrases = [scene_name(name) for name in classes]
    return encode_queries(encoder, phrases).vectors[: len(phrases)]


def caption_figures(encoder: EmbeddedEncoder, captions: Captions) -> dict[str, Any]:
    """Return retrieval and scene-name figures of held-out images."""
    images = encoder.image_from_pooled(captions.pooled.numpy())
    texts = encoder.text_from_sentences(captions.sentences.numpy())
    image_to_text, text_to_image = recalls_both_ways(images, texts, captions.text_of)
    classes = sorted({image.scene for image in captions.images})
    labels = np.array([classes.index(image.scene) for image in captions.images])
    return {
        "images": len(captions.images), "distinct_captions": len(captions.texts),
        "image_to_text_recall_1_5_10": tuple(image_to_text.values()),
        "text_to_image_recall_1_5_10": tuple(text_to_image.values()),
        "scene_name_top1": classify(images @ scene_prompts(encoder, classes).T, labels).accuracy(),
        "scene_classes": len(classes),
        "seven_other_words_top1": other_words_figure(encoder, captions, SEVEN),
        "twenty_other_words_top1": other_words_figure(encoder, captions, TWENTY),
    }  # fmt: skip


def recalls_both_ways(
    images: NDArray[np.float32], texts: NDArray[np.float32], text_of: Sequence[Sequence[int]]
) -> tuple[dict[int, float], dict[int, float]]:
    """Return R@1, 5 and 10 in per cent by rank, image to text and text to image, as the protocol ``retrieval-own``.

    Args:
        images: (N, D) L2-normalised.
        texts: (T, D) distinct captions, L2-normalised.
        text_of: Per image, the numbers of its captions, each of which asks for this image only.
    """
    asking = np.concatenate([np.asarray(own, np.int64) for own in text_of])
    image_of = [(image,) for image, own in enumerate(text_of) for _ in own]
    return (
        recalls(ranks(images, texts, text_of, ties="optimistic")),
        recalls(ranks(texts[asking], images, image_of, ties="optimistic")),
    )


def other_words_figure(encoder: EmbeddedEncoder, captions: Captions, words: Mapping[str, str]) -> float:
    """Return the percentage of the images of some scenes that are told apart by other words than the scenes' names.

    Candidates are the words of the scenes that are there.
    """
    chosen = np.array([image.scene in words for image in captions.images])
    names = sorted({words[image.scene] for image in captions.images if image.scene in words})
    labels = np.array([names.index(words[image.scene]) for image in captions.images if image.scene in words])
    vectors = encode_queries(encoder, names).vectors[: len(names)]
    return classify(encoder.image_from_pooled(captions.pooled.numpy()[chosen]) @ vectors.T, labels).accuracy()


def scene_question_figures(encoder: EmbeddedEncoder, captions: Captions) -> dict[str, Any]:
    """Return yes-or-no figures of questions about scenes: the mean score of an image's best quarter of patches."""
    words = tuple(SCENE_QUESTIONS)
    side = round(captions.patches.shape[1] ** 0.5)
    pooled = []
    evaluator = Evaluator(encoder, words)
    for start in range(0, len(captions.images), 64):
        part = captions.patches[start : start + 64].numpy().astype(np.float32)
        grids = part.transpose(0, 2, 1).reshape(len(part), -1, side, side)
        odds = evaluator.odds(grids, captions.window[start : start + 64].numpy())
        pooled.append(best_share(odds.reshape(len(words), len(part), -1), _TOP_SHARE))
    values = np.concatenate(pooled, axis=1)
    scenes = np.array([image.scene for image in captions.images])
    return {
        word: asdict(answers(values[row], np.isin(scenes, SCENE_QUESTIONS[word]))) for row, word in enumerate(words)
    }


def held_out_sets(data: Path, window_px: int) -> dict[str, tuple[str, DenseSet]]:
    """Return the held-out dense sets by name, with their class."""
    sets = {
        name: ("aircraft", aircraft_set(data, held_out=True, gsd_m=0.5, window_px=side))
        for name, side in (("aircraft 0.5 m", window_px), (f"aircraft 0.5 m, {WIDE_PX} px windows", WIDE_PX))
    }
    for gsd in CAR_GSDS_M:
        sets[f"vehicles {gsd:g} m"] = ("vehicle", vehicle_set(data, held_out=True, gsd_m=gsd))
    for cell in POOL_CELLS_PX:
        sets[f"pools {cell} px"] = ("pool", pool_set(data, held_out=True, cell_px=cell))
    return sets


def dense_set_figures(
    encoder: EmbeddedEncoder, kind: str, dense: DenseSet, work: Path, progress: Progress
) -> dict[str, Any]:
    """Return the figures of one held-out dense set for each of the class's words."""
    cached = cache_features(dense.samples, encoder.towers, work, progress)
    words = DENSE_WORDS[kind]
    evaluator = Evaluator(encoder, words)
    odds = [
        evaluator.odds(grid[None].astype(np.float32), window[None].astype(np.float32))[:, 0]
        for grid, window in zip(cached.patches, cached.window, strict=True)
    ]
    return {word: _patch_record([item[row] for item in odds], dense) for row, word in enumerate(words)}


def _patch_record(odds: list[NDArray[np.float32]], dense: DenseSet) -> dict[str, Any]:
    clear = patch_figures(odds, dense.labels, dense.groups, rim="ignore")
    figures = asdict(patch_figures(odds, dense.labels, dense.groups))
    return figures | {"average_precision_without_rims": clear.average_precision}


def evaluate(encoder: EmbeddedEncoder, data: Path, work: Path, progress: Progress) -> dict[str, Any]:
    """Compute every figure of the card.

    Args:
        encoder: The model.
        data: Folder of the training data.
        work: Folder of the feature cache.
        progress: Told about the features that are missing.

    Raises:
        DataError: The data is missing.
    """
    captions = gather_held_out(data, encoder.towers, work, progress)
    figures: dict[str, Any] = {"protocol": PROTOCOL, "model": encoder.config.name, "key": encoder.key}
    figures["captions"] = caption_figures(encoder, captions)
    figures["scenes"] = scene_question_figures(encoder, captions)
    for name, (kind, dense) in held_out_sets(data, encoder.config.dense.window_px).items():
        figures[name] = dense_set_figures(encoder, kind, dense, work, progress)
    return figures
