"""From records to a batch: what of a record a step sees, and how several become tensors.

Choices, where a record has more or less than is asked for:

- The brief caption is the record's, else its first further caption, else ``category_template`` of the scene's label;
  a record without any is of no use to a loss on captions and is replaced. The detailed caption is the record's, else
  all its further captions, joined; else the brief one.
  ``data.caption`` may put the detailed one in the brief one's place, as FarSLIP's second stage does.
- A region's text is its phrase or description, whichever is asked for and there; else ``category_template`` of its
  category. With FarSLIP's category loss alone it is that template always.
- Regions that break a rule are left out before the first ``max_regions`` are taken, so that as many as there may be
  survive (FarSLIP filters after its choice).
- Of more hard negatives than wanted, a random choice is taken; those equal to the region's text are no negatives.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from geoalign_core.models.pixels import to_square
from geoalign_core.models.tokens import Tokenizer
from geoalign_core.models.vocabulary import SHORT
from tiling.errors import UsageError
from training.batch import Batch
from training.data.errors import DataError
from training.loop.crops import Box, cut, random_box, sanitised, turned, turned_box
from training.loop.photometric import Photometric
from training.losses.inputs import one_of
from training.model.objective import Needs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.config import ModelConfig
    from training.data.schema import Record, Region
    from training.recipe import Recipe


CAPTIONS = ("brief", "detailed", "random")
"""What a loss on one caption reads."""


@dataclass(slots=True)
class Sample:
    """One record as a step sees it: pixels already squares, texts still texts."""

    key: str
    image: torch.Tensor
    """(3, S, S) uint8"""
    brief: str = ""
    detailed: str = ""
    boxes: list[Box] = field(default_factory=list)
    crops: list[torch.Tensor] = field(default_factory=list)
    """(3, S, S) uint8 each; one for each box, or none"""
    texts: list[str] = field(default_factory=list)
    """One for each box where the recipe reads regions' texts."""
    categories: list[int] = field(default_factory=list)
    """One for each box; −1 unknown."""
    negatives: list[tuple[int, str]] = field(default_factory=list)
    """(box, text)"""
    skipped: Counter[str] = field(default_factory=Counter)


class Reader:
    """Makes samples of records and batches of samples; a plain value that worker processes can be given.

    Args:
        recipe: What is read and how.
        config: Side of the images and context of the texts.
        category_names: Categories by their number in the run.

    Raises:
        UsageError: The recipe contradicts itself.
    """

    def __init__(self, recipe: Recipe, config: ModelConfig, category_names: Sequence[str] = ()) -> None:
        self.data, self.needs, self.preprocess = recipe.data, Needs.of(recipe), config.preprocess
        self.categories_alone = not (recipe.loss.region > 0 or recipe.loss.hard_negative > 0)
        changed = self.data.jitter_share > 0 or self.data.grey_share > 0
        self.colours = Photometric(self.data.jitter, self.data.jitter_share, self.data.grey_share) if changed else None
        self._numbers: Mapping[str, int] = {name: number for number, name in enumerate(category_names)}
        pad = str(config.text_cfg.get("pad", "zero"))
        context = int(config.text_cfg.get("context_length", SHORT) or SHORT)
        self.short, self.long = Tokenizer(min(SHORT, context), pad), Tokenizer(context, pad)
        one_of("data.caption", self.data.caption, CAPTIONS)
        if self.data.caption != "brief" and self.needs.detailed:
            raise UsageError(
                "data.caption chooses one caption, and the recipe's losses read both", measured=self.data.caption,
                remedy="set data.caption to brief, or loss.textual to 0 and loss.granularity to none",
            )  # fmt: skip
        if self.preprocess.mode == "crop" and self.needs.boxes:
            # Boxes are shares of the whole image, and a centre crop is a part of it. Recipes with regions all squash.
            self.preprocess = replace(self.preprocess, mode="squash")

    # ---- one record

    def sample(self, key: str, record: Record, image: NDArray[np.uint8], rng: np.random.Generator) -> Sample:
        """Return what a step sees of a record.

        Args:
            key: Name of the record, for errors.
            record: Captions and regions.
            image: (H, W, 3) uint8 RGB.
            rng: Decides everything that is random; draws are made whatever the record holds.

        Raises:
            DataError: The record has no caption, and the recipe reads captions.
        """
        quarters, mirrored = (int(rng.integers(4)), bool(rng.integers(2))) if self.data.flips else (0, False)
        image = turned(image, quarters, mirrored)
        sample = Sample(key, self._seen(image, rng))
        if self.needs.brief or self.needs.detailed:
            self._captions(sample, record, rng)
        if not self.needs.boxes:
            return sample
        if self.data.crops == "random":
            self._random_crops(sample, image, rng)
        else:
            self._regions(sample, record, image, rng, quarters, mirrored)
        return sample

    def _seen(self, image: NDArray[np.uint8], rng: np.random.Generator) -> torch.Tensor:
        """Return an image or a crop as the tower gets it."""
        square = self._square(image)
        return square if self.colours is None else self.colours(square, rng)

    def _square(self, image: NDArray[np.uint8]) -> torch.Tensor:
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
        return to_square(pixels, self.preprocess)[0].contiguous()

    def _captions(self, sample: Sample, record: Record, rng: np.random.Generator) -> None:
        further = [text.strip() for text in record.captions if text.strip()]
        brief = (record.brief_caption or "").strip() or (further[0] if further else "")
        if not brief and record.label:
            brief = self.data.category_template.format(record.label)
        detailed = (record.detailed_caption or "").strip() or " ".join(dict.fromkeys(further))
        brief = brief or detailed
        if not brief:
            raise DataError("has no caption", path=sample.key, remedy="give brief_caption, captions or label")
        detailed = detailed or brief
        wanted = self.data.caption
        if wanted == "detailed" or (wanted == "random" and rng.random() < 0.5):
            brief = detailed
        sample.brief, sample.detailed = self.data.brief_prefix + brief, detailed

    def _random_crops(self, sample: Sample, image: NDArray[np.uint8], rng: np.random.Generator) -> None:
        height, width = image.shape[:2]
        for _ in range(self.data.max_regions):
            box = random_box(rng, width, height, self.data.crop_scale, self.data.crop_ratio)
            sample.boxes.append(box)
            sample.crops.append(self._seen(cut(image, box), rng))
            sample.categories.append(-1)

    def _regions(
        self, sample: Sample, record: Record, image: NDArray[np.uint8], rng: np.random.Generator,
        quarters: int, mirrored: bool,
    ) -> None:  # fmt: skip
        height, width = image.shape[:2]
        if quarters % 2:
            height, width = width, height
        valid = [
            (region, box) for region in record.regions
            if (box := self._valid(region, width, height, sample.skipped)) is not None
        ]  # fmt: skip
        most = self.data.max_regions
        if len(valid) > most:
            order = np.sort(rng.permutation(len(valid))[:most]) if self.data.regions == "random" else range(most)
            valid = [valid[index] for index in order]
        for region, box in valid:
            own = turned_box(box, quarters, mirrored)
            if self.needs.region_texts:
                text = self._text(region, rng)
                sample.texts.append(text)
                if self.needs.negatives:
                    sample.negatives += [(len(sample.boxes), other) for other in self._negatives(region, text, rng)]
            sample.boxes.append(own)
            sample.categories.append(self._category(region))
            if self.needs.crops:
                sample.crops.append(self._seen(cut(image, own, self.data.crop_context), rng))

    def _valid(self, region: Region, width: int, height: int, skipped: Counter[str]) -> Box | None:
        """Return a region's box if the region can be learnt from, else count why not."""
        box = sanitised(region.bbox, width, height)
        if isinstance(box, str):
            skipped[box] += 1
            return None
        area = (box[2] - box[0]) * width * (box[3] - box[1]) * height
        if area < self.data.min_region_px**2:
            skipped["region too small"] += 1
            return None
        if area > self.data.max_region_px**2:
            skipped["region too large"] += 1
            return None
        if self.needs.region_texts and not any(self._texts(region)):
            skipped["region without text"] += 1
            return None
        return box

    def _texts(self, region: Region) -> tuple[str, str, str]:
        """Return phrase, description and the category's text, "" where there is none or it is not to be read."""
        category = self.data.category_template.format(region.category) if region.category else ""
        if self.categories_alone:
            return "", "", category
        return (region.phrase or "").strip(), (region.description or "").strip(), category

    def _text(self, region: Region, rng: np.random.Generator) -> str:
        phrase, description, category = self._texts(region)
        long = rng.random() < 0.5 if self.data.region_text == "random" else self.data.region_text == "description"
        return (description or phrase or category) if long else (phrase or description or category)

    def _category(self, region: Region) -> int:
        if not self.needs.categories:
            return -1
        return self._numbers.get(region.category or "", -1)

    def _negatives(self, region: Region, text: str, rng: np.random.Generator) -> list[str]:
        """Return a choice of a region's negatives, in their order; only as many are looked at as it takes."""
        given, most = region.hard_negatives, self.data.hard_negatives
        order = rng.permutation(len(given)).tolist() if len(given) > most else range(len(given))
        found = {_folded(text): -1}
        for index in order:
            if len(found) > most:
                break
            if folded := _folded(given[index].text):
                found.setdefault(folded, index)
        return [given[index].text.strip() for index in sorted(found.values()) if index >= 0]

    # ---- several

    def batch(self, samples: Sequence[Sample]) -> tuple[Batch, list[Counter[str]]]:
        """Return samples as tensors, and what was skipped in each of them, by reason; cut texts are among it."""
        skipped = [Counter(sample.skipped) for sample in samples]
        pairs = list(zip(samples, skipped, strict=True))
        counts_of_regions = [counts for sample, counts in pairs for _ in sample.texts]
        counts_of_negatives = [counts for sample, counts in pairs for _ in sample.negatives]
        starts = np.cumsum([0, *(len(sample.boxes) for sample in samples)])
        brief = [sample.brief for sample in samples]
        region = [text for sample in samples for text in sample.texts]
        negatives = [text for sample in samples for _, text in sample.negatives]
        owners = [
            int(start) + box for start, sample in zip(starts, samples, strict=False) for box, _ in sample.negatives
        ]
        detailed = [sample.detailed for sample in samples] if self.needs.detailed else []
        short = _tokens(
            self.short, [*brief, *region, *negatives], [*skipped, *counts_of_regions, *counts_of_negatives]
        )  # fmt: skip
        parts = short.split([len(brief), len(region), len(negatives)])
        side = self.preprocess.image_px
        crops = [crop for sample in samples for crop in sample.crops]
        boxes = [box for sample in samples for box in sample.boxes]
        batch = Batch(
            images=torch.stack([sample.image for sample in samples]),
            crops=torch.stack(crops) if crops else torch.zeros(0, 3, side, side, dtype=torch.uint8),
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            image_of=torch.repeat_interleave(torch.arange(len(samples)), torch.from_numpy(np.diff(starts))),
            brief=parts[0], brief_id=_ids(brief),
            detailed=_tokens(self.long, detailed, skipped), detailed_id=_ids(detailed),
            region=parts[1], region_id=_ids(region),
            category=_int64([number for sample in samples for number in sample.categories]),
            negatives=parts[2], negative_of=_int64(owners),
            keys=tuple(sample.key for sample in samples),
        )  # fmt: skip
        return batch, skipped


def text_id(text: str) -> int:
    """Return a number of 63 bits that equal texts share; case and spacing do not count, as the tokens have neither."""
    digest = hashlib.blake2b(_folded(text).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _ids(texts: Sequence[str]) -> torch.Tensor:
    return _int64([text_id(text) for text in texts])


def _int64(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _tokens(tokenizer: Tokenizer, texts: Sequence[str], counts: Sequence[Counter[str]]) -> torch.Tensor:
    """Return (N, n) tokens, as wide as the longest text, and count each text that was cut where it belongs."""
    tokens, ends = tokenizer.encode(texts)
    for text, end, own in zip(texts, ends.tolist(), counts, strict=False):
        # A text of the full width may have been cut; a shorter one cannot.
        if end == tokenizer.context - 1 and not tokenizer.fits(text):
            own["text cut"] += 1
    return tokens
