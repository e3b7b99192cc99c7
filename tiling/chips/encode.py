"""One tile as the bytes of a file, in any of the formats, and the small files that tell pictures their place."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from tiling.errors import UsageError
from tiling.nodata import holds, off_nodata, to_type
from tiling.raster import gdal_env, quietly

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from tiling.chips.spec import Format
    from tiling.info import RasterInfo
    from tiling.plan import Pixels
    from tiling.raster import Raster

PICTURES = ("png", "jpg", "webp")
COMPANIONS = {"png": (".png.aux.xml", ".pgw"), "jpg": (".jpg.aux.xml", ".jgw"), "webp": (".webp.aux.xml",)}
"""Suffixes of GDAL's description of a picture and, where GDAL knows one, of its world file."""
_DRIVER: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {"zlevel": 6}),
    "jpg": ("JPEG", {"quality": 95}),
    "webp": ("WEBP", {"lossless": True}),
}
_BLOCK_PX = 256


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the files of all tiles of a raster have in common."""

    format: Format
    dtype: str
    count: int
    nodata: float | None = None
    colorinterp: tuple[str, ...] = ()
    has_alpha: bool = False
    palette: NDArray[np.uint8] | None = None
    """(N, 4) colours of a single band."""

    @property
    def needs_mask(self) -> bool:
        """Whether only a mask can say which pixels are not valid."""
        return self.nodata is None and not self.has_alpha and self.format in ("tif", "cog")


def plan_encoding(raster: Raster, pixels: Pixels, form: Format, dtype: str | None) -> Encoding:
    """Decide the type, the bands and the nodata value of a raster's tiles.

    Args:
        raster: The open raster.
        pixels: How its pixels are made.
        form: The format.
        dtype: The type asked for; None keeps the samples' own, or uint8 when they are stretched.

    Raises:
        UsageError: The format cannot hold such samples, or the type is none.
    """
    info = raster.info
    own = "uint8" if pixels.stretch is not None else info.dtype
    kind = own if dtype is None else _known(dtype)
    if pixels.stretch is not None and kind != "uint8":
        raise UsageError("a stretch makes uint8", measured=f"--dtype {kind}", remedy="leave --stretch or --dtype away")
    if form in PICTURES and kind not in (("uint8", "uint16") if form == "png" else ("uint8",)):
        raise UsageError(
            f"{form} cannot hold these samples",
            path=info.path,
            measured=kind,
            remedy="add --stretch auto, or use --format tif",
        )
    if form == "webp" and pixels.picture is None and len(pixels.indexes) != 3:
        raise UsageError(
            "webp holds three bands", path=info.path, measured=str(len(pixels.indexes)), remedy="use --format png"
        )
    if pixels.picture is not None:
        return Encoding(form, kind, 3, None, ("red", "green", "blue"))
    keeps_meaning = pixels.stretch is None
    has_alpha = keeps_meaning and info.alpha_band in pixels.indexes
    nodata = _common_nodata(info, pixels.indexes) if keeps_meaning else None
    if nodata is not None and not holds(np.dtype(kind), nodata):
        nodata = None
    return Encoding(
        form, kind, len(pixels.indexes), nodata,
        colorinterp=tuple(info.colorinterp[index - 1] for index in pixels.indexes),
        has_alpha=has_alpha,
        palette=raster.palette if keeps_meaning and pixels.indexes == (1,) and kind == "uint8" else None,
    )  # fmt: skip


def _known(dtype: str) -> str:
    from rasterio.dtypes import check_dtype

    if not check_dtype(dtype) or dtype.startswith("complex"):
        raise UsageError("is not a type of samples", measured=dtype, remedy="use uint8, uint16, int16, float32, …")
    return str(np.dtype(dtype))


def _common_nodata(info: RasterInfo, indexes: tuple[int, ...]) -> float | None:
    """Return the nodata value that tells the validity of bands; None when something else does.

    A file has one such value, so bands that differ in theirs need a mask.
    """
    if info.alpha_band is not None or info.has_mask:
        return None
    first, *others = (info.band_nodata[index - 1] for index in indexes)
    if first is None or any(
        other is None or not (other == first or (math.isnan(other) and math.isnan(first))) for other in others
    ):
        return None
    return first


def cast(array: NDArray[Any], encoding: Encoding, valid: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Return samples of the encoding's type; whole numbers are rounded and clipped.

    Args:
        array: (count, h, w).
        encoding: The format.
        valid: (h, w). Given when rounding, clipping or resampling may have made valid pixels look empty: those that
            are nodata in all bands then move to the value beside it, and those that are transparent to 1.
    """
    samples = to_type(array, np.dtype(encoding.dtype))
    if valid is None:
        return samples
    if encoding.nodata is not None:
        return off_nodata(samples, valid, encoding.nodata)
    if encoding.has_alpha:
        alpha = encoding.colorinterp.index("alpha")
        faint = valid & (samples[alpha] == 0)
        if faint.any():
            samples = samples.copy()
            samples[alpha, faint] = 1
    return samples


def blank(array: NDArray[Any], where: NDArray[np.bool_], encoding: Encoding) -> NDArray[Any]:
    """Return samples with nodata, or 0 without such a value, at some pixels."""
    fill = 0 if encoding.nodata is None else encoding.nodata
    return np.where(where, np.asarray(fill).astype(array.dtype), array)


def encode(
    array: NDArray[Any], valid: NDArray[np.bool_], transform: Affine, crs: CRS | None, encoding: Encoding
) -> bytes:
    """Return the bytes of one tile's file; the same samples give the same bytes.

    Args:
        array: (count, h, w) of the encoding's type.
        valid: (h, w); becomes an internal mask of a GeoTIFF when neither nodata nor transparency tells it.
        transform: From pixel to CRS coordinates.
        crs: The CRS, or None.
        encoding: The format.

    Raises:
        RasterioError, ValueError: The format cannot hold the samples.
    """
    if encoding.format == "npy":
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
        return stream.getvalue()
    with gdal_env():
        if encoding.format in PICTURES:
            driver, options = _DRIVER[encoding.format]
            return _written(array, None, {"driver": driver, **options}, encoding)
        plain = _written(array, valid, _geotiff(array, transform, crs, encoding), encoding)
        return plain if encoding.format == "tif" else _arranged(plain)


def _geotiff(array: NDArray[Any], transform: Affine, crs: CRS | None, encoding: Encoding) -> dict[str, Any]:
    _, height, width = array.shape
    predictor = 1 if encoding.palette is not None else 3 if encoding.dtype.startswith("float") else 2
    profile: dict[str, Any] = {"driver": "GTiff", "crs": crs, "transform": transform, "nodata": encoding.nodata}
    profile |= {"compress": "deflate", "zlevel": 1, "predictor": predictor, "interleave": "pixel"}
    if min(height, width) > _BLOCK_PX:
        profile |= {"tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX}
    if encoding.colorinterp[:3] == ("red", "green", "blue"):
        profile["photometric"] = "RGB"
    return profile


def _written(
    array: NDArray[Any], valid: NDArray[np.bool_] | None, profile: dict[str, Any], encoding: Encoding
) -> bytes:
    count, height, width = array.shape
    profile = {"dtype": encoding.dtype, "count": count, "height": height, "width": width, **profile}
    with MemoryFile(ext=f".{encoding.format}") as memory:
        with quietly():
            out = memory.open(**profile)
        with out:
            if profile["driver"] == "GTiff":
                # Before the first pixel, for the meaning of bands belongs to the header that is then laid down.
                _annotate(out, encoding)
            out.write(array)
            if valid is not None and encoding.needs_mask and not valid.all():
                out.write_mask(valid)
        return bytes(memory.getbuffer())


def _annotate(out: Any, encoding: Encoding) -> None:  # noqa: ANN401 - rasterio's writer has no public type
    if encoding.palette is not None:
        out.write_colormap(1, {index: tuple(map(int, rgba)) for index, rgba in enumerate(encoding.palette)})
    elif encoding.colorinterp:
        out.colorinterp = [ColorInterp[name] for name in encoding.colorinterp]


def _arranged(plain: bytes) -> bytes:
    """Return a GeoTIFF as a Cloud Optimized GeoTIFF."""
    with MemoryFile(plain, ext=".tif") as source, MemoryFile(ext=".tif") as target:
        rasterio.shutil.copy(source.name, target.name, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES")
        return bytes(target.getbuffer())


def companions(encoding: Encoding, transform: Affine, crs: CRS | None) -> dict[str, str]:
    """Return suffix and text of the files that tell a picture its place: GDAL's ``.aux.xml`` and a world file."""
    suffixes = COMPANIONS.get(encoding.format, ())
    if not suffixes or (crs is None and transform.is_identity):
        return {}
    root = ET.Element("PAMDataset")
    if crs is not None:
        ET.SubElement(root, "SRS").text = crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, transform.to_gdal()))
    centre = transform * (0.5, 0.5)
    world = (transform.a, transform.d, transform.b, transform.e, *centre)
    texts = (ET.tostring(root, encoding="unicode") + "\n", "".join(f"{number!r}\n" for number in world))
    return dict(zip(suffixes, texts, strict=False))
