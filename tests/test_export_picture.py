"""The picture: where things are drawn, and that no input breaks it. Its looks are for eyes."""

import math
import warnings

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from geoalign_core.export import draw_classes_picture, draw_picture, overlay
from geoalign_core.export.furniture import bar_length_px, to_display
from geoalign_core.export.page import Page, clean_text
from geoalign_core.export.view import length_label, north_on_page, plan_view, round_length
from tiling.errors import OutputExistsError, UsageError

UTM = CRS.from_epsg(32631)
NORTH_UP = Affine(0.5, 0, 500000, 0, -0.5, 5800000)


def scene(width=120, height=90, transform=NORTH_UP, crs=UTM, spots=3):
    rng = np.random.default_rng(0)
    image = rng.integers(40, 200, (height, width, 3), dtype=np.uint8)
    heat = rng.random((max(height // 8, 1), max(width // 8, 1)), dtype=np.float32) * 0.4
    corners = [transform * (width * k / 8, height * k / 8) for k in range(1, spots + 1)]
    size = abs(transform.a) * 6 + abs(transform.b) * 6
    boxes = gpd.GeoDataFrame(
        {"score": np.linspace(0.9, 0.6, spots), "rank": np.arange(1, spots + 1)},
        geometry=[shapely.Point(*corner).buffer(size, cap_style="square") for corner in corners], crs=crs,
    )  # fmt: skip
    return {
        "image": image, "image_valid": None, "transform": transform, "crs": crs, "heat": heat,
        "heat_transform": transform * Affine.scale(width / heat.shape[1], height / heat.shape[0]), "boxes": boxes,
        "query": "moored boats", "threshold": 0.5, "model": "test", "gsd_m": 0.5,
    }  # fmt: skip


def draw(path, **changes):
    shape = {key: changes.pop(key) for key in ("width", "height", "transform", "crs", "spots") if key in changes}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return Image.open(draw_picture(path, **{**scene(**shape), **changes}))


def test_picture_is_a_png_of_sane_size_and_repeats_itself(tmp_path):
    picture = draw(tmp_path / "a.png")
    assert picture.format == "PNG"
    assert 900 < max(picture.size) < 1800
    assert picture.text["Title"] == "moored boats"
    draw(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert {item.name for item in tmp_path.iterdir()} == {"a.png", "b.png"}


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 2000), (2000, 1), (2000, 30), (300, 2000), (7, 5), (2048, 2048)]
)
def test_any_shape_gives_a_readable_page(tmp_path, width, height):
    picture = draw(tmp_path / "a.png", width=width, height=height)
    assert min(picture.size) > 200 and max(picture.size) <= 1800


@pytest.mark.parametrize(
    "query",
    ["", "$x_1$ costs $5", "游泳池 🏊‍♀️ \N{ARABIC LETTER BEH}", "a\nb\x00c\ud800", "w" * 3000, "many words " * 300],
)
def test_any_question_can_be_drawn(tmp_path, query, capfd):
    draw(tmp_path / "a.png", query=query, model=query)
    assert capfd.readouterr().err == ""


def test_nothing_found_and_nothing_valid(tmp_path):
    found = draw(tmp_path / "a.png", spots=0)
    assert "no match above 0.50 — best is 0.4" in found.text["Description"]
    heat = np.full((4, 4), np.nan, np.float32)
    empty = draw(tmp_path / "b.png", spots=0, heat=heat, image_valid=np.zeros((90, 120), bool))
    assert "no valid pixel" in empty.text["Description"]


def test_pixel_mode_has_no_north(tmp_path):
    draw(tmp_path / "a.png", transform=Affine.identity(), crs=None, gsd_m=None)
    view = plan_view(120, 90, Affine.identity(), None)
    assert north_on_page(view, None) is None
    assert view.unit == "px" and bar_length_px(view) > 50


def test_refusals(tmp_path):
    draw(tmp_path / "a.png")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        draw(tmp_path / "a.png")
    with pytest.raises(UsageError):
        draw(tmp_path / "b.png", image=np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("rotation", [0, 35, -120, 180])
def test_north_follows_the_affine(rotation):
    transform = Affine.translation(500000, 5800000) * Affine.rotation(rotation) * Affine.scale(0.5, -0.5)
    right, down = north_on_page(plan_view(200, 100, transform, UTM), UTM)
    # On the central meridian true north is grid north; the image's own up points `rotation` degrees left of it.
    expected = math.radians(rotation)
    assert (right, -down) == pytest.approx((math.sin(expected), math.cos(expected)), abs=2e-3)


def test_north_is_true_near_a_pole_and_down_when_south_is_up():
    polar = CRS.from_epsg(3031)
    right, _ = north_on_page(plan_view(100, 100, Affine(100, 0, 1e6, 0, -100, 0), polar), polar)
    assert right == pytest.approx(1, abs=0.02)
    south_up = Affine(0.5, 0, 500000, 0, 0.5, 5800000)
    assert north_on_page(plan_view(10, 10, south_up, UTM), UTM)[1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [
        (32631, Affine(0.5, 0, 499900, 0, -0.5, 6653000)),
        (3857, Affine(1, 0, 334000, 0, -1, 8399737)),
        (4326, Affine(1e-5, 0, 3.0, 0, -5e-6, 60.0)),
    ],
)
def test_scale_bar_is_true_ground_length(epsg, transform):
    from pyproj import Geod, Transformer

    crs = CRS.from_epsg(epsg)
    view = plan_view(400, 300, transform, crs)
    length = bar_length_px(view) * view.unit_per_px
    x, y = view.width_px / 2, view.height_px / 2
    ends = [view.to_map * (x + sign * bar_length_px(view) / 2, y) for sign in (-1, 1)]
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(*zip(*ends, strict=True))
    assert Geod(ellps="WGS84").line_length(lon, lat) == pytest.approx(length, rel=2e-3)
    aspect = (view.width_px / 400) / (view.height_px / 300)
    assert aspect == pytest.approx({4326: 1.0, 3857: 1.0, 32631: 1.0}[epsg], rel=0.02)


def test_round_lengths_and_labels():
    assert [round_length(x) for x in (260, 1999, 0.7, 5, 49.9)] == [200, 1000, 0.5, 5, 20]
    assert [length_label(x, "m") for x in (0.2, 50, 2000, 5e6)] == ["20 cm", "50 m", "2 km", "5,000 km"]


def test_heat_lands_where_it_belongs():
    view = plan_view(80, 40, NORTH_UP, UTM)
    heat = np.zeros((5, 10), np.float32)
    heat[1, 7] = 1.0
    placed = overlay.place_heat(heat, NORTH_UP * Affine.scale(8), view)
    assert not np.isnan(placed).any()
    row, col = np.unravel_index(placed.argmax(), placed.shape)
    assert (col + 0.5) / view.zoom_x == pytest.approx(60, abs=0.2)
    assert (row + 0.5) / view.zoom_y == pytest.approx(12, abs=0.2)
    xy = to_display(np.array([NORTH_UP * (60, 12)]), view)[0]
    assert xy == pytest.approx([col + 0.5, row + 0.5], abs=1)


def test_heat_keeps_holes_and_ends_with_its_raster():
    view = plan_view(80, 40, NORTH_UP, UTM)
    heat = np.full((5, 10), 0.7, np.float32)
    heat[:, 0] = np.nan
    placed = overlay.place_heat(heat, NORTH_UP * Affine.scale(4), view)
    quarter = placed[: view.height_px // 2, : view.width_px // 2]
    assert np.isnan(placed[view.height_px // 2 + 1 :]).all()
    assert np.isnan(quarter[:, : int(4 * view.zoom_x)]).mean() > 0.9
    assert np.nanmin(quarter) == pytest.approx(0.7) == np.nanmax(quarter)


def test_finer_heat_is_averaged():
    view = plan_view(20, 20, NORTH_UP, UTM)
    factor = 4 * view.width_px
    fine = np.tile(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), (factor // 2, factor // 2))
    placed = overlay.place_heat(fine, NORTH_UP * Affine.scale(20 / factor), view)
    assert np.abs(placed - 0.5).max() < 1e-5


def test_image_stays_untouched_where_the_heat_is_weak():
    view = plan_view(1600, 1200, NORTH_UP, UTM)
    image = np.random.default_rng(0).integers(0, 255, (view.height_px, view.width_px, 3), dtype=np.uint8)
    base = overlay.render_image(image, None, view)
    weak = overlay.blend_heat(base, np.full(image.shape[:2], 0.2, np.float32), 0.5)
    np.testing.assert_array_equal(weak, image)
    strong = overlay.blend_heat(base, np.full(image.shape[:2], 1.0, np.float32), 0.5)
    assert np.abs(strong.astype(int) - image).mean() > 20


def test_class_picture(tmp_path):
    classes = np.repeat(np.arange(40, dtype=np.uint8)[None], 30, axis=0)
    for name, shape in (("wide", (300, 200)), ("tall", (60, 300))):
        given = scene(*shape)
        path = draw_classes_picture(
            tmp_path / f"{name}.png", image=given["image"], image_valid=None, transform=NORTH_UP, crs=UTM,
            classes=classes, class_transform=NORTH_UP * Affine.scale(shape[0] / 40, shape[1] / 30),
            names=[f"class {k} " + "x" * k for k in range(1, 40)], model="test", gsd_m=1.0,
        )  # fmt: skip
        picture = Image.open(path)
        assert "39 classes" in picture.text["Description"]
    view = plan_view(40, 30, NORTH_UP, UTM)
    placed = overlay.place_classes(classes, NORTH_UP, view)
    assert placed[0, 0] == 0 and placed[-1, -1] == 39


def test_wrapping_fits_and_says_when_it_cuts():
    page = Page(100, 100)
    lines = page.wrap(clean_text("a long question about swimming pools " * 5), 20, 300, lines=2)
    assert len(lines) == 2 and lines[1].endswith("…")
    assert all(page.text_size(line, 20)[0] <= 300 for line in lines)
    assert page.wrap("short", 20, 300, lines=2) == ["short"]
    assert len(page.wrap("游" * 100, 20, 200, lines=3)) == 3


def test_matplotlib_stays_as_it_was(tmp_path):
    import sys

    import matplotlib as mpl

    before = dict(mpl.rcParams)
    had_pyplot = "matplotlib.pyplot" in sys.modules
    draw(tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
