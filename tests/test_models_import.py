"""Importing checkpoints: what is recognised, what is refused and why, and that no file's program ever runs."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geoalign_core.errors import ModelError
from geoalign_core.models import find_config, list_models, text_tables
from geoalign_core.models.architecture import deduce
from geoalign_core.models.checkpoint import read_checkpoint, sniff
from geoalign_core.models.convert import import_checkpoint
from geoalign_core.models.families import FAMILIES_DIR, find_published
from geoalign_core.models.identify import Clues, identify
from geoalign_core.models.layout import internal, unwrap
from geoalign_core.models.store import downloads_dir, locked, remove_model
from geoalign_core.models.vocabulary import head_width
from tests.clip_checkpoints import Shape, draw, transformers_names
from tiling.errors import OutputWriteError

TINY = Shape(patch_px=16, image_px=32, width=64, layers=1, embed_dim=32, text_width=64, text_layers=1)
FINE = ("long_text_projection", "logit_scale_region", "logit_scale_hardneg")


@pytest.fixture(scope="module")
def short():
    return draw(TINY, "77", ())


@pytest.fixture(scope="module")
def long():
    return draw(TINY, "248", ())


@pytest.fixture(scope="module")
def fine():
    return draw(TINY, "77+248", FINE)


@pytest.fixture
def bring(tmp_path):
    """Write weights as safetensors and import them into a store of the test's own."""

    def run(tensors, *, file="weights.safetensors", metadata=None, **choices):
        path = tmp_path / file
        if isinstance(tensors, dict):
            save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=metadata)
        return import_checkpoint(path, store=tmp_path / "store", **({"name": "mine"} | choices))

    return run


def stored(report):
    return load_file(report.folder / "model.safetensors")


# ---- containers


class Bomb:
    """Unpickled by anything careless, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("place", ["beside", "inside", "alone"])
def test_a_pickle_bomb_never_goes_off(tmp_path, short, legacy, trust, place):
    marker, path = tmp_path / "boom", tmp_path / "weights.pt"
    content = {
        "beside": {"state_dict": short, "optimizer": Bomb(marker)},
        "inside": {"state_dict": short | {"mask1": Bomb(marker)}},
        "alone": Bomb(marker),
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"blocked: \w+\.system" if trust else "--trust-pickle"):
        import_checkpoint(path, family="remoteclip", store=tmp_path / "store", trust_pickle=trust)
    assert not marker.exists()
    assert not (tmp_path / "store").exists()


def test_a_bare_pickle_that_torch_did_not_write(tmp_path):
    import pickle

    marker, path = tmp_path / "boom", tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ModelError, match=r"none that torch.save wrote"):
        read_checkpoint(path, trust_pickle=True)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_one_whatever_it_is_called(tmp_path, short, name, legacy):
    path = tmp_path / name
    torch.save(short, path, _use_new_zipfile_serialization=not legacy)
    assert sniff(path) == ("legacy" if legacy else "zip")
    with pytest.raises(ModelError, match="can carry a program"):
        read_checkpoint(path, trust_pickle=False)
    found = read_checkpoint(path, trust_pickle=True)
    assert set(found.tensors) == set(short)
    assert all(torch.equal(found.tensors[key], value) for key, value in short.items())


def test_safetensors_are_safetensors_whatever_they_are_called(bring, short):
    report = bring(short, file="weights.pt", family="remoteclip")
    assert report.config.family == "remoteclip"


def test_what_training_keeps_beside_its_weights_is_harmless(tmp_path, short):
    path = tmp_path / "epoch_1.pt"
    state = {
        "epoch": np.int64(3), "best": np.float32(0.5), "args": argparse.Namespace(lr=1e-3, name="run"),
        "counts": collections.Counter("aab"), "losses": [np.float64(1.0)], "seen": {1, 2},
        "model": {"module": {f"_orig_mod.module.{key}": value for key, value in short.items()}},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}},
    }  # fmt: skip
    torch.save(state, path)
    found = read_checkpoint(path, trust_pickle=True)
    assert found.wrapped == "model.module"
    assert set(internal(found.tensors).tensors) == set(short)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A TorchScript archive whose own program writes a file while it is read."""
    path = tmp_path_factory.mktemp("script")

    class Sly(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))
            self.mark = "MARK"
            self.training = False

        def forward(self, x):
            return x + self.weight

        @torch.jit.export
        def __getstate__(self):
            return self.weight, self.mark, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
            self.weight = state[0]
            self.mark = state[1]
            self.training = state[2]
            torch.save(state[0], state[1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(Sly()), path / "sly.pt")
    return path / "sly.pt"


def rewritten(source, target, rename=lambda name: name):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(rename(entry.filename), old.read(entry))
    return target


@pytest.mark.parametrize("face", ["plain", "renamed", "two"])
@pytest.mark.parametrize("trust", [False, True])
def test_torchscript_never_runs(tmp_path, archive, short, monkeypatch, face, trust):
    """Not by its plain name, nor with its code called .PY, nor behind the index of another archive."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    if face == "plain":
        shutil.copy(archive, path)
    elif face == "renamed":
        rewritten(archive, path, lambda name: name.replace(".py", ".PY"))
    else:
        torch.save(short, tmp_path / "other.pt")
        path.write_bytes(archive.read_bytes() + (tmp_path / "other.pt").read_bytes())
    before = set(tmp_path.iterdir())
    with pytest.raises(ModelError) as caught:
        import_checkpoint(path, family="openai", store=tmp_path / "store", trust_pickle=trust)
    assert set(tmp_path.iterdir()) == before
    if face != "two":
        assert "TorchScript archive" in str(caught.value)
        assert "geoalign models pull clip-vit-b-16" in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="is no file"):
        import_checkpoint(tmp_path / "weights.pt", store=tmp_path / "store")


def test_half_a_file_says_how_much_is_there(tmp_path, short):
    path = tmp_path / "weights.safetensors"
    save_file(short, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=rf"is incomplete \({len(whole) // 2:,} of {len(whole):,} bytes\); .*fetch"):
        read_checkpoint(path, trust_pickle=False)
    path.write_bytes(whole[:100])
    with pytest.raises(ModelError, match="is incomplete"):
        read_checkpoint(path, trust_pickle=False)
    path.write_bytes(whole + b"more")
    with pytest.raises(ModelError, match="longer than its header says"):
        read_checkpoint(path, trust_pickle=False)
    torch.save(short, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="archive without its end"):
        read_checkpoint(path, trust_pickle=True)
    torch.save(short, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"cannot be read.*fetch it again"):
        read_checkpoint(path, trust_pickle=True)


def headed(text):
    """A safetensors file that is all header."""
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\n <html><body>sign in</body></html>", "is a web page"),
        (b"\x08\x07\x12\x07pytorch\x1a\x051.13:" + bytes(100), "is an ONNX graph"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (b"GGUF" + bytes(100), "GGUF"),
        (b"PK\x03\x04" + bytes(100), "archive without its end"),
        (b"PK", "archive without its end"),
        (bytes(300), "no checkpoint of a known kind.*00 00"),
        (b"hello", "no checkpoint of a known kind"),
        ((2**40).to_bytes(8, "little") + b"{}", "no checkpoint of a known kind"),
        ((90_000_000).to_bytes(8, "little") + b"{}", "is incomplete"),
        ((2).to_bytes(8, "little") + b"{}" + b"x" * 40, "longer than its header"),
        ((10).to_bytes(8, "little") + b'{"a": [1]}', "damaged safetensors header"),
        ((4000).to_bytes(8, "little") + b"{" * 4000, "damaged safetensors header"),
        (headed('{"__metadata__": 3}'), "damaged safetensors header"),
        (headed('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}'), "damaged safetensors header"),
        (headed('{"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 0]}}'), "damaged safetensors header"),
    ],
)
def test_files_that_are_no_checkpoint_are_named(tmp_path, content, reason):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=reason) as caught:
        read_checkpoint(path, trust_pickle=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=reason):
        import_checkpoint(path, store=tmp_path / "store", trust_pickle=True)


def test_zip_bombs_are_weighed_before_they_are_opened(tmp_path):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(300):
                entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelError, match="would unfold to more than it holds"):
        read_checkpoint(path, trust_pickle=True)


def test_an_ordinary_zip_says_what_is_in_it(tmp_path):
    path = tmp_path / "SkyCLIP.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("SkyCLIP/epoch_20.pt", b"weights")
    with pytest.raises(ModelError, match=r"it holds SkyCLIP/epoch_20.pt\); unpack"):
        read_checkpoint(path, trust_pickle=True)


def test_a_tensor_cannot_claim_more_than_it_holds(tmp_path, short):
    path = tmp_path / "weights.pt"
    torch.save(short | {"visual.proj": torch.zeros(1).expand(50_000, 50_000)}, path)
    with pytest.raises(ModelError, match=r"claims more than it holds \(visual.proj"):
        read_checkpoint(path, trust_pickle=True)


def test_pickles_without_weights_say_what_they_hold(tmp_path):
    path = tmp_path / "weights.pt"
    for content, found in (({"epoch": 3, "best": 0.5}, "epoch, best"), ([1, 2], "list"), (torch.zeros(3), "Tensor")):
        torch.save(content, path)
        with pytest.raises(ModelError, match=f"holds no CLIP weights.*{found}"):
            read_checkpoint(path, trust_pickle=True)


# ---- layouts


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module.model.clip.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(short, prefix):
    found = internal({prefix + key: value for key, value in short.items()})
    assert set(found.tensors) == set(short)


def test_only_the_state_dict_is_kept():
    weights = {"visual.conv1.weight": torch.zeros(1)}
    for content in (weights, {"state_dict": weights, "optimizer": {}}, {"model": {"module": weights}, "x": 1}):
        found = unwrap(content)
        assert found is not None
        assert set(found[0]) == set(weights)
    assert unwrap({"a": {"b": {"c": weights}}}) is None


def test_ignorable_keys_are_named_and_dropped(bring, long):
    masks = {"mask1": torch.zeros(248, 1), "mask2": torch.zeros(248, 1), "attn_mask": torch.zeros(248, 248)}
    report = bring({f"module.{key}": value for key, value in (long | masks).items()}, family="farslip")
    assert report.dropped == ("module.attn_mask", "module.mask1", "module.mask2")
    assert set(stored(report)) == set(long)


def test_two_models_in_one_file_are_not_chosen_between(bring, short):
    both = {f"{who}.{key}": value.clone() for who in ("student", "teacher") for key, value in short.items()}
    with pytest.raises(ModelError, match=r"several image towers \(student., teacher.\)"):
        bring(both, family="remoteclip")


def test_weights_without_the_common_prefix_are_named(bring, short):
    strays = {f"head.{number}.weight": torch.zeros(2) for number in range(8)}
    with pytest.raises(ModelError, match=r"does not have \(head.0.weight.*head.5.weight and 2 more\)"):
        bring({f"model.{key}": value for key, value in short.items()} | strays, family="remoteclip")


def test_missing_and_unexpected_keys_are_named(bring, short):
    key = "transformer.resblocks.0.mlp.c_fc.bias"
    with pytest.raises(ModelError, match=rf"lacks weights \({key}\)"):
        bring({name: value for name, value in short.items() if name != key}, family="remoteclip")
    with pytest.raises(ModelError, match=r"does not have \(logit_bias\)"):
        bring(short | {"logit_bias": torch.tensor(-10.0)}, family="remoteclip")
    with pytest.raises(ModelError, match=r"lacks weights \(logit_scale\)"):
        bring({name: value for name, value in short.items() if name != "logit_scale"}, family="remoteclip")
    hf = transformers_names(short)
    del hf["text_model.encoder.layers.0.self_attn.k_proj.weight"]
    with pytest.raises(ModelError, match=r"lacks weights \(self_attn.k_proj for transformer.resblocks.0"):
        bring(hf, family="remoteclip")
    with pytest.raises(ModelError, match=r"not the weights of a CLIP model \(keys fc.weight\)"):
        bring({"fc.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("key", "shape", "reason"),
    [
        ("visual.positional_embedding", (7, 64), "positions for no square image"),
        ("visual.conv1.weight", (64, 4, 16, 16), "no RGB patches"),
        ("visual.conv1.weight", (64, 3, 16, 8), "no RGB patches"),
        ("visual.conv1.weight", (64, 3), "wrong shape"),
        ("visual.proj", (32, 32), "different widths"),
        ("text_projection", (64, 48), "towers that do not meet"),
        ("positional_embedding", (77, 32), "different widths"),
        ("ln_final.weight", (32,), "wrong shape"),
        ("visual.transformer.resblocks.0.attn.in_proj_weight", (192, 32), "wrong shape"),
        ("token_embedding.weight", (1000, 64), "vocab_size 1000"),
        ("positional_embedding", (2, 64), "too few text positions"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(bring, short, key, shape, reason):
    with pytest.raises(ModelError, match=reason):
        bring(short | {key: torch.zeros(shape)}, family="remoteclip")


def test_two_keys_of_one_name_are_not_merged(bring, short):
    key = "visual.ln_pre.weight"
    with pytest.raises(ModelError, match=rf"two weights of one name \(_orig_mod.{key} and {key}\)"):
        bring(short | {f"_orig_mod.{key}": torch.zeros(64)}, family="remoteclip")
    both = {f"text.{name}" if not name.startswith(("visual.", "logit")) else name: v for name, v in short.items()}
    with pytest.raises(ModelError, match=r"one name \(text.text_projection and text_projection\)"):
        bring(both | {"text_projection": torch.zeros(64, 32)}, family="remoteclip")


def test_a_missing_block_is_noticed(bring):
    three = draw(Shape(**{**{name: getattr(TINY, name) for name in TINY.__slots__}, "layers": 3}), "77", ())
    holed = {key: value for key, value in three.items() if "visual.transformer.resblocks.1." not in key}
    with pytest.raises(ModelError, match=r"lacks whole blocks \(visual.transformer.resblocks has 0, 2\)"):
        bring(holed, family="remoteclip")


# ---- architecture


def shapes_of(name):
    """The published architecture's shapes, from open_clip on the meta device."""
    import open_clip

    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        model = open_clip.CLIP(config["embed_dim"], dict(config["vision_cfg"]), dict(config["text_cfg"]))
    return config, model.state_dict()


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-g-14", "ViT-bigG-14", "RN50", "RN101"]
)
def test_architectures_are_read_from_shapes(name):
    config, tensors = shapes_of(name)
    found = deduce(tensors)
    vision, text = config["vision_cfg"], config["text_cfg"]
    assert found.embed_dim == config["embed_dim"]
    assert found.image_px == found.vision_cfg["image_size"] == vision["image_size"]
    assert {key: found.vision_cfg.get(key) for key in vision} == vision
    assert {key: found.text_cfg[key] for key in text} == text
    assert found.vision_cfg.get("head_width", 64) == vision.get("head_width", 64)
    assert (found.kind, found.patch_px) == (("resnet", 32) if name.startswith("RN") else ("vit", vision["patch_size"]))


@pytest.mark.parametrize(("width", "heads"), [(384, 64), (640, 64), (1280, 80), (1408, 88), (1664, 104), (1792, 112)])
def test_heads_are_as_wide_as_in_published_models(width, heads):
    shapes = {
        "visual.conv1.weight": (width, 3, 14, 14), "visual.positional_embedding": (257, width),
        "visual.proj": (width, 512), "visual.transformer.resblocks.0.mlp.c_fc.weight": (4 * width, width),
    }  # fmt: skip
    assert deduce({key: np.broadcast_to(0, shape) for key, shape in shapes.items()}).vision_cfg["head_width"] == heads


def test_open_clip_has_no_other_head_widths():
    import open_clip

    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        if "width" in vision and isinstance(vision.get("layers"), int):
            assert head_width(vision["width"]) == vision.get("head_width", 64), name
            if "heads" in text and text["context_length"] in (64, 77):
                assert text["width"] / text["heads"] == 64, name


@pytest.mark.parametrize(("width", "stated"), [(1152, 72), (1536, 96)])
def test_heads_of_a_strange_width_are_asked_for(width, stated):
    shapes = {
        "visual.conv1.weight": (width, 3, 14, 14), "visual.positional_embedding": (257, width),
        "visual.proj": (width, 512), "visual.transformer.resblocks.0.mlp.c_fc.weight": (4 * width, width),
    }  # fmt: skip
    tensors = {key: np.broadcast_to(0, shape) for key, shape in shapes.items()}
    with pytest.raises(ModelError, match=rf"how wide its heads are \(width {width}\); give its folder"):
        deduce(tensors)
    assert deduce(tensors, head_width=stated).vision_cfg["head_width"] == stated


def test_an_image_tower_alone_is_a_model(bring, short):
    tower = {key: value for key, value in short.items() if key.startswith("visual.")}
    report = bring(tower, family="openai")
    assert report.config.text_cfg["tables"] == "none"
    assert set(stored(report)) == set(tower)
    with pytest.raises(ModelError, match=r"text tables of FarSLIP \(none instead of 77 or 248\)"):
        bring(tower, family="farslip", name="other")


# ---- activation and family


def test_the_activation_is_never_guessed(bring, short):
    with pytest.raises(ModelError, match=r"which activation.*--family.*--activation"):
        bring(short)
    assert bring(short, activation="gelu").config.family == "openclip"
    report = bring(short, family="remoteclip", name="other")
    assert (report.config.activation, report.activation_from) == ("quick_gelu", "family")


def test_the_question_lists_who_it_could_be(tmp_path):
    """A full-size B/16 state dict of one byte a piece would do; shapes are all that is asked."""
    from geoalign_core.models.identify import Clues, identify

    _, tensors = shapes_of("ViT-B-16")
    with pytest.raises(ModelError, match=r"farslip \(quick_gelu\)") as caught:
        identify(deduce(tensors), Clues("openai", frozenset(tensors)))
    for stranger in ("remoteclip", "longclip", "dgtrs", "fgclip"):
        assert stranger not in str(caught.value)


@pytest.mark.parametrize(("name", "activation"), [("ViT-B-32", "gelu"), ("ViT-L-14", "quick_gelu")])
def test_families_with_both_activations_are_decided_by_shape(name, activation):
    from geoalign_core.models.identify import Clues, identify

    _, tensors = shapes_of(name)
    found = identify(deduce(tensors), Clues("openai", frozenset(tensors), family="skyclip"))
    assert (found.activation, found.activation_from) == (activation, "family")
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[activation]
    with pytest.raises(ModelError, match=rf"SkyCLIP has {activation}, you asked for {other}"):
        identify(deduce(tensors), Clues("openai", frozenset(tensors), family="skyclip", activation=other))


def test_both_activations_and_a_strange_shape_ask(bring, short):
    with pytest.raises(ModelError, match="these shapes do not tell which"):
        bring(short, family="georsclip")
    assert bring(short, family="georsclip", activation="gelu").activation_from == "asked"


def test_the_wrong_activation_is_refused(bring, short):
    with pytest.raises(ModelError, match="FarSLIP has quick_gelu, you asked for gelu"):
        bring(short, family="farslip", activation="gelu")
    with pytest.raises(ModelError, match="no activation is called 'relu'"):
        bring(short, activation="relu")
    with pytest.raises(ModelError, match="no family is called 'nosuch'"):
        bring(short, family="nosuch")


def test_keys_that_only_one_family_has_decide_it(bring, fine):
    assert bring(transformers_names(fine)).config.family == "fgclip"
    assert bring(fine, name="other", file="other.safetensors").config.family == "geoalignclip"


@pytest.mark.parametrize("lost", FINE)
def test_fgclip_that_lost_a_part_is_not_taken_for_another_family(bring, fine, lost):
    partial = transformers_names({key: value for key, value in fine.items() if key != lost})
    with pytest.raises(ModelError, match=f"lacks parts of FG-CLIP 1 .{lost}"):
        bring(partial)


def test_fgclip_that_lost_its_long_tables_is_not_taken_for_another_family(bring, fine):
    partial = {key: value for key, value in fine.items() if not key.startswith("positional_embedding_")}
    with pytest.raises(ModelError, match=r"text tables of FG-CLIP 1 \(77 instead of 77\+248\)"):
        bring(transformers_names(partial))


# ---- names conclude nothing


@pytest.fixture
def tiny_families(tmp_path, monkeypatch):
    """The families with two published models of the tests' size, whose names are as telling as the real ones."""
    folder = tmp_path / "families"
    shutil.copytree(FAMILIES_DIR, folder)
    for family, name in (("openclip", "tiny-laion"), ("openai", "tiny-openai")):
        data = json.loads((folder / f"{family}.json").read_text())
        data["models"] = [data["models"][0] | {"name": name, "architecture": "tiny", "image_px": 32, "parameters": 0}]
        (folder / f"{family}.json").write_text(json.dumps(data))
    monkeypatch.setenv("GEOALIGN_FAMILIES", str(folder))


def test_the_files_name_decides_nothing(bring, short, tiny_families):
    with pytest.raises(ModelError, match="which activation"):
        bring(short, file="tiny-laion.safetensors", name=None)
    report = bring(short, file="tiny-laion.safetensors", name=None, family="remoteclip")
    assert (report.config.name, report.config.family, report.config.activation) == (
        "tiny-laion-own", "remoteclip", "quick_gelu"
    )  # fmt: skip
    assert not report.config.title.startswith("OpenCLIP")
    assert bring(short, file="geoalign-s.safetensors", name=None, family="openai").config.name == "geoalign-s-own"
    assert bring(short, file="My Own (1).safetensors", name=None, family="openai").config.name == "my-own-1"


def test_a_long_clip_called_like_a_relative_is_asked_for(bring, long):
    with pytest.raises(ModelError, match="which activation"):
        bring(long, file="dgtrs-b16.safetensors", name=None)


def test_a_published_name_given_on_purpose_does_not_overrule_the_family(bring, short, tiny_families):
    with pytest.raises(ModelError, match=r"contradict.*tiny-laion is a model of openclip, not of openai"):
        bring(short, family="openai", name="tiny-laion")
    report = bring(short, name="tiny-laion")
    assert (report.config.family, report.config.activation) == ("openclip", "gelu")
    with pytest.raises(ModelError, match="OpenAI CLIP has quick_gelu, you asked for gelu"):
        bring(short, name="tiny-openai", activation="gelu")


def test_families_go_by_their_title_too(bring, short):
    assert bring(short, family="RemoteCLIP").config.family == "remoteclip"
    again = {"geoalign": json.dumps({"family": "farslip", "activation": "quick_gelu", "tables": "77"})}
    assert bring(short, family="FarSLIP", metadata=again, name="far").config.family == "farslip"


def test_stretched_tables_need_both_parts(bring, long):
    lost = {key: value for key, value in long.items() if key != "positional_embedding_res"}
    for choices in ({"family": "longclip"}, {"family": "dgtrs"}, {"activation": "quick_gelu"}):
        with pytest.raises(ModelError, match=r"positional_embedding_res is missing.*conversions drop it"):
            bring(lost, **choices)
    with pytest.raises(ModelError, match=r"positional_embedding_res is missing.*--family openclip --activation gelu"):
        bring(lost)
    assert bring(lost, family="openclip", activation="gelu").config.text_cfg["tables"] == "248-single"


def test_tables_of_another_family_are_refused(bring, short, long, fine):
    with pytest.raises(ModelError, match=r"text tables of RemoteCLIP \(248 instead of 77\)"):
        bring(long, family="remoteclip")
    with pytest.raises(ModelError, match=r"text tables of Long-CLIP \(77 instead of 248\)"):
        bring(short, family="longclip")
    with pytest.raises(ModelError, match=r"text tables of FarSLIP \(77\+248"):
        bring(fine, family="farslip")
    with pytest.raises(ModelError, match="not in the layout that FG-CLIP"):
        bring(fine, family="fgclip")
    hf = transformers_names(fine)
    del hf["text_filip_projection.weight"]
    with pytest.raises(ModelError, match=r"lacks parts of FG-CLIP.*long_text_projection"):
        bring(hf, family="fgclip")
    with pytest.raises(ModelError, match=r"parts that RemoteCLIP has not \(logit_scale_region\)"):
        bring(short | {"logit_scale_region": torch.tensor(4.0)}, family="remoteclip")


def test_what_is_expected_must_come(bring, short):
    _, published = find_published("remoteclip-b32")
    with pytest.raises(ModelError, match=r"is not RemoteCLIP ViT-B/32 \(image side 32, not 224, image width 64"):
        bring(short, expected=published)
    with pytest.raises(ModelError, match="is not RemoteCLIP"):
        bring(short, family="remoteclip", name="remoteclip-b32")


def test_a_file_of_the_house_says_what_it_is(bring, short, tmp_path):
    def record(**change):
        said = {"family": "farslip", "activation": "quick_gelu", "tables": "77"} | change
        return {"geoalign": json.dumps(said)}

    report = bring(short, metadata=record())
    assert (report.config.family, report.config.activation) == ("farslip", "quick_gelu")
    with pytest.raises(ModelError, match=r"of another family \(its header says farslip, not remoteclip\)"):
        bring(short, metadata=record(), family="remoteclip")
    with pytest.raises(ModelError, match="FarSLIP has quick_gelu, its configuration says gelu"):
        bring(short, metadata=record(activation="gelu"))
    with pytest.raises(ModelError, match="text tables 77, not 248"):
        bring(short, metadata=record(tables="248"))
    with pytest.raises(ModelError, match="damaged record"):
        bring(short, metadata={"geoalign": "[]"})
    again = import_checkpoint(report.folder, name="copy", store=tmp_path / "store")
    assert again.config.family == "farslip"
    assert stored(again).keys() == stored(report).keys()


# ---- folders


def hub_folder(path, tensors, **change):
    path.mkdir()
    save_file(tensors, path / "open_clip_model.safetensors")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    model = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    for key, value in change.items():
        if key in ("vision_cfg", "text_cfg"):
            model[key].update(value)
        else:
            model[key] = value
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    return path


def test_a_hub_folder_states_its_activation_and_heads(tmp_path, short):
    store = tmp_path / "store"
    report = import_checkpoint(hub_folder(tmp_path / "Plain-CLIP", short), store=store)
    assert (report.config.name, report.config.family) == ("plain-clip", "openclip")
    assert (report.config.activation, report.activation_from) == ("gelu", "config")
    assert report.config.text_cfg["heads"] == 2
    quick = hub_folder(tmp_path / "quick", short, quick_gelu=True, vision_cfg={"head_width": 32})
    report = import_checkpoint(quick, store=store)
    assert (report.config.activation, report.config.vision_cfg["head_width"]) == ("quick_gelu", 32)
    with pytest.raises(ModelError, match="its configuration says quick_gelu, you asked for gelu"):
        import_checkpoint(quick, store=store, activation="gelu", name="other")
    assert report.config.preprocess.mean == (0.48145466, 0.4578275, 0.40821073)
    said = hub_folder(tmp_path / "said", short, quick_gelu=False)
    with pytest.raises(ModelError, match="RemoteCLIP has quick_gelu, its configuration says gelu"):
        import_checkpoint(said, store=store, family="remoteclip")


def test_a_hub_folders_own_preprocessing_is_kept(tmp_path, short):
    folder = hub_folder(tmp_path / "half", short)
    path = folder / "open_clip_config.json"
    stated = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash", "interpolation": "bilinear"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": stated}))
    found = import_checkpoint(folder, store=tmp_path / "store").config.preprocess
    assert (found.mean, found.std, found.mode, found.interpolation) == ((0.5,) * 3, (0.5,) * 3, "squash", "bilinear")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_base"}}, "another forward than CLIP's .timm_model_name"),
        ({"vision_cfg": {"pool_type": "avg"}}, "pool_type = 'avg'"),
        ({"text_cfg": {"hf_model_name": "roberta"}}, "hf_model_name = 'roberta'"),
        ({"text_cfg": {"no_causal_mask": True}}, "no_causal_mask = True"),
        ({"multimodal_cfg": {"width": 3}}, "multimodal_cfg"),
        ({"vision_cfg": {"image_size": 224}}, "positions for 32 px, configuration for 224 px"),
        ({"vision_cfg": None}, "not an open_clip model folder"),
    ],
)
def test_configurations_of_other_architectures_are_refused(tmp_path, short, change, reason):
    folder = hub_folder(tmp_path / "hub", short, **({} if None in change.values() else change))
    if None in change.values():
        (folder / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": null}}')
    with pytest.raises(ModelError, match=reason):
        import_checkpoint(folder, store=tmp_path / "store")


def test_a_hugging_face_folder_states_its_activation(tmp_path, short):
    folder = tmp_path / "hf"
    folder.mkdir()
    save_file(
        {key: value.contiguous() for key, value in transformers_names(short).items()}, folder / "model.safetensors"
    )
    tower = {"hidden_act": "gelu", "hidden_size": 64, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps({"vision_config": tower | {"image_size": 32}, "text_config": tower}))
    report = import_checkpoint(folder, store=tmp_path / "store")
    assert (report.layout, report.config.activation) == ("hf", "gelu")
    assert (report.config.vision_cfg["head_width"], report.config.text_cfg["heads"]) == (32, 2)
    assert all(torch.equal(stored(report)[key], value) for key, value in short.items())
    with pytest.raises(ModelError, match="OpenAI CLIP has quick_gelu, its configuration says gelu"):
        import_checkpoint(folder, family="openai", store=tmp_path / "store", name="other")


def test_folders_without_one_weights_file_are_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        import_checkpoint(tmp_path / "nothing", store=tmp_path / "store")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ModelError, match="holds no weights file"):
        import_checkpoint(folder, store=tmp_path / "store")
    for name in ("a.pt", "b.pt"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=r"several weights files \(a.pt, b.pt\)"):
        import_checkpoint(folder, store=tmp_path / "store")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="in several parts"):
        import_checkpoint(folder, store=tmp_path / "store")


def test_a_part_of_several_is_called_one(bring, short, tmp_path):
    part = {key: value for key, value in short.items() if not key.startswith("visual.ln_post")}
    name = "model-00001-of-00002.safetensors"
    for rest in (part, {"ln_final.weight": short["ln_final.weight"]}):
        with pytest.raises(ModelError, match=r"one part of several \(model-00001-of-00002\).*one safetensors file"):
            bring(rest, file=name, family="remoteclip")
    with pytest.raises(ModelError, match=r"in several parts \(model-00001-of-00002.safetensors\)"):
        import_checkpoint(tmp_path, store=tmp_path / "store")
    assert bring(short, file=name, family="remoteclip", name=None).config.name == "model-00001-of-00002"
    assert bring(short, file="model-00001-of-00001.safetensors", family="remoteclip", name="one").parameters


# ---- what is written


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_stay_as_they_were_published(bring, short, dtype):
    tensors = {key: value.to(dtype) for key, value in short.items()}
    kept = stored(bring(tensors, family="remoteclip"))
    assert all(kept[key].dtype == dtype and torch.equal(kept[key], value) for key, value in tensors.items())


def test_the_record_tells_where_the_weights_come_from(bring, short, tmp_path):
    import hashlib

    report = bring(short, family="remoteclip", origin="hf:someone/something")
    record = json.loads((report.folder / "provenance.json").read_text())
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert record["source_sha256"] == digest
    expected = {
        "schema": 1, "source": "hf:someone/something", "layout": "openai", "family": "remoteclip", "tables": "77",
        "activation": "quick_gelu", "activation_from": "family", "dropped": [], "licence": report.config.licence,
    }  # fmt: skip
    assert {key: record[key] for key in expected} == expected
    for name, digest in record["sha256"].items():
        assert hashlib.sha256((report.folder / name).read_bytes()).hexdigest() == digest
    with safe_open(report.folder / "model.safetensors", framework="pt") as handle:
        header = json.loads(handle.metadata()["geoalign"])
    assert header == {key: record[key] for key in ("family", "activation", "tables", "source_sha256")}
    assert report.parameters == sum(value.numel() for value in short.values())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.full((64, 32), float("nan")), "NaN or infinity in visual.proj"),
        (torch.full((64, 32), float("inf")).half(), "NaN or infinity in visual.proj"),
        (torch.full((64, 32), 1e200, dtype=torch.float64), "NaN or infinity in visual.proj, as float32"),
        (torch.ones(64, 32, dtype=torch.int8), "visual.proj: torch.int8"),
        (torch.ones(64, 32).to(torch.float8_e4m3fn), "not floating point.*float8"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(bring, short, value, reason, tmp_path):
    with pytest.raises(ModelError, match=reason):
        bring(short | {"visual.proj": value}, family="remoteclip")
    assert not (tmp_path / "store").exists()


def test_importing_twice_changes_nothing_and_replaces_nothing(bring, short):
    first = bring(short, family="remoteclip")
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = bring(short, family="remoteclip")
    assert (first.already_there, again.already_there) == (False, True)
    assert (again.folder, again.config) == (first.folder, first.config)
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    with pytest.raises(ModelError, match=r"already there.*other weights or other choices.*geoalign models remove mine"):
        bring(short, family="farslip")
    other = short | {"logit_scale": torch.tensor(1.0)}
    with pytest.raises(ModelError, match="already there"):
        bring(other, family="remoteclip")
    assert bring(other, family="remoteclip", name="other").folder != first.folder
    (first.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="the same import, but damaged"):
        bring(short, family="remoteclip")


def test_the_same_weights_with_another_configuration_are_another_import(tmp_path, short):
    store = tmp_path / "store"
    import_checkpoint(hub_folder(tmp_path / "a", short), name="mine", store=store)
    other = hub_folder(tmp_path / "b", short, vision_cfg={"head_width": 32})
    with pytest.raises(ModelError, match=r"already there .other weights or other choices"):
        import_checkpoint(other, name="mine", store=store)


def test_two_imports_at_once_end_as_one(tmp_path, short):
    path = tmp_path / "weights.safetensors"
    save_file(short, path)
    reports, start = [], threading.Barrier(4)

    def run():
        start.wait()
        reports.append(import_checkpoint(path, family="remoteclip", name="mine", store=tmp_path / "store"))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.already_there for report in reports) == [False, True, True, True]


def test_what_a_killed_import_left_is_cleared_by_the_next(bring, short, tmp_path):
    """Killed while its files lie in the temporary folder; a model whose name begins alike keeps its own."""
    store = tmp_path / "store"
    path = tmp_path / "weights.safetensors"
    save_file(short, path)
    code = (
        "import os, signal, sys; from pathlib import Path; from geoalign_core.models import convert, store; "
        "store.fsync_path = lambda path: os.kill(os.getpid(), signal.SIGKILL); "
        "convert.import_checkpoint(Path(sys.argv[1]), family='remoteclip', name='mine', store=Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(store)], check=False, timeout=120)
    left = [item for item in store.iterdir() if item.name.startswith(".mine.")]
    assert len(left) == 1
    other = store / ".mine.v2.abc.tmp"
    other.mkdir()
    bring(short, family="remoteclip")
    assert not left[0].exists()
    assert other.is_dir()


def test_weights_are_as_readable_as_their_description(bring, short):
    folder = bring(short, family="remoteclip").folder
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 101, "../out"])
def test_names_that_are_no_names_are_refused(bring, short, name):
    with pytest.raises(ModelError, match="cannot be a model's name"):
        bring(short, family="remoteclip", name=name)


def test_the_packaged_model_cannot_be_replaced(bring, short):
    with pytest.raises(ModelError, match="comes with the package"):
        bring(short, family="remoteclip", name="geoalign-s")


def test_a_full_disk_is_one_line_and_leaves_nothing(bring, short, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    import signal

    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = tmp_path / "weights.safetensors"
    save_file(short, path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, old[1]))
        with pytest.raises(OutputWriteError, match="cannot be written") as caught:
            import_checkpoint(path, family="remoteclip", name="mine", store=tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".downloads"]


def test_progress_reaches_its_end(bring, short):
    seen = []
    bring(short, family="remoteclip", progress=lambda *step: seen.append(step))
    assert [step[2] for step in seen] == ["reading", "hashing", "checking", "writing", "writing"]
    assert seen[-1][0] == seen[-1][1]


# ---- another context


def test_short_context_of_a_long_model_is_cut_not_resampled(bring, long, fine):
    report = bring(long, family="longclip", context=77)
    kept = stored(report)
    wanted = text_tables.truncate(long["positional_embedding"].numpy(), long["positional_embedding_res"].numpy())
    np.testing.assert_array_equal(kept["positional_embedding"].numpy(), wanted)
    assert "positional_embedding_res" not in kept
    assert report.dropped == ()
    assert report.change.endswith("not resampled; left out: positional_embedding_res")
    assert (report.config.text_cfg["tables"], report.config.text_cfg["context_length"]) == ("77", 77)
    assert "not resampled" in json.loads((report.folder / "provenance.json").read_text())["change"]
    report = bring(fine, name="fine", context=77)
    assert torch.equal(stored(report)["positional_embedding"], fine["positional_embedding"])
    assert report.config.text_cfg["long_projection"] is False


def test_long_context_of_a_short_model_is_stretched_and_recorded(bring, short):
    report = bring(short, family="farslip", context=248)
    kept = stored(report)
    wanted = text_tables.stretch(short["positional_embedding"].numpy())
    for key in ("positional_embedding", "positional_embedding_res"):
        np.testing.assert_array_equal(kept[key].numpy(), wanted)
    assert report.config.text_cfg["tables"] == "248"
    assert "not trained on long texts" in report.change
    assert json.loads((report.folder / "provenance.json").read_text())["change"] == report.change
    half = {key: value.bfloat16() for key, value in short.items()}
    assert stored(bring(half, family="farslip", context=248, name="half"))["positional_embedding"].shape == (248, 64)


def test_a_context_that_is_there_already_changes_nothing(bring, short, long):
    assert bring(short, family="farslip", context=77).dropped == ()
    assert bring(long, family="farslip", context=248, name="long").config.text_cfg["tables"] == "248"
    with pytest.raises(ModelError, match="takes 77 or 248"):
        bring(short, family="farslip", context=100, name="other")
    few = short | {"positional_embedding": short["positional_embedding"][:33]}
    with pytest.raises(ModelError, match=r"33 positions, context 77.*takes 77 or 248"):
        bring(few, family="openai", context=77, name="other")
    assert bring(few, family="openai", name="few").config.text_cfg["context_length"] == 33
    tower = {key: value for key, value in short.items() if key.startswith("visual.")}
    with pytest.raises(ModelError, match="takes 77 or 248"):
        bring(tower, family="openai", context=77, name="other")


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    buffer = io.BytesIO()
    torch.save({"epoch": 1}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match=str(path)):
        import_checkpoint(path, store=tmp_path, trust_pickle=True)


@pytest.mark.parametrize(
    "pixels",
    [{"std": [0, 0, 0]}, {"std": [1e-45] * 3}, {"mean": [1e39] * 3}, {"mean": "abc"}, {"mean": [1, 2]}, {"mean": 5}],
)
def test_a_preprocessing_that_cannot_be_is_refused_by_import_and_by_path(tmp_path, short, pixels):
    folder = hub_folder(tmp_path / "hub", short)
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": pixels}))
    for use in (lambda: import_checkpoint(folder, store=tmp_path / "store"), lambda: find_config(str(folder))):
        with pytest.raises(ModelError):
            use()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("vision", [{"head_width": -64}, {"head_width": "x"}])
def test_heads_that_cannot_be_are_refused(tmp_path, short, vision):
    folder = hub_folder(tmp_path / "hub", short, vision_cfg=vision)
    with pytest.raises(ModelError):
        import_checkpoint(folder, store=tmp_path / "store")


def test_a_familys_name_is_not_for_another_familys_model(tmp_path, short):
    save_file(short, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="of the family openai, and remoteclip is the name of another"):
        import_checkpoint(tmp_path / "a.safetensors", family="openai", name="remoteclip", store=tmp_path / "store")


def test_one_damaged_description_does_not_hide_the_others(tmp_path, short, monkeypatch):
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    save_file(short, tmp_path / "a.safetensors")
    for name in ("one", "two"):
        import_checkpoint(tmp_path / "a.safetensors", family="openai", name=name)
    path = tmp_path / "store" / "one" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"title": 5}))
    titles = {entry.name: entry.title for entry in list_models()}
    assert "damaged" in titles["one"] and "OpenAI" in titles["two"]


def test_a_model_that_is_being_pulled_is_not_removed(tmp_path, short, monkeypatch):
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    save_file(short, tmp_path / "a.safetensors")
    import_checkpoint(tmp_path / "a.safetensors", family="openai", name="busy")
    with locked(downloads_dir("busy.lock")), pytest.raises(ModelError, match="being pulled"):
        remove_model("busy")
    remove_model("busy")
    assert not (tmp_path / "store" / "busy").exists()


def test_the_families_that_fit_are_named_with_the_activation_that_each_forces():
    import open_clip

    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    shapes = model.state_dict()
    with pytest.raises(ModelError, match="add --family, one of: ") as caught:
        identify(deduce(shapes), Clues("openai", frozenset(shapes)))
    for advice in ("remoteclip (quick_gelu)", "skyclip (gelu)", "; or --activation gelu or --activation quick_gelu"):
        assert advice in str(caught.value)
    assert "fgclip" not in str(caught.value)
