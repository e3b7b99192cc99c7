"""Writers that are killed, run out of disk or may not write: the target is whole, old or absent."""

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from geoalign_core.export import VECTOR_SUFFIXES, draw_picture, write_classes, write_heatmap, write_vector
from tiling.errors import OutputWriteError

REPO = Path(__file__).resolve().parents[1]
UTM = Affine(0.5, 0, 500000, 0, -0.5, 5800000)
WRITERS = [*VECTOR_SUFFIXES, ".heat.tif", ".class.tif", ".png"]
OLD, NEW = 1, 2
KILLS = 6


def write(path, version, *, size=1.0, overwrite=True):
    """Write content that tells its version, with the writer that the path's ending names."""
    name = Path(path).name
    side = round(900 * size) + version
    if name.endswith(VECTOR_SUFFIXES):
        n = round(4000 * size) * version
        x = 500000 + 40.0 * np.arange(n)
        frame = gpd.GeoDataFrame(
            {"query": ["pools"] * n, "score": float(version) / 4, "rank": np.arange(n)},
            geometry=list(shapely.box(x, 5800000.0, x + 20, 5800020.0)), crs="EPSG:32631",
        )  # fmt: skip
        write_vector(path, {"boxes": frame}, overwrite=overwrite)
    elif name.endswith(".heat.tif"):
        heat = np.random.default_rng(version).random((side, side), dtype=np.float32)
        write_heatmap(path, heat, transform=UTM, crs="EPSG:32631", tags={"v": str(version)}, overwrite=overwrite)
    elif name.endswith(".class.tif"):
        classes = np.random.default_rng(version).integers(0, 3, (side, side), dtype=np.uint8)
        tags = {"v": str(version)}
        write_classes(path, classes, ["a", "b"], transform=UTM, crs="EPSG:32631", tags=tags, overwrite=overwrite)
    else:
        image = np.random.default_rng(version).integers(0, 255, (300, 300, 3), dtype=np.uint8)
        boxes = gpd.GeoDataFrame({"score": [], "rank": []}, geometry=[], crs="EPSG:32631")
        draw_picture(
            path, image=image, image_valid=None, transform=UTM, crs="EPSG:32631", heat=np.zeros((9, 9), np.float32),
            heat_transform=UTM, boxes=boxes, query=str(version), threshold=0.5, model="m", gsd_m=0.5,
            overwrite=overwrite,
        )  # fmt: skip


def version_of(path):
    """Read everything in the file and return the version it is of; None when it is absent."""
    name = path.name
    if not path.exists():
        return None
    if name.endswith(VECTOR_SUFFIXES):
        layer = "boxes" if name.endswith(".gpkg") else None
        frame = gpd.read_parquet(path) if name.endswith(".parquet") else gpd.read_file(path, layer=layer)
        version = round(float(frame["score"].iloc[0]) * 4)
        assert (frame["score"] == version / 4).all()
        assert len(frame) == 4000 * version
        assert not frame.geometry.isna().any()
        return version
    if name.endswith(".tif"):
        with rasterio.open(path) as raster:
            version = int(raster.tags()["v"])
            assert raster.read(1).shape == (900 + version,) * 2
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            raster.read(1, out_shape=(100, 100))
        return version
    with Image.open(path) as picture:
        picture.load()
        return int(picture.text["Title"])


@pytest.fixture(scope="module")
def zygote():
    """A process with everything imported that forks a writer on demand and kills it after a delay."""
    program = textwrap.dedent("""
        import os, signal, sys, time
        import test_export_reliability as t
        print("ready", flush=True)
        for line in sys.stdin:
            delay, path = line.rstrip("\\n").split(" ", 1)
            child = os.fork()
            if child == 0:
                while True:
                    t.write(path, t.NEW)
                    t.write(path, t.OLD)
            time.sleep(float(delay))
            alive = os.waitpid(child, os.WNOHANG)[0] == 0
            os.kill(child, signal.SIGKILL)
            if alive:
                os.waitpid(child, 0)
            print("killed" if alive else "crashed", flush=True)
    """)
    paths = os.pathsep.join([str(REPO), str(REPO / "tests"), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("ending", WRITERS)
def test_a_killed_writer_leaves_old_or_new(tmp_path, zygote, ending):
    target = tmp_path / f"answer{ending}"
    write(target, OLD)
    names = {item.name for item in tmp_path.iterdir()}
    delays = np.random.default_rng(WRITERS.index(ending)).uniform(0.05, 0.7, KILLS)
    for delay in delays:
        zygote.stdin.write(f"{delay} {target}\n")
        zygote.stdin.flush()
        assert zygote.stdout.readline() == "killed\n"
        version = version_of(target)
        assert version in ({OLD, NEW, None} if ending == ".shp" else {OLD, NEW})
        assert {item.name for item in tmp_path.iterdir() if not item.name.startswith(".")} <= names


@contextlib.contextmanager
def mounted(folder, options):
    """Mount a small disk, or skip where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size_kib", [64, 200])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, ending, size_kib):
    with mounted(tmp_path / "disk", f"size={size_kib}k") as disk:
        with pytest.raises(OutputWriteError) as caught:
            write(disk / f"answer{ending}", NEW, size=2.0, overwrite=False)
        assert str(disk / f"answer{ending}") in str(caught.value)
        assert "No space left" in str(caught.value) or "does not fit on the disk" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(disk.iterdir())


@pytest.mark.parametrize("ending", WRITERS)
def test_a_full_disk_keeps_the_old_file(tmp_path, ending):
    with mounted(tmp_path / "disk", "size=6m") as disk:
        target = disk / f"answer{ending}"
        write(target, OLD, size=0.05)
        before = target.read_bytes()
        (disk / "filler").write_bytes(bytes(max(0, os.statvfs(disk).f_bavail - 4) * os.statvfs(disk).f_bsize))
        with pytest.raises(OutputWriteError):
            write(target, NEW, size=2.0)
        assert target.read_bytes() == before


@pytest.mark.parametrize("ending", WRITERS)
def test_a_read_only_folder_is_one_line(tmp_path, ending):
    with mounted(tmp_path / "disk", "size=100k,ro") as disk, pytest.raises(OutputWriteError, match="may write"):
        write(disk / f"answer{ending}", OLD, size=0.05)


@pytest.mark.parametrize("ending", WRITERS)
def test_a_folder_below_a_file_is_one_line(tmp_path, ending):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputWriteError, match="check the folder"):
        write(tmp_path / "file" / f"answer{ending}", OLD, size=0.05)
