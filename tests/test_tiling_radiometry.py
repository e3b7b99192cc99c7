"""Bands are chosen by their meaning and stretched once for the whole raster."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.enums import ColorInterp

from tiling import (
    BandError,
    Stretch,
    StretchError,
    UnsupportedRasterError,
    UsageError,
    Window,
    choose_bands,
    open_raster,
    pixel_canvas,
    plan_stretch,
    read_windows,
)


def with_interp(path, names):
    with rasterio.open(path, "r+") as out:
        out.colorinterp = [ColorInterp[name] for name in names]
    return path


@pytest.mark.parametrize(
    ("count", "names", "indexes", "grey", "noted"),
    [
        (1, None, (1,), True, False),
        (2, None, (1,), True, True),
        (2, ("gray", "alpha"), (1,), True, False),
        (3, ("red", "green", "blue"), (1, 2, 3), False, False),
        (3, ("blue", "green", "red"), (3, 2, 1), False, False),
        (4, ("red", "green", "blue", "alpha"), (1, 2, 3), False, False),
        (4, ("alpha", "red", "green", "blue"), (2, 3, 4), False, False),
        (4, None, (1, 2, 3), False, True),
        (8, None, (1, 2, 3), False, True),
    ],
)
def test_bands_by_meaning(make_raster, count, names, indexes, grey, noted):
    path = make_raster(np.ones((count, 4, 4), "uint8"), photometric="MINISBLACK")
    if names:
        with_interp(path, names)
    with open_raster(path) as raster:
        choice = choose_bands(raster.info)
    assert choice.indexes == indexes
    assert choice.grey == grey
    assert bool(choice.note) == noted


def test_bands_by_number(make_raster):
    with open_raster(make_raster(np.ones((4, 4, 4), "uint8"))) as raster:
        assert choose_bands(raster.info, "4,1,2").indexes == (4, 1, 2)
        assert choose_bands(raster.info, "4").grey
        for spec, reason in (("5", "5 of 4 bands"), ("0", "from 1"), ("a", "numbers"), ("1,2", "one or three")):
            with pytest.raises((BandError, UsageError), match=reason):
                choose_bands(raster.info, spec)


def test_inks_and_complex_numbers_are_refused(make_raster):
    path = make_raster(np.ones((4, 4, 4), "uint16"), photometric="CMYK")
    with open_raster(path) as raster, pytest.raises(BandError, match="CMYK"):
        choose_bands(raster.info)
    path = make_raster(np.ones((1, 4, 4), "complex64"), "c.tif")
    with open_raster(path) as raster, pytest.raises(UnsupportedRasterError, match="complex"):
        choose_bands(raster.info)


def test_palettes_become_colours(make_raster):
    array = np.arange(16, dtype="uint8").reshape(1, 4, 4) % 3
    path = make_raster(array, photometric="PALETTE", nodata=None)
    colours = {0: (255, 0, 0, 255), 1: (0, 255, 0, 255), 2: (9, 8, 7, 255)}
    with rasterio.open(path, "r+") as out:
        out.write_colormap(1, colours)
    with open_raster(path) as raster:
        bands = choose_bands(raster.info)
        assert bands.palette
        stretch = plan_stretch(raster, bands)
        tile = next(read_windows(raster, pixel_canvas(raster.info), [Window(0, 0, 4, 4)], bands=bands, stretch=stretch))
    expected = np.array([colours[value][:3] for value in array.ravel()], "uint8").reshape(4, 4, 3)
    np.testing.assert_array_equal(tile.array.transpose(1, 2, 0), expected)


def test_bytes_stay_and_other_types_are_stretched(make_raster):
    rng = np.random.default_rng(0)
    for dtype, kind in (
        ("uint8", "none"),
        ("uint16", "percentile"),
        ("float32", "percentile"),
        ("int16", "percentile"),
    ):
        array = rng.integers(0, 100, (3, 64, 64)).astype(dtype)
        with open_raster(make_raster(array, f"{dtype}.tif")) as raster:
            bands = choose_bands(raster.info)
            stretch = plan_stretch(raster, bands)
            assert stretch.kind == kind
            if kind == "percentile":
                np.testing.assert_allclose(stretch.low, np.percentile(array.reshape(3, -1), 2, axis=1), atol=1e-6)
                np.testing.assert_allclose(stretch.high, np.percentile(array.reshape(3, -1), 98, axis=1), atol=1e-6)


def test_few_bits_fill_the_range(make_raster):
    with open_raster(make_raster(np.full((1, 8, 8), 3, "uint8"), nbits=2)) as raster:
        stretch = plan_stretch(raster, choose_bands(raster.info))
    assert (stretch.kind, stretch.high) == ("bits", (3.0,))


def test_nodata_and_nan_do_not_count(make_raster):
    array = np.full((1, 100, 100), 50, "float32")
    array[0, :50] = -9999
    array[0, 50:60] = np.nan
    array[0, 60:80] = 150
    with open_raster(make_raster(array, nodata=-9999)) as raster:
        stretch = plan_stretch(raster, choose_bands(raster.info), "min-max")
    assert (stretch.low, stretch.high) == ((50.0,), (150.0,))


def test_specs(make_raster, tmp_path):
    stored = tmp_path / "stretch.json"
    with open_raster(make_raster(np.arange(100, dtype="uint16").reshape(1, 10, 10))) as raster:
        bands = choose_bands(raster.info)
        assert plan_stretch(raster, bands, "10,20") == Stretch("fixed", (10.0,), (20.0,))
        assert plan_stretch(raster, bands, "none") == Stretch("none")
        wanted = plan_stretch(raster, bands, "p10-90")
        stored.write_text(json.dumps(wanted.to_dict()))
        assert plan_stretch(raster, bands, str(stored)) == wanted
        stored.write_text("{]")
        for wrong in ("20,10", "p90-10", "p0-101", "nonsense", str(stored), "nan,1"):
            with pytest.raises(StretchError):
                plan_stretch(raster, bands, wrong)


def test_no_valid_pixel_is_told(make_raster):
    path = make_raster(np.zeros((3, 50, 50), "uint16"), nodata=0)
    with open_raster(path) as raster, pytest.raises(UnsupportedRasterError, match="no valid pixel"):
        plan_stretch(raster, choose_bands(raster.info))


NUMBERS = st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"])


@settings(max_examples=200, deadline=None)
@given(NUMBERS.flatmap(lambda dtype: hnp.arrays(dtype, (3, 4, 5))), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_any_numbers_give_a_picture(array, low, span):
    stretch = Stretch("fixed", (low,), (low + span,))
    with np.errstate(all="ignore"):
        image = stretch.apply(array)
        plain = Stretch("none").apply(array)
    assert image.dtype == plain.dtype == np.uint8
    assert image.shape == plain.shape == (3, 4, 5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=20), st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
def test_a_stretch_keeps_the_order(values, low, span):
    array = np.sort(np.array(values)).reshape(1, 1, -1)
    image = Stretch("fixed", (low,), (low + span,)).apply(array)
    assert (np.diff(image[0, 0].astype(int)) >= 0).all()


def test_a_constant_image_does_not_divide_by_zero():
    with np.errstate(all="raise"):
        assert (Stretch("percentile", (5.0,), (5.0,)).apply(np.full((1, 3, 3), 5, "uint16")) == 127).all()


def test_invalid_pixels_are_black():
    valid = np.array([[True, False]])
    assert Stretch("none").apply(np.full((1, 1, 2), 9, "uint8"), valid).tolist() == [[[9, 0]]] * 3


def test_a_stretch_survives_json():
    stretch = Stretch("percentile", (0.1, 2.0, 3.0), (10.0, 20.5, 1e9))
    assert Stretch.from_dict(json.loads(json.dumps(stretch.to_dict()))) == stretch
    for wrong in ({}, {"kind": "fixed", "low": [1], "high": []}, {"kind": "x", "low": [float("nan")], "high": [1.0]}):
        with pytest.raises(StretchError):
            Stretch.from_dict(wrong)
