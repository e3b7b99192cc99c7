"""What a variant of the ablation can do, measured on the held-out side of ``geoalign-val-1``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.embedded.ablation import ragged
from training.embedded.ablation_regions import CATEGORIES, RULES
from training.embedded.evaluate import recalls_both_ways
from training.embedded.objectives import log_odds
from training.evaluation.metrics.classification import classify
from training.evaluation.metrics.pointing import patch_figures
from training.losses.regions import collapse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.embedded.ablation import AblationModel
    from training.embedded.ablation_data import Dense, Images, Material, Regions

_PART = 128
_PATCHES = 8192
_MONITORED = 512


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of the tables."""

    key: str
    title: str
    group: str
    decimals: int = 1


FIGURES = (
    *(Figure(f"image_to_text_r{rank}", f"R@{rank}", "image → text (%)") for rank in (1, 5, 10)),
    *(Figure(f"text_to_image_r{rank}", f"R@{rank}", "text → image (%)") for rank in (1, 5, 10)),
    Figure("scene_top1", "scene, top 1", "zero-shot (%)"),
    Figure("region_accuracy", "all", "region category among 12 (%)"),
    *(Figure(f"region_accuracy_{name}", name, "region category among 12 (%)") for name in CATEGORIES),
    Figure("hard_negative_acc1", "all", "hard negatives, Acc@1 (%)"),
    *(Figure(f"hard_negative_acc1_{rule}", rule, "hard negatives, Acc@1 (%)") for rule in RULES),
    Figure("aircraft_ap", "aircraft, AP", "patches by text", 3),
    Figure("aircraft_pointing", "aircraft, pointing (%)", "patches by text"),
    Figure("car_ap", "cars, AP", "patches by text", 3),
    Figure("car_pointing", "cars, pointing (%)", "patches by text"),
    Figure("collapse", "mean cosine of regions", "monitors", 3),
    Figure("crop_cosine", "cosine of region and crop", "monitors", 3),
)
"""Everything that is measured, in the order of the tables."""


@torch.inference_mode()
def measure(model: AblationModel, material: Material, logit_scale: float) -> dict[str, float]:
    """Return every figure of :data:`FIGURES`.

    Args:
        model: A trained model.
        material: What it is measured on.
        logit_scale: The product's factor on cosines.
    """
    return {
        **caption_figures(model, material), **region_figures(model, material), **monitors(model, material),
        **dense_set_figures(model, material, material.aircraft, "airplane", "aircraft", logit_scale),
        **dense_set_figures(model, material, material.car, "car", "car", logit_scale),
    }  # fmt: skip


def caption_figures(model: AblationModel, material: Material) -> dict[str, float]:
    """Return retrieval among the held-out images and their distinct captions, and the accuracy of scene names."""
    held_out = material.held_out
    images = np.concatenate([model.head.images(part).numpy() for part in _pooled(model, held_out)])
    distinct, own = held_out.brief.unique(return_inverse=True)
    texts = model.head.texts(material.sentences[distinct]).numpy()
    starts = held_out.start.tolist()
    text_of = [own[start:end].tolist() for start, end in pairwise(starts)]
    scenes = model.head.templated(material.prompts.scenes).numpy()
    figures = {
        f"{way}_r{rank}": value
        for way, found in zip(
            ("image_to_text", "text_to_image"), recalls_both_ways(images, texts, text_of), strict=True
        )
        for rank, value in found.items()
    }
    return figures | {"scene_top1": classify(images @ scenes.T, held_out.scene.numpy()).accuracy()}


def _pooled(model: AblationModel, images: Images) -> Iterator[torch.Tensor]:
    for start in range(0, len(images.window), _PART):
        yield model.pooled(images.window[start : start + _PART], images.patches[start : start + _PART])


def _vectors(model: AblationModel, regions: Regions) -> torch.Tensor:
    rows = torch.arange(len(regions.category))
    return torch.cat([model.region_vectors(model.regions(regions, part)) for part in rows.split(_PART)])


def region_figures(model: AblationModel, material: Material) -> dict[str, float]:
    """Return the accuracy of held-out regions' categories and against hard negatives, in percent.

    A category counts as found when its cosine is above all others', a phrase when its cosine is above all its
    negatives': a tie is a miss. ``region_accuracy`` is the mean over categories.
    """
    regions = material.held_out_regions
    vectors = _vectors(model, regions)
    cosines = vectors @ model.head.templated(material.prompts.categories).T
    true = cosines.gather(1, regions.category[:, None])
    hit = (cosines >= true).sum(dim=1) == 1
    shares = {
        f"region_accuracy_{name}": _percent(hit[regions.category == number]) for number, name in enumerate(CATEGORIES)
    }
    known = [value for value in shares.values() if not np.isnan(value)]
    figures = {"region_accuracy": float(np.mean(known)), **shares}
    # Every text is encoded once, in one pass: an equal text then has equal bits, and a tie is seen as one.
    numbers, row_of = torch.cat([regions.text, regions.negative]).unique(return_inverse=True)
    texts = model.head.texts(material.sentences[numbers])[row_of]
    places, of = ragged(regions.negative_start, torch.arange(len(vectors)))
    positive = (vectors * texts[: len(vectors)]).sum(dim=1)
    beaten = ((vectors[of] * texts[len(vectors) + places]).sum(dim=1) >= positive[of]).float()
    figures["hard_negative_acc1"] = _unbeaten(beaten, of, len(vectors))
    for number, rule in enumerate(RULES):
        asked = regions.rule[places] == number
        figures[f"hard_negative_acc1_{rule}"] = _unbeaten(beaten[asked], of[asked], len(vectors))
    return figures


def _percent(hit: torch.Tensor) -> float:
    return float(100 * hit.float().mean())


def _unbeaten(beaten: torch.Tensor, of: torch.Tensor, count: int) -> float:
    """Return the percentage of the regions with a negative of which no negative is as good as the phrase."""
    lost = torch.zeros(count).index_add(0, of, beaten)
    asked = torch.zeros(count).index_add(0, of, torch.ones_like(beaten)) > 0
    return _percent(lost[asked] == 0)


def dense_set_figures(
    model: AblationModel, material: Material, dense: Dense, word: str, name: str, logit_scale: float
) -> dict[str, float]:
    """Return average precision and pointing game of a held-out set's patches, by the product's score of a word."""
    prompts = material.prompts
    phrase = model.head.templated(prompts.categories[CATEGORIES.index(word)][None])
    contrast = model.head.texts(prompts.contrast)
    vectors = (
        model.dense(dense.patches[part], dense.window[dense.sample[part]])
        for part in torch.arange(len(dense.label)).split(_PATCHES)
    )
    odds = torch.cat([log_odds(part, phrase, contrast, logit_scale)[:, 0] for part in vectors])
    ends = dense.sample.bincount(minlength=len(dense.window)).cumsum(0)[:-1]
    figures = patch_figures(
        [part[None].numpy() for part in odds.tensor_split(ends)],
        [part[None].numpy() for part in dense.label.tensor_split(ends)],
        [str(group) for group in dense.group.tolist()],
    )
    pointing = 100 * figures.pointing_hits / max(figures.pointing_scenes, 1)
    return {f"{name}_ap": figures.average_precision, f"{name}_pointing": pointing}


def monitors(model: AblationModel, material: Material) -> dict[str, float]:
    """Return the mean cosine between held-out regions, and of training regions with their crops."""
    regions = material.regions
    rows = torch.linspace(0, len(regions.crop) - 1, min(_MONITORED, len(regions.crop))).long()
    cut_out = regions.crop[rows]
    crops = model.head.images(model.pooled(material.crops.window[cut_out], material.crops.patches[cut_out]))
    seen = model.region_vectors(model.regions(regions, rows))
    return {
        "collapse": float(collapse(_vectors(model, material.held_out_regions))),
        "crop_cosine": float((seen * crops).sum(dim=1).mean()),
    }
