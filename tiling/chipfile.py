"""One tile as a file: encoded in memory, then written whole under a temporary name and renamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from tiling.errors import OutputWriteError
from tiling.files import atomic_file, write_error
from tiling.raster import gdal_env, quietly

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError

SUFFIXES = ("tif", "png")
_BLOCK_PX = 256


@dataclass(frozen=True, slots=True)
class ChipFormat:
    """What all tiles of a raster have in common."""

    suffix: str
    dtype: str
    count: int
    nodata: float | None
    colorinterp: tuple[str, ...]
    has_alpha: bool
    palette: NDArray[np.uint8] | None = None

    @property
    def needs_mask(self) -> bool:
        """Whether only a mask can say which pixels are not valid."""
        return self.nodata is None and not self.has_alpha and self.suffix == "tif"


def encode_chip(
    array: NDArray[Any], valid: NDArray[np.bool_], transform: Affine, crs: CRS | None, chip: ChipFormat
) -> bytes:
    """Return the bytes of a GeoTIFF or PNG.

    Args:
        array: (count, h, w) of the format's type.
        valid: (h, w); becomes an internal mask when neither nodata nor transparency tells it.
        transform: From pixel to CRS coordinates.
        crs: The CRS, or None.
        chip: The format.
    """
    count, height, width = array.shape
    profile: dict[str, Any] = {"dtype": chip.dtype, "count": count, "height": height, "width": width}
    if chip.suffix == "png":
        profile["driver"] = "PNG"
    else:
        profile |= {"driver": "GTiff", "crs": crs, "transform": transform, "nodata": chip.nodata}
        profile |= {"compress": "deflate", "zlevel": 1, "interleave": "pixel"}
        profile["predictor"] = 3 if chip.dtype.startswith("float") else 2
        if min(height, width) > _BLOCK_PX:
            profile |= {"tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX}
        if chip.palette is not None or "int8" in chip.dtype:
            profile["predictor"] = 1 if chip.palette is not None else 2
        if chip.colorinterp[:3] == ("red", "green", "blue"):
            profile["photometric"] = "RGB"
    with gdal_env(), MemoryFile(ext=f".{chip.suffix}") as memory:
        with quietly():
            out = memory.open(**profile)
        with out:
            if chip.suffix == "tif":
                # Before the first pixel, for the meaning of bands belongs to the header that is then laid down.
                _annotate(out, chip)
            out.write(array)
            if chip.needs_mask and not valid.all():
                out.write_mask(valid)
        return bytes(memory.getbuffer())


def _annotate(out: Any, chip: ChipFormat) -> None:  # noqa: ANN401 - rasterio's writer has no public type
    if chip.palette is not None:
        out.write_colormap(1, {index: tuple(map(int, rgba)) for index, rgba in enumerate(chip.palette)})
    elif chip.colorinterp:
        out.colorinterp = [ColorInterp[name] for name in chip.colorinterp]


def write_chip(target: Path, data: bytes, transform: Affine, *, overwrite: bool) -> None:
    """Write an encoded tile; a PNG gets a world file beside it.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        OutputWriteError: The disk is full or refuses.
    """
    try:
        if target.suffix == ".png":
            centre = transform * (0.5, 0.5)
            numbers = (transform.a, transform.d, transform.b, transform.e, *centre)
            with atomic_file(target.with_suffix(".pgw"), overwrite=True) as world:
                world.write_text("".join(f"{number!r}\n" for number in numbers), encoding="ascii")
        with atomic_file(target, overwrite=overwrite) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise write_error(target, error) from error


def encoding_error(target: Path, error: RasterioError | ValueError) -> OutputWriteError:
    """Return the one-line error for samples that a format cannot hold."""
    reason = " ".join(str(error).split())[:120]
    return OutputWriteError("cannot be encoded", path=target, measured=reason, remedy="use --format tif")
