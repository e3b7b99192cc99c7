"""Phrases that fit one region of a picture, and those that fit several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.builder.ambiguity import fitting
from training.builder.appearance import colours_shown
from training.builder.consistency import check
from training.builder.describe import describe_regions
from training.data.schema import Record, Region

CONCRETE = (150, 149, 147)


def pair(*colours):
    """Return a picture with cars of these colours in a column on the right, and its record."""
    image, regions = np.full((200, 200, 3), CONCRETE, np.uint8), []
    for number, paint in enumerate(colours):
        top = 70 + 40 * number
        image[top : top + 20, 160:180] = paint
        regions.append(Region((0.8, top / 200, 0.9, (top + 20) / 200), category="car"))
    return image, Record(image="a", width=200, height=200, regions=tuple(regions))


def test_a_phrase_without_colour_fits_a_coloured_neighbour():
    image, record = pair((245, 245, 243), (158, 158, 160))
    texts = ("a white car on the right side of the image", "a car on the right side of the image")
    said = replace(record, regions=tuple(replace(r, phrase=t) for r, t in zip(record.regions, texts, strict=True)))
    assert [item.where for item in check(said, image) if item.kind == "ambiguous"] == ["regions[1].phrase"]
    told = describe_regions(record, image)
    assert not [item for item in check(told, image) if item.kind == "ambiguous"]
    assert "bottommost" in told.regions[1].phrase


def test_what_a_phrase_fits_is_what_is_true_of_others():
    image, record = pair((245, 245, 243), (20, 20, 20))
    shown = [colours_shown(image, region) for region in record.regions]
    fits = {
        "a white car on the right side": [], "a car on the right side": [1], "a car in the lower right corner": [1],
        "a parked car on the right side": [], "the topmost car on the right side": [], "a ship on the right side": [],
        "a car": [1], "a black car": [1], "a car on the left side": [],
    }  # fmt: skip
    assert {text: [*fitting(record, 0, text, shown)] for text in fits} == fits
    assert [*fitting(record, 0, "a black car", [])] == []  # without pixels no colour is known


def test_things_without_a_class_are_told_apart_too():
    image, record = pair(CONCRETE, CONCRETE)
    record = replace(record, regions=tuple(replace(region, category="widget") for region in record.regions))
    told = describe_regions(record, image)
    assert not [item for item in check(told, image) if item.kind == "ambiguous"]
    assert all("most widget" in region.phrase for region in told.regions)


@pytest.mark.parametrize(
    ("one", "other", "ambiguous"),
    [("a car on the right side", "a car in the lower right corner", [0]), ("a car", "the bottommost car", [0]),
     ("the topmost car", "the bottommost car", []), ("a car", "a car, the leftmost car", [0]),
     ("a large truck", "a parked car", []), ("the car.", "A car", [0, 1])],
)  # fmt: skip
def test_each_phrase_that_fits_the_other_is_found(one, other, ambiguous):
    _, record = pair(CONCRETE, CONCRETE)
    said = replace(
        record, regions=tuple(replace(r, phrase=t) for r, t in zip(record.regions, (one, other), strict=True))
    )
    found = [item.where for item in check(said) if item.kind == "ambiguous"]
    assert found == [f"regions[{index}].phrase" for index in ambiguous]
