"""Rasters seen in another CRS, warped block by block as they are read; only ever when a user asks.

The target's pixels are made by GDAL's warper from the source's overview that suits them. What the source holds
nothing for is not valid: nodata stays nodata, transparency stays transparency, and everything else gets a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import rasterio.warp
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import from_gcps
from rasterio.vrt import WarpedVRT

from tiling.canvas import SAME
from tiling.errors import NotGeoreferencedError, UnsupportedRasterError, UsageError
from tiling.geodesy import ground_size_m
from tiling.info import BlockShape
from tiling.raster import Raster, gdal_env
from tiling.virtual import open_bare, same_crs, with_nan

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray

    from tiling.info import RasterInfo

Kernel = Literal["nearest", "bilinear", "cubic"]
_GCP_PX = 0.5
_DISTORTION = 3
_MOST_PX = 2**26
_GROWTH = 64
_BLOCK = BlockShape(128, 512)


@dataclass(frozen=True, slots=True)
class WarpGrid:
    """Where the pixels of a warped raster lie: north-up, in the CRS asked for."""

    crs: CRS
    transform: Affine
    width_px: int
    height_px: int
    scale_x: float
    """Target pixels per source pixel along the source's rows, at its centre; below 1 when the target is coarser."""
    scale_y: float

    @property
    def reduction(self) -> float:
        """Source pixels per target pixel along the axis that has fewer."""
        return 1 / max(self.scale_x, self.scale_y)

    def enlarged(self, factor_x: float, factor_y: float) -> WarpGrid:
        """Return the grid with pixels so many times larger, and its first corner where it was."""
        return WarpGrid(
            self.crs,
            self.transform * self.transform.scale(factor_x, factor_y),
            max(1, math.ceil(self.width_px / factor_x)),
            max(1, math.ceil(self.height_px / factor_y)),
            self.scale_x / factor_x,
            self.scale_y / factor_y,
        )

    def overview(self, factor: int) -> WarpGrid:
        """Return the grid of an overview: whole pixels over the very same ground, as overviews of files have."""
        width, height = (math.ceil(side / factor) for side in (self.width_px, self.height_px))
        return replace(self.enlarged(self.width_px / width, self.height_px / height), width_px=width, height_px=height)


class WarpedRaster(Raster):
    """A raster in another CRS. Closing it closes its source too."""

    def __init__(self, source: Raster, grid: WarpGrid, placed: _Placed, kernel: Kernel) -> None:
        self.source = source
        self.grid = grid
        overviews = source.info.overviews
        base = max((f for f in overviews if f <= grid.reduction * (1 + SAME)), default=1)
        self.source_overviews = {1: base} | {f // base: f for f in overviews if f > base and f % base == 0}
        """By each of its own overviews, the one of the source that is warped; 1 is the full resolution."""
        self._placed = placed
        self._kernel = Resampling[kernel]
        super().__init__(
            _describe(source.info, grid, tuple(self.source_overviews)[1:]),
            source.palette,
            self._open,
            paths=source.paths,
            extra_cache_bytes=source.cache_bytes,
        )

    def source_overview(self, overview: int = 1) -> int:
        """Return the reduction factor of the source's overview that one of ours is warped from."""
        return self.source_overviews[overview]

    def close(self) -> None:
        """Close every handle, and the source."""
        super().close()
        self.source.close()

    def _open(self, overview: int) -> _WarpedHandle:
        grid, level = self.grid.overview(overview), self.source_overviews[overview]
        dataset = open_bare(self.source, level)
        info = self.source.info
        shrunk = info.width_px / dataset.width, info.height_px / dataset.height
        nodata = self.info.nodata if self.info.validity == "nodata" else None
        try:
            return _WarpedHandle(
                dataset,
                src_crs=self._placed.crs,
                src_transform=self._placed.transform * self._placed.transform.scale(*shrunk),
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width_px,
                height=grid.height_px,
                resampling=self._kernel,
                src_nodata=nodata,
                nodata=nodata,
                add_alpha=self.info.has_mask,
                # Left to itself GDAL takes the scale from whatever block it is at, which shows at block borders.
                XSCALE=min(1.0, grid.scale_x * shrunk[0]),
                YSCALE=min(1.0, grid.scale_y * shrunk[1]),
            )
        except (RasterioError, CPLE_BaseError, ValueError) as error:
            dataset.close()
            raise _impossible(info, grid.crs, str(error)) from error


class _WarpedHandle(WarpedVRT):
    """Owns the handle that it warps, and gives the transparency that warping added as the mask of every band."""

    def close(self) -> None:
        super().close()
        self.src_dataset.close()

    def read_masks(self, indexes: Any = None, **options: Any) -> NDArray[Any]:  # noqa: ANN401, ARG002 - as rasterio's
        # GDAL takes an added band for the mask only where it makes two or four bands of bytes.
        return np.asarray(self.read(self.count, **options))


def warp_raster(
    raster: Raster, crs: str | CRS, *, gsd_m: float | None = None, resampling: Kernel | None = None
) -> Raster:
    """See a raster in another CRS.

    The grid is north-up, as GDAL suggests it: about as many pixels as the source has. With ``gsd_m`` coarser than
    that, pixels have that ground size at the centre and are warped from the overview that suits it; a finer
    ``gsd_m`` changes nothing, because a canvas enlarges without warping. Its own overviews mirror the source's.

    Places are exact to 1/8 of a source pixel. Memory is that of the source, and 64 MB per reading thread at most.

    Args:
        raster: The open raster; also rotated, south-up, or placed by ground control points that an affine fits.
        crs: Anything that names a CRS, such as ``EPSG:3857``.
        gsd_m: Ground metres per pixel that will be wanted.
        resampling: None takes ``nearest`` for numbers of colours and ``bilinear`` for everything else. Class
            numbers without a palette need ``nearest``.

    Returns:
        A :class:`WarpedRaster`, or ``raster`` itself when it is in that CRS already. Closing it closes ``raster``.

    Raises:
        UsageError: The CRS or the resampling is unknown.
        NotGeoreferencedError: The raster has no CRS, or is placed by RPCs or by points that no affine fits.
        UnsupportedRasterError: It cannot be laid out in that CRS: it is cut by the antimeridian or holds a pole
            there, or would become absurdly large.
    """
    target = _parse(crs)
    info = raster.info
    if same_crs(info.crs, target):
        return raster
    kernel = resampling or ("nearest" if info.has_palette else "bilinear")
    if kernel not in get_args(Kernel):
        raise UsageError("unknown resampling", measured=str(kernel), remedy=f"use {', '.join(get_args(Kernel))}")
    if info.has_palette and kernel != "nearest":
        raise UsageError("numbers of colours have no mean", path=info.path, measured=kernel, remedy="use nearest")
    if info.validity == "nodata" and len({repr(value) for value in info.band_nodata}) > 1:
        raise UnsupportedRasterError(
            "has a different nodata value in each band",
            path=info.path,
            measured=", ".join(map(str, info.band_nodata)),
            remedy="give all the same with gdal_translate -a_nodata",
        )
    placed = _place(raster)
    grid = _suggest(info, placed, target)
    size_m = ground_size_m(target, grid.transform, grid.width_px, grid.height_px)
    if gsd_m is not None and size_m is not None and gsd_m > max(size_m) * (1 + SAME):
        grid = grid.enlarged(gsd_m / size_m[0], gsd_m / size_m[1])
    warped = WarpedRaster(raster, grid, placed, kernel)
    # Opening here tells what GDAL cannot warp, and has its drivers ready before threads use them.
    warped.handle()
    return warped


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a raster lies, control points included."""

    crs: CRS
    transform: Affine


def _parse(crs: str | CRS) -> CRS:
    try:
        with gdal_env():
            target = CRS.from_user_input(crs)
    except (RasterioError, ValueError) as error:
        raise UsageError("is not a CRS", measured=str(crs), remedy="write it like EPSG:32631") from error
    if not (target.is_projected or target.is_geographic):
        raise UsageError("is not the CRS of a map", measured=str(crs), remedy="write it like EPSG:32631")
    return target


def _place(raster: Raster) -> _Placed:
    info = raster.info
    if info.crs is not None:
        return _Placed(info.crs, info.transform)
    if info.is_georeferenced or not info.has_gcps:
        raise NotGeoreferencedError(
            "cannot be warped, its place is unknown",
            path=info.path,
            measured=info.why_no_metres(),
            remedy="orthorectify it with 'gdalwarp -rpc'"
            if info.has_rpcs
            else "assign a CRS with 'gdal_edit.py -a_srs'",
        )
    points, crs = raster.handle().gcps
    if crs is None or len(points) < 3:
        raise NotGeoreferencedError(
            "cannot be warped, its control points do not place it",
            path=info.path,
            measured=f"{len(points)} points, {'no CRS' if crs is None else crs}",
            remedy="give it three or more with 'gdal_translate -gcp' and '-a_srs'",
        )
    transform = from_gcps(points)
    off_px = _misfit_px(transform, points)
    if not off_px <= _GCP_PX:
        raise NotGeoreferencedError(
            "is bent between its control points",
            path=info.path,
            measured=f"{off_px:.1f} px off an affine",
            remedy="rectify it with 'gdalwarp -tps'",
        )
    return _Placed(crs, transform)


def _misfit_px(transform: Affine, points: list[GroundControlPoint]) -> float:
    if transform.determinant == 0:
        return math.inf
    back = ~transform
    return max(math.dist(back * (point.x, point.y), (point.col, point.row)) for point in points)


def _suggest(info: RasterInfo, placed: _Placed, crs: CRS) -> WarpGrid:
    """Return the grid that GDAL suggests, if it shows the raster at about its own resolution."""
    width, height, transform = info.width_px, info.height_px, placed.transform
    corners = [(col, row, *(transform * (col, row))) for col in (0, width) for row in (0, height)]
    if transform.b == transform.d == 0:
        _, _, xs, ys = zip(*corners, strict=True)
        extent: dict[str, Any] = {"left": min(xs), "bottom": min(ys), "right": max(xs), "top": max(ys)}
    else:
        extent = {"gcps": [GroundControlPoint(row=row, col=col, x=x, y=y, z=0) for col, row, x, y in corners]}
    try:
        with gdal_env():
            found, cols, rows = rasterio.warp.calculate_default_transform(placed.crs, crs, width, height, **extent)
            middle = [(width / 2, height / 2), (width / 2 + 1, height / 2), (width / 2, height / 2 + 1)]
            x, y = rasterio.warp.transform(placed.crs, crs, *zip(*(transform * point for point in middle), strict=True))
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        raise _impossible(info, crs, str(error)) from error
    if not (cols > 0 and rows > 0 and found.determinant and np.isfinite([*x, *y]).all()):
        raise _impossible(info, crs, f"{cols} × {rows} px")
    origin, right, down = (~found * point for point in zip(x, y, strict=True))
    grid = WarpGrid(crs, found, cols, rows, math.dist(origin, right), math.dist(origin, down))
    mean = math.sqrt(grid.scale_x * grid.scale_y)
    if not 1 / _DISTORTION < mean < _DISTORTION or cols * rows > max(_MOST_PX, _GROWTH * width * height):
        raise _impossible(info, crs, f"{width} × {height} px would become {cols} × {rows} of {found.a:g} units")
    return grid


def _describe(info: RasterInfo, grid: WarpGrid, overviews: tuple[int, ...]) -> RasterInfo:
    size_m = ground_size_m(grid.crs, grid.transform, grid.width_px, grid.height_px)
    info = with_nan(info)
    return replace(
        info,
        driver="VRT",
        width_px=grid.width_px,
        height_px=grid.height_px,
        crs=grid.crs,
        transform=grid.transform,
        is_georeferenced=True,
        has_mask=info.validity in ("mask", "none"),
        overviews=overviews,
        block_px=_BLOCK,
        gsd_x_m=size_m[0] if size_m else None,
        gsd_y_m=size_m[1] if size_m else None,
        has_gcps=False,
        has_rpcs=False,
    )


def _impossible(info: RasterInfo, crs: CRS, measured: str) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"cannot be laid out in {crs.to_string()[:60]}",
        path=info.path,
        measured=measured.splitlines()[0][:100] if measured else None,
        remedy="choose a CRS made for its place, such as a UTM zone, or cut the raster first",
    )
