"""From cosines to regions: the score's definition, seam-free interpolation, block-independent regions."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS
from scipy import ndimage

from geoalign_core.errors import QueryError
from geoalign_core.grounding.heatmap import Heatmap, resample
from geoalign_core.grounding.regions import find_regions
from geoalign_core.grounding.relevance import log_odds, score
from geoalign_core.grounding.text import clean_query
from geoalign_core.outputs import slugs

UTM = CRS.from_epsg(32631)


def heat(values, *, res=2.0, crs=UTM, transform=None):
    transform = transform or Affine(res, 0, 500000, 0, -res, 5800000)
    return Heatmap(np.asarray(values, np.float32), transform, crs, res)


def test_score_is_the_softmax_share_of_the_query():
    cosines = np.array([0.30, 0.25, 0.10, 0.20], np.float32).reshape(4, 1, 1)
    competes = np.array([[True, True, True]])
    got = score(log_odds(cosines, competes, 40.0))[0, 0, 0]
    weights = np.exp(40.0 * cosines.ravel().astype(np.float64))
    assert got == pytest.approx(weights[0] / weights.sum(), rel=1e-5)


def test_half_means_as_good_as_all_generic_prompts_together():
    cosines = np.full((2, 1, 1), 0.2, np.float32)
    assert score(log_odds(cosines, np.array([[True]]), 100.0))[0, 0, 0] == pytest.approx(0.5)


def test_prompts_that_do_not_compete_do_not_count():
    cosines = np.array([0.2, 0.9, 0.1], np.float32).reshape(3, 1, 1)
    with_rival = score(log_odds(cosines, np.array([[True, True]]), 30.0))
    without = score(log_odds(cosines, np.array([[False, True]]), 30.0))
    assert with_rival[0, 0, 0] < 0.01
    assert without[0, 0, 0] > 0.9


@settings(max_examples=60, deadline=None)
@given(
    value=st.floats(-5, 5, width=32),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factor=st.integers(1, 6),
    holes=st.integers(0, 2**32 - 1),
)
def test_interpolating_a_constant_gives_it_back_to_the_outermost_pixel(value, shape, factor, holes):
    values = np.full((1, *shape), value, np.float32)
    mask = np.random.default_rng(holes).random(shape) < 0.3
    values[0][mask] = np.nan
    rows = (np.arange(shape[0] * factor) + 0.5) / factor - 0.5
    cols = (np.arange(shape[1] * factor) + 0.5) / factor - 0.5
    fine = resample(values, rows, cols)[0]
    inside = np.kron(~mask, np.ones((factor, factor), bool))
    assert np.isfinite(fine[inside]).all()
    assert np.abs(fine[inside] - value).max(initial=0) <= 1e-6 * max(1, abs(value))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (1, 6, 7), elements=st.floats(-1, 1, width=32)))
def test_interpolation_agrees_with_scipy(values):
    rows, cols = np.linspace(0, 5, 17), np.linspace(0, 6, 13)
    grid = np.meshgrid(rows, cols, indexing="ij")
    expected = ndimage.map_coordinates(values[0].astype(np.float64), grid, order=1)
    np.testing.assert_allclose(resample(values, rows, cols)[0], expected, atol=2e-6)


def test_regions_have_score_box_and_true_area():
    values = np.zeros((40, 60), np.float32)
    values[5:15, 10:30] = 0.8
    values[30:32, 50:52] = 0.9
    small, large = find_regions(heat(values), 0.5)
    assert small.score == pytest.approx(0.9, abs=1e-6)
    assert large.score == pytest.approx(0.8, abs=1e-6)
    assert large.area_m2 == pytest.approx(20 * 10 * 4, rel=2e-3)
    assert large.box.bounds == (500020, 5800000 - 30, 500060, 5800000 - 10)
    assert find_regions(heat(values), 0.5, min_area_m2=100)[0].area_m2 > 700
    assert len(find_regions(heat(values), 0.5, top=1)) == 1
    assert find_regions(heat(values), 0.95) == []


@pytest.mark.parametrize("epsg", [4326, 3857])
def test_area_is_true_ground_area(epsg):
    """A region of about 100 m × 100 m at 52° north, whatever the CRS calls it."""
    values = np.full((10, 10), 0.9, np.float32)
    if epsg == 4326:
        height = 100 / 111_267 / 10
        transform = Affine(height / np.cos(np.radians(52)), 0, 5.0, 0, -height, 52.0)
    else:
        step = 10 / np.cos(np.radians(52))
        transform = Affine(step, 0, 556597.0, 0, -step, 6800125.0)
    (region,) = find_regions(heat(values, crs=CRS.from_epsg(epsg), transform=transform), 0.5)
    assert region.area_m2 == pytest.approx(10_000, rel=0.01)


def test_without_a_crs_areas_are_unknown_and_pixels_count():
    values = np.full((4, 4), 0.9, np.float32)
    pixel = heat(values, crs=None, transform=Affine.scale(2))
    (region,) = find_regions(pixel, 0.5, min_area_m2=60)
    assert region.area_m2 is None
    assert region.polygon.area == 64


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 11), st.floats(0.2, 0.8))
def test_regions_do_not_depend_on_blocks(seed, block, share):
    """Every component that block borders cut is put together again, corner contacts included."""
    values = (np.random.default_rng(seed).random((23, 29)) < share).astype(np.float32) * 0.9
    values[0, :3] = np.nan
    whole = find_regions(heat(values), 0.5)
    cut = find_regions(heat(values), 0.5, block_px=block)
    assert len(whole) == len(cut)
    assert shapely.union_all([r.polygon for r in whole]).equals(shapely.union_all([r.polygon for r in cut]))
    assert sorted(r.box.bounds for r in whole) == sorted(r.box.bounds for r in cut)


def test_region_count_is_the_number_of_eight_connected_components():
    values = np.zeros((30, 30), np.float32)
    values[2:4, 2:4] = values[4:6, 4:6] = 0.9
    values[20:25, 3:9] = 0.7
    assert len(find_regions(heat(values), 0.5)) == ndimage.label(values > 0.5, structure=np.ones((3, 3)))[1] == 2


def test_interlocking_finds_count_once():
    values = np.zeros((30, 30), np.float32)
    values[0:20, 0:20] = 0.8
    values[2:20, 2:20] = 0.0
    values[4:20, 4:20] = 0.9
    assert [region.score for region in find_regions(heat(values), 0.5)] == [pytest.approx(0.9)]


def test_rotated_rasters_get_boxes_along_the_image():
    values = np.zeros((20, 20), np.float32)
    values[5:10, 5:15] = 0.9
    turned = Affine.translation(500000, 5800000) @ Affine.rotation(30) @ Affine.scale(2, -2)
    (region,) = find_regions(heat(values, transform=turned), 0.5)
    assert region.box.area == pytest.approx(5 * 10 * 4)
    assert region.box.symmetric_difference(region.polygon).area < 1e-6


def test_a_seed_lets_weak_rims_in_but_not_weak_regions():
    values = np.zeros((20, 40), np.float32)
    values[2:12, 2:12] = 0.4
    values[6, 6] = 0.6
    values[2:12, 25:35] = 0.45
    (region,) = find_regions(heat(values), 0.35, seed=0.5)
    assert region.polygon.area == 100 * 4
    assert len(find_regions(heat(values), 0.35)) == 2


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "🛰️", "???", "—"])
def test_a_question_without_words_is_refused(text):
    with pytest.raises(QueryError, match="no words"):
        clean_query(text)


def test_questions_become_safe_unique_file_names():
    names = slugs(["Swimming  pools!", "swimming pools", "../../etc/passwd", "水", "a" * 300])
    assert names[0] == "swimming-pools"
    assert len(set(names)) == 5
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and len(name) <= 52 for name in names)
