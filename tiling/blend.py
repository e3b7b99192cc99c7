"""Seam-free joining of overlapping windows into one raster, block by block, in the memory of a few rows of tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from tiling.cog import Cog, write_cog
from tiling.errors import UsageError
from tiling.files import refuse_existing
from tiling.nodata import holds, off_nodata, to_type
from tiling.overlap import Mosaic, NearestMosaic, inwardness, overlap_weights, window_weights
from tiling.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from tiling.cog import Block
    from tiling.grid import TileGrid, Window
    from tiling.progress import CancelToken, Progress

    Output = tuple[Window, NDArray[Any], NDArray[np.bool_] | None]
    """A window, its values (C, h, w) or (h, w), and which of its pixels are valid, (h, w); None when all are."""
    Given = Output | tuple[Window, NDArray[Any]]

__all__ = ["How", "Mosaic", "overlap_weights", "window_weights", "write_blended"]

How = Literal["hann", "nearest"]


def write_blended(
    path: str | Path,
    outputs: Iterable[Given],
    *,
    grid: TileGrid,
    width_px: int,
    height_px: int,
    transform: Affine,
    crs: CRS | str | None,
    how: How = "hann",
    dtype: str | None = None,
    nodata: float | None = None,
    colorinterp: tuple[str, ...] = (),
    colormap: Mapping[int, tuple[int, ...]] | None = None,
    descriptions: tuple[str, ...] = (),
    tags: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Path:
    """Join what a model made of the windows of a grid into one Cloud Optimized GeoTIFF.

    Where windows overlap, values fade from one to the next by Hann weights; elsewhere they stay as they are, also
    along the edges of the raster and of holes without data, so that a constant comes back as that constant, to the
    last bit. A pixel that is not valid in any window, or that no window covers, is nodata. Infinities and NaNs in
    any channel, and ``nodata`` in all channels, count as not valid.

    Memory: (channels + 1) × rows × width × 4 bytes, where ``rows`` is the tile's height and less than two rows of
    blocks (of 512 px) more; 8 bytes for float64 and 32-bit integers. Beyond 2 GB per row of blocks the strips lie in
    temporary files. Each block of the output is written once, as soon as no later window can touch it.

    Args:
        path: The target, by convention with suffix ``.tif``.
        outputs: Windows of ``grid`` with their values, (C, h, w) or (h, w), and if not all of them count, their
            validity (h, w); row by row, any may be missing. What reaches beyond the raster is cut off. Values that
            are a whole number of times smaller than their window are enlarged to it.
        grid: Where the windows lie; ``grid.scaled(k)`` when the model's outputs are k times smaller than its tiles.
        width_px: Columns of the raster, at most those of the grid.
        height_px: Rows of the raster.
        transform: From pixel to CRS coordinates; the identity in pixel mode.
        crs: The CRS, or None.
        how: ``hann`` averages: scores, heights, colours. ``nearest`` takes each pixel from the tile in which it lies
            most inward and never mixes: classes, numbers of objects.
        dtype: Type of the samples; by default that of the outputs if they are integers, which are rounded, else
            float32.
        nodata: What pixels without data hold. By default NaN for floating point; integers get a mask band when it
            is needed. A mean that happens to hit the value is moved to its neighbour.
        colorinterp: Meaning of the bands by rasterio's names. With ``alpha`` among them there is no mask band.
        colormap: Colours of a single band of class numbers.
        descriptions: Names of the bands.
        tags: Tags of the file.
        overwrite: Whether a file that is already there may be replaced.
        progress: Told windows done.
        cancel: Looked at before each window.

    Returns:
        ``path``.

    Raises:
        UsageError: There is no output; an output is not of a window of the grid, has another size, number of
            channels or type, or comes after its rows were written; or the types do not fit.
        OutputExistsError: The file exists and ``overwrite`` is false.
        OutputWriteError: The disk is full or refuses.
        CancelledError: The token was set; nothing is left behind.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite)
    source = map(_fitting, outputs)
    first = next(source, None)
    if first is None or 0 in first[1].shape:
        raise UsageError("there is no tile to join", path=path)
    if how not in get_args(How):
        raise UsageError("unknown way of joining", measured=how, remedy=f"use {' or '.join(get_args(How))}")
    kind, channels = first[1].dtype, _channels(first[1])
    target = _target_type(kind, dtype, how)
    if nodata is None and target.kind == "f":
        nodata = math.nan
    _check_nodata(nodata, target)
    smooth = how == "hann" and colormap is None
    cog = Cog(
        width_px, height_px, channels, target.name, transform, crs, nodata,
        has_mask=nodata is None and "alpha" not in colorinterp,
        resampling="AVERAGE" if smooth else "MODE" if target.itemsize <= 2 else "NEAREST", has_predictor=smooth,
        colorinterp=colorinterp, colormap=colormap, tags=tags or {}, descriptions=descriptions,
    )  # fmt: skip
    blocks = _Joint(grid, cog, how, kind).blocks(chain([first], source), progress, cancel)
    return write_cog(path, cog, blocks, overwrite=overwrite)


def _fitting(output: Given) -> Output:
    """Return an output with its validity, enlarged to its window when it is a whole number of times smaller."""
    window, values, *rest = output
    valid = rest[0] if rest else None
    height, width = values.shape[-2:] if values.ndim >= 2 else (0, 0)
    factor = window.height_px // height if height else 1
    if factor > 1 and (height * factor, width * factor) == (window.height_px, window.width_px):
        values = enlarged(values, factor)
    return window, values, valid


def enlarged(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return an array whose last two axes are ``factor`` times as long, each value repeated."""
    return values if factor == 1 else values.repeat(factor, axis=-2).repeat(factor, axis=-1)


def _target_type(kind: np.dtype[Any], dtype: str | None, how: How) -> np.dtype[Any]:
    """Return the type of the samples to write."""
    if kind.kind not in "biuf":
        raise UsageError("only numbers can be joined", measured=str(kind), remedy="give integers or floating point")
    standard = "uint8" if kind.kind == "b" else kind.name if kind.kind in "iu" else "float32"
    try:
        target = np.dtype(dtype or standard)
    except TypeError:
        target = np.dtype(object)
    if target.kind not in "iuf" or (target.itemsize == 2 and target.kind == "f"):
        raise UsageError("is not a type of samples", measured=dtype, remedy="use uint8, int16, uint16, float32, …")
    if how == "hann" and target.kind in "iu" and target.itemsize == 8:
        raise UsageError(
            "64-bit integers have no exact mean", measured=target.name, remedy="use --how nearest, or float values"
        )
    return target


def _check_nodata(nodata: float | None, target: np.dtype[Any]) -> None:
    if nodata is not None and not holds(target, nodata):
        raise UsageError("the type cannot hold the nodata value", measured=f"{nodata} in {target.name}")


@dataclass(frozen=True, slots=True)
class _Joint:
    """How outputs become the blocks of a file."""

    grid: TileGrid
    cog: Cog
    how: How
    kind: np.dtype[Any]
    """Type of the outputs."""

    def blocks(self, outputs: Iterable[Output], progress: Progress, cancel: CancelToken | None) -> Iterator[Block]:
        """Yield the file's blocks in order, each row of them as soon as no later window can touch it."""
        layout, done = self.cog.blocks, 0
        strips: dict[int, Mosaic] = {}
        try:
            for window, values, valid in outputs:
                if cancel is not None:
                    cancel.check()
                self._check(window, values, valid)
                row = min(window.row_off_px // layout.tile_px, layout.rows)
                if row < done:
                    raise UsageError(
                        "a window comes after its rows were written",
                        measured=f"row {window.row}, column {window.col}",
                        remedy="give the windows row by row",
                    )
                yield from self._finish(strips, range(done, row))
                done = row
                self._add(strips, window, values, valid)
                progress(window.row * self.grid.cols + window.col + 1, len(self.grid), "joining tiles")
            yield from self._finish(strips, range(done, layout.rows))
        finally:
            for strip in strips.values():
                strip.close()

    def _check(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_] | None) -> None:
        place = f"row {window.row}, column {window.col}"
        known = 0 <= window.row < self.grid.rows and 0 <= window.col < self.grid.cols
        if not known or self.grid.window(window.row, window.col) != window:
            raise UsageError("a window is not one of the grid", measured=str(window))
        size = window.height_px, window.width_px
        if values.ndim not in {2, 3} or values.shape[-2:] != size or (valid is not None and valid.shape != size):
            shown = f"{values.shape} for {place}, which has {size[0]} rows and {size[1]} columns"
            raise UsageError("an output differs in size from its window", measured=shown)
        channels = _channels(values)
        if (channels, values.dtype) != (self.cog.count, self.kind):
            shown = f"{channels} × {values.dtype} in {place}, {self.cog.count} × {self.kind} before"
            raise UsageError("outputs differ in channels or type", measured=shown)

    def _add(
        self, strips: dict[int, Mosaic], window: Window, values: NDArray[Any], valid: NDArray[np.bool_] | None
    ) -> None:
        """Add a window to every row of blocks that it touches."""
        layout = self.cog.blocks
        values = values[None] if values.ndim == 2 else values
        values = values.view(np.uint8) if values.dtype == np.bool_ else values
        good = self._valid(values, valid)
        if self.how == "nearest":
            weight, values = inwardness(window, self.grid), to_type(values, np.dtype(self.cog.dtype))
        else:
            weight = np.outer(*window_weights(window, self.grid))
        weight = np.where(good, weight, 0)
        first, last = window.row_off_px // layout.tile_px, (window.row_end_px - 1) // layout.tile_px
        for row in range(first, min(last + 1, layout.rows)):
            strip = strips.get(row) or strips.setdefault(row, self._strip(row))
            strip.add(window.row_off_px - row * layout.tile_px, window.col_off_px, values, weight)

    def _valid(self, values: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        good = np.ones(values.shape[1:], np.bool_) if valid is None else valid.astype(np.bool_)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                good &= np.isfinite(values.astype(self._mean_type(), copy=False)).all(axis=0)
        if self.cog.nodata is not None:
            good &= (values != self.cog.nodata).any(axis=0)
        return good

    def _mean_type(self) -> np.dtype[Any]:
        """Return the type in which means are kept: large enough for every whole number of the types at hand."""
        kinds = self.kind, np.dtype(self.cog.dtype)
        wide = self.cog.dtype == "float64" or any(kind.kind in "iu" and kind.itemsize > 2 for kind in kinds)
        return np.dtype(np.float64 if wide else np.float32)

    def _strip(self, row: int) -> Mosaic:
        place = self.cog.blocks.window(row, 0)
        shape = place.height_px, self.cog.width_px
        if self.how == "nearest":
            return NearestMosaic(shape, self.cog.count, dtype=np.dtype(self.cog.dtype))
        return Mosaic(shape, self.cog.count, dtype=self._mean_type())

    def _finish(self, strips: dict[int, Mosaic], rows: range) -> Iterator[Block]:
        """Yield the blocks of some rows of blocks and free their strips."""
        for row in rows:
            with strips.pop(row, None) or self._strip(row) as strip:
                for col in range(self.cog.blocks.cols):
                    place = self.cog.blocks.window(row, col)
                    yield self._samples(*strip.part(slice(place.col_off_px, place.col_end_px)))

    def _samples(self, values: NDArray[Any], covered: NDArray[np.bool_]) -> Block:
        """Return a block as it is written."""
        samples = to_type(values, np.dtype(self.cog.dtype))
        if self.cog.nodata is not None:
            samples = off_nodata(samples, covered, self.cog.nodata)
        samples[:, ~covered] = 0 if self.cog.nodata is None else self.cog.nodata
        return samples, covered


def _channels(values: NDArray[Any]) -> int:
    return 1 if values.ndim <= 2 else int(values.shape[-3])
