"""The only door to raster files: an allow-list of drivers, plain facts about the file, one handle per thread.

GDAL ignores suffixes, so a VRT named ``image.tif`` would be opened and could read any file of the user. Here the
driver list is fixed, the text must name a local file, and files that lead to other files are refused.
"""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tiling.errors import RasterOpenError, UnsupportedRasterError, UsageError
from tiling.geodesy import ground_size_m
from tiling.info import BlockShape, RasterInfo, sample_bytes
from tiling.safety import check_file, check_sidecars, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tiling.plan import Tiles

MAX_BLOCK_BYTES = 256 * 2**20
_CACHE_BYTES = (32 * 2**20, 512 * 2**20)
"""Least and most that GDAL's block cache may take."""
_REACH_PX = 2048
_IMAGES = (".ovr", ".msk")
_NOTES = (".txt", ".xml", ".imd", ".rpb", ".rpc", ".pvl", ".xmp", ".met", ".til", ".prj")
"""Suffixes of metadata that producers lay beside images under names of their own."""
_OPEN_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class OpenPolicy:
    """What may be opened beyond local files of the allow-listed drivers."""

    allow_vrt: bool = False
    """Accept virtual rasters, which may read any file that they name."""
    allow_remote: bool = False
    """Accept http(s) and s3 addresses."""


@dataclass(slots=True)
class _Lease:
    owner: threading.Thread
    overview: int
    dataset: rasterio.DatasetReader


class Raster:
    """An open raster: facts, and one GDAL handle per thread and overview. Close it, or use ``with``."""

    def __init__(
        self,
        info: RasterInfo,
        palette: NDArray | None,
        open_level: Callable[[int], rasterio.DatasetReader],
        *,
        paths: tuple[Path, ...] = (),
        extra_cache_bytes: int = 0,
    ) -> None:
        self.path = info.path
        """The file, or the first of several; for messages."""
        self.paths = paths or (info.path,)
        """Every file that the pixels come from."""
        self.info = info
        self.palette = palette
        """(N, 4) uint8 RGBA of a paletted raster, or None."""
        own_bytes = _cache_bytes(info)
        self.cache_bytes = min(own_bytes + extra_cache_bytes, _CACHE_BYTES[1])
        """GDAL block cache that reading this raster wants."""
        self.open_level = open_level
        """Open one more handle for an overview (1 is the full resolution), which the caller closes."""
        self._local = threading.local()
        self._leases: list[_Lease] = []
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle(self, overview: int = 1) -> rasterio.DatasetReader:
        """Return this thread's handle, opened on first use and closed with the raster.

        Args:
            overview: Reduction factor of the overview to read, one of ``info.overviews``, or 1.

        Raises:
            RasterOpenError: The file cannot be opened any more, or the raster is closed.
        """
        handles: dict[int, rasterio.DatasetReader] = self._local.__dict__.setdefault("handles", {})
        if self._closed:
            raise RasterOpenError("is closed", path=self.path)
        if overview not in handles:
            handles[overview] = self._adopt(overview) or self._add(overview)
        return handles[overview]

    def tiles(self, tile: str = "512px", overlap: str = "0px", **options: Any) -> Tiles:  # noqa: ANN401
        """Return the raster's tiles, read lazily; :func:`tiling.plan.tiles` tells all options and errors.

        >>> with open_raster("site.tif") as raster:
        ...     for tile in raster.tiles("512px", "20%", gsd_m=0.3, stretch="p2-98"):
        ...         tile.window, tile.transform, tile.array, tile.mask
        """
        from tiling.plan import tiles

        return tiles(self, tile, overlap, **options)

    def _adopt(self, overview: int) -> rasterio.DatasetReader | None:
        """Take over the handle of a thread that has ended: handles never outnumber the threads alive at once."""
        with self._lock:
            for lease in self._leases:
                if lease.overview == overview and not lease.owner.is_alive():
                    lease.owner = threading.current_thread()
                    return lease.dataset
        return None

    def _add(self, overview: int) -> rasterio.DatasetReader:
        with gdal_env():
            dataset = self.open_level(overview)
        with self._lock:
            self._leases.append(_Lease(threading.current_thread(), overview, dataset))
        return dataset

    def source_overview(self, overview: int = 1) -> int:
        """Return the reduction factor of the file's overview behind one of ours; another one for warped rasters."""
        return overview

    def rest(self) -> None:
        """Close every handle until the next use, so that thousands of rasters can be open. No thread may be reading."""
        with self._lock:
            for lease in self._leases:
                lease.dataset.close()
            self._leases.clear()
            self._local = threading.local()

    def close(self) -> None:
        """Close every handle for good. No thread may still be reading."""
        self._closed = True
        self.rest()


@contextlib.contextmanager
def gdal_env(cache_bytes: int = _CACHE_BYTES[0]) -> Iterator[None]:
    """Give GDAL the project's settings in this thread; its warnings go to the ``rasterio`` logger.

    Threads are ours, so GDAL starts none, and the block cache is explicit. Its shortcut for whole PNG files is off,
    because it gives black for what a file that was cut off lacks.
    """
    png = {"GDAL_PNG_WHOLE_IMAGE_OPTIM": False}
    with rasterio.Env(GDAL_NUM_THREADS=1, GDAL_CACHEMAX=cache_bytes, GDAL_TIFF_INTERNAL_MASK=True, **png):
        yield


def _cache_bytes(info: RasterInfo) -> int:
    """Return the block cache for two threads that each touch a square of blocks, or a band of strips, plus a fifth.

    Blocks are decoded once and sliced in numpy, so the cache need not hold a whole row of blocks.
    """
    block = info.block_px
    in_strips = block.width_px >= info.width_px
    reach = max(1, _REACH_PX**2 // info.width_px) if in_strips else _REACH_PX
    rows = min(info.height_px, (math.ceil(reach / block.height_px) + 1) * block.height_px)
    cols = min(info.width_px, (math.ceil(_REACH_PX / block.width_px) + 1) * block.width_px)
    touched = rows * (info.width_px if in_strips else cols) * info.count * sample_bytes(info.dtype)
    least, most = _CACHE_BYTES
    return min(max(least, int(2 * 1.2 * touched)), most)


def open_raster(path: str | Path, *, policy: OpenPolicy | None = None, crs: str | None = None) -> Raster:
    """Open a raster file.

    Args:
        path: A local GeoTIFF (also cloud-optimised), JPEG 2000, PNG or JPEG.
        policy: What else is allowed; by default nothing.
        crs: Take the file's coordinates to be in this CRS (WKT, ``EPSG:4326``, …), whatever the file says; nothing
            is warped. A file without a geotransform stays without a CRS.

    Returns:
        The open raster, a context manager.

    Raises:
        RasterOpenError: The text is not a local file's name, or the file is missing, empty, damaged, of another
            format, or leads to other files.
        UnsupportedRasterError: It holds no band, or its blocks are too large to decode.
        UsageError: ``crs`` is not known.
    """
    policy = policy or OpenPolicy()
    text = check_text(path, allow_remote=policy.allow_remote)
    if policy.allow_remote and "://" in text:
        raise RasterOpenError("is remote", path=text, remedy="download it first: remote reading is not built in yet")
    file = Path(text).absolute()
    driver = check_file(file, allow_vrt=policy.allow_vrt)
    check_sidecars(file)
    with gdal_env(), open_dataset(file, driver) as dataset:
        if driver != "VRT":
            _refuse_strangers(file, dataset)
        info = _describe(file, dataset)
        if crs is not None:
            info = _placed(info, crs)
        palette = _palette(dataset) if info.has_palette else None

    def open_level(overview: int) -> rasterio.DatasetReader:
        return open_dataset(file, driver, {} if overview == 1 else {"overview_level": info.overviews.index(overview)})

    return Raster(info, palette, open_level)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Open or create a dataset without rasterio's warning that it has no geotransform: that is told in our words.

    Python's warning filters belong to the whole process, so only one thread is inside at a time.
    """
    with _OPEN_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_dataset(
    file: Path, driver: str, options: dict[str, int] | None = None, *, text: str | None = None
) -> rasterio.DatasetReader:
    """Open a handle on a file that has been checked, or on ``text`` of our own making that stands for it.

    Raises:
        RasterOpenError: GDAL cannot.
    """
    try:
        with quietly():
            return rasterio.open(text or file, driver=driver, sharing=False, **options or {})
    except (RasterioError, OSError, ValueError) as error:
        raise RasterOpenError(
            "is not a raster that can be opened, or is damaged",
            path=file,
            measured=f"{file.stat().st_size if file.exists() else 0} bytes, read as {driver}",
            remedy="convert it with 'gdal_translate -of COG IN OUT.tif', or get the file again",
        ) from error


def _refuse_strangers(file: Path, dataset: rasterio.DatasetReader) -> None:
    """Refuse a file by which GDAL would read another one, unseen by the driver list, as an overview or a mask."""
    for beside in map(Path, dataset.files):
        suffix = beside.suffix.lower()
        is_own = beside.parent == file.parent and beside.name.lower().startswith(file.stem.lower())
        is_safe = suffix not in _IMAGES or check_file(beside, allow_vrt=True) == "GTiff"
        if not is_safe or not (is_own or suffix in _NOTES):
            raise RasterOpenError(
                "takes its mask or its overviews from another file",
                path=file,
                measured=str(beside),
                remedy="rewrite it with 'gdal_translate -of COG IN OUT.tif'",
            )


def _describe(file: Path, dataset: rasterio.DatasetReader) -> RasterInfo:
    if dataset.count == 0:
        raise UnsupportedRasterError(
            "holds no band", path=file, remedy="name one of its subdatasets after converting it with gdal_translate"
        )
    height_px, width_px = dataset.block_shapes[0]
    _refuse_huge_blocks(file, dataset, height_px, width_px)
    transform = dataset.transform
    georeferenced = not transform.is_identity and math.isfinite(transform.determinant) and transform.determinant != 0
    transform = transform if georeferenced else transform.identity()
    crs = dataset.crs if georeferenced and dataset.crs else None
    size = ground_size_m(crs, transform, dataset.width, dataset.height)
    interp = tuple(item.name for item in dataset.colorinterp)
    flags = {flag.name for flag in dataset.mask_flag_enums[0]}
    nbits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    return RasterInfo(
        path=file,
        driver=dataset.driver,
        width_px=dataset.width,
        height_px=dataset.height,
        count=dataset.count,
        dtype=str(dataset.dtypes[0]),
        crs=crs,
        transform=transform,
        is_georeferenced=georeferenced,
        nodata=dataset.nodata,
        band_nodata=tuple(dataset.nodatavals),
        alpha_band=interp.index("alpha") + 1 if "alpha" in interp else None,
        has_mask="per_dataset" in flags and "alpha" not in flags,
        colorinterp=interp,
        has_palette=interp[0] == "palette",
        nbits=int(nbits) if nbits else None,
        overviews=tuple(factor for factor in dataset.overviews(1) if factor > 1),
        block_px=BlockShape(height_px, width_px),
        gsd_x_m=size[0] if size else None,
        gsd_y_m=size[1] if size else None,
        has_gcps=bool(dataset.gcps[0]),
        has_rpcs=dataset.rpcs is not None,
    )


def _placed(info: RasterInfo, text: str) -> RasterInfo:
    """Return the facts as they are when the coordinates are in another CRS than the file says."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise UsageError("the CRS is not known", measured=text[:80], remedy="write it like EPSG:4326") from error
    if not info.is_georeferenced:
        return info
    size = ground_size_m(crs, info.transform, info.width_px, info.height_px)
    return replace(info, crs=crs, gsd_x_m=size[0] if size else None, gsd_y_m=size[1] if size else None)


def _refuse_huge_blocks(file: Path, dataset: rasterio.DatasetReader, height_px: int, width_px: int) -> None:
    interleaved = dataset.count if str(dataset.interleaving) == "Interleaving.pixel" else 1
    size = height_px * width_px * interleaved * sample_bytes(str(dataset.dtypes[0]))
    if size > MAX_BLOCK_BYTES:
        raise UnsupportedRasterError(
            "has blocks too large to decode one by one",
            path=file,
            measured=f"{width_px} × {height_px} px, {size / 2**20:.0f} MB each, at most {MAX_BLOCK_BYTES // 2**20}",
            remedy="rewrite it in tiles with 'gdal_translate -of COG IN OUT.tif'",
        )


def _palette(dataset: rasterio.DatasetReader) -> NDArray:
    import numpy as np

    table = dataset.colormap(1)
    colours = np.zeros((max(table) + 1, 4), np.uint8)
    colours[list(table)] = list(table.values())
    return colours
