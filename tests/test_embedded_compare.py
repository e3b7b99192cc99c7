"""Another image tower in the place of DINOv2: it reads the same places, and its head is the head that was trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoalign_core.models.embedded import Towers, pool_image
from geoalign_core.models.registry import WEIGHTS_DIR
from tests.clip_tools import write_encoder
from training.embedded.align import Head
from training.embedded.compare import HeadEncoder, OtherTowers, render
from training.embedded.package import PACKAGE, load_config

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def own():
    return Towers(load_config(PACKAGE), WEIGHTS_DIR)


@pytest.fixture(scope="module")
def other(own, tmp_path_factory):
    return OtherTowers(write_encoder(tmp_path_factory.mktemp("clip")), own, 14)


def test_both_towers_read_the_same_places(own, other):
    images = np.random.default_rng(0).integers(0, 256, size=(6, 3, 56, 70), dtype=np.uint8)
    mine, theirs = own.images(images), other.images(images)
    assert theirs.patches.shape == (6, 32, *mine.patches.shape[2:])
    assert theirs.window.shape == (6, 32)
    assert np.allclose(np.linalg.norm(theirs.patches, axis=1), 1, atol=1e-5)
    assert np.allclose(other.images(images[5:]).patches, theirs.patches[5:], atol=1e-5)


def test_a_bright_corner_is_where_it_was(own, other):
    """The enlarged image is not shifted: what changes in one corner changes the patches of that corner most."""
    image = np.full((1, 3, 112, 112), 90, np.uint8)
    changed = image.copy()
    changed[:, :, 84:, 84:] = 250
    difference = np.abs(other.images(changed).patches - other.images(image).patches).mean(axis=(0, 1))
    assert min(np.unravel_index(difference.argmax(), difference.shape)) >= 6


def test_the_joined_encoder_is_the_head(own, other):
    config = load_config(PACKAGE)
    config = replace(config, vision_cfg={**config.vision_cfg, "width": 32})
    torch.manual_seed(0)
    head = Head(config)
    joined = HeadEncoder(config, other, head, own)
    raw = other.images(np.random.default_rng(1).integers(0, 256, size=(2, 3, 56, 56), dtype=np.uint8))
    with torch.no_grad():
        patches = torch.from_numpy(raw.patches).permute(0, 2, 3, 1)
        dense = head.dense(patches, torch.from_numpy(raw.window)[:, None, None])
        images = head.images(torch.from_numpy(pool_image(raw)))
        texts = head.texts(torch.from_numpy(own.sentences(["a red roof"])))
    assert np.allclose(joined.readout.joint(raw), dense.permute(0, 3, 1, 2), atol=1e-5)
    assert np.allclose(joined.image_from_pooled(pool_image(raw)), images, atol=1e-6)
    assert np.allclose(joined.encode_text(["a red roof"]), texts, atol=1e-6)


def test_the_table_has_a_column_per_tower():
    words = {"plane": {"average_precision": 0.5, "pointing_hits": 3, "pointing_scenes": 8}}
    captions = {
        "image_to_text_recall_1_5_10": (1.0, 2.0, 3.0), "text_to_image_recall_1_5_10": (4.0, 5.0, 6.0),
        "scene_name_top1": 7.0, "seven_other_words_top1": 8.0, "twenty_other_words_top1": 9.0,
    }  # fmt: skip
    figures = {name: {"captions": captions, "scenes": {}, "protocol": "p", "aircraft": words} for name in ("a", "b")}
    lines = render(figures).splitlines()
    assert lines[0] == "| | a | b |"
    assert lines[2] == "| image → text, recall at 1 / 5 / 10 (%) | 1.0 / 2.0 / 3.0 | 1.0 / 2.0 / 3.0 |"
    assert lines[-1] == "| aircraft, “plane”: average precision · pointing | 0.500 · 3 of 8 | 0.500 · 3 of 8 |"
    assert len(lines) == 8
