"""A model that was learnt anew, outside of the package: by folder, from the store, and forged."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from geoalign_core.cli import cli
from geoalign_core.errors import ModelError
from geoalign_core.models.convert import import_checkpoint
from geoalign_core.models.embedded import HEAD_NAME
from geoalign_core.models.registry import WEIGHTS_DIR, list_models, load_encoder, sha256_of, verify_model
from geoalign_core.models.retrained import write_description
from tiling.clikit import run_cli
from training.embedded.package import PACKAGE, copy_towers, load_config, load_model, write_config

IMAGES = np.random.default_rng(3).integers(0, 256, (2, 3, 56, 56), np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `align --out` leaves behind, with the packaged head for a learnt one."""
    folder = tmp_path_factory.mktemp("out") / "My Model"
    copy_towers(folder)
    shutil.copyfile(WEIGHTS_DIR / HEAD_NAME, folder / HEAD_NAME)
    config = load_config(folder)
    own = dataclasses.replace(config, prompts=dataclasses.replace(config.prompts, templates=("a drone's view of {}",)))
    write_config(own, folder, provenance={"protocol": "geoalign-val-1", "recipe": "{}"})
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def model(made, tmp_path):
    return shutil.copytree(made, tmp_path / "given")


def forge(folder, record=True, **change):
    """Change the description, and its hash in the record too."""
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    if record:
        facts = json.loads((folder / "provenance.json").read_text())
        facts["sha256"]["model.json"] = sha256_of(path)
        (folder / "provenance.json").write_text(json.dumps(facts))


def test_a_folder_is_a_model(model):
    found, packaged = load_encoder(str(model), device="cpu"), load_encoder(device="cpu")
    assert found.config.name == "my-model"
    assert "geoalign-s" not in found.config.title
    np.testing.assert_array_equal(found.encode_raw(IMAGES).patches, packaged.encode_raw(IMAGES).patches)
    assert found.key == packaged.key  # the same weights: an index of one serves the other
    assert found.score_key != packaged.score_key  # other questions
    assert all(check.ok for check in verify_model(str(model)))
    assert len(verify_model(str(model))) == 4


def test_every_command_takes_it(model, sample_path, tmp_path, capsys):
    assert run_cli(cli, ["models", "info", str(model)]) == 0
    assert "vit_small_patch14_dinov2" in capsys.readouterr().out
    asked = ["ask", str(sample_path), "water", "--model", str(model), "--gsd", "2", "--out", str(tmp_path / "out")]
    assert run_cli(cli, asked) == 0
    assert (tmp_path / "out" / "water.tif").is_file()


def test_it_comes_into_the_store_once(model, store, capsys):
    assert run_cli(cli, ["models", "import", str(model), "--name", "harbour"]) == 0
    assert capsys.readouterr().out.startswith("harbour: family embedded, built as the package's, ")
    assert [entry.installed for entry in list_models() if entry.name == "harbour"] == [True]
    served = load_encoder("harbour", device="cpu")
    assert served.config.name == "harbour"
    assert served.score_key == load_encoder(str(model), device="cpu").score_key
    record = json.loads((store / "harbour" / "provenance.json").read_text())
    assert record["protocol"] == "geoalign-val-1"
    assert import_checkpoint(model, name="harbour").already_there
    assert sorted(path.name for path in store.iterdir() if path.is_dir() and path.name[0] != ".") == ["harbour"]


def test_the_store_refuses_names_that_mean_something_else(model, store):
    assert import_checkpoint(model).config.name == "given"
    for name in ("geoalign-s", "clip-vit-b-16", "remoteclip"):
        with pytest.raises(ModelError, match="name"):
            import_checkpoint(model, name=name)
    shutil.copyfile(WEIGHTS_DIR / "geoalign-s-vocab.txt", model / HEAD_NAME)
    with pytest.raises(ModelError, match=r"head.safetensors: is not the file that the model was published with"):
        import_checkpoint(model, name="given")
    with pytest.raises(ModelError, match="leave --family"):
        import_checkpoint(model, family="farslip", name="b")


def test_what_does_not_load_does_not_come_into_the_store(model, store):
    (model / HEAD_NAME).write_bytes(b"junk")
    write_description(model, load_config(model), {})
    with pytest.raises(ModelError, match=r"head.safetensors: is not a readable weights file"):
        import_checkpoint(model, name="junk")
    assert not (store / "junk").exists()


def test_the_same_weights_with_other_questions_are_another_model(model, store):
    import_checkpoint(model, name="harbour")
    prompts = dataclasses.replace(load_config(model).prompts, templates=("{} from above",))
    write_description(model, dataclasses.replace(load_config(model), prompts=prompts), {})
    with pytest.raises(ModelError, match=r"harbour is already there .*other questions"):
        import_checkpoint(model, name="harbour")
    assert load_encoder("harbour", device="cpu").config.prompts.templates == ("a drone's view of {}",)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("prompts", "templates", ["a {:>900000000}"]),
        ("prompts", "templates", None),
        ("prompts", "templates", []),
        ("prompts", "templates", [3]),
        ("prompts", "logit_scale", "20"),
        ("dense", "window_px", "224"),
        ("dense", "overlap_px", 224),
        ("gsd", "default_m", 0),
        ("gsd", "levels", []),
    ],
)
def test_words_and_numbers_are_looked_at(model, part, key, value):
    own = json.loads((model / "model.json").read_text())[part]
    forge(model, **{part: own | {key: value}})
    with pytest.raises(ModelError, match=r"model.json: is not a model's description"):
        load_encoder(str(model), device="cpu")


def test_training_reads_a_folder_as_strictly(model, tmp_path):
    assert load_model(model).config.name == "my-model"
    assert load_model(PACKAGE).config.name == "geoalign-s"
    shutil.copyfile(WEIGHTS_DIR / "geoalign-s-vocab.txt", model / HEAD_NAME)
    with pytest.raises(ModelError, match="is not the file that the model was published with"):
        load_model(model)
    forge(model, vision_cfg={"timm_model_name": "hf-hub:somebody/something"})
    for use in (load_model, load_config):
        with pytest.raises(ModelError, match="is not a model's description"):
            use(model)
    (model / "model.json").unlink()
    with pytest.raises(ModelError, match=r"model.json is missing"):
        load_model(model)


@pytest.mark.parametrize(
    "change",
    [
        {"vision_cfg": {"timm_model_name": "hf-hub:somebody/something", "image_size": 224, "width": 384}},
        {"embed_dim": 1_000_000},
        {"files": [{"name": "../model.json", "sha256": "0" * 64, "size_bytes": 1}]},
        {"files": []},
    ],
    ids=["other tower", "huge", "file elsewhere", "no files"],
)
def test_a_forged_description_builds_nothing(model, change, monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("built"))
    forge(model, **change)
    for use in (load_encoder, verify_model):
        with pytest.raises(ModelError, match=r"model.json: is not a model's description .*the package's embedded one"):
            use(str(model))


def test_hashes_must_agree(model):
    forge(model, record=False, title="another")
    with pytest.raises(ModelError, match=r"model.json: is not the file that the model was published with"):
        load_encoder(str(model), device="cpu")
    files = [item | {"sha256": "0" * 64} for item in json.loads((model / "model.json").read_text())["files"]]
    forge(model, files=files)
    with pytest.raises(ModelError, match=r"provenance.json: cannot be read .*other hashes"):
        load_encoder(str(model), device="cpu")
    (model / "provenance.json").unlink()
    with pytest.raises(ModelError, match="copy the whole folder, or finish it with: geoalign-train align --out"):
        load_encoder(str(model), device="cpu")


def test_a_number_of_another_type_is_the_packages(model):
    text = load_config(PACKAGE).text_cfg
    forge(model, text_cfg=text | {"layers": float(text["layers"])})
    assert load_encoder(str(model), device="cpu").config.text_cfg["layers"] == 6
