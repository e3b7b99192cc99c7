"""The figures of the model card, recomputed from packaged files on the held-out side of ``geoalign-val-1``."""

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
from training.embedded.figures import dense_figures, retrieval, top1, yes_no
from training.embedded.samples import CAR_GSDS_M, POOL_CELLS_PX, aircraft_set, pool_set, vehicle_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.models.embedded import EmbeddedEncoder
    from tiling.progress import Progress
    from training.embedded.corpus import Captions
    from training.embedded.samples import DenseSet

SCENE_NAMES = {
    "BareLand": "bare land", "BaseballField": "a baseball field", "Center": "a central building",
    "DenseResidential": "a dense residential area", "MediumResidential": "a medium residential area",
    "SparseResidential": "a sparse residential area", "RailwayStation": "a railway station",
    "StorageTanks": "storage tanks", "Parking": "a parking lot", "Port": "a port with boats",
    "Commercial": "a commercial area", "Industrial": "an industrial area", "Farmland": "farmland",
    "Meadow": "a meadow", "Desert": "a desert",
}  # fmt: skip
"""Scene names that are not simply "a" and the class's name in lower case."""

SEVEN = {
    "Meadow": "grassland", "Farmland": "crop fields", "Industrial": "factories", "River": "a river or lake",
    "Pond": "a river or lake", "Forest": "woodland", "DenseResidential": "housing", "MediumResidential": "housing",
    "Parking": "a car park",
}  # fmt: skip
"""Scenes by the seven classes of RSSCN7 (grass, field, industry, river or lake, forest, housing, car park)."""
TWENTY = {
    "Airport": "aerodrome", "Beach": "seashore", "Desert": "dunes", "Port": "marina", "Forest": "woodland",
    "Farmland": "agriculture", "Stadium": "sports arena", "RailwayStation": "train depot",
    "StorageTanks": "oil reservoirs", "BaseballField": "diamond for ball games", "Church": "cathedral",
    "River": "stream", "Mountain": "hills", "Parking": "car park", "School": "campus", "Viaduct": "flyover",
    "Meadow": "grassland", "Industrial": "factories", "DenseResidential": "crowded housing", "Pond": "reservoir",
}  # fmt: skip
"""Scenes by words that their captions hardly use: does the model know more than its captions say?"""

DENSE_WORDS = {
    "aircraft": ("airplane", "plane", "jetliner"), "vehicle": ("car", "sedan", "autos"),
    "pool": ("swimming pool", "outdoor pool", "lido"),
}  # fmt: skip
SCENE_QUESTIONS = {
    "forest": ("Forest",), "parking lot": ("Parking",), "river": ("River",), "bridge": ("Bridge", "Viaduct"),
    "farmland": ("Farmland",), "storage tanks": ("StorageTanks",), "beach": ("Beach",), "stadium": ("Stadium",),
    "desert": ("Desert",), "pond": ("Pond",), "houses": ("DenseResidential", "MediumResidential", "SparseResidential"),
    "boats": ("Port",), "railway": ("RailwayStation",), "baseball field": ("BaseballField",),
}  # fmt: skip
"""Questions whose answer a scene class gives; other classes may hold the thing too, which lowers the figures."""

WIDE_PX = 518
"""Side of the windows that the towers were pretrained on last; aircraft are read in these, too."""
_TOP_SHARE = 0.25


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
    phrases = [SCENE_NAMES.get(name, f"a {name.lower()}") for name in classes]
    return encode_queries(encoder, phrases).vectors[: len(phrases)]


def caption_figures(encoder: EmbeddedEncoder, captions: Captions) -> dict[str, Any]:
    """Return retrieval and scene-name figures of held-out images."""
    images = encoder.image_from_pooled(captions.pooled.numpy())
    texts = encoder.text_from_sentences(captions.sentences.numpy())
    found = retrieval(images, texts, captions.text_of)
    classes = sorted({image.scene for image in captions.images})
    labels = np.array([classes.index(image.scene) for image in captions.images])
    return {
        "images": len(captions.images), "distinct_captions": len(captions.texts),
        "image_to_text_recall_1_5_10": found.image_to_text, "text_to_image_recall_1_5_10": found.text_to_image,
        "scene_name_top1": top1(images, scene_prompts(encoder, classes), labels), "scene_classes": len(classes),
        "seven_other_words_top1": other_words_figure(encoder, captions, SEVEN),
        "twenty_other_words_top1": other_words_figure(encoder, captions, TWENTY),
    }  # fmt: skip


def other_words_figure(encoder: EmbeddedEncoder, captions: Captions, words: Mapping[str, str]) -> float:
    """Return the percentage of the images of some scenes that are told apart by other words than the scenes' names."""
    chosen = np.array([image.scene in words for image in captions.images])
    names = sorted(set(words.values()))
    labels = np.array([names.index(words[image.scene]) for image in captions.images if image.scene in words])
    vectors = encode_queries(encoder, names).vectors[: len(names)]
    return top1(encoder.image_from_pooled(captions.pooled.numpy()[chosen]), vectors, labels)


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
        flat = np.sort(odds.reshape(len(words), len(part), -1), axis=2)
        pooled.append(flat[:, :, -int(_TOP_SHARE * flat.shape[2]) :].mean(axis=2))
    values = np.concatenate(pooled, axis=1)
    scenes = np.array([image.scene for image in captions.images])
    return {word: asdict(yes_no(values[row], np.isin(scenes, SCENE_QUESTIONS[word]))) for row, word in enumerate(words)}


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
    return {
        word: asdict(dense_figures([item[row] for item in odds], dense.labels, dense.groups))
        for row, word in enumerate(words)
    }


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
