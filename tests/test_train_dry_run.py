"""What a run tells before it begins: the first batch in a picture, and what is seldom meant."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.recipe_tools import SMALL, rsfg, tiny_model
from training.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, and 16 records of which three have regions, two each."""
    folder = tmp_path_factory.mktemp("dry")
    tiny_model(folder / "tiny")
    path = rsfg(folder / "data", 16) / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line if number in (3, 9, 14) else {**line, "regions": []} for number, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    rsfg(folder / "held", 4, seed=1)
    return folder


def call(place, out, *more):
    small = [item for pair in SMALL for item in ("-s", pair)]
    asked = ["run", "geoalign-stage2-b16", "-o", out, "--data", place / "data", "--init", place / "tiny", *small, *more]
    told = CliRunner().invoke(main, list(map(str, asked)))
    assert told.exit_code == 0, told.output
    return told.stderr


def coloured(path, colour):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((abs(pixels - colour).max(axis=2) < 8).sum())


def test_the_first_batch_shows_its_regions_wherever_they_are(place, tmp_path):
    told = call(place, tmp_path, "--dry-run", "-s", "optim.batch=16")
    assert "16 images, 6 regions" in told
    assert "first-batch.png, 12 of 16 images, 6 of 6 regions" in told
    one, other = (255, 212, 0), (0, 229, 255)  # of the first and the second box of an image
    assert coloured(tmp_path / "first-batch.png", one) > 100 < coloured(tmp_path / "first-batch.png", other)
    call(place, tmp_path / "none", "--dry-run", "-s", "optim.batch=16", "-s", "data.min_region_px=40")
    assert not coloured(tmp_path / "none" / "first-batch.png", other)  # the colours are the boxes'


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_what_is_seldom_meant_is_said_before_the_run(place, tmp_path, dry):
    odd = call(place, tmp_path / "odd", *dry, "--steps", 1, "--validation", place / "data")
    assert odd.count("warning: training and validation data are the same records") == 1
    assert odd.count("warning: the warm-up of 2 steps is longer than the run of 1: the rate ends at 5e-07") == 1
    fine = call(place, tmp_path / "fine", *dry, "--steps", 2, "--validation", place / "held")
    assert "same records" not in fine
    assert "warm-up" not in fine
