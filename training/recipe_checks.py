"""What a recipe may say: the choices of its texts, the ranges of its numbers, and what must go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoalign_core.models.families import families
from tiling.errors import UsageError
from training.losses.options import DUPLICATES, GATHERS, KINDS, ROI_NORMS, SCHEDULES, STOPS, TARGETS, TEACHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiling.errors import GeoAlignError
    from training.recipe import Recipe

CHOICES: dict[str, tuple[str, ...]] = {
    "model.tables": ("77", "248", "77+248"),
    "model.text_tower": ("keep", "random"),
    "model.dense_mode": (
        "vanilla", "maskclip", "maskclip_nores", "clearclip", "sclip", "sclip_res", "segearth", "naclip",
    ),
    "loss.granularity": ("none", *SCHEDULES),
    "loss.principal_kind": KINDS,
    "loss.gather": GATHERS,
    "loss.region_gather": GATHERS,
    "loss.duplicates": DUPLICATES,
    "loss.consistency_stop": STOPS,
    "loss.roi_norm": ROI_NORMS,
    "loss.distil_teacher": TEACHERS,
    "loss.distil_target": TARGETS,
    "data.regions": ("first", "random"),
    "data.region_text": ("phrase", "description", "random"),
    "data.crops": ("none", "regions", "random"),
    "data.caption": ("brief", "detailed", "random"),
    "optim.grouping": ("hf", "open_clip"),
    "optim.schedule": ("cosine", "constant"),
    "optim.precision": ("bf16", "fp32"),
    "run.engine": ("auto", "plain", "deepspeed"),
}  # fmt: skip
"""By ``section.key``."""
LOSSES = ("image_text", "region", "hard_negative", "consistency", "textual", "distil", "category")
"""Fields of the recipe that are weights of losses."""
_MOST = 10**9
_OF_REGIONS = ("region", "hard_negative", "consistency", "distil", "category")


def check(recipe: Recipe, error: Callable[..., GeoAlignError] = UsageError) -> None:
    """Refuse numbers out of their range and options that contradict each other.

    Args:
        recipe: The recipe, with values of the right types.
        error: Makes the error to raise from ``what``, ``measured`` and ``remedy``.

    Raises:
        GeoAlignError: As ``error`` makes it, about the first problem.
    """
    for key, allowed in CHOICES.items():
        section, _, name = key.partition(".")
        value = getattr(getattr(recipe, section), name)
        if value not in allowed:
            raise error(f"{key} cannot be {value!r}", remedy=f"choose one of {', '.join(allowed)}")
    for holds, key, wanted in _ranges(recipe):
        if not holds:
            section, _, name = key.partition(".")
            value = getattr(getattr(recipe, section), name)
            raise error(f"{key} must be {wanted}", measured=f"{value}", remedy="correct the value")
    for fails, what, remedy in _contradictions(recipe):
        if fails:
            raise error(what, remedy=remedy)


def _ranges(recipe: Recipe) -> Iterator[tuple[bool, str, str]]:
    loss, data, optim, run, model = recipe.loss, recipe.data, recipe.optim, recipe.run, recipe.model
    for name in LOSSES:
        yield 0 <= getattr(loss, name) < float("inf"), f"loss.{name}", "0 or more"
    yield 0 <= loss.granularity_share <= 1, "loss.granularity_share", "from 0 to 1"
    yield 0 <= loss.label_smoothing < 1, "loss.label_smoothing", "from 0 to below 1"
    yield 0 <= loss.ema_momentum < 1, "loss.ema_momentum", "from 0 to below 1"
    yield loss.principal >= 0, "loss.principal", "0 or more"
    yield 1 <= loss.max_scale < float("inf"), "loss.max_scale", "1 or more"
    yield 0 <= loss.min_scale <= loss.max_scale, "loss.min_scale", "from 0 to loss.max_scale"
    yield 0 <= data.max_regions <= 10_000, "data.max_regions", "from 0 to 10,000"
    yield data.hard_negatives >= 0, "data.hard_negatives", "0 or more"
    yield 0 <= data.crop_context < float("inf"), "data.crop_context", "0 or more"
    yield 0 < data.crop_scale[0] <= data.crop_scale[1] <= 1, "data.crop_scale", "two shares, 0 < first ≤ second ≤ 1"
    yield 0 < data.crop_ratio[0] <= data.crop_ratio[1] < float("inf"), "data.crop_ratio", "0 < first ≤ second"
    yield 0 <= data.min_region_px <= data.max_region_px, "data.min_region_px", "from 0 to data.max_region_px"
    yield all(0 <= most < float("inf") for most in data.jitter), "data.jitter", "four numbers of 0 or more"
    yield data.jitter[3] <= 0.5, "data.jitter", "four numbers, the last (hue) at most 0.5"
    yield 0 <= data.jitter_share <= 1, "data.jitter_share", "from 0 to 1"
    yield 0 <= data.grey_share <= 1, "data.grey_share", "from 0 to 1"
    yield 0 <= data.workers <= 256, "data.workers", "from 0 to 256"
    yield 0 < optim.rate < float("inf"), "optim.rate", "more than 0"
    yield 0 <= optim.weight_decay < float("inf"), "optim.weight_decay", "0 or more"
    yield all(0 <= beta < 1 for beta in optim.betas), "optim.betas", "two numbers from 0 to below 1"
    yield 0 < optim.eps < 1, "optim.eps", "between 0 and 1"
    yield optim.clip_norm >= 0, "optim.clip_norm", "0 (never) or more"
    yield optim.warmup_steps >= 0, "optim.warmup_steps", "0 or more"
    yield 0 < optim.epochs <= 1e6, "optim.epochs", "more than 0, 10⁶ at most"
    yield optim.steps is None or 1 <= optim.steps <= _MOST, "optim.steps", "from 1 to 10⁹"
    yield 1 <= optim.batch <= 2**20, "optim.batch", "from 1 to 2²⁰"
    yield run.zero_stage in (1, 2), "run.zero_stage", "1 or 2"
    yield 0 <= run.seed < 2**63, "run.seed", "from 0 to 2⁶³ − 1"
    yield run.log_every >= 1, "run.log_every", "1 or more"
    yield run.validate_every >= 0 and run.save_every >= 0, "run.validate_every", "0 (at the end) or more"
    yield run.keep >= 1, "run.keep", "1 or more"
    for key in ("width", "layers", "patch_px", "image_px"):
        value = getattr(recipe.start, key)
        yield value is None or value >= 1, f"start.{key}", "1 or more"
    yield recipe.start.stage is None or recipe.start.stage >= 0, "start.stage", "0 (no stage) or more"
    yield model.image_px is None or 16 <= model.image_px <= 4096, "model.image_px", "from 16 to 4,096"
    yield model.text_layers >= 1, "model.text_layers", "1 or more"
    yield model.text_width > 0 and model.text_width % 64 == 0, "model.text_width", "a multiple of 64"


def _contradictions(recipe: Recipe) -> Iterator[tuple[bool, str, str]]:
    loss, data, optim = recipe.loss, recipe.data, recipe.optim
    on = [name for name in LOSSES if getattr(loss, name) > 0]
    yield (
        not _plain(recipe.name), "name must be one line of 1 to 100 characters", "give the recipe a short name",
    )  # fmt: skip
    regional = [f"loss.{name}" for name in _OF_REGIONS if name in on]
    yield not on, "no loss is on", "give at least one of loss.* a weight above 0"
    yield (
        loss.granularity != "none" and loss.image_text == 0, "loss.granularity divides loss.image_text, which is 0",
        "set loss.image_text=1",
    )  # fmt: skip
    yield (
        bool(regional) and data.max_regions == 0, f"{' and '.join(regional)} needs regions",
        "set data.max_regions to 1 or more",
    )  # fmt: skip
    yield (
        loss.hard_negative > 0 and data.hard_negatives == 0, "loss.hard_negative needs hard negatives",
        "set data.hard_negatives to 1 or more",
    )  # fmt: skip
    for name in ("consistency", "category"):
        yield (
            name in on and data.crops != "regions", f"loss.{name} needs the crops of regions",
            "set data.crops=regions",
        )  # fmt: skip
    yield loss.distil > 0 and data.crops == "none", "loss.distil needs crops", "set data.crops=random or regions"
    texts = [f"loss.{name}" for name in ("region", "hard_negative") if name in on]
    yield (
        bool(texts) and data.crops == "random", f"random crops have no texts for {' and '.join(texts)}",
        "set data.crops=regions, or that weight to 0",
    )  # fmt: skip
    yield (
        not _one_place(data.category_template), "data.category_template must hold one plain {} for the category",
        "write it as: a satellite image of {}",
    )  # fmt: skip
    yield (
        loss.principal >= optim.batch and loss.principal > 0,
        f"loss.principal {loss.principal} needs a batch of more images than that, and optim.batch is {optim.batch}",
        "raise optim.batch or lower loss.principal",
    )  # fmt: skip
    yield (
        loss.principal > 0 and loss.granularity == "none", "loss.principal is for short texts beside long ones",
        "set loss.granularity, or loss.principal=0",
    )  # fmt: skip
    yield from _family(recipe)


def _plain(name: str) -> bool:
    """Return whether a name may stand in a card, a title and a file."""
    return bool(name.strip()) and len(name) <= 100 and name.isprintable()


def _one_place(template: str) -> bool:
    """Return whether a template has one plain place and nothing else that `str.format` would read."""
    return template.count("{}") == 1 and not set("{}") & set(template.replace("{}", ""))


def _family(recipe: Recipe) -> Iterator[tuple[bool, str, str]]:
    model = recipe.model
    known = {family.name: family for family in families()}
    family = known.get(model.family)
    yield family is None, f"model.family cannot be {model.family!r}", f"choose one of {', '.join(known)}"
    if family is None:
        return
    yield (
        model.tables not in family.tables, f"{family.title} has no text tables {model.tables}",
        f"set model.tables to one of {', '.join(table for table in family.tables if table in CHOICES['model.tables'])}",
    )  # fmt: skip
    yield (
        model.long_projection and (model.tables != "77+248" or "long_text_projection" not in family.extras),
        "model.long_projection goes with tables 77+248 of FG-CLIP and GeoAlignCLIP",
        "set model.long_projection=false",
    )  # fmt: skip
    yield (
        model.separate_scales and "logit_scale_region" not in family.extras,
        f"{family.title} has one temperature", "set model.separate_scales=false",
    )  # fmt: skip
