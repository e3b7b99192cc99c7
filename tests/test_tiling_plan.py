"""Which windows are tiles, what a job is told to need, and requests that no machine could meet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from tiling import Length, UsageError, open_raster
from tiling.cli import command
from tiling.clikit import run_cli
from tiling.plan import lay_out


def sparse(path, width, height, count=1, **profile):
    """Write a raster that takes no room on the disk."""
    kind = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": "uint8", **profile}
    place = from_origin(500000, 5800000, 1, 1)
    with rasterio.open(path, "w", SPARSE_OK=True, BIGTIFF="YES", crs="EPSG:32631", transform=place, **kind):
        pass
    return path


@pytest.fixture(scope="module")
def giant(tmp_path_factory):
    return sparse(tmp_path_factory.mktemp("giant") / "giant.tif", 400_000, 400_000, tiled=True)


def dry_run(capsys, *arguments):
    code = run_cli(command, [*map(str, arguments), "--dry-run", "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out)["rasters"][0] if code == 0 else err


def test_a_small_area_of_a_giant_raster_is_found_at_once(giant, tmp_path, capsys):
    area = "899000,5400500,899300,5400700"
    code, told = dry_run(capsys, giant, "-o", tmp_path / "out", "--tile", "64px", "--aoi", area)
    assert code == 0
    assert told["in_grid"] == 6250**2
    # 300 × 200 m over windows that begin at multiples of 64 px.
    assert told["windows"] == 6 * 4
    assert told["read_px"] <= 4 * 512**2


@settings(max_examples=60, deadline=None)
@given(
    tile=st.integers(1, 90),
    overlap=st.integers(0, 80),
    edge=st.sampled_from(["shift", "pad", "partial", "drop"]),
    box=st.tuples(*[st.floats(0, 200)] * 4).map(lambda b: (*np.minimum(b[:2], b[2:]), *np.maximum(b[:2], b[2:]))),
)
def test_the_area_picks_what_shares_surface_in_the_order_of_all(tmp_path_factory, tile, overlap, edge, box):
    if box[2] - box[0] < 0.1 or box[3] - box[1] < 0.1:
        return
    path = tmp_path_factory.getbasetemp() / "plan.tif"
    with open_raster(path if path.exists() else sparse(path, 210, 190)) as raster:
        lengths = Length(tile, "px"), Length(overlap * tile // 100, "px")
        whole = lay_out(raster, *lengths, edge=edge)
        left, top, right, bottom = box
        text = f"{500000 + left},{5800000 - min(bottom, 190)},{500000 + right},{5800000 - min(top, 189)}"
        some = lay_out(raster, *lengths, edge=edge, area=text)
    expected = []
    for window in whole.windows:
        place = shapely.box(window.col_off_px, window.row_off_px, window.col_end_px, window.row_end_px)
        if place.relate_pattern(some.area, "T********"):
            expected.append(window)
    assert list(some.windows) == expected


@pytest.mark.parametrize(("tile", "edge"), [("100000px", "pad"), ("10000000px", "pad"), ("100000px", "shift")])
def test_tiles_that_no_memory_holds_are_refused(giant, tmp_path, capsys, tile, edge):
    code, told = dry_run(capsys, giant, "-o", tmp_path / "out", "--tile", tile, "--edge", edge)
    assert code == 2
    assert "too large to be held in memory" in told
    assert "use a smaller tile" in told


def test_a_tile_larger_than_the_raster_is_measured_as_it_is_cut(make_raster):
    with open_raster(make_raster(np.ones((3, 60, 80), "uint8"))) as raster:
        assert len(lay_out(raster, Length(100_000, "px")).windows) == 1
        with pytest.raises(UsageError, match=r"100000 × 100000 px of 3 bands are 27\.9 GB"):
            lay_out(raster, Length(100_000, "px"), edge="pad")


@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.1])
def test_a_share_of_valid_pixels_is_a_share(make_raster, share):
    with open_raster(make_raster(np.ones((1, 60, 80), "uint8"))) as raster, pytest.raises(UsageError, match="0 to 1"):
        lay_out(raster, Length(16, "px"), min_valid=share)


def test_memory_counts_the_cells_of_one_window(tmp_path, capsys):
    """A window of a file in one-row strips needs all bands of its rows over the whole width."""
    strips = sparse(tmp_path / "strips.tif", 300_000, 600, 3, blockysize=1)
    squares = sparse(tmp_path / "squares.tif", 300_000, 600, 3, tiled=True)
    area = ("--tile", "512px", "--aoi", "500000,5799488,500512,5800000")
    _, wide = dry_run(capsys, strips, "-o", tmp_path / "out", *area)
    _, usual = dry_run(capsys, squares, "-o", tmp_path / "out", *area)
    assert wide["memory_bytes"] > 300_000 * 512 * 3 > usual["memory_bytes"]
    many = sparse(tmp_path / "many.tif", 600, 600, 200, dtype="uint16", tiled=True)
    _, deep = dry_run(capsys, many, "-o", tmp_path / "out", "--tile", "256px")
    assert deep["memory_bytes"] > 512 * 512 * 200 * 2
