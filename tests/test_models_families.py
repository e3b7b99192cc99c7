"""Families as data, the store of models, and what is refused before a weight is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from geoalign_core.errors import ModelError
from geoalign_core.models import Encoder, find_config, list_models, load_encoder, verify_model
from geoalign_core.models.command import models
from geoalign_core.models.describe import PARTS, count_parts, describe, published_parts
from geoalign_core.models.families import FAMILIES_DIR, families, find_family, find_published, read_family
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.store import remove_model, sha256_of, stored_size
from tiling.clikit import run_cli

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def tiny_hub_folder(folder, **changes):
    """Write a random CLIP in open_clip's hub layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    model = open_clip.CLIP(TINY["embed_dim"], dict(TINY["vision_cfg"]), dict(TINY["text_cfg"]), quick_gelu=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY | {"quick_gelu": True}, "preprocess_cfg": {}} | changes
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A store with one imported model."""
    from geoalign_core.models.convert import import_checkpoint

    base = tmp_path_factory.mktemp("imported")
    source = tiny_hub_folder(base / "source")
    import_checkpoint(source / "open_clip_model.safetensors", family="remoteclip", name="mine", store=base / "store")
    return base / "store"


@pytest.fixture
def store(imported, tmp_path, monkeypatch):
    """A copy of it that may be damaged."""
    shutil.copytree(imported, tmp_path / "store")
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


# --- families -------------------------------------------------------------------------------------------------------


def test_every_family_of_the_promise_is_there():
    names = {family.name for family in families()}
    assert names == {
        "geoalignclip", "farslip", "dgtrs", "longclip", "fgclip", "remoteclip", "georsclip", "skyclip", "openai",
        "openclip",
    }  # fmt: skip
    shapes = {family.name: {model.architecture for model in family.models} for family in families()}
    assert shapes["geoalignclip"] == {"ViT-B-16", "ViT-L-14", "ViT-L-14-336"}
    assert shapes["farslip"] == {"ViT-B-16", "ViT-B-32"}
    assert shapes["dgtrs"] == {"ViT-B-16", "ViT-L-14"}
    assert shapes["remoteclip"] == {"RN50", "ViT-B-32", "ViT-L-14"}
    assert shapes["georsclip"] == {"ViT-B-32", "ViT-L-14", "ViT-L-14-336", "ViT-H-14"}
    assert {"clip-vit-b-16", "clip-vit-b-32"} <= {model.name for model in find_family("openai").models}


def test_activations_are_those_of_the_training():
    """QuickGELU wherever OpenAI's weights were the start; GELU for LAION's (seed systems, section 5)."""
    gelu = {model.name for family in families() for model in family.models if model.activation == "gelu"}
    assert {"georsclip-h14", "skyclip-b32-top50"} <= gelu
    rest = gelu - {"georsclip-h14", "skyclip-b32-top50"}
    assert rest == {model.name for model in find_family("openclip").models}


def test_modes_and_templates_that_families_name_exist():
    from geoalign_core.models.dense import MODES
    from geoalign_core.models.prompts import template_sets

    for family in families():
        assert family.dense_mode in MODES
        assert family.templates in template_sets()
        # FG-CLIP's own phrase is about photographs; its advice says so.
        if family.name in template_sets() and family.name != "fgclip":
            assert family.templates == family.name
    assert "overhead phrasings" in find_family("fgclip").advice
    assert find_family("georsclip").templates == "georsclip"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "remoteclip.json: unknown key colour"),
        ({"licence": None}, "remoteclip.json: licence: must be str"),
        ({"title": ...}, "remoteclip.json: missing key title"),
        ({"name": "other"}, "remoteclip.json: name: must be the file's name"),
        ({"activations": ["relu"]}, "remoteclip.json: activations: must be some of"),
        ({"tables": []}, "remoteclip.json: tables: must be some of"),
        ({"extras": ["surprise"]}, "remoteclip.json: extras: must be of"),
        ({"gsd": {"default_m": 1, "min_m": 2, "max_m": 3}}, "remoteclip.json: gsd: must be 0 < min_m"),
        ({"gsd": {"default_m": 1, "min_m": 1}}, "remoteclip.json: gsd: missing key max_m"),
        ({"preprocess": 3}, "remoteclip.json: preprocess: Preprocess: must be an object"),
        ({"models": 3}, "remoteclip.json: models: must be a list"),
        ({"logit_scale": True}, "remoteclip.json: logit_scale: must be float"),
    ],
)
def test_a_family_file_that_breaks_a_rule_is_named_with_its_key(tmp_path, change, message):
    data = json.loads((FAMILIES_DIR / "remoteclip.json").read_text()) | change
    path = tmp_path / "remoteclip.json"
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}, default=str))
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        read_family(path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"activation": "gelu"}, "activation"),
        ({"tables": ["248"]}, "tables"),
        ({"source": "ftp://somewhere"}, "source"),
        ({"files": []}, "files"),
        ({"files": ["../up.pt"]}, "files"),
        ({"size_mb": "big"}, "size_mb"),
        ({"pickle": 1}, "pickle"),
    ],
)
def test_a_published_model_that_breaks_a_rule_is_named_with_its_key(tmp_path, change, key):
    data = json.loads((FAMILIES_DIR / "remoteclip.json").read_text())
    data["models"][0] |= change
    path = tmp_path / "remoteclip.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"remoteclip.json: .*{key}: must be"):
        read_family(path)


def test_two_families_cannot_publish_one_name(tmp_path, monkeypatch):
    shutil.copytree(FAMILIES_DIR, tmp_path / "families")
    data = json.loads((FAMILIES_DIR / "farslip.json").read_text()) | {"name": "twin"}
    (tmp_path / "families" / "twin.json").write_text(json.dumps(data))
    monkeypatch.setenv("GEOALIGN_FAMILIES", str(tmp_path / "families"))
    with pytest.raises(ModelError, match=r"farslip1-b32 is also in farslip.json"):
        families()


def test_a_broken_folder_of_families_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GEOALIGN_FAMILIES", str(tmp_path))
    assert run_cli(models, ["list"]) == 1
    assert f"{tmp_path}: holds no families of models" in capsys.readouterr().err
    for content in ("{", "[" * 100_000, "3", '{"models": [3]}'):
        (tmp_path / "trial.json").write_text(content)
        assert run_cli(models, ["list"]) == 1
        told = capsys.readouterr().err
        assert "trial.json: is not a family's description" in told
        assert len(told.splitlines()) == 1


def test_unknown_names():
    assert find_published("nosuch") is None
    with pytest.raises(ModelError, match=r"no family is called 'clap'; choose one of dgtrs, farslip"):
        find_family("clap")


def test_parts_of_published_models_are_those_of_the_module():
    """Arithmetic against the shapes of the model itself, built without memory."""
    import torch

    from geoalign_core.models.architecture import deduce
    from geoalign_core.models.clip import ClipModel
    from geoalign_core.models.prompts import default_prompts

    config = find_config("geoalign-s")
    for name in ("clip-vit-b-16", "clip-rn50", "fgclip-b16", "longclip-b16"):
        family, model = find_published(name)
        import open_clip

        full = open_clip.get_model_config(model.architecture)
        vision = {"head_width": 64} | full["vision_cfg"]
        if isinstance(vision["layers"], list):
            vision.pop("head_width")
        tables = model.tables[0]
        text = full["text_cfg"] | {
            "tables": tables, "long_projection": tables == "77+248", "pad": "zero",
            "context_length": 77 if tables == "77" else 248,
        }  # fmt: skip
        from dataclasses import replace

        whole = replace(
            config, family=family.name, embed_dim=full["embed_dim"], vision_cfg=vision, text_cfg=text,
            patch_px=vision.get("patch_size") or 32, activation=model.activation, prompts=default_prompts(),
            dense=replace(config.dense, mode="maskclip"),
        )  # fmt: skip
        with torch.device("meta"):
            state = ClipModel(whole).state_dict()
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        assert count_parts(shapes) == published_parts(model), name
        assert deduce(state).tables == tables


def test_parts_add_up_for_every_published_model():
    for family in families():
        for model in family.models:
            parts = published_parts(model)
            assert sum(parts[part] for part in PARTS) == parts["total"] == model.parameters
            assert all(parts[part] > 0 for part in PARTS)


# --- the store ------------------------------------------------------------------------------------------------------


def test_an_imported_model_is_found_loaded_and_verified(store):
    entry = next(entry for entry in list_models() if entry.name == "mine")
    assert (entry.installed, entry.family) == (True, "remoteclip")
    assert entry.size_bytes > 12e6
    encoder = load_encoder("mine", device="cpu")
    assert isinstance(encoder, Encoder)
    assert encoder.encode_image(np.zeros((1, 3, 32, 32), np.uint8)).shape == (1, 32)
    assert all(check.ok for check in verify_model("mine"))
    assert load_encoder(str(store / "mine"), device="cpu").key == encoder.key


def test_options_change_the_configuration_and_the_key(store, monkeypatch):
    plain = load_encoder("mine", device="cpu")
    int8 = load_encoder("mine", device="cpu", options=EncoderOptions(precision="int8"))
    assert int8.key != plain.key
    monkeypatch.setenv("GEOALIGN_PRECISION", "int8")
    assert load_encoder("mine", device="cpu").key == int8.key
    monkeypatch.setenv("GEOALIGN_PRECISION", "float32")
    other = load_encoder(
        "mine", device="cpu", options=EncoderOptions(dense_mode="clearclip", cls_bias=-0.3, templates="skyscript")
    )
    assert (other.config.dense.mode, other.config.dense.cls_bias) == ("clearclip", -0.3)
    assert other.config.prompts.templates != plain.config.prompts.templates
    assert other.key != plain.key
    with pytest.raises(ModelError, match=r"no dense mode is called 'best'; choose one of vanilla"):
        load_encoder("mine", device="cpu", options=EncoderOptions(dense_mode="best"))
    for bias in (float("nan"), float("inf"), 1e30, -10.1):
        with pytest.raises(ModelError, match="CLS bias is out of range"):
            load_encoder("mine", device="cpu", options=EncoderOptions(cls_bias=bias))
    with pytest.raises(ModelError, match="one way to read patches"):
        load_encoder(device="cpu", options=EncoderOptions(dense_mode="sclip"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("activation",), "gelu", r"model.json: does not belong .*activation gelu here, quick_gelu there"),
        (("family",), "openclip", r"model.json: does not belong .*family openclip here, remoteclip there"),
        (("text_cfg", "tables"), "248", r"model.json: does not belong .*tables 248 here, 77 there"),
        (("title",), "other", r"model.json: is not the file that the model was published with"),
        (("embed_dim",), ..., r"model.json: is not a model's description"),
    ],
)
def test_another_description_beside_the_weights_is_refused(store, path, value, message):
    file = store / "mine" / "model.json"
    data = json.loads(file.read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps({key: item for key, item in data.items() if item is not ...}))
    with pytest.raises(ModelError, match=message):
        load_encoder("mine", device="cpu")


def test_half_files_and_half_folders_are_refused(store):
    weights = store / "mine" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"not the weights file of this model \(is incomplete: .* of .* bytes\)"):
        load_encoder("mine", device="cpu")
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"model.safetensors: is not the file that the model was published with"):
        load_encoder("mine", device="cpu")
    assert [check.ok for check in verify_model("mine") if check.path == weights] == [False]
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no weights"):
        load_encoder("mine", device="cpu")
    (store / "mine" / "model.json").unlink()
    with pytest.raises(ModelError, match=r"neither a model folder .* nor an open_clip model folder"):
        load_encoder("mine", device="cpu")


def test_a_record_that_is_damaged_or_of_another_import_is_refused(store):
    path = store / "mine" / "provenance.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"source_sha256": "0" * 64}))
    with pytest.raises(ModelError, match=r"provenance.json: does not belong to model.safetensors"):
        load_encoder("mine", device="cpu")
    path.write_text(json.dumps(record | {"sha256": {"../../etc/passwd": "0" * 64}}))
    with pytest.raises(ModelError, match=r"provenance.json: cannot be read"):
        verify_model("mine")
    for hashes in (["model.json"], "a", {}, {"model.json": 3, "model.safetensors": "0"}):
        path.write_text(json.dumps(record | {"sha256": hashes}))
        with pytest.raises(ModelError, match=r"provenance.json: cannot be read"):
            load_encoder("mine", device="cpu")
    path.write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"provenance.json: cannot be read"):
        describe("mine")
    path.unlink()
    for use in (verify_model, load_encoder, describe):
        for spec in ("mine", str(store / "mine")):
            with pytest.raises(ModelError, match=r"no record of what its files should be; bring it in with"):
                use(spec)


def test_a_description_cannot_vouch_for_itself(store):
    path = store / "mine" / "model.json"
    data = json.loads(path.read_text())
    data["dense"]["mode"] = "vanilla"
    path.write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"model.json: is not the file that the model was published with"):
        describe("mine")
    path.write_text(json.dumps(data | {"files": [{"name": "model.json", "sha256": "0" * 64, "size_bytes": 1}]}))
    for use in (load_encoder, describe, verify_model):
        with pytest.raises(ModelError, match=r"model.json: is not a model's description .*embedded kind list"):
            use("mine")


def forge(folder, **change):
    """Change the description and its hash in the record."""
    data = json.loads((folder / "model.json").read_text()) | change
    (folder / "model.json").write_text(json.dumps(data))
    record = json.loads((folder / "provenance.json").read_text())
    record["sha256"]["model.json"] = sha256_of(folder / "model.json")
    (folder / "provenance.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": 5}, "must be objects"),
        ({"text_cfg": None}, "must be objects"),
        ({"preprocess": {"mean": "abc", "std": [1, 1, 1], "image_px": 32}}, "three numbers"),
        ({"embed_dim": 10**9}, "embed_dim 1000000000 here, 32 there"),
        ({"vision_cfg": {"image_size": 32, "layers": 10**9, "width": 64, "patch_size": 8, "head_width": 64}},
         "layers 1000000000 here, 2 there"),
        ({"vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": "x"}},
         "describes no heads"),
    ],
)  # fmt: skip
def test_a_description_of_other_shapes_is_refused_before_anything_is_built(store, change, message):
    forge(store / "mine", **change)
    for use in (load_encoder, describe):
        with pytest.raises(ModelError, match=message):
            use("mine")


def test_weights_that_do_not_say_what_they_are_are_refused(store):
    from safetensors.torch import load_file, save_file

    weights = store / "mine" / "model.safetensors"
    save_file(load_file(weights), weights)
    with pytest.raises(ModelError, match=r"does not say which family it is of"):
        load_encoder("mine", device="cpu")


def test_models_that_are_not_here_say_how_to_get_them(store):
    with pytest.raises(ModelError, match=r"not on this machine; run: geoalign models pull fgclip-b16"):
        load_encoder("fgclip-b16")
    with pytest.raises(ModelError, match=r"run: geoalign models pull remoteclip-b32 --trust-pickle"):
        load_encoder("remoteclip-b32")
    with pytest.raises(ModelError, match=r"not published; bring your own .*--family geoalignclip"):
        load_encoder("geoalignclip-l14")
    with pytest.raises(ModelError, match=r"no model is called '../mine'.*geoalign-s"):
        load_encoder("../mine")


def test_removing_frees_the_name_and_nothing_else(store):
    other = store / "other"
    other.mkdir()
    (other / "model.json").write_text("{}")
    assert next(entry for entry in list_models() if entry.name == "other").title.startswith("damaged")
    assert stored_size("mine") > 12e6
    remove_model("mine")
    assert sorted(path.name for path in store.iterdir()) == [".downloads", "other"]
    (store / ".mine.abcd.tmp" / "mine").mkdir(parents=True)
    (store / ".mine.abcd.tmp" / "mine" / "model.safetensors").write_bytes(b"12")
    assert stored_size("mine") == 2
    remove_model("mine")
    assert not (store / ".mine.abcd.tmp").exists()
    (store / "link").symlink_to(other)
    with pytest.raises(ModelError, match="is a link to a folder elsewhere"):
        remove_model("link")
    for name, message in (
        ("mine", "not in the store"),
        ("geoalign-s", "part of the package"),
        ("../x", "not the name"),
    ):
        with pytest.raises(ModelError, match=message):
            remove_model(name)


# --- open_clip's hub layout by path ---------------------------------------------------------------------------------


def test_a_hub_folder_brings_its_own_preprocessing_and_activation(tmp_path):
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}
    folder = tiny_hub_folder(tmp_path / "hub", preprocess_cfg=pixels)
    config = load_encoder(str(folder), device="cpu").config
    assert (config.family, config.activation) == ("openclip", "quick_gelu")
    assert (config.preprocess.mean, config.preprocess.mode) == ((0.5, 0.5, 0.5), "squash")
    assert config.preprocess.interpolation == "bilinear"
    shutil.rmtree(folder)
    usual = find_config(str(tiny_hub_folder(tmp_path / "hub"))).preprocess
    assert (usual.mode, usual.interpolation) == ("crop", "bicubic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_cfg": TINY["text_cfg"] | {"no_causal_mask": True}}, "no_causal_mask = True"),
        ({"text_cfg": TINY["text_cfg"] | {"hf_model_name": "roberta"}}, "hf_model_name = 'roberta'"),
        ({"vision_cfg": TINY["vision_cfg"] | {"pool_type": "avg"}}, "pool_type = 'avg'"),
        ({"vision_cfg": TINY["vision_cfg"] | {"no_ln_pre": True}}, "no_ln_pre = True"),
        ({"multimodal_cfg": {}}, "multimodal_cfg = {}"),
    ],
)
def test_a_hub_folder_that_asks_for_another_forward_is_refused(tmp_path, change, message):
    folder = tiny_hub_folder(tmp_path / "hub", model_cfg=TINY | change)
    with pytest.raises(ModelError, match=f"another forward than CLIP's .*{message}"):
        load_encoder(str(folder))


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_list_is_grouped_and_fits_a_terminal(store, capsys):
    assert run_cli(models, ["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if not line.startswith(" ")][:2] == [
        "embedded", "dgtrs: DGTRS-CLIP (LRSCLIP), Apache-2.0, arXiv:2503.19311",
    ]  # fmt: skip
    assert any(line.split()[:2] == ["mine", "ready"] for line in lines)
    assert run_cli(models, ["list", "--family", "farslip", "--json"]) == 0
    assert {item["family"] for item in json.loads(capsys.readouterr().out)} == {"farslip"}
    assert run_cli(models, ["list", "--family", "FarSLIP", "--json"]) == 0
    assert {item["family"] for item in json.loads(capsys.readouterr().out)} == {"farslip"}
    assert run_cli(models, ["list", "--family", "nosuch"]) == 1


def test_long_titles_end_at_a_word(store, capsys):
    path = store / "mine" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"title": "seven letters " * 5}))
    assert run_cli(models, ["list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["mine"])
    assert line.endswith("seven letters seven letters seven letters …")


def test_info_tells_parts_context_activation_mode_and_licence(store, capsys):
    assert run_cli(models, ["info", "fgclip-l14-336"]) == 0
    text = capsys.readouterr().out
    for wanted in ("428,914,947", "77 and 248 tokens", "quick_gelu", "maskclip", "Apache-2.0", "336 px, squash"):
        assert wanted in text
    assert run_cli(models, ["info", "mine", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"]["total"] == sum(facts["parameters"][part] for part in PARTS)
    assert facts["provenance"]["family"] == "remoteclip"
    for entry in list_models():
        assert describe(entry.name).name == entry.name


def test_import_and_its_refusal_by_the_command(store, tmp_path, capsys):
    file = tiny_hub_folder(tmp_path / "source") / "open_clip_model.safetensors"
    bare = shutil.copy(file, tmp_path / "bare.safetensors")
    assert run_cli(models, ["import", str(bare), "--name", "bare"]) == 1
    assert "--family" in capsys.readouterr().err
    assert run_cli(models, ["import", str(bare), "--name", "bare", "--activation", "quick_gelu"]) == 0
    assert "bare: family openclip" in capsys.readouterr().out
    assert find_config("bare").activation == "quick_gelu"
    assert run_cli(models, ["import", str(bare), "--name", "bare", "--activation", "quick_gelu"]) == 0
    told = capsys.readouterr()
    assert "(as you asked)" in told.out
    assert "already there" in told.err


def test_a_changed_context_is_told_by_import_and_info(store, tmp_path, capsys):
    file = tiny_hub_folder(tmp_path / "source") / "open_clip_model.safetensors"
    bare = shutil.copy(file, tmp_path / "bare.safetensors")
    assert run_cli(models, ["import", str(bare), "--name", "long", "--family", "farslip", "--context", "248"]) == 0
    assert "not trained on long texts" in capsys.readouterr().err
    assert run_cli(models, ["info", "long"]) == 0
    assert "not trained on long texts" in capsys.readouterr().out
    cut = ["import", str(store / "long"), "--name", "cut", "--context", "77"]
    assert run_cli(models, cut) == 0
    err = capsys.readouterr().err
    assert "cut to the first 77 rows, not resampled; left out: positional_embedding_res" in err
    assert "nothing reads it" not in err


def test_listing_and_describing_need_no_torch():
    code = (
        "import sys; from geoalign_core.models.command import models; from tiling.clikit import run_cli; "
        "codes = [run_cli(models, ['list']), run_cli(models, ['info', 'dgtrs-b16']), run_cli(models, ['info'])]; "
        "assert codes == [0, 0, 0]; assert 'torch' not in sys.modules and 'open_clip' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
