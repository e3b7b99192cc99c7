"""Training on a tiny made-up corpus: it learns, repeats itself bit by bit, and keeps the split apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from geoalign_core.models.config import CONFIG_DIR, ModelConfig
from training.embedded.align import Head, PhraseBook, train_head
from training.embedded.corpus import Boxes, Captions
from training.embedded.data import (
    CaptionedImage,
    DataError,
    hash_unit,
    read_aircraft,
    read_boxes,
    read_captions,
    read_chips,
    read_vehicles,
    recording_of,
)
from training.embedded.evaluate import recalls_both_ways
from training.embedded.phrases import BOX_PHRASES, LEXICON, UNSEEN_PHRASES, label_images
from training.embedded.recipe import HeadRecipe
from training.embedded.samples import aircraft_set, pool_set, vehicle_set
from training.evaluation.metrics.pointing import patch_figures


@pytest.fixture(scope="module")
def config():
    return ModelConfig.load(CONFIG_DIR / "geoalign-s.json")


def fake_sentences(texts):
    """A vector per text that depends on nothing but the text."""
    rows = [np.random.default_rng(list(text.encode())).standard_normal(384) for text in texts]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def corpus(count=24, kinds=6):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((kinds, 768))
    pooled = centres[np.arange(count) % kinds] + 0.1 * rng.standard_normal((count, 768))
    texts = tuple(f"there is thing number {kind}" for kind in range(kinds))
    images = tuple(CaptionedImage(f"x/{i}.jpg", "X", (texts[i % kinds],), False) for i in range(count))
    patches = rng.standard_normal((count, 16, 384))
    patches /= np.linalg.norm(patches, axis=2, keepdims=True)
    captions = Captions(
        images, torch.tensor(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=torch.float32),
        torch.tensor(patches, dtype=torch.float16), texts, torch.from_numpy(fake_sentences(list(texts))),
        tuple((i % kinds,) for i in range(count)), torch.from_numpy(label_images(images).labels),
    )  # fmt: skip
    inside = rng.standard_normal(384)
    flat = rng.standard_normal((200, 384)) + np.where(np.arange(200)[:, None] < 50, 2 * inside, 0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    boxes = Boxes(
        "aircraft", torch.tensor(flat, dtype=torch.float16), torch.tensor(pooled[:4, :384], dtype=torch.float16),
        torch.arange(200) % 4, torch.arange(50), torch.arange(50, 200),
    )  # fmt: skip
    return captions, {"aircraft": boxes}


def train(config, *, seed=0, **numbers):
    captions, boxes = corpus()
    recipe = HeadRecipe(batch=12, box_rows=32, phrase_images=8, phrase_patches=8, **numbers)
    stages = []
    head = train_head(
        config, captions, boxes, PhraseBook(config, fake_sentences), recipe, seed, lambda *told: stages.append(told)
    )
    return head, captions, boxes, stages


def test_two_runs_give_the_same_bits_and_another_seed_does_not(config):
    first, _, _, stages = train(config, epochs=3)
    second, *_ = train(config, epochs=3)
    other, *_ = train(config, epochs=3, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.image.weight, other.image.weight)
    assert stages[-1] == (6, 6, "aligning")


def test_it_learns_captions_and_boxes(config):
    head, captions, boxes, _ = train(config, epochs=30)
    with torch.inference_mode():
        images, texts = head.images(captions.pooled).numpy(), head.texts(captions.sentences).numpy()
        image_to_text, _ = recalls_both_ways(images, texts, captions.text_of)
        part = boxes["aircraft"]
        dense = head.dense(part.patches.float(), part.window[part.sample].float())
        cosine = dense @ PhraseBook(config, fake_sentences).vectors(head, ["airplane"])[0]
    assert image_to_text[1] == 100.0
    figures = patch_figures(
        [cosine.numpy()[:, None]], [(torch.arange(200) < 50).to(torch.int8).numpy()[:, None]], ["a"]
    )
    assert figures.average_precision > 0.95
    assert figures.pointing_hits == figures.pointing_scenes == 1


def test_the_dense_reading_is_the_encoder_s(config):
    from geoalign_core.models.encoder import RawFeatures, Readout

    torch.manual_seed(0)
    head = Head(config)
    rng = np.random.default_rng(0)
    patches, window = rng.standard_normal((2, 384, 3, 3)).astype("f"), rng.standard_normal((2, 384)).astype("f")
    weight = head.image.weight.detach().numpy()
    readout = Readout(weight[:, 384:], weight[:, :384] * config.dense.window_weight, head.image.bias.detach().numpy())
    with torch.inference_mode():
        flat = torch.from_numpy(patches).flatten(2).transpose(1, 2)
        got = head.dense(flat, torch.from_numpy(window)[:, None]).transpose(1, 2).reshape(2, -1, 3, 3).numpy()
    assert np.allclose(got, readout.joint(RawFeatures(patches, window)), atol=1e-5)


def test_unseen_words_are_not_learnt_from_boxes():
    for kind, words in UNSEEN_PHRASES.items():
        assert not set(words) & set(BOX_PHRASES[kind])


def test_phrase_labels_read_whole_words_and_leave_doubt_open():
    images = [CaptionedImage(str(i), "S", ("a river and some trees .",), False) for i in range(50)]
    images += [CaptionedImage(f"d{i}", "S", ("a yellow desert .",), False) for i in range(50)]
    images += [CaptionedImage("p", "S", ("green plants and a cartoon",), False)]
    labels = label_images(images, fewest=1)
    row = dict(zip(labels.phrases, labels.labels[0].tolist(), strict=True))
    assert row["a river"] == row["trees"] == 1
    assert row["desert"] == 0
    last = dict(zip(labels.phrases, labels.labels[-1].tolist(), strict=True))
    assert last["cars"] == -1
    assert last["an industrial area"] == -1
    assert set(label_images(images).labels[:, labels.phrases.index("desert")].tolist()) == {-1, 0, 1}
    assert set(label_images(images, fewest=51).labels[:, labels.phrases.index("desert")].tolist()) == {-1}


def test_a_bridge_is_absent_from_a_river_but_a_river_may_be_under_a_bridge():
    images = [CaptionedImage(str(i), "S", ("a river .",), False) for i in range(60)]
    images += [CaptionedImage(f"b{i}", "S", ("a bridge over a river .",), False) for i in range(20)]
    images += [CaptionedImage("x", "S", ("a bridge .",), False)]
    labels = label_images(images, fewest=1)
    assert labels.labels[0][labels.phrases.index("a bridge")] == 0
    assert labels.labels[-1][labels.phrases.index("a river")] == -1


def test_lexicon_phrases_are_distinct():
    assert len({phrase for phrase, _ in LEXICON}) == len(LEXICON)


def test_recordings_keep_neighbouring_frames_together():
    assert recording_of("4_50") == recording_of("4_76") != recording_of("5_11")
    assert recording_of("Drone2_(103)") == recording_of("Drone2_(175)") != recording_of("Drone2_(205)")


def test_the_hash_of_the_split_never_changes():
    assert hash_unit("Airport/airport_1.jpg") == pytest.approx(0.539310658554)
    assert 0 <= hash_unit("x") < 1


def test_missing_and_damaged_data_is_named(tmp_path):
    with pytest.raises(DataError, match=r"captions\.jsonl"):
        read_captions(tmp_path)
    (tmp_path / "annotations.coco.json").write_text(json.dumps({"images": [{"id": 1}]}))
    with pytest.raises(DataError, match="COCO"):
        read_boxes(tmp_path)
    (tmp_path / "chips").mkdir()
    (tmp_path / "chips" / "pools.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(DataError, match="tar"):
        read_chips(tmp_path)


@pytest.mark.data
def test_the_split_is_disjoint_and_large_enough(data_dir):
    captions = read_captions(data_dir)
    held = {image.name for image in captions if image.held_out}
    assert 1000 <= len(held) <= 1100
    assert not held & {image.name for image in captions if not image.held_out}
    assert sum(scene.held_out for scene in read_aircraft(data_dir)) == 8
    vehicles = read_vehicles(data_dir)
    recordings = {side: {recording_of(v.path.stem) for v in vehicles if v.held_out == side} for side in (True, False)}
    assert not recordings[True] & recordings[False]
    assert sum(v.held_out for v in vehicles) >= 40
    for held_out, other in ((True, False), (False, True)):
        one = pool_set(data_dir, held_out=held_out, cell_px=56)
        assert not set(one.groups) & set(vehicle_set(data_dir, held_out=other, gsd_m=0.3).groups)
    train_scenes = set(aircraft_set(data_dir, held_out=False, gsd_m=0.5, window_px=448, windows=2).groups)
    assert not train_scenes & set(aircraft_set(data_dir, held_out=True, gsd_m=0.5, window_px=448).groups)
