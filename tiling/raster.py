"""The only door to raster files: an allow-list of drivers, plain facts about the file, one handle per thread.

GDAL ignores suffixes, so a VRT named ``image.tif`` would be opened and could read any file of the user. Here the
driver list is fixed, the text must name a local file, and files that lead to other files are refused.
"""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tiling.errors import RasterOpenError, UnsupportedRasterError
from tiling.geodesy import ground_size_m
from tiling.safety import check_file, check_sidecars, check_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS

MAX_BLOCK_BYTES = 256 * 2**20
_CACHE_BYTES = (32 * 2**20, 512 * 2**20)
"""Least and most that GDAL's block cache may take."""
_REACH_PX = 2048
_OPEN_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class OpenPolicy:
    """What may be opened beyond local files of the allow-listed drivers."""

    allow_vrt: bool = False
    """Accept virtual rasters, which may read any file that they name."""
    allow_remote: bool = False
    """Accept http(s) and s3 addresses."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Size of one compressed block."""

    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """Facts about an open raster; nothing here needs another look at the file."""

    path: Path
    driver: str
    width_px: int
    height_px: int
    count: int
    dtype: str
    """numpy name of the first band's type; GDAL's ``complex_int16`` for that one."""
    crs: CRS | None
    """None also when there is no geotransform, because map coordinates would then be wrong."""
    transform: Affine
    is_georeferenced: bool
    """Whether there is a geotransform. Control points and RPCs alone are not one."""
    nodata: float | None
    band_nodata: tuple[float | None, ...]
    alpha_band: int | None
    has_mask: bool
    """Whether a mask band (internal or ``.msk``) lies beside the bands."""
    colorinterp: tuple[str, ...]
    has_palette: bool
    nbits: int | None
    """Bits used per sample where fewer than the type has (1, 4, 12)."""
    overviews: tuple[int, ...]
    block_px: BlockShape
    gsd_x_m: float | None
    """Ground metres of one column step at the centre, on the ellipsoid; None without a CRS."""
    gsd_y_m: float | None
    has_gcps: bool = False
    has_rpcs: bool = False

    @property
    def gsd_m(self) -> float | None:
        """Side in metres of a square as large as one pixel, or None."""
        if self.gsd_x_m is None or self.gsd_y_m is None:
            return None
        return math.sqrt(self.gsd_x_m * self.gsd_y_m)

    @property
    def is_rotated(self) -> bool:
        """Whether rows and columns are not along the axes of the CRS."""
        return bool(self.transform.b or self.transform.d)

    @property
    def is_south_up(self) -> bool:
        """Whether the first row is the southernmost."""
        return bool(self.transform.e > 0) and self.is_georeferenced

    @property
    def is_complex(self) -> bool:
        """Whether samples are complex numbers."""
        return self.dtype.startswith("complex")

    def why_no_metres(self) -> str | None:
        """Say in a few words why ground distances are unknown, or None when they are known."""
        if self.gsd_x_m is not None:
            return None
        if self.has_gcps or self.has_rpcs:
            kind = "ground control points" if self.has_gcps else "RPCs"
            return f"it is placed only by {kind}"
        if not self.is_georeferenced:
            return "it has no geotransform"
        return "it has no CRS" if self.crs is None else "its centre lies outside its CRS"


@dataclass(slots=True)
class _Lease:
    owner: threading.Thread
    overview: int
    dataset: rasterio.DatasetReader


class Raster:
    """An open raster: facts, and one GDAL handle per thread and overview. Close it, or use ``with``."""

    def __init__(self, path: Path, driver: str, info: RasterInfo, palette: NDArray | None) -> None:
        self.path = path
        self.info = info
        self.palette = palette
        """(N, 4) uint8 RGBA of a paletted raster, or None."""
        self.cache_bytes = _cache_bytes(info, _sample_bytes(info.dtype))
        """GDAL block cache that reading this raster wants."""
        self._driver = driver
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

    def _adopt(self, overview: int) -> rasterio.DatasetReader | None:
        """Take over the handle of a thread that has ended: handles never outnumber the threads alive at once."""
        with self._lock:
            for lease in self._leases:
                if lease.overview == overview and not lease.owner.is_alive():
                    lease.owner = threading.current_thread()
                    return lease.dataset
        return None

    def _add(self, overview: int) -> rasterio.DatasetReader:
        level = {} if overview == 1 else {"overview_level": self.info.overviews.index(overview)}
        with gdal_env():
            dataset = _open(self.path, self._driver, level)
        with self._lock:
            self._leases.append(_Lease(threading.current_thread(), overview, dataset))
        return dataset

    def close(self) -> None:
        """Close every handle. No thread may still be reading."""
        with self._lock:
            self._closed = True
            for lease in self._leases:
                lease.dataset.close()
            self._leases.clear()


@contextlib.contextmanager
def gdal_env(cache_bytes: int = _CACHE_BYTES[0]) -> Iterator[None]:
    """Give GDAL the project's settings in this thread; its warnings go to the ``rasterio`` logger.

    Threads are ours, so GDAL starts none, and the block cache is explicit.
    """
    with rasterio.Env(GDAL_NUM_THREADS=1, GDAL_CACHEMAX=cache_bytes, GDAL_TIFF_INTERNAL_MASK=True):
        yield


def _cache_bytes(info: RasterInfo, sample_bytes: int) -> int:
    """Return the block cache for two threads that each touch a square of blocks, or a band of strips, plus a fifth.

    Blocks are decoded once and sliced in numpy, so the cache need not hold a whole row of blocks.
    """
    block = info.block_px
    in_strips = block.width_px >= info.width_px
    reach = max(1, _REACH_PX**2 // info.width_px) if in_strips else _REACH_PX
    rows = min(info.height_px, (math.ceil(reach / block.height_px) + 1) * block.height_px)
    cols = min(info.width_px, (math.ceil(_REACH_PX / block.width_px) + 1) * block.width_px)
    touched = rows * (info.width_px if in_strips else cols) * info.count * sample_bytes
    least, most = _CACHE_BYTES
    return min(max(least, int(2 * 1.2 * touched)), most)


def _sample_bytes(dtype: str) -> int:
    """Return the size of one sample; rasterio's ``complex_int16`` is no name of numpy's."""
    import numpy as np

    return 4 if dtype == "complex_int16" else int(np.dtype(dtype).itemsize)


def open_raster(path: str | Path, *, policy: OpenPolicy | None = None) -> Raster:
    """Open a raster file.

    Args:
        path: A local GeoTIFF (also cloud-optimised), JPEG 2000, PNG or JPEG.
        policy: What else is allowed; by default nothing.

    Returns:
        The open raster, a context manager.

    Raises:
        RasterOpenError: The text is not a local file's name, or the file is missing, empty, damaged, of another
            format, or leads to other files.
        UnsupportedRasterError: It holds no band, or its blocks are too large to decode.
    """
    policy = policy or OpenPolicy()
    text = check_text(path, allow_remote=policy.allow_remote)
    if policy.allow_remote and "://" in text:
        raise RasterOpenError("is remote", path=text, remedy="download it first: remote reading is not built in yet")
    file = Path(text).absolute()
    driver = check_file(file, allow_vrt=policy.allow_vrt)
    check_sidecars(file)
    with gdal_env(), _open(file, driver, {}) as dataset:
        _refuse_borrowed_overviews(file, dataset)
        info = _describe(file, dataset)
        palette = _palette(dataset) if info.has_palette else None
    return Raster(file, info.driver, info, palette)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Open or create a dataset without rasterio's warning that it has no geotransform: that is told in our words.

    Python's warning filters belong to the whole process, so only one thread is inside at a time.
    """
    with _OPEN_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _open(file: Path, driver: str, options: dict[str, int]) -> rasterio.DatasetReader:
    try:
        with quietly():
            return rasterio.open(file, driver=driver, sharing=False, **options)
    except (RasterioError, OSError, ValueError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise RasterOpenError(
            "is not a raster that can be opened, or is damaged",
            path=file,
            measured=f"{size} bytes, read as {driver}",
            remedy="convert it with 'gdal_translate -of COG IN OUT.tif', or get the file again",
        ) from error


def _refuse_borrowed_overviews(file: Path, dataset: rasterio.DatasetReader) -> None:
    """Refuse a file whose metadata let GDAL read another file as its overview, unseen by the driver list."""
    places = [dataset.tags(ns="OVERVIEWS")] + [dataset.tags(i, ns="OVERVIEWS") for i in dataset.indexes[:1]]
    for tags in places:
        borrowed = next((value for key, value in tags.items() if key.upper().endswith("OVERVIEW_FILE")), None)
        if borrowed is not None:
            raise RasterOpenError(
                "takes its overviews from another file",
                path=file,
                measured=borrowed,
                remedy="rewrite it with 'gdal_translate -of COG IN OUT.tif'",
            )


def _describe(file: Path, dataset: rasterio.DatasetReader) -> RasterInfo:
    if dataset.count == 0:
        raise UnsupportedRasterError(
            "holds no band", path=file, remedy="name one of its subdatasets after converting it with gdal_translate"
        )
    height_px, width_px = dataset.block_shapes[0]
    _refuse_huge_blocks(file, dataset, height_px, width_px)
    determinant = dataset.transform.determinant
    georeferenced = not dataset.transform.is_identity and math.isfinite(determinant) and determinant != 0
    transform = dataset.transform if georeferenced else dataset.transform.identity()
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


def _refuse_huge_blocks(file: Path, dataset: rasterio.DatasetReader, height_px: int, width_px: int) -> None:
    interleaved = dataset.count if str(dataset.interleaving) == "Interleaving.pixel" else 1
    item = _sample_bytes(str(dataset.dtypes[0]))
    size = height_px * width_px * item * interleaved
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
    for index, rgba in table.items():
        colours[index] = rgba
    return colours
