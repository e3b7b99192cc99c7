"""Detection: average precision by hand, against pycocotools and a written-out reference, and every file end to end."""

from __future__ import annotations

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.eval_pictures import job, lines, picture
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.metrics.detection import Judged, Rules, average_precision, box_iou, corner_iou, judge, match
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks.detect import TASK

ELEVEN, ALL, TEXT = TASK.protocols
SEEDS = st.integers(0, 10_000)


def boxes_of(rng, count, spread=30):
    """Whole-numbered boxes that often overlap; some have no area."""
    low = rng.integers(0, spread, (count, 2))
    return np.concatenate([low, low + rng.integers(0, 20, (count, 2))], axis=1).astype(float)


def near(rng, boxes):
    """A box for each, moved a little."""
    moved = boxes + rng.integers(-3, 4, boxes.shape)
    return np.concatenate([moved[:, :2], np.maximum(moved[:, :2] + 1, moved[:, 2:])], axis=1)


def corners_of(boxes):
    left, top, right, bottom = np.asarray(boxes, float).T
    return np.stack([left, top, right, top, right, bottom, left, bottom], axis=1)


def judged(hits, positives):
    hits = np.array(hits, bool)
    return Judged(hits, np.zeros(len(hits), np.int64), -np.arange(len(hits), dtype=float), np.array([positives]))


def scene(seed, images=4):
    """Random truth by image, and detections of which many are near a true box."""
    rng = np.random.default_rng(seed)
    truth = [(boxes_of(rng, int(count)), rng.random(int(count)) < 0.2) for count in rng.integers(0, 5, images)]
    boxes, image = [np.zeros((0, 4))], []
    for place, (true_boxes, _) in enumerate(truth):
        found = np.concatenate([near(rng, true_boxes), near(rng, true_boxes), boxes_of(rng, 2)])
        boxes.append(found)
        image += [place] * len(found)
    return truth, np.concatenate(boxes), rng.permutation(len(image)) / 7.0, np.array(image)


# Metric -----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """Right, wrong, right, wrong, of four: recalls 1/4 and 2/4 at precisions 1 and 2/3."""
    found = judged([1, 0, 1, 0], 4)
    assert found.precision("all") == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert found.precision("11") == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # recalls 0, .1, .2 and .3, .4, .5
    assert found.precision("101") == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert found.recall == 0.5
    assert judged([1] * 3, 10).precision("11") == pytest.approx(4 / 11)  # 3 of 10 reaches 0.3


def test_edges():
    assert np.isnan(judged([0, 0], 0).precision("11")) and np.isnan(judged([], 0).precision("all"))
    assert judged([], 3).precision("11") == 0 and judged([0], 3).precision("all") == 0
    for area in ("11", "all", "101"):
        assert judged([1, 1], 2).precision(area) == pytest.approx(1)
    assert box_iou(np.array([[0, 0, 0, 5.0]]), np.array([[0, 0, 0, 5.0]]))[0, 0] == 0
    assert box_iou(np.array([[0, 0, 0, 5.0]]), np.array([[0, 0, 0, 5.0]]), 1.0)[0, 0] == 1
    assert box_iou(np.array([[0, 0, 9, 9.0]]), np.array([[5, 0, 14, 9.0]]), 1.0)[0, 0] == pytest.approx(50 / 150)


def test_who_gets_the_box():
    """A second detection of a found box is wrong; a difficult box is neither; the threshold itself is enough."""
    iou = np.array([[0.9, 0.6], [0.8, 0.7], [0.1, 0.2], [0.5, 0.1]])
    easy = np.zeros(2, bool)
    assert match(iou, easy, 0.5).tolist() == [1, 0, 0, 0]
    assert match(iou, easy, 0.5, "coco").tolist() == [1, 1, 0, 0]
    assert match(iou, np.array([True, False]), 0.5).tolist() == [-1, -1, 0, -1]
    assert match(iou, np.array([True, False]), 0.5, "coco").tolist() == [1, -1, 0, -1]
    assert match(np.array([[0.5]]), easy[:1], 0.5).tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_agrees_with_a_written_out_reference(seed):
    """VOC's rules once more, one detection at a time, without any array."""
    truth, boxes, scores, image = scene(seed)

    def iou(one, other):
        width = min(one[2], other[2]) - max(one[0], other[0])
        height = min(one[3], other[3]) - max(one[1], other[1])
        common = max(width, 0) * max(height, 0)
        union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - common
        return common / union if union > 0 else 0

    total = sum(not hard for _, difficult in truth for hard in difficult)
    gone, right, points = set(), 0, []
    for row in sorted(range(len(boxes)), key=lambda row: -scores[row]):
        there, difficult = truth[image[row]]
        overlaps = [iou(boxes[row], other) for other in there]
        best = max(range(len(there)), key=overlaps.__getitem__, default=None)
        hit = False
        if best is not None and overlaps[best] >= 0.5:
            if difficult[best]:
                continue
            hit = (image[row], best) not in gone
            gone.add((image[row], best))
        right += hit
        points.append((right, right / (len(points) + 1)))
    found = judge(truth, boxes, scores, image, Rules())
    if not total:
        assert np.isnan(found.precision("11"))
        return
    eleven = sum(max([p for r, p in points if r * 10 >= k * total], default=0) for k in range(11)) / 11
    area = sum(max(p for r, p in points if r >= k) for k in range(1, right + 1)) / total
    assert found.precision("11") == pytest.approx(eleven)
    assert found.precision("all") == pytest.approx(area)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_agrees_with_pycocotools(seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, boxes, scores, image = scene(seed)
    truth = [(there, np.zeros(len(there), bool)) for there, _ in truth]

    def size(box):
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    marks = [(place, box) for place, (there, _) in enumerate(truth) for box in there]
    assume(marks and len(marks) % 2 and len(marks) % 5)  # else recalls on COCO's points are compared in floating point
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": place + 1} for place in range(len(truth))], "categories": [{"id": 1, "name": "a"}],
            "annotations": [{
                "id": number + 1, "image_id": place + 1, "category_id": 1, "bbox": size(box), "area": 1.0, "iscrowd": 0
            } for number, (place, box) in enumerate(marks)],
        }  # fmt: skip
        coco.createIndex()
        results = coco.loadRes([
            {"image_id": int(place) + 1, "category_id": 1, "bbox": size(box), "score": float(score)}
            for place, box, score in zip(image, boxes, scores, strict=True)
        ])  # fmt: skip
        run = COCOeval(coco, results, "bbox")
        run.params.iouThrs, run.params.maxDets, run.params.areaRng = np.array([0.5]), [1000], [[0, 1e9]]
        run.params.areaRngLbl = ["all"]
        run.evaluate()
        run.accumulate()
    expected = float(run.eval["precision"][0, :, 0, 0, 0].mean())
    assert judge(truth, boxes, scores, image, Rules(matching="coco")).precision("101") == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_order_and_images_do_not_matter(seed):
    truth, boxes, scores, image = scene(seed)
    scores = np.floor(scores)  # with ties
    rng = np.random.default_rng(seed)
    order, rename = rng.permutation(len(boxes)), rng.permutation(len(truth))
    found = judge(truth, boxes, scores, image, Rules())
    again = judge(truth, boxes[order], scores[order], image[order], Rules())
    assert (again.hit == found.hit).all() and (again.image == found.image).all()
    flipped = judge(truth, boxes, 3 * scores + 1, image, Rules())
    assert flipped.precision("all") == found.precision("all") or np.isnan(found.precision("all"))
    moved = judge([truth[i] for i in np.argsort(rename)], boxes, np.arange(len(boxes)), rename[image], Rules())
    plain = judge(truth, boxes, np.arange(len(boxes)), image, Rules())
    assert moved.precision("11") == plain.precision("11") or np.isnan(plain.precision("11"))
    weak = judge(
        truth, np.concatenate([boxes, boxes]), np.concatenate([scores, scores - 99]), np.tile(image, 2), Rules()
    )
    if found.positives.sum():  # copies behind everything else find nothing new
        assert weak.recall == found.recall and weak.precision("all") == pytest.approx(found.precision("all"))


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_upright_corners_are_boxes(seed):
    truth, boxes, scores, image = scene(seed)
    turned = judge(
        [(corners_of(there), hard) for there, hard in truth], corners_of(boxes), scores, image, Rules(oriented=True)
    )
    upright = judge(truth, boxes, scores, image, Rules())
    assert np.allclose([turned.precision("all")], [upright.precision("all")], equal_nan=True)


def test_oriented_overlap():
    """A square turned by 45° about its own centre: the common octagon is 2(√2 − 1) of it."""
    square = corners_of([[-1, -1, 1, 1]])
    turned = (square.reshape(4, 2) @ (np.array([[1, 1], [-1, 1]]) / np.sqrt(2))).reshape(1, 8)
    octagon = 4 * 2 * (np.sqrt(2) - 1)
    assert corner_iou(square, turned)[0, 0] == pytest.approx(octagon / (8 - octagon))
    crossed = square[:, [0, 1, 4, 5, 2, 3, 6, 7]]  # corners in a wrong order
    assert corner_iou(square, crossed)[0, 0] == pytest.approx(1)
    assert corner_iou(square, np.zeros((0, 8))).shape == (1, 0)


def test_a_resample_is_a_set_of_images():
    """Weights count images as if they were there as often."""
    truth, boxes, scores, image = scene(5)
    found = judge(truth, boxes, scores, image, Rules())
    twice = judge([*truth, truth[1]], np.concatenate([boxes, boxes[image == 1]]),
                  np.concatenate([scores, scores[image == 1]]),
                  np.concatenate([image, np.full((image == 1).sum(), 4)]), Rules())  # fmt: skip
    weighted = average_precision(found, np.array([[1.0, 2, 1, 1], [0, 0, 0, 0]]), "all")
    assert weighted[0] == pytest.approx(twice.precision("all"), abs=0.05) and np.isnan(weighted[1])
    assert average_precision(found, np.ones((1, 4)), "11")[0] == found.precision("11")


# Files, end to end ------------------------------------------------------------------------------------------------

XML = """<annotation><filename>{name}.jpg</filename><size><width>48</width><height>40</height></size>{objects}
</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""
TRUTH = {
    "00001": [("airport", (0, 0, 20, 20), 0), ("tenniscourt", (20, 20, 40, 38), 0)],
    "00002": [("airport", (10, 10, 30, 30), 0), ("airport", (0, 0, 8, 8), 1)],
    "00003": [("ship", (5, 5, 15, 15), 0)],
}
FOUND = [
    ("00001", "airport", 0.9, (0, 0, 20, 20)), ("00001", "tenniscourt", 0.8, (20, 20, 40, 38)),
    ("00002", "airport", 0.7, (0, 20, 10, 30)), ("00002", "airport", 0.6, (10, 10, 30, 28)),
    ("00002", "airport", 0.5, (0, 0, 8, 8)), ("00001", "ship", 0.4, (0, 0, 9, 9)),
]  # fmt: skip
AIRPORT = 100 * (0.5 + 0.5 * 2 / 3)


def voc(folder, names=TRUTH):
    """DIOR's layout."""
    for seed, (stem, objects) in enumerate(TRUTH.items()):
        picture(folder / "JPEGImages-test" / f"{stem}.jpg", seed)
        (folder / "Annotations").mkdir(exist_ok=True)
        text = "".join(OBJECT.format(name=name, box=box, hard=hard) for name, box, hard in objects)
        (folder / "Annotations" / f"{stem}.xml").write_text(XML.format(name=stem, objects=text))
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names))
    return folder


def results(path, ids=None):
    """COCO results; names, or ids of images and categories."""
    items = [
        {"image_id": image if ids is None else ids[image], "bbox": [x, y, x2 - x, y2 - y], "score": score,
         **({"category": name} if ids is None else {"category_id": ids[name]})}
        for image, name, score, (x, y, x2, y2) in FOUND
    ]  # fmt: skip
    path.write_text(json.dumps(items))
    return path


def run(data, tmp_path, protocol=ALL, **more):
    return TASK.run(job(data, None, tmp_path / "cache", protocol, **more))


def test_dior_by_hand(tmp_path):
    data, found = voc(tmp_path / "DIOR"), results(tmp_path / "found.json")
    result = run(data, tmp_path, detections=found, novel="airport|tennis court")
    rows = {row["name"]: row["value"] for row in result.details["per_class"][0]["rows"]}
    assert rows["airport (novel)"] == pytest.approx(AIRPORT)
    assert rows["tenniscourt (novel)"] == 100 and rows["ship"] == 0
    assert result.metrics["map"].value == pytest.approx((AIRPORT + 100 + 0) / 3)
    assert result.metrics["map_novel"].value == pytest.approx((AIRPORT + 100) / 2)
    assert result.metrics["map_base"].value == 0 and result.model is None
    assert result.metrics["map"].low <= result.metrics["map"].value <= result.metrics["map"].high
    counts = result.dataset.counts
    assert (counts["images"], counts["boxes"], counts["difficult_boxes"], counts["detections"]) == (3, 4, 1, 6)
    eleven = run(data, tmp_path, ELEVEN, detections=found)
    assert "map_novel" not in eleven.metrics
    assert eleven.metrics["map"].value == pytest.approx(((6 * 100 + 5 * 200 / 3) / 11 + 100 + 0) / 3)


def test_pictures_tell_found_from_missed_as_the_figures_do(tmp_path):
    data = voc(tmp_path / "DIOR")
    items = json.loads(results(tmp_path / "found.json").read_text())
    twice = next(item for item in items if item["image_id"] == "00001" and item["score"] == 0.9)
    (tmp_path / "found.json").write_text(json.dumps([*items, {**twice, "score": 0.45}, {**twice, "score": 0.2}]))
    shown = run(data, tmp_path, detections=tmp_path / "found.json").details["pictures"]
    marks = {
        picture["title"].rsplit("/", 1)[-1][:5]: sorted((mark["kind"], mark["label"]) for mark in picture["boxes"])
        for picture in shown
    }
    assert marks["00001"] == [
        ("false", "airport"), ("false", "ship"), ("hit", "airport"), ("hit", "tenniscourt"),
        ("truth", "airport"), ("truth", "tenniscourt"),
    ]  # fmt: skip
    assert marks["00002"] == [
        ("false", "airport"), ("hit", "airport"), ("truth", "airport"), ("truth", "airport, difficult"),
    ]  # fmt: skip
    assert marks["00003"] == [("missed", "ship")]
    assert [picture["caption"].partition(",")[0] for picture in shown].count("1 missed") == 1


def test_every_file_gives_the_same(tmp_path):
    data = voc(tmp_path / "DIOR")
    expected = run(data, tmp_path, detections=results(tmp_path / "a.json")).metrics
    tasks = tmp_path / "task2"
    tasks.mkdir()
    for name in {row[1] for row in FOUND}:
        rows = [f"{image} {score} {' '.join(map(str, box))}" for image, title, score, box in FOUND if title == name]
        (tasks / f"Task2_{name}.txt").write_text("\n".join(rows))
    ids = {"00001": "00001.jpg", "00002": 2, "airport": 2, "tenniscourt": 3, "ship": 1}
    (tmp_path / "classes.txt").write_text("ship\nairport\ntenniscourt\n")
    numbered = results(tmp_path / "b.json", ids)
    one_a_line = lines(tmp_path / "c.jsonl", json.loads((tmp_path / "a.json").read_text()))
    assert run(data, tmp_path, detections=tasks).metrics == expected
    assert run(data, tmp_path, detections=numbered, classes=tmp_path / "classes.txt").metrics == expected
    assert run(data, tmp_path, detections=one_a_line).metrics == expected
    coco = {
        "images": [{"id": n, "file_name": f"{stem}.jpg"} for n, stem in enumerate(TRUTH, 7)],
        "categories": [{"id": 5, "name": "airport"}, {"id": 9, "name": "tenniscourt"}, {"id": 4, "name": "ship"}],
        "annotations": [
            {"id": 10 * n + k, "image_id": n, "category_id": {"airport": 5, "tenniscourt": 9, "ship": 4}[name],
             "bbox": [x, y, x2 - x, y2 - y], "iscrowd": hard}
            for n, objects in enumerate(TRUTH.values(), 7) for k, (name, (x, y, x2, y2), hard) in enumerate(objects)
        ],
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    ids = {"00001": 7, "00002": 8, "airport": 5, "tenniscourt": 9, "ship": 4}
    other = run(tmp_path / "instances.json", tmp_path, detections=results(tmp_path / "d.json", ids))
    assert other.metrics["map"].value == pytest.approx(expected["map"].value)


def test_ids_that_count_from_zero(tmp_path):
    """As MMDetection numbers DIOR's classes; read as if from 1 every class would be its neighbour."""
    data, classes = voc(tmp_path / "DIOR"), tmp_path / "classes.txt"
    expected = run(data, tmp_path, detections=results(tmp_path / "a.json")).metrics
    classes.write_text("ship\nairport\ntenniscourt\n")
    ids = {"00001": 1, "00002": 2, "ship": 0, "airport": 1, "tenniscourt": 2}
    found = results(tmp_path / "b.json", ids)
    assert run(data, tmp_path, detections=found, classes=classes, first_id=0).metrics == expected
    with pytest.raises(DataError, match=r"0, not 1 to 3.*first_id"):
        run(data, tmp_path, detections=found, classes=classes)
    with pytest.raises(DataError, match="first_id"):
        more = results(tmp_path / "c.json", {**ids, "ship": 3})
        run(data, tmp_path, detections=more, classes=classes, first_id=0)
    with pytest.raises(UsageError, match="without classes"):
        run(data, tmp_path, detections=found, first_id=0)


def test_our_own_vector_files(tmp_path):
    """Boxes in map units, in another coordinate system than the image, lead back to its pixels."""
    import geopandas
    import rasterio
    import shapely
    from affine import Affine

    folder = tmp_path / "dota"
    (folder / "images").mkdir(parents=True)
    (folder / "labelTxt").mkdir()
    transform = Affine.translation(500000, 4000000) * Affine.scale(0.5, -0.5)
    with rasterio.open(folder / "images" / "P1.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8",
                       crs="EPSG:32633", transform=transform) as out:  # fmt: skip
        out.write(np.zeros((3, 64, 64), np.uint8))
    (folder / "labelTxt" / "P1.txt").write_text("gsd:0.5\n10 10 30 10 30 30 10 30 small-vehicle 0\n")
    shape = shapely.transform(shapely.box(10, 10, 30, 29), lambda xy: np.stack(transform * xy.T).T)
    frame = geopandas.GeoDataFrame({"query": ["small vehicle"], "score": [0.7]}, geometry=[shape], crs="EPSG:32633")
    frame.to_crs(4326).to_file(tmp_path / "P1.geojson")
    frame.to_file(tmp_path / "P1.gpkg", layer="boxes")
    for file in ("P1.geojson", "P1.gpkg"):
        result = run(folder, tmp_path, detections=tmp_path / file)
        assert result.metrics["map"].value == 100 and result.dataset.counts["detections"] == 1
    assert run(folder, tmp_path, detections=tmp_path / "P1.gpkg", iou=0.96).metrics["map"].value == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will not know where it lies
        frame.set_crs(None, allow_override=True).to_file(tmp_path / "P2.gpkg")
    with pytest.raises(DataError, match="only one knows where it lies"):
        run(folder, tmp_path, detections=tmp_path / "P2.gpkg")


def test_oriented_files(tmp_path):
    folder, tasks = tmp_path / "dota", tmp_path / "task1"
    (folder / "labelTxt-v1.0").mkdir(parents=True)
    tasks.mkdir()
    picture(folder / "images" / "P1.png")
    diamond = "20 0 40 20 20 40 0 20"
    (folder / "labelTxt-v1.0" / "P1.txt").write_text(f"imagesource:x\ngsd:1\n{diamond} ship 0\n{diamond} plane 1\n")
    (tasks / "Task1_ship.txt").write_text("P1 0.9 0 0 40 0 40 40 0 40\nP1 0.8 " + diamond + "\n")
    turned = run(folder, tmp_path, detections=tasks)  # the upright square covers twice the diamond: IoU 0.5
    assert turned.settings["oriented"] and turned.metrics["map"].value == 100
    strict = run(folder, tmp_path, detections=tasks, iou=0.6)
    assert strict.metrics["map"].value == 50
    drawn = [(mark["kind"], mark["corners"][0]) for mark in strict.details["pictures"][0]["boxes"]]
    assert drawn == [("truth", [20, 0]), ("truth", [20, 0]), ("false", [0, 0]), ("hit", [20, 0])]
    upright = run(folder, tmp_path, detections=tasks, iou=0.6, boxes="upright")
    assert [mark["box"] for mark in upright.details["pictures"][0]["boxes"]] == [[0, 0, 40, 40]] * 4
    assert upright.metrics["map"].value == 100 and any("upright" in note for note in upright.notes)
    assert upright.dataset.counts["classes_without_boxes"] == 1  # the only plane is difficult
    (tasks / "Task1_ship.txt").write_text("P1 0.9 0 0 40 40\n")
    with pytest.raises(UsageError, match="not oriented"):
        run(folder, tmp_path, detections=tasks, boxes="oriented")


def test_boxes_without_area_are_told(tmp_path):
    boxes = [[20, 0, -20, 18], [3, 3, 0, 9], [0, 0, 9, 9]]
    items = [{"image_id": "00001", "category": "ship", "bbox": box, "score": 0.5} for box in boxes]
    (tmp_path / "found.json").write_text(json.dumps(items))
    data = voc(tmp_path / "DIOR")
    for rules, count in (({}, 2), ({"coordinates": "inclusive"}, 1)):
        result = run(data, tmp_path, detections=tmp_path / "found.json", **rules)
        assert result.dataset.counts["detections_without_area"] == count
        assert any(note.startswith(f"{count} detections have no area") for note in result.notes)


@pytest.mark.parametrize(("content", "message"), [
    ([{"image_id": "00001", "bbox": [0, 0, 1, 1], "score": 0.5}], "is not a detection"),
    ([{"image_id": "00001", "category": "ship", "bbox": [0, 0, 1], "score": 0.5}], "4 numbers"),
    ([{"image_id": "00009", "category": "ship", "bbox": [0, 0, 1, 1], "score": 0.5}], "no detection of these"),
    ([{"image_id": "00001", "category": "cat", "bbox": [0, 0, 1, 1], "score": 0.5}], "1 of other classes"),
    ([3], "is not a detection"),
])  # fmt: skip
def test_wrong_detections(tmp_path, content, message):
    data = voc(tmp_path / "DIOR")
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        run(data, tmp_path, detections=tmp_path / "found.json")


def test_wrong_data_and_settings(tmp_path):
    data, found = voc(tmp_path / "DIOR"), results(tmp_path / "found.json")
    for more, message in [
        ({}, "no detections to measure"), ({"detections": found, "iou": 1.5}, "iou is not"),
        ({"detections": found, "novel": "cat"}, "is none of the data's"),
        ({"detections": found, "gsd": 1}, "gsd is no"),
        ({"detections": found, "matching": "x"}, "matching has no value"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=message):
            run(data, tmp_path, **more)
    with pytest.raises(DataError, match="has no list val"):
        run(data, tmp_path, detections=found, split="val")
    with pytest.raises(DataError, match="is missing"):
        run(data, tmp_path, detections=tmp_path / "no.json")
    (data / "ImageSets" / "Main" / "test.txt").write_text("00001\n77777\n")
    with pytest.raises(DataError, match="without annotations"):
        run(data, tmp_path, detections=found)
    (data / "ImageSets" / "Main" / "test.txt").write_text("00001\n")
    assert run(data, tmp_path, detections=found).dataset.counts["detections_elsewhere"] == 3
    (data / "Annotations" / "00001.xml").write_text("<annotation>")
    with pytest.raises(DataError, match="is not XML"):
        run(data, tmp_path, detections=found)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("matching", "voc"), ("matching", "coco"), ("coordinates", "continuous"), ("coordinates", "inclusive")],
)
def test_boxes_are_matched_as_the_protocol_says(tmp_path, monkeypatch, name, rule):
    monkeypatch.setitem(PROTOCOLS[ALL].numbers, name, rule)
    data, found = voc(tmp_path / "DIOR"), results(tmp_path / "found.json")
    assert run(data, tmp_path, detections=found).settings[name] == rule


def test_a_limit_keeps_what_belongs_to_it(tmp_path):
    result = run(voc(tmp_path / "DIOR"), tmp_path, detections=results(tmp_path / "found.json"), limit=1)
    counts = result.dataset.counts
    assert (counts["images"], counts["detections"], counts["detections_elsewhere"]) == (1, 3, 0)
    assert result.metrics["map"].value == 100


def test_boxes_of_our_heatmaps(tmp_path, tiny_model):
    """A blind model's regions, the same twice; nothing below the threshold of 1 but what reaches it."""
    data = voc(tmp_path / "DIOR")
    first = TASK.run(job(data, tiny_model, tmp_path / "cache", TEXT, threshold=0.001, limit=2))
    assert first.dataset.counts["detections"] > 0 and 0 <= first.metrics["map"].value <= 100
    assert first.model.dense_mode and first.model.templates
    again = TASK.run(job(data, tiny_model, tmp_path / "cache", TEXT, threshold=0.001, limit=2))
    assert again.metrics == first.metrics
    none = TASK.run(job(data, tiny_model, tmp_path / "cache", TEXT, threshold=1, limit=2))
    assert none.dataset.counts["detections"] == 0 and none.metrics["map"].value == 0
    with pytest.raises(UsageError, match="detections is no setting"):
        TASK.run(job(data, tiny_model, tmp_path / "cache", TEXT, detections="x"))
