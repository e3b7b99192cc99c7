"""Every layout is recognised by its contents and becomes records; what does not fit is named by file and line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from tests.data_tools import RSFG, picture, put, rsteller, tar
from tiling.clikit import run_cli
from tiling.errors import GeoAlignError, UsageError
from training.builder.command import cli
from training.data.dataset import RsfgDataset, write_records
from training.data.errors import DataError
from training.data.images import rebase
from training.data.readers import READERS, detect, open_source
from training.data.schema import clip_regions, to_json

RSVG = """<annotation><filename>{0}.jpg</filename><size><width>40</width><height>20</height></size>{1}</annotation>"""
RSVG_OBJECT = (
    "<object><name>ship</name><pose>x</pose><bndbox><xmin>4</xmin><ymin>2</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>"
    "<description>The ship number {0}</description></object>"
)
MGRS_BOX = {"x1": 4, "y1": 2, "x2": 20, "y2": 10, "W": 40, "H": 20}
BOX = [0.1, 0.1, 0.5, 0.5]


def finehard(root):
    negatives = {str(n): f"a red ship {n}" for n in range(10)}
    box = {
        "bbox": [*BOX, 0.75], "short_expr": "a white ship", "long_expr": "A long white ship.", "flag_short_neg": 1,
        "short_expr_negs": negatives,
    }  # fmt: skip
    plain = {"bbox": BOX, "short_expr": "a pier", "long_expr": "", "flag_short_neg": 0, "short_expr_negs": negatives}
    item = {"f_path": "images/1.png", "caption": "A long text.", "short_caption": "A text.", "bbox_info": [box, plain]}
    return put(root / "finehard.json", [item, {"f_path": "images/2.png", "caption": "B", "short_caption": "b"}])


def mgrs(root):
    segments = [
        {"bbox": MGRS_BOX, "category": "ship", "category_id": 3, "cap": "a ship"},
        {"bbox": dict(zip("abcdef", MGRS_BOX.values(), strict=True)), "category": "pier", "category_id": 4},
    ]
    put(root / "global_imgs" / "1.png", picture())
    item = {"global_filepath": "1.png", "detailed_caption": "A long text.", "brief_caption": "A text."}
    put(root / "text_info.json", [{**item, "segment": segments}, {"global_filepath": "2.png", "global_caption": "B"}])
    return root


def pairs(root):
    return put(root / "dgtrsd.jsonl", [{"image": "1.png", "short": "A text.", "long": "A long text.", "gsd": 1}])


def rsteller_folder(root):
    for name, content in rsteller(607):
        put(root / name, content)
    return root


def karpathy(root):
    put(root / "images" / "1.jpg", picture(kind="JPEG"))
    sentences = [{"raw": "A text.", "tokens": ["a"]}, {"raw": " Another text . "}]
    images = [{"filename": "1.jpg", "split": "test", "sentences": sentences, "imgid": 0}]
    return put(root / "dataset_rsicd.json", {"images": images, "dataset": "rsicd"})


def caption_lines(root):
    tar(root / "images-00.tar", [("Port/1.png", picture())])
    item = {"image": "Port/1.png", "class": "Port", "split": "train", "captions": ["A text.", "Another text."]}
    put(root / "captions.jsonl", [item, {**item, "image": "Port/2.png"}])
    return root


def coco(root):
    put(root / "images" / "1.png", picture())
    turned = {"segmentation": [[4, 4, 16, 2, 20, 8, 8, 10]], "bbox": [4, 2, 16, 8]}
    boxes = [
        {"image_id": 7, "category_id": 1, **turned},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    images = [{"id": 7, "file_name": "1.png", "width": 40, "height": 20}, {"id": 8, "file_name": "images/1.png"}]
    return put(
        root / "instances.json",
        {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ship"}], "info": {"source": "Sea"}},
    )


def dota(root):
    put(root / "images" / "P0001__1024__0.png", picture())
    lines = "imagesource:GoogleEarth\ngsd:0.146\n4 4 16 2 20 8 8 10 large-vehicle 1\n-4 4 16 2 20 8 8 10 ship 0\n"
    put(root / "labelTxt" / "P0001__1024__0.txt", lines)
    return root


def vrsbench(root):
    entry = {
        "obj_id": 0, "obj_cls": "tennis-court", "obj_coord": BOX,
        "obj_corner": [0.1, 0.2, 0.4, 0.1, 0.5, 0.4, 0.2, 0.5],
        "referring_sentence": "The court on the left.", "is_unique": True,
    }  # fmt: skip
    put(root / "Images_val" / "P0003_0002.png", picture())
    qa = [{"ques_id": 0, "question": "How many?", "answer": "1"}]
    item = {"image": "P0003_0002.png", "caption": "A long text.", "objects": [entry], "qa_pairs": qa}
    put(root / "Annotations_val" / "P0003_0002.json", item)
    return root


def dior_rsvg(root):
    for stem, count in (("00002", 2), ("00001", 1)):
        objects = "".join(RSVG_OBJECT.format(number) for number in range(count))
        put(root / "Annotations" / f"{stem}.xml", RSVG.format(stem, objects))
        put(root / "JPEGImages" / f"{stem}.jpg", picture(kind="JPEG"))
    put(root / "train.txt", "0\n2\n")
    put(root / "test.txt", "1\n")
    return root


def rsfg(root):
    put(root / "a.png", picture())
    return put(root / "records.jsonl", [RSFG]).parent


def webdataset(root):
    tar(root / "train-000000.tar", rsteller(1) + rsteller(2))
    tar(root / "train-000001.tar", [("9.txt", b"A text.\nAnother text.\n"), ("9.png", picture())])
    return root


LAYOUTS = {
    "finehard": finehard, "mgrs": mgrs, "short-long": pairs, "rsteller": rsteller_folder, "captions": karpathy,
    "caption-lines": caption_lines, "coco": coco, "dota": dota, "vrsbench": vrsbench, "dior-rsvg": dior_rsvg,
    "rsfg": rsfg, "webdataset": webdataset,
}  # fmt: skip


def read(root, name):
    source = open_source(LAYOUTS[name](root))
    assert source.format == name
    return source, list(source.records())


def test_every_reader_is_tried():
    assert set(LAYOUTS) == set(READERS) - {"tiles"}  # which has a test of its own


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_and_its_records_can_be_written(tmp_path, name):
    source, records = read(tmp_path / "in", name)
    assert records
    clipped = [rebase(clip_regions(record), source.root, tmp_path / "out") for record in records]
    write_records(tmp_path / "out", clipped)
    assert list(RsfgDataset([tmp_path / "out"])) == clipped
    if (source.root / records[0].image).exists() or ".tar!" in records[0].image:
        assert RsfgDataset([tmp_path / "out"]).image(0).ndim == 3


def test_finehard_maps_as_its_own_loader_does(tmp_path):
    _, (record, second) = read(tmp_path, "finehard")
    assert (record.image, record.brief_caption, record.detailed_caption) == ("images/1.png", "A text.", "A long text.")
    ship, pier = record.regions
    assert (ship.bbox, ship.score, ship.phrase, ship.description) == (
        tuple(BOX),
        0.75,
        "a white ship",
        "A long white ship.",
    )
    assert [negative.text for negative in ship.hard_negatives] == [f"a red ship {n}" for n in range(10)]
    assert (pier.hard_negatives, pier.description, second.regions) == ((), None, ())


def test_mgrs_boxes_are_read_by_name_and_by_order(tmp_path):
    _, (record, second) = read(tmp_path, "mgrs")
    assert (record.image, record.width, record.height) == ("global_imgs/1.png", 40, 20)
    assert [region.bbox for region in record.regions] == [(0.1, 0.1, 0.5, 0.5)] * 2
    assert (record.regions[0].phrase, record.regions[1].category_id) == ("a ship", 4)
    assert (second.brief_caption, second.width) == ("B", None)
    shuffled = {key: MGRS_BOX[key] for key in ("H", "y2", "W", "x1", "x2", "y1")}
    item = {"global_filepath": "1.png", "segment": [{"bbox": shuffled}]}
    (record,) = open_source(put(tmp_path / "b.json", [item])).records()
    assert record.regions[0].bbox == (0.1, 0.1, 0.5, 0.5)


def test_captions_split_into_brief_and_further(tmp_path):
    _, (record,) = read(tmp_path / "a", "captions")
    assert (record.image, record.split, record.source) == ("images/1.jpg", "test", "rsicd")
    assert (record.brief_caption, record.captions) == ("A text.", ("Another text .",))
    _, (packed, absent) = read(tmp_path / "b", "caption-lines")
    assert (packed.image, packed.label, absent.image) == ("images-00.tar!Port/1.png", "Port", "Port/2.png")
    _, (pair,) = read(tmp_path / "c", "short-long")
    assert (pair.brief_caption, pair.detailed_caption, pair.extra) == ("A text.", "A long text.", {"gsd": 1})
    _, (patch,) = read(tmp_path / "d", "rsteller")
    assert (patch.image, patch.scene, patch.captions, patch.extra["tasks"]) == (
        "607.jpg",
        "m_41",
        ("road 607",),
        [2, 3],
    )
    _, records = read(tmp_path / "e", "webdataset")
    assert [record.brief_caption for record in records] == ["a long road 1", "a long road 2", "A text."]


def test_boxes_in_pixels_become_shares(tmp_path):
    _, (record, empty) = read(tmp_path / "a", "coco")
    (ship,) = record.regions  # the crowd is left out
    assert (record.image, record.source, ship.category) == ("images/1.png", "Sea", "ship")
    assert ship.bbox == pytest.approx((0.1, 0.1, 0.5, 0.5))
    assert ship.obb == pytest.approx((0.1, 0.2, 0.4, 0.1, 0.5, 0.4, 0.2, 0.5))
    assert (empty.regions, empty.width, empty.height) == ((), 40, 20)  # its size is that of the picture
    _, (record,) = read(tmp_path / "b", "dota")
    assert (record.scene, record.extra) == ("P0001", {"imagesource": "GoogleEarth", "gsd": "0.146"})
    vehicle, ship = record.regions
    assert (vehicle.category, vehicle.extra, vehicle.obb) == (
        "large vehicle",
        {"difficult": 1},
        pytest.approx((0.1, 0.2, 0.4, 0.1, 0.5, 0.4, 0.2, 0.5)),
    )
    assert ship.bbox[0] == -0.1  # as the file says; clip_regions cuts it
    _, (record,) = read(tmp_path / "c", "vrsbench")
    assert (record.image, record.split, record.scene) == ("Images_val/P0003_0002.png", "val", "P0003")
    assert (record.regions[0].category, record.regions[0].phrase) == ("tennis court", "The court on the left.")
    assert record.extra["qa_pairs"][0]["answer"] == "1"


def test_dior_rsvg_counts_objects_through_files_in_the_order_of_their_names(tmp_path):
    _, records = read(tmp_path, "dior-rsvg")
    found = [(record.image, record.split, [region.phrase for region in record.regions]) for record in records]
    assert found == [
        ("JPEGImages/00001.jpg", "train", ["The ship number 0"]),
        ("JPEGImages/00002.jpg", "test", ["The ship number 0"]),
        ("JPEGImages/00002.jpg", "train", ["The ship number 1"]),
    ]
    put(tmp_path / "val.txt", "9\n")
    with pytest.raises(DataError, match="object 9 of 3"):
        list(open_source(tmp_path).records())


WRONG = {
    "finehard": (
        "finehard.json",
        [{"f_path": "1.png", "short_caption": "a", "bbox_info": [{"bbox": ["a", 0, 1, 1]}]}],
        r"finehard.json\[0\]: a box",
    ),
    "mgrs": (
        "text_info.json",
        [{"global_filepath": "1.png", "segment": [{"bbox": {**MGRS_BOX, "W": 0}}]}],
        r"text_info.json\[0\]: a box",
    ),
    "short-long": ("a.jsonl", [{"image": "1", "short": "a", "long": "b"}, {"image": "2"}], "a.jsonl:2: has neither"),
    "rsteller": ("608.json", "{", "608.json:1: is not JSON"),
    "captions": ("d.json", {"images": [{"sentences": []}]}, r'd.json: images\[0\]: has no "filename"'),
    "caption-lines": (
        "captions.jsonl",
        '{"image": "1", "class": "a", "captions": []}\n{"image": "1", ',
        "captions.jsonl:2: is not a line",
    ),
    "coco": ("c.json", {"images": [], "annotations": [{"image_id": 4}]}, r"annotations\[0\]: names an image"),
    "dota": (
        "labelTxt/P0001__1024__0.txt",
        "1 2 3 4 5 6 7 8 ship 0\n1 2 3 4\n",
        "P0001__1024__0.txt:2: is not an object",
    ),
    "vrsbench": (
        "Annotations_val/P0003_0002.json",
        {"image": "P0003_0002.png", "objects": [{"obj_cls": "a"}]},
        r"objects\[0\]: has no",
    ),
    "dior-rsvg": ("Annotations/00003.xml", "<annotation>\n<object>", "00003.xml:2: is not XML"),
    "rsfg": ("records.jsonl", [RSFG, {"image": 3}], "records.jsonl:2: a record has no image"),
    "webdataset": ("train-000000.tar", b"no archive", "not a sound tar archive"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_one_line_with_its_place(tmp_path, name):
    LAYOUTS[name](tmp_path)
    file, content, message = WRONG[name]
    written = put(tmp_path / file, content)
    path = written if name in ("finehard", "short-long", "captions", "coco") else tmp_path
    with pytest.raises(DataError, match=message) as caught:
        list(open_source(path, name).records())
    assert "\n" not in str(caught.value)


def test_unknown_layouts_and_names_are_refused(tmp_path):
    put(tmp_path / "a.json", {"nothing": 1})
    put(tmp_path / "b.xml", "<a><!ENTITY x 'y'></a>")
    assert detect(tmp_path / "a.json") is None
    with pytest.raises(DataError, match="no layout that is known"):
        open_source(tmp_path / "a.json")
    with pytest.raises(DataError, match="is missing"):
        open_source(tmp_path / "no")
    with pytest.raises(DataError, match="is empty"):
        open_source(put(tmp_path / "empty.jsonl", ""))
    with pytest.raises(UsageError, match="is no format"):
        open_source(tmp_path, "voc")
    with pytest.raises(DataError, match="entities"):
        list(open_source(tmp_path, "dior-rsvg").records())


def test_a_layout_is_recognised_by_a_first_line_of_any_length(tmp_path):
    negatives = [{"text": f"a ship with {n} masts", "rule": "other"} for n in range(10_000)]
    region = {"bbox": BOX, "hard_negatives": negatives}
    (record, _) = open_source(put(tmp_path / "a.jsonl", [{"image": "1.png", "regions": [region]}, RSFG])).records()
    assert len(record.regions[0].hard_negatives) == 10_000


def test_pictures_may_lie_elsewhere(tmp_path):
    path = karpathy(tmp_path / "texts")
    (tmp_path / "texts" / "images" / "1.jpg").rename(tmp_path / "1.jpg")
    source = open_source(path, images=tmp_path)
    assert (source.root, [record.image for record in source.records()]) == (tmp_path, ["1.jpg"])


SHAPES = (
    ("ship", shapely.box(500010, 5799950, 500030, 5799990)),
    ("plane", shapely.Polygon([(500080, 5799960), (500090, 5799970), (500080, 5799980), (500070, 5799970)])),
)


def cut_tiles(tmp_path, make_raster, fmt, *more, shapes=None):
    """The folder of two tiles of 64 px that the real command cuts, a ship in the first and a plane in the second."""
    geopandas = pytest.importorskip("geopandas")
    from tiling.cli import command

    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 128), np.uint8)
    raster = make_raster(pixels, "city.tif", res=1.0)
    names, outlines = zip(*(shapes or SHAPES), strict=True)
    tmp_path.mkdir(exist_ok=True)
    geopandas.GeoDataFrame({"class": names}, geometry=list(outlines), crs="EPSG:32631").to_file(tmp_path / "l.gpkg")
    arguments = ["-o", tmp_path / "out", "--tile", 64, "--labels", tmp_path / "l.gpkg"]
    arguments += ["--label-field", "class", "--labels-format", fmt, *more]
    assert run_cli(command, [str(value) for value in [raster, *arguments]]) == 0
    return tmp_path / "out"


FORMATS = ["coco", "geojson", "geoparquet", "yolo", "yolo-obb", "mask"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_tiles_with_labels_are_records(tmp_path, make_raster, fmt):
    source = open_source(cut_tiles(tmp_path, make_raster, fmt))
    first, second = source.records()
    assert (source.format, first.scene, first.width) == ("tiles", "city", 64)
    assert first.extra["gsd_m"] == pytest.approx(1.0, rel=1e-3)
    (ship,), (plane,) = first.regions, second.regions
    assert (ship.category, plane.category) == ("ship", "plane")
    assert {ship.category_id, plane.category_id} == ({1, 2} if fmt == "coco" else {0, 1})
    near = 1 / 64 if fmt == "mask" else 1e-4  # a mask knows whole pixels alone
    assert ship.bbox == pytest.approx((10 / 64, 10 / 64, 30 / 64, 50 / 64), abs=near)
    assert ship.obb is None
    assert plane.bbox == pytest.approx((6 / 64, 20 / 64, 26 / 64, 40 / 64), abs=near)
    if fmt in ("yolo", "mask"):  # which are upright
        assert plane.obb is None
    else:
        assert shapely.Polygon(np.reshape(plane.obb, (4, 2))).area == pytest.approx(200 / 64**2, rel=1e-3)


@pytest.mark.parametrize("fmt", FORMATS)
def test_import_takes_the_labels_of_every_format_and_part(tmp_path, make_raster, fmt, capsys):
    folder = cut_tiles(tmp_path, make_raster, fmt, "--split", "train=1,val=1", "--split-block", "64px")
    assert run_cli(cli, ["import", str(folder), "-o", str(tmp_path / "in")]) == 0
    data = RsfgDataset([tmp_path / "in"])
    assert {record.split for record in data} == {"train", "val"}
    assert sorted(region.category for record in data for region in record.regions) == ["plane", "ship"]
    assert "cut at the edge" not in capsys.readouterr().out


def test_a_box_at_the_edge_of_a_tile_is_not_cut_by_rounding(tmp_path, make_raster):
    shapes = [("dock", shapely.box(500000 + 64 / 3, 5799936, 500064, 5800000 - 64 / 7))]
    first, _ = open_source(cut_tiles(tmp_path, make_raster, "yolo", shapes=shapes)).records()
    assert first.regions[0].bbox == pytest.approx((1 / 3, 1 / 7, 1, 1), abs=2e-6)
    assert clip_regions(first) == first


def test_a_mask_that_joins_two_objects_is_refused(tmp_path, make_raster, capsys):
    left, right = shapely.box(500010, 5799950, 500020, 5799960), shapely.box(500020, 5799950, 500030, 5799960)
    source = open_source(cut_tiles(tmp_path / "a", make_raster, "mask", shapes=[("house", left), ("shed", right)]))
    assert [region.category for record in source.records() for region in record.regions] == ["house", "shed"]
    folder = cut_tiles(tmp_path / "b", make_raster, "mask", shapes=[("house", left), ("house", right)])
    capsys.readouterr()
    assert run_cli(cli, ["import", str(folder), "-o", str(tmp_path / "in")]) == 1
    told = capsys.readouterr().err
    assert "does not tell its objects apart (labels: 2, connected areas: 1)" in told
    assert "--labels-format coco" in told and told.count("\n") == 1
    assert not (tmp_path / "in" / "records.jsonl").exists()


@pytest.mark.parametrize(
    ("fmt", "name", "content", "told"),
    [
        ("yolo", "labels/city_r0000_c0000.txt", "1 0.5 0.5 0.1\n", r"c0000.txt:1: is not a box of YOLO \(4 words"),
        ("yolo", "labels/city_r0000_c0000.txt", "7 0.5 0.5 0.1 0.1\n", "names a class that data.yaml lacks"),
        ("yolo", "labels/city_r0000_c0000.txt", "1 0.5 x 0.1 0.1\n", "a box is not made of numbers"),
        ("yolo-obb", "labels/city_r0000_c0000.txt", None, "cannot be read"),
        ("yolo", "data.yaml", "nc: 2\n", "tells no names of classes"),
        ("yolo", "data.yaml", "a: &a [x, x]\nnames: [*a]\n", "tells no names of classes"),
        ("yolo", "data.yaml", None, r"lacks the labels that its manifest counts \(2 labels\)"),
        ("mask", "masks/classes.json", '{"classes": [{"value": 9, "name": "x"}]}', "value that classes.json lacks"),
    ],
)
def test_damaged_labels_of_tiles_are_one_line(tmp_path, make_raster, fmt, name, content, told):
    folder = cut_tiles(tmp_path, make_raster, fmt)
    if content is None:
        (folder / name).unlink()
    else:
        put(folder / name, content)
    with pytest.raises(DataError, match=told) as caught:
        list(open_source(folder).records())
    assert "\n" not in str(caught.value)


def test_a_damaged_manifest_or_label_file_is_refused(tmp_path):
    put(tmp_path / "tiles.json", "{}")
    put(tmp_path / "tiles.parquet", "no table")
    assert detect(tmp_path) == "tiles"
    with pytest.raises(GeoAlignError):
        list(open_source(tmp_path).records())


@pytest.mark.data
def test_the_development_data_becomes_records(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOALIGN_CACHE", str(tmp_path / "cache"))
    expected = {
        "rsicd_aid": ("caption-lines", 8973, 0),
        "boxes/aircraft": ("coco", 36, 1330),
        "boxes/vehicles": ("coco", 220, 1084),
    }
    for name, (layout, images, boxes) in expected.items():
        source = open_source(data_dir / name)
        records = [rebase(clip_regions(record), source.root, tmp_path / name) for record in source.records()]
        assert (source.format, len(records), sum(len(record.regions) for record in records)) == (layout, images, boxes)
        write_records(tmp_path / name, records)
        data = RsfgDataset([tmp_path / name])
        assert [json.dumps(to_json(record)) for record in data] == [json.dumps(to_json(record)) for record in records]
        for index in (0, len(data) // 2, len(data) - 1):
            assert data.image(index).shape[2] == 3


def test_a_folder_with_one_data_set_is_that_data_set(tmp_path):
    item = {"image": "a.png", "short": "a boat", "long": "a boat on a lake"}
    (tmp_path / "texts.json").write_text(json.dumps([item]), encoding="utf-8")
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    source = open_source(tmp_path)
    assert (source.format, source.name) == ("short-long", tmp_path.name)
    assert next(source.records()).brief_caption == "a boat"
    (tmp_path / "more.jsonl").write_text(json.dumps(item), encoding="utf-8")
    with pytest.raises(DataError, match=r"several data sets \(more.jsonl, texts.json\)"):
        open_source(tmp_path)


@pytest.mark.parametrize("image", ["../secret.png", "a/../../secret.png", "/etc/secret.png", "..\\secret.png"])
def test_a_foreign_record_reaches_into_no_other_folder(tmp_path, image):
    inner = tmp_path / "set"
    inner.mkdir()
    (inner / "records.jsonl").write_text(json.dumps({"image": image}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="outside"):
        list(open_source(inner).records())
    if image == "../secret.png":
        (record,) = open_source(inner, images=tmp_path).records()
        assert record.image == "secret.png"
