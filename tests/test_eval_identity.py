"""What a result says of itself: which data set, which files, which settings, which program."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

import geoalign_core
from tests.eval_pictures import lines, picture
from tests.test_eval_choice import tree  # noqa: F401 - a fixture, as the following
from tests.test_eval_classify import folders  # noqa: F401
from tests.test_eval_command import SMALL, boxed, run  # noqa: F401
from tests.test_eval_detection import voc
from tests.test_eval_pointing import coco  # noqa: F401
from tests.test_eval_referring import rsvg
from tests.test_eval_segment import loveda  # noqa: F401
from tests.test_eval_selo import airslt  # noqa: F401
from training.evaluation.catalogue import placed_id
from training.evaluation.fingerprints import found_file
from training.evaluation.registry import TITLES, find_task
from training.evaluation.result import read_result
from training.evaluation.suite import read_suite

# Which data set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "task", "known"),
    [
        ("NWPU VHR-10 dataset", "regions", "nwpu-vhr-10"),
        ("CHOICE/perception/image_level_comprehension/scene_classification", "choice", "choice-img"),
        ("DOTA-v1.0", "detect", "dota-ovd"),
        ("x/SkyScript_test_30K_filtered_by_CLIP_laion_RS.csv", "retrieval", "skyscript-retrieval"),
        ("RSITMD/test/list.json", "retrieval", "rsitmd"),
        ("RSITMD", "classify", ""),  # another task's
        ("mine", "regions", ""),
        ("RSITMD/a/b/c/d/mine", "retrieval", ""),  # too far up to be about this
    ],
)
def test_a_data_set_is_known_by_its_name_or_that_of_a_folder_around_it(tmp_path, place, task, known):
    assert placed_id(tmp_path / place, task) == known


def test_the_leaf_that_the_docs_name_stands_beside_the_printed_figures(tree, run, tmp_path):  # noqa: F811
    code, _, err = run("choice", "--data", tree / "perception" / "image_level" / "scene", "-o", tmp_path / "r.json")
    assert code == 0, err
    assert read_result(tmp_path / "r.json").dataset.id == "choice-img"
    assert "| printed |" in run("table", tmp_path / "r.json")[1]


def test_a_folder_of_any_name_is_the_set_that_one_says_it_is(folders, run, tmp_path):  # noqa: F811
    mine = shutil.copytree(folders, tmp_path / "mine")
    given = ("classify", "--data", mine, "--protocol", "zsc-folders", "-o", tmp_path / "r.json", "--overwrite")
    assert run(*given)[0] == 0
    _, text, _ = run("table", tmp_path / "r.json")
    assert "| printed |" not in text
    assert "There are printed figures of siri-whu (zsc-folders)" in text and "--dataset" in text
    assert run(*given, "--dataset", "SIRI-WHU")[0] == 0
    _, text, _ = run("table", tmp_path / "r.json")
    assert "**SIRI-WHU, protocol zsc-folders**" in text and "| printed |" in text and "--dataset" not in text


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("rsitmd", 2, "rsitmd is no data set of classify; use one of aid"), ("sirri-whu", 2, "did you mean siri-whu")],
)
def test_a_set_that_cannot_be_is_refused_in_a_line(folders, run, name, code, said):  # noqa: F811
    found = run("classify", "--data", folders, "--protocol", "zsc-folders", "--dataset", name)
    assert found[0] == code and said in found[2] and len(found[2].splitlines()) == 1


def test_a_set_without_printed_figures_says_so(folders, run, tmp_path):  # noqa: F811
    given = (
        "classify",
        "--data",
        folders,
        "--protocol",
        "zsc-folders",
        "--dataset",
        "eurosat",
        "-o",
        tmp_path / "r.json",
    )
    assert run(*given)[0] == 0
    assert "are of another protocol and not shown" in run("table", tmp_path / "r.json")[1]
    found = json.loads((tmp_path / "r.json").read_text())
    found |= {"task": "retrieval", "protocol": "retrieval-unique"}
    found["dataset"]["id"] = "skyscript-retrieval"
    (tmp_path / "r.json").write_text(json.dumps(found))
    assert "There are no printed figures of this data set" in run("table", tmp_path / "r.json")[1]


def test_words_that_are_not_there_are_missing(folders, run, tmp_path):  # noqa: F811
    given = ("classify", "--data", folders, "--protocol", "zsc-folders", "-s", f"words={tmp_path / 'no.json'}")
    code, _, err = run(*given)
    assert code == 1 and "no.json: is missing; write" in err


def test_a_set_that_is_said_brings_its_classes(loveda, run, tmp_path):  # noqa: F811
    (tmp_path / "uavid").mkdir()
    mine = loveda.rename(tmp_path / "uavid" / "mine")
    given = ("segment", "--data", mine, "--templates", "a {}", *SMALL)
    assert run(*given)[0] == 1  # nothing tells its classes: the folder around it is not asked
    code, out, err = run(*given, "--dataset", "loveda", "-o", tmp_path / "r.json")
    assert code == 0 and "7 classes" in out, err
    assert read_result(tmp_path / "r.json").dataset.id == "loveda"


def test_tasks_without_published_figures_take_no_set(coco, run):  # noqa: F811
    code, _, err = run("point", "--data", coco, "--dataset", "loveda")
    assert code == 2 and "loveda is no data set of point; leave it out" in err


def test_a_suite_says_which_set_it_is(folders, run, tiny_model, tmp_path):  # noqa: F811
    mine = shutil.copytree(folders, tmp_path / "mine")
    item = {"name": "a", "task": "classify", "data": str(mine), "protocol": "zsc-folders"}
    options = ("--model", tiny_model, "--device", "cpu", "--cache", tmp_path / "cache", "-o", tmp_path / "results")

    def suite(**more):
        (tmp_path / "suite.json").write_text(json.dumps({"measurements": [{**item, **more}]}))
        return run("suite", tmp_path / "suite.json", *options)

    assert suite()[1] == "1/1 a: measured\n"
    assert suite(dataset="siri-whu")[1] == "1/1 a: measured\n"
    assert read_result(tmp_path / "results" / "a.json").dataset.id == "siri-whu"
    assert suite(dataset="siri-whu")[1] == "1/1 a: there already\n"
    code, _, err = suite(dataset="rsitmd")
    assert code == 2 and "measurements[0]: rsitmd is no data set of classify" in err


# Which files ------------------------------------------------------------------------------------------------------


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_results_of_two_answer_files_can_be_traced_and_told_apart(run, tmp_path):  # noqa: F811
    data = rsvg(tmp_path / "DIOR_RSVG")
    for folder, right in (("one", 20), ("two", 8)):
        answer = {"image": "00001.jpg", "text": "the ship above", "bbox": [0, 0, 20, right]}
        path = lines(tmp_path / folder / "answers.jsonl", [answer])
        code, _, err = run("refer", "--data", data, "-s", f"answers={path}", "-o", tmp_path / f"{folder}.json")
        assert code == 0, err
        found = read_result(tmp_path / f"{folder}.json")
        assert found.files == {"answers": digest(path)} and found.settings["answers"] == "answers.jsonl"
        assert found.subject == "answers file answers.jsonl"
    pair = (tmp_path / "one.json", tmp_path / "two.json")
    _, text, _ = run("table", *pair)
    for folder in ("one", "two"):
        part = digest(tmp_path / folder / "answers.jsonl")[:8]
        assert f"| answers file answers.jsonl, answers file {part}" in text
    assert "detections" not in text and str(tmp_path) not in text
    assert run("report", *pair, "-o", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert digest(tmp_path / "one" / "answers.jsonl")[:16] in page and "detections file" not in page


def test_a_folder_of_detections_is_known_by_its_files(run, tmp_path):  # noqa: F811
    data, found = voc(tmp_path / "DIOR"), tmp_path / "found"
    found.mkdir()
    (found / "Task1_ship.txt").write_text("00001 0.9 0 0 20 0 20 20 0 20\n")
    given = ("detect", "--data", data, "-s", f"detections={found}", "-o", tmp_path / "r.json", "--overwrite")
    assert run(*given)[0] == 0
    before = read_result(tmp_path / "r.json")
    (found / "Task1_ship.txt").write_text("00001 0.8 0 0 20 0 20 20 0 20\n")
    assert run(*given)[0] == 0
    after = read_result(tmp_path / "r.json")
    assert before.subject == after.subject == "detections file found"
    assert len(before.files["detections"]) == 64 and before.files != after.files


@pytest.mark.parametrize("written", ["name", "object", "path"])
@pytest.mark.parametrize("kind", ["answers", "words"])
def test_a_suite_measures_again_when_a_file_of_a_setting_changes(run, tiny_model, tmp_path, kind, written):  # noqa: F811
    if kind == "answers":
        item = {"name": "a", "task": "refer", "data": str(rsvg(tmp_path / "DIOR_RSVG"))}
        first, second = ({"image": "00001.jpg", "text": "the ship above", "bbox": [0, 0, 20, n]} for n in (20, 4))
    else:
        picture(tmp_path / "data" / "port" / "1.png", 1)
        picture(tmp_path / "data" / "beach" / "1.png", 2)
        item = {"name": "a", "task": "classify", "data": "data", "protocol": "zsc-folders"}
        first, second = {"port": "harbour"}, {"port": "ships"}
    file = tmp_path / "given.json"
    value = {"name": "given.json", "object": {"file": "given.json"}, "path": str(file)}[written]
    suite = {"measurements": [{**item, "settings": {kind: value}}]}
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    options = ("--model", tiny_model, "--device", "cpu", "--cache", tmp_path / "cache", "-o", tmp_path / "results")
    for given, said in ((first, "measured"), (first, "there already"), (second, "measured")):
        file.write_text(json.dumps([given] if kind == "answers" else given))
        code, out, err = run("suite", tmp_path / "suite.json", *options)
        assert (code, out) == (0, f"1/1 a: {said}\n"), err
        assert read_result(tmp_path / "results" / "a.json").files == {kind: digest(file)}


def test_a_file_called_as_a_set_of_templates_is_none(folders, run, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_text("not {} this")
    item = {"name": "a", "task": "classify", "data": str(folders), "settings": {"templates": "plain"}}
    (tmp_path / "suite.json").write_text(json.dumps({"measurements": [item]}))
    assert read_suite(tmp_path / "suite.json")[0].settings == {"templates": "plain"}
    given = ("classify", "--data", folders, "--protocol", "zsc-folders", "-o", tmp_path / "r.json")
    assert run(*given, "--templates", "plain")[0] == 0
    assert read_result(tmp_path / "r.json").files == {}


def test_a_setting_without_a_value_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found_file("images", "") is None and found_file("images", "", tmp_path) is None
    assert found_file("images", ".") is not None


def test_files_of_settings_are_settings():
    for name in TITLES:
        assert find_task(name).files <= set(find_task(name).settings)


# Which settings, which program ------------------------------------------------------------------------------------


def told(run, tmp_path, name, data, *more):  # noqa: F811
    code, _, err = run(name, "--data", data, "-o", tmp_path / "r.json", "--overwrite", *more)
    assert code == 0, err
    found = read_result(tmp_path / "r.json")
    assert found.version == geoalign_core.__version__
    return found.settings


def test_pointing_tells_the_values_that_count(coco, run, tmp_path):  # noqa: F811
    settings = told(run, tmp_path, "point", coco)
    assert (settings["rim"], settings["tolerance_px"], settings["limit"]) == ("outside", None, None)
    assert settings["window_px"] > 0 and settings["scale"] == 1 and settings["object_px"] is None
    more = ("--protocol", "point-program", "-s", "source_gsd=20", "-s", "tolerance_px=15", "--limit", "2")
    settings = told(run, tmp_path, "point", coco, *more)
    assert (settings["source_gsd"], settings["gsd"], settings["tolerance_px"]) == (20, 20, 15)  # the images' own
    assert settings["limit"] == 2 and "window_px" not in settings


def test_calibration_tells_the_values_that_count(run, tmp_path):  # noqa: F811
    settings = told(run, tmp_path, "calibrate", boxed(tmp_path / "boxed"))
    assert (settings["truth"], settings["rim"], settings["unboxed"], settings["most"]) == (
        "boxes", "outside", "empty", None,
    )  # fmt: skip
    assert settings["window_px"] > 0 and settings["scale"] == 1 and settings["limit"] is None
    assert settings["methods"] and str(tmp_path) not in json.dumps(settings)


def test_where_files_lie_is_told_by_no_calibration(run, tmp_path):  # noqa: F811
    """Neither in settings and details of the result nor in the map, which goes where the model goes."""
    data, words = boxed(tmp_path / "boxed"), tmp_path / "words.json"
    words.write_text('{"ship": ["boat"]}')
    told(run, tmp_path, "calibrate", data, "-s", f"words={words}")
    found = read_result(tmp_path / "r.json")
    assert found.settings["words"] == found.details["calibration"]["data"]["settings"]["words"] == "words.json"
    assert str(tmp_path) not in (tmp_path / "r.json").read_text()


def test_localisation_tells_its_limit(airslt, run, tmp_path):  # noqa: F811
    assert told(run, tmp_path, "selo", airslt[0], "--limit", "1")["limit"] == 1


def test_boxes_of_heatmaps_tell_at_which_size_and_threshold(run, tmp_path):  # noqa: F811
    data = rsvg(tmp_path / "DIOR_RSVG")
    settings = told(run, tmp_path, "refer", data, "--limit", "1", "-s", "source_gsd=20", "-s", "threshold=0.4")
    assert (settings["source_gsd"], settings["gsd"], settings["threshold"]) == (20, 20, 0.4)
    settings = told(run, tmp_path, "detect", voc(tmp_path / "DIOR"), "--protocol", "text-boxes", "--limit", "1")
    assert [settings[name] for name in ("source_gsd", "gsd", "threshold")] == [None] * 3
