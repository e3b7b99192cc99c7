"""``geoalign-tile`` cuts exact tiles, survives being killed, and says what is wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from tiling.cli import command
from tiling.clikit import run_cli, tqdm_progress

REPO = Path(__file__).resolve().parents[1]
PYTHON = [sys.executable, "-W", "error::UserWarning", "-m", "tiling.cli"]


def tile(*arguments):
    return run_cli(command, [str(argument) for argument in arguments])


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(5).integers(1, 250, shape).astype(dtype)


def table(folder):
    return geopandas.read_parquet(folder / "tiles.parquet")


TRANSFORMS = {
    "north-up": Affine(0.5, 0, 5e5, 0, -0.5, 5.8e6),
    "south-up": Affine(0.5, 0, 5e5, 0, 0.5, 5.8e6),
    "rotated": Affine.translation(5e5, 5.8e6) * Affine.rotation(20) * Affine.scale(0.5, -0.5),
}


@pytest.mark.parametrize(
    ("edge", "dtype", "place"),
    [
        ("shift", "uint8", "north-up"),
        ("pad", "uint16", "north-up"),
        ("partial", "int8", "north-up"),
        ("drop", "float32", "north-up"),
        ("shift", "float64", "south-up"),
        ("pad", "uint8", "south-up"),
        ("partial", "uint16", "rotated"),
        ("pad", "float32", "rotated"),
    ],
)
def test_tiles_equal_rasterios_windows(make_raster, tmp_path, edge, dtype, place):
    array = noise(4, 130, 170, dtype=dtype)
    path = make_raster(array, transform=TRANSFORMS[place], nodata=0)
    padded = np.pad(array, ((0, 0), (0, 64), (0, 64)))
    assert tile(path, "-o", tmp_path / "out", "--tile", "64px", "--overlap", "25%", "--edge", edge) == 0
    rows = table(tmp_path / "out")
    assert len(rows) == len(list((tmp_path / "out").glob("*.tif"))) == (6 if edge == "drop" else 12)
    with rasterio.open(path) as source:
        for row in rows.itertuples():
            box = RasterioWindow(row.col_off_px, row.row_off_px, row.width_px, row.height_px)
            with rasterio.open(tmp_path / "out" / row.path) as out:
                np.testing.assert_array_equal(out.read(), padded[(slice(None), *box.toslices())])
                assert out.transform.almost_equals(source.window_transform(box))
                assert out.crs == source.crs
                assert out.dtypes == source.dtypes
                assert out.nodata == (None if ColorInterp.alpha in source.colorinterp else source.nodata)
                ring = [out.transform * corner for corner in ((0, 0), (out.width, out.height))]
            np.testing.assert_allclose(row.geometry.exterior.coords[0], ring[0])
            np.testing.assert_allclose(row.geometry.exterior.coords[2], ring[1])


def test_masks_alpha_and_palettes_are_kept(make_raster, tmp_path):
    alpha = noise(4, 60, 60)
    alpha[3, :20] = 0
    path = make_raster(alpha, "alpha.tif", photometric="RGB", alpha="YES")
    masked = make_raster(alpha[:3], "masked.tif", photometric="RGB")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as out:
        out.write_mask(alpha[3] > 0)
    palette = make_raster(alpha[:1] % 3, "palette.tif", photometric="PALETTE")
    with rasterio.open(palette, "r+") as out:
        out.write_colormap(1, {0: (1, 2, 3, 255), 1: (4, 5, 6, 255), 2: (7, 8, 9, 255)})
    assert tile(path, masked, palette, "-o", tmp_path / "out", "--tile", "60") == 0
    with rasterio.open(tmp_path / "out" / "alpha_r0000_c0000.tif") as out:
        assert out.colorinterp[3] == ColorInterp.alpha
        np.testing.assert_array_equal(out.read(), alpha)
    with rasterio.open(tmp_path / "out" / "masked_r0000_c0000.tif") as out:
        np.testing.assert_array_equal(out.dataset_mask() > 0, alpha[3] > 0)
        np.testing.assert_array_equal(out.read(), alpha[:3])
    with rasterio.open(tmp_path / "out" / "palette_r0000_c0000.tif") as out:
        assert out.colormap(1)[1] == (4, 5, 6, 255)


def test_pictures(make_raster, tmp_path):
    path = make_raster(noise(4, 64, 64, dtype="uint16"))
    assert tile(path, "-o", tmp_path / "a", "--tile", "64", "--bands", "4,1,2", "--stretch", "auto") == 0
    assert tile(path, "-o", tmp_path / "b", "--tile", "64", "--format", "png") == 0
    with rasterio.open(tmp_path / "a" / "image_r0000_c0000.tif") as out:
        assert (out.count, out.dtypes[0]) == (3, "uint8")
        assert out.read().max() == 255
    with rasterio.open(tmp_path / "b" / "image_r0000_c0000.png") as out:
        assert out.count == 3
        assert out.transform.almost_equals(Affine(0.5, 0, 5e5, 0, -0.5, 5.8e6))


def test_metres_resolution_area_and_valid_share(make_raster, tmp_path, capsys):
    array = noise(1, 400, 400)
    array[:, :200] = 0
    path = make_raster(array, nodata=0)
    arguments = [path, "-o", tmp_path / "out", "--tile", "50m", "--gsd", "1m", "--min-valid", "0.5", "--json"]
    assert tile(*arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rasters"][0]["tile_px"], summary["tiles"]) == (50, 8)
    assert summary["left_out"] == {"too few valid pixels": 8}
    rows = table(tmp_path / "out")
    assert rows.gsd_m.iloc[0] == pytest.approx(1, rel=1e-3)
    assert rows.geometry.area.iloc[0] == pytest.approx(2500, rel=1e-3)
    area = "500000,5799990,500040,5800000"
    assert tile(path, "-o", tmp_path / "area", "--tile", "40px", "--aoi", area) == 0
    assert [name.name for name in sorted((tmp_path / "area").glob("*.tif"))] == [
        "image_r0000_c0000.tif",
        "image_r0000_c0001.tif",
    ]


def test_dry_run_writes_nothing(make_raster, tmp_path, capsys):
    path = make_raster(noise(1, 100, 100))
    assert tile(path, "-o", tmp_path / "out", "--tile", "50", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rasters"][0]["windows"] == 4
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_unless_told(make_raster, tmp_path, capsys):
    path = make_raster(noise(1, 100, 100))
    assert tile(path, "-o", tmp_path / "out", "--tile", "50") == 0
    assert tile(path, "-o", tmp_path / "out", "--tile", "50") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert tile(path, "-o", tmp_path / "out", "--tile", "25", "--overwrite") == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "image_r0000_c0000.tif").write_text("mine")
    assert tile(path, "-o", tmp_path / "other", "--tile", "50") == 1
    assert (tmp_path / "other" / "image_r0000_c0000.tif").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing argument"),
        (["--tile", "12km"], 2, "12km"),
        (["--gsd", "0m"], 2, "positive"),
        (["--overlap", "100%"], 2, "overlap"),
        (["--edge", "wrap"], 2, "wrap"),
        (["--bands", "9"], 1, "no such band"),
        (["--stretch", "wild"], 1, "is not a stretch"),
        (["--aoi", "1,2,3,4"], 1, "misses the raster"),
        (["--tile", "100m"], 1, "metres are unknown"),
        (["--gsd", "1"], 1, "metres are unknown"),
    ],
)
def test_mistakes_get_one_line(make_raster, tmp_path, capsys, arguments, code, said):
    raster = [make_raster(noise(1, 20, 20), crs=None if "metres" in said else "EPSG:32631")] if arguments else []
    assert tile(*raster, "-o", tmp_path / "out", *arguments) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert code == 2 or err.count("\n") == 1


def test_partial_failure_is_3(make_raster, tmp_path, capsys):
    path = make_raster(noise(1, 20, 20))
    assert tile(path, tmp_path / "nosuch.tif", "-o", tmp_path / "out", "--tile", "20") == 3
    assert tile(tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "out") == 1
    assert tile(path, path, "-o", tmp_path / "out") == 2
    capsys.readouterr()


def run(*arguments, **options):
    command = [*PYTHON, *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False, **options)


def test_help_is_quick_and_light():
    code = "import sys, time; t = time.monotonic(); from tiling.cli import command; from tiling.clikit import run_cli;"
    code += "run_cli(command, ['--help']); print(time.monotonic() - t, *sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True).stdout
    seconds, *modules = out.splitlines()[-1].split()
    assert not {"rasterio", "geopandas", "torch", "numpy", "shapely", "pyproj"} & set(modules)
    assert float(seconds) < 0.5


def test_debug_shows_the_traceback():
    assert "Traceback" not in run("nosuch.tif", "-o", "/nonexistent").stderr
    assert "Traceback" in run("nosuch.tif", "-o", "/nonexistent", "--debug").stderr


def test_a_read_only_folder_and_a_full_disk(make_raster, tmp_path):
    path = make_raster(noise(3, 300, 300))
    (tmp_path / "file").write_text("")
    done = run(path, "-o", tmp_path / "file", "--tile", "100")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    # A limit on the size of files fails a write half-way just as a full disk does.
    limited = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); from tiling.cli import main; main()"
    args = [sys.executable, "-c", limited, str(path), "-o", str(tmp_path / "out"), "--tile", "100"]
    done = subprocess.run(args, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert not list((tmp_path / "out").glob("*.tif"))
    assert run(path, "-o", tmp_path / "out", "--tile", "100").returncode == 0


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_job_leaves_whole_tiles_and_goes_on(make_raster, tmp_path, kill):
    path = make_raster(noise(3, 600, 600))
    out = tmp_path / "out"
    arguments = [str(path), "-o", str(out), "--tile", "32px"]
    job = subprocess.Popen([*PYTHON, *arguments], cwd=REPO, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while len(list(out.glob("*.tif"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    job.send_signal(kill)
    _, err = job.communicate(timeout=30)
    assert job.returncode == (-9 if kill == signal.SIGKILL else 130)
    assert kill == signal.SIGKILL or "--resume" in err
    tiles = list(out.glob("*.tif"))
    assert 20 <= len(tiles) < 361
    assert not (out / "tiles.parquet").exists()
    for name in tiles:
        with rasterio.open(name) as dataset:
            dataset.read()
    before = {name: name.stat().st_mtime_ns for name in tiles}
    assert run(*arguments, "--jobs", "1").returncode == 0
    # Of the tiles being written at the moment of a kill the journal may not know.
    again = sum(name.stat().st_mtime_ns != stamp for name, stamp in before.items())
    assert again <= (4 if kill == signal.SIGKILL else 0)
    assert len(table(out)) == len(list(out.glob("*.tif"))) == 361
    assert sorted(path.name for path in out.glob(".*")) == [".tiles.lock"]
    assert not (out / "tiles.journal").exists()


def test_progress_is_drawn_only_on_a_terminal(capsys):
    for disable, drawn in ((None, False), (False, True)):
        with tqdm_progress(disable=disable) as progress:
            progress(1, 4, "reading")
            progress(4, 4, "reading")
            progress(2, 2, "writing")
        err = capsys.readouterr().err
        assert ("reading" in err and "4/4" in err and "writing" in err) == drawn


def test_a_closed_pipe_is_quiet(make_raster, tmp_path):
    path = make_raster(noise(1, 20, 20))
    text = " ".join([*PYTHON, str(path), "-o", str(tmp_path / "out"), "--json"]) + " | true"
    done = subprocess.run(["bash", "-c", text], cwd=REPO, capture_output=True, text=True, check=False, env=os.environ)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
