"""Aircraft as the program finds them: the same patches and labels as the plain windows, scores from its own answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from scipy.special import expit

from geoalign_core.grounding.heatmap import Heatmap
from tiling.progress import silent
from training.embedded.as_asked import _at_patches, aircraft_as_asked
from training.embedded.package import PACKAGE, load_model
from training.embedded.samples import patch_labels

SIDE_PX = 448


@pytest.fixture
def scene(tmp_path):
    """A folder with one scene of 448 px: a white cross on grey, in a box."""
    folder = tmp_path / "data" / "boxes" / "aircraft"
    (folder / "images").mkdir(parents=True)
    image = np.random.default_rng(0).normal(110, 8, (SIDE_PX, SIDE_PX, 3)).clip(0, 255).astype(np.uint8)
    image[190:200, 120:250], image[140:260, 180:192] = 240, 240
    Image.fromarray(image).save(folder / "images" / "one.png")
    (folder / "annotations.coco.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "images/one.png", "width": SIDE_PX, "height": SIDE_PX}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [120, 140, 130, 120]}],
                "categories": [{"id": 1, "name": "aircraft"}],
            }
        )
    )
    return tmp_path


@pytest.mark.model
def test_the_words_are_asked_of_every_scene(scene):
    told = []
    found = aircraft_as_asked(
        load_model(PACKAGE), ("airplane", "forest"), scene / "data", scene / "work", lambda *item: told.append(item)
    )
    labels = patch_labels(np.array([[120.0, 140, 250, 260]]), SIDE_PX // 14, SIDE_PX // 14)
    for item in found.values():
        assert item["base_rate"] == pytest.approx((labels == 1).mean())
        assert item["pointing_scenes"] == 1
    assert found["airplane"]["average_precision"] > found["forest"]["average_precision"]
    assert told == [(1, 1, "scenes asked")]
    again = aircraft_as_asked(load_model(PACKAGE), ("airplane",), scene / "data", scene / "work", silent)
    assert again["airplane"] == pytest.approx(found["airplane"], rel=1e-4)


def test_a_patch_takes_the_score_at_its_centre():
    """Heatmap pixels of half a patch whose log-odds are their row and column."""
    rows, cols = np.mgrid[0:8, 0:8]
    odds = (rows - 3.5) + 10 * (cols - 3.5) / 10
    values = expit(odds).astype(np.float32)
    heatmap = Heatmap(values, Affine(3.5, 0, 500_000, 0, -3.5, 5_000_000), None, 3.5)
    found = _at_patches(heatmap, 4)
    assert found == pytest.approx(odds[1::2, 1::2], abs=1e-4)
    values[:4] = np.nan
    assert (_at_patches(heatmap, 4)[:2] < -15).all()
