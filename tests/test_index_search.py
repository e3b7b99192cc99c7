"""Scores against brute force, and rows for classifiers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import shapely
from affine import Affine

from geoalign_core.errors import IndexStaleError
from geoalign_core.indexing import LinearQuery, draw_rows, rows_in_boxes, sample_rows, score_maps
from geoalign_core.indexing.areas import cells_in_area
from geoalign_core.models.encoder import Readout
from tests.index_tools import C, TinyEncoder, build, mirrored, picture, save, square
from tiling.blend import window_weights
from tiling.errors import CancelledError
from tiling.progress import CancelToken
from tiling.raster import open_raster
from tiling.reader import read_windows


@pytest.fixture(scope="module")
def encoder():
    return TinyEncoder()


@pytest.fixture(scope="module")
def raster_path(tmp_path_factory):
    return save(tmp_path_factory.mktemp("search") / "town.tif", picture(nodata_corner=100))


@pytest.fixture(scope="module")
def index(raster_path, encoder):
    return build(raster_path, encoder)


@pytest.fixture(scope="module")
def text_query(encoder):
    return LinearQuery.from_text(encoder.encode_text(["red roof", "canal", "grass"]), encoder.readout)


def blend_by_hand(index, number, window_scores, min_valid=0.5):
    """Join (Q, h, w) scores per window with a plain double loop over float64 sums."""
    level = index.spec.levels[number]
    grid = level.grid.scaled(level.patch_px)
    total = weights = None
    for (row, col), (scores, share) in window_scores.items():
        if total is None:
            total, weights = np.zeros((len(scores), *level.cells)), np.zeros(level.cells)
        window = grid.window(row, col)
        down, across = window_weights(window, grid)
        rows = np.arange(window.row_off_px, window.row_end_px) * level.patch_px
        cols = np.arange(window.col_off_px, window.col_end_px) * level.patch_px
        tall = np.clip((level.canvas.raster_height_px - rows) / level.patch_px, 0, 1)
        wide = np.clip((level.canvas.raster_width_px - cols) / level.patch_px, 0, 1)
        enough = share >= min_valid * np.outer(tall, wide)
        weight = np.outer(down, across).astype(np.float64) * enough
        place = slice(window.row_off_px, window.row_end_px), slice(window.col_off_px, window.col_end_px)
        total[:, *place] += scores * weight
        weights[place] += weight
    with np.errstate(invalid="ignore"):
        return np.where(weights > 0, total / weights, np.nan)


def dense_scores(path, index, number, score):
    """Apply ``score`` (RawFeatures → (Q, h, w)) to every window, read anew."""
    spec = index.spec
    level = spec.levels[number]
    patch = level.patch_px
    out = {}
    with open_raster(path) as raster:
        for tile in read_windows(raster, level.canvas, level.grid, bands=spec.bands, stretch=spec.stretch):
            if tile.valid.any():
                height, width = level.window_cells
                share = tile.valid.reshape(height, patch, width, patch).mean(axis=(1, 3))
                out[tile.window.row, tile.window.col] = score(mirrored(tile, level.canvas)), share
    return out


@pytest.mark.parametrize("number", [0, 1])
def test_text_scores_are_the_cosines_of_the_dense_map(raster_path, index, encoder, text_query, number):
    texts = encoder.encode_text(["red roof", "canal", "grass"])

    def cosines(image):
        return np.einsum("qd,dhw->qhw", texts, encoder.encode_dense(image[None])[0])

    expected = blend_by_hand(index, number, dense_scores(raster_path, index, number, cosines))
    found = score_maps(index, text_query)[number].scores
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-2, "a short vector of 16 numbers rounds coarsely"
    assert np.nanmean(np.abs(found - expected)) < 2e-3


@pytest.mark.parametrize("joint", [True, False])
def test_scores_equal_brute_force_on_the_stored_rows(index, encoder, text_query, joint):
    rng = np.random.default_rng(1)
    query = text_query if joint else LinearQuery.from_raw(rng.standard_normal((2, C)), np.array([0.5, -1.0]))
    maps = score_maps(index, query)
    for number, level in enumerate(index.spec.levels):
        windows = {}
        for entry in index.level_shards(number):
            shard = index.arrays(entry.id)
            rows = shard.values.astype(np.float64) * shard.scales[:, None]
            per = entry.shape.rows_per_window
            for rank, place in enumerate(entry.windows()):
                part = slice(rank * per, (rank + 1) * per)
                scores = rows[part] @ query.patch.T.astype(np.float64) + query.bias
                if joint:
                    scores += shard.windows[rank].astype(np.float64) @ query.window.T
                    scores *= shard.inv_norms[part, None]
                windows[place] = (
                    scores.T.reshape(-1, *level.window_cells),
                    shard.valid[part].reshape(level.window_cells) / 255,
                )
        expected = blend_by_hand(index, number, windows)
        np.testing.assert_allclose(maps[number].scores, expected, atol=1e-5)


def test_joint_scores_of_a_full_readout_are_cosines(index, encoder):
    found = score_maps(index, LinearQuery.from_text(encoder.encode_text(["x"]), encoder.readout))
    for each in found:
        assert np.nanmax(np.abs(each.scores)) <= 1 + 1e-5


def test_the_map_lies_where_the_raster_lies(raster_path, index, text_query):
    first, second = score_maps(index, text_query)
    with open_raster(raster_path) as raster:
        origin = raster.info.transform * (0, 0)
    for each in (first, second):
        assert each.transform * (0, 0) == pytest.approx(origin)
        assert each.transform.a == pytest.approx(8 * index.spec.levels[each.level].canvas.transform.a)
        assert each.crs == index.spec.levels[0].canvas.crs
    assert second.gsd_m == pytest.approx(2 * first.gsd_m)


def test_constant_features_give_a_constant_map_to_the_outermost_cell(tmp_path, encoder):
    image = np.full((3, 418, 531), 90, np.uint8)
    index = build(save(tmp_path / "flat.tif", image, nodata=None), encoder)
    query = LinearQuery.from_raw(np.ones((1, C), np.float32), 2.0)
    for each in score_maps(index, query, min_valid=0):
        assert not np.isnan(each.scores).any()
        assert np.ptp(each.scores) < 1e-5


def test_cells_without_enough_valid_pixels_are_nan(index, text_query):
    whole = score_maps(index, text_query, min_valid=0)[0].scores[0]
    half = score_maps(index, text_query, min_valid=0.5)[0].scores[0]
    full = score_maps(index, text_query, min_valid=1.0)[0].scores[0]
    assert np.isnan(whole[:12, :12]).all(), "nodata corner of 100 px"
    assert not np.isnan(whole[12, 12])
    assert np.isnan(full[12, 12]), "half of this cell is nodata"
    assert np.isnan(whole).sum() <= np.isnan(half).sum() < np.isnan(full).sum()
    assert np.isfinite(half[-1]).all(), "the raster's edge is not nodata"


def test_inside_an_area_scores_equal_those_of_the_whole_map(raster_path, index, text_query):
    area = square(raster_path, 200, 170, 101).buffer(10)
    whole = score_maps(index, text_query)
    for part in score_maps(index, text_query, area=area):
        full = whole[part.level].scores
        rows, cols, inside = cells_in_area(index.spec.levels[part.level], area)
        assert (part.row_off, part.col_off) == (rows.start, cols.start)
        assert part.scores.shape[1:] == inside.shape
        assert part.scores.shape[1] < full.shape[1]
        np.testing.assert_array_equal(part.scores[:, inside], full[:, rows, cols][:, inside])
        assert np.isnan(part.scores[:, ~inside]).all()
        assert part.transform * (0, 0) == pytest.approx(whole[part.level].transform * (part.col_off, part.row_off))


def test_an_area_that_was_not_indexed_scores_nothing(index, text_query):
    maps = score_maps(index, text_query, area=shapely.box(0, 0, 1, 1))
    assert [each.scores.shape[1:] for each in maps] == [(0, 0), (0, 0)]


def test_a_partial_index_is_nan_elsewhere(tmp_path, encoder, text_query, index):
    path = save(tmp_path / "town.tif", picture(nodata_corner=100))
    area = square(path, 400, 300, 8)
    part = build(path, encoder, area=area)
    found = score_maps(part, text_query)[0].scores
    whole = score_maps(index, text_query)[0].scores
    assert 0 < np.isnan(found).mean() < 1
    rows, cols, inside = cells_in_area(part.spec.levels[0], area)
    np.testing.assert_array_equal(found[:, rows, cols][:, inside], whole[:, rows, cols][:, inside])


def test_queries_for_another_model_are_refused(index):
    with pytest.raises(IndexStaleError, match="another model"):
        score_maps(index, LinearQuery.from_raw(np.ones((1, C + 1), np.float32), 0.0))


def test_scoring_can_be_cancelled_and_tells_its_progress(index, text_query):
    seen = []
    score_maps(index, text_query, progress=lambda done, total, stage: seen.append((done, total, stage)))
    assert seen[-1] == (len(index.shards), len(index.shards), "scoring")
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        score_maps(index, text_query, cancel=token)


def test_a_query_can_be_split_without_changing_its_scores(index, text_query):
    together = score_maps(index, text_query)[0].scores
    for number in range(3):
        one = slice(number, number + 1)
        alone = LinearQuery(text_query.patch[one], text_query.window[one], text_query.bias[one], joint=True)
        np.testing.assert_allclose(score_maps(index, alone)[0].scores[0], together[number], atol=1e-5)


def test_many_threads_may_ask_one_index_and_the_cores_are_given_back(index, text_query):
    from threadpoolctl import threadpool_info

    def blas_threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = blas_threads()
    expected = score_maps(index, text_query)[0].scores
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(score_maps, index, text_query) for _ in range(12)]:
            np.testing.assert_array_equal(future.result()[0].scores, expected)
    assert blas_threads() == before


def test_an_image_vector_equals_its_readout():
    rng = np.random.default_rng(3)
    readout = Readout(*(rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (5, 3), (5,))))
    query = LinearQuery.from_text(np.eye(5, dtype=np.float32), readout)
    np.testing.assert_array_equal(query.patch, readout.patch)
    np.testing.assert_array_equal(query.window, readout.window)
    np.testing.assert_array_equal(query.bias, readout.bias)


# --- rows for classifiers ----------------------------------------------------------------------------------------


def all_rows(index, level=0):
    """Every row with its cell: (N, C), (N, 2) cell (row, col), (N,) valid share."""
    part = index.spec.levels[level]
    height, width = part.window_cells
    rows, cells, valid = [], [], []
    for entry in index.level_shards(level):
        shard = index.arrays(entry.id)
        rows.append(shard.values.astype(np.float32) * shard.scales[:, None])
        valid.append(np.asarray(shard.valid))
        for row, col in entry.windows():
            window = part.grid.window(row, col)
            r, c = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
            cells.append(np.stack([r.ravel() + window.row_off_px // 8, c.ravel() + window.col_off_px // 8], axis=1))
    return np.concatenate(rows), np.concatenate(cells), np.concatenate(valid)


def sorted_rows(rows):
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("level", [0, 1])
def test_rows_in_boxes_are_those_whose_centre_lies_inside(raster_path, index, level):
    part = index.spec.levels[level]
    boxes = [
        square(raster_path, 201, 151, 60),
        square(raster_path, 340, 60, 37).buffer(7.3),
        square(raster_path, 61, 61, 90),
    ]
    rows, cells, valid = all_rows(index, level)
    x, y = part.cell_transform * (cells[:, 1] + 0.5, cells[:, 0] + 0.5)
    found, which = rows_in_boxes(index, boxes, level=level)
    assert (np.diff(which) >= 0).all()
    for number, box in enumerate(boxes):
        expected = rows[shapely.contains_xy(box, x, y) & (valid > 0)]
        assert len(expected)
        np.testing.assert_array_equal(sorted_rows(found[which == number]), sorted_rows(expected))


def test_a_small_box_takes_the_cell_it_overlaps_most_and_a_point_its_cell(index):
    place = index.spec.levels[0].cell_transform
    rows, cells, _ = all_rows(index)

    def of_cell(row, col):
        return sorted_rows(rows[(cells == (row, col)).all(axis=1)])

    small = shapely.Polygon([place * xy for xy in [(30.7, 20.1), (31.1, 20.1), (31.1, 20.3), (30.7, 20.3)]])
    point = shapely.Point(*(place * (40.2, 25.9)))
    found, which = rows_in_boxes(index, [small, point])
    np.testing.assert_array_equal(sorted_rows(found[which == 0]), of_cell(20, 30))
    np.testing.assert_array_equal(sorted_rows(found[which == 1]), of_cell(25, 40))


def test_boxes_off_the_map_or_on_nodata_have_no_rows(raster_path, index):
    boxes = [shapely.box(0, 0, 9, 9), square(raster_path, 10, 10, 40), square(raster_path, 300, 300, 20)]
    found, which = rows_in_boxes(index, boxes)
    assert set(which.tolist()) == {2}
    assert found.shape[1] == C
    assert rows_in_boxes(index, []).features.shape == (0, C)


def test_a_sample_is_repeatable_drawn_once_and_respects_its_bounds(raster_path, index):
    rows, cells, valid = all_rows(index)
    known = {row.tobytes() for row in rows[valid >= 128]}
    first = sample_rows(index, 300, seed=4)
    assert first.shape == (300, C)
    np.testing.assert_array_equal(first, sample_rows(index, 300, seed=4))
    assert not np.array_equal(first, sample_rows(index, 300, seed=5))
    assert all(row.tobytes() in known for row in first)
    everything = sample_rows(index, 10**6, seed=0)
    np.testing.assert_array_equal(sorted_rows(everything), sorted_rows(rows[valid >= 128]))

    area, hole = square(raster_path, 250, 150, 160), square(raster_path, 290, 190, 64)
    x, y = index.spec.levels[0].cell_transform * (cells[:, 1] + 0.5, cells[:, 0] + 0.5)
    wanted = shapely.contains_xy(area, x, y) & ~shapely.contains_xy(hole, x, y) & (valid >= 128)
    inside = sample_rows(index, 10**6, seed=0, area=area, exclude=[hole])
    np.testing.assert_array_equal(sorted_rows(inside), sorted_rows(rows[wanted]))
    few = {row.tobytes() for row in sample_rows(index, 20, seed=0, area=area, exclude=[hole])}
    assert few <= {row.tobytes() for row in rows[wanted]}


def test_a_sample_is_spread_over_the_whole_map(index):
    rows, cells, valid = all_rows(index)
    row_of = {row.tobytes(): cell for row, cell in zip(rows, cells, strict=True)}
    found = np.array([row_of[row.tobytes()][0] for row in sample_rows(index, 1000, seed=1)])
    assert abs(found.mean() - cells[valid >= 128, 0].mean()) < 2


def test_drawn_rows_know_their_cells(index):
    rows, cells, _ = all_rows(index)
    cells_of = {}
    for row, cell in zip(rows, cells, strict=True):
        cells_of.setdefault(row.tobytes(), set()).add(tuple(cell))
    drawn = draw_rows(index, 500, seed=2)
    np.testing.assert_array_equal(drawn.features, sample_rows(index, 500, seed=2))
    assert all(
        tuple(cell) in cells_of[row.tobytes()] for row, cell in zip(drawn.features, drawn.cells.tolist(), strict=True)
    )


def test_cells_of_an_area_follow_rotation():
    from geoalign_core.indexing.areas import onto

    turned = Affine.translation(100, 200) * Affine.rotation(30) * Affine.scale(2, -2)
    inside = onto(shapely.Point(*(turned * (7.5, 3.5))), turned)
    assert (inside.x, inside.y) == pytest.approx((7.5, 3.5))
