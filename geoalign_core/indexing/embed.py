"""From windows of pixels to the content of a shard."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoalign_core.errors import ModelError
from geoalign_core.indexing.quantise import inverse_norms, quantise, valid_shares
from geoalign_core.indexing.shard import TABLE_FILE, ShardContent, ShardId
from tiling.reader import read_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geoalign_core.indexing.spec import IndexSpec, LevelSpec
    from geoalign_core.models.encoder import Encoder, RawFeatures, Readout
    from tiling.canvas import Canvas
    from tiling.progress import CancelToken
    from tiling.raster import Raster
    from tiling.reader import Tile


@dataclass(frozen=True, slots=True)
class ShardPixels:
    """The windows of one super-block, read."""

    id: ShardId
    windows: int
    """All windows of the super-block."""
    positions: tuple[int, ...]
    """Those with a valid pixel, as positions in the super-block."""
    tiles: tuple[Tile, ...]
    """Their pixels, in the same order."""


def read_shards(
    raster: Raster, spec: IndexSpec, shards: Sequence[ShardId], *, jobs: int, cancel: CancelToken | None
) -> Iterator[ShardPixels]:
    """Read the windows of some shards, ordered by level, one shard at a time."""
    for number, level in enumerate(spec.levels):
        chosen = [shard_id for shard_id in shards if shard_id.level == number]
        windows = (window for at in chosen for _, window in level.shard_windows(at.row, at.col))
        tiles = read_windows(
            raster, level.canvas, windows, bands=spec.bands, stretch=spec.stretch, jobs=jobs, cancel=cancel
        )
        for shard_id in chosen:
            members = level.shard_windows(shard_id.row, shard_id.col)
            seen = [(position, next(tiles)) for position, _ in members]
            kept = [(position, tile) for position, tile in seen if tile.valid.any()]
            positions = tuple(position for position, _ in kept)
            yield ShardPixels(shard_id, len(members), positions, tuple(tile for _, tile in kept))


def encode_shard(
    encoder: Encoder, spec: IndexSpec, pixels: ShardPixels, *, batch: int, tell: Callable[[int], None]
) -> list[RawFeatures]:
    """Run the model over the windows of a shard.

    Args:
        encoder: The model.
        spec: The index.
        pixels: The windows.
        batch: Windows per call of the model; batches begin anew with every shard, so they are the same however
            often the work was interrupted.
        tell: Called before every batch with the number of windows done; may raise to stop.

    Raises:
        ModelError: The model gives other sizes than it said.
    """
    parts = []
    for start in range(0, len(pixels.tiles), batch):
        tell(start)
        tiles = pixels.tiles[start : start + batch]
        canvas = spec.levels[pixels.id.level].canvas
        features = encoder.encode_raw(np.stack([mirror_beyond(tile, canvas) for tile in tiles]))
        _check(features, spec, spec.levels[pixels.id.level], len(tiles))
        parts.append(features)
    return parts


def pack_shard(readout: Readout, spec: IndexSpec, pixels: ShardPixels, features: Sequence[RawFeatures]) -> ShardContent:
    """Turn the features of a shard's windows, batch after batch, into its arrays and its table."""
    level = spec.levels[pixels.id.level]
    shape = spec.shape(pixels.id.level)
    arrays: dict[str, NDArray[Any]] = {
        name: np.empty(size, dtype) for name, (dtype, size) in shape.arrays(len(pixels.tiles)).items()
    }
    vectors = (
        (patches, window) for part in features for patches, window in zip(part.patches, part.window, strict=True)
    )
    for number, (tile, (patches, window)) in enumerate(zip(pixels.tiles, vectors, strict=True)):
        place = slice(number * shape.rows_per_window, (number + 1) * shape.rows_per_window)
        rows = quantise(patches.reshape(spec.channels, -1).T)
        arrays["rows.npy"][place] = rows.values
        arrays["scale.npy"][place] = rows.scales
        arrays["inv_norm.npy"][place] = inverse_norms(rows, window, readout)
        arrays["valid.npy"][place] = valid_shares(tile.valid, level.patch_px)
        arrays["windows.npy"][number] = window
    return ShardContent(arrays, _table(level, pixels, shape.rows_per_window))


def pixel_hashes(pixels: ShardPixels) -> dict[tuple[int, int], str]:
    """Return the SHA-256 of every embedded window's pixels and validity, by (row, col) in the grid."""
    return {(tile.window.row, tile.window.col): _hash(tile) for tile in pixels.tiles}


def stored_hashes(folder: Path) -> dict[tuple[int, int], str] | None:
    """Return what :func:`pixel_hashes` gave when the shard was built, or None when that cannot be read."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(folder / TABLE_FILE, columns=["row", "col", "pixels_sha256"]).to_pydict()
    except (OSError, pa.ArrowException, KeyError):
        return None
    places = zip(table["row"], table["col"], strict=True)
    return dict(zip(places, table["pixels_sha256"], strict=True))


def _check(features: RawFeatures, spec: IndexSpec, level: LevelSpec, count: int) -> None:
    wanted = (count, spec.channels, *level.window_cells), (count, spec.window_channels)
    found = features.patches.shape, features.window.shape
    if found != wanted:
        raise ModelError(
            "the model gives features of another size than its readout takes",
            measured=f"{found} instead of {wanted}",
            remedy="check the model with 'geoalign models verify'",
        )


def _hash(tile: Tile) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(tile.array).data)
    digest.update(np.packbits(tile.valid).data)
    return digest.hexdigest()


def _table(level: LevelSpec, pixels: ShardPixels, rows_per_window: int) -> bytes:
    """Return a Parquet file with one line per embedded window."""
    import pyarrow as pa
    from pyarrow import parquet

    windows = [tile.window for tile in pixels.tiles]
    count = len(windows)
    boxes = [shapely.box(w.col_off_px, w.row_off_px, w.col_end_px, w.row_end_px) for w in windows]
    bounds = np.array([_bounds(level, box) for box in boxes], np.float64).reshape(count, 4)
    bbox = pa.StructArray.from_arrays([pa.array(column) for column in bounds.T], names=["xmin", "ymin", "xmax", "ymax"])
    table = pa.table(
        {
            "row": pa.array([w.row for w in windows], pa.int32()),
            "col": pa.array([w.col for w in windows], pa.int32()),
            "row_off_px": pa.array([w.row_off_px for w in windows], pa.int64()),
            "col_off_px": pa.array([w.col_off_px for w in windows], pa.int64()),
            "first_row": pa.array([i * rows_per_window for i in range(count)], pa.int64()),
            "rows": pa.array([rows_per_window] * count, pa.int32()),
            "valid_fraction": pa.array([float(tile.valid.mean()) for tile in pixels.tiles], pa.float32()),
            "bbox": bbox,
            "pixels_sha256": pa.array([_hash(tile) for tile in pixels.tiles], pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="none")
    return bytes(sink.getvalue())


def _bounds(level: LevelSpec, box: shapely.Polygon) -> tuple[float, float, float, float]:
    t = level.canvas.transform
    moved = shapely.transform(
        box, lambda xy: np.stack([t.a * xy[:, 0] + t.b * xy[:, 1] + t.c, t.d * xy[:, 0] + t.e * xy[:, 1] + t.f], axis=1)
    )
    return moved.bounds


def mirror_beyond(tile: Tile, canvas: Canvas) -> NDArray[np.uint8]:
    """Return a window's image with what lies beyond the raster's edge mirrored instead of repeated.

    A canvas reaches up to a patch beyond the raster. A mirror continues the texture there; repeated pixels are
    stripes that a model takes for something else.
    """
    image = tile.array
    for axis, start, length_px in (
        (1, tile.window.row_off_px, canvas.raster_height_px),
        (2, tile.window.col_off_px, canvas.raster_width_px),
    ):
        inside = math.floor(length_px) - start
        beyond = image.shape[axis] - inside
        if 0 < beyond < inside:
            numbers = np.arange(image.shape[axis])
            image = np.take(image, np.where(numbers < inside, numbers, 2 * (inside - 1) - numbers), axis)
    return image
