"""Scores of patches over a scene, seen through plain windows or as the program sees a raster when it is asked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.grounding.relevance import log_odds
from tiling.files import atomic_file
from training.evaluation.metrics.pointing import patch_labels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.grounding.text import TextQueries
    from geoalign_core.models.encoder import TorchEncoder
    from tiling.progress import CancelToken
    from training.evaluation.layouts.boxes import BoxedScene

_BATCH = 8
METRIC_CRS = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0 +ellps=WGS84 +units=m +no_defs"
"""Where images of a known ground resolution and no place are put: at the origin a unit is a true metre."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Patches of a window, or of a whole scene."""

    odds: NDArray[np.float32]
    """(Q, rows, cols) log-odds; NaN where there is no image."""
    origin_xy_px: tuple[float, float]
    """Upper left corner in the scene's pixels."""
    patch_xy_px: tuple[float, float]
    """Width and height of a patch in the scene's pixels."""
    patch: float = 1.0
    """Side of a patch where labels are made: box edges are compared with centres in that unit."""

    def labels(self, boxes_xyxy_px: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return (rows, cols) of 1 inside, −1 rim, 0 outside."""
        factor = self.patch / np.array(self.patch_xy_px)
        boxes = boxes_xyxy_px * np.tile(factor, 2) - np.tile(np.array(self.origin_xy_px) * factor, 2)
        rows, cols = self.odds.shape[1:]
        return patch_labels(boxes, rows, cols, self.patch)

    def centres_xy_px(self) -> NDArray[np.float64]:
        """Return (rows, cols, 2)."""
        rows, cols = self.odds.shape[1:]
        x = self.origin_xy_px[0] + (np.arange(cols) + 0.5) * self.patch_xy_px[0]
        y = self.origin_xy_px[1] + (np.arange(rows) + 0.5) * self.patch_xy_px[1]
        return np.stack(np.meshgrid(x, y), axis=-1)


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a scene is resized before windows are cut."""

    window_px: int
    """Side of a window, a multiple of the patch."""
    patch_px: int
    scale: float = 1.0
    """Factor on the scene's sides."""
    object_px: float | None = None
    """Instead: the length that a scene's median box (its longer side) is brought to."""

    def size(self, scene: BoxedScene, typical_px: float) -> tuple[int, int]:
        """Return the height and width that a scene is resized to.

        With ``object_px``, and where a side is no longer than a window, sides are whole patches.

        Args:
            scene: The scene.
            typical_px: Length of the boxes of a scene that has none.
        """
        factor = self.scale if self.object_px is None else self.object_px / median_length(scene, typical_px)

        def side(length: int) -> int:
            wanted = round(length * factor)
            if self.object_px is None and wanted > self.window_px:
                return wanted
            return max(1, round(length * factor / self.patch_px)) * self.patch_px

        return side(scene.height_px), side(scene.width_px)


def median_length(scene: BoxedScene, default: float) -> float:
    """Return the median of the longer sides of a scene's boxes, in pixels."""
    boxes = scene.all_boxes()
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) if len(boxes) else default


def window_starts(length_px: int, window_px: int) -> list[int]:
    """Return where windows begin: side by side, the last shifted inwards."""
    if length_px <= window_px:
        return [0]
    return sorted({min(start, length_px - window_px) for start in range(0, length_px, window_px)})


def through_windows(
    scene: BoxedScene, encoder: TorchEncoder, texts: TextQueries, sizing: Sizing, typical_px: float, cache: Path,
    cancel: CancelToken,
) -> list[Lattice]:  # fmt: skip
    """Score a scene window by window.

    The dense features of a scene are kept in one file of float16 (2 · D bytes per patch: 38 MB for 2560 × 2560 px in
    windows of 224 px with 512 channels), made anew when it is damaged.

    Raises:
        DataError: The image is damaged.
        CancelledError: The token was set.
    """
    height, width = sizing.size(scene, typical_px)
    tall, wide = min(sizing.window_px, height), min(sizing.window_px, width)
    places = [(x, y) for y in window_starts(height, tall) for x in window_starts(width, wide)]
    about = {
        "model": encoder.key, "precision": encoder.precision, "mode": encoder.config.dense.mode,
        "image": scene.image, "file": _version(scene), "size": [height, width], "window": [tall, wide],
    }  # fmt: skip
    path = cache / "patches" / f"{hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]}.npy"
    dense = _kept(path, len(places))
    if dense is None:
        dense = _embed(scene, encoder, (height, width), (tall, wide), places, cancel)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
            np.save(file, dense)
    factor = width / scene.width_px, height / scene.height_px
    patch = sizing.patch_px / factor[0], sizing.patch_px / factor[1]
    scale = encoder.config.prompts.logit_scale
    return [
        Lattice(
            log_odds(np.einsum("qd,dhw->qhw", texts.vectors, part.astype(np.float32)), texts.competes, scale),
            (x / factor[0], y / factor[1]), patch, sizing.patch_px,
        )
        for (x, y), part in zip(places, dense, strict=True)
    ]  # fmt: skip


def _version(scene: BoxedScene) -> str:
    from training.data.images import split_name
    from training.evaluation.bank import file_version

    return file_version(scene.root / split_name(scene.image)[0])


def _kept(path: Path, count: int) -> NDArray[np.float16] | None:
    try:
        dense = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return dense if dense.ndim == 4 and len(dense) == count and dense.dtype == np.float16 else None


def _embed(
    scene: BoxedScene, encoder: TorchEncoder, size: tuple[int, int], window: tuple[int, int],
    places: list[tuple[int, int]], cancel: CancelToken,
) -> NDArray[np.float16]:  # fmt: skip
    from training.data.images import resize

    image = resize(scene.pixels(), size[1], size[0])
    parts = []
    for start in range(0, len(places), _BATCH):
        cancel.check()
        cut = [image[y : y + window[0], x : x + window[1]] for x, y in places[start : start + _BATCH]]
        parts.append(encoder.encode_dense(np.ascontiguousarray(np.stack(cut).transpose(0, 3, 1, 2))))
    return np.concatenate(parts).astype(np.float16)


def as_asked(
    scene: BoxedScene, encoder: TorchEncoder, texts: TextQueries, source_gsd_m: float | None, gsd_m: float | None,
    cache: Path, cancel: CancelToken,
) -> Lattice:  # fmt: skip
    """Score a scene as ``geoalign ask`` does: its index, with overlapping windows and all the levels of the model.

    The image is written into the cache as a GeoTIFF first: the index then lies there and not among the data, and the
    image has the ground resolution that is known of it.

    Args:
        scene: The scene.
        encoder: The model.
        texts: The questions.
        source_gsd_m: Metres per pixel of the image; None looks at its pixels as they are, at one level.
        gsd_m: Metres per pixel to look at; by default what the program takes.
        cache: Folder.
        cancel: Stops the index between batches.

    Raises:
        GeoAlignError: The image is damaged, or a resolution is out of range.
        CancelledError: The token was set; finished shards stay.
    """
    from geoalign_core.answer import prepare
    from geoalign_core.grounding.heatmap import join_levels
    from geoalign_core.indexing.search import LinearQuery, score_maps
    from geoalign_core.settings import Settings

    name = hashlib.sha256(f"{scene.image} {_version(scene)} {source_gsd_m}".encode()).hexdigest()[:16]
    path = cache / "scenes" / f"{name}.tif"
    if not path.exists():
        _write_scene(path, scene.pixels(), source_gsd_m)
    with prepare(path, Settings(gsd_m=gsd_m), encoder=encoder, words=True, cancel=cancel) as ready:
        query = LinearQuery.from_text(texts.vectors, encoder.readout)
        maps = score_maps(ready.index, query, cancel=cancel)
        step = ~ready.raster.info.transform * maps[0].transform
    odds = log_odds(join_levels(maps), texts.competes, encoder.config.prompts.logit_scale)
    lattice = Lattice(odds, (step.c, step.f), (step.a, step.e))
    centres = lattice.centres_xy_px()
    beyond = (centres[..., 0] >= scene.width_px) | (centres[..., 1] >= scene.height_px)
    odds[:, beyond] = np.nan
    return lattice


def _write_scene(path: Path, pixels: NDArray[np.uint8], gsd_m: float | None) -> None:
    import rasterio
    from affine import Affine

    from tiling.raster import quietly

    about: dict[str, Any] = {} if gsd_m is None else {
        "crs": METRIC_CRS, "transform": Affine.scale(gsd_m, -gsd_m)
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(path) as temporary,
        quietly(),
        rasterio.open(
            temporary, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=3, dtype="uint8",
            photometric="RGB", tiled=True, compress="deflate", **about,
        ) as out,
    ):  # fmt: skip
        out.write(pixels.transpose(2, 0, 1))


def joined(lattices: list[Lattice], number: int, height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return one question's log-odds over a scene, a value per patch; later windows lie over earlier ones."""
    step = np.array(lattices[0].patch_xy_px)
    shape = (max(1, round(height_px / step[1])), max(1, round(width_px / step[0])))
    whole = np.full(shape, np.nan, np.float32)
    for lattice in lattices:
        col, row = np.round(np.array(lattice.origin_xy_px) / step).astype(int)
        part = whole[row : row + lattice.odds.shape[1], col : col + lattice.odds.shape[2]]
        part[...] = lattice.odds[number, : part.shape[0], : part.shape[1]]
    return whole


def best_place(lattices: list[Lattice], number: int) -> Iterator[float]:
    """Yield x and y, in the scene's pixels, of the best patch for a question."""
    best = max(lattices, key=lambda item: float(np.nanmax(item.odds[number], initial=-np.inf)))
    row, col = np.unravel_index(int(np.nanargmax(best.odds[number])), best.odds.shape[1:])
    yield from best.centres_xy_px()[row, col].tolist()
