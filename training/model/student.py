"""The model in training: one forward is one step's images, crops, regions and texts, up to the loss.

Everything that has a gradient happens inside of :meth:`Student.forward`, so that an engine sees one forward and one
backward. The graph is the same in every step and on every rank: a batch without regions or negatives touches the
same parameters, with zeros, and takes part in the same collectives.

What stays as it is
-------------------
- Rows 0–19 of stretched tables, by knowledge-preserved stretching: ``positional_embedding`` of ``248`` models,
  ``positional_embedding_ori`` of ``77+248``. The rows 0–19 of ``positional_embedding_res``, and those from 20 on of
  the frozen tables, are never read and have no gradient. The 77-row table of ``77+248`` is trained whole, as in
  FG-CLIP, where stretching does not concern it.
- What no loss of the recipe reads: without texts the text tower, without detailed captions the long tables and the
  long projection, temperatures of losses that are off. Engines may then rely on a gradient for every parameter.
- What ``model.freeze`` names.
"""

from __future__ import annotations

import copy
import math
import re
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from geoalign_core.errors import ModelError
from geoalign_core.models.clip import ClipModel
from geoalign_core.models.dense import find_variant
from geoalign_core.models.vit import Transformer, VisionTransformer
from tiling.errors import UsageError
from training.model.dense import Views, forget_activations, pool_boxes, read_images
from training.model.objective import Features, Needs, Scales, objective, weights_at
from training.model.texts import joined, read_texts, truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoalign_core.models.config import ModelConfig
    from training.batch import Batch
    from training.recipe import Recipe


class Pinned(nn.Module):
    """A module whose numbers keep their type: an engine that casts a model to bfloat16 only moves this one."""

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> Self:
        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(fn(tensor.new_empty(0)).device)

        return super()._apply(move, recurse)


class Pixels(Pinned):
    """``(x / 255 − mean) / std`` of uint8 images (B, 3, H, W)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / (255 * stds), persistent=False)
        self.register_buffer("shift", -means / stds, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 pixels."""
        return torch.addcmul(self.shift, images.float(), self.scale)


class Teacher(Pinned):
    """A copy of the image tower without gradient, in float32: an average at momentum 0.99 needs more than 8 bits."""

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        self.visual = copy.deepcopy(visual).requires_grad_(False)

    @torch.no_grad()
    def follow(self, visual: nn.Module, momentum: float) -> None:
        """Move towards a tower: ``own ← m · own + (1 − m) · its``."""
        for own, other in zip(self.visual.parameters(), visual.parameters(), strict=True):
            own.lerp_(other.detach().to(own.dtype), 1 - momentum)


class Student(nn.Module):
    """A CLIP model and the losses that teach it.

    Args:
        config: Shapes, preprocessing and text tables.
        recipe: Losses, options and what is frozen.
        clip: The model with its weights; by default a new one of random weights.

    Raises:
        ModelError: The model has no transformer for an image tower, or no text tower where losses read texts.
        UsageError: The recipe contradicts itself, see :func:`training.recipe_checks.check`, or freezes nothing by a
            name that matches nothing.
    """

    clip: ClipModel
    """Its state dict is what is exported."""
    teacher: Teacher | None

    def __init__(self, config: ModelConfig, recipe: Recipe, clip: ClipModel | None = None) -> None:
        super().__init__()
        self.config, self.recipe, self.needs = config, recipe, Needs.of(recipe)
        self.clip = ClipModel(config) if clip is None else clip
        self._refuse()
        self.pixels = Pixels(config.preprocess.mean, config.preprocess.std)
        self.teacher = Teacher(self._visual) if self.needs.teacher else None
        for name, parameter in self.clip.named_parameters():
            parameter.requires_grad_(not self._fixed(name))
        self._freeze()
        if recipe.optim.checkpointing:
            for module in self.clip.modules():
                if isinstance(module, Transformer):
                    forget_activations(module)

    def _refuse(self) -> None:
        find_variant(self.recipe.model.dense_mode)
        if not isinstance(self.clip.visual, VisionTransformer):
            raise ModelError("only vision transformers are trained here", remedy="start from a ViT")
        if self.needs.text and self.clip.tables == "none":
            raise ModelError(
                "the model has no text tower, and the recipe's losses read texts",
                remedy="set model.text_tower to random",
            )

    @property
    def _visual(self) -> VisionTransformer:
        visual: Any = self.clip.visual
        return visual

    def _fixed(self, name: str) -> bool:
        """Return whether a parameter of the CLIP stays as it is, for stretching or because no loss reads it."""
        needs, loss, two = self.needs, self.recipe.loss, self.clip.tables == "77+248"
        regional, hard = loss.region > 0 or loss.category > 0, loss.hard_negative > 0
        own_long = hasattr(self.clip, "long_text_projection")
        unread = {
            "positional_embedding": self.clip.tables == "248" or (two and not needs.short),
            "positional_embedding_ori": True,
            "positional_embedding_res": two and not needs.detailed,
            "text_projection": own_long and not needs.short,
            "long_text_projection": not needs.detailed,
            "logit_scale_region": not regional,
            "logit_scale_hardneg": not hard,
            "logit_scale": not (
                needs.brief or needs.detailed
                or (regional and not hasattr(self.clip, "logit_scale_region"))
                or (hard and not hasattr(self.clip, "logit_scale_hardneg"))
            ),
        }  # fmt: skip
        return unread.get(name, False) or not (needs.text or name.startswith("visual."))

    def _freeze(self) -> None:
        for pattern in self.recipe.model.freeze:
            try:
                found = [value for name, value in self.clip.named_parameters() if re.search(pattern, name)]
            except re.error as error:
                raise UsageError("model.freeze holds no regular expression", measured=f"{pattern}: {error}") from error
            if not found:
                raise UsageError(
                    "model.freeze names no parameter", measured=pattern,
                    remedy=r"names look like visual.transformer.resblocks.0. or token_embedding",
                )  # fmt: skip
            for value in found:
                value.requires_grad_(False)

    # ---- a step

    def forward(self, batch: Batch, progress: float = 0.0) -> dict[str, torch.Tensor]:
        """Return the loss, its parts and the monitors of a batch.

        Args:
            batch: A rank's part of the step, on the model's device.
            progress: Share of the run that is done, for the curricula, 0 … 1.

        Returns:
            ``loss`` () float32 with its gradient; the parts that are on (``image_text``, ``region``,
            ``hard_negative``, ``consistency``, ``textual``, ``distil``, ``category``, ``long``, ``short``) and the
            monitors (``scale``, with temperatures of their own ``scale_region`` and ``scale_hardneg``, ``collapse``,
            ``collapse_images``, ``accuracy_i2t``, ``accuracy_region``), () detached. Which there are does not depend
            on the batch; those that it has nothing for are NaN.

        Raises:
            UsageError: There are fewer images than principal components.
            ModelError: The batch's texts or images do not fit the model.
        """
        weights = weights_at(self.recipe.loss, progress)
        texts = self._read_texts(batch, weights.truncate if weights else None)
        views = self._read_images(batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            features = self._features(batch, views, texts)
            found = objective(features, batch, self.scales(), self.recipe.loss, weights)
            # Whatever this rank's batch lacks, every parameter of both towers is part of the graph.
            touched = [views.classes, views.maps, *texts.values()]
            found["loss"] = found["loss"] + 0.0 * torch.stack([item.sum() for item in touched]).sum()
        return found

    def _read_images(self, batch: Batch) -> Views:
        """Read images and crops in one pass: the images' rows first."""
        images, needs = batch.images, self.needs
        if needs.crops and len(batch.crops) != len(batch.boxes):
            raise ModelError(
                "the recipe needs a crop of every box", measured=f"{len(batch.crops)} crops, {len(batch.boxes)} boxes"
            )
        if needs.crop_classes or needs.crop_maps:
            images = torch.cat([images, batch.crops])
        maps = len(images) if needs.crop_maps else len(batch.images) if needs.maps else 0
        return read_images(self._visual, self.pixels(images), self.recipe.model.dense_mode, maps)

    def _read_texts(self, batch: Batch, truncate: int | None) -> dict[str, torch.Tensor]:
        """Read all short texts in one pass, and the detailed captions in another if there are any."""
        needs, found = self.needs, {}
        wanted = {"brief": needs.brief, "region": needs.region_texts, "negatives": needs.negatives}
        groups = {name: getattr(batch, name) for name, there in wanted.items() if there}
        if groups:
            if not sum(map(len, groups.values())):
                groups["stand_in"] = batch.brief[:1]
            vectors = read_texts(self.clip, joined(list(groups.values())), long=False)
            found = dict(zip(groups, vectors.split([len(group) for group in groups.values()]), strict=True))
        if needs.detailed:
            found["detailed"] = read_texts(self.clip, truncated(batch.detailed, truncate), long=True)
        return found

    def _features(self, batch: Batch, views: Views, texts: dict[str, torch.Tensor]) -> Features:
        count, needs, norm = len(batch.images), self.needs, self.recipe.loss.roi_norm
        loss = self.recipe.loss
        own = views.maps[:count]
        pooled = loss.region > 0 or loss.hard_negative > 0 or loss.consistency > 0
        return Features(
            images=views.classes[:count],
            regions=pool_boxes(own, batch.image_of, batch.boxes, norm=norm) if pooled else None,
            crops=views.classes[count:] if needs.crop_classes else None,
            distil=self._distil(batch, views) if loss.distil > 0 else (),
            brief=texts.get("brief"),
            detailed=texts.get("detailed"),
            region_texts=texts.get("region"),
            negatives=texts.get("negatives"),
        )

    def _distil(self, batch: Batch, views: Views) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Return FarSLIP's pairs: the whole image seen at a crop's place, and the crop seen for itself."""
        count, target = len(batch.images), self.recipe.loss.distil_target
        whole = pool_boxes(views.maps[:count], batch.image_of, batch.boxes, cells=True)
        if self.teacher is None:
            classes, maps = views.classes[count:], views.maps[count:]
        elif len(batch.crops):
            with torch.no_grad():
                mode = self.recipe.model.dense_mode
                taught = read_images(self.teacher.visual, self.pixels(batch.crops), mode, len(batch.crops))
                classes, maps = taught.classes, taught.maps
        else:
            classes, maps = whole.detach(), views.maps[:0].detach()
        pooled = nn.functional.normalize(maps.mean(dim=(2, 3)), dim=-1)
        targets = {"roi2pooled": (pooled,), "roi2cls": (classes,), "combined": (pooled, classes)}[target]
        return tuple((whole, item) for item in targets)

    def scales(self) -> Scales:
        """Return ``exp(clamp(s, ln min_scale, ln max_scale))`` of the temperatures, float32."""
        loss, log = self.recipe.loss, math.log
        low, top = log(loss.min_scale) if loss.min_scale > 0 else None, log(loss.max_scale)
        if self.clip.tables == "none":
            one = torch.ones((), device=self._visual.proj.device)  # no loss reads texts, none asks
            return Scales(image=one, region=one, hard_negative=one)
        clip: Any = self.clip
        names = ("logit_scale", "logit_scale_region", "logit_scale_hardneg")
        found = {
            name: getattr(clip, name).float().clamp(low, top).exp() for name in names if hasattr(clip, name)
        }  # fmt: skip
        image, region, hard = (found.get(name, found["logit_scale"]) for name in names)
        return Scales(image=image, region=region, hard_negative=hard)

    def after_step(self) -> None:
        """Move the average teacher, if there is one; call it after every step of the optimiser."""
        if self.teacher is not None and self.recipe.loss.distil_teacher == "ema":
            self.teacher.follow(self._visual, self.recipe.loss.ema_momentum)

    # ---- what is served

    @torch.no_grad()
    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, D) L2-normalised float32 class vectors of uint8 images (B, 3, S, S)."""
        return read_images(self._visual, self.pixels(images), self.recipe.model.dense_mode, 0).classes

    @torch.no_grad()
    def region_features(
        self, images: torch.Tensor, image_of: torch.Tensor, boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the class vectors of images and the vectors of boxes in them, from one pass.

        Args:
            images: (B, 3, S, S) uint8.
            image_of: (K,) int64, the image that a box lies in.
            boxes: (K, 4) xyxy as shares of the sides.

        Returns:
            (B, D) and (K, D), both L2-normalised float32.
        """
        views = read_images(self._visual, self.pixels(images), self.recipe.model.dense_mode, len(images))
        return views.classes, pool_boxes(views.maps, image_of, boxes, norm=self.recipe.loss.roi_norm)

    @torch.no_grad()
    def text_features(self, tokens: torch.Tensor, *, long: bool = False) -> torch.Tensor:
        """Return (N, D) L2-normalised float32 vectors of CLIP tokens (N, n)."""
        return read_texts(self.clip, tokens, long=long)
