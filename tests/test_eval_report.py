"""The page that is made of results."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tiling.errors import GeoAlignError
from training.data.errors import DataError
from training.evaluation.report.page import write_report
from training.evaluation.report.thumbs import heat_picture, thumbnail
from training.evaluation.result import Dataset, Measured, Metric, Result

EVIL = "<script>alert(1)</script>\" onload='x' & </style><img src=http://x.example/y>"


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.within = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.within.append(tag)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def picture(side=60, grey=90):
    return thumbnail(np.full((side, 2 * side, 3), grey, np.uint8))


def result(details=None, *, name="set", model="geoalign-s", notes=(), **metrics):
    measured = None if model is None else Measured(model, "k" * 64, "value-value", ("a photo of {}",), "float32", "cpu")
    metrics = metrics or {"top1": Metric(50.0, 40.0, 60.0)}
    return Result(
        "classify", "zsc-folders", Dataset(name, "d" * 64, {"images": 8}), measured, metrics, {"images": 1.5},
        notes=notes, details=details or {},
    )  # fmt: skip


def page(tmp_path, *results):
    paths = []
    tmp_path.mkdir(exist_ok=True)
    for number, item in enumerate(results):
        paths.append(tmp_path / f"{number}.json")
        item.write(paths[-1])
    text = write_report(paths, tmp_path / "page.html").read_text(encoding="utf-8")
    return Page(text), text


def everything():
    heat = np.zeros((4, 8), np.float32)
    heat[1, 2] = 1.0
    heat[0, 0] = math.nan
    return {
        "confusion": {"classes": ["a", EVIL], "counts": [[3, 1], [0, 4]]},
        "per_class": [{"title": EVIL, "unit": "%", "rows": [
            {"name": EVIL, "value": 75.0, "low": 60.0, "high": 90.0, "count": 4}, {"name": "b", "value": None}]}],
        "retrievals": [{"group": "worst", "direction": "I2T", "query": {"picture": picture()}, "rank": 9,
                        "right": [{"text": EVIL}], "answers": [{"text": EVIL, "score": 0.3, "right": False}]},
                       {"group": "best", "direction": "T2I", "query": {"text": EVIL}, "rank": 1, "right": [],
                        "answers": [{"picture": picture(), "score": 0.5, "right": True}]}],
        "pictures": [{"title": EVIL, "caption": EVIL, "picture": picture(), "heat": heat_picture(heat),
                      "boxes": [{"box": [10, 5, 50, 40], "kind": "truth", "label": EVIL},
                                {"box": [12, 6, 52, 42], "kind": "hit", "score": 0.75}],
                      "points": [{"x": 30, "y": 20, "kind": "false"}],
                      "others": [{"title": EVIL, "picture": picture(grey=10)}],
                      "legend": [{"name": EVIL, "colour": "#ff0000"}]}],
        "reliability": [{"title": EVIL, "ece": 0.125, "bins": [
            {"score": 0.1, "precision": 0.3, "count": 5}, {"score": 0.9, "precision": None, "count": 0}]}],
        "curves": [{"title": EVIL, "x": EVIL, "y": EVIL, "lines": [{"name": EVIL, "points": [[1, 2.0], [10, 40.0]]}]}],
    }  # fmt: skip


def test_everything_is_drawn_and_hostile_texts_stay_texts(tmp_path):
    seen, text = page(tmp_path, result(everything(), name=EVIL, model=EVIL, notes=(EVIL,)))
    assert "not as described" not in seen.text
    assert {tag for tag, _ in seen.tags} <= {
        "html", "meta", "title", "style", "h1", "h2", "h3", "h4", "p", "div", "span", "table", "tr", "th", "td", "a",
        "ul", "ol", "li", "small", "strong", "sup", "br", "code", "i", "b", "img", "svg", "text", "rect", "line",
        "polyline", "polygon", "circle", "figure", "figcaption",
    }  # fmt: skip
    for _, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    assert text.count("</style>") == 1
    assert seen.text.count("alert(1)") > 12
    assert "default-src 'none'" in text
    assert text.count("<h3>") == 6


def test_figures_notes_and_what_decides_them_are_said(tmp_path):
    item = result(notes=("Two images were skipped.",), top1=Metric(51.25, 40.0, 60.0), nothing=Metric(math.nan))
    seen, _ = page(tmp_path, item)
    for part in ("51.25", "40.00 to 60.00", "Two images were skipped.", "zsc-folders", "8 images", "value-value",
                 "a photo of {}", "float32", "images 1.5 s", "k" * 16, "d" * 16):  # fmt: skip
        assert part in seen.text, part


def test_results_are_summed_up_and_linked(tmp_path):
    seen, _ = page(tmp_path, result(name="aid"), result(model=None))
    targets = [attributes["href"] for tag, attributes in seen.tags if tag == "a"]
    assert targets == ["#r1", "#r2"]
    assert {"r1", "r2"} <= {attributes.get("id") for _, attributes in seen.tags}
    assert "detections file" in seen.text
    assert "AID" in seen.text


def test_the_summary_shows_a_whole_figure_and_not_its_first_part(tmp_path):
    found = replace(result(**{"i2t_r@1": Metric(11.5), "mr": Metric(33.25)}), task="retrieval")
    head = page(tmp_path, found, result())[1].partition("</table>")[0]
    assert "33.2" in head and "11.5" not in head and "50.0" in head


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("confusion", {"classes": ["a"]}), ("confusion", {"classes": ["a"], "counts": [[1, 2]]}), ("confusion", 7),
        ("confusion", {"classes": ["a", "b"], "counts": [[1, -1], [0, 1]]}),
        ("per_class", [{"rows": []}]), ("per_class", [{"title": "x", "rows": [{"name": "a", "value": "<b>"}]}]),
        ("retrievals", [{}]), ("retrievals", "text"),
        ("pictures", [{"title": "x", "picture": {"jpeg": '"><script>', "width": 1, "height": 1}}]),
        ("pictures", [{"title": "x", "picture": {"jpeg": "aaaa", "width": '"', "height": 1}}]),
        ("pictures", [{"title": "x", "picture": {"jpeg": "aaaa", "width": 1, "height": 1}, "heat": "aaaa"}]),
        ("pictures", [{"title": "x", "picture": {"jpeg": "aaaa", "width": 9, "height": 9},
                       "boxes": [{"box": [0, 0, 1, 1], "kind": "truth onload=x"}]}]),
        ("pictures", [{"title": "x", "picture": {"jpeg": "aaaa", "width": 9, "height": 9},
                       "legend": [{"name": "x", "colour": "red;background:url(x)"}]}]),
        ("reliability", [{"title": "x", "bins": [{"score": None, "precision": 1.0, "count": 1}]}]),
        ("curves", [{"title": "x", "lines": [{"name": "a", "points": [[None, 1]]}]}]),
    ],
)  # fmt: skip
def test_broken_details_cost_only_their_own_part(tmp_path, key, value):
    seen, _ = page(tmp_path, result({key: value, "unknown": object.__name__}))
    assert "are not as described and cannot be drawn" in seen.text
    assert "50.00" in seen.text
    assert "script" not in {tag for tag, _ in seen.tags}


def test_named_pictures_are_read_beside_the_result_and_missing_ones_are_said(tmp_path):
    Image.fromarray(np.full((30, 50, 3), 120, np.uint8)).save(tmp_path / "scene.png")
    (tmp_path / "text.png").write_text("no picture")
    items = [{"title": name, "picture": {"path": f"{name}.png"}} for name in ("scene", "gone", "text")]
    seen, _ = page(tmp_path, result({"pictures": items}))
    assert "gone.png: an image cannot be read" in seen.text
    assert "an image is damaged" in seen.text
    (source,) = [attributes["src"] for tag, attributes in seen.tags if tag == "img"]
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        assert image.size == (50, 30)


def test_the_heatmap_shows_matches_and_hides_the_rest(tmp_path):
    values = np.zeros((2, 3), np.float32)
    values[0, 1] = 1.0
    item = {"title": "x", "picture": picture(), "heat": heat_picture(values)}
    seen, _ = page(tmp_path, result({"pictures": [item]}))
    (source,) = [a["src"] for tag, a in seen.tags if tag == "img" and a.get("class") == "heat"]
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        alpha = np.asarray(image)[..., 3]
    assert alpha.shape == (2, 3)
    assert alpha[0, 1] > 100
    assert np.count_nonzero(alpha) == 1


def test_boxes_lie_in_pixels_of_the_original(tmp_path):
    shown = thumbnail(np.zeros((500, 1000, 3), np.uint8))
    assert (shown["width"], shown["height"]) == (1000, 500)
    with Image.open(io.BytesIO(base64.b64decode(shown["jpeg"]))) as image:
        assert image.size == (240, 120)
    item = {"title": "x", "picture": shown, "boxes": [{"box": [100, 50, 900, 450], "kind": "hit"}]}
    seen, _ = page(tmp_path, result({"pictures": [item]}))
    (drawing,) = [a for tag, a in seen.tags if tag == "svg"]
    (box,) = [a for tag, a in seen.tags if tag == "polygon"]
    assert drawing["viewbox"] == "0 0 1000 500"
    assert box["points"] == "100.0,50.0 900.0,50.0 900.0,450.0 100.0,450.0"
    slanted = {**item, "boxes": [{"corners": [[10, 20], [30, 5], [40, 60]], "kind": "truth"}]}
    seen, _ = page(tmp_path / "slanted", result({"pictures": [slanted]}))
    assert [a["points"] for tag, a in seen.tags if tag == "polygon"] == ["10.0,20.0 30.0,5.0 40.0,60.0"]


def test_confusion_is_shaded_by_rows_and_lists_the_commonest_mistake(tmp_path):
    details = {"confusion": {"classes": ["port", "beach", "empty"], "counts": [[1, 3, 0], [0, 8, 0], [0, 0, 0]]}}
    seen, text = page(tmp_path, result(details))
    shades = [float(a["fill-opacity"]) for tag, a in seen.tags if tag == "rect"]
    assert shades == [0.25, 0.75, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert "<td>port<td class=left>beach<td>3<td>75 %" in text


def test_many_classes_are_listed_and_not_drawn(tmp_path):
    many = [f"c{number}" for number in range(70)]
    counts = np.eye(70, dtype=int).tolist()
    rows = [{"name": name, "value": float(number)} for number, name in enumerate(many)]
    details = {"confusion": {"classes": many, "counts": counts}, "per_class": [{"title": "x", "rows": rows}]}
    seen, _ = page(tmp_path, result(details))
    assert "rect" not in {tag for tag, _ in seen.tags}
    assert "10 in between" in seen.text
    assert "No mistakes." in seen.text
    assert "70 classes are too many for a matrix" in seen.text


def test_of_many_classes_those_that_occur_are_drawn(tmp_path):
    many = [f"class-{number}." for number in range(306)]
    counts = np.zeros((306, 306), int)
    counts[3, 3], counts[3, 200], counts[40, 40] = 6, 2, 8
    rows = [{"name": name, "value": 75.0 if number in (3, 40) else None, "count": 8 if number in (3, 40) else 0}
            for number, name in enumerate(many)]  # fmt: skip
    details = {"confusion": {"classes": many, "counts": counts.tolist()}, "per_class": [{"title": "x", "rows": rows}]}
    seen, _ = page(tmp_path, result(details))
    shades = [float(a["fill-opacity"]) for tag, a in seen.tags if tag == "rect"]
    assert shades == [0.75, 0, 0.25, 0, 1, 0, 0, 0, 0]
    assert "303 of 306 classes are neither, and left out." in seen.text
    assert "304 of 306 classes have nothing to measure." in seen.text
    assert "class-4." not in seen.text


def test_classes_without_any_figure_are_only_counted(tmp_path):
    rows = [{"name": f"name-{number}", "value": None, "count": 0} for number in range(3)]
    seen, _ = page(tmp_path, result({"per_class": [{"title": "By name", "rows": rows}]}))
    assert "3 of 3 classes have nothing to measure." in seen.text and "name-1" not in seen.text


def test_the_same_results_give_the_same_page(tmp_path):
    _, first = page(tmp_path, result(everything()))
    _, again = page(tmp_path, result(everything()))
    assert first == again


def test_no_results_and_no_result_are_one_line(tmp_path):
    with pytest.raises(DataError, match="no results to report"):
        write_report([], tmp_path / "page.html")
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="is not a result of geoalign-eval"):
        write_report([tmp_path / "x.json"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("settings", ["x"]), ("seconds", {"images": "long"}), ("model", {"name": 1}), ("dataset", {}), ("notes", 3)],
)
def test_a_result_of_damaged_parts_is_one_line(tmp_path, key, value):
    path = tmp_path / "a.json"
    result().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match="is not a result of geoalign-eval"):
        write_report([path], tmp_path / "page.html")


def test_a_page_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    result().write(tmp_path / "r.json")
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(GeoAlignError):
        write_report([tmp_path / "r.json"], tmp_path / "page.html", overwrite=False)
    assert (tmp_path / "page.html").read_text() == "mine"


def labels_of(tmp_path, boxes):
    item = {"title": "x", "picture": picture(100), "boxes": boxes}
    seen, text = page(tmp_path, result({"pictures": [item]}))
    letters = [attributes for tag, attributes in seen.tags if tag == "text"]
    drawing = text[text.index('<svg viewBox="0 0 200 100"') :].partition("</svg>")[0]
    return letters, drawing


def test_only_what_is_wrong_is_labelled_and_every_box_tells_its_label(tmp_path):
    boxes = [
        {"box": [10, 20 * row + 5, 30, 20 * row + 20], "kind": kind, "label": f"{kind}-name", "score": 0.5}
        for row, kind in enumerate(("truth", "missed", "hit", "false"))
    ]
    letters, drawing = labels_of(tmp_path, boxes)
    assert [item["class"] for item in letters] == ["missed", "false"]
    assert drawing.count("<title>") == 4
    for said in ("truth-name 0.50 (truth)", "missed-name 0.50 (truth, missed)", "hit-name 0.50 (answer, right)"):
        assert f"<title>{said}</title>" in drawing
    assert drawing.index("<text") > drawing.rindex("<polygon")


def test_labels_stay_in_the_picture_and_off_each_other(tmp_path):
    corners = [[0, 0, 8, 6], [190, 0, 200, 6], [192, 92, 200, 100], [0, 95, 6, 100]]
    crowd = [[100 + step, 50, 110 + step, 58] for step in range(0, 30, 3)]
    boxes = [{"box": box, "kind": "false", "label": "harbour crane", "score": 0.5} for box in corners + crowd]
    letters, drawing = labels_of(tmp_path, boxes)
    assert drawing.count("<polygon") == 14
    assert 4 < len(letters) < 14
    rooms = []
    for item in letters:
        size = float(item["style"].partition("font-size:")[2].partition("px")[0])
        left, base = float(item["x"]), float(item["y"])
        rooms.append((left, base - 0.8 * size, left + len("harbour crane 0.50") * 0.6 * size, base + 0.2 * size))
    for place, (left, top, right, bottom) in enumerate(rooms):
        assert left >= 0 and top >= 0 and right <= 200.1 and bottom <= 100.1
        for other in rooms[:place]:
            assert left >= other[2] - 0.1 or other[0] >= right - 0.1 or top >= other[3] or other[1] >= bottom


def test_a_label_that_is_wider_than_the_picture_is_shortened(tmp_path):
    (item,), drawing = labels_of(tmp_path, [{"box": [150, 40, 190, 60], "kind": "missed", "label": "a" * 300}])
    written = drawing.partition("<text")[2].partition(">")[2].partition("</text>")[0]
    assert written.endswith("…") and len(written) < 60
    assert float(item["x"]) >= 0
    assert "a" * 300 in drawing


def test_pictures_have_names_for_those_who_do_not_see_them(tmp_path):
    seen, _ = page(tmp_path, result(everything()))
    names = [attributes["alt"] for tag, attributes in seen.tags if tag == "img"]
    assert all(names)
    assert EVIL in names and f"heatmap of {EVIL}" in names


def test_a_rank_says_which_part_of_it_are_ties(tmp_path):
    answer = {"text": "a forest", "score": 0.5, "right": True}
    card = {"group": "worst", "direction": "I2T", "query": {"picture": picture(), "name": "a.png"}, "rank": 1_219,
            "tied": 1_200, "right": [{"text": "a forest"}], "answers": [answer]}  # fmt: skip
    seen, _ = page(tmp_path, result({"retrievals": [card]}))
    assert "rank 1,219 (19 without the 1,200 equal scores, which count against the model)" in seen.text
    plain = page(tmp_path, result({"retrievals": [{**card, "tied": 0, "rank": 3}]}))[0]
    assert "rank 3; answers" in plain.text


def test_settings_are_said_in_words(tmp_path):
    settings = {"novel": ["ship", "harbor"], "only": [], "oriented": False, "side_px": 448, "ratio": 50.0,
                "of": {"a": True}, "limit": None, "gsd_m": 0.3, "words": ""}  # fmt: skip
    seen, _ = page(tmp_path, replace(result(), settings=settings))
    facts = next(line for line in seen.words if "protocol zsc-folders" in line)
    assert "novel ship, harbor · oriented no · side 448 px · ratio 50 · of a = yes · gsd 0.3 m · images 1.5 s" in facts


def test_tables_stand_under_what_they_are_beside(tmp_path):
    printed = replace(result(name="siri-whu"), dataset=Dataset("siri-whu", "d" * 64, {"images": 8}))
    seen, text = page(tmp_path / "1", printed)
    assert "Beside the printed figures" in seen.text and "Without printed" not in seen.text
    assert "measured" in {attributes.get("class") for tag, attributes in seen.tags if tag == "tr"}
    before, _, after = text.rpartition("<ol class=notes>")
    listed, marks = after.partition("</ol>")[0], before.split("<sup>")[1:]
    numbers = {int(number) for mark in marks for number in mark.partition("</sup>")[0].split(",")}
    assert listed.count("<li>") == max(numbers)
    alone, text = page(tmp_path / "2", result(name="mine"))
    assert "Without printed figures mine, protocol zsc-folders" in " ".join(alone.text.split())
    assert "Beside the printed" not in alone.text and "Side by side" not in alone.text
    both, _ = page(tmp_path / "3", result(name="mine"), result(name="mine", model="other"))
    assert "Side by side" in both.text and "Without printed" not in both.text


def test_lower_is_better_is_a_sign_that_is_explained(tmp_path):
    ours = replace(result(name="mine", ras=Metric(0.25, 0.2, 0.3, "share", "lower")), task="selo")
    seen, text = page(tmp_path, ours, replace(ours, model=replace(ours.model, name="other")))
    assert text.count('title="lower is better">↓') == 2 * 2 + 1
    assert "↓: lower is better." in seen.text


def test_bars_of_small_shares_can_be_seen(tmp_path):
    rows = [{"name": "a", "value": 0.002}, {"name": "b", "value": 0.001}]
    chart = {"title": "x", "unit": "share", "rows": rows}
    seen, text = page(tmp_path, result({"per_class": [chart]}))
    assert "bars end at 0.0020" in seen.text
    assert "width:100.0%" in text and "width:50.0%" in text
    whole, _ = page(tmp_path / "whole", result({"per_class": [{**chart, "rows": [{"name": "a", "value": 0.4}]}]}))
    assert "bars end" not in whole.text
