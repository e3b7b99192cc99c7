"""What a training run is: every number of a recipe, with its unit, its default and where it comes from.

A recipe file (``training/recipes/*.yaml``) is these dataclasses written out. [P] is printed in the paper, [C] read in
published code, [D] deduced, [U] unknown: then the default is ours, and the field is there so that it can be changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """Which model is trained, and from what it starts."""

    init: str
    """A stored model's name, its folder, the folder of an earlier run (its exported model), or ``random:ARCH`` with
    an open_clip architecture such as ``ViT-B-16``."""
    family: str = "geoalignclip"
    """Family of the result; decides activation, allowed tables and extras."""
    tables: str = "77+248"
    """Text tables of the result: ``77``, ``248`` or ``77+248``; 77 rows are stretched when they must be (KPS)."""
    long_projection: bool = False
    """Whether long texts have a projection of their own, at first a copy (FG-CLIP)."""
    separate_scales: bool = True
    """Whether the region and hard-negative losses have temperatures of their own, at first copies (FG-CLIP)."""
    image_px: int | None = None
    """Side of the square that images are squashed to; None keeps the checkpoint's."""
    dense_mode: str = "maskclip"
    """How regions are read from the last block, see ``geoalign_core.models.dense``."""
    text_tower: str = "keep"
    """``keep``, or ``random`` for a checkpoint that has only an image tower."""
    text_layers: int = 12
    """Layers of a random text tower."""
    text_width: int = 512
    """Width of a random text tower, in heads of 64."""
    freeze: tuple[str, ...] = ()
    """Regular expressions of parameters that stay as they are; rows 0–19 of the tables are frozen by KPS anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecipe:
    """What the start model must be for this recipe; None leaves it open."""

    width: int | None = None
    """Width of the image tower."""
    layers: int | None = None
    """Layers of the image tower."""
    patch_px: int | None = None
    """Side of its patches."""
    image_px: int | None = None
    """Side of the images that its positions are for; that of ``model.image_px`` is taken too."""
    stage: int | None = None
    """The stage that trained it, by its run's record: 0 none, 1 the first. This recipe is the stage after it."""
    any: bool = False
    """Whether a model that differs is accepted; the model card then says in what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecipe:
    """Weights and options of the losses; a weight of 0 leaves a loss, and what only it needs, out."""

    image_text: float = 1.0
    """λ₁ of L_g, eq. (1): images and brief captions."""
    region: float = 0.0
    """λ₂ of L_RPA, eq. (2)."""
    hard_negative: float = 0.0
    """λ₃ of L_HNA, eq. (3)."""
    consistency: float = 0.0
    """λ₄ of L_VIC, eq. (4)."""
    textual: float = 0.0
    """λ₅ of L_HTC = L_g(brief) + L_g(detailed)."""
    distil: float = 0.0
    """FarSLIP's patch-to-patch distillation."""
    category: float = 0.0
    """FarSLIP's multi-positive region-category loss on crops' class tokens."""
    granularity: str = "none"
    """DGTRS: ``equal``, ``short_to_long``, ``long_to_short``, ``length_ramp`` or ``fixed``; not ``none`` replaces
    ``image_text`` by w_l L_long + w_s L_short."""
    granularity_share: float = 0.5
    """Share of the long loss with ``fixed``."""
    principal: int = 0
    """Principal components of the image features that short texts are matched with; 0 takes the features whole."""
    principal_kind: str = "pcm"
    """``pcm`` (Long-CLIP, and DGTRS's unused call: reconstruct, mean added back) or ``pca`` (ours: without it)."""
    label_smoothing: float = 0.0
    gather: str = "grad"
    """Image-text features of other ranks: ``grad``, ``nograd`` (DGTRS as released) or ``local``."""
    region_gather: str = "grad"
    """The same for regions: the paper says batch, FG-CLIP's code is ``local``."""
    duplicates: str = "mask"
    """Equal texts in a batch: ``mask`` drops them from the denominator, ``positive`` shares the target, ``none``."""
    consistency_stop: str = "none"
    """Which side of L_VIC gets no gradient: ``none`` (the formula read literally), ``crop`` or ``roi``."""
    roi_norm: str = "after"
    """L2 of the dense map: ``after`` pooling (FG-CLIP) or ``before`` (CLIPSelf)."""
    distil_teacher: str = "active"
    """``active`` (student on both sides, gradient through both), ``ema`` or ``frozen``."""
    distil_target: str = "roi2pooled"
    """``roi2pooled``, ``roi2cls`` or ``combined`` (half each)."""
    ema_momentum: float = 0.99
    max_scale: float = 100.0
    """Logit scales are clamped here in the forward: exp(min(s, ln 100))."""
    min_scale: float = 0.0
    """They are clamped here from below; 0 leaves them. FarSLIP holds the logarithm at 0 or more, a scale of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """Which records are read, and what of each record."""

    train: tuple[str, ...] = ()
    """RSFG data sets: folders with ``records.jsonl``, ``.jsonl`` files, or tar shards."""
    validation: tuple[str, ...] = ()
    caption: str = "brief"
    """What L_g, eq. (1), reads where it is the only loss on captions: ``brief``, ``detailed``, or ``random`` between
    both, anew in each epoch; a record that lacks one gives the other."""
    max_regions: int = 4
    """Regions, or random crops, per image and step."""
    regions: str = "first"
    """Which regions of an image with more: ``first`` (FG-CLIP) or ``random``."""
    region_text: str = "random"
    """``phrase``, ``description`` or ``random`` between both."""
    crops: str = "none"
    """``none``, ``regions`` or ``random`` (FarSLIP stage 1)."""
    crop_context: float = 0.0
    """Margin around a region's crop, as a share of its sides."""
    crop_scale: tuple[float, float] = (0.3, 0.7)
    """Area of random crops as a share of the image."""
    crop_ratio: tuple[float, float] = (0.75, 1.3333)
    hard_negatives: int = 10
    """Most per region; Q of eq. (3) is one more."""
    min_region_px: float = 0.0
    """Side of a square in pixels of the original: regions of a smaller area than it are left out."""
    max_region_px: float = float("inf")
    """The same for regions of a larger area."""
    brief_prefix: str = ""
    category_template: str = "a satellite image of {}"
    flips: bool = False
    """Flips and quarter turns. Off by default: captions and phrases say left, right, upper, lower."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Brightness, contrast, saturation, hue of images and crops, each for itself (torchvision's ``ColorJitter``). Off
    by default: captions and phrases name colours."""
    jitter_share: float = 0.0
    """Probability of it."""
    grey_share: float = 0.0
    """Probability of grey, after the jitter."""
    workers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimRecipe:
    """Optimiser, schedule and precision."""

    rate: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    grouping: str = "hf"
    """No decay for: ``hf`` norms and biases; ``open_clip`` everything of fewer than two axes."""
    clip_norm: float = 1.0
    warmup_steps: int = 200
    schedule: str = "cosine"
    """``cosine`` to zero, or ``constant``, after a linear warm-up."""
    epochs: float = 1.0
    steps: int | None = None
    """Optimiser steps; overrides ``epochs``."""
    batch: int = 32
    """Images per rank."""
    precision: str = "bf16"
    """``bf16`` (float32 masters and losses) or ``fp32``. With ``bf16`` DeepSpeed's live weights are bfloat16, logit
    scales among them: at ln 100 these are seen in steps of 1/32, 3 % of a scale, while their masters move finely.
    The plain engine's live weights, scales too, are float32."""
    checkpointing: bool = True
    """Gradient checkpointing of both towers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    """How a run is carried out."""

    engine: str = "auto"
    """``plain`` (one process, or DDP under torchrun), ``deepspeed`` (ZeRO), or ``auto``."""
    zero_stage: int = 2
    seed: int = 0
    log_every: int = 10
    validate_every: int = 500
    save_every: int = 500
    """Steps between checkpoints; 0 saves at the end only."""
    keep: int = 2
    """Checkpoints that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole run."""

    name: str
    model: ModelRecipe
    start: StartRecipe = field(default_factory=StartRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)
