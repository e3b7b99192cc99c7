"""Features of boxes: RoIAlign on the dense map, and the box cut out and seen as an image of its own.

The two views are those of GeoAlignCLIP (its RoI branch and its crop branch, which the view-consistency loss brings
together): RoIAlign sees the box in its surroundings, the crop sees its details.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from shapely import affinity

from geoalign_core.errors import ExamplesError
from tiling.canvas import plan_canvas
from tiling.grid import Window
from tiling.reader import read_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import shapely
    from numpy.typing import NDArray

    from geoalign_core.models.encoder import Encoder
    from tiling.canvas import Canvas
    from tiling.progress import CancelToken, Progress
    from tiling.radiometry import BandChoice, Stretch
    from tiling.raster import Raster

View = Literal["roi", "crop", "both"]
CROP_CONTEXT = 1.2
"""A crop is a square of this many times the box's longer side …"""
CROP_MIN_PX = 112
"""… but at least this wide at the model's ground resolution."""
_BATCH = 8


@dataclass(frozen=True, slots=True)
class RegionFeatures:
    """Joint-space vectors of N boxes, L2-normalised float32; a view that was not asked for is None."""

    roi: NDArray[np.float32] | None
    """(N, D)"""
    crop: NDArray[np.float32] | None
    """(N, D)"""

    @property
    def mean(self) -> NDArray[np.float32]:
        """(N, D) normalised mean of the views that are there."""
        views = [view for view in (self.roi, self.crop) if view is not None]
        total = np.sum(views, axis=0)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def roi_align_dense(dense: NDArray[np.float32], boxes: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average a dense map over boxes by RoIAlign (He et al. 2017; output 1 × 1, adaptive sampling, aligned).

    Args:
        dense: (B, D, h, w).
        boxes: For each of the B maps, (K_b, 4) xyxy in grid units (0..w, 0..h).

    Returns:
        (ΣK_b, D), L2-normalised float32, in the order of the boxes.
    """
    import torch
    from torchvision.ops import roi_align

    pooled = roi_align(
        torch.from_numpy(np.ascontiguousarray(dense)).float(),
        [torch.from_numpy(np.asarray(item, np.float32).reshape(-1, 4)) for item in boxes],
        output_size=(1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True,
    )[:, :, 0, 0]  # fmt: skip
    return torch.nn.functional.normalize(pooled, dim=-1).numpy()


def region_features(
    raster: Raster,
    encoder: Encoder,
    boxes: Sequence[shapely.Geometry],
    *,
    bands: BandChoice,
    stretch: Stretch,
    gsd_m: float | None,
    view: View = "both",
    jobs: int = 2,
    progress: Progress,
    cancel: CancelToken | None = None,
) -> RegionFeatures:
    """Give the features of boxes; a box's features do not depend on the other boxes.

    A box larger than half a window is seen at half, a quarter, … of the ground resolution, so that it keeps its
    surroundings.

    Args:
        raster: The open raster.
        encoder: The model.
        boxes: Geometries in the raster's CRS; their bounding boxes along the image's axes are used.
        bands: Which bands make the image.
        stretch: The raster's stretch.
        gsd_m: Ground resolution; None for the raster's own (pixel mode).
        view: ``roi``, ``crop`` or ``both``.
        jobs: Reading threads.
        progress: Called after each batch.
        cancel: Stops between batches.

    Raises:
        ExamplesError: A box lies outside the raster or has no area.
    """
    if view not in ("roi", "crop", "both"):
        raise ExamplesError("a view is roi, crop or both", measured=str(view))
    base = plan_canvas(raster.info, gsd_m)
    groups: dict[int, list[int]] = defaultdict(list)
    bounds = np.array([_on_canvas(base, box, number) for number, box in enumerate(boxes)]).reshape(-1, 4)
    half = _window_px(base, encoder) / 2
    for number, side in enumerate(np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])):
        shrink = 0 if gsd_m is None else max(0, math.ceil(math.log2(max(side, 1.0) / half)))
        groups[2**shrink].append(number)
    shape = (len(boxes), encoder.config.embed_dim)
    roi = np.zeros(shape, np.float32) if view in ("roi", "both") else None
    crop = np.zeros(shape, np.float32) if view in ("crop", "both") else None
    done = 0
    for factor, numbers in sorted(groups.items()):
        canvas = base if factor == 1 or gsd_m is None else plan_canvas(raster.info, gsd_m * factor)
        scale = np.array([base.scale_x / canvas.scale_x, base.scale_y / canvas.scale_y] * 2)
        reader = _Reader(raster, encoder, canvas, bands, stretch, jobs, cancel)
        if roi is not None:
            roi[numbers] = reader.roi(bounds[numbers] * scale)
        if crop is not None:
            crop[numbers] = reader.crop(bounds[numbers] * scale)
        done += len(numbers)
        progress(done, len(boxes), "reading boxes")
    return RegionFeatures(roi, crop)


def _window_px(canvas: Canvas, encoder: Encoder) -> int:
    patch = encoder.config.patch_px
    fits = min(canvas.width_px, canvas.height_px) // patch * patch
    return max(patch, min(encoder.config.dense.window_px, fits))


def _on_canvas(canvas: Canvas, box: shapely.Geometry, number: int) -> tuple[float, float, float, float]:
    """Return a geometry's bounding box along the canvas axes, clipped to the raster, xyxy in canvas pixels."""
    t = ~canvas.transform
    left, top, right, bottom = affinity.affine_transform(box, (t.a, t.b, t.d, t.e, t.c, t.f)).bounds
    left, right = max(left, 0.0), min(right, canvas.raster_width_px)
    top, bottom = max(top, 0.0), min(bottom, canvas.raster_height_px)
    if not (right > left and bottom > top):
        raise ExamplesError(
            f"box {number + 1} has no area on the image", measured=f"bounds {box.bounds}",
            remedy="give boxes in the raster's CRS that lie on the image",
        )  # fmt: skip
    return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the windows that boxes need on one canvas and runs the model over them."""

    raster: Raster
    encoder: Encoder
    canvas: Canvas
    bands: BandChoice
    stretch: Stretch
    jobs: int
    cancel: CancelToken | None

    def roi(self, boxes: NDArray[np.float64]) -> NDArray[np.float32]:
        """Pool the boxes from dense maps of windows on a half-window lattice, nearest to each box's centre."""
        size, patch = _window_px(self.canvas, self.encoder), self.encoder.config.patch_px
        step = max(1, size // 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        limit = np.maximum(0, [self.canvas.width_px - size, self.canvas.height_px - size])
        offsets = np.clip(np.rint((centres - size / 2) / step).astype(int) * step, 0, limit)
        places, which = np.unique(offsets, axis=0, return_inverse=True)
        result = np.zeros((len(boxes), self.encoder.config.embed_dim), np.float32)
        windows = [Window(int(x), int(y), size, size, 0, 0) for x, y in places]
        for start, images in self._images(windows):
            dense = self.encoder.encode_dense(images)
            numbers = [np.flatnonzero(which == start + k) for k in range(len(images))]
            grid = [(boxes[n] - np.tile(places[start + k], 2)) / patch for k, n in enumerate(numbers)]
            result[np.concatenate(numbers)] = roi_align_dense(dense, grid)
        return result

    def crop(self, boxes: NDArray[np.float64]) -> NDArray[np.float32]:
        """Cut a square around each box and see it as a whole image."""
        import torch
        from torch.nn.functional import interpolate

        widest = max(1, min(self.canvas.width_px, self.canvas.height_px))
        vectors = []
        for box in boxes:
            side = max(CROP_CONTEXT * max(box[2] - box[0], box[3] - box[1]), CROP_MIN_PX)
            px = min(math.ceil(side), widest)
            x = int(np.clip((box[0] + box[2] - px) / 2, 0, self.canvas.width_px - px))
            y = int(np.clip((box[1] + box[3] - px) / 2, 0, self.canvas.height_px - px))
            image = next(self._images([Window(x, y, px, px, 0, 0)]))[1]
            square = (self.encoder.config.preprocess.image_px,) * 2
            resized = interpolate(torch.from_numpy(image).float(), size=square, mode="bilinear", antialias=True)
            vectors.append(self.encoder.encode_image(resized.round().clamp(0, 255).byte().numpy()))
        return np.concatenate(vectors)

    def _images(self, windows: list[Window]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (number of the first window, (B, 3, H, W) images) in batches."""
        tiles = read_windows(
            self.raster,
            self.canvas,
            windows,
            bands=self.bands,
            stretch=self.stretch,
            jobs=self.jobs,
            cancel=self.cancel,
        )
        start = 0
        while batch := list(itertools.islice(tiles, _BATCH)):
            yield start, np.stack([tile.array for tile in batch])
            start += len(batch)
