"""Colour jitter and grey: torchvision's changes, in the ranges that are asked for, and known by the draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as of_pillow

from training.loop.photometric import Photometric

FARSLIP = (0.4, 0.4, 0.2, 0.1)
COLOURS = ("brightness", "contrast", "saturation", "hue")


def noise(seed=0, side=24):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_torchvision_makes_of_a_pillow_image(seed):
    """The same order and amounts through Pillow's own enhancements, which are another implementation."""
    image = noise(seed)
    found = Photometric(FARSLIP, 1.0, 0.0)(image, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    rng.random()
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for number in rng.permutation(4).tolist():
        low, high = (-0.1, 0.1) if number == 3 else (1 - FARSLIP[number], 1 + FARSLIP[number])
        picture = getattr(of_pillow, f"adjust_{COLOURS[number]}")(picture, rng.uniform(low, high))
    apart = np.abs(np.asarray(picture, np.int64) - found.permute(1, 2, 0).numpy())
    assert apart.mean() < 2  # Pillow's hue has 8 bits
    assert np.abs(np.asarray(picture, np.int64) - image.permute(1, 2, 0).numpy()).mean() > 4


@given(st.integers(0, 2**32), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_brightness_stays_in_its_range(seed, most):
    found = Photometric((most, 0.0, 0.0, 0.0), 1.0, 0.0)(
        torch.full((3, 4, 4), 100, dtype=torch.uint8), np.random.default_rng(seed)
    )
    assert found.dtype == torch.uint8
    assert len(found.unique()) == 1
    assert 100 * max(0, 1 - most) - 1 <= int(found[0, 0, 0]) <= min(255, 100 * (1 + most)) + 1


def test_shares():
    """Of 1,000 pictures; four standard deviations."""
    rng, image = np.random.default_rng(3), noise(side=4)
    changed = Photometric(FARSLIP, 0.8, 0.2)
    found = [changed(image, rng) for _ in range(1000)]
    grey = sum(bool((item == item[:1]).all()) for item in found)
    kept = sum(torch.equal(item, image) for item in found)
    assert abs(grey - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5
    assert abs(kept - 1000 * 0.2 * 0.8) < 4 * (1000 * 0.16 * 0.84) ** 0.5


def test_no_share_leaves_the_picture_and_no_amount_changes_by_a_level_at_most():
    image = noise()
    assert torch.equal(Photometric(FARSLIP, 0.0, 0.0)(image, np.random.default_rng(0)), image)
    still = Photometric((0.0, 0.0, 0.0, 0.0), 1.0, 0.0)(image, np.random.default_rng(0))
    assert (still.int() - image.int()).abs().max() <= 1
