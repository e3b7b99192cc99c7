"""Virtual rasters that we write ourselves, as text that GDAL opens without a file: several files seen as one.

They are the one kind of virtual raster that needs no permission, because each file in them has been opened by
``open_raster`` before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
from rasterio.dtypes import dtype_rev, typename_fwd

from tiling.grid import Window
from tiling.raster import open_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import rasterio
    from rasterio.crs import CRS

    from tiling.info import BlockShape, RasterInfo
    from tiling.raster import Raster

_ALPHA_TYPES = ("uint8", "uint16")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file, and where it lies in the virtual raster."""

    path: Path
    width_px: int
    """The file's own size."""
    height_px: int
    block_px: BlockShape
    place: Window
    """What it covers of the virtual raster."""
    masked: bool
    """Whether a mask or a transparency band hides some of its pixels."""
    overview_level: int | None = None
    """Position of the overview to read in place of the file's full resolution."""


def virtual_raster(
    info: RasterInfo, layers: Sequence[Layer], *, width_px: int, height_px: int, overviews: Sequence[int] = ()
) -> str:
    """Write a virtual raster as GDAL's VRT format.

    A pixel that a layer holds to be missing, by its mask, transparency or nodata, shows the layer below. Pixels are
    never blended or moved by less than one.

    Args:
        info: What all layers have in common: bands, type, CRS, what tells missing pixels; and the transform.
        layers: The topmost first.
        width_px: Columns of the whole.
        height_px: Rows of the whole.
        overviews: Reduction factors that every layer has.

    Returns:
        The XML text. Pixels under no layer are not valid: nodata, transparent or masked.
    """
    root = ET.Element("VRTDataset", rasterXSize=str(width_px), rasterYSize=str(height_px))
    if info.crs is not None:
        _add(root, "SRS", info.crs.to_wkt(), dataAxisToSRSAxisMapping="1,2")
    if info.is_georeferenced:
        _add(root, "GeoTransform", ", ".join(repr(float(value)) for value in info.transform.to_gdal()))
    for band, meaning in enumerate(info.colorinterp, 1):
        element = _band(root, info.dtype, band=str(band))
        _add(element, "ColorInterp", meaning.capitalize())
        nodata = info.band_nodata[band - 1] if info.validity == "nodata" else None
        if nodata is not None:
            _add(element, "NoDataValue", repr(nodata))
        if band == info.alpha_band:
            nodata = 0.0
        for layer in reversed(layers):
            masked = layer.masked and band != info.alpha_band and len(layers) > 1
            _source(element, layer, info.dtype, str(band), nodata=nodata, masked=masked)
    if info.validity == "mask":
        element = _band(_add(root, "MaskBand"), "uint8")
        for layer in reversed(layers):
            _source(element, layer, info.dtype, "mask,1", nodata=0.0 if layer.masked else None)
    if overviews:
        _add(root, "OverviewList", " ".join(map(str, overviews)), resampling="nearest")
    return ET.tostring(root, encoding="unicode")


def open_bare(raster: Raster, overview: int) -> rasterio.DatasetReader:
    """Open a handle in which nothing but what ranks highest tells missing pixels.

    GDAL's warper heeds a nodata value even where a mask or a transparency band says that the pixel is valid.
    """
    info = raster.info
    dataset = raster.open_level(overview)
    if info.validity not in ("mask", "alpha") or all(value is None for value in info.band_nodata):
        return dataset
    with dataset:
        width, height = dataset.width, dataset.height
    level = None if overview == 1 else info.overviews.index(overview)
    layer = Layer(
        info.path, width, height, info.block_px, Window(0, 0, width, height), masked=True, overview_level=level
    )
    text = virtual_raster(info, [layer], width_px=width, height_px=height)
    return open_dataset(info.path, "VRT", text=text)


def same_crs(one: CRS | None, other: CRS | None) -> bool:
    """Say whether two CRSs put coordinates at the same place, whatever their names and the order of their axes."""
    import pyproj

    if one is None or other is None or one == other:
        return one == other
    first, second = (pyproj.CRS.from_wkt(crs.to_wkt()) for crs in (one, other))
    return bool(first.equals(second, ignore_axis_order=True))


def with_nan(info: RasterInfo) -> RasterInfo:
    """Make NaN the nodata value of floating point samples that have no other mark of missing pixels."""
    if info.validity != "none" or not np.issubdtype(info.dtype, np.floating):
        return info
    return replace(info, nodata=math.nan, band_nodata=(math.nan,) * info.count)


def mask_is_known(info: RasterInfo) -> bool:
    """Say whether GDAL uses a raster's transparency band as the mask of its other bands."""
    return info.alpha_band == info.count and info.count in (2, 4) and info.dtype in _ALPHA_TYPES


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _band(parent: ET.Element, dtype: str, **attributes: str) -> ET.Element:
    return _add(parent, "VRTRasterBand", dataType=typename_fwd[dtype_rev[dtype]], **attributes)


def _source(
    parent: ET.Element, layer: Layer, dtype: str, band: str, *, nodata: float | None = None, masked: bool = False
) -> None:
    source = _add(parent, "SimpleSource" if nodata is None and not masked else "ComplexSource")
    _add(source, "SourceFilename", str(layer.path), relativeToVRT="0", shared="0")
    if layer.overview_level is not None:
        _add(_add(source, "OpenOptions"), "OOI", str(layer.overview_level), key="OVERVIEW_LEVEL")
    _add(source, "SourceBand", band)
    # With these GDAL need not open a file before its pixels are wanted.
    _add(
        source,
        "SourceProperties",
        RasterXSize=str(layer.width_px),
        RasterYSize=str(layer.height_px),
        DataType="Byte" if band.startswith("mask") else typename_fwd[dtype_rev[dtype]],
        BlockXSize=str(layer.block_px.width_px),
        BlockYSize=str(layer.block_px.height_px),
    )
    _add(source, "SrcRect", **_rect(Window(0, 0, layer.width_px, layer.height_px)))
    _add(source, "DstRect", **_rect(layer.place))
    if masked:
        _add(source, "UseMaskBand", "true")
    elif nodata is not None:
        _add(source, "NODATA", "nan" if math.isnan(nodata) else repr(nodata))


def _rect(window: Window) -> dict[str, str]:
    names = {"xOff": window.col_off_px, "yOff": window.row_off_px, "xSize": window.width_px, "ySize": window.height_px}
    return {name: str(value) for name, value in names.items()}
