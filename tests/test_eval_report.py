"""The page that is made of results."""

from __future__ import annotations

import base64
import io
import json
import math
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
        "polyline", "circle", "figure", "figcaption",
    }  # fmt: skip
    for _, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    assert text.count("</style>") == 1
    assert seen.text.count("alert(1)") > 12
    assert "default-src 'none'" in text
    assert text.count("<h3>") == 6 + 1


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("confusion", {"classes": ["a"]}), ("confusion", {"classes": ["a"], "counts": [[1, 2]]}), ("confusion", 7),
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
    (box,) = [a for tag, a in seen.tags if tag == "rect"]
    assert drawing["viewbox"] == "0 0 1000 500"
    assert (box["x"], box["y"], box["width"], box["height"]) == ("100.0", "50.0", "800.0", "400.0")


def test_confusion_is_shaded_by_rows_and_lists_the_commonest_mistake(tmp_path):
    details = {"confusion": {"classes": ["port", "beach", "empty"], "counts": [[1, 3, 0], [0, 8, 0], [0, 0, 0]]}}
    seen, text = page(tmp_path, result(details))
    shades = [float(a["fill-opacity"]) for tag, a in seen.tags if tag == "rect"]
    assert shades == [0.25, 0.75, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert "<td>port<td>beach<td>3<td>75 %" in text


def test_many_classes_are_listed_and_not_drawn(tmp_path):
    many = [f"c{number}" for number in range(70)]
    counts = np.eye(70, dtype=int).tolist()
    rows = [{"name": name, "value": float(number)} for number, name in enumerate(many)]
    details = {"confusion": {"classes": many, "counts": counts}, "per_class": [{"title": "x", "rows": rows}]}
    seen, _ = page(tmp_path, result(details))
    assert "rect" not in {tag for tag, _ in seen.tags}
    assert "10 in between" in seen.text
    assert "No mistakes." in seen.text


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
