"""What ``geoalign-eval`` says of data that it cannot take: which file it is, what the task reads, what to write."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tests.eval_pictures import picture
from tests.test_eval_choice import tree  # noqa: F401 - a fixture
from tests.test_eval_command import run  # noqa: F401 - a fixture
from tests.test_eval_detection import voc
from tests.test_eval_referring import rsvg
from tests.test_eval_retrieval import karpathy  # noqa: F401 - a fixture
from tests.test_eval_segment import loveda  # noqa: F401 - a fixture
from training.data.errors import DataError
from training.evaluation.layouts.regions import read_boxed
from training.evaluation.layouts.rsvg import read_referred


@pytest.mark.parametrize(("task", "name", "text", "said"), [
    ("retrieval", "", None, r"data: holds nothing that this task reads \(an empty folder\); give images with captions"),
    ("retrieval", "a.json", "[]", r"a\.json: holds nothing .*a list without objects"),
    ("retrieval", "a.json", '{"score": 1, "box": 2}', r"a\.json: holds nothing .*a file of score, box"),
    ("retrieval", "a.json", '[{"image": "a.png",\n', r"a\.json:\d: is not JSON"),
    ("retrieval", "a.jsonl", '{"image": \n', r"a\.jsonl:1: "),
    ("negatives", "a.json", "[]", "give regions with negatives"),
    ("point", "", None, "give boxes with categories"),
])  # fmt: skip
def test_what_the_task_reads_is_said(task, name, text, said, run, tmp_path):  # noqa: F811
    (tmp_path / "data").mkdir()
    if text is not None:
        (tmp_path / "data" / name).write_text(text)
    code, _, err = run(task, "--data", tmp_path / "data" / name)
    assert code == 1 and err.count("\n") == 1 and re.search(said, err), err
    assert "--format" not in err


def test_a_set_for_another_task_is_told_so(run, tmp_path, loveda):  # noqa: F811
    for task, data, said in (("regions", loveda, "boxes of classes"), ("refer", voc(tmp_path / "DIOR"), "DIOR-RSVG")):
        code, _, err = run(task, "--data", data)
        assert code == 1 and "holds nothing that this task reads" in err and said in err and "geoalign-eval data" in err


# What is to be written --------------------------------------------------------------------------------------------


def test_hints_can_be_typed_as_they_are(run, tmp_path, loveda, karpathy):  # noqa: F811
    for task, data, *more, said in (
        ("segment", loveda.rename(tmp_path / "land"), "add -s set=NAME of a known set, or -s classes=FILE"),
        ("segment", tmp_path / "land", "-s", "set=loveda", "-s", "stride_px=900", "give a smaller stride_px"),
        ("classify", folder_of_classes(tmp_path / "SIRI-WHU"), "has no table .*take --protocol zsc-folders"),
        ("choice", tmp_path, "--split", "test", "-s only=NAME"),
    ):  # fmt: skip
        code, _, err = run(task, "--data", data, *more)
        assert code and err.count("\n") == 1 and re.search(said, err), err
    mask = tmp_path / "land" / "ann_dir" / "val" / "0.png"
    Image.fromarray(np.full((40, 48), 99, np.uint8)).save(mask)
    code, _, err = run("segment", "--data", tmp_path / "land", "-s", "set=loveda")
    assert code == 1 and "add -s unknown=ignore" in err, err
    mask.unlink()
    code, _, err = run("segment", "--data", tmp_path / "land", "-s", "set=loveda")
    assert code == 1 and "leave them out with -s unreadable=skip" in err


def folder_of_classes(folder):
    for number in range(2):
        picture(folder / f"class {number}" / "0.png", number)
    return folder


def test_a_missing_image_is_named_in_its_folder(run, karpathy):  # noqa: F811
    root = karpathy if karpathy.is_dir() else karpathy.parent
    lost = next(path for path in sorted((root / "images").iterdir()))
    lost.unlink()
    code, _, err = run("retrieval", "--data", karpathy)
    assert code == 1 and f"images/{lost.name}: an image is missing" in err and "-s unreadable=skip" in err


def test_a_question_that_is_left_out_is_named(run, tree):  # noqa: F811
    code, said, _ = run("choice", "--data", tree)
    assert code == 0
    assert "3 questions are no multiple choice about one image and were left out, the first id-" in said


# What is damaged --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_referred, read_boxed])
def test_a_damaged_first_file_is_named(read, tmp_path):
    data = rsvg(tmp_path / "DIOR_RSVG")
    (data / "Annotations" / "00001.xml").write_text("<annotation")
    with pytest.raises(DataError, match=r"00001\.xml:1: is not XML"):
        read(data)


def test_the_only_file_is_named_where_it_is_damaged(tmp_path):
    data = rsvg(tmp_path / "DIOR_RSVG")
    for file in (data / "Annotations").glob("*.xml"):
        file.write_text("<annotation")
    with pytest.raises(DataError, match=r"00001\.xml:1: is not XML"):
        read_referred(data)
