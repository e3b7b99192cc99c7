"""Names of boxes and CastDet's classifier: every layout end to end, by hand and wrong."""

from __future__ import annotations

import datetime as dt
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from geoalign_core.features import region_features
from tests.eval_pictures import encoder, job, picture
from tiling.errors import OutputExistsError, UsageError
from training.data.errors import DataError
from training.evaluation.castdet import TEMPLATE, classifier, main, write_classifier
from training.evaluation.layouts.regions import plain, read_boxed
from training.evaluation.layouts.vhr10 import CLASSES
from training.evaluation.metrics.classification import classify
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks.regions import TASK

ROI, CROP, BOTH = TASK.protocols
FORMS = ("a photo of {}.", "{} from above")
TRUTH = {"001": [((2, 3, 20, 30), 1), ((25, 5, 45, 35), 8)], "002": [((0, 0, 48, 40), 10), ((10, 10, 12, 12), 1)]}


def vhr10(folder):
    for seed, (stem, objects) in enumerate(TRUTH.items()):
        picture(folder / "positive image set" / f"{stem}.jpg", seed)
        (folder / "ground truth").mkdir(exist_ok=True)
        rows = [f"({x},{y}),( {x2},{y2}),{label} \r\n" for (x, y, x2, y2), label in objects]
        (folder / "ground truth" / f"{stem}.txt").write_text("".join(rows))
    return folder


def run(data, model, tmp_path, protocol=ROI, **more):
    (tmp_path / "forms.txt").write_text("\n".join(FORMS))
    return TASK.run(job(data, model, tmp_path / "cache", protocol, templates=tmp_path / "forms.txt", **more))


def by_hand(model, data, view, words=CLASSES):
    """The same figures without banks, tasks or layouts."""
    texts = np.mean([model.encode_text([form.format(word) for word in words]) for form in FORMS], axis=0)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    images, boxes = [], []
    for stem, objects in TRUTH.items():
        with Image.open(data / "positive image set" / f"{stem}.jpg") as image:
            images.append(np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1)))
        boxes.append(np.array([box for box, _ in objects], float))
    seen = region_features(images, boxes, encoder=model, view=view).mean
    labels = np.array([label - 1 for objects in TRUTH.values() for _, label in objects])
    return classify((seen @ texts.T).astype(np.float32), labels)


@pytest.mark.parametrize(("protocol", "view"), [(ROI, "roi"), (CROP, "crop"), (BOTH, "both")])
def test_vhr10_as_by_hand(tmp_path, tiny_model, protocol, view):
    data = vhr10(tmp_path / "NWPU VHR-10 dataset")
    result = run(data, tiny_model, tmp_path, protocol)
    expected = by_hand(encoder(tiny_model), data, view)
    assert result.metrics["acc@1"].value == pytest.approx(expected.accuracy(1))
    assert result.metrics["acc@5"].value == pytest.approx(expected.accuracy(5))
    assert result.details["confusion"]["counts"] == expected.confusion.tolist()
    counts = result.dataset.counts
    assert (counts["images"], counts["boxes"], counts["classes"], counts["classes_without_boxes"]) == (2, 4, 10, 7)
    assert result.model.templates == FORMS and (result.model.dense_mode is None) == (protocol == CROP)
    assert any("2,898" in note and "of 4." in note for note in result.notes)


def test_the_same_boxes_in_coco_and_records(tmp_path, tiny_model):
    """COCO's own order of classes gives the same figures; crowds are left out."""
    data = vhr10(tmp_path / "vhr")
    expected = run(data, tiny_model, tmp_path).metrics
    size = {"width": 48, "height": 40}
    whole = {
        "images": [{"id": 5 + n, "file_name": f"{stem}.jpg", **size} for n, stem in enumerate(TRUTH)],
        "categories": [{"id": 30 - n, "name": name} for n, name in reversed(list(enumerate(CLASSES, 1)))],
        "annotations": [
            {"id": 10 * n + k, "image_id": 5 + n, "category_id": 30 - label, "bbox": [x, y, x2 - x, y2 - y]}
            for n, objects in enumerate(TRUTH.values()) for k, ((x, y, x2, y2), label) in enumerate(objects)
        ],
    }  # fmt: skip
    whole["annotations"].append({"id": 99, "image_id": 5, "category_id": 29, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    (data / "annotations.json").write_text(json.dumps(whole))
    (data / "ground truth").rename(tmp_path / "elsewhere")
    result = run(data, tiny_model, tmp_path)
    assert result.settings["layout"] == "coco" and result.dataset.counts["difficult_boxes"] == 1
    assert {name: item.value for name, item in result.metrics.items()} == {
        name: item.value for name, item in expected.items()
    }
    records = [{
        "image": f"positive image set/{stem}.jpg", "width": 48, "height": 40,
        "regions": [{"bbox": [x / 48, y / 40, x2 / 48, y2 / 40], "category": CLASSES[label - 1]}
                    for (x, y, x2, y2), label in objects],
    } for stem, objects in TRUTH.items()]  # fmt: skip
    (data / "annotations.json").unlink()
    (data / "records.jsonl").write_text("".join(json.dumps(item) + "\n" for item in records))
    boxed = read_boxed(data)
    assert boxed.notes == ()
    (data / "records.jsonl").write_text("".join(json.dumps(item | {"split": "val"}) + "\n" for item in records))
    assert read_boxed(data).notes == ("All parts were taken: val.",) and read_boxed(data, split="val").notes == ()
    assert [scene.boxes.tolist() for scene in boxed.scenes] == [
        [pytest.approx(box) for box, _ in objects] for objects in TRUTH.values()
    ]
    assert boxed.classes == ("airplane", "harbor", "vehicle")


def test_dota_is_taken_upright(tmp_path, tiny_model):
    folder = tmp_path / "dota"
    picture(folder / "images" / "P1.png")
    (folder / "labelTxt").mkdir()
    (folder / "labelTxt" / "P1.txt").write_text(
        "imagesource:x\n20 0 40 20 20 40 0 20 large-vehicle 0\n1 1 5 1 5 5 1 5 ship 2\n"
    )
    result = run(folder, tiny_model, tmp_path)
    assert result.dataset.counts["boxes"] == 1 and result.dataset.counts["difficult_boxes"] == 1
    assert result.details["words"] == {"large-vehicle": "large vehicle", "ship": "ship"}
    assert any("upright" in note for note in result.notes)
    assert read_boxed(folder).scenes[0].boxes[0].tolist() == [0, 0, 40, 40]


DOTA = (
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court", "ground-track-field",
    "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter", "roundabout", "soccer-ball-field",
    "swimming-pool",
)  # fmt: skip


@pytest.mark.parametrize(("name", "classes", "said"), [("DOTA", 15, False), ("DOTA", 13, True), ("mine", 13, False)])
def test_fewer_candidates_than_the_data_set_has_classes_are_told(tmp_path, tiny_model, name, classes, said):
    """DOTA's and VOC's layouts know only the classes of the objects that they have."""
    folder = tmp_path / name
    picture(folder / "images" / "P1.png")
    (folder / "labelTxt").mkdir()
    rows = [f"20 0 40 20 20 40 0 20 {word} 0" for word in DOTA[:classes]]
    (folder / "labelTxt" / "P1.txt").write_text("\n".join(rows))
    result = run(folder, tiny_model, tmp_path)
    assert result.dataset.counts["classes"] == classes
    assert any("Only 13 of the data set's 15 classes occur" in note for note in result.notes) is said


def rrsisd(folder, *, corners=False, refs=None):
    """RefCOCO's layout; ``corners`` writes right and bottom where COCO has width and height."""
    (folder / "rrsisd").mkdir(parents=True)
    marks = [(1, (2, 2, 30, 20), 1, "train"), (2, (20, 10, 40, 30), 2, "test"), (3, (1, 1, 47, 39), 1, "test")]
    for key in (1, 2, 3):
        picture(folder / "images" / "rrsisd" / "JPEGImages" / f"{key:05d}.jpg", key)
    whole = {
        "images": [{"id": n, "file_name": f"{n:05d}.jpg", "width": 48, "height": 40} for n in (1, 2, 3)],
        "categories": [{"id": 1, "name": "golffield"}, {"id": 2, "name": "ship"}],
        "annotations": [{
            "id": n, "image_id": n, "category_id": kind, "area": 10,
            "bbox": list(box) if corners else [box[0], box[1], box[2] - box[0], box[3] - box[1]],
        } for n, box, kind, _ in marks],
    }  # fmt: skip
    (folder / "rrsisd" / "instances.json").write_text(json.dumps(whole))
    given = [{
        "ref_id": n, "ann_id": n, "image_id": n, "category_id": kind, "split": split,
        "sentences": [{"raw": f"the {n}th thing", "sent": f"the {n}th thing"}],
    } for n, _, kind, split in marks]  # fmt: skip
    (folder / "rrsisd" / "refs(unc).p").write_bytes(pickle.dumps(given if refs is None else refs))
    return folder


@pytest.mark.parametrize("corners", [False, True])
def test_rrsisd_needs_consent(tmp_path, tiny_model, corners):
    data = rrsisd(tmp_path / "data", corners=corners)
    with pytest.raises(DataError, match="is a pickle"):
        run(data, tiny_model, tmp_path)
    result = run(data, tiny_model, tmp_path, trust_pickle=True)
    assert result.dataset.counts["boxes"] == 2 and result.settings["split"] == "test"
    assert all(PROTOCOLS[key].numbers["split"]["rrsisd"] == "test" for key in TASK.protocols)
    assert any(("right, bottom" if corners else "width, height") in note for note in result.notes)
    boxed = read_boxed(data, trust_pickle=True)
    assert [scene.boxes[0].tolist() for scene in boxed.scenes] == [[20, 10, 40, 30], [1, 1, 47, 39]]
    assert read_boxed(data, split="all", trust_pickle=True).count == 3 and plain("golffield") == "golf field"
    with pytest.raises(DataError, match="no references of the part val"):
        read_boxed(data, split="val", trust_pickle=True)


class Evil:
    """Would call a function if its pickle were loaded as pickles usually are."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('called')",))


@pytest.mark.parametrize("refs", [[Evil()], dt.date(2020, 1, 1), [np.float64(3)]])
def test_no_pickle_makes_an_object(tmp_path, refs):
    with pytest.raises(DataError, match="no pickle of plain values"):
        read_boxed(rrsisd(tmp_path / "data", refs=refs), trust_pickle=True)


def test_a_damaged_pickle(tmp_path):
    data = rrsisd(tmp_path / "data")
    file = data / "rrsisd" / "refs(unc).p"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="no pickle of plain values"):
        read_boxed(data, trust_pickle=True)
    file.write_bytes(pickle.dumps([{"ref_id": 1, "ann_id": 77, "split": "test"}]))
    with pytest.raises(DataError, match="has no annotation"):
        read_boxed(data, trust_pickle=True)


@pytest.mark.parametrize("line", ["(1,2),(3,4),11", "(1,2),(3,4)", "(1,2),(3,4),0", "1,2,3,4,1", "(a,2),(3,4),1"])
def test_wrong_lines(tmp_path, line):
    data = vhr10(tmp_path / "vhr")
    (data / "ground truth" / "002.txt").write_text("(1,2),(3,4),1\n" + line)
    with pytest.raises(DataError, match=r"002\.txt:2"):
        read_boxed(data)


def test_wrong_folders(tmp_path, tiny_model):
    with pytest.raises(DataError, match="is missing"):
        read_boxed(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds nothing that this task reads .*an empty folder"):
        read_boxed(tmp_path / "empty")
    data = vhr10(tmp_path / "vhr")
    with pytest.raises(DataError, match="has no splits"):
        read_boxed(data, split="test")
    with pytest.raises(UsageError, match="has no value"):
        run(data, tiny_model, tmp_path, fit="odd")
    (data / "positive image set" / "002.jpg").unlink()
    with pytest.raises(DataError, match="is missing"):
        run(data, tiny_model, tmp_path)
    assert run(data, tiny_model, tmp_path, unreadable="skip").dataset.counts["skipped_boxes"] == 2


def test_a_limit_counts_images_that_have_boxes(tmp_path, tiny_model):
    """Images without boxes, and with difficult ones only, are none to be named."""
    data = vhr10(tmp_path / "vhr")
    (data / "ground truth").rename(tmp_path / "elsewhere")
    images = [{"id": n, "file_name": name, "width": 48, "height": 40}
              for n, name in enumerate(["far.jpg", *(f"{stem}.jpg" for stem in TRUTH)])]  # fmt: skip
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 9, 9], "iscrowd": 0} for n in (1, 2)]
    whole = {"images": images, "annotations": boxes, "categories": [{"id": n, "name": f"c{n}"} for n in (1, 2)]}
    (data / "annotations.json").write_text(json.dumps(whole))
    result = run(data, tiny_model, tmp_path, limit=1)
    assert result.dataset.counts["boxes"] == 1 and "Only 1 of 2 images with boxes were taken." in result.notes
    for box in boxes:
        box["iscrowd"] = 1
    (data / "annotations.json").write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"no boxes to be named \(2 difficult ones\)"):
        run(data, tiny_model, tmp_path)


def test_boxes_that_show_nothing(tmp_path, tiny_model):
    """Boxes off the image are refused, or counted as skipped; one without area shows the place where it lies."""
    data = vhr10(tmp_path / "vhr")
    (data / "ground truth" / "002.txt").write_text("(100,100),(120,120),1\n(5,5),(5,5),2\n")
    with pytest.raises(DataError, match="a box cannot be seen"):
        run(data, tiny_model, tmp_path)
    counts = run(data, tiny_model, tmp_path, unreadable="skip").dataset.counts
    assert (counts["boxes"], counts["skipped_boxes"]) == (3, 1)


# CastDet ----------------------------------------------------------------------------------------------------------


def test_castdet_table(tiny_model):
    """Rows are the classes in order and the background; probabilities are CastDet's softmax of 100 cosines."""
    model, names = encoder(tiny_model), ("ship", "airport", "golffield")
    made = classifier(model, names, words=("ship", "airport", "golf field"))
    each = model.encode_text([TEMPLATE.format(word) for word in ("ship", "airport", "golf field")])
    assert np.allclose(made.table[:3], each, atol=1e-6) and made.table.shape == (4, 32)
    mean = each.mean(axis=0)
    assert np.allclose(made.background, mean / np.linalg.norm(mean), atol=1e-6)
    logits = 100 * each[:1].astype(np.float64) @ made.table.T.astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert np.allclose(made.probabilities(7 * each[:1]), expected, atol=1e-4)
    for wrong in ((), ("ship", "ship")):
        with pytest.raises(UsageError, match="named once"):
            classifier(model, wrong)
    with pytest.raises(UsageError, match="has one"):
        classifier(model, names, templates=("a photo",))


def test_castdet_files(tiny_model, tmp_path):
    made = classifier(encoder(tiny_model), ("ship", "airport"), templates=FORMS)
    for suffix in (".npy", ".npz", ".safetensors"):
        write_classifier(tmp_path / f"v{suffix}", made)
    table = np.load(tmp_path / "v.npy", allow_pickle=False)
    assert table.dtype == np.float32 and (table == made.table).all()
    packed = np.load(tmp_path / "v.npz", allow_pickle=False)
    assert packed["names"].tolist() == ["ship", "airport"] and packed["templates"].tolist() == list(FORMS)
    assert packed["temperature"] == 100 and (packed["background"] == made.background).all()
    from safetensors import safe_open

    with safe_open(tmp_path / "v.safetensors", "np") as file:
        assert json.loads(file.metadata()["names"]) == ["ship", "airport"]
        assert (file.get_tensor("vectors") == made.vectors).all()
    with pytest.raises(OutputExistsError):
        write_classifier(tmp_path / "v.npy", made)
    with pytest.raises(UsageError, match="no suffix"):
        write_classifier(tmp_path / "v.txt", made)


def test_castdet_command(tiny_model, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("ship\ngolffield\n")
    out = tmp_path / "v.npy"
    main(
        ["--model", str(tiny_model), "--classes", str(tmp_path / "classes.txt"), "-o", str(out)], standalone_mode=False
    )
    assert "2 classes" in capsys.readouterr().out
    expected = encoder(tiny_model).encode_text([TEMPLATE.format("golf field")])
    assert np.allclose(np.load(out)[1:2], expected, atol=1e-6)
