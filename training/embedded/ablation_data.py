"""What the ablation learns from and is measured on: frozen features, sentence vectors and regions, as flat tensors.

Prepared once into one safetensors file, which the runs map into memory and share.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from tiling.files import atomic_file
from training.embedded.ablation_regions import CATEGORIES, DISTRACTORS, RULES, roi_weights
from training.embedded.ablation_windows import crop_set, held_out_windows, read_objects, training_windows
from training.embedded.corpus import gather_captions, gather_held_out
from training.embedded.data import read_aircraft, read_captions, read_vehicles
from training.embedded.features import cache_features
from training.embedded.samples import PATCH_PX
from training.embedded.words import scene_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from geoalign_core.models.config import ModelConfig
    from geoalign_core.models.embedded import Towers
    from tiling.progress import Progress
    from training.embedded.ablation_windows import Windows
    from training.embedded.corpus import Captions
    from training.embedded.features import Cached, SampleSet

DENSE_SETS = {"aircraft": "aircraft 0.5 m", "car": "vehicles 0.2 m"}
"""Held-out sets whose patches are scored."""
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Images:
    """Captioned images. Texts are numbers of rows in :attr:`Material.sentences`."""

    window: torch.Tensor
    """(N, C) float16 class tokens"""
    patches: torch.Tensor
    """(N, P, C) float16"""
    brief: torch.Tensor
    """(n,) the images' captions, flat"""
    start: torch.Tensor
    """(N + 1,) where an image's captions start in ``brief``"""
    detailed: torch.Tensor
    """(N,) all captions of the image in one text"""
    scene: torch.Tensor
    """(N,) number of its class"""


@dataclass(frozen=True, slots=True)
class Regions:
    """Boxes in windows, with only the patches that their RoIAlign touches."""

    patches: torch.Tensor
    """(n, C) float16, flat"""
    weight: torch.Tensor
    """(n,) of the patch in its region's RoIAlign"""
    start: torch.Tensor
    """(R + 1,) where a region's patches start"""
    window: torch.Tensor
    """(R, C) float16 class token of the region's window"""
    category: torch.Tensor
    """(R,)"""
    crop: torch.Tensor
    """(R,) row of :attr:`Crops.window`; -1 without a crop"""
    text: torch.Tensor
    """(R,) the phrase"""
    negative: torch.Tensor
    """(m,) hard negatives, flat"""
    negative_start: torch.Tensor
    """(R + 1,)"""
    rule: torch.Tensor
    """(m,) number in ``RULES``"""


@dataclass(frozen=True, slots=True)
class Crops:
    """Boxes cut out and enlarged to 224 × 224 px."""

    window: torch.Tensor
    """(M, C) float16"""
    patches: torch.Tensor
    """(M, P, C) float16"""


@dataclass(frozen=True, slots=True)
class Dense:
    """A held-out set with patch labels, laid flat."""

    patches: torch.Tensor
    """(n, C) float16"""
    window: torch.Tensor
    """(S, C) float16"""
    sample: torch.Tensor
    """(n,) which sample a patch is from"""
    label: torch.Tensor
    """(n,) 1 centre in a box, 0 outside, -1 rim"""
    group: torch.Tensor
    """(S,) scene or recording of the sample"""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Sentence vectors of everything that is asked at the end, (…, templates, width)."""

    scenes: torch.Tensor
    categories: torch.Tensor
    contrast: torch.Tensor
    """(contrast, width)"""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything."""

    sentences: torch.Tensor
    """(T, width) sentence vectors of all texts"""
    train: Images
    held_out: Images
    regions: Regions
    held_out_regions: Regions
    crops: Crops
    aircraft: Dense
    car: Dense
    prompts: Prompts


_PARTS = {
    "train": Images, "held_out": Images, "regions": Regions, "held_out_regions": Regions, "crops": Crops,
    "aircraft": Dense, "car": Dense, "prompts": Prompts,
}  # fmt: skip


def save_material(material: Material, path: Path) -> None:
    """Write a material as one file, atomically."""
    from safetensors.torch import save_file

    tensors = {"sentences": material.sentences}
    for part in _PARTS:
        value = getattr(material, part)
        tensors |= {f"{part}.{item.name}": getattr(value, item.name).contiguous() for item in fields(value)}
    with atomic_file(path, overwrite=True) as temporary:
        save_file(tensors, temporary)


def load_material(path: Path) -> Material:
    """Map a file of :func:`save_material` into memory."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    parts = {
        part: kind(**{item.name: tensors[f"{part}.{item.name}"] for item in fields(kind)})
        for part, kind in _PARTS.items()
    }
    return Material(sentences=tensors["sentences"], **parts)


class Texts:
    """Numbers for texts, and the table of their sentence vectors."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._known: dict[int, torch.Tensor] = {}

    def number(self, text: str) -> int:
        """Return the text's number, a new one for a new text."""
        return self.numbers.setdefault(text, len(self.numbers))

    def learn(self, texts: Sequence[str], sentences: torch.Tensor) -> None:
        """Take sentence vectors (T, width) that are there already."""
        self._known |= {self.number(text): row for text, row in zip(texts, sentences, strict=True)}

    def vectors(self, towers: Towers, progress: Progress, part: int = 256) -> torch.Tensor:
        """Return (T, width) sentence vectors in the order of the numbers; long texts are cut by the tower."""
        # Equal lengths together: little padding.
        missing = sorted((text for text, number in self.numbers.items() if number not in self._known), key=len)
        for start in range(0, len(missing), part):
            chunk = missing[start : start + part]
            self.learn(chunk, torch.from_numpy(towers.sentences(chunk)))
            progress(min(start + part, len(missing)), len(missing), "sentences")
        return torch.stack([self._known[number] for number in range(len(self.numbers))])


def prepare(data: Path, towers: Towers, config: ModelConfig, work: Path, progress: Progress) -> Path:
    """Gather the material into one file of the work folder, or find it there.

    Args:
        data: Folder of the training data.
        towers: The packaged towers.
        config: The model's configuration.
        work: Folder of the feature cache.
        progress: Told about every stage.

    Raises:
        DataError: The data is missing or not as expected.
    """
    names = sorted(image.name for image in read_captions(data))
    boxes = [(item.path.name, item.boxes_xyxy_px.tolist()) for item in [*read_aircraft(data), *read_vehicles(data)]]
    known = f"{_FORMAT}:{towers.digest}:{names}:{boxes}"
    digest = hashlib.sha256(known.encode()).hexdigest()[:12]
    path = work / f"ablation-{digest}.safetensors"
    if not path.exists():
        save_material(gather(data, towers, config, work, progress), path)
    return path


def gather(data: Path, towers: Towers, config: ModelConfig, work: Path, progress: Progress) -> Material:
    """Gather the material: see :func:`prepare`."""
    texts = Texts()

    def features(samples: SampleSet) -> Cached:
        return cache_features(samples, towers, work, progress)

    objects = read_objects(data, progress)
    windows = training_windows(data, objects)
    held = held_out_windows(data, objects, config.dense.window_px)
    crops = features(crop_set(data, windows))
    cached = {name: features(item.dense.samples) for name, item in held.items()}
    regions = lay_out(windows, [features(item.dense.samples) for item in windows], crops.keys, texts)
    held_out_regions = lay_out(list(held.values()), list(cached.values()), (), texts)
    aircraft, car = (_dense(held[name], cached[name]) for name in DENSE_SETS.values())
    scenes = sorted({image.scene for image in read_captions(data)})
    train = _images(gather_captions(data, towers, work, progress), scenes, texts, thinned=True)
    held_out = _images(gather_held_out(data, towers, work, progress), scenes, texts, thinned=False)
    cut_out = np.stack([grid.reshape(grid.shape[0], -1).T for grid in crops.patches])
    return Material(
        sentences=texts.vectors(towers, progress), train=train, held_out=held_out, regions=regions,
        held_out_regions=held_out_regions, aircraft=aircraft, car=car, prompts=_prompts(config, towers, scenes),
        crops=Crops(torch.from_numpy(crops.window), thin(torch.from_numpy(cut_out))),
    )  # fmt: skip


def thin(patches: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Keep a random patch of every 2 × 2 of square grids (N, h·w, C): (N, h·w/4, C)."""
    side = round(patches.shape[1] ** 0.5)
    generator = torch.Generator().manual_seed(seed)
    corner = torch.arange(0, side, 2)
    count = len(corner) ** 2
    steps = torch.randint(2, (2, len(patches), count), generator=generator)
    rows = corner.repeat_interleave(len(corner)) + steps[0]
    cells = rows * side + corner.repeat(len(corner)) + steps[1]
    return patches[torch.arange(len(patches))[:, None], cells]


def _images(captions: Captions, scenes: Sequence[str], texts: Texts, *, thinned: bool) -> Images:
    """Number the texts of images; what is measured keeps all its patches."""
    texts.learn(captions.texts, captions.sentences)
    brief = [[texts.number(text) for text in image.captions] for image in captions.images]
    joined = [" ".join(dict.fromkeys(image.captions)) for image in captions.images]
    return Images(
        window=captions.window.half(), patches=thin(captions.patches) if thinned else captions.patches,
        brief=torch.tensor([number for numbers in brief for number in numbers]), start=offsets(map(len, brief)),
        detailed=torch.tensor([texts.number(text) for text in joined]),
        scene=torch.tensor([scenes.index(image.scene) for image in captions.images]),
    )  # fmt: skip


def offsets(counts: Iterable[int]) -> torch.Tensor:
    """Return where parts of the given lengths start in one flat row, and where the last ends."""
    return torch.tensor([0, *counts]).cumsum(0)


def lay_out(windows: Sequence[Windows], features: Sequence[Cached], crops: Sequence[str], texts: Texts) -> Regions:
    """Lay the regions of windows flat.

    Args:
        windows: Sets of windows with their regions.
        features: Their features.
        crops: Keys of the crops.
        texts: Takes the phrases and hard negatives.
    """
    number = {key: index for index, key in enumerate(crops)}
    patches, weights, tokens, regions = [], [], [], []
    for part, cached in zip(windows, features, strict=True):
        for placed, grid, window in zip(part.regions, cached.patches, cached.window, strict=True):
            if not placed:
                continue
            of_patch = roi_weights([item.xyxy_px for item in placed], grid.shape[1], grid.shape[2], PATCH_PX)
            flat = torch.from_numpy(np.ascontiguousarray(grid.reshape(grid.shape[0], -1).T))
            for item, row in zip(placed, of_patch, strict=True):
                used = row.nonzero()[:, 0]
                patches.append(flat[used])
                weights.append(row[used])
                tokens.append(torch.from_numpy(window.copy()))
                regions.append(item)
    negatives = [item.negatives for item in regions]
    return Regions(
        patches=torch.cat(patches), weight=torch.cat(weights), start=offsets(map(len, weights)),
        window=torch.stack(tokens), category=torch.tensor([item.box.category for item in regions]),
        crop=torch.tensor([number.get(item.box.key, -1) for item in regions]),
        text=torch.tensor([texts.number(item.phrase) for item in regions]),
        negative=torch.tensor([texts.number(text) for group in negatives for text, _ in group]),
        negative_start=offsets(map(len, negatives)),
        rule=torch.tensor([RULES.index(rule) for group in negatives for _, rule in group]),
    )  # fmt: skip


def _dense(windows: Windows, cached: Cached) -> Dense:
    groups = sorted(set(windows.dense.groups))
    sizes = [label.size for label in windows.dense.labels]
    return Dense(
        patches=torch.from_numpy(np.concatenate([grid.reshape(grid.shape[0], -1).T for grid in cached.patches])),
        window=torch.from_numpy(cached.window), sample=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        label=torch.from_numpy(np.concatenate([label.ravel() for label in windows.dense.labels])),
        group=torch.tensor([groups.index(name) for name in windows.dense.groups]),
    )  # fmt: skip


def _prompts(config: ModelConfig, towers: Towers, scenes: Sequence[str]) -> Prompts:
    templates = config.prompts.templates

    def templated(words: Sequence[str]) -> torch.Tensor:
        texts = [template.format(word) for word in words for template in templates]
        return torch.from_numpy(towers.sentences(texts)).reshape(len(words), len(templates), -1)

    return Prompts(
        scenes=templated([scene_name(name) for name in scenes]),
        categories=templated([*CATEGORIES, *DISTRACTORS]),
        contrast=torch.from_numpy(towers.sentences(list(config.prompts.contrast))),
    )
