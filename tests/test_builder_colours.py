"""Colours in words: named where they are clear, relative to the picture's grey."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.builder.appearance import region_appearance
from training.builder.colour_words import may_be
from training.builder.colours import COLOURS, UNNAMED, colour_indices, lab, tint_of
from training.builder.consistency import check, unjudged_colours
from training.data.images import decode
from training.data.readers import open_source
from training.data.schema import Record, Region

CAR = Region((0.4, 0.3, 0.6, 0.7), category="car")
CONCRETE = (150, 149, 147)


def street(paint, ground=CONCRETE, windows=None, tint=(1.0, 1.0, 1.0)):
    """Return a picture (200, 200, 3) of one car on the ground as a camera of some tint shows it, with its noise."""
    image = np.empty((200, 200, 3))
    image[:] = ground
    image[60:140, 80:120] = paint
    if windows is not None:
        image[72:88, 84:116] = image[112:128, 84:116] = windows
    noisy = image * tint + np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def colour(image):
    look = region_appearance(image, CAR)
    return look.colour if look else None


def test_lab_has_the_values_of_the_standard():
    linear = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0.18, 0.18, 0.18]], dtype=np.float32)
    expected = [[100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [49.50, 0, 0]]  # of sRGB under D65
    assert np.allclose(lab(linear), expected, atol=0.05)


@pytest.mark.parametrize("rgb", [(41, 56, 70), (40, 55, 68), (115, 137, 157), (90, 100, 112), (70, 62, 60)])
def test_bluish_dark_and_silver_pixels_have_no_hue(rgb):
    names = colour_indices(np.array([rgb], dtype=np.uint8))
    assert names[0] == UNNAMED or COLOURS[names[0]] in ("black", "gray")


@pytest.mark.parametrize(
    ("paint", "name"),
    [((30, 60, 170), "blue"), ((70, 130, 200), "blue"), ((190, 30, 40), "red"), ((230, 205, 60), "yellow"),
     ((25, 27, 30), "black"), ((245, 245, 243), "white"), ((38, 52, 66), None), ((60, 14, 24), None)],
)  # fmt: skip
def test_paint_has_its_name_or_none(paint, name):
    assert colour(street(paint)) == name


@pytest.mark.parametrize("tint", [(0.88, 1.0, 1.1), (1.05, 0.93, 0.9)])
def test_the_cameras_tint_is_not_the_paints(tint):
    assert np.argmax(tint_of(street((240, 240, 240), tint=tint))) == np.argmax(tint)
    for paint, name in (((28, 28, 28), "black"), ((226, 226, 226), "white"), ((40, 70, 180), "blue")):
        assert colour(street(paint, tint=tint)) == name
    assert colour(street((110, 112, 115), ground=(170, 169, 167), tint=tint)) in ("gray", None)


def test_windows_roofs_and_stripes_do_not_name_a_car():
    assert colour(street((158, 158, 160), windows=(20, 22, 25))) is None  # silver: only its windows differ
    roof = street((240, 240, 240))
    roof[75:125, 85:115] = (15, 15, 15)
    assert colour(roof) != "black"
    stripes = street((20, 20, 20))
    stripes[60:140:8] = stripes[61:140:8] = stripes[62:140:8] = stripes[63:140:8] = (200, 202, 204)
    assert colour(stripes) is None


def test_a_wood_or_the_sea_is_not_taken_for_grey():
    green = np.full((64, 64, 3), (40, 110, 50), np.uint8)
    assert tint_of(green).tolist() == [1, 1, 1]
    assert {COLOURS[i] for i in np.unique(colour_indices(green, tint_of(green)))} == {"green"}


def test_real_cars_seen_by_eye(data_dir):
    """By file and number of the box: none of the dark, silver and striped ones is blue; the white ones are white."""
    folder = data_dir / "boxes" / "vehicles"
    cars = {"0_26": [3], "1_12": [3, 5, 6, 11], "1_26": [0, 1, 2, 4], "1_27": [1, 8], "1_33": [0, 3, 4, 8]}
    white = {"0_14": [0, 2], "1_12": [2], "1_27": [2, 6], "1_33": [7]}
    names = {}
    for record in open_source(folder, None).records():
        stem = record.image.rpartition("/")[2].partition(".")[0]
        if stem in cars | white:
            image = decode((folder / record.image).read_bytes(), record.image)
            looks = [region_appearance(image, region) for region in record.regions]
            names[stem] = [look.colour if look else None for look in looks]
    assert not [(stem, i) for stem, numbers in cars.items() for i in numbers if names[stem][i] == "blue"]
    assert {names[stem][i] for stem, numbers in white.items() for i in numbers} == {"white"}


# ---- what check finds


def findings(text, image):
    return [item.kind for item in check(Record(image="a", regions=(replace(CAR, phrase=text),)), image)]


def test_check_finds_a_hue_that_nothing_shows_and_leaves_doubt_alone():
    black, blue, teal = street((38, 46, 54)), street((30, 60, 170)), street((70, 96, 118))
    assert findings("a blue car", black) == findings("a white car", black) == ["colour"]
    assert findings("a black car", blue) == findings("a red car", blue) == ["colour"]
    assert not findings("a blue car", blue) and not findings("a black car", black)
    assert not findings("a gray car", teal) and not findings("a silver car", street((185, 186, 188)))
    assert findings("a golden car", blue) == ["colour"]


def test_colours_of_a_few_pixels_are_counted_as_not_judged():
    record = Record(image="a", regions=(Region((0.5, 0.5, 0.51, 0.505), category="car", phrase="a red car"),))
    image = street((20, 20, 20))
    assert not check(record, image) and unjudged_colours(record, image) == 1
    assert unjudged_colours(replace(record, regions=(replace(CAR, phrase="a red car"),)), image) == 0


def test_silver_is_near_to_gray_and_blue_to_no_shade():
    assert may_be("silver", {"gray"}) and may_be("grey", {"gray"}) and may_be("golden", {"yellow"})
    assert not may_be("blue", {"black", "gray"}) and not may_be("black", {"blue"}) and not may_be("orange", {"gray"})
