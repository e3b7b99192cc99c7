"""Several rasters seen as one, without copying a pixel.

The rasters have to agree: CRS, bands, type, resolution, and what tells missing pixels. The first lies on top, as in
``rasterio.merge``; where it misses pixels the next one shows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tiling.canvas import SAME
from tiling.errors import NotGeoreferencedError, RasterOpenError, UnsupportedRasterError, UsageError
from tiling.geodesy import ground_size_m
from tiling.grid import Window
from tiling.info import BlockShape
from tiling.raster import OpenPolicy, Raster, open_dataset, open_raster
from tiling.virtual import Layer, mask_is_known, same_crs, virtual_raster, with_nan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import rasterio
    from affine import Affine
    from numpy.typing import NDArray

    from tiling.info import RasterInfo

_MOST_PX = 2**31 - 1


def open_mosaic(paths: Sequence[str | Path], *, policy: OpenPolicy | None = None) -> Raster:
    """Open rasters as one.

    The pixel grid is the first raster's, continued. A raster whose own grid lies between those pixels is shifted
    by at most half a pixel, and one whose pixels are up to 1 % larger or smaller gives its nearest ones: nothing is
    ever blended. Coarse reads use the overviews that all have. Files are opened when their pixels are wanted, and
    GDAL keeps at most about a hundred of them open.

    Args:
        paths: Local files, the topmost first.
        policy: As for :func:`open_raster`; virtual rasters are refused all the same.

    Returns:
        The open raster, a context manager. ``path`` is the first file's, ``paths`` are all.

    Raises:
        RasterOpenError: One cannot be opened, or is itself virtual.
        NotGeoreferencedError: One has no place on the ground.
        UnsupportedRasterError: Two do not fit together, or one is rotated or south-up.
        UsageError: There is no file.
    """
    if not paths:
        raise UsageError("a mosaic needs at least one raster")
    infos: list[RasterInfo] = []
    palettes: list[NDArray[np.uint8] | None] = []
    for path in paths:
        with open_raster(path, policy=policy) as raster:
            _check_alone(raster.info)
            infos.append(raster.info)
            palettes.append(raster.palette)
    if not any(info.validity == "mask" for info in infos):
        infos = [with_nan(info) for info in infos]
    for info, palette in zip(infos, palettes, strict=True):
        _check_pair(infos[0], info)
        _check_palettes(infos[0], palettes[0], info, palette)
    layers, width, height, transform = _lay(infos)
    info = _describe(infos, width, height, transform)
    text = virtual_raster(info, layers, width_px=width, height_px=height, overviews=info.overviews)

    def open_level(overview: int) -> rasterio.DatasetReader:
        level = {} if overview == 1 else {"overview_level": info.overviews.index(overview)}
        return open_dataset(info.path, "VRT", level, text=text)

    mosaic = Raster(info, palettes[0], open_level, paths=tuple(info.path for info in infos))
    # Has the driver ready before threads use it.
    mosaic.handle()
    return mosaic


def _check_alone(info: RasterInfo) -> None:
    if info.driver == "VRT":
        raise RasterOpenError(
            "is a virtual raster, which cannot be part of a mosaic",
            path=info.path,
            remedy="name the files that it is made of, or convert it with gdal_translate",
        )
    if not info.is_georeferenced:
        raise NotGeoreferencedError(
            "cannot be part of a mosaic, its place is unknown", path=info.path, measured=info.why_no_metres()
        )
    if info.is_rotated or info.transform.a < 0 or info.is_south_up:
        raise UnsupportedRasterError(
            "cannot be part of a mosaic, its rows do not run from west to east and north to south",
            path=info.path,
            measured=f"geotransform {', '.join(f'{value:g}' for value in info.transform.to_gdal())}",
            remedy="turn it with gdalwarp",
        )
    if info.validity == "alpha" and not mask_is_known(info):
        raise UnsupportedRasterError(
            "cannot be part of a mosaic with a transparency band beside other than one or three bands of 8 or 16 bits",
            path=info.path,
            measured=f"{'/'.join(info.colorinterp)}, {info.dtype}",
            remedy="make a mask of it with 'gdal_translate -b 1 … -mask N'",
        )


def _pixel(info: RasterInfo) -> tuple[float, float]:
    return info.transform.a, -info.transform.e


def _missing(info: RasterInfo) -> str:
    """Say what tells missing pixels. Rasters with a mask and rasters without anything go together."""
    if info.validity == "nodata":
        return f"nodata {', '.join(dict.fromkeys(map(repr, info.band_nodata)))}"
    return "a transparency band" if info.validity == "alpha" else "a mask or nothing"


_TRAITS: tuple[tuple[str, Callable[[RasterInfo], object]], ...] = (
    ("number of bands", lambda info: info.count),
    ("type of samples", lambda info: info.dtype),
    ("meaning of bands", lambda info: "/".join(info.colorinterp)),
    ("mark of missing pixels", _missing),
)
_REMEDY = "warp or convert it with gdalwarp or gdal_translate, or cut the rasters one by one without --mosaic"


def _check_pair(first: RasterInfo, other: RasterInfo) -> None:
    if not same_crs(first.crs, other.crs):
        raise _mismatch("CRS", first, str(first.crs), other, str(other.crs))
    for what, trait in _TRAITS:
        if trait(first) != trait(other):
            raise _mismatch(what, first, str(trait(first)), other, str(trait(other)))
    for mine, its in zip(_pixel(first), _pixel(other), strict=True):
        if abs(its / mine - 1) > SAME:
            sizes = [" × ".join(f"{side:g}" for side in _pixel(info)) for info in (first, other)]
            raise _mismatch("pixel size", first, sizes[0], other, sizes[1])


def _check_palettes(
    first: RasterInfo, mine: NDArray[np.uint8] | None, other: RasterInfo, its: NDArray[np.uint8] | None
) -> None:
    if mine is not None and its is not None and mine.tobytes() != its.tobytes():
        raise _mismatch("palette", first, f"{len(mine)} colours", other, f"{len(its)} others")


def _mismatch(what: str, first: RasterInfo, mine: str, other: RasterInfo, its: str) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"cannot lie in one mosaic with {first.path}: the {what} differs",
        path=other.path,
        measured=f"{its[:80]}, not {mine[:80]}",
        remedy=_REMEDY,
    )


def _lay(infos: Sequence[RasterInfo]) -> tuple[list[Layer], int, int, Affine]:
    """Place rasters on the first one's grid, continued in all directions."""
    first = infos[0]
    back = ~first.transform
    places = []
    for info in infos:
        left, top = back * (info.transform * (0, 0))
        right, bottom = back * (info.transform * (info.width_px, info.height_px))
        col, row = _nearest(left), _nearest(top)
        places.append(Window(col, row, max(1, _nearest(right - left)), max(1, _nearest(bottom - top))))
    west, north = min(place.col_off_px for place in places), min(place.row_off_px for place in places)
    width = max(place.col_end_px for place in places) - west
    height = max(place.row_end_px for place in places) - north
    if max(width, height) > _MOST_PX:
        raise UnsupportedRasterError(
            "lies too far from the others for one mosaic",
            path=first.path,
            measured=f"{width} × {height} px in all",
            remedy="cut the rasters one by one without --mosaic",
        )
    layers = []
    for info, place in zip(infos, places, strict=True):
        there = replace(place, col_off_px=place.col_off_px - west, row_off_px=place.row_off_px - north)
        masked = info.validity in ("mask", "alpha")
        layers.append(Layer(info.path, info.width_px, info.height_px, info.block_px, there, masked))
    return layers, width, height, first.transform * first.transform.translation(west, north)


def _nearest(pixels: float) -> int:
    """Round halves always the same way, so that rasters half a pixel off the grid stay flush."""
    return math.floor(pixels + 0.5)


def _describe(infos: Sequence[RasterInfo], width: int, height: int, transform: Affine) -> RasterInfo:
    first = infos[0]
    size_m = ground_size_m(first.crs, transform, width, height)
    common = set(first.overviews).intersection(*(info.overviews for info in infos))
    bare = first.validity != "nodata"
    return replace(
        first,
        driver="VRT",
        width_px=width,
        height_px=height,
        transform=transform,
        nodata=None if bare else first.nodata,
        band_nodata=(None,) * first.count if bare else first.band_nodata,
        has_mask=first.validity in ("mask", "none"),
        overviews=tuple(sorted(common)),
        block_px=BlockShape(
            max(info.block_px.height_px for info in infos), max(info.block_px.width_px for info in infos)
        ),
        gsd_x_m=size_m[0] if size_m else None,
        gsd_y_m=size_m[1] if size_m else None,
    )
