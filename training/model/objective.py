"""What a step computes: which features a recipe's losses need, and their weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from training.losses.contrastive import image_text
from training.losses.distil import patch_distillation, region_category
from training.losses.gather import Gather
from training.losses.granularity import principal, schedule
from training.losses.regions import collapse, consistency, hard_negatives, region_phrase
from training.model.measured import mark_unmeasured
from training.recipe_checks import check

if TYPE_CHECKING:
    from training.batch import Batch
    from training.losses.granularity import Weights
    from training.recipe import LossRecipe, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What of images and texts the losses of a recipe read; all else is neither loaded nor computed."""

    brief: bool
    detailed: bool
    negatives: bool
    categories: bool
    """Labels of regions; without L_RPA and L_HNA, also the categories' texts in place of the regions'."""
    region_texts: bool
    maps: bool
    """Dense maps of the whole images."""
    crop_classes: bool
    """Class vectors of the crops, from the student."""
    crop_maps: bool
    """Dense maps of the crops, from the student."""
    teacher: bool
    """Whether a copy of the image tower reads the crops."""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Return the needs of a recipe.

        Raises:
            UsageError: It contradicts itself, see :func:`training.recipe_checks.check`.
        """
        check(recipe)
        loss = recipe.loss
        dual = loss.granularity != "none" and loss.image_text > 0
        regional = loss.region > 0 or loss.hard_negative > 0
        distil, teacher = loss.distil > 0, loss.distil_teacher != "active"
        own = distil and not teacher
        return cls(
            brief=loss.image_text > 0 or loss.textual > 0,
            detailed=dual or loss.textual > 0,
            negatives=loss.hard_negative > 0,
            categories=loss.category > 0,
            region_texts=regional or loss.category > 0,
            maps=regional or loss.consistency > 0 or distil,
            crop_classes=loss.consistency > 0 or loss.category > 0 or (own and loss.distil_target != "roi2pooled"),
            crop_maps=own and loss.distil_target != "roi2cls",
            teacher=distil and teacher,
        )

    @property
    def crops(self) -> bool:
        """Whether crops are looked at, by student or teacher."""
        return self.crop_classes or self.crop_maps or self.teacher

    @property
    def boxes(self) -> bool:
        """Whether boxes are looked at."""
        return self.maps or self.crops

    @property
    def short(self) -> bool:
        """Whether texts are read the short way."""
        return self.brief or self.region_texts

    @property
    def text(self) -> bool:
        """Whether texts are read at all."""
        return self.short or self.detailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the towers say of a batch: L2-normalised float32; None where no loss reads it."""

    images: torch.Tensor
    """(B, D)"""
    regions: torch.Tensor | None
    """(K, D) RoIs of the images' dense maps"""
    crops: torch.Tensor | None
    """(M, D) class vectors of the crops"""
    distil: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """(M, D) pairs, student's view of the whole image and the target on the crop; their losses are averaged."""
    brief: torch.Tensor | None
    """(B, D)"""
    detailed: torch.Tensor | None
    """(B, D)"""
    region_texts: torch.Tensor | None
    """(K, D)"""
    negatives: torch.Tensor | None
    """(Q', D)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """s = 1 / τ of each group of losses, clamped, () float32; a group without its own has the images', the same one."""

    image: torch.Tensor
    region: torch.Tensor
    hard_negative: torch.Tensor


def weights_at(loss: LossRecipe, progress: float) -> Weights | None:
    """Return the weights of long and short texts at a moment of the run; None without a granularity."""
    if loss.granularity == "none" or not loss.image_text:
        return None
    return schedule(loss.granularity, progress, loss.granularity_share)


def objective(
    features: Features, batch: Batch, scales: Scales, loss: LossRecipe, weights: Weights | None
) -> dict[str, torch.Tensor]:
    """Return the total, eq. (5) with the losses of the other systems in it, its parts and the monitors.

        L = λ₁ L_g + λ₂ L_RPA + λ₃ L_HNA + λ₄ L_VIC + λ₅ L_HTC + λ_d L_distil + λ_c L_category

    With a granularity L_g is w_l L_long + w_s L_short. A weight of 0 leaves its part out.

    Args:
        features: Of both towers.
        batch: Numbers of equal texts, categories, and what negatives belong to.
        scales: Of the logits.
        loss: Weights and options.
        weights: Of :func:`weights_at`.

    Returns:
        ``loss`` () with its gradient; parts and monitors () detached, NaN where the batch has nothing to measure.
    """
    # The loader gives every rank as many images.
    texts, regions = Gather.distributed(loss.gather, equal=True), Gather.distributed(loss.region_gather)
    parts = _texts(features, batch, scales, loss, weights, texts) | _regions(features, batch, scales, loss, regions)
    shares = {
        "image_text": loss.image_text, "region": loss.region, "hard_negative": loss.hard_negative,
        "consistency": loss.consistency, "textual": loss.textual, "distil": loss.distil, "category": loss.category,
    }  # fmt: skip
    total = torch.stack([share * parts[name] for name, share in shares.items() if share > 0]).sum()
    values = {name: value.detach() for name, value in parts.items()} | _monitors(features, batch, scales)
    return {"loss": total, **mark_unmeasured(values, features, batch, loss, texts, regions)}


def _texts(
    features: Features, batch: Batch, scales: Scales, loss: LossRecipe, weights: Weights | None, gather: Gather
) -> dict[str, torch.Tensor]:
    """Return L_g, or L_long and L_short with their sum, and L_HTC."""
    parts: dict[str, torch.Tensor] = {}

    def match(images: torch.Tensor, texts: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
        return image_text(
            images, _there(texts), ids, scales.image,
            gather=gather, duplicates=loss.duplicates, label_smoothing=loss.label_smoothing,
        )  # fmt: skip

    if loss.textual or (loss.image_text and weights is None):
        brief = match(features.images, features.brief, batch.brief_id)
    if loss.textual or weights is not None:
        detailed = match(features.images, features.detailed, batch.detailed_id)
    if weights is not None:
        coarse = features.images
        if loss.principal:
            coarse = principal(coarse, loss.principal, loss.principal_kind)
        parts["long"], parts["short"] = detailed, match(coarse, features.brief, batch.brief_id)
        parts["image_text"] = weights.long * parts["long"] + weights.short * parts["short"]
    elif loss.image_text:
        parts["image_text"] = brief
    if loss.textual:
        parts["textual"] = brief + detailed
    return parts


def _regions(
    features: Features, batch: Batch, scales: Scales, loss: LossRecipe, gather: Gather
) -> dict[str, torch.Tensor]:
    """Return L_RPA, L_HNA, L_VIC and FarSLIP's two."""
    parts: dict[str, torch.Tensor] = {}
    if loss.region:
        parts["region"] = region_phrase(
            _there(features.regions), _there(features.region_texts), batch.region_id, scales.region,
            gather=gather, duplicates=loss.duplicates,
        )  # fmt: skip
    if loss.hard_negative:
        parts["hard_negative"] = hard_negatives(
            _there(features.regions), _there(features.region_texts), _there(features.negatives), batch.negative_of,
            scales.hard_negative, gather=gather,
        )  # fmt: skip
    if loss.consistency:
        parts["consistency"] = consistency(
            _there(features.regions), _there(features.crops), stop=loss.consistency_stop, gather=gather
        )
    if loss.distil:
        pairs = [patch_distillation(whole, crop, gather=gather) for whole, crop in features.distil]
        parts["distil"] = torch.stack(pairs).mean()
    if loss.category:
        parts["category"] = region_category(
            _there(features.crops), _there(features.region_texts), batch.category, scales.region, gather=gather
        )
    return parts


def _there(features: torch.Tensor | None) -> torch.Tensor:
    if features is None:
        raise ValueError("a loss is on whose features were not computed")
    return features


@torch.no_grad()
def _monitors(features: Features, batch: Batch, scales: Scales) -> dict[str, torch.Tensor]:
    """Return the scales there are, and what tells of collapse and progress in this rank's batch.

    Which there are is the recipe's doing and not the batch's: ranks add them up by their place.
    """
    found = {"scale": scales.image, "collapse_images": collapse(features.images)}
    if scales.region is not scales.image:
        found["scale_region"] = scales.region
    if scales.hard_negative is not scales.image:
        found["scale_hardneg"] = scales.hard_negative
    if features.regions is not None:
        found["collapse"] = collapse(features.regions)
    if features.brief is not None:
        found["accuracy_i2t"] = _accuracy(features.images, features.brief, batch.brief_id)
    if features.regions is not None and features.region_texts is not None:
        found["accuracy_region"] = _accuracy(features.regions, features.region_texts, batch.region_id)
    return {name: value.detach() for name, value in found.items()}


def _accuracy(rows: torch.Tensor, texts: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the share of rows whose nearest text is their own or one equal to it; 0 of no rows."""
    if not len(rows):
        return rows.new_zeros(())
    return (ids[(rows @ texts.T).argmax(dim=1)] == ids).float().mean()
