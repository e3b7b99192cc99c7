"""CLIP vision transformers from a folder: dense readings, protocol, and files that are not what they should be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from geoalign_core.errors import DeviceError, ModelError
from geoalign_core.models import Encoder, list_models, load_encoder, pull_model, verify_model
from geoalign_core.models.registry import resolve_device

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP with random weights in open_clip's hub layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny"
    path.mkdir()
    model = open_clip.CLIP(TINY["embed_dim"], dict(TINY["vision_cfg"]), dict(TINY["text_cfg"]))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(str(folder), device="cpu")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 255, (3, 3, 32, 48), dtype=np.uint8)


def test_it_speaks_the_protocol(encoder, images):
    assert isinstance(encoder, Encoder)
    raw = encoder.encode_raw(images)
    dense = encoder.encode_dense(images)
    assert raw.patches.shape == dense.shape == (3, 32, 4, 6)
    for vectors in (
        encoder.encode_text(["a tree", "water"]),
        encoder.encode_image(images),
        dense.transpose(0, 2, 3, 1),
    ):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


def test_image_vectors_equal_open_clips_own(encoder, folder, images):
    import open_clip
    import torch
    from safetensors.torch import load_file

    model = open_clip.CLIP(TINY["embed_dim"], dict(TINY["vision_cfg"]), dict(TINY["text_cfg"])).eval()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    square = images[..., :32]
    mean = torch.tensor(encoder.config.preprocess.mean).view(1, 3, 1, 1)
    std = torch.tensor(encoder.config.preprocess.std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = model.encode_image((torch.from_numpy(square) / 255 - mean) / std, normalize=True).numpy()
        texts = model.encode_text(open_clip.tokenize(["a tree"]), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_image(square), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(["a tree"]), texts, atol=1e-5)


@pytest.mark.parametrize("mode", ["maskclip", "segearth"])
def test_dense_modes_follow_their_formula(encoder, images, mode):
    """The last block written out in numpy from its weights."""
    import torch

    from geoalign_core.models.dense import clip_features, positional_for

    visual = encoder._model.visual
    batch = encoder._pixels(images)
    with torch.inference_mode():
        got = clip_features(visual, batch, mode)[0].numpy()
        x = visual.conv1(batch).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(3, 1, 64), x], 1)
        x = visual.transformer.resblocks[0](visual.ln_pre(x + positional_for(visual.positional_embedding, 4, 6)))
        block = visual.transformer.resblocks[-1]
        normed = block.ln_1(x).double().numpy()
        weight, bias = (p.detach().double().numpy() for p in (block.attn.in_proj_weight, block.attn.in_proj_bias))
        out_w, out_b = (p.detach().double().numpy() for p in (block.attn.out_proj.weight, block.attn.out_proj.bias))
        heads = (normed @ weight.T + bias).reshape(3, 25, 3, 2, 32).transpose(2, 0, 3, 1, 4)
        value = heads[2]
        if mode == "maskclip":
            mixed = value
        else:
            mixed = np.zeros_like(value)
            for part in heads:
                logits = part @ part.swapaxes(-1, -2) / np.sqrt(32)
                attention = np.exp(logits - logits.max(-1, keepdims=True))
                mixed += attention / attention.sum(-1, keepdims=True) @ value
        y = torch.from_numpy(mixed.transpose(0, 2, 1, 3).reshape(3, 25, 64) @ out_w.T + out_b).float()
        if mode == "maskclip":
            y = x + y
            y = y + block.mlp(block.ln_2(y))
        expected = (visual.ln_post(y[:, 1:]) @ visual.proj).numpy()
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(got.transpose(0, 2, 3, 1).reshape(3, 24, 32), expected, atol=2e-5)


def test_results_do_not_depend_on_the_batch(encoder, images):
    together = encoder.encode_dense(images)
    alone = np.concatenate([encoder.encode_dense(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_long_texts_are_counted(encoder):
    assert encoder.count_tokens("tree") == 3
    assert encoder.count_tokens("tree " * 100) > encoder.max_tokens == 77


def test_unknown_and_wrong_models_are_one_line(tmp_path, folder):
    with pytest.raises(ModelError, match=r"no model is called 'nosuch'.*geoalign-s"):
        load_encoder("nosuch")
    with pytest.raises(ModelError, match="geoalign models pull clip-vit-b-32"):
        load_encoder("clip-vit-b-32")
    with pytest.raises(ModelError, match="not an open_clip model folder"):
        load_encoder(str(tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelError, match="has no weights"):
        load_encoder(str(broken))
    (broken / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="not the weights file of this model"):
        load_encoder(str(broken))
    with pytest.raises(ModelError, match="is a file"):
        load_encoder(str(broken / "open_clip_model.safetensors"))
    for error in (ModelError("x", path="a\nb"),):
        assert "\n" not in str(error)


def test_pulling_from_a_folder_records_and_verifies(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    target = pull_model("clip-vit-b-32", from_folder=folder)
    assert all(check.ok for check in verify_model("clip-vit-b-32"))
    assert {entry.name: entry.installed for entry in list_models()}["clip-vit-b-32"]
    assert load_encoder("clip-vit-b-32", device="cpu").config.embed_dim == 32
    weights = target / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="not the file that the model was published with"):
        load_encoder("clip-vit-b-32", device="cpu")
    with pytest.raises(ModelError, match="no model is called"):
        pull_model("nosuch")
    with pytest.raises(ModelError, match="is missing"):
        pull_model("clip-vit-b-16", from_folder=tmp_path)
    assert not list((tmp_path / "store").glob(".clip*"))


def test_devices_that_are_not_there_are_refused():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match="CUDA devices"):
        resolve_device("cuda:99")
    with pytest.raises(DeviceError, match="no device is called"):
        resolve_device("gpu")
