"""What an index holds, and that it does not depend on how it was built."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from geoalign_core.errors import IndexStaleError
from geoalign_core.indexing import build_index, open_index, plan_index
from geoalign_core.indexing.quantise import quantise, valid_shares
from tests.index_tools import PATCH, TinyEncoder, build, contents, mirrored, picture, plan, save, square
from tiling.errors import AreaError, NotGeoreferencedError
from tiling.progress import CancelToken
from tiling.raster import open_raster
from tiling.reader import read_windows


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Waiting for the disk is tested in test_index_safety."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def raster_path(tmp_path):
    return save(tmp_path / "town.tif", picture(nodata_corner=150))


def expected_rows(path, spec, encoder, level):
    """Embed every window one by one, without the index: {(row, col): (patches (N, C), window, valid)}."""
    out = {}
    part = spec.levels[level]
    with open_raster(path) as raster:
        for tile in read_windows(raster, part.canvas, part.grid, bands=spec.bands, stretch=spec.stretch):
            if tile.valid.any():
                features = encoder.encode_raw(mirrored(tile, part.canvas)[None])
                rows = features.patches[0].reshape(spec.channels, -1).T
                out[tile.window.row, tile.window.col] = rows, features.window[0], tile.valid
    return out


def test_rows_are_the_encoders_patches_in_order(raster_path):
    encoder = TinyEncoder()
    index = build(raster_path, encoder)
    readout = encoder.readout
    for level in range(len(index.spec.levels)):
        expected = expected_rows(raster_path, index.spec, encoder, level)
        seen = {}
        for entry in index.level_shards(level):
            shard = index.arrays(entry.id)
            per = entry.shape.rows_per_window
            for rank, place in enumerate(entry.windows()):
                part = slice(rank * per, (rank + 1) * per)
                seen[place] = True
                rows, window, valid = expected[place]
                stored = shard.values[part].astype(np.float32) * shard.scales[part, None]
                assert np.abs(stored - rows).max() <= shard.scales[part].max() / 2 + 1e-7
                np.testing.assert_array_equal(shard.windows[rank], window)
                norm = np.linalg.norm(stored @ readout.patch.T + readout.window @ window + readout.bias, axis=1)
                np.testing.assert_allclose(shard.inv_norms[part] * norm, 1, rtol=1e-5)
                np.testing.assert_array_equal(shard.valid[part], valid_shares(valid, PATCH))
        assert set(seen) == set(expected), "exactly the windows with a valid pixel have rows"
        assert len(seen) < len(index.spec.levels[level].grid) or level > 0


def test_the_parquet_table_describes_the_windows(raster_path):
    index = build(raster_path)
    entry = index.level_shards(0)[-1]
    level = index.spec.levels[0]
    table = parquet.read_table(index.root / "shards" / entry.id.name / "rows.parquet").to_pylist()
    assert [(line["row"], line["col"]) for line in table] == entry.windows()
    assert [line["first_row"] for line in table] == [i * 64 for i in range(len(table))]
    line = table[0]
    window = level.grid.window(line["row"], line["col"])
    left, top = level.canvas.transform * (window.col_off_px, window.row_off_px)
    right, bottom = level.canvas.transform * (window.col_end_px, window.row_end_px)
    assert line["bbox"] == pytest.approx({"xmin": left, "ymin": bottom, "xmax": right, "ymax": top})
    assert 0 < line["valid_fraction"] <= 1
    assert len(line["pixels_sha256"]) == 64


def test_the_manifest_lists_everything_and_windows_fall_on_one_lattice(raster_path):
    index = build(raster_path)
    manifest = json.loads((index.root / "manifest.json").read_text())
    assert manifest["spec_key"] == index.spec.key
    assert manifest["complete"] is True
    assert manifest["rows"] == index.rows == sum(item["rows"] for item in manifest["shards"])
    assert {item["name"] for item in manifest["shards"]} == {p.name for p in (index.root / "shards").iterdir()}
    assert index.root.parent.name == "town.tif.geoalign"
    for level in index.spec.levels:
        assert level.canvas.width_px % PATCH == level.canvas.height_px % PATCH == 0
        for window in level.grid:
            assert window.col_off_px % PATCH == window.row_off_px % PATCH == 0


def test_the_result_does_not_depend_on_jobs(raster_path, tmp_path):
    one = build(raster_path, jobs=1)
    other = save(
        tmp_path / "again" / "town.tif" if (tmp_path / "again").mkdir() is None else None, picture(nodata_corner=150)
    )
    assert contents(one.root) == contents(build(other, jobs=4).root)


def test_nothing_is_done_twice_and_asking_again_is_cheap(raster_path):
    encoder = TinyEncoder()
    first = build(raster_path, encoder)
    embedded = encoder.windows
    assert first.report.built_shards == len(first.shards)
    assert not first.reused
    with open_raster(raster_path) as raster:
        spec = plan_index(raster, encoder)
        start = time.perf_counter()
        again = build_index(raster, encoder, spec)
        seconds = time.perf_counter() - start
    assert encoder.windows == embedded
    assert again.reused
    assert again.report.kept_shards == len(first.shards)
    assert seconds < 0.25, "0.005 s on an idle machine"
    assert open_index(raster_path, spec).rows == first.rows


def test_an_area_builds_a_bit_equal_part_and_a_second_area_adds(raster_path, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = contents(build(save(tmp_path / "whole" / "town.tif", picture(nodata_corner=150))).root)
    corner = square(raster_path, 330, 330, 40)
    part = build(raster_path, area=corner)
    few = contents(part.root)
    assert not part.complete
    assert 0 < len(few) < len(whole)
    assert few.items() <= whole.items()
    assert build(raster_path, area=corner).reused
    more = build(raster_path, area=square(raster_path, 10, 330, 40))
    assert more.report.kept_shards == len(part.shards)
    assert more.report.built_shards > 0
    build(raster_path)
    assert contents(part.root) == whole


def test_an_area_beside_the_raster_is_an_error(raster_path):
    with pytest.raises(AreaError, match="misses"):
        build(raster_path, area=shapely.box(0, 0, 1, 1))


def test_an_area_on_a_rotated_raster_takes_the_windows_it_lies_on(tmp_path):
    turned = Affine.translation(500000, 5800000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
    path = save(tmp_path / "turned.tif", picture(), transform=turned)
    index = build(path, TinyEncoder(levels=(1.0,)), area=square(path, 400, 300, 10))
    assert [entry.id.name for entry in index.shards] == ["L0-r0001-c0002"]


def test_indexes_of_several_models_and_bands_live_side_by_side(raster_path):
    first = build(raster_path, TinyEncoder(seed=1))
    second = build(raster_path, TinyEncoder(seed=2))
    third = build(raster_path, TinyEncoder(seed=1), bands="3,2,1")
    assert len({first.root, second.root, third.root}) == 3
    assert build(raster_path, TinyEncoder(seed=1)).reused
    with open_raster(raster_path) as raster, pytest.raises(IndexStaleError):
        build_index(raster, TinyEncoder(seed=2), first.spec)


def test_a_raster_smaller_than_a_window_gets_one_smaller_window(tmp_path):
    path = save(tmp_path / "small.tif", picture(30, 50))
    index = build(path, TinyEncoder(levels=(1.0,)))
    assert index.spec.levels[0].window_cells == (4, 7)
    assert index.rows == 28


def test_a_strip_keeps_long_windows(tmp_path):
    path = save(tmp_path / "strip.tif", picture(16, 500))
    index = build(path, TinyEncoder(levels=(1.0,)))
    assert index.spec.levels[0].window_cells == (2, 8)


def test_an_empty_raster_has_an_index_without_rows(tmp_path):
    path = save(tmp_path / "empty.tif", np.zeros((3, 100, 100), np.uint8))
    index = build(path)
    assert index.rows == 0
    assert index.complete
    assert build(path, verify=True).reused


def test_without_a_crs_pixels_are_indexed_as_they_are(tmp_path):
    path = save(tmp_path / "photo.tif", picture(), crs=None, transform=Affine.identity())
    spec = plan(path)
    assert len(spec.levels) == 1
    assert spec.levels[0].canvas.gsd_m is None
    assert spec.levels[0].cell_gsd_m is None
    assert build(path).rows
    with pytest.raises(NotGeoreferencedError):
        plan(path, gsd_m=0.5)


@pytest.mark.parametrize(("res", "asked", "finest"), [(0.1, None, 0.5), (1.0, None, 1.0), (0.1, 0.3, 0.3)])
def test_the_finest_level_never_enlarges_pixels_by_itself(tmp_path, res, asked, finest):
    path = save(tmp_path / "a.tif", picture(), res=res)
    levels = plan(path, gsd_m=asked).levels
    assert [level.canvas.gsd_m for level in levels] == pytest.approx([finest, 2 * finest], rel=0.01)


def test_levels_beyond_the_models_range_are_left_out(tmp_path):
    path = save(tmp_path / "a.tif", picture(), res=3.0)
    assert len(plan(path).levels) == 1


def test_cancelling_keeps_finished_shards(raster_path):
    token = CancelToken()
    seen = []

    def progress(done, total, stage):
        seen.append((done, total, stage))
        if done >= 40:
            token.cancel()

    with pytest.raises(Exception, match="stopped"):
        build(raster_path, progress=progress, cancel=token)
    index = build(raster_path)
    assert index.report.kept_shards > 0
    assert index.report.built_shards > 0
    assert seen[-1][2] == "embedding"
    assert all(done <= total for done, total, _ in seen)


def test_a_percentile_stretch_stays_put_when_a_corner_is_edited(tmp_path):
    image = picture().astype(np.uint16) * 13
    path = save(tmp_path / "deep.tif", image)
    first = build(path)
    assert first.spec.stretch.kind == "percentile"
    image[:, 400:, 500:] = 3000
    save(path, image)
    again = build(path)
    assert again.spec.key == first.spec.key
    assert 0 < again.report.built_shards < len(again.shards)
    save(path, image // 2)
    assert build(path).spec.key != first.spec.key, "a raster half as bright is another picture"


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(1e-6, 1e6))
def test_quantising_keeps_every_component_within_half_a_step(seed, channels, size):
    vectors = (np.random.default_rng(seed).standard_normal((7, channels)) * size).astype(np.float32)
    vectors[3] = 0
    rows = quantise(vectors)
    error = np.abs(rows.dequantise() - vectors)
    assert (error <= rows.scales[:, None] * 0.5001).all()
    assert (rows.values[3] == 0).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_valid_shares_keep_none_and_all_apart_from_nearly(seed, share):
    valid = np.random.default_rng(seed).random((32, 48)) < share
    shares = valid_shares(valid, 16).reshape(2, 3)
    cells = valid.reshape(2, 16, 3, 16).mean(axis=(1, 3))
    np.testing.assert_array_equal(shares == 0, cells == 0)
    np.testing.assert_array_equal(shares == 255, cells == 1)
    assert np.abs(shares / 255 - cells).max() <= 1 / 255
