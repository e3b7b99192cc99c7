"""What keeps a result from being compared with printed figures: every setting that is not the protocol's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geoalign_core.models.prompts import template_set
from tests.eval_pictures import job
from tests.test_eval_classify import folders  # noqa: F401 - a fixture
from tests.test_eval_regions import vhr10
from tests.test_eval_segment import loveda  # noqa: F401 - a fixture
from training.evaluation.departures import departures
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.registry import find_task
from training.evaluation.result import Dataset, Measured, Metric, Result, read_result
from training.evaluation.tables import beside

SEGEARTH = {
    "side_px": 448, "antialias": False, "window_px": 224, "stride_px": 112, "scale": 50.0, "cls_bias": 0.0,
    "upsample": "bilinear", "guided_radius_px": 16, "guided_epsilon": 0.01, "ignore": 255, "threshold": 0.0,
    "background": 0, "zero_is_unlabelled": True,
}  # fmt: skip
"""LoveDA in FarSLIP's comparison, as a result stores it."""
LOVEDA = ("ovss-farslip", "loveda", {"images": 1669}, "miou")
VHR = ("region-roi", "nwpu-vhr-10", {"boxes": 2898}, "acc@1")


def measured(protocol, dataset, counts, metric, settings, mode=None, name="ours"):
    """A result with the protocol's templates that would be the best."""
    known = PROTOCOLS[protocol]
    templates = known.numbers.get("templates", ())
    templates = template_set(templates) if isinstance(templates, str) else tuple(templates)
    model = Measured(name, "k" * 64, mode, templates, "float32", "cpu")
    return Result(known.task, protocol, Dataset(dataset, "d" * 64, counts), model, {metric: Metric(99.9)}, {}, settings)


@pytest.mark.parametrize(
    ("about", "settings", "mode", "said"),
    [
        (LOVEDA, SEGEARTH, "segearth", None),
        (LOVEDA, {**SEGEARTH, "threshold": 0.9}, "segearth", "threshold"),
        (LOVEDA, {**SEGEARTH, "background": 3, "zero_is_unlabelled": False}, "segearth", "background and zero_is_unla"),
        (LOVEDA, SEGEARTH, "maskclip", "dense_mode"),
        (LOVEDA, SEGEARTH, "tokens", "dense_mode"),
        (LOVEDA, {**SEGEARTH, "classes": "my classes.txt"}, "segearth", "classes"),
        (LOVEDA, {**SEGEARTH, "split": "val", "images": "here", "colours": "c.txt", "limit": None}, "segearth", None),
        (("ovss-farslip", "vaihingen", {"images": 398}, "miou"), {**SEGEARTH, "background": 5}, "segearth", None),
        (("fgovd", "rrsis-hr", {"items": 577}, "acc@1"), {"view": "roi", "k": [1, 5], "images": "x"}, "maskclip", None),
        (("fgovd", "rrsis-hr", {"items": 577}, "acc@1"), {"view": "crop", "k": [1, 5]}, None, "view"),
        (VHR, {"fit": "squash", "layout": "vhr10"}, "segearth", None),
        (VHR, {"fit": "native"}, "segearth", "fit"),
        (VHR, {"grid_px": "1024"}, "segearth", "grid_px"),
        (VHR, {"words": "mine.json"}, "segearth", "words"),
        (VHR, {"cls_bias": -0.3}, "segearth", "cls_bias"),
        (("zsc-folders", "siri-whu", {"images": 2400}, "top1"), {"words": "mine.json"}, None, "words"),
        (("choice", "choice-img", {"questions": 200}, "accuracy"), {"template": "{option}", "only": ["x"]}, None, None),
        (("choice", "choice-img", {"questions": 200}, "accuracy"), {"template": "a {option}"}, None, "template"),
        (("selo-airslt", "air-slt", {"sentences": 59}, "rmi"), {"limit": None}, None, None),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_the_protocols_is_never_compared(about, settings, mode, said):
    table = beside([measured(*about, settings, mode)])[0]
    ours = table.rows[-1]
    notes = " ".join(table.notes[mark - 1] for mark in ours.notes)
    assert any(cell.best for cell in ours.cells) is (said is None)
    assert f"Not as the protocol says ({said}" in notes if said else not notes


def test_ours_that_departs_is_not_the_best_of_ours_either():
    """The printed sample of UAVid is not known: ours are compared among themselves, as the protocol says."""
    about = ("ovss-farslip", "uavid", {"images": 10}, "miou")
    own = {**SEGEARTH, "zero_is_unlabelled": False}
    plain, poor, sure = (
        measured(*about, {**own, "threshold": least}, "segearth", name=name)
        for least, name in ((0.0, "plain"), (0.0, "poor"), (0.9, "sure"))
    )
    poor = replace(poor, metrics={"miou": Metric(1.0)})
    table = beside([plain, poor, sure])[0]
    assert [row.cells[0].best for row in table.rows[-3:]] == [True, False, False]
    said = [table.notes[mark - 1] for mark in table.rows[-1].notes]
    assert "not known" in said[0] and "(threshold)" in said[1]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda item: item.id)
def test_whatever_a_task_can_be_told_departs_unless_it_is_of_the_place(protocol):
    """Also settings that are not yet thought of: a task has to say which ones change nothing."""
    task = find_task(protocol.task)
    for name in task.settings.keys() - task.place - {"templates"}:
        assert name in departures(measured(protocol.id, "dior", {}, "m", {name: "something else"})), name
    assert task.place <= task.settings.keys() | {"layout", "oriented"}  # which results store
    for name in task.place:
        assert departures(measured(protocol.id, "dior", {}, "m", {name: "something else"})) == (), name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_protocols_own_values_never_depart(protocol):
    task, numbers = find_task(PROTOCOLS[protocol].task), PROTOCOLS[protocol].numbers
    given = {name: numbers[name] for name in task.settings.keys() & numbers.keys() - {"novel"}}
    dataset = "rsicd" if protocol == "retrieval-unique" else "dior-ovd"
    mode = numbers.get("dense_mode")
    given |= {"novel": ["groundtrackfield", "airport", "Basketballcourt", "windmill"]} if "novel" in numbers else {}
    assert departures(measured(protocol, dataset, {}, "m", given, mode)) == ()


def test_the_novel_classes_of_dior_are_four_and_those_of_dota_whichever_are_named():
    for dataset, novel, expected in (
        ("DIOR", ["airport"], ("novel",)), ("DIOR", [], ("novel",)), ("DOTA", ["helicopter", "roundabout"], ()),
        ("DIOR", 5, ("novel",)), ("DIOR", [None], ("novel",)),  # a result that somebody changed
    ):  # fmt: skip
        assert departures(measured("voc11", dataset, {}, "map", {"novel": novel})) == expected


@pytest.mark.parametrize(("dataset", "prefix", "said"), [("RSITMD", "", ("prefix",)), ("skyscript-retrieval", "", ())])
def test_a_prefix_is_of_three_sets(dataset, prefix, said):
    assert departures(measured("retrieval-unique", dataset, {}, "m", {"prefix": prefix})) == said


@pytest.mark.parametrize(("mode", "said"), [("maskclip", ("dense_mode",)), ("segearth", ())])
def test_a_published_models_patches_are_its_familys_where_the_protocol_says_nothing(mode, said):
    assert departures(measured(*VHR, {}, mode, name="farslip2-b16")) == said
    assert departures(measured(*VHR, {}, mode, name="a model of one's own")) == ()


def test_tasks_store_what_they_were_told(folders, loveda, tiny_model, tmp_path):  # noqa: F811
    """As they come nothing departs; class words, a view of the boxes or classes of one's own do."""
    cache, words = tmp_path / "cache", tmp_path / "words.json"
    words.write_text('{"port": "harbour"}')

    def run(task, data, protocol, **more):
        result = find_task(task).run(job(data, tiny_model, cache, protocol, **more))
        result.write(tmp_path / "result.json")
        return departures(read_result(tmp_path / "result.json"))

    assert run("classify", folders, "zsc-folders") == ()
    boxes = vhr10(tmp_path / "NWPU VHR-10 dataset")
    assert run("regions", boxes, "region-roi") == ()
    assert run("regions", boxes, "region-roi", fit="native", templates="a {}.") == ("fit", "templates")
    assert run("segment", loveda, "ovss-farslip") == ()
    own = tmp_path / "classes.txt"
    own.write_text("\n".join(("ground", "building", "road", "water", "barren", "forest", "farm")))
    assert run("segment", loveda, "ovss-farslip", classes=own, zero_is_unlabelled="yes") == ("classes",)
    assert run("classify", folders, "zsc-folders", words=words) == ("words",)
