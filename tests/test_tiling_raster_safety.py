"""Hostile and broken rasters: nothing leads elsewhere, everything cut off is told, no first use deadlocks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.transform import from_origin

from tiling import (
    GeoAlignError,
    RasterOpenError,
    RasterReadError,
    Stretch,
    UnsupportedRasterError,
    Window,
    choose_bands,
    open_raster,
    pixel_canvas,
    plan_canvas,
    read_windows,
)
from tiling.source import SourceRect, read_source

IMAGE = np.arange(3 * 60 * 80, dtype="uint8").reshape(3, 60, 80)
VRT = """<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize(
    "names",
    [".OVR", ".Ovr", ".MSK", ".ovr .ovr.ovr", ".ovr .ovr.msk", ".msk .msk.ovr", ".MSK .MSK.OVR", ".ovr .ovr.OVR"],
)
def test_a_vrt_as_sidecar_of_any_spelling_or_depth_is_refused(make_raster, names):
    secret, path = make_raster(IMAGE[:1], "secret.tif"), make_raster(IMAGE[:1])
    *honest, evil = names.split()
    for name in honest:
        make_raster(IMAGE[:1, ::2, ::2] if "ovr" in name else IMAGE[:1], path.name + name, crs=None)
    path.with_name(path.name + evil).write_text(VRT.format(path=secret))
    with pytest.raises(RasterOpenError, match=r"another file|beside it") as error:
        open_raster(path)
    one_line(error)


@pytest.mark.parametrize("name", [".ovr", ".msk"])
def test_an_overview_that_borrows_is_refused(make_raster, name):
    secret, path = make_raster(IMAGE[:1], "secret.tif"), make_raster(IMAGE[:1])
    make_raster(IMAGE[:1, ::2, ::2] if name == ".ovr" else IMAGE[:1], path.name + name, crs=None)
    item = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata>'
    path.with_name(f"{path.name}{name}.aux.xml").write_text(f"<PAMDataset>{item}</PAMDataset>")
    with pytest.raises(RasterOpenError, match="from another file") as error:
        open_raster(path)
    assert "secret" in one_line(error)


def test_honest_sidecars_are_read(make_raster):
    path = make_raster(IMAGE[:1])
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as out:
        out.write_mask(IMAGE[0] > 9)
        out.build_overviews([2], Resampling.nearest)
    path.with_suffix(".tfw").write_text("0.5\n0\n0\n-0.5\n100.25\n199.75\n")
    path.with_name("image_MTL.txt").write_text("GROUP = L1_METADATA_FILE\nEND\n")
    assert {item.suffix for item in path.parent.iterdir()} == {".tif", ".ovr", ".msk", ".tfw", ".txt"}
    with open_raster(path) as raster:
        assert raster.info.overviews == (2,)
        assert raster.info.has_mask


def pyramid(folder, driver, **options):
    """A noisy picture of some 100 KB; in a TIFF with a mask, in a COG with overviews."""
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 2**7, (3, 256, 256)).astype("uint8")
    mask = np.full((256, 256), 255, "uint8")
    mask[:40, :90] = 0
    plain, path = folder / "plain.tif", folder / "whole.tif"
    place = {"crs": "EPSG:32631", "transform": from_origin(5e5, 5.8e6, 0.5, 0.5)}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(
            plain, "w", driver="GTiff", width=256, height=256, count=3, dtype="uint8", photometric="RGB", **place
        ) as out:
            out.write(picture)
            if driver in ("COG", "GTiff"):
                out.write_mask(mask)
        rasterio.shutil.copy(plain, path, driver=driver, **options)
    return path


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("COG", {"compress": "deflate", "blocksize": 128}),
        ("COG", {"compress": "jpeg", "quality": 95, "blocksize": 128}),
        ("GTiff", {"compress": "deflate"}),
        ("GTiff", {}),
        ("GTiff", {"compress": "lzw", "interleave": "band", "tiled": True, "blockxsize": 64, "blockysize": 64}),
        ("PNG", {}),
        ("JPEG", {"quality": 95}),
        ("JP2OpenJPEG", {"quality": "50"}),
    ],
    ids=["COG", "COG of JPEG", "strips", "uncompressed", "bands of LZW", "PNG", "JPEG", "JPEG 2000"],
)
def test_a_file_cut_off_anywhere_is_told_or_right(tmp_path, driver, options):
    """What cannot be read is an error, and what can be read is what the whole file holds."""
    path = pyramid(tmp_path, driver, **options)
    data = path.read_bytes()
    assert len(data) > 50_000

    def levels(file):
        with open_raster(file) as raster:
            found = {}
            for overview in (1, *raster.info.overviews):
                handle = raster.handle(overview)
                whole = SourceRect(0, 0, handle.width, handle.height)
                corner = SourceRect(0, 0, 32, 32)
                for rect in (corner, whole):
                    try:
                        array, valid = read_source(raster, (1, 2, 3), rect, overview=overview)
                    except RasterReadError as error:
                        assert "\n" not in str(error)
                        found["errors"] = found.get("errors", 0) + 1
                        continue
                    found[overview, rect] = array, np.ones(array.shape[1:], bool) if valid is None else valid
            return found

    truth = levels(path)
    assert "errors" not in truth
    cut = tmp_path / "cut.tif"
    told = 0
    for size in range(4096, len(data), 4096):
        cut.write_bytes(data[:size])
        try:
            found = levels(cut)
        except GeoAlignError as error:
            assert "\n" not in str(error)
            told += 1
            continue
        told += found.pop("errors", 0) > 0
        for key, (array, valid) in found.items():
            if key in truth:
                np.testing.assert_array_equal(valid, truth[key][1])
                np.testing.assert_array_equal(array, truth[key][0])
    assert told > 0.9 * (len(data) // 4096)


def test_a_sparse_giant_opens_and_gives_nothing_but_what_is_asked(tmp_path):
    path = tmp_path / "giant.tif"
    profile = {"driver": "GTiff", "width": 400_000, "height": 400_000, "count": 3, "dtype": "uint8", "nodata": 0}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=from_origin(0, 6e6, 0.5, 0.5), **profile):
        pass
    with open_raster(path) as raster:
        bands = choose_bands(raster.info)
        canvas = pixel_canvas(raster.info)
        window = Window(399_000, 399_500, 500, 500)
        tile = next(read_windows(raster, canvas, [window], bands=bands, stretch=Stretch("none")))
        assert not tile.valid.any()
        with pytest.raises(UnsupportedRasterError, match="far too fine"):
            canvas = plan_canvas(raster.info, 5000)
            next(read_windows(raster, canvas, [Window(0, 0, 1, 1)], bands=bands, stretch=Stretch("none")))


@pytest.mark.parametrize("kind", ["file", "mosaic", "warp"])
def test_the_first_reads_of_a_process_may_be_concurrent(tmp_path, make_raster, kind):
    """Drivers that a thread needs were used before by the opening thread: a deadlock would hold the watchdog's bone."""
    path = make_raster(np.tile(IMAGE, (1, 4, 4)), tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(np.full((240, 320), True))
        out.build_overviews([2, 4], Resampling.nearest)
    code = """
import faulthandler, sys, threading
faulthandler.dump_traceback_later(50, exit=True)
from tiling import open_raster
from tiling.mosaic import open_mosaic
from tiling.warp import warp_raster
kind, path = sys.argv[1:]
raster = open_mosaic([path, path]) if kind == "mosaic" else open_raster(path)
raster = warp_raster(raster, "EPSG:3857") if kind == "warp" else raster
from tiling.source import SourceRect, read_source
gate = threading.Barrier(12)
def work(number):
    gate.wait()
    for overview in raster.info.overviews[::-1] + (1,):
        read_source(raster, (1, 2, 3), SourceRect(number, number, 40, 40), overview=overview)
with raster:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, kind, str(path)],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
