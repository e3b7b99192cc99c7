"""What the embedded model says of the sample image: the demo's promise, checked at places that a person named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import shapely

import geoalign_core as ga
from geoalign_core.answer import ask_texts, prepare
from geoalign_core.settings import Settings

pytestmark = pytest.mark.model

NAMES = ["water", "trees", "buildings", "parking lot"]
PLACES = {
    "water": [(200, 250), (560, 500), (420, 850), (740, 200)],
    "trees": [(560, 190), (350, 700), (640, 80), (960, 960)],
    "buildings": [(240, 620), (470, 90), (380, 30)],
    "parking lot": [(560, 850), (610, 790)],
}
"""Columns and rows of samples/canal.tif (0.25 m, 1000 × 1000) where one looks and sees the thing."""
TANKS = [(367, 22, 45), (479, 76, 18), (461, 107, 18), (376, 126, 20)]
"""Column, row and radius of round tanks in the factory at the top."""


@pytest.fixture(scope="module")
def canal(tmp_path_factory):
    from tests.conftest import REPO

    path = tmp_path_factory.mktemp("sample") / "canal.tif"
    shutil.copy(REPO / "samples" / "canal.tif", path)
    return path


def on_map(col, row):
    return 127375 + col * 0.25, 428250 - row * 0.25


def value_at(heat, col, row):
    x, y = ~heat.transform * on_map(col, row)
    return heat.values[int(y), int(x)]


def test_land_cover_is_right_where_a_person_looks(canal):
    with prepare(canal, Settings(device="cpu")) as ready:
        answers, classes, _ = ask_texts(ready, NAMES, classes=True)
    right = total = 0
    for number, (name, spots) in enumerate(PLACES.items(), 1):
        for col, row in spots:
            x, y = ~classes.heatmap.transform * on_map(col, row)
            right += classes.classes[int(y), int(x)] == number
            total += 1
        here = np.mean([value_at(answers[number - 1].heatmap, *spot) for spot in spots])
        others = [spot for other, places in PLACES.items() if other != name for spot in places]
        assert here > 2 * np.mean([value_at(answers[number - 1].heatmap, *spot) for spot in others]), name
    assert right >= total - 3


def test_the_heatmap_lies_on_the_image(canal):
    heat = ga.heatmap(canal, "water", device="cpu")
    height, width = heat.values.shape
    right, bottom = heat.transform * (width, height)
    assert (heat.transform.c, heat.transform.f) == (127375, 428250)
    assert right == pytest.approx(127625, abs=heat.gsd_m)
    assert bottom == pytest.approx(428000, abs=heat.gsd_m)
    assert np.isfinite(heat.values).all()


def test_one_tank_finds_the_others(canal):
    """Search by example reaches small things that the words do not."""
    boxes = [shapely.Point(on_map(col, row)).buffer(radius * 0.25).envelope for col, row, radius in TANKS]
    found = ga.similar(canal, boxes[:2], exclude=[shapely.box(127480, 428080, 127500, 428100)], top=12, device="cpu")
    assert any(found.intersects(boxes[2])) or any(found.intersects(boxes[3]))
    factory = shapely.box(*on_map(170, 200), *on_map(620, 0))
    assert found.geometry.centroid.within(factory).head(1).all()
