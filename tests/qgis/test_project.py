"""Questions survive saving, moving and reopening a project."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from answer_files import write_answer, write_raster
from qgis.core import QgsProject, QgsRasterLayer

from qgis_plugin.layers.project import Question, load_questions, save_questions
from qgis_plugin.layers.results import AnswerGroup


@pytest.fixture
def project():
    return QgsProject.instance()


def build(project, folder: Path) -> Question:
    folder.mkdir(exist_ok=True)
    image = QgsRasterLayer(write_raster(folder / "image.tif", np.full((3, 50, 50), 9, np.uint8)), "image")
    project.addMapLayer(image)
    files = write_answer(folder / "geoalign", "trees")
    AnswerGroup.create(project, image, "träds", "q1").show(files, "both", 50)
    area = {"type": "Polygon", "coordinates": [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]]}
    return Question(
        id="q1", text="träds", avoid=("water",), where="rectangle", area=area, threshold_pct=65, what="boxes",
        include=(area,), exclude=(area, area), layer_id=image.id(), files=files, options={"gsd_m": 0.4},
        histogram=tuple(range(40)), revision=3,
    )  # fmt: skip


def test_dict_round_trip(project, tmp_path):
    question = build(project, tmp_path / "work")
    assert Question.from_dict(question.to_dict()) == question
    assert Question.from_dict({"id": "a", "threshold_pct": "x", "odd": 1, "files": None}) == Question(id="a")
    with pytest.raises(ValueError, match="id"):
        Question.from_dict({"text": "no id"})


@pytest.mark.parametrize("suffix", ["qgz", "qgs"])
def test_reopened_project_knows_its_questions(project, tmp_path, suffix):
    question = build(project, tmp_path / "work")
    path = tmp_path / "work" / f"map.{suffix}"
    project.setFileName(str(path))
    save_questions(project, [question, Question(id="q2")], "q1")
    assert project.write()
    project.clear()
    assert load_questions(project) == ([], "")
    assert project.read(str(path))
    questions, current = load_questions(project)
    assert current == "q1"
    assert questions[0] == question
    assert AnswerGroup.find(project, "q1").count(50) == 4


def test_moved_folder_and_lost_files(project, tmp_path):
    question = build(project, tmp_path / "work")
    project.setFileName(str(tmp_path / "work" / "map.qgz"))
    save_questions(project, [question], "q1")
    assert project.write()
    project.clear()
    shutil.move(str(tmp_path / "work"), str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "geoalign" / "trees.gpkg").unlink()
    assert project.read(str(tmp_path / "elsewhere" / "map.qgz"))
    loaded = load_questions(project)[0][0]
    assert loaded.missing == ("regions",)
    assert Path(loaded.files["heatmap"]) == tmp_path / "elsewhere" / "geoalign" / "trees.tif"
    assert loaded.text == "träds"


def test_layer_added_again_is_found_by_its_source(project, tmp_path):
    question = build(project, tmp_path / "work")
    save_questions(project, [question], "q1")
    source = project.mapLayer(question.layer_id).source()
    project.removeMapLayer(question.layer_id)
    again = QgsRasterLayer(source, "again")
    project.addMapLayer(again)
    assert load_questions(project)[0][0].layer_id == again.id()


def test_same_questions_leave_the_project_clean(project, tmp_path):
    question = build(project, tmp_path / "work")
    save_questions(project, [question], "q1")
    project.setDirty(False)
    save_questions(project, [question], "q1")
    assert not project.isDirty()


@pytest.mark.parametrize("text", ["{", "[]", '{"questions": 5}', '{"questions": [5, {"id": 7}, null]}'])
def test_broken_entries_give_no_questions(project, text):
    project.writeEntry("geoalign", "questions", text)
    assert load_questions(project) == ([], "")
