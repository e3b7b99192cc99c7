"""The eight published segmentation sets through the command, each in its own layout, with numbers and with colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.eval_pictures import picture
from tests.test_eval_command import SMALL, run  # noqa: F401 - a fixture
from tests.test_eval_segment import blocks, mask
from training.evaluation.classlists import colour_file, list_file, read_class_list
from training.evaluation.result import read_result

MMSEG = "img_dir/{part}/{name}", "ann_dir/{part}/{name}"
DRONE = "{part}/src/{name}", "{part}/gt/{name}"
SETS = {  # folder, its part, how many classes, from which number masks count them, where files lie, ending of masks
    "openearthmap": ("OpenEarthMap", "val", 9, 0, MMSEG, ""),
    "loveda": ("loveDA", "val", 7, 1, MMSEG, ""),
    "potsdam": ("Potsdam", "val", 6, 1, MMSEG, ""),
    "vaihingen": ("Vaihingen", "val", 6, 1, MMSEG, ""),
    "isaid": ("iSAID", "val", 16, 0, MMSEG, "_instance_color_RGB"),
    "uavid": ("UAVid", "test", 7, 0, MMSEG, ""),
    "udd5": ("UDD5", "val", 5, 0, DRONE, ""),
    "vdd": ("VDD", "test", 7, 0, DRONE, ""),
}
IMAGES = 2
PROTOCOLS = "ovss-farslip", "ovss-segearth"


def colours(name):
    """Return the colour of each class from the table as it is written, or None where there is none."""
    path = colour_file(name)
    if path is None:
        return None
    names = read_class_list(list_file(name)).names
    found = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            red, green, blue, called = line.split(maxsplit=3)
            found.setdefault(called, (int(red), int(green), int(blue)))
    return [found[called] for called in names]


def written(tmp_path, name, *, coloured):
    """Write a small set and return its folder and how many pixels each class has."""
    folder, part, classes, first, (image, truth), ending = SETS[name]
    total = np.zeros(classes, int)
    for number in range(IMAGES):
        labels = blocks(number, classes)
        total += np.bincount(labels.ravel(), minlength=classes)
        picture(tmp_path / folder / image.format(part=part, name=f"{number}.png"), number)
        path = tmp_path / folder / truth.format(part=part, name=f"{number}{ending}.png")
        if coloured:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array(colours(name), np.uint8)[labels]).save(path)
        else:
            mask(path, labels + first)
    return tmp_path / folder, total


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", SETS)
def test_every_set_is_read_in_its_layout(name, protocol, run, tmp_path):  # noqa: F811
    data, total = written(tmp_path, name, coloured=False)
    options = ("--protocol", protocol, *SMALL, "--templates", "a {}", "-o", tmp_path / "r.json")
    code, said, err = run("segment", "--data", data, *options)
    assert (code, err) == (0, "") and f"{SETS[name][2]} classes" in said
    result = read_result(tmp_path / "r.json")
    assert result.dataset.id == name and result.dataset.counts["images"] == IMAGES
    (rows,) = (item["rows"] for item in result.details["per_class"])
    assert [row["count"] for row in rows] == total.tolist()
    assert [row["name"] for row in rows] == list(read_class_list(list_file(name)).names)


@pytest.mark.parametrize("name", [name for name in SETS if colour_file(name)])
def test_sets_whose_masks_are_coloured_are_read_by_their_table(name, run, tmp_path):  # noqa: F811
    data, total = written(tmp_path, name, coloured=True)
    code, _, err = run("segment", "--data", data, *SMALL, "--templates", "a {}", "-o", tmp_path / "r.json")
    assert (code, err) == (0, "")
    (rows,) = (item["rows"] for item in read_result(tmp_path / "r.json").details["per_class"])
    assert [row["count"] for row in rows] == total.tolist()


@pytest.mark.parametrize("name", SETS)
def test_a_label_beyond_the_classes_is_refused_in_a_line(name, run, tmp_path):  # noqa: F811
    data, _ = written(tmp_path, name, coloured=False)
    _, part, classes, first, (_, truth), ending = SETS[name]
    wrong = data / truth.format(part=part, name=f"0{ending}.png")
    mask(wrong, np.full((40, 48), classes + first))
    code, _, err = run("segment", "--data", data, *SMALL, "--templates", "a {}")
    assert code == 1 and err.count("\n") == 1 and wrong.name in err and "no class" in err
