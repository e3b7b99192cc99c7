"""The catalogue of data sets, and what is said of a folder."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.catalogue import catalogue, dataset_id, description, find, listing
from training.evaluation.catalogue_check import check_folder
from training.evaluation.printed import printed_tables
from training.evaluation.registry import TITLES, find_task

ENTRIES = catalogue()
LAYOUTS = [(entry, layout) for entry in ENTRIES for layout in entry.layouts]


def touch(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def named(pattern, number=0):
    """A path that fits a check's pattern."""
    parts = [part.split("|")[0] for part in PurePosixPath(pattern).parts if part != "**"]
    return "/".join(parts).replace("*", f"a{number}")


def fill(folder, check):
    """Write what a check asks for, two of each where it counts."""
    if check.kind in ("file", "files", "folders", "pairs"):
        for number in range(1 if check.kind == "file" else 2):
            touch(folder / named(check.path, number))
            if check.kind == "pairs":
                mask = PurePosixPath(named(check.below, number))
                touch(folder / mask.with_name(mask.stem + check.skip_after + mask.suffix))
    elif check.kind == "lines":
        touch(folder / named(check.path), "one\ntwo\n\n")
    else:
        rows = [{**check.where, check.refers or "key": f"pictures/p{number}.jpg"} for number in range(2)]
        for row in rows if check.refers else ():
            touch(folder / check.below.partition("|")[0] / row[check.refers])
        path = folder / named(check.path)
        if check.kind == "csv":
            head = ",".join(check.columns)
            body = "".join(",".join(row.get(column, "text") for column in check.columns) + "\n" for row in rows)
            touch(path, f"{head}\n{body}")
        elif path.suffix == ".jsonl":
            touch(path, "".join(json.dumps(row) + "\n" for row in rows))
        else:
            touch(path, json.dumps({check.items: rows} if check.items else rows))


def small(entry, layout):
    """The entry with one layout whose counts are two."""
    checks = tuple(check if check.count is None else replace(check, count=2) for check in layout.checks)
    return replace(entry, layouts=(replace(layout, checks=checks),))


@pytest.mark.parametrize(("entry", "layout"), LAYOUTS, ids=[f"{e.id}-{lay.name}" for e, lay in LAYOUTS])
def test_every_layout_is_recognised_and_each_missing_part_is_named(entry, layout, tmp_path):
    entry = small(entry, layout)
    whole = tmp_path / "whole"
    for check in layout.checks:
        fill(whole, check)
    # JSON and picture patterns of one layout may meet in one folder: count again what was written twice
    found = check_folder(entry, whole)
    assert all(finding.state in ("there", "differs") for finding in found.findings)
    assert not [f for f, c in zip(found.findings, layout.checks, strict=True) if c.kind == "file" and not f.good]
    empty = tmp_path / "empty"
    empty.mkdir()
    report = check_folder(entry, empty)
    needed = [check.path for check in layout.checks if not check.optional]
    assert [finding.what for finding in report.findings if finding.state == "missing"] == needed
    assert report.exit_code == 1
    assert layout.tree[0] in str(report)


def rsitmd(folder, *, test=452, capitals=True):
    entries = [
        {"filename": f"{number}.tif", "split": "test" if number < test else "train", "sentences": [{"raw": "a"}] * 5}
        for number in range(test + 3)
    ]
    for entry in entries:
        touch(folder / "images" / entry["filename"])
    name = "RSITMD" if capitals else "rsitmd"
    touch(folder / f"dataset_{name}.json", json.dumps({"images": entries, "dataset": "rsitmd"}))
    return folder


@pytest.mark.parametrize("capitals", [True, False])
def test_a_complete_folder_ends_with_zero(tmp_path, capitals):
    report = check_folder(find("rsitmd"), rsitmd(tmp_path, capitals=capitals))
    assert (report.complete, report.exit_code, report.layout.name) == (True, 0, "images and JSON")
    assert str(report).splitlines()[-1] == "complete"


def test_a_wrong_count_and_a_missing_picture_are_said(tmp_path):
    folder = rsitmd(tmp_path, test=450)
    (folder / "images" / "7.tif").unlink()
    (line,) = [finding for finding in check_folder(find("rsitmd"), folder).findings if not finding.good]
    assert "450 entries with split test, 452 expected" in line.said
    assert "1 of the files that it names are missing, such as '7.tif'" in line.said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"), ("[" * 100_000, "is no JSON"), ('{"pictures": []}', "has no list images"),
        ("3", "has no list images"), ("\udcff", "is no text"),
    ],
)  # fmt: skip
def test_a_damaged_list_is_one_line(tmp_path, text, said):
    touch(tmp_path / "images/0.tif")
    (tmp_path / "dataset_rsitmd.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    lines = check_folder(find("rsitmd"), tmp_path).findings
    assert [line for line in lines if said in line.said and line.state == "differs"]


@pytest.mark.parametrize("name", ["../outside.tif", "/etc/hostname", "a\0b", "x" * 300, 7, None])
def test_names_that_leave_the_folder_are_missing(tmp_path, name):
    folder = tmp_path / "set"
    touch(tmp_path / "outside.tif")
    touch(folder / "images/a.tif")
    touch(folder / "dataset_rsitmd.json", json.dumps({"images": [{"filename": name, "split": "test"}]}))
    lines = check_folder(find("rsitmd"), folder).findings
    assert [line for line in lines if "1 of the files that it names are missing" in line.said]


def test_a_list_in_gb18030_is_read(tmp_path):
    touch(tmp_path / "0.jpg")
    (tmp_path / "rsicd.csv").write_bytes("filepath,title\n0.jpg,机场 with planes\n".encode("gb18030"))
    report = check_folder(find("RSICD"), tmp_path)
    assert (report.layout.name, report.complete) == ("SkyScript CSV", True)


def test_columns_that_a_table_lacks_are_named(tmp_path):
    touch(tmp_path / "aid_img_txt_pairs_test.csv", "filepath,class\n0.jpg,port\n")
    touch(tmp_path / "classnames.txt", "\n".join(f"c{n}" for n in range(30)))
    assert "has no column label" in str(check_folder(find("aid"), tmp_path))


def test_a_table_may_name_pictures_from_the_folder_above(tmp_path):
    folder = tmp_path / "aid"
    touch(folder / "test/0.jpg")
    touch(folder / "aid_img_txt_pairs_test.csv", "filepath,label\naid/test/0.jpg,port\n")
    touch(folder / "classnames.txt", "\n".join(f"c{n}" for n in range(30)))
    assert check_folder(find("aid"), folder).complete


def test_pictures_without_a_mask_are_named(tmp_path):
    for number in range(3):
        touch(tmp_path / f"img_dir/val/{number}.png")
    for number in range(2):
        touch(tmp_path / f"ann_dir/val/{number}.png")
    assert "1 of 3 have no partner, such as 2" in str(check_folder(find("loveda"), tmp_path))


def test_masks_without_a_picture_are_named(tmp_path):
    """Measuring refuses them, so a folder that has some is not complete."""
    for number in range(2):
        touch(tmp_path / f"img_dir/val/{number}.png")
    for number in range(3):
        touch(tmp_path / f"ann_dir/val/{number}.png")
    report = check_folder(find("loveda"), tmp_path)
    assert "1 of 3 have no partner, such as 2" in str(report) and "ann_dir" in report.findings[0].what


def test_masks_of_another_ending_are_no_partners(tmp_path):
    for number in range(2):
        touch(tmp_path / f"img_dir/val/{number}.png")
        touch(tmp_path / f"ann_dir/val/{number}_instance_color_RGB.png")
        touch(tmp_path / f"ann_dir/val/{number}_instance_id_RGB.png")
    assert "2 pairs" in str(check_folder(find("isaid"), tmp_path))
    (tmp_path / "ann_dir/val/1_instance_color_RGB.png").rename(tmp_path / "ann_dir/val/1.png")
    assert "1 of 2 have no partner, such as 1" in str(check_folder(find("isaid"), tmp_path))


DIOR = {
    "as published": ("JPEGImages-test", "Annotations/Horizontal Bounding Boxes", "ImageSets/Main"),
    "as CastDet has it": ("JPEGImages-test", "Annotations", "ImageSets/Main"),
    "plain": ("JPEGImages", "Annotations", "Main"),
}


@pytest.mark.parametrize("folders", DIOR.values(), ids=DIOR)
def test_dior_is_found_however_it_is_unpacked(folders, tmp_path):
    pictures, truth, lists = folders
    touch(tmp_path / pictures / "11726.jpg")
    touch(tmp_path / truth / "11726.xml")
    touch(tmp_path / lists / "visdronezsd_split" / "test.txt", "11726\n")
    assert check_folder(find("dior"), tmp_path).complete  # without the list all images are measured
    touch(tmp_path / lists / "test.txt", "11726\n")
    (wrong,) = [finding for finding in check_folder(find("dior"), tmp_path).findings if not finding.good]
    assert wrong.said == "1 lines, 11,738 expected"
    touch(tmp_path / lists / "test.txt", "".join(f"{number}\n" for number in range(11738)))
    assert check_folder(find("dior"), tmp_path).complete
    (tmp_path / pictures / "11726.jpg").unlink()
    assert check_folder(find("dior"), tmp_path).exit_code == 1


def test_dota_in_its_parts(tmp_path):
    for number in range(458):
        touch(tmp_path / f"val/images/P{number:04}.png")
    touch(tmp_path / "val/labelTxt-v1.0/labelTxt/P0003.txt")
    report = check_folder(find("dota"), tmp_path)
    assert report.complete and report.layout.name == "DOTA, parts in folders"


def test_a_pattern_whose_alternatives_run_over_folders_is_refused(tmp_path):
    """Alternatives are of one name: the second half of ``a/*.jpg|b/*.jpg`` would be a folder called ``*.jpg|b``."""
    import training.evaluation.catalogue as module

    item = json.loads((module.FOLDER / "loveda.json").read_text(encoding="utf-8"))
    item["layouts"][0]["checks"] = [{"kind": "files", "path": "a/*.jpg|b/*.jpg"}]
    touch(tmp_path / "loveda.json", json.dumps(item))
    with pytest.raises(DataError, match="ending in a folder"):
        module._read(tmp_path / "loveda.json")


def test_a_leaf_of_choice_has_as_many_questions_as_the_papers_measure_on(tmp_path):
    leaf = tmp_path / "perception" / "image_level_comprehension" / "scene_classification"
    touch(leaf / "images" / "0.png")
    touch(leaf / "scene_classification.json", json.dumps([{"image_path": "images/0.png"}] * 24))
    for folder in (tmp_path, leaf):
        report = check_folder(find("choice-img"), folder)
        assert not report.complete and "24 entries, 200 expected" in str(report)
    touch(leaf / "scene_classification.json", json.dumps([{"image_path": "images/0.png"}] * 200))
    assert check_folder(find("choice-img"), leaf).complete


def test_the_whole_of_choice_is_complete_with_all_its_questions(tmp_path):
    touch(tmp_path / "perception" / "a" / "images" / "0.png")
    touch(tmp_path / "perception" / "a" / "a.json", json.dumps([{}] * 10_000))
    touch(tmp_path / "reasoning" / "b" / "b.json", json.dumps([{}] * 507))
    report = check_folder(find("choice-img"), tmp_path)
    assert (report.layout.name, report.complete) == ("CHOICE", True)


def test_classes_without_a_picture_are_missing(tmp_path):
    for number in range(2400):
        touch(tmp_path / f"class{number % 6}" / f"{number}.jpg")
    (tmp_path / "class7").mkdir()
    (wrong,) = [finding for finding in check_folder(find("siri-whu"), tmp_path).findings if not finding.good]
    assert wrong.said == "6 folders, 12 expected"


@pytest.mark.parametrize(("folder", "suffix"), [("Images_val", "png"), ("Images_val", "jpg"), ("images", "png")])
def test_vrsbench_may_have_pictures_that_the_task_reads(tmp_path, folder, suffix):
    touch(tmp_path / "VRSBench_EVAL_referring.json", json.dumps([{"image_id": f"1.{suffix}"}]))
    touch(tmp_path / folder / f"1.{suffix}")
    assert check_folder(find("vrsbench"), tmp_path).complete
    (tmp_path / folder / f"1.{suffix}").rename(tmp_path / folder / f"2.{suffix}")
    assert "files that it names are missing" in str(check_folder(find("vrsbench"), tmp_path))


def test_a_list_may_be_given_as_to_the_task_and_no_other_one_counts(tmp_path):
    touch(tmp_path / "raw" / "1.jpg")
    touch(tmp_path / "long.jsonl", json.dumps({"image": "raw/1.jpg", "long": "much"}) + "\n")
    touch(tmp_path / "other.jsonl", "{")
    report = check_folder(find("long-captions"), tmp_path / "long.jsonl")
    assert report.complete and "1 entries" in str(report)
    assert not check_folder(find("long-captions"), tmp_path).complete
    (tmp_path / "raw" / "1.jpg").unlink()
    assert "'raw/1.jpg'" in str(check_folder(find("long-captions"), tmp_path / "long.jsonl"))
    touch(tmp_path / "long.txt")
    with pytest.raises(DataError, match="is no list of this data set; see geoalign-eval data long-captions"):
        check_folder(find("long-captions"), tmp_path / "long.txt")


def test_a_folder_that_is_not_there_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(DataError, match="is not a folder; see geoalign-eval data rsicd"):
        check_folder(find("rsicd"), tmp_path / "none")


def test_names_are_found_in_every_spelling_and_near_ones_are_offered():
    assert {find(name).id for name in ("UCM", "ucm_captions", "UCM-captions")} == {"ucm-captions"}
    assert dataset_id("dataset_rsicd") == "rsicd"
    assert dataset_id("rsitmd_test") == "rsitmd"
    assert dataset_id("my own") == "my own"
    with pytest.raises(UsageError, match=r"did you mean .*loveda"):
        find("lovedaa")


def test_spellings_are_unambiguous():
    seen: dict[str, str] = {}
    for entry in ENTRIES:
        for name in (entry.id, entry.title, *entry.names):
            assert seen.setdefault(name.lower(), entry.id) == entry.id
            assert find(name) is entry


def test_every_printed_data_set_is_in_the_catalogue():
    for table in printed_tables():
        for column in table.columns:
            if column.dataset:
                assert find(column.dataset).id == column.dataset
                assert column.task in {use.task for use in find(column.dataset).uses}


def test_tasks_and_protocols_exist():
    for entry in ENTRIES:
        for use in entry.uses:
            assert use.task in TITLES
            if importlib.util.find_spec(f"training.evaluation.tasks.{use.task}"):
                assert set(use.protocols) <= set(find_task(use.task).protocols), entry.id


def test_the_list_and_a_description_tell_where_and_what_for():
    lines = listing().splitlines()
    assert len(lines) == len(ENTRIES) + 1
    assert [line for line in lines if line.startswith("siri-whu") and "not verified" in line]
    text = description(find("dior-rsvg"))
    for part in ("7,500", "https://github.com/ZhanYang-nwpu/RSVG-pytorch", "JPEGImages", "--protocol rsvg", "licence"):
        assert part in text
    assert max(map(len, description(find("rsicd")).splitlines())) <= 120


def test_unverified_terms_never_look_verified():
    for entry in ENTRIES:
        assert ("not verified" in description(entry)) is (not entry.terms.verified)
        assert not (entry.terms.verified and not entry.terms.where and entry.url)


def test_every_file_of_the_catalogue_is_read():
    import training.evaluation.catalogue as module

    folder = Path(module.__file__).parent / "catalogue"
    assert {path.stem for path in folder.iterdir()} == {entry.id for entry in ENTRIES}
