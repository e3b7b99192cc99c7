"""What a job may touch: nothing but its own files in its own folder, and never its inputs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from tiling.chips.manifest import read_manifest
from tiling.cli import command
from tiling.clikit import run_cli

REPO = Path(__file__).resolve().parents[1]


def tile(*arguments):
    return run_cli(command, [str(argument) for argument in arguments])


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(5).integers(1, 250, shape).astype(dtype)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def site(make_raster):
    return make_raster(noise(3, 64, 64), "site.tif", photometric="RGB")


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.geojson"
    boxes = [shapely.box(5e5 + x, 5.8e6 - x - 8, 5e5 + x + 8, 5.8e6 - x) for x in range(0, 24, 6)]
    geopandas.GeoDataFrame({"class": ["a", "b", "a", "b"]}, geometry=boxes, crs=32631).to_file(path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--manifest", "site.tif"],
        ["--manifest", "site.tif", "--overwrite"],
        ["--manifest", "new.json"],
        ["--picture", "site.tif", "--overwrite"],
        ["--picture", "labels.geojson", "--overwrite", "--dry-run"],
        ["-o", ""],
    ],
)
def test_inputs_are_no_outputs(site, labels, tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (site, labels)}
    code = tile("site.tif", "-o", "out", "--labels", "labels.geojson", *arguments)
    assert code in (1, 2)
    assert capsys.readouterr().err.count("\n") <= 2
    assert {path: path.read_bytes() for path in before} == before


def test_labels_are_never_written_over_their_source(site, labels, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = labels.read_bytes()
    for extra in ([], ["--overwrite"]):
        arguments = ["--labels", labels, "--labels-format", "geojson", "--tile", "32", *extra]
        assert tile(site, "-o", ".", *arguments) == 1
        assert "input" in capsys.readouterr().err
    assert labels.read_bytes() == before


@pytest.mark.parametrize(
    ("form", "name"),
    [("yolo", "data.yaml"), ("coco", "annotations/instances.json"), ("mask", "masks/site_r0000_c0000.png")],
)
def test_files_of_others_are_kept_unless_told(site, labels, tmp_path, capsys, form, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    arguments = [site, "-o", tmp_path / "out", "--tile", "32", "--labels", labels, "--labels-format", form]
    assert tile(*arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert tile(*arguments, "--overwrite") == 0


@pytest.mark.parametrize("name", [".tiles.journal.tmp", ".site_r0000_c0000.tif.tmp"])
@pytest.mark.parametrize("dangling", [False, True])
def test_planted_links_are_not_followed(site, tmp_path, name, dangling):
    outside, out = tmp_path / "outside", tmp_path / "out"
    out.mkdir()
    if not dangling:
        outside.write_text("precious")
    (out / name).symlink_to(outside)
    assert tile(site, "-o", out, "--tile", "32") == 0
    assert outside.exists() != dangling
    assert dangling or outside.read_text() == "precious"
    assert not (out / "site_r0000_c0000.tif").is_symlink()


@pytest.mark.parametrize(
    ("form", "name"), [("yolo", "images"), ("yolo", "labels"), ("mask", "masks"), ("coco", "annotations")]
)
def test_linked_folders_are_refused(site, labels, tmp_path, form, name):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "outside")
    arguments = ["--labels", labels, "--labels-format", form, "--split", "train=1,val=1", "--tile", "8"]
    assert tile(site, "-o", tmp_path / "out", *arguments) == 1
    assert not list((tmp_path / "outside").iterdir())


def test_temporary_files_of_others_stay(site, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".mynotes.tmp").write_text("mine")
    assert tile(site, "-o", out, "--tile", "32") == 0
    assert (out / ".mynotes.tmp").read_text() == "mine"


def test_a_manifest_belongs_to_one_folder(site, tmp_path, capsys):
    one, two, table = tmp_path / "one", tmp_path / "two", tmp_path / "all.parquet"
    assert tile(site, "-o", one, "--tile", "32", "--manifest", table) == 0
    before = table.read_bytes()
    for extra in ([], ["--resume"], ["--overwrite"]):
        assert tile(site, "-o", two, "--tile", "32", "--manifest", table, *extra) == 1
    assert "another folder" in capsys.readouterr().err
    assert table.read_bytes() == before
    foreign = tmp_path / "mine.json"
    foreign.write_text("{}")
    assert tile(site, "-o", two, "--tile", "32", "--manifest", tmp_path / "mine.parquet", "--overwrite") == 1
    assert foreign.read_text() == "{}"


def test_overwriting_leaves_nothing_of_the_earlier_job(site, labels, tmp_path):
    out = tmp_path / "out"
    arguments = ["--labels", labels, "--labels-format", "coco", "--split", "train=1,val=1", "--split-block", "16px"]
    assert tile(site, "-o", out, "--tile", "16", "--format", "png", "--stac", *arguments) == 0
    (out / "mine.txt").write_text("mine")
    assert tile(site, "-o", out, "--tile", "32", "--overwrite") == 0
    names = {name for name in contents(out) if not name.startswith(".")}
    assert names == {
        "mine.txt",
        "tiles.json",
        "tiles.parquet",
        *(f"site_r000{r}_c000{c}.tif" for r in (0, 1) for c in (0, 1)),
    }


def test_one_bad_raster_does_not_stop_the_others(make_raster, site, tmp_path, capsys):
    nowhere = make_raster(noise(3, 64, 64), "nowhere.tif", crs=None)
    empty = make_raster(np.zeros((3, 64, 64), np.uint16), "empty.tif", nodata=0)
    far = make_raster(noise(3, 64, 64), "far.tif", origin=(6e5, 5.8e6))
    cases = [
        ([nowhere], ["--tile", "16m"]),
        ([nowhere], ["--stac"]),
        ([empty], ["--stretch", "p2-98"]),
        ([far], ["--aoi", "500000,5799980,500020,5800000"]),
        ([tmp_path / "nosuch.tif"], []),
    ]
    for number, (bad, arguments) in enumerate(cases):
        out = tmp_path / f"out{number}"
        assert tile(*bad, site, "-o", out, "--tile", "32", *arguments, "--json") == 3
        told = capsys.readouterr()
        assert told.err.startswith("error: ")
        assert [failure["path"] for failure in json.loads(told.out)["failures"]] == [str(bad[0])]
        assert [source.path for source in read_manifest(out).sources] == [str(site)]
        assert tile(*bad, "-o", tmp_path / "none", *arguments) == 1
        capsys.readouterr()


def test_labels_that_miss_are_told(site, labels, tmp_path, capsys):
    frame = geopandas.read_file(labels)
    frame.geometry = frame.geometry.translate(50_000)
    frame.to_file(tmp_path / "far.gpkg")
    assert tile(site, "-o", tmp_path / "out", "--labels", tmp_path / "far.gpkg") == 0
    assert "none of the 4 labels touches a raster" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "-1", "--split", "a=1,b=1"],
        ["--split", "a=1,A=1"],
        ["--split", "a=1,b=1", "--split-block", "0px"],
        ["--bands", "a"],
        ["--bands", "0"],
        ["--resume", "--overwrite"],
        ["--min-valid", "nan"],
        ["--tile", "-5px"],
    ],
)
def test_wrong_usage_is_2(site, tmp_path, capsys, arguments):
    assert tile(site, "-o", tmp_path / "out", *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_options_of_cutting_mean_nothing_to_stitching(site, tmp_path, capsys):
    assert tile(site, "-o", tmp_path / "out", "--tile", "32") == 0
    assert tile("--stitch", tmp_path / "out", "-o", tmp_path / "x.tif", "--tile", "64") == 2
    assert "--tile has no meaning" in capsys.readouterr().err


def test_long_names_are_shortened(site, tmp_path):
    long = tmp_path / ("x" * 248 + ".tif")
    shutil.copy(site, long)
    assert tile(long, "-o", tmp_path / "out", "--tile", "64") == 0
    assert len(read_manifest(tmp_path / "out").chips) == 1


def test_a_stored_stretch_is_that_of_an_earlier_job(make_raster, tmp_path):
    path = make_raster(noise(1, 64, 64, dtype="uint16"), "a.tif")
    other = make_raster(noise(1, 64, 64, dtype="uint16") * 3, "b.tif")
    assert tile(path, "-o", tmp_path / "a", "--stretch", "p2-98") == 0
    assert tile(other, "-o", tmp_path / "b", "--stretch", tmp_path / "a" / "tiles.json") == 0
    first, second = (read_manifest(tmp_path / name).sources[0].stretch for name in "ab")
    assert first == second


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_a_job_says_how_to_go_on(make_raster, tmp_path, kill):
    path = make_raster(noise(3, 600, 600))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--tile", "16px"]
    job = subprocess.Popen([sys.executable, "-m", "tiling.cli", *arguments, "--overwrite"], cwd=REPO,
                           stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 30
    while not (tmp_path / "out" / "tiles.journal").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    job.send_signal(kill)
    err = job.communicate(timeout=30)[1]
    assert job.returncode == 130
    assert "--resume" in err
    assert err.count("\n") == 1
    assert tile(*arguments, "--resume") == 0
    assert len(read_manifest(tmp_path / "out").chips) == 38**2


def test_stac_labels_and_warps_keep_few_files_open(make_raster, labels, tmp_path):
    names = [make_raster(noise(1, 16, 16), f"{number}.tif") for number in range(70)]
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
    code += "from tiling.cli import main; main()"
    arguments = [*names, "-o", tmp_path / "out", "--tile", "16", "--crs", "EPSG:4326", "--stac", "--labels", labels]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=REPO, capture_output=True, text=True, check=False,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(read_manifest(tmp_path / "out").sources) == 70
