"""Aircraft as the program itself finds them: overlapping windows, two levels, through the index."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.special import logit

from geoalign_core.answer import ask_texts, prepare
from geoalign_core.settings import Settings
from tiling.files import atomic_file
from training.embedded.data import decode, read_aircraft
from training.embedded.figures import dense_figures
from training.embedded.samples import AIRCRAFT_GSD_M, PATCH_PX, patch_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.models.embedded import EmbeddedEncoder
    from tiling.progress import Progress

_CRS = "EPSG:32631"
_EAST_M, _NORTH_M = 500_000.0, 5_000_000.0
"""Anywhere near a meridian without distortion: the scenes carry no place of their own."""


def aircraft_as_asked(
    encoder: EmbeddedEncoder, words: Sequence[str], data: Path, work: Path, progress: Progress
) -> dict[str, Any]:
    """Ask for each word on the held-out scenes at 0.5 m and return the figures of patches of 14 px by word.

    Args:
        encoder: The model.
        words: The questions.
        data: Folder of the training data.
        work: Folder of the scenes as GeoTIFFs and of their indexes.
        progress: Told about every scene.

    Raises:
        DataError: The data is missing.
    """
    scenes = [scene for scene in read_aircraft(data) if scene.held_out]
    odds: list[list[NDArray[np.float32]]] = [[] for _ in words]
    labels, groups = [], []
    for number, scene in enumerate(scenes):
        path = _georeferenced(scene.path, work / "scenes")
        with prepare(path, Settings(gsd_m=AIRCRAFT_GSD_M), encoder=encoder, words=True) as prepared:
            answers, _, _ = ask_texts(prepared, list(words))
            side = prepared.raster.info.width_px // PATCH_PX
        labels.append(patch_labels(scene.boxes_xyxy_px, side, side))
        groups.append(scene.path.name)
        for values, answer in zip(odds, answers, strict=True):
            values.append(_at_patches(answer.heatmap, side))
        progress(number + 1, len(scenes), "scenes asked")
    return {
        word: asdict(dense_figures(values, labels, groups)) for word, values in zip(words, odds, strict=True)
    }  # fmt: skip


def _georeferenced(source: Path, folder: Path) -> Path:
    """Return the scene as a GeoTIFF of 0.5 m per pixel."""
    path = folder / f"{source.stem}.tif"
    if not path.exists():
        image = decode(source.read_bytes())
        transform = from_origin(_EAST_M, _NORTH_M, AIRCRAFT_GSD_M, AIRCRAFT_GSD_M)
        with (
            atomic_file(path) as temporary,
            rasterio.open(
                temporary, "w", driver="GTiff", width=image.shape[1], height=image.shape[0], count=3, dtype="uint8",
                crs=_CRS, transform=transform, compress="deflate", tiled=True,
            ) as target,
        ):  # fmt: skip
            target.write(image.transpose(2, 0, 1))
    return path


def _at_patches(heatmap: Heatmap, side: int) -> NDArray[np.float32]:
    """Return (side, side) log-odds of the score where the patches' centres lie; −∞-like where there is none."""
    step = PATCH_PX * AIRCRAFT_GSD_M
    offsets = (np.arange(side) + 0.5) * step
    x, y = np.meshgrid(_EAST_M + offsets, _NORTH_M - offsets)
    cols, rows = ~heatmap.transform * (x, y)
    height, width = heatmap.values.shape
    values = heatmap.values[
        np.clip(rows.astype(int), 0, height - 1), np.clip(cols.astype(int), 0, width - 1)
    ]  # fmt: skip
    return logit(np.nan_to_num(values, nan=0.0).clip(1e-7, 1 - 1e-7)).astype(np.float32)
