"""What the engine's operations give, each through the real process."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import geopandas
import numpy as np
import pytest
import rasterio

from geoalign_core.engine.ladder import histogram
from geoalign_core.grounding.heatmap import Heatmap
from tests.engine_tools import EngineProcess, square
from tiling.errors import StretchError, UsageError
from tiling.radiometry import choose_bands, plan_stretch
from tiling.raster import open_raster


@pytest.fixture(scope="module")
def engine():
    with EngineProcess() as process:
        yield process


@pytest.fixture(scope="module")
def canal(tmp_path_factory, sample_path):
    """A quarter of the sample image, 500 × 500 px."""
    path = tmp_path_factory.mktemp("canal") / "canal.tif"
    with rasterio.open(sample_path) as whole:
        profile = {**whole.profile, "width": 500, "height": 500}
        with rasterio.open(path, "w", **profile) as out:
            out.write(whole.read(window=((0, 500), (0, 500))))
    return path


@pytest.fixture(scope="module")
def asked(engine, canal, tmp_path_factory):
    """One question in words with all its messages: (folder, messages)."""
    folder = tmp_path_factory.mktemp("answer")
    number = engine.send("ask", source={"path": str(canal)}, query="water", out=str(folder), stem="water")
    return folder, [message for _, message in engine.until(number)]


def test_status(engine):
    found = engine.result("status")
    assert found["devices"][0] == {"name": "cpu", "title": "CPU"}
    assert found["torch"] and found["packages"]["numpy"] and found["models"][0]["installed"]


def test_describe_tells_the_cost_before_and_after(engine, canal, asked, tmp_path):
    fresh = shutil.copy(canal, tmp_path / "fresh.tif")
    before = engine.result("describe", source={"path": str(fresh)})
    after = engine.result("describe", source={"path": str(canal)})
    assert before["windows"] == before["windows_missing"] == after["windows"] and after["windows_missing"] == 0
    assert before["seconds"] > 0 == after["seconds"] and after["indexed"] and not before["indexed"]
    assert (after["width_px"], after["height_px"], after["bands"]) == (500, 500, ["red", "green", "blue"])
    assert "28992" in after["crs"] and after["native_gsd_m"] == pytest.approx(0.25, rel=0.01)
    assert after["memory_bytes"] > 2**26 and after["bytes"] > 10**5


def test_ask_sends_the_heatmap_first_and_then_every_rung(asked):
    folder, messages = asked
    kinds = [message["type"] for message in messages]
    assert kinds[-1] == "result" and kinds.count("partial") == 1
    partial, result = messages[kinds.index("partial")]["result"], messages[-1]["result"]
    assert partial["files"] == {"heatmap": str(folder / "water.tif"), "regions": None}
    assert result["files"] == {"heatmap": str(folder / "water.tif"), "regions": str(folder / "water.gpkg")}
    assert partial.keys() == result.keys() and partial["histogram"] == result["histogram"]
    assert len(result["histogram"]) == 40 and result["protocol"] == "relevance-1" and result["model"] == "geoalign-s"
    stages = [message["stage"] for message in messages if message["type"] == "progress"]
    assert {"embedding", "scoring", "finding regions", "writing"} <= set(stages)
    with rasterio.open(folder / "water.tif") as raster:
        values = raster.read(1)
        assert raster.dtypes == ("float32",) and np.isnan(raster.nodata)
    assert sum(result["histogram"]) == np.isfinite(values).sum()
    assert result["best_score"] == pytest.approx(np.nanmax(values), abs=1e-4)
    boxes, polygons = (geopandas.read_file(folder / "water.gpkg", layer=name) for name in ("boxes", "polygons"))
    columns = ["query", "score", "precision", "rank", "area_m2", "gsd_m", "model", "min_match", "geometry"]
    assert list(boxes) == list(polygons) == columns
    counts = polygons.groupby("min_match").size()
    assert {str(rung): int(count) for rung, count in counts.items()} == {
        rung: count for rung, count in result["counts"].items() if count
    }
    assert list(result["counts"]) == [str(rung) for rung in range(10, 100, 5)]


def test_every_rung_is_what_the_command_line_finds(asked, canal, geoalign, tmp_path):
    folder, _ = asked
    rows = geopandas.read_file(folder / "water.gpkg", layer="polygons")
    for rung in (30, 55, 90):
        mine = rows[rows.min_match == rung].sort_values("rank")
        code, _, err = geoalign(
            "ask", canal, "water", "--threshold", rung / 100, "--boxes", tmp_path / f"{rung}.gpkg", "--top", "500"
        )
        assert code == 0, err
        theirs = geopandas.read_file(tmp_path / f"{rung}.gpkg", layer="polygons")
        assert list(theirs.score) == pytest.approx(list(mine.score))
        assert list(theirs.area_m2) == pytest.approx(list(mine.area_m2))


def test_asking_again_builds_nothing_and_says_the_same(engine, asked, canal, tmp_path):
    again = engine.result("ask", source={"path": str(canal)}, query="water", out=str(tmp_path), stem="again")
    first = asked[1][-1]["result"]
    assert again["histogram"] == first["histogram"] and again["counts"] == first["counts"]
    assert again["built_windows"] == 0 < first["built_windows"]


def test_examples_refit_without_embedding(engine, asked, canal, tmp_path):
    x, y = (value for value in rasterio.open(canal).bounds[:2])
    with rasterio.open(asked[0] / "water.tif") as plain:
        more = plain.read(1)
        place = np.unravel_index(np.nanargmax(more), more.shape)
        best_x, best_y = plain.xy(*place)
    wet = square(best_x - 4, best_y - 4, 8)
    common = {"source": {"path": str(canal)}, "query": "water", "out": str(tmp_path), "products": ["heatmap"]}
    one = engine.result("ask", include=[square(x + 30, y + 30, 8)], stem="one", **common)
    two = engine.result("ask", include=[square(x + 30, y + 30, 8)], exclude=[wet], stem="two", **common)
    wrong = engine.result("ask", exclude=[wet], stem="wrong", **common)
    assert one["query"] == "water, like 1 example" and two["query"] == "water, like 1 example without 1"
    assert one["built_windows"] == two["built_windows"] == 0 and one["files"]["regions"] is None
    with rasterio.open(tmp_path / "wrong.tif") as raster:
        less = raster.read(1)
        assert less[place] < 0.5 < more[place]
        assert np.nanmean(np.abs(less - more)) < 0.1
    assert wrong["counts"] == {}
    assert engine.failure("ask", **{**common, "query": None}, exclude=[square(x, y, 5)], stem="x")["code"] == "query"
    far = engine.failure("ask", **common, include=[square(0, 0, 5)], stem="x")
    assert far["code"] == "examples" and far["remedy"]


def test_landcover_regions_and_tiles(engine, asked, canal, tmp_path):
    source = {"path": str(canal)}
    found = engine.result("landcover", source=source, queries=["water", "grass", "roofs"], out=str(tmp_path), stem="lc")
    with rasterio.open(found["files"]["classes"]) as raster:
        assert raster.dtypes == ("uint8",) and set(np.unique(raster.read(1))) <= {0, 1, 2, 3}
    assert found["names"] == ["water", "grass", "roofs"] and (tmp_path / "lc.qml").exists()
    assert engine.failure("landcover", source=source, queries=["a"], out=str(tmp_path), stem="x")["code"] == "query"
    heat = str(asked[0] / "water.tif")
    regions = engine.result("regions", heatmap=heat, threshold=0.55, shape="polygon", out=str(tmp_path), stem="r")
    assert regions["count"] == asked[1][-1]["result"]["counts"]["55"]
    assert len(geopandas.read_file(regions["files"]["regions"], layer="polygons")) == regions["count"]
    assert engine.failure("regions", heatmap=str(canal), out=str(tmp_path), stem="r")["code"] == "raster"
    tiles = engine.result("tile", source=source, tile="128px", overlap="0px", out=str(tmp_path / "tiles"))
    assert tiles["count"] == 16 == len(list((tmp_path / "tiles").rglob("*.tif")))


def test_an_area_and_bands_and_ranges(engine, canal, tmp_path, tiny_model):
    left, bottom = rasterio.open(canal).bounds[:2]
    look = {"model": str(tiny_model), "bands": [3, 2, 1], "stretch": {"ranges": [[10, 200], [5, 250.5], [0, 255]]}}
    source = {"path": str(canal)}
    found = engine.result(
        "ask", source=source, look=look, area=square(left, bottom, 60), query="x", out=str(tmp_path), stem="a"
    )
    with rasterio.open(found["files"]["heatmap"]) as raster:
        assert raster.bounds.right <= left + 80
    bad = {**look, "stretch": {"ranges": [[10, 200], [5, 250]]}}
    assert engine.failure("describe", source=source, look=bad)["code"] == "raster"
    assert engine.failure("describe", source=source, look={"model": "no-such"})["code"] == "model"
    assert engine.failure("describe", source=source, look={"device": "cuda:99"})["code"] == "device"
    assert engine.failure("index", source=source, area=square(0, 0, 9))["code"] == "area"


def test_a_far_corner_of_an_area_takes_no_longer(engine, asked, canal, tmp_path):
    left, bottom = (value - 1 for value in rasterio.open(canal).bounds[:2])
    common = {"source": {"path": str(canal)}, "query": "water", "out": str(tmp_path), "products": ["heatmap"]}
    histograms = []
    for far in (1e4, 9e11):
        corners = [[left, bottom], [left + far, bottom], [left, bottom + far], [left, bottom]]
        area = {"type": "Polygon", "coordinates": [corners]}
        begun = time.monotonic()
        found = engine.result("ask", area=area, include=[square(left, bottom, far)], stem="far", **common)
        assert time.monotonic() - begun < 3
        histograms.append(found["histogram"])
    assert histograms[0] == histograms[1] and sum(histograms[0]) == sum(asked[1][-1]["result"]["histogram"])


def test_remedies_name_no_options(engine, canal, tmp_path, tiny_model):
    source, look = {"path": str(canal)}, {"model": str(tiny_model)}
    device = engine.failure("describe", source=source, look={"device": "cuda:99"})
    engine.result("tile", source=source, tile="128px", out=str(tmp_path / "tiles"))
    there = engine.failure("tile", source=source, tile="64px", out=str(tmp_path / "tiles"))
    with EngineProcess("--max-windows", "1") as small:
        large = small.failure("index", source=source, look=look)
    assert (device["code"], there["code"], large["code"]) == ("device", "output", "too_many_windows")
    assert not any("--" in failure["remedy"] or not failure["remedy"] for failure in (device, there, large))


def test_the_first_band_of_a_stack_of_heatmaps_is_outlined(engine, asked, tmp_path):
    with rasterio.open(asked[0] / "water.tif") as raster:
        values, profile = raster.read(1), {**raster.profile, "count": 2}
    with rasterio.open(tmp_path / "stack.tif", "w", **profile) as out:
        out.write(values, 1)
        out.write(np.zeros_like(values), 2)
    found = engine.result("regions", heatmap=str(tmp_path / "stack.tif"), threshold=0.55, out=str(tmp_path), stem="r")
    assert found["count"] == asked[1][-1]["result"]["counts"]["55"] > 0


def test_another_crs_is_followed_everywhere(engine, canal, tmp_path, tiny_model):
    look = {"model": str(tiny_model)}
    other = {"path": str(canal), "crs": "EPSG:32631"}
    plain = engine.result("describe", source={"path": str(canal)}, look=look)
    moved = engine.result("describe", source=other, look=look)
    assert "32631" in moved["crs"] and moved["native_gsd_m"] != plain["native_gsd_m"]
    first = engine.result("index", source={"path": str(canal)}, look=look)
    second = engine.result("index", source=other, look=look)
    assert first["index"] != second["index"] and second["built_shards"] > 0
    found = engine.result("ask", source=other, look=look, query="x", out=str(tmp_path), stem="m", products=["heatmap"])
    with rasterio.open(found["files"]["heatmap"]) as raster:
        assert raster.crs.to_epsg() == 32631
    assert engine.failure("describe", source={"path": str(canal), "crs": "EPSG:0"}, look=look)["code"] == "usage"


def test_answers_come_while_the_index_grows(make_raster, tiny_model, tmp_path):
    rng = np.random.default_rng(1)
    path = make_raster(rng.integers(1, 255, (3, 1200, 1200), dtype=np.uint8), res=0.5)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\nclass Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        jobs = sys.modules.get('geoalign_core.engine.jobs')\n"
        "        if jobs is not None: jobs._PARTIAL_S = 0.0\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    with EngineProcess(PYTHONPATH=str(site)) as engine:
        number = engine.send(
            "ask", source={"path": str(path)}, look={"model": str(tiny_model)}, query="x", out=str(tmp_path / "o"),
            stem="s",
        )  # fmt: skip
        messages = [message for _, message in engine.until(number)]
    partial = [message["result"] for message in messages if message["type"] == "partial"]
    result = messages[-1]["result"]
    assert len(partial) > 1
    windows = [part["windows"] for part in partial]
    assert windows == sorted(windows) and windows[0] < windows[-1] == result["windows"]
    assert sum(partial[0]["histogram"]) < sum(result["histogram"])
    steps = [(m["done"], m["total"]) for m in messages if m.get("stage") == "embedding"]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps) and steps[-1][0] == steps[-1][1]
    assert sorted(file.name for file in (tmp_path / "o").iterdir()) == ["s.gpkg", "s.tif"]


def test_two_engines_on_one_raster(make_raster, tiny_model):
    rng = np.random.default_rng(2)
    path = make_raster(rng.integers(1, 255, (3, 500, 500), dtype=np.uint8), res=0.5)
    with EngineProcess() as one, EngineProcess() as two:
        for engine in (one, two):
            engine.result("warm", look={"model": str(tiny_model)})
        numbers = [
            engine.send("index", source={"path": str(path)}, look={"model": str(tiny_model)}) for engine in (one, two)
        ]
        ends = [engine.until(number)[-1][1] for engine, number in zip((one, two), numbers, strict=True)]
    assert [end["type"] for end in ends] == ["result", "result"], ends
    assert ends[0]["result"]["rows"] == ends[1]["result"]["rows"] > 0


def test_a_raster_that_vanishes_is_told_and_a_changed_one_is_seen(engine, canal, tiny_model, tmp_path):
    path = tmp_path / "gone.tif"
    shutil.copy(canal, path)
    look = {"model": str(tiny_model)}
    assert engine.result("describe", source={"path": str(path)}, look=look)["width_px"] == 500
    path.unlink()
    assert engine.failure("describe", source={"path": str(path)}, look=look)["code"] == "raster"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting takes root")
def test_a_full_disk_is_told(engine, asked, canal, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        failure = engine.failure("ask", source={"path": str(canal)}, query="water", out=str(mount), stem="w")
    finally:
        subprocess.run(["umount", mount], check=True)
    assert failure["code"] == "disk_full" and failure["retryable"] and failure["remedy"]


def test_ranges_for_each_band(make_raster):
    with open_raster(make_raster(np.ones((3, 20, 20), np.uint8))) as raster:
        bands = choose_bands(raster.info)
        stretch = plan_stretch(raster, bands, "0,10;1,11;2,12.5")
        assert (stretch.low, stretch.high) == ((0, 1, 2), (10, 11, 12.5))
        assert plan_stretch(raster, bands, "0,255;0,255;0,255").kind == "none"
        for wrong in ("0,10;1,11", "0,10;1,11;5,5", "0,10;1,11;x,5"):
            with pytest.raises(StretchError):
                plan_stretch(raster, bands, wrong)


def test_a_crs_over_a_file_without_one(make_raster):
    path = make_raster(np.ones((3, 20, 20), np.uint8), crs=None)
    with open_raster(path) as raster:
        assert raster.info.crs is None
    with open_raster(path, crs="EPSG:32631") as raster:
        assert raster.info.gsd_m == pytest.approx(0.5, rel=0.01)
    with pytest.raises(UsageError):
        open_raster(path, crs="nonsense")


def test_the_histogram_counts_every_pixel_once():
    values = np.array([[0.0, 0.0249, 0.025, 1.0, np.nan]], np.float32)
    counts = histogram(Heatmap(values, rasterio.Affine.identity(), None, None))
    assert (counts[0], counts[1], counts[39], sum(counts)) == (2, 1, 1, 4)
