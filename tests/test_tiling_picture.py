"""The picture of a plan: its colours lie where the tiles lie, and no raster breaks it. Its looks are for eyes."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tiling.canvas import pixel_canvas, plan_canvas
from tiling.chips import picture
from tiling.chips.kinds import left_out_ground, sort_windows
from tiling.chips.picture import draw_plan
from tiling.errors import OutputExistsError
from tiling.grid import TileGrid
from tiling.raster import open_raster

REPO = Path(__file__).resolve().parents[1]


def noise(height, width, bands=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(60, 200, (bands, height, width)).astype(dtype)


def draw(path, out, tile=64, stride=64, *, edge="shift", gsd_m=None, windows=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with open_raster(path) as raster:
            canvas = plan_canvas(raster.info, gsd_m) if gsd_m else pixel_canvas(raster.info)
            grid = TileGrid(canvas.width_px, canvas.height_px, tile, stride, edge)
            chosen = list(grid) if windows is None else windows(grid)
            options = {key: value(chosen) if callable(value) else value for key, value in options.items()}
            draw_plan(raster, canvas, grid, chosen, path=out, **options)
    return Image.open(out)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (40, 4000), (700, 30), (513, 257)])
@pytest.mark.parametrize("edge", ["shift", "pad", "partial", "drop"])
def test_any_shape_can_be_drawn(make_raster, tmp_path, height, width, edge):
    image = draw(make_raster(noise(height, width)), tmp_path / "plan.png", edge=edge)
    assert image.format == "PNG"
    assert 500 < max(image.size) < 1700


@pytest.mark.parametrize(
    "profile",
    [
        {"crs": None, "transform": Affine.identity()},
        {"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 10, 0, -1e-5, 60)},
        {"transform": Affine(0.5, 0, 5e5, 0, 0.5, 58e5)},
        {"transform": Affine(0.5, 0, 5e5, 0, -0.5, 58e5) * Affine.rotation(30)},
        {"nodata": 100},
        {"crs": "+proj=laea +lat_0=52 +lon_0=5"},
    ],
    ids=["no CRS", "degrees", "south-up", "rotated", "nodata", "no code"],
)
def test_any_placing_can_be_drawn(make_raster, tmp_path, profile):
    draw(make_raster(noise(200, 300), **profile), tmp_path / "plan.png")


@pytest.mark.parametrize(
    "array",
    [
        noise(100, 100, 1, np.complex64),
        np.full((1, 100, 100), np.nan, np.float32),
        noise(100, 100, 5, np.uint16),
        noise(100, 100, 2, np.float64),
    ],
    ids=["complex", "empty", "bands", "float"],
)
def test_any_samples_can_be_drawn(make_raster, tmp_path, array):
    draw(make_raster(array), tmp_path / "plan.png")


def test_a_coarser_canvas_is_drawn_in_place(make_raster, tmp_path):
    draw(make_raster(noise(400, 400)), tmp_path / "plan.png", gsd_m=2.0, labels=lambda windows: [3] * len(windows))


def frame(image):
    """The part of the page with the raster, as (H, W, 3) of floats."""
    size = image.size
    left, top = picture._MARGIN_PX, picture._MARGIN_PX + picture._TITLE_PX
    right = size[0] - picture._SIDE_PX - 2 * picture._MARGIN_PX
    return np.asarray(image.convert("RGB"), np.float32)[top : top + right - left, left:right]


@pytest.mark.parametrize("tile", [64, 4], ids=["tiles", "map"])
def test_colours_lie_where_the_parts_lie(make_raster, tmp_path, tile):
    def halves(windows):
        return ["train" if window.col_off_px < 128 else "test" for window in windows]

    path = make_raster(np.full((3, 256, 256), 128, np.uint8))
    image = frame(draw(path, tmp_path / "plan.png", tile, tile, parts=halves))
    size = image.shape[1]
    train, test = image[:, : size // 2 - 4].mean(axis=(0, 1)), image[:, size // 2 + 4 :].mean(axis=(0, 1))
    assert train[2] > train[0] + 20
    assert test[0] > test[2] + 20


def test_what_is_left_out_is_paler_than_what_is_kept(make_raster, tmp_path):
    area = shapely.box(0, 0, 120, 256)
    image = frame(
        draw(
            make_raster(np.full((3, 256, 256), 60, np.uint8)), tmp_path / "plan.png", area=area,
            windows=lambda grid: [window for window in grid if window.col < 2],
        )
    )  # fmt: skip
    size = image.shape[1]
    kept, left_out = image[:, 20 : size // 3].std(axis=2).mean(), image[:, size * 2 // 3 :].std(axis=2).mean()
    assert kept > 2 * left_out
    assert image[:, size * 2 // 3 :].mean() > image[:, 20 : size // 3].mean() + 30


def overlapping(tmp_path, make_raster, array):
    """Draw tiles with half overlap; the left half is kept, the right half is left out for two reasons."""
    return frame(
        draw(
            make_raster(array), tmp_path / "plan.png", 64, 32, windows=lambda grid: [w for w in grid if w.col < 3],
            left_out={"blank": [TileGrid(256, 256, 64, 32).window(row, 4) for row in range(7)]},
        )
    )  # fmt: skip


def test_what_is_left_out_is_dimmed_once_where_windows_overlap(make_raster, tmp_path):
    image = overlapping(tmp_path, make_raster, np.full((3, 256, 256), 60, np.uint8))
    step = image.shape[1] / 8
    # Between the lines of a hatch lies the dimmed image, everywhere the same.
    cells = image[:, round(4.2 * step) :, 0]
    tones, counts = np.unique(cells, return_counts=True)
    assert cells.max() == tones[counts.argmax()]
    assert all((strip == cells.max()).mean() > 0.3 for strip in np.array_split(cells, 8, axis=1))


def test_no_hatch_runs_over_what_is_kept(make_raster, tmp_path):
    image = overlapping(tmp_path, make_raster, np.full((3, 256, 256), 60, np.uint8))
    step = image.shape[1] / 8
    inner = image[round(1.1 * step) : round(1.9 * step), round(3.1 * step) : round(3.9 * step)]
    assert np.ptp(inner, axis=(0, 1)).max() <= 1


@pytest.mark.parametrize("stride", [64, 51, 32, 16])
def test_the_image_stays_visible_under_tiles(make_raster, tmp_path, stride):
    array = np.full((3, 256, 256), 20, np.uint8)
    array[:, :, 128:] = 220
    image = frame(draw(make_raster(array), tmp_path / "plan.png", 64, stride))
    half = image.shape[1] // 2
    assert np.median(image[:, half:]) - np.median(image[:, :half]) > 0.5 * 200


@given(
    side=st.integers(10, 60), tile=st.integers(2, 20), overlap=st.integers(0, 19),
    edge=st.sampled_from(["shift", "pad"]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_ground_of_no_tile_is_divided_among_the_reasons(side, tile, overlap, edge, seed):
    grid = TileGrid(side, side + 3, tile, max(1, tile - overlap), edge)
    deal = np.random.default_rng(seed).integers(0, 4, len(grid))
    of = [[window for window, lot in zip(grid, deal, strict=True) if lot == which] for which in range(4)]
    kinds = sort_windows(grid, of[0] + of[1], ["train"] * len(of[0]) + ["val"] * len(of[1]),
                         {"first": of[2], "second": of[3]}, None)  # fmt: skip
    size = max(grid.height_px, *(w.row_end_px for w in grid)), max(grid.width_px, *(w.col_end_px for w in grid))
    cover = np.zeros((4, *size), bool)
    for which, windows in enumerate(of):
        for w in windows:
            cover[which, w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px] = True
    free = ~(cover[0] | cover[1])
    bare, grounds = left_out_ground(kinds, size[1], size[0])
    assert bare.area == free.sum()
    areas = {reason: ground.area for reason, ground in grounds.items()}
    wanted = {"first": (free & cover[2]).sum(), "second": (free & cover[3] & ~cover[2]).sum()}
    assert areas == {reason: area for reason, area in wanted.items() if area}


def test_windows_that_were_only_counted_take_the_rest_of_the_ground():
    grid = TileGrid(400_000, 400_000, 64, 64)
    bare, grounds = left_out_ground(sort_windows(grid, [grid.window(3, 4)], None, {}, None), 400_000, 400_000)
    assert bare.area == grounds["left out"].area == 400_000**2 - 64**2


def named(kinds):
    return {kind.name: kind.count for kind in kinds}


def test_every_window_is_of_one_kind():
    grid = TileGrid(640, 640, 64, 64)
    area = shapely.box(0, 0, 640, 320)
    inside = [window for window in grid if window.row < 5]
    kept = [window for window in inside if window.col < 8]
    parts = [("train", "val", None)[window.col % 3] for window in kept]
    kinds = sort_windows(grid, kept, parts, {"without a label": [inside[9]]}, area)
    counts = named(kinds)
    assert counts == {
        "train": 15, "val": 15, "between the parts of the split": 10, "without a label": 1, "outside the area": 50,
        "too few valid pixels": 9,
    }  # fmt: skip
    assert sum(counts.values()) == len(grid)


def test_a_giant_grid_is_counted_not_walked():
    grid = TileGrid(400_000, 400_000, 64, 64)
    kinds = sort_windows(grid, [grid.window(3, 4)], None, {}, None)
    assert named(kinds) == {"tiles": 1, "left out": len(grid) - 1}


def test_a_giant_raster_without_overviews_is_drawn_without_its_image(tmp_path, make_raster):
    path = tmp_path / "giant.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=100_000, height=100_000, dtype="uint8", tiled=True, crs="EPSG:32631",
        transform=Affine(0.5, 0, 5e5, 0, -0.5, 58e5), SPARSE_OK=True, BIGTIFF="YES",
    ):  # fmt: skip
        pass
    with open_raster(path) as raster:
        assert picture._preview(raster) is None
    draw(path, tmp_path / "plan.png", 1024, 1024, windows=lambda grid: [grid.window(5, 5)])


def test_pictures_repeat_themselves_and_replace_only_when_told(make_raster, tmp_path):
    path = make_raster(noise(200, 200))
    draw(path, tmp_path / "a.png")
    draw(path, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(OutputExistsError):
        draw(path, tmp_path / "a.png")
    draw(path, tmp_path / "a.png", overwrite=True)
    assert {item.name for item in tmp_path.iterdir()} == {"a.png", "b.png", "image.tif"}


@pytest.mark.parametrize("title", ["$x_1$ and \\frac", "運河 🛶", "a" * 500, "two\nlines"])
def test_any_title_can_be_written(make_raster, tmp_path, title):
    draw(make_raster(noise(50, 50)), tmp_path / "plan.png", title=title)


def test_the_diagrams_of_the_docs_are_drawn_by_the_code(tmp_path):
    done = subprocess.run(
        [sys.executable, REPO / "docs" / "diagrams.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    page = (REPO / "docs" / "how-tiling-works.md").read_text(encoding="utf-8")
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (REPO / "docs" / "images").glob("tiling-*.png")}
    assert drawn == set(re.findall(r"\(images/(tiling-[a-z]+\.png)\)", page))
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert 900 <= image.width <= 1500
