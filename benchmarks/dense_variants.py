"""Which dense variant finds things: patch average precision of every variant on real weights and real boxes.

    python benchmarks/dense_variants.py DATA_DIR MODEL [--scenes N] [--work FOLDER] [--picture FILE.png]

MODEL is a CLIP model by name or folder (``geoalign models import``); its image tower is enough. Windows of the
model's own size are drawn at random from each scene, as many from each. A patch is inside where at least half of it
is covered by boxes; every other patch is outside. Scenes (drone images: whole recordings) are split three times into
two thirds to learn from and one third to measure on. From the patch vectors alone

- *probe* is a logistic regression,
- *means* is the cosine to the mean of the inside less the mean of the outside.

Figures are the average precision over every patch of the windows of the measured scenes, mean ± spread of the splits,
in per cent. Features are kept in ``--work`` per scene, so a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from geoalign_core.models.dense import MODES, find_variant, last_block, with_class_bias
from geoalign_core.models.vit import VisionTransformer
from tiling.errors import GeoAlignError
from tiling.files import atomic_file
from training.data.images import resize
from training.embedded.data import decode, read_aircraft, read_vehicles, recording_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from training.embedded.data import BoxedImage

SPLITS = 3
TEST_SHARE = 1 / 3
PROBE_POSITIVES, PROBE_NEGATIVES = 3000, 6000
PROBE_C = 100.0
BATCH = 8
READINGS = {mode: (mode, 0.0) for mode in MODES} | {
    f"{mode}, class −0.3": (mode, -0.3) for mode in ("maskclip", "segearth")
}
"""Name → mode and weight of the class vector."""
PART = (328, 328, 672)
"""Column, row and side of the sample image's part that is drawn, in pixels."""
CLICK = (270, 560)
SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "canal.tif"


Window = tuple["NDArray[np.uint8]", "NDArray[np.float64]"]


@dataclass(frozen=True, slots=True)
class Contest:
    """One class of things at one ground resolution."""

    name: str
    scenes: tuple[BoxedImage, ...]
    side_px: int
    """Side that a scene is resized to."""
    windows: int
    """Windows drawn from a scene."""

    def group(self, scene: BoxedImage) -> str:
        """Return what must not be split: the recording of a drone image, or the scene."""
        return recording_of(scene.path.stem) if "vehicles" in self.name else scene.path.stem


@dataclass(frozen=True, slots=True)
class Patches:
    """All the patches of a contest in one mode."""

    vectors: NDArray[np.float16]
    """(n, D) L2-normalised"""
    inside: NDArray[np.bool_]
    """(n,)"""
    groups: NDArray[np.str_]
    """(n,)"""


def contests(data: Path, scenes: int | None) -> list[Contest]:
    """Return what is measured."""
    aircraft, vehicles = _some(read_aircraft(data), scenes), _some(read_vehicles(data), scenes)
    return [
        Contest("aircraft 0.5 m", aircraft, 2560, 8),
        Contest("aircraft 1 m", aircraft, 1280, 4),
        Contest("vehicles", vehicles, 640, 1),
    ]


def _some(scenes: list[BoxedImage], count: int | None) -> tuple[BoxedImage, ...]:
    return tuple(scenes[:: max(1, len(scenes) // count)] if count else scenes)


def coverage(boxes_xyxy_px: NDArray[np.float64], side_px: int, patch_px: int) -> NDArray[np.float64]:
    """Return the share (h, w) of each patch of a window that boxes cover."""
    covered = np.zeros((side_px, side_px), bool)
    for x0, y0, x1, y1 in np.clip(np.rint(boxes_xyxy_px), 0, side_px).astype(int):
        covered[y0:y1, x0:x1] = True
    cells = side_px // patch_px
    return covered.reshape(cells, patch_px, cells, patch_px).mean(axis=(1, 3))


def cut_scene(contest: Contest, scene: BoxedImage, window_px: int, patch_px: int) -> Iterator[Window]:
    """Yield the scene's windows (3, H, W) uint8, each with its coverage (h, w); which ones is fixed by its name."""
    image = decode(scene.path.read_bytes())
    factor = contest.side_px / image.shape[1]
    if factor != 1:
        image = resize(image, contest.side_px, contest.side_px)
    seed = int.from_bytes(hashlib.sha256(f"{contest.name}:{scene.path.name}".encode()).digest()[:8], "big")
    places = np.random.default_rng(seed).integers(0, contest.side_px - window_px + 1, size=(contest.windows, 2))
    for x, y in places:
        boxes = scene.boxes_xyxy_px * factor - [x, y, x, y]
        window = image[y : y + window_px, x : x + window_px]
        yield window.transpose(2, 0, 1), coverage(boxes, window_px, patch_px)


class Extractor:
    """Patch vectors of every mode from one pass through the trunk, kept on disk.

    Args:
        model: A CLIP model by name or folder.
        work: Folder of the cache.
    """

    def __init__(self, model: str, work: Path) -> None:
        from geoalign_core.models.registry import load_encoder

        try:
            encoder = load_encoder(model, device="cpu")
        except GeoAlignError as error:
            raise SystemExit(f"error: {error}") from error
        visual = getattr(getattr(encoder, "model", None), "visual", None)
        if not isinstance(visual, VisionTransformer):
            raise SystemExit(f"{model} is not a CLIP vision transformer")
        self._visual = visual
        self.window_px, self.patch_px = encoder.config.preprocess.image_px, encoder.config.patch_px
        pixels = encoder.config.preprocess
        self._mean, self._std = (torch.tensor(value).view(3, 1, 1) * 255 for value in (pixels.mean, pixels.std))
        self._work = work / encoder.key[:16]

    @torch.inference_mode()
    def by_mode(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return (B, 1 + h·w, D) L2-normalised class and patch vectors per mode of uint8 images (B, 3, H, W)."""
        pixels = (torch.from_numpy(np.ascontiguousarray(images)).float() - self._mean) / self._std
        x, grid = self._visual.trunk(pixels)
        block = self._visual.transformer.resblocks[-1]
        heads = block.attn.project(block.ln_1(x))
        found = {}
        for mode in MODES:
            tokens = self._visual.project(last_block(block, x, heads, find_variant(mode), grid))
            found[mode] = functional.normalize(tokens.float(), dim=-1).numpy()
        return found

    def scene(self, contest: Contest, scene: BoxedImage) -> Path:
        """Return the file of one scene: per mode (N, 1 + h·w, D), and ``coverage`` (N, h·w)."""
        from safetensors.numpy import save

        folder = self._work / f"{contest.name.replace(' ', '-')}-{contest.windows}"
        kept = folder / f"{scene.path.stem}.safetensors"
        if kept.exists():
            return kept
        windows, shares = zip(*cut_scene(contest, scene, self.window_px, self.patch_px), strict=True)
        parts = [self.by_mode(np.stack(windows[at : at + BATCH])) for at in range(0, len(windows), BATCH)]
        found = {mode: np.concatenate([part[mode] for part in parts]).astype(np.float16) for mode in MODES}
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(kept, overwrite=True) as path:
            path.write_bytes(save({**found, "coverage": np.stack(shares).reshape(len(shares), -1)}))
        return kept


def extract(extractor: Extractor, contest: Contest) -> list[Path]:
    """Return the files of a contest's scenes, after computing those that are missing."""
    files = []
    start = time.monotonic()
    for number, scene in enumerate(contest.scenes, 1):
        files.append(extractor.scene(contest, scene))
        left = (time.monotonic() - start) / number * (len(contest.scenes) - number)
        sys.stderr.write(f"{contest.name}: {number}/{len(contest.scenes)}, {left:.0f} s left\n")
    return files


def gather(contest: Contest, files: list[Path], mode: str, class_weight: float) -> Patches:
    """Return every patch of a contest in one mode, as ``L2(patch + class_weight · class)``."""
    from safetensors import safe_open

    vectors, inside, groups = [], [], []
    for scene, file in zip(contest.scenes, files, strict=True):
        with safe_open(file, "numpy") as kept:
            tokens, cover = kept.get_tensor(mode), kept.get_tensor("coverage").ravel()
        patches = with_class_bias(torch.from_numpy(tokens[:, 1:]), torch.from_numpy(tokens[:, 0]), class_weight)
        vectors.append(patches.numpy().reshape(len(cover), -1))
        inside.append(cover >= 0.5)
        groups.append(np.full(len(cover), contest.group(scene)))
    return Patches(np.concatenate(vectors), np.concatenate(inside), np.concatenate(groups))


def splits(patches: Patches) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield masks (n,) of the patches that are learnt from and measured on."""
    names = np.unique(patches.groups)
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(names)
        test = np.isin(patches.groups, order[: round(TEST_SHARE * len(names))])
        yield ~test, test


def average_precisions(patches: Patches, learn: NDArray[np.bool_], test: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the average precision of the probe and of the class means."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    chosen = []
    for flag, count in ((True, PROBE_POSITIVES), (False, PROBE_NEGATIVES)):
        rows = np.flatnonzero(learn & (patches.inside == flag))
        chosen.append(rng.choice(rows, min(count, len(rows)), replace=False))
    positive, negative = (patches.vectors[np.sort(rows)].astype(np.float32) for rows in chosen)
    targets = np.repeat([True, False], [len(positive), len(negative)])
    probe = LogisticRegression(C=PROBE_C, max_iter=500).fit(np.concatenate([positive, negative]), targets)
    vectors, truth = patches.vectors[test].astype(np.float32), patches.inside[test]
    by_probe = vectors @ probe.coef_[0].astype(np.float32)
    by_means = vectors @ (positive.mean(axis=0) - negative.mean(axis=0))
    return float(average_precision_score(truth, by_probe)), float(average_precision_score(truth, by_means))


def measure(contest: Contest, files: list[Path]) -> dict[str, dict[str, list[float]]]:
    """Return, per variant, the figures of all splits, and print what they are about."""
    result: dict[str, dict[str, list[float]]] = {}
    for name, (mode, class_weight) in READINGS.items():
        patches = gather(contest, files, mode, class_weight)
        if not result:
            groups, inside = len(np.unique(patches.groups)), 100 * patches.inside.mean()
            print(f"{contest.name}: {len(patches.inside)} patches, {inside:.1f} % inside, {groups} groups", flush=True)
        figures = [average_precisions(patches, learn, test) for learn, test in splits(patches)]
        result[name] = {"probe": [row[0] for row in figures], "means": [row[1] for row in figures]}
        sys.stderr.write(f"{contest.name}, {name}: {np.round(np.mean(figures, axis=0), 3)}\n")
    return result


def table(results: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Return the figures as a Markdown table: one row per mode, probe and means of every contest."""
    columns = [(contest, how) for contest in results for how in ("probe", "means")]
    lines = [
        "| variant | " + " | ".join(f"{contest}, {how}" for contest, how in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for mode in next(iter(results.values())):
        cells = [np.asarray(results[contest][mode][how]) * 100 for contest, how in columns]
        lines.append(f"| `{mode}` | " + " | ".join(f"{cell.mean():.1f} ± {cell.std():.1f}" for cell in cells) + " |")
    return "\n".join(lines)


def draw(extractor: Extractor, path: Path) -> None:
    """Draw, per mode, the cosine of every patch of a part of the sample image to the clicked patch."""
    import rasterio
    from matplotlib.figure import Figure

    col, row, side = PART
    with rasterio.open(SAMPLE) as raster:
        image = raster.read((1, 2, 3))[:, row : row + side, col : col + side]
    cells = side // extractor.patch_px
    clicked = CLICK[1] // extractor.patch_px * cells + CLICK[0] // extractor.patch_px
    figure = Figure(figsize=(9, 9.4), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots(3, 3).ravel()
    axes[0].imshow(image.transpose(1, 2, 0))
    axes[0].set_title("the clicked place", fontsize=12, loc="left")
    for plot, (mode, tokens) in zip(axes[1:], extractor.by_mode(image[None]).items(), strict=True):
        patches = tokens[0, 1:]
        likeness = (patches @ patches[clicked]).reshape(cells, cells)
        low, high = np.percentile(likeness, (2, 98))
        plot.imshow(likeness, cmap="viridis", vmin=low, vmax=high, extent=(0, side, side, 0))
        plot.set_title(f"{mode}   {low:.2f} … {high:.2f}", fontsize=12, loc="left")
    for plot in axes:
        plot.plot(*CLICK, "o", ms=9, mfc="none", mec="white", mew=4)
        plot.plot(*CLICK, "o", ms=9, mfc="none", mec="#cc3d74", mew=2)
        plot.set(xticks=[], yticks=[])
        plot.spines[:].set_visible(False)
    with atomic_file(path, overwrite=True) as target:
        figure.savefig(target, format="png")
        with Image.open(target) as drawn:
            small = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(target, format="png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--scenes", type=int, help="use about so many scenes of each set (3 or more)")
    parser.add_argument("--work", type=Path, help="folder that keeps the features (about 1.1 GB)")
    parser.add_argument("--picture", type=Path, help="draw likeness to places of the sample image instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        extractor = Extractor(options.model, options.work or Path(scratch))
        if options.picture:
            draw(extractor, options.picture)
            return
        results = {}
        for contest in contests(options.data, options.scenes):
            results[contest.name] = measure(contest, extract(extractor, contest))
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
