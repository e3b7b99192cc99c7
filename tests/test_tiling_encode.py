"""Samples keep their values through every change of type, and valid pixels stay valid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from tiling import open_raster
from tiling.chips.encode import Encoding, blank, cast, encode, plan_encoding
from tiling.nodata import beside, holds, to_type
from tiling.plan import Pixels, tiles
from tiling.raster import OpenPolicy

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")


def by_python(value, dtype):
    """The value of a type that Python's own integers give."""
    limits = np.iinfo(dtype)
    if isinstance(value, float):
        value = 0 if math.isnan(value) else limits.max if value == math.inf else value
        value = limits.min if value == -math.inf else round(value)
    return min(max(value, limits.min), limits.max)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(INTEGERS + FLOATS), st.sampled_from(INTEGERS))
def test_casting_is_pythons_rounding_and_clipping(data, source, target):
    values = data.draw(hnp.arrays(source, 8, elements=hnp.from_dtype(np.dtype(source))))
    found = cast(values.reshape(1, 2, 4), Encoding("tif", target, 1))
    assert found.dtype == target
    assert found.ravel().tolist() == [by_python(value, target) for value in values.tolist()]


@pytest.mark.parametrize(
    ("value", "source", "target", "wanted"),
    [
        (3e9, "float32", "int32", 2**31 - 1), (1e30, "float32", "uint32", 2**32 - 1),
        (1e30, "float64", "uint64", 2**64 - 1), (1e30, "float32", "int64", 2**63 - 1),
        (-1e30, "float64", "int64", -(2**63)), (2**63 - 1, "int64", "uint64", 2**63 - 1),
        (2**63 + 1, "uint64", "int64", 2**63 - 1), (2**53 + 1, "int64", "uint64", 2**53 + 1),
        (2.0**63, "float64", "uint64", 2**63), (255.5, "float32", "uint8", 255),
    ],
)  # fmt: skip
def test_limits_are_exact(value, source, target, wanted):
    found = to_type(np.array([value], source), np.dtype(target))
    assert found.tolist() == [wanted]


def test_floats_too_large_for_a_type_stay_finite():
    found = to_type(np.array([1e300, -1e300, np.nan, 0.1]), np.dtype("float32"))
    np.testing.assert_array_equal(found, np.array([3.4028235e38, -3.4028235e38, np.nan, 0.1], "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [0.0, 1.0, -9999.0, 255.0, -1e38, 1e-30])
def test_the_value_beside_nodata_is_valid_for_gdal(dtype, nodata):
    near = np.array([[[nodata, np.nextafter(np.dtype(dtype).type(nodata), np.dtype(dtype).type(2)), nodata]]], dtype)
    encoding = Encoding("tif", dtype, 1, nodata)
    array = cast(near, encoding, np.array([[True, True, False]]))
    with MemoryFile() as memory:
        profile = {"driver": "GTiff", "dtype": dtype, "nodata": nodata, "count": 1, "width": 3, "height": 1}
        with memory.open(**profile) as out:
            out.write(array)
        with memory.open() as found:
            assert found.read_masks(1).tolist() == [[255, 255, 0]]
    np.testing.assert_allclose(array[0, 0, :2], nodata, rtol=2e-6, atol=1e-40)


@given(st.sampled_from(INTEGERS), st.data())
def test_the_integer_beside_is_one_step_away(dtype, data):
    value = data.draw(hnp.from_dtype(np.dtype(dtype))).item()
    assert abs(beside(value, np.dtype(dtype)) - value) == 1
    assert holds(np.dtype(dtype), beside(value, np.dtype(dtype)))


def written(path, dtype=None, indexes=None, form="tif", **options):
    """The validity of the only tile of a raster: as the raster has it, and as the tile's file has it."""
    with open_raster(path, policy=OpenPolicy(allow_vrt=True)) as raster:
        made = tiles(raster, "16px", bands=indexes, **options)
        tile = next(iter(made))
        encoding = plan_encoding(raster, Pixels(indexes or tuple(range(1, raster.info.count + 1))), form, dtype)
        array = blank(cast(tile.array, encoding, tile.valid), ~tile.valid, encoding)
        data = encode(array, tile.valid, tile.transform, tile.crs, encoding)
    out = path.with_name(f"tile.{form}")
    out.write_bytes(data)
    with open_raster(out) as raster:
        again = next(iter(tiles(raster, "16px")))
    with rasterio.open(out) as dataset:
        return tile.valid, again.valid, dataset.dataset_mask() > 0, encoding, again.array


@pytest.mark.parametrize(
    ("value", "source", "nodata", "dtype", "wanted"),
    [(0.3, "float32", 0, "uint8", 1), (5000, "uint16", 255, "uint8", 254), (-0.2, "float64", 0, "int16", 1)],
)
def test_valid_samples_that_become_nodata_move_beside_it(make_raster, value, source, nodata, dtype, wanted):
    array = np.full((1, 16, 16), value, source)
    array[0, :4] = nodata
    valid, again, by_gdal, encoding, found = written(make_raster(array, nodata=nodata), dtype)
    assert encoding.nodata == nodata
    np.testing.assert_array_equal(again, valid)
    np.testing.assert_array_equal(by_gdal, valid)
    assert (found[0, 4:] == wanted).all()
    assert not valid[:4].any()


def test_means_that_hit_nodata_stay_valid(make_raster):
    array = np.zeros((1, 32, 32), "uint8")
    array[:, :, 1::2] = 2
    for dtype in ("uint8", "float32", None):
        valid, again, by_gdal, _, _ = written(make_raster(array, nodata=1), dtype, gsd_m=1)
        assert valid.all() and again.all() and by_gdal.all()


def test_faint_pixels_do_not_become_transparent(make_raster):
    array = np.full((2, 16, 16), 0.2, "float32")
    array[1, :2] = 0
    path = make_raster(array)
    with rasterio.open(path, "r+") as out:
        out.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
    valid, again, _, encoding, _ = written(path, "uint8")
    assert encoding.has_alpha
    np.testing.assert_array_equal(again, valid)
    assert not valid[:2].any() and valid[2:].all()


def test_transparency_and_nodata_are_not_mixed(make_raster):
    """A file that has both tells validity by the one that outranks; the other would call its pixels empty."""
    array = np.full((2, 16, 16), 255, "uint8")
    array[1, :2] = 0
    path = make_raster(array, nodata=255)
    with rasterio.open(path, "r+") as out:
        out.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
    for indexes in (None, (1,)):
        valid, again, by_gdal, encoding, _ = written(path, indexes=indexes)
        assert encoding.nodata is None
        np.testing.assert_array_equal(again, valid)
        np.testing.assert_array_equal(by_gdal, valid)
        assert not valid[:2].any() and valid[2:].all()


@pytest.fixture
def two_nodata(make_raster):
    """A VRT of two bands whose nodata values are 1 and 2."""
    array = np.full((2, 16, 16), 7, "uint8")
    array[0, :8], array[1, 4:12], array[0, 15], array[1, 14] = 1, 2, 2, 1
    source = make_raster(array)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>{band}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename><SourceBand>{band}</SourceBand>'
        f"</SimpleSource></VRTRasterBand>"
        for band in (1, 2)
    )
    path = source.with_suffix(".vrt")
    place = "<GeoTransform>500000, 0.5, 0, 5800000, 0, -0.5</GeoTransform><SRS>EPSG:32631</SRS>"
    path.write_text(f'<VRTDataset rasterXSize="16" rasterYSize="16">{place}{bands}</VRTDataset>')
    return path


def test_each_bands_own_nodata(two_nodata):
    for indexes, nodata in (((1,), 1), ((2,), 2), ((1, 2), None), ((2, 1), None)):
        valid, again, by_gdal, encoding, _ = written(two_nodata, indexes=indexes)
        assert encoding.nodata == nodata
        assert encoding.needs_mask == (nodata is None)
        np.testing.assert_array_equal(again, valid)
        np.testing.assert_array_equal(by_gdal, valid)
        assert 0 < valid.mean() < 1


def test_nodata_that_the_type_cannot_hold_becomes_a_mask(make_raster):
    lowest = -1.7976931348623157e308
    array = np.full((1, 16, 16), 5.0)
    array[0, :3] = lowest
    path = make_raster(array, nodata=lowest)
    for dtype in ("float32", "int16"):
        valid, again, by_gdal, encoding, _ = written(path, dtype)
        assert encoding.needs_mask
        np.testing.assert_array_equal(again, valid)
        np.testing.assert_array_equal(by_gdal, valid)
    with rasterio.open(path, "r+") as out:
        out.build_overviews([2], Resampling.nearest)
    assert written(path)[3].nodata == lowest
