"""Zero-shot classification: accuracies by hand and against scikit-learn, ties, empty classes, tables and folders."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval_pictures import encoder, job, lines, picture, whole
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.layouts.classes import in_words, read_classes, read_folders
from training.evaluation.metrics.classification import classify
from training.evaluation.tasks.classify import SKYSCRIPT, TASK

TABLES, FOLDERS = TASK.protocols
RNG = np.random.default_rng(3)


def scores(rows):
    return np.array(rows, np.float32)


# Metric -----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """Five items of four classes, the last of them empty; the third item's own class ties with another."""
    found = classify(
        scores([[4, 3, 2, 1], [1, 4, 2, 3], [3, 3, 1, 0], [9, 5, 4, 6], [0, 1, 7, 2]]), np.array([0, 0, 1, 2, 2])
    )
    assert found.ranks.tolist() == [1, 4, 2, 4, 1]
    assert found.predicted.tolist() == [0, 1, 0, 0, 2]
    assert found.accuracy() == 40 and found.accuracy(3) == 60 and found.accuracy(4) == 100
    assert found.per_class[:3].tolist() == [50, 0, 50] and np.isnan(found.per_class[3])
    assert found.balanced == pytest.approx(100 / 3) and found.support.tolist() == [2, 1, 2, 0]
    assert found.confusion.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_equal_scores_are_no_answer():
    found = classify(np.ones((6, 3), np.float32), np.array([0, 1, 2, 0, 1, 2]))
    assert found.accuracy() == 0 and found.accuracy(3) == 100
    assert np.trace(found.confusion) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 8), st.integers(1, 4))
def test_agrees_with_scikit_learn(seed, classes, k):
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

    rng = np.random.default_rng(seed)
    values, labels = rng.normal(size=(30, classes)).astype(np.float32), rng.integers(classes, size=30)
    found = classify(values, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k as large as the number of classes, and of classes never met
        expected = top_k_accuracy_score(labels, values, k=k, labels=range(classes))
        balanced = balanced_accuracy_score(labels, values.argmax(axis=1))
    assert found.accuracy(k) == pytest.approx(100 * expected)
    assert found.balanced == pytest.approx(100 * balanced)
    assert (found.confusion == confusion_matrix(labels, values.argmax(axis=1), labels=range(classes))).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_copies_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    values, labels = rng.integers(0, 4, (20, 5)).astype(np.float32), rng.integers(5, size=20)
    found, order, other = classify(values, labels), rng.permutation(20), rng.permutation(5)
    moved = classify(values[order], labels[order])
    assert moved.accuracy() == found.accuracy() and (moved.confusion == found.confusion).all()
    renamed = classify(values[:, np.argsort(other)], other[labels])
    assert (renamed.ranks == found.ranks).all() and renamed.balanced == pytest.approx(found.balanced)
    twice = classify(np.tile(values, (2, 1)), np.tile(labels, 2))
    assert twice.accuracy() == found.accuracy() and (twice.confusion == 2 * found.confusion).all()
    assert found.accuracy() == pytest.approx(100 * np.trace(found.confusion) / 20)


def test_wrong_scores_are_refused():
    with pytest.raises(DataError, match="items × classes"):
        classify(np.ones((3, 2), np.float32), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="is no class"):
        classify(np.ones((1, 2), np.float32), np.array([2]))
    with pytest.raises(DataError, match=r"not finite \(item 1\)"):
        classify(scores([[1, 2], [np.nan, 1]]), np.array([0, 0]))
    assert np.isnan(classify(np.ones((0, 2), np.float32), np.zeros(0, np.int64)).balanced)


# Layouts, end to end ----------------------------------------------------------------------------------------------


@pytest.fixture
def skyscript(tmp_path):
    folder = tmp_path / "aid"
    rows = ["filepath,label"]
    for number, label in enumerate(["bare land", "port", "bare land", "dense forest", ""]):
        picture(folder / "images" / f"{number}.png", number)
        rows.append(f"aid/images/{number}.png,{label}")
    (folder / "aid_img_txt_pairs_test.csv").write_text("\n".join(rows))
    (folder / "classnames.txt").write_text("bare land\nport\ndense forest\nriver\n")
    return folder


def test_end_to_end_as_by_hand(skyscript, tiny_model, tmp_path):
    result = TASK.run(job(skyscript, tiny_model, tmp_path / "cache", TABLES))
    model = encoder(tiny_model)
    words = ["bare land", "port", "dense forest", "river"]
    mean = np.mean([model.encode_text([form.format(word) for word in words]) for form in SKYSCRIPT], axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    images = np.stack([whole(model, skyscript / "images" / f"{n}.png") for n in range(4)])
    expected = classify(images @ mean.T, np.array([0, 1, 0, 2]))
    assert result.metrics["top1"].value == expected.accuracy() and result.metrics["top5"].value == 100
    assert result.metrics["balanced"].value == pytest.approx(expected.balanced)
    assert result.details["confusion"]["counts"] == expected.confusion.tolist()
    counts = result.dataset.counts
    assert (counts["images"], counts["classes"], counts["images_without_label"]) == (4, 4, 1)
    assert result.model.templates == SKYSCRIPT and counts["classes_without_images"] == 1
    assert result.details["per_class"][0]["rows"][3] == {"name": "river", "value": None, "count": 0}


def test_a_table_by_itself_and_splits(skyscript):
    table = skyscript / "aid_img_txt_pairs_test.csv"
    assert read_classes(table).labels.tolist() == read_classes(skyscript, split="test").labels.tolist()
    with pytest.raises(DataError, match="a table has no splits"):
        read_classes(table, split="test")
    with pytest.raises(DataError, match="not one table of the split train"):
        read_classes(skyscript, split="train")
    (skyscript / "other.csv").write_text("filepath,label\n")
    assert len(read_classes(skyscript).images) == 4
    (skyscript / "aid_test.csv").write_text("filepath,label\n")
    with pytest.raises(DataError, match=r"aid_img_txt_pairs_test\.csv, aid_test\.csv, other\.csv"):
        read_classes(skyscript)


def test_labels_may_be_places(skyscript):
    table = skyscript / "aid_img_txt_pairs_test.csv"
    by_name = read_classes(skyscript).labels
    text = table.read_text()
    for place, name in enumerate(["bare land", "port", "dense forest"]):
        text = text.replace(f",{name}", f",{place}")
    table.write_text(text)
    assert read_classes(skyscript).labels.tolist() == by_name.tolist() == [0, 1, 0, 2]


def test_an_unknown_class_is_named_with_its_line(skyscript):
    table = skyscript / "aid_img_txt_pairs_test.csv"
    table.write_text(table.read_text().replace("dense forest", "jungle"))
    with pytest.raises(DataError, match=r"test\.csv:5: a label is not in classnames\.txt \(jungle\)"):
        read_classes(skyscript)
    (skyscript / "classnames.txt").write_text("port\nport\n")
    with pytest.raises(DataError, match="names a class twice"):
        read_classes(skyscript)
    (skyscript / "classnames.txt").unlink()
    with pytest.raises(DataError, match=r"classnames\.txt: is missing"):
        read_classes(skyscript)


@pytest.fixture
def folders(tmp_path):
    for number, name in enumerate(["BareLand/1.png", "BareLand/2.png", "storage_tanks/deep/3.png", "port/4.PNG"]):
        picture(tmp_path / "siri" / name, number)
    (tmp_path / "siri" / "empty").mkdir()
    (tmp_path / "siri" / "readme.txt").write_text("no picture")
    return tmp_path / "siri"


def test_folders(folders, tiny_model, tmp_path):
    found = read_folders(folders)
    assert found.classes == ("BareLand", "port", "storage_tanks")
    assert found.words == ("bare land", "port", "storage tanks")
    assert found.images == ("BareLand/1.png", "BareLand/2.png", "port/4.PNG", "storage_tanks/deep/3.png")
    assert found.note == "Folders without pictures are no classes here: empty."
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"port": "harbour"}))
    result = TASK.run(job(folders, tiny_model, tmp_path / "cache", FOLDERS, words=words, templates="a {}!"))
    assert result.details["words"]["port"] == "harbour" and result.model.templates == ("a {}!",)
    assert result.dataset.counts["images"] == 4
    plain = TASK.run(job(folders, tiny_model, tmp_path / "cache", FOLDERS))
    assert plain.dataset.digest != result.dataset.digest
    words.write_text(json.dumps({"harbour": "port"}))
    with pytest.raises(DataError, match="a class that is not there"):
        read_folders(folders, words=words)


def test_what_programs_leave_in_folders_is_no_class_and_no_picture(folders):
    before = read_folders(folders)
    for name in ("__MACOSX/BareLand/1.png", ".ipynb_checkpoints/1.png", "port/._4.png"):
        picture(folders / name)
    found = read_folders(folders)
    assert (found.classes, found.images) == (before.classes, before.images)


def test_wrong_folders(tmp_path, folders):
    with pytest.raises(DataError, match="is missing"):
        read_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folder 'val'"):
        read_folders(folders, split="val")
    for part in ("train", "test"):
        picture(tmp_path / "parts" / part / "port" / "1.png")
        picture(tmp_path / "parts" / part / "sea" / "1.png")
    with pytest.raises(DataError, match=r"splits in place of classes \(test, train\)"):
        read_folders(tmp_path / "parts")
    assert read_folders(tmp_path / "parts", split="test").classes == ("port", "sea")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no images with a class"):
        read_folders(tmp_path / "bare")
    with pytest.raises(DataError, match="fewer than two classes"):
        read_folders(folders / "storage_tanks")


def test_records_with_labels(tiny_model, tmp_path):
    rows = []
    for number, label in enumerate(["Sea", "Port", "Sea"]):
        picture(tmp_path / "data" / f"{number}.png", number)
        rows.append({"image": f"{number}.png", "class": label, "split": "test", "captions": []})
    lines(tmp_path / "data" / "captions.jsonl", rows)
    result = TASK.run(job(tmp_path / "data", tiny_model, tmp_path / "cache", FOLDERS))
    assert "The part 'test' was taken." in result.notes
    assert result.details["confusion"]["classes"] == ["Port", "Sea"] and result.dataset.counts["images"] == 3


def test_templates_as_data(folders, tiny_model, tmp_path):
    def used(templates):
        return TASK.run(job(folders, tiny_model, tmp_path / "cache", FOLDERS, templates=templates)).model.templates

    (tmp_path / "mine.txt").write_text("one {}\n\ntwo {}.\n")
    (tmp_path / "mine.json").write_text('["three {}"]')
    assert used(tmp_path / "mine.txt") == ("one {}", "two {}.") and used(tmp_path / "mine.json") == ("three {}",)
    assert used("model") == encoder(tiny_model).config.prompts.templates
    for wrong in ("two {} {}", "{} and {x}", "nothing"):
        with pytest.raises(UsageError):
            used(wrong)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BareLand", "bare land"),
        ("bare_land", "bare land"),
        ("GolfCourse-2", "golf course 2"),
        ("RAILWAYStation", "railway station"),
        ("port", "port"),
    ],
)
def test_names_in_words(name, words):
    assert in_words(name) == words
