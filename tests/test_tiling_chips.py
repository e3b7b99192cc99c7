"""Jobs of many rasters, every format, one manifest; stopped anywhere they go on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling

from tiling import TileGrid, Window, open_raster
from tiling.chips.job import unique_names
from tiling.chips.manifest import ManifestError, read_manifest
from tiling.cli import command
from tiling.clikit import run_cli
from tiling.grid import Length
from tiling.plan import lay_out
from tiling.validity import survey

REPO = Path(__file__).resolve().parents[1]


def tile(*arguments):
    return run_cli(command, [str(argument) for argument in arguments])


def noise(*shape, dtype="uint8", seed=5):
    return np.random.default_rng(seed).integers(1, 250, shape).astype(dtype)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("form", ["tif", "cog", "png", "webp", "npy", "jpg"])
def test_every_format_holds_the_pixels_and_their_place(make_raster, tmp_path, form):
    array = np.kron(noise(3, 12, 15), np.ones((1, 10, 10), np.uint8))
    path = make_raster(array, photometric="RGB")
    assert tile(path, "-o", tmp_path / "out", "--tile", "64", "--format", form, "--edge", "partial") == 0
    suffix = "tif" if form == "cog" else form
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest.chips) == 6
    for chip in manifest.chips:
        window = chip.window
        assert chip.path.endswith(f".{suffix}")
        rows, cols = slice(window.row_off_px, window.row_end_px), slice(window.col_off_px, window.col_end_px)
        file = tmp_path / "out" / chip.path
        if form == "npy":
            np.testing.assert_array_equal(np.load(file, allow_pickle=False), array[:, rows, cols])
            continue
        with rasterio.open(file) as out:
            off = np.abs(out.read().astype(int) - array[:, rows, cols])
            assert off.max() == 0 if form != "jpg" else off.mean() < 20
            assert out.transform.almost_equals(manifest.sources[0].place(window))
            assert out.crs.to_epsg() == 32631
            assert form != "cog" or out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_sixteen_bit_png_and_what_pictures_cannot_hold(make_raster, tmp_path, capsys):
    path = make_raster(noise(3, 64, 64, dtype="uint16") * 200)
    assert tile(path, "-o", tmp_path / "a", "--tile", "64", "--format", "png", "--stretch", "none") == 0
    with rasterio.open(path) as source, rasterio.open(tmp_path / "a" / "image_r0000_c0000.png") as out:
        np.testing.assert_array_equal(out.read(), source.read())
    assert tile(path, "-o", tmp_path / "b", "--tile", "64", "--format", "jpg", "--stretch", "none") == 2
    assert "--stretch auto" in capsys.readouterr().err


def test_dtype_rounds_clips_and_masks(make_raster, tmp_path, capsys):
    array = np.array([[[-9999, -3, 0.4, 1.6], [254.5, 300, 7, 8]]], np.float32)
    path = make_raster(array, nodata=-9999)
    assert tile(path, "-o", tmp_path / "out", "--tile", "4", "--dtype", "uint8") == 0
    with rasterio.open(tmp_path / "out" / "image_r0000_c0000.tif") as out:
        np.testing.assert_array_equal(out.read(1), [[0, 0, 0, 2], [254, 255, 7, 8]])
        np.testing.assert_array_equal(out.dataset_mask()[0] > 0, [False, True, True, True])
    assert tile(path, "-o", tmp_path / "x", "--dtype", "float31") == 2
    assert tile(path, "-o", tmp_path / "x", "--dtype", "float32", "--stretch", "auto") == 2
    assert "a stretch makes uint8" in capsys.readouterr().err


def test_a_stretch_keeps_every_band_and_is_stored(make_raster, tmp_path):
    path = make_raster(noise(6, 64, 64, dtype="uint16"))
    assert tile(path, "-o", tmp_path / "out", "--tile", "32", "--stretch", "p2-98") == 0
    stored = read_manifest(tmp_path / "out").sources[0]
    assert len(stored.stretch["low"]) == 6
    with rasterio.open(tmp_path / "out" / "image_r0000_c0000.tif") as out:
        assert (out.count, out.dtypes[0]) == (6, "uint8")
    again = tmp_path / "stretch.json"
    again.write_text(json.dumps(stored.stretch))
    assert tile(path, "-o", tmp_path / "again", "--tile", "32", "--stretch", again) == 0
    for name in ("image_r0000_c0000.tif", "image_r0001_c0001.tif"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_collection_shares_one_stretch(make_raster, tmp_path):
    dark = make_raster(noise(1, 64, 64, dtype="uint16"), "dark.tif")
    bright = make_raster(noise(1, 64, 64, dtype="uint16") + 1000, "bright.tif")
    arguments = [dark, bright, "--tile", "64", "--stretch", "min-max"]
    assert tile(*arguments, "-o", tmp_path / "own") == 0
    assert tile(*arguments, "-o", tmp_path / "shared", "--stretch-over", "collection") == 0
    own, shared = (read_manifest(tmp_path / name).sources for name in ("own", "shared"))
    assert own[0].stretch != own[1].stretch
    assert shared[0].stretch == shared[1].stretch
    with rasterio.open(tmp_path / "shared" / "dark_r0000_c0000.tif") as out:
        assert out.read().max() < 60
    with rasterio.open(tmp_path / "shared" / "bright_r0000_c0000.tif") as out:
        assert out.read().min() > 200


def test_many_rasters_of_different_crs_share_one_manifest(make_raster, tmp_path):
    utm = make_raster(noise(1, 50, 50), "utm.tif")
    degrees = make_raster(noise(2, 40, 60, dtype="uint16"), "deg.tif", crs="EPSG:4326", res=1e-5, origin=(3.0, 52.0))
    nowhere = make_raster(noise(1, 30, 30), "no.tif", crs=None, transform=Affine.identity())
    assert tile(utm, degrees, nowhere, "-o", tmp_path / "out", "--tile", "25") == 0
    rows = geopandas.read_parquet(tmp_path / "out" / "tiles.parquet")
    assert rows.source.value_counts().to_dict() == {"utm": 4, "deg": 6, "no": 4}
    assert rows.crs.to_string() == "OGC:CRS84"
    assert set(rows["crs"].dropna()) == {"EPSG:32631", "EPSG:4326"}
    assert rows[rows.source == "no"].geometry.isna().all()
    for row in rows[rows.source != "no"].itertuples():
        with rasterio.open(tmp_path / "out" / row.path) as out:
            assert out.bounds == pytest.approx((row.xmin, row.ymin, row.xmax, row.ymax))
            assert list(out.transform)[:6] == pytest.approx(list(row.affine))
            west, south, east, north = rasterio.warp.transform_bounds(out.crs, "EPSG:4326", *out.bounds)
            assert row.geometry.bounds == pytest.approx((west, south, east, north), abs=1e-9)
    assert rows.gsd_m.isna().sum() == 4
    assert (rows.valid_fraction == 1).all()


def test_names_stay_apart(tmp_path):
    one, two = tmp_path / "a" / "im age.tif", tmp_path / "b" / "im_age.tif"
    assert unique_names([one, two]) == ["a_im_age", "b_im_age"]
    assert len(set(unique_names([Path("/x/é.tif"), Path("/x/è.tif")]))) == 2


@pytest.mark.parametrize("name", ["../../etc/x.tif", "a\nb.tif", "çç çç.tif", "-o.tif", "..tif"])
def test_tiles_never_leave_the_folder(make_raster, tmp_path, name):
    source = make_raster(noise(1, 8, 8))
    odd = tmp_path / "in" / Path(name).name
    odd.parent.mkdir()
    shutil.copy(source, odd)
    out = tmp_path / "out" / "deep"
    assert tile("-o", out, "--tile", "8", "--", odd) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "image.tif"}
    written = [path.name for path in out.glob("*.tif")]
    assert len(written) == 1
    assert written[0].isascii()
    assert not written[0].startswith((".", "-"))


def with_overviews(path, levels):
    with rasterio.open(path, "r+") as out:
        out.build_overviews(levels, Resampling.nearest)


def test_blank_windows_are_told_from_an_overview(make_raster, tmp_path, capsys):
    array = noise(1, 512, 512)
    array[:, 128:, 100:] = 0
    array[:, 300, 300] = 7
    path = make_raster(array, nodata=0, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with_overviews(path, [2, 4, 8])
    with open_raster(path) as raster:
        layout = lay_out(raster, Length(64, "px"), min_valid=0.25)
    assert layout.told_by == "overview 1:4"
    exact = [w for w in TileGrid(512, 512, 64, 64) if share(array, w) >= 0.25]
    kept = {(w.row, w.col) for w in layout.windows}
    assert {(w.row, w.col) for w in exact} <= kept
    assert len(kept) < 40
    assert tile(path, "-o", tmp_path / "out", "--tile", "64", "--min-valid", "0.25", "--json") == 0
    told = summary(capsys)
    assert told["tiles"] == len(exact)
    assert told["left_out"] == {"too few valid pixels": 64 - len(exact)}


def share(array, window):
    part = array[0, window.row_off_px : window.row_end_px, window.col_off_px : window.col_end_px]
    return float((part > 0).mean())


def test_blank_windows_are_not_read_at_full_resolution(make_raster, tmp_path):
    """The full resolution is destroyed where the overview says that there is nothing."""
    array = noise(1, 2048, 512)
    array[:, 512:] = 0
    path = make_raster(array, nodata=0, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with_overviews(path, [8])
    with rasterio.open(path) as source:
        first = int(source.get_tag_item("BLOCK_OFFSET_3_25", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[first : first + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert tile(path, "-o", tmp_path / "all", "--tile", "64") == 1
    assert tile(path, "-o", tmp_path / "some", "--tile", "64", "--min-valid", "0.01") == 0
    assert len(read_manifest(tmp_path / "some").chips) == 64


def test_a_sparse_giant_costs_only_what_it_holds(tmp_path, capsys):
    path = tmp_path / "giant.tif"
    profile = {"driver": "GTiff", "width": 100_000, "height": 100_000, "count": 3, "dtype": "uint8", "nodata": 0}
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "compress": "deflate"}
    transform = Affine(0.5, 0, 5e5, 0, -0.5, 5.8e6)
    with rasterio.open(path, "w", **profile, **options, transform=transform, crs="EPSG:32631") as out:
        out.write(noise(3, 512, 512), window=((51_200, 51_712), (1024, 1536)))
    assert tile(path, "-o", tmp_path / "out", "--min-valid", "0.01", "--json") == 0
    told = summary(capsys)
    assert told["tiles"] == 1
    assert told["left_out"] == {"too few valid pixels": 196**2 - 1}
    assert tile(path, "-o", tmp_path / "x", "--tile", "16") == 2
    assert "too many tiles" in capsys.readouterr().err


def test_surveys_never_rule_out_a_valid_window(make_raster):
    rng = np.random.default_rng(0)
    for case in range(6):
        array = np.kron((rng.random((1, 16, 16)) < 0.2).astype(np.uint8), np.ones((1, 24, 24), np.uint8)) * 9
        path = make_raster(array, f"{case}.tif", nodata=0)
        with_overviews(path, [2, 4])
        with open_raster(path) as raster:
            layout = lay_out(raster, Length(48, "px"), Length(13, "px"))
            coverage = survey(raster, layout.canvas, (1,), 48)
        assert all(coverage.at_most(w) >= share(array, w) - 1e-9 for w in layout.windows)


def test_resume_and_overwrite(make_raster, tmp_path, capsys):
    path, out = make_raster(noise(3, 100, 100)), tmp_path / "out"
    arguments = [path, "-o", out, "--tile", "25"]
    assert tile(*arguments, "--resume") == 0
    whole = contents(out)
    assert tile(*arguments) == 1
    assert "--resume" in capsys.readouterr().err
    (out / "image_r0001_c0001.tif").unlink()
    (out / "image_r0002_c0002.tif").write_bytes(b"damaged")
    assert tile(*arguments, "--resume", "--json") == 0
    assert summary(capsys)["written"] == 2
    assert contents(out) == whole
    assert tile(*arguments, "--resume", "--overlap", "5px") == 1
    assert "it differs in overlap" in capsys.readouterr().err
    (out / "mine.txt").write_text("mine")
    assert tile(path, "-o", out, "--tile", "50", "--overwrite") == 0
    assert len(list(out.glob("*.tif"))) == 4
    assert (out / "mine.txt").read_text() == "mine"
    os.utime(path)
    assert tile(path, "-o", out, "--tile", "50", "--resume") == 1
    assert "the rasters" in capsys.readouterr().err


def test_inputs_are_never_replaced(make_raster, tmp_path, capsys):
    path, out = make_raster(noise(1, 64, 64)), tmp_path / "out"
    assert tile(path, "-o", out, "--tile", "32") == 0
    before = contents(out)
    assert tile(*sorted(out.glob("*.tif")), "-o", out, "--tile", "16", "--overwrite") == 1
    assert "is an input of this job" in capsys.readouterr().err
    assert contents(out) == before


def test_links_in_the_output_are_refused(make_raster, tmp_path, capsys):
    path, out = make_raster(noise(1, 20, 20)), tmp_path / "out"
    out.mkdir()
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (out / "image_r0000_c0000.tif").symlink_to(victim)
    for extra in ([], ["--overwrite"]):
        assert tile(path, "-o", out, "--tile", "20", *extra) == 1
        assert "Traceback" not in capsys.readouterr().err
    assert victim.read_text() == "precious"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train").symlink_to(tmp_path / "elsewhere")
    assert tile(path, "-o", tmp_path / "split", "--tile", "5", "--split", "train=1,val=1") == 1
    assert "leads out" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_more_rasters_than_files_may_be_open(make_raster, tmp_path):
    names = [make_raster(noise(1, 16, 16, dtype="uint16"), f"{number}.tif", nodata=0) for number in range(80)]
    for extra in ([], ["--stretch-over", "collection"]):
        arguments = [*names, "-o", tmp_path / f"out{len(extra)}", "--tile", "16", "--stretch", "p2-98"]
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); from tiling.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments), *extra, "--min-valid", "0.1"],
            cwd=REPO, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(read_manifest(tmp_path / f"out{len(extra)}").chips) == 80


def test_a_damaged_raster_does_not_stop_the_others(make_raster, tmp_path, capsys):
    good, bad = make_raster(noise(1, 64, 64), "good.tif"), make_raster(noise(1, 640, 640), "bad.tif")
    bad.write_bytes(bad.read_bytes()[:200_000])
    assert tile(bad, good, tmp_path / "nosuch.tif", "-o", tmp_path / "out", "--tile", "64") == 3
    err = capsys.readouterr().err
    assert "bad.tif" in err
    assert "nosuch.tif" in err
    manifest = read_manifest(tmp_path / "out")
    assert [failure["path"] for failure in manifest.failures] == [str(tmp_path / "nosuch.tif"), str(bad)]
    assert sum(chip.source == 1 for chip in manifest.chips) == 1


def test_a_manifest_can_lie_elsewhere_and_tells_when_it_is_none(make_raster, tmp_path):
    path = make_raster(noise(1, 64, 64))
    assert tile(path, "-o", tmp_path / "out", "--tile", "32", "--manifest", tmp_path / "all.parquet") == 0
    manifest = read_manifest(tmp_path / "all.parquet")
    assert manifest.sources[0].grid == TileGrid(64, 64, 32, 32)
    assert manifest.chips[3].window == Window(32, 32, 32, 32, 1, 1)
    (tmp_path / "all.json").write_text(json.dumps({"schema": 99}))
    for what in (tmp_path / "all.parquet", tmp_path / "nothing"):
        with pytest.raises(ManifestError):
            read_manifest(what)


def test_dry_run_explains(make_raster, tmp_path, capsys):
    path = make_raster(noise(3, 800, 800), tiled=True, blockxsize=256, blockysize=256)
    with_overviews(path, [2, 4])
    assert tile(path, "-o", tmp_path / "out", "--gsd", "2m", "--tile", "64", "--overlap", "50%", "--dry-run") == 0
    text = capsys.readouterr().out
    for said in ("overview 1:4", "36 windows of 64 px", "memory", "disk", "time"):
        assert said in text
    assert not (tmp_path / "out").exists()


@settings(max_examples=30, deadline=None)
@given(
    height=st.sampled_from([1, 2, 7, 31, 97, 211]),
    width=st.sampled_from([1, 3, 13, 53, 101, 307]),
    tile_px=st.integers(1, 64),
    overlap=st.integers(0, 80),
    edge=st.sampled_from(["shift", "pad", "partial"]),
    turn=st.floats(-180, 180),
    shear=st.floats(-30, 30),
    flip=st.sampled_from([-1, 1]),
)
def test_tiles_cover_the_raster_and_lie_where_it_lies(
    tmp_path_factory, height, width, tile_px, overlap, edge, turn, shear, flip
):
    """Every tile is read, and the source is read at the places where the tile says that its pixels are."""
    folder = tmp_path_factory.mktemp("cover")
    array = np.arange(height * width, dtype=np.int32).reshape(1, height, width) + 1
    place = Affine.translation(5e5, 5.8e6) * Affine.rotation(turn) * Affine.shear(shear, 0) * Affine.scale(0.5, flip)
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "int32", "nodata": 0}
    with rasterio.open(folder / "in.tif", "w", **profile, transform=place, crs="EPSG:32631") as out:
        out.write(array)
    step = f"{overlap * tile_px // 100}px"
    arguments = ["--tile", f"{tile_px}px", "--overlap", step, "--edge", edge, "--max-tiles", "4000", "-j", "1"]
    code = tile(folder / "in.tif", "-o", folder / "out", *arguments)
    grid = TileGrid.lay(width, height, Length(tile_px, "px"), Length.parse(step), edge=edge)
    assert code == (2 if len(grid) > 4000 else 0)
    if code or len(grid) > 150:
        return
    seen = np.zeros((height, width), int)
    for chip in read_manifest(folder / "out").chips:
        with rasterio.open(folder / "out" / chip.path) as out:
            rows, cols = np.indices((out.height, out.width))
            x, y = out.transform * (cols + 0.5, rows + 0.5)
            found = out.read(1)
        col, row = ~place * (x, y)
        row, col = np.floor(row).astype(int), np.floor(col).astype(int)
        inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        np.testing.assert_array_equal(found[inside], array[0, row[inside], col[inside]])
        assert not found[~inside].any()
        np.add.at(seen, (row[inside], col[inside]), 1)
    assert seen.min() >= 1


def run(arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "tiling.cli", *map(str, arguments)], cwd=REPO, **options)


def test_fifty_kills_and_the_result_is_the_same(make_raster, tmp_path):
    path = make_raster(noise(3, 1000, 1000))
    arguments = [path, "--tile", "16px", "--overlap", "2px", "--format", "png", "--min-valid", "0.1"]
    assert tile(*arguments, "-o", tmp_path / "whole") == 0
    whole = contents(tmp_path / "whole")
    rng = random.Random(7)
    out = tmp_path / "out"
    for _ in range(50):
        job = run([*arguments, "-o", out, "--resume"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (out / "tiles.journal").exists() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.12))
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert run([*arguments, "-o", out, "--resume"], stderr=subprocess.DEVNULL).wait() == 0
    assert contents(out) == whole


def test_two_processes_on_one_folder(make_raster, tmp_path):
    path = make_raster(noise(3, 900, 900))
    arguments = [path, "-o", tmp_path / "out", "--tile", "16px"]
    jobs = [run(arguments, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [job.communicate(timeout=120)[1] for job in jobs]
    codes = sorted(job.returncode for job in jobs)
    assert codes == [0, 1]
    assert any("another process is cutting" in text or "holds finished tiles" in text for text in told)
    assert len(read_manifest(tmp_path / "out").chips) == 57**2


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
def test_a_full_disk_is_told_and_gone_on_from(make_raster, tmp_path):
    disk, path = tmp_path / "disk", make_raster(noise(3, 600, 600))
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        arguments = [path, "-o", disk / "out", "--tile", "100"]
        job = run(arguments, stderr=subprocess.PIPE, text=True)
        err = job.communicate(timeout=60)[1]
        assert job.returncode == 1
        assert err.count("\n") == 1
        assert "free some space" in err
        assert not (disk / "out" / "tiles.parquet").exists()
        for name in (disk / "out").glob("*.tif"):
            with rasterio.open(name) as out:
                out.read()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        assert run(arguments, stderr=subprocess.DEVNULL).wait() == 0
        assert len(read_manifest(disk / "out").chips) == 36
    finally:
        subprocess.run(["umount", disk], check=True)


def test_rio_has_the_command(make_raster, tmp_path):
    path = make_raster(noise(1, 32, 32))
    rio = Path(sys.executable).with_name("rio")
    done = subprocess.run(
        [rio, "geoalign-tile", path, "-o", tmp_path / "out", "--tile", "16"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(read_manifest(tmp_path / "out").chips) == 4
    done = subprocess.run(
        [rio, "geoalign-tile", "nosuch.tif", "-o", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
