"""From raw data to the model card by way of folders, a suite and results: the same figures as those in memory."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.raw_data import SCENES, raw_data
from tiling.clikit import run_cli
from tiling.errors import UsageError
from tiling.progress import silent
from training.cli import main
from training.data.errors import DataError
from training.embedded.card import BEGIN, END, read_card
from training.embedded.card import SCENES as SCENE_ROWS
from training.embedded.held_out import CALIBRATION, PATCHES, export_held_out
from training.embedded.samples import pool_set, vehicle_set
from training.evaluation.command import main as eval_main
from training.evaluation.layouts.boxes import read_boxes
from training.evaluation.layouts.captions import read_captions
from training.evaluation.layouts.classes import read_folders
from training.evaluation.metrics.pointing import patch_labels
from training.evaluation.suite import read_suite


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return raw_data(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def held_out(raw, tmp_path_factory):
    return export_held_out(raw, tmp_path_factory.mktemp("parts") / "held-out", silent).parent


def test_the_folders_hold_what_the_samples_are(raw, held_out):
    """Same pixels, and boxes that give the patches the same labels."""
    for folder, dense in (
        ("vehicles-0.2m", vehicle_set(raw, held_out=True, gsd_m=0.2)),
        ("pools-56px", pool_set(raw, held_out=True, cell_px=56)),
        ("pools-28px", pool_set(raw, held_out=True, cell_px=28)),
    ):
        data = read_boxes(held_out / folder)
        places = {key.removesuffix(".jpg"): place for place, key in enumerate(dense.samples.keys)}
        assert len(data.scenes) == len(places)
        pixels = list(dense.samples.load(dense.samples.keys))
        for scene in data.scenes:
            place = places[scene.image.removeprefix("images/").removesuffix(".png")]
            assert np.array_equal(scene.pixels(), pixels[place])
            rows, cols = dense.labels[place].shape
            assert np.array_equal(patch_labels(scene.all_boxes(), rows, cols, 14), dense.labels[place])
    chips = read_boxes(held_out / "pools-56px").scenes
    whole = np.sum([patch_labels(scene.all_boxes(), 16, 16, 14) for scene in chips], axis=0)
    assert set(np.unique(whole)) <= set(range(-4, 5))
    assert (held_out / "aircraft/images/aircraft_0.jpg").read_bytes() == (
        raw / "boxes/aircraft/images/aircraft_0.jpg"
    ).read_bytes()


def test_scenes_are_read_by_name_and_by_other_words(held_out):
    captions = read_captions(held_out / "scenes/captions.jsonl")
    assert len(captions.images) == 2 * len(SCENES) and not captions.satellite
    assert {len(texts) for texts in captions.texts} == {2, 3}
    with Image.open(captions.root / captions.images[0]) as image:
        assert (image.format, image.size) == ("PNG", (224, 224))
    named = read_folders(held_out / "scenes/captions.jsonl", words=held_out / "scenes/scene-names.json")
    assert dict(zip(named.classes, named.words, strict=True))["Parking"] == "a parking lot"
    seven = read_folders(held_out / "scenes/seven-other-words.jsonl")
    assert seven.words == ("a car park", "a river or lake", "woodland") and len(seven.images) == 8
    assert len(read_folders(held_out / "scenes/twenty-other-words.jsonl").images) == 10
    text = (held_out / "README.md").read_text()
    assert "10 AID images" in text and "no redistribution" in text


def test_places_that_are_refused(raw, tmp_path, request):
    with pytest.raises(UsageError, match="repository"):
        export_held_out(raw, request.config.rootpath / "build" / "held-out", silent)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        export_held_out(raw, tmp_path / "letters", silent)
    with pytest.raises(DataError, match=r"captions\.jsonl"):
        export_held_out(tmp_path / "nothing", tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_the_suite_is_one_that_geoalign_eval_reads(held_out):
    measurements = read_suite(held_out / "suite.json")
    assert {item.name for item in measurements} > {*PATCHES, CALIBRATION}
    assert all(item.data.exists() and all(path.exists() for path in item.files) for item in measurements)


@pytest.fixture(scope="module")
def carded(raw, tmp_path_factory):
    """A card that the command line has written: its path and the folder of its work."""
    folder = tmp_path_factory.mktemp("card")
    card = folder / "card.md"
    card.write_text(f"# Card\n{BEGIN}\n{END}\n")
    assert run_cli(main, ["card", str(card), "--data", str(raw), "--work", str(folder / "work")]) == 0
    return card, folder / "work"


@pytest.mark.model
def test_the_card_s_figures_are_those_in_memory(raw, carded, tmp_path):
    from training.embedded.corpus import gather_held_out
    from training.embedded.evaluate import caption_figures, dense_set_figures, scene_question_figures
    from training.embedded.package import PACKAGE, load_model

    figures, encoder = read_card(carded[0]), load_model(PACKAGE)
    captions = gather_held_out(raw, encoder.towers, tmp_path, silent)
    for name, value in caption_figures(encoder, captions).items():
        assert figures["captions"][name] == pytest.approx(value, abs=1e-3), name
    questions = scene_question_figures(encoder, captions)
    assert set(figures["scenes"]) == {"beach", "forest", "parking lot", "river", "pond"}
    for word, item in figures["scenes"].items():
        assert item == pytest.approx(questions[word], abs=2e-3), word
    for title, kind, dense in (
        ("vehicles 0.12 m", "vehicle", vehicle_set(raw, held_out=True, gsd_m=0.12)),
        ("pools 56 px", "pool", pool_set(raw, held_out=True, cell_px=56)),
    ):
        expected = dense_set_figures(encoder, kind, dense, tmp_path, silent)
        for word, item in figures[title].items():
            assert item == pytest.approx({name: expected[word][name] for name in item}, abs=3e-3), (title, word)


@pytest.mark.model
def test_every_row_names_its_measurement_and_is_repeated_by_its_line(carded, raw, held_out, capsys, tmp_path):
    card, work = carded
    text = card.read_text()
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| captions", "| patch", "| quest", "| score", "| target"))
        and not line.endswith(("| met |", "| **missed** |"))
    ]  # fmt: skip
    tasks = ("retrieval, retrieval-own", "classify, zsc-folders", "presence, presence-quarter", "point, point-windows",
             "point, point-program", "calibrate, calibration-program")  # fmt: skip
    assert len(rows) == 2 + len(SCENE_ROWS) + 3 * len(PATCHES) + 5 + 3
    assert all(row.endswith(tuple(f"| {task} |" for task in tasks)) for row in rows)
    line = next(line for line in text.splitlines() if "HELD_OUT/vehicles-0.12m" in line)
    _, *words = shlex.split(line.replace("HELD_OUT", str(held_out)))
    assert run_cli(eval_main, [*words, "--device", "cpu", "--cache", str(tmp_path)]) == 0
    (value,) = re.findall(r"AP sedan +([0-9.]+)", capsys.readouterr().out)
    assert float(value) == pytest.approx(read_card(card)["vehicles 0.12 m"]["sedan"]["average_precision"], abs=1e-4)
    results = {path: path.stat().st_mtime_ns for path in (work / "results").rglob("*.json")}
    assert len(results) == 6 + len(PATCHES)
    assert run_cli(main, ["evaluate", "--json", "--data", str(raw), "--work", str(work)]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == read_card(card)["key"]
    assert {path: path.stat().st_mtime_ns for path in results} == results
