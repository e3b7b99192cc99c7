"""The one writer of Cloud Optimized GeoTIFFs: block by block, read back and compared, renamed when whole."""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from tiling.errors import OutputWriteError
from tiling.failures import writing
from tiling.files import atomic_file
from tiling.grid import TileGrid
from tiling.raster import gdal_env, open_raster, quietly

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from tiling.grid import Window

    Block = tuple[NDArray[Any], NDArray[np.bool_] | None]
    """(C, h, w) samples and (h, w) validity; the validity is looked at only where there is a mask."""

_BLOCK_PX = 512
_LEAST_BLOCK_PX = 64
_BLOCK_BYTES = 16 * 2**20
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True)
class Cog:
    """Everything about a file except its samples."""

    width_px: int
    height_px: int
    count: int
    dtype: str
    transform: Affine
    """From pixel to CRS coordinates; the identity in pixel mode."""
    crs: CRS | str | None
    nodata: float | None = None
    has_mask: bool = False
    """Whether a mask band tells what is valid. It is left out when everything is."""
    resampling: Literal["AVERAGE", "MODE", "NEAREST"] = "AVERAGE"
    """How overviews are made."""
    has_predictor: bool = True
    """Whether neighbours resemble each other, as in images; class numbers do not."""
    colorinterp: tuple[str, ...] = ()
    """Meaning of the bands by rasterio's names; empty lets GDAL choose."""
    colormap: Mapping[int, tuple[int, ...]] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    band_tags: Mapping[str, str] = field(default_factory=dict)
    """Of the first band."""
    descriptions: tuple[str, ...] = ()
    """Of the first bands."""

    @property
    def blocks(self) -> TileGrid:
        """The file's blocks as a grid: of 512 px, smaller where that would be more than 16 MB over all bands."""
        side = _BLOCK_PX
        while side > _LEAST_BLOCK_PX and side**2 * self.count * np.dtype(self.dtype).itemsize > _BLOCK_BYTES:
            side //= 2
        return TileGrid(self.width_px, self.height_px, side, side, "partial")


def write_cog(target: str | Path, cog: Cog, blocks: Iterable[Block], *, overwrite: bool = False) -> Path:
    """Write a Cloud Optimized GeoTIFF from its blocks.

    Each block is written once to a plain GeoTIFF, which GDAL rearranges with overviews. The result is read back and
    compared by checksums, for a disk may lose a part without saying so. Memory is a few blocks and, while GDAL makes
    the overviews, some 150 MB, whatever the raster's size. The disk holds an uncompressed copy for a while.

    Args:
        target: Where the finished file shall be.
        cog: What it is.
        blocks: One entry for each window of ``cog.blocks``, in that order.
        overwrite: Whether a file that is already there, and what GDAL derived from it, may be replaced.

    Raises:
        OutputExistsError: ``target`` exists and ``overwrite`` is false.
        OutputWriteError: The disk is full, has no room for the samples, or refuses.
        ValueError: There are more or fewer entries than blocks.
    """
    target = Path(target)
    with atomic_file(target, overwrite=overwrite) as temporary, gdal_env():
        _refuse_full_disk(target, cog)
        plain = temporary.with_name(f"plain-{temporary.name}")
        checksum = _write_plain(plain, cog, blocks, target)
        # Nobody reads meanwhile, so GDAL may have the processors; how many it gets does not change a byte.
        options = {"NUM_THREADS": str(min(os.cpu_count() or 1, _MOST_THREADS))}
        if cog.has_predictor:
            options["PREDICTOR"] = "YES"
        with writing(target, needed_bytes=plain.stat().st_size):
            rasterio.shutil.copy(
                plain, temporary, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=str(cog.blocks.tile_px),
                BIGTIFF="IF_SAFER", OVERVIEWS="IGNORE_EXISTING", OVERVIEW_RESAMPLING=cog.resampling, **options,
            )  # fmt: skip
            if _read_checksum(temporary, cog) != checksum:
                raise OSError("the raster on the disk differs from the one written")
            if overwrite:
                _remove_sidecars(target)
    return target


def _refuse_full_disk(target: Path, cog: Cog) -> None:
    """Refuse what cannot fit before the disk is full of it; GDAL would tell that on stderr in words of its own."""
    needed = cog.width_px * cog.height_px * cog.count * np.dtype(cog.dtype).itemsize
    with writing(target):
        free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise OutputWriteError(
            "does not fit on the disk",
            path=target,
            measured=f"needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free",
            remedy="free some space or write to another disk",
        )


def _write_plain(plain: Path, cog: Cog, blocks: Iterable[Block], target: Path) -> tuple[int, int]:
    """Write a tiled GeoTIFF without compression and return the checksums of samples and validity."""
    grid, samples, validity, masked = cog.blocks, 0, 0, False
    with writing(target, OverflowError), quietly():
        # Bands lie apart, so that a block is complete as soon as it is written.
        out = rasterio.open(
            plain, "w", driver="GTiff", width=cog.width_px, height=cog.height_px, count=cog.count, dtype=cog.dtype,
            crs=cog.crs, transform=cog.transform, nodata=cog.nodata, interleave="band", BIGTIFF="IF_SAFER",
            tiled=True, blockxsize=grid.tile_px, blockysize=grid.tile_px,
        )  # fmt: skip
    with writing(target):
        _describe(out, cog)
    try:
        for place, (values, valid) in zip(grid, blocks, strict=True):
            values = np.ascontiguousarray(values, dtype=cog.dtype)  # noqa: PLW2901 - the same block, ready to write
            with writing(target):
                out.write(values, window=_window(place))
            samples = zlib.crc32(values.data, samples)
            if not cog.has_mask:
                continue
            good = np.ascontiguousarray(np.ones(values.shape[1:]) if valid is None else valid, np.bool_)
            validity = zlib.crc32(good.data, validity)
            with writing(target):
                if not masked and not good.all():
                    masked = True
                    for earlier in range(grid.cols * place.row + place.col):
                        window = grid[earlier]
                        out.write_mask(np.ones((window.height_px, window.width_px), np.bool_), window=_window(window))
                if masked:
                    out.write_mask(good, window=_window(place))
    finally:
        with writing(target):
            out.close()
    return samples, validity if masked else 0


def _describe(out: Any, cog: Cog) -> None:  # noqa: ANN401 - rasterio's writer has no public type
    """Write what the header tells; before the first pixel, for the meaning of bands cannot change later."""
    if cog.colormap:
        out.write_colormap(1, cog.colormap)
    elif cog.colorinterp:
        out.colorinterp = [ColorInterp[name] for name in cog.colorinterp]
    out.update_tags(**cog.tags)
    out.update_tags(1, **cog.band_tags)
    for band, text in enumerate(cog.descriptions, start=1):
        out.set_band_description(band, text)


def _read_checksum(path: Path, cog: Cog) -> tuple[int, int]:
    samples = validity = 0
    with open_raster(path) as raster, gdal_env(raster.cache_bytes):
        dataset = raster.handle()
        for place in cog.blocks:
            samples = zlib.crc32(dataset.read(window=_window(place)), samples)
            if raster.info.has_mask and cog.has_mask:
                validity = zlib.crc32(dataset.read_masks(1, window=_window(place)) > 0, validity)
    return samples, validity


def _window(place: Window) -> RasterioWindow:
    return RasterioWindow(place.col_off_px, place.row_off_px, place.width_px, place.height_px)


def _remove_sidecars(target: Path) -> None:
    """Remove what GDAL or QGIS derived from the file that is being replaced; it would override the new one's."""
    for suffix in (".aux.xml", ".ovr", ".msk"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
