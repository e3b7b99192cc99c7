"""Makes rasters and answers in the engine's schema with GDAL, for tests that need no engine."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
from osgeo import gdal, ogr, osr

if TYPE_CHECKING:
    from pathlib import Path

gdal.UseExceptions()
ogr.UseExceptions()

RUNGS = tuple(range(10, 100, 5))
FIELDS = (
    ("query", ogr.OFTString), ("score", ogr.OFTReal), ("rank", ogr.OFTInteger), ("area_m2", ogr.OFTReal),
    ("gsd_m", ogr.OFTReal), ("model", ogr.OFTString), ("min_match", ogr.OFTInteger),
)  # fmt: skip


def crs_of(code: int | str | None) -> osr.SpatialReference | None:
    if code is None:
        return None
    reference = osr.SpatialReference()
    reference.SetFromUserInput(code if isinstance(code, str) else f"EPSG:{code}")
    reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return reference


def write_raster(
    path: Path | str,
    array: np.ndarray,
    *,
    origin: tuple[float, float] = (127_500.0, 428_100.0),
    pixel: float = 1.0,
    epsg: int | str | None = 28992,
    driver: str = "GTiff",
    geotransform: tuple[float, ...] | None = None,
    placed: bool = True,
) -> str:
    bands = array[None] if array.ndim == 2 else array
    kind = {np.dtype("u1"): gdal.GDT_Byte, np.dtype("u2"): gdal.GDT_UInt16, np.dtype("f4"): gdal.GDT_Float32}
    count, height, width = bands.shape
    dataset = gdal.GetDriverByName(driver).Create(str(path), width, height, count, kind[bands.dtype])
    if placed:
        dataset.SetGeoTransform(geotransform or (origin[0], pixel, 0, origin[1], 0, -pixel))
    reference = crs_of(epsg)
    if reference is not None:
        dataset.SetProjection(reference.ExportToWkt())
    for index, band in enumerate(bands, start=1):
        dataset.GetRasterBand(index).WriteArray(band)
        if band.dtype == np.float32:
            dataset.GetRasterBand(index).SetNoDataValue(float("nan"))
    dataset = None
    return str(path)


def heat(size: int = 250) -> np.ndarray:
    rows, cols = np.mgrid[0:size, 0:size] / size
    value = np.zeros((size, size), np.float32)
    for x, y, peak in ((0.3, 0.3, 0.98), (0.7, 0.6, 0.8), (0.2, 0.8, 0.6)):
        value = np.maximum(value, peak * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / 0.012))
    return value.astype(np.float32)


def write_answer(
    folder: Path, stem: str, *, per_rung: int = 12, heat_px: int = 250, query: str = "trees", seed: int = 1,
    origin: tuple[float, float] = (127_500.0, 428_100.0), extent: float = 100.0, epsg: int = 28992,
    precision: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Write `<stem>.tif` and `<stem>.gpkg`: `per_rung` regions at 10 % and one fewer at each rung above.

    With ``precision`` they have that column, as of a calibrated model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heatmap = write_raster(folder / f"{stem}.tif", heat(heat_px), origin=origin, pixel=extent / heat_px, epsg=epsg)
    regions = folder / f"{stem}.gpkg"
    dataset = ogr.GetDriverByName("GPKG").CreateDataSource(str(regions))
    for table in ("boxes", "polygons"):
        layer = dataset.CreateLayer(table, crs_of(epsg), ogr.wkbPolygon)
        for name, kind in (*FIELDS, ("precision", ogr.OFTReal))[: None if precision else -1]:
            layer.CreateField(ogr.FieldDefn(name, kind))
        layer.StartTransaction()
        numbers = random.Random(seed)
        for step, rung in enumerate(RUNGS):
            for rank in range(1, max(per_rung - step, 0) + 1):
                _add(layer, numbers, (query, rung, rank, per_rung), origin, extent)
        layer.CommitTransaction()
    dataset = None
    return {"heatmap": heatmap, "regions": str(regions)}


def _add(layer, numbers, row, origin, extent) -> None:
    query, rung, rank, per_rung = row
    side = extent * numbers.uniform(0.03, 0.08)
    x = origin[0] + numbers.uniform(0, extent - side)
    y = origin[1] - numbers.uniform(side, extent)
    feature = ogr.Feature(layer.GetLayerDefn())
    score = max(rung / 100, 0.99 - 0.5 * rank / per_rung)
    for name, value in zip(
        (name for name, _ in FIELDS), (query, score, rank, side * side, 0.4, "clip", rung), strict=True
    ):
        feature.SetField(name, value)
    if feature.GetFieldIndex("precision") >= 0:
        feature.SetField("precision", score / 2)
    ring = f"{x} {y},{x + side} {y},{x + side} {y + side},{x} {y + side},{x} {y}"
    feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON(({ring}))"))
    layer.CreateFeature(feature)
