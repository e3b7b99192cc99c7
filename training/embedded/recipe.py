"""Every number of the training of the embedded model; ``training/recipes/embedded/*.yaml`` are these written out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from training.recipe_file import RECIPES_DIR, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiling.errors import GeoAlignError


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """First the head alone, on frozen towers."""

    epochs: int = 40
    """Passes over the captions."""
    batch: int = 1024
    """Images of a step."""
    rate: float = 1e-3
    """AdamW's highest rate, of one cycle."""
    weight_decay: float = 0.05
    """Of matrices."""
    noise: float = 0.02
    """Standard deviation of Gaussian noise on the raw features of images and sentences."""
    box_weight: float = 1.0
    """Weight of the loss of patches inside and outside boxes."""
    phrase_weight: float = 0.5
    """Weight of the loss of phrases that captions say or leave out."""
    box_rows: int = 192
    """Positive, and as many negative, patches per class and step."""
    words_per_class: int = 4
    """Words for a class that a step asks."""
    rival_words: int = 10
    """Words for other things that a step asks of patches inside boxes."""
    phrase_images: int = 64
    """Images of a step that the phrases are asked of."""
    phrase_patches: int = 128
    """Patches of such an image."""
    top_share: float = 0.2
    """Share of an image's patches, the best ones, that answer for it."""
    box_prior: float = 0.12
    """Prior of a patch being in a box; sets where a score of 0.5 lies. Boxes cover about 5 % of the scenes."""
    phrase_prior: float = 0.2
    """Prior of a phrase being true of an image."""


@dataclass(frozen=True, slots=True)
class TuneRecipe:
    """Then low-rank changes inside the towers, together with the head."""

    epochs: int = 6
    """Passes over the captions; 0 leaves the towers as they are."""
    batch: int = 256
    """Images of a step."""
    first_block: int = 8
    """The first of the image tower's twelve blocks that changes; the states before it are computed once."""
    image_rank: int = 16
    """Rank of the changes of the image tower's matrices."""
    text_rank: int = 16
    """Rank of the changes of the text tower's matrices."""
    image_rate: float = 4e-4
    """AdamW's highest rate for the image tower's changes, of one cycle."""
    text_rate: float = 1e-4
    """The text tower's."""
    head_rate: float = 2e-4
    """The head's."""
    weight_decay: float = 0.05
    """Of the head's matrices."""
    patch_share: float = 0.4
    """Share of a captioned image's patches that a step looks at (PatchDropout, Liu et al. 2022)."""
    queue: int = 256
    """Images and captions of the last steps that count as further negatives."""
    noise: float = 0.015
    """Standard deviation of Gaussian noise on the features of images and sentences."""
    box_weight: float = 2.0
    """Weight of the loss of patches inside and outside boxes."""
    phrase_weight: float = 0.5
    """Weight of the loss of phrases that captions say or leave out."""
    keep_weight: float = 1.0
    """Weight of the distance of sentence vectors from the pretrained ones."""
    forget_weight: float = 2.0
    """Weight of the loss that holds what places beside boxes answered to other words before."""
    box_rows: int = 192
    """Positive, and as many negative, patches per class and step."""
    share: float = 0.85
    """How far the weights go from their start to their end; 1 is the end (WiSE-FT, Wortsman et al. 2022)."""
    rim_share: float = 0.25
    """Share of the negatives outside boxes that lie at the rim of one."""
    phrase_images: int = 64
    """Images of a step that the phrases are asked of."""
    top_share: float = 0.2
    """Share of an image's patches, the best ones, that answer for it."""
    box_prior: float = 0.12
    """Prior of a patch being in a box."""
    phrase_prior: float = 0.2
    """Prior of a phrase being true of an image."""


@dataclass(frozen=True, slots=True)
class EmbeddedRecipe:
    """The whole training of the embedded model."""

    name: str
    seed: int = 0
    """Of everything that is random."""
    head: HeadRecipe = field(default_factory=HeadRecipe)
    tune: TuneRecipe = field(default_factory=TuneRecipe)


def check(recipe: EmbeddedRecipe, error: Callable[..., GeoAlignError]) -> None:
    """Refuse numbers out of their range.

    Args:
        recipe: The recipe, with values of the right types.
        error: Makes the error to raise from ``what``, ``measured`` and ``remedy``.

    Raises:
        GeoAlignError: As ``error`` makes it, about the first problem.
    """
    for holds, key, wanted in _ranges(recipe):
        if not holds:
            section, _, name = key.rpartition(".")
            value = getattr(getattr(recipe, section) if section else recipe, name)
            raise error(f"{key} must be {wanted}", measured=f"{value}", remedy="correct the value")


def _ranges(recipe: EmbeddedRecipe) -> Iterator[tuple[bool, str, str]]:
    head, tune = recipe.head, recipe.tune
    yield 0 <= recipe.seed < 2**32, "seed", "from 0 to 2³² − 1"
    yield 1 <= head.epochs <= 10**6, "head.epochs", "from 1 to 10⁶"
    yield 0 <= tune.epochs <= 10**6, "tune.epochs", "from 0 (frozen towers) to 10⁶"
    yield 0 <= tune.first_block < 12, "tune.first_block", "from 0 to 11"
    yield 0 < tune.share <= 1, "tune.share", "above 0, at most 1"
    yield 0 < tune.patch_share <= 1, "tune.patch_share", "above 0, at most 1"
    yield 0 <= tune.rim_share <= 1, "tune.rim_share", "from 0 to 1"
    yield tune.queue >= 0, "tune.queue", "0 or more"
    for name in ("image_rank", "text_rank"):
        yield 1 <= getattr(tune, name) <= 384, f"tune.{name}", "from 1 to 384"
    for name in ("image_rate", "text_rate", "head_rate"):
        yield 0 < getattr(tune, name) < float("inf"), f"tune.{name}", "more than 0"
    yield 0 < head.rate < float("inf"), "head.rate", "more than 0"
    for name in ("keep_weight", "forget_weight"):
        yield 0 <= getattr(tune, name) < float("inf"), f"tune.{name}", "0 or more"
    for section, part in (("head", head), ("tune", tune)):
        for name in ("batch", "box_rows", "phrase_images"):
            yield 1 <= getattr(part, name) <= 2**20, f"{section}.{name}", "from 1 to 2²⁰"
        for name in ("noise", "weight_decay", "box_weight", "phrase_weight"):
            yield 0 <= getattr(part, name) < float("inf"), f"{section}.{name}", "0 or more"
        for name in ("top_share", "box_prior", "phrase_prior"):
            yield 0 < getattr(part, name) < 1, f"{section}.{name}", "between 0 and 1"
    for name in ("words_per_class", "phrase_patches"):
        yield getattr(head, name) >= 1, f"head.{name}", "1 or more"
    yield head.rival_words >= 0, "head.rival_words", "0 or more"


ALIGN_RECIPE = Kind(EmbeddedRecipe, check, RECIPES_DIR / "embedded", "geoalign-train align")
