"""Steps of the builder on small pictures: captions that are true, what is dropped, and going on after a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tiling.clikit import run_cli
from tiling.errors import CancelledError, OutputExistsError
from tiling.progress import CancelToken
from training.builder.appearance import appearance, colours_present, region_appearance
from training.builder.captions import caption_step, write_captions
from training.builder.command import cli
from training.builder.consistency import check
from training.builder.describe import describe_regions
from training.builder.quality import QualityOptions, mask_share, near_duplicates, quality_step
from training.builder.steps import Step, run_step
from training.data.dataset import RsfgDataset, write_records
from training.data.schema import Record, Region


@pytest.fixture
def folder(tmp_path):
    """Eight noisy pictures with two boxes each, one flat picture, one copy."""
    rng = np.random.default_rng(0)
    root, records = tmp_path / "in", []
    root.mkdir()
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(root / f"{number}.png")
    Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(root / "flat.png")
    Image.open(root / "3.png").resize((128, 128)).save(root / "copy.png")
    for name in [*map(str, range(8)), "flat", "copy"]:
        boxes = (
            Region((0.05, 0.1, 0.25, 0.2), category="ship"), Region((0.7, 0.7, 0.9, 0.95), category="storage-tank"),
        )  # fmt: skip
        records.append(Record(image=f"{name}.png", label="Harbor", regions=boxes))
    write_records(root, records)
    return root


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rule_texts_agree_with_the_boxes(folder, tmp_path):
    run_step(caption_step(), RsfgDataset([folder]), tmp_path / "out")
    records = list(RsfgDataset([tmp_path / "out"]))
    assert len(records) == 10
    for record in records:
        assert not [item for item in check(record) if item.severity == "error"]
        assert "ship" in record.brief_caption and "harbor" in record.brief_caption.lower()
        assert "upper left" in record.regions[0].phrase and "lower right" in record.regions[1].phrase
        assert "left of a storage tank" in record.regions[0].description or "above" in record.regions[0].description
    assert records[0].image == "../in/0.png"


def test_human_texts_stay(folder, tmp_path):
    record = Record(image="0.png", brief_caption="Mine.", captions=("a b c .", "a b ."))
    write_records(folder, [record, replace(record, brief_caption=None)], overwrite=True)
    run_step(caption_step(), RsfgDataset([folder]), tmp_path / "out")
    first, second = RsfgDataset([tmp_path / "out"])
    assert first.brief_caption == "Mine."
    assert second.brief_caption == "A b."
    run_step(caption_step(overwrite=True), RsfgDataset([folder]), tmp_path / "over")
    assert next(iter(RsfgDataset([tmp_path / "over"]))).brief_caption == "A b."


def test_quality_drops_flat_pictures_and_keeps_the_largest_copy(folder, tmp_path):
    report = run_step(quality_step(QualityOptions(hash_distance=6)), RsfgDataset([folder]), tmp_path / "out")
    assert report.rejected == {"looks the same": 1, "too flat": 1}
    kept = {record.image for record in RsfgDataset([tmp_path / "out"])}
    assert "../in/copy.png" in kept and "../in/3.png" not in kept


def test_mask_share_is_the_exact_union():
    boxes = [Region((0.0, 0.0, 0.6, 1.0)), Region((0.4, 0.0, 0.8, 1.0))]
    assert mask_share(boxes) == pytest.approx(0.8)
    diamond = Region((0.0, 0.0, 1.0, 1.0), obb=(0.5, 0.0, 1.0, 0.5, 0.5, 1.0, 0.0, 0.5))
    assert mask_share([diamond]) == pytest.approx(0.5)


@pytest.mark.parametrize("distance", [0, 1, 3, 5])
def test_near_duplicates_equal_brute_force(distance):
    rng = np.random.default_rng(distance)
    base = [int(x) for x in rng.integers(0, 2**63, 30)]
    hashes = base + [value ^ sum(1 << int(b) for b in rng.choice(64, 3, replace=False)) for value in base]
    sizes = [int(x) for x in rng.integers(1, 4, len(hashes))]
    kept = []
    for place in sorted(range(len(hashes)), key=lambda i: (-sizes[i], i)):
        if all((hashes[place] ^ hashes[other]).bit_count() > distance for other in kept):
            kept.append(place)
    assert set(range(len(hashes))) - near_duplicates(hashes, sizes, distance).keys() == set(kept)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((250, 250, 250), "white"), ((10, 10, 10), "black"), ((128, 128, 128), "gray"), ((220, 20, 20), "red"),
     ((30, 140, 40), "green"), ((30, 60, 200), "blue"), ((120, 80, 40), "brown"), ((240, 230, 40), "yellow")],
)  # fmt: skip
def test_colours_have_their_names(rgb, name):
    look = appearance(np.full((5, 5, 3), rgb, dtype=np.uint8))
    assert look.colours == ((name, 1.0),)
    assert look.texture == "smooth"


def test_the_colour_is_the_objects_not_the_tarmacs():
    image = np.full((200, 200, 3), (120, 121, 119), np.uint8)
    image[90:110, 50:150] = image[50:150, 90:110] = (240, 238, 225)  # a cross: a third of its box
    plane = Region((0.25, 0.25, 0.75, 0.75), category="plane")
    assert region_appearance(image, plane).colour == "white"
    assert {"white", "gray"} <= colours_present(image, plane)
    assert region_appearance(np.full((200, 200, 3), 120, np.uint8), plane) is None
    image[50:150, 50:150:2], image[50:150, 51:150:2] = (220, 30, 30), (30, 50, 210)  # striped: no colour is sure
    assert region_appearance(image, plane).colours == ()


def test_phrases_of_one_picture_differ_and_are_true():
    boxes = [(x, y, x + 0.04, y + 0.04) for x, y in ((0.05, 0.1), (0.1, 0.2), (0.15, 0.14), (0.2, 0.05), (0.9, 0.9))]
    record = Record(image="a.png", width=640, height=640, regions=tuple(Region(b, category="plane") for b in boxes))
    told = describe_regions(record, None)
    phrases = [region.phrase for region in told.regions]
    assert len(set(phrases)) == 5
    assert "the second plane from the left" in phrases[1]
    assert not check(told)
    twins = describe_regions(replace(record, regions=record.regions[:1] * 2), None)
    assert [item.kind for item in check(twins)].count("ambiguous") == 2


def test_cars_of_one_half_are_not_spread_over_the_image():
    def caption(xs):
        ys = np.linspace(0, 0.9, 9)
        boxes = [Region((x, y, x + 0.04, y + 0.04), category="car") for x, y in zip(xs, ys, strict=True)]
        return write_captions(Record(image="a", width=64, height=64, regions=tuple(boxes)), None).detailed_caption

    assert "spread" not in caption([0.53, 0.75, 0.6] * 3)
    assert "spread over the image" in caption([0.05, 0.5, 0.85] * 3)


def test_a_stopped_step_goes_on_to_the_same_bytes(folder, tmp_path):
    cancel, seen = CancelToken(), []

    def counting(inner):
        def apply(record, picture):
            seen.append(record.image)
            if len(seen) == 4:
                cancel.cancel()
            return inner(record, picture)

        return apply

    plain = caption_step()
    step = Step(name=plain.name, settings=plain.settings, apply=counting(plain.apply))
    with pytest.raises(CancelledError):
        run_step(step, RsfgDataset([folder]), tmp_path / "out", cancel=cancel)
    with (tmp_path / "out" / ".journal.jsonl").open("ab") as journal:
        journal.write(b'{"key": "cut he')  # as a kill leaves it
    before = len(seen)
    run_step(step, RsfgDataset([folder]), tmp_path / "out")
    assert len(seen) == 10  # nothing twice
    assert before < 10
    run_step(plain, RsfgDataset([folder]), tmp_path / "whole", workers=4)
    for name in ("records.jsonl", "rejected.jsonl", "report.json", "step.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    run_step(step, RsfgDataset([folder]), tmp_path / "out")
    assert len(seen) == 10  # what is finished is not done again


def test_records_of_other_origin_are_not_replaced(folder, tmp_path):
    write_records(tmp_path / "out", [Record(image="x.png")])
    with pytest.raises(OutputExistsError):
        run_step(caption_step(), RsfgDataset([folder]), tmp_path / "out")


def test_the_whole_build_runs(folder, tmp_path, capsys):
    (folder / "5.png").write_bytes(b"broken")
    out = tmp_path / "out"
    assert run_cli(cli, ["build", str(folder), "-o", str(out)]) == 0
    assert len(RsfgDataset([out])) == 7  # less the broken, the flat, and the smaller copy
    assert "image cannot be read" in capsys.readouterr().out
    record = RsfgDataset([out])[0]
    assert record.md5 and record.width == 64 and record.regions[0].hard_negatives
    assert RsfgDataset([out]).image(0).shape == (64, 64, 3)
    assert lines(out / "1-import" / "rejected.jsonl")[0]["reason"] == "image cannot be read"


def test_a_killed_build_by_plan_goes_on_to_the_same_bytes(folder, tmp_path):
    """A process of its own, killed by the system at its first journal line, then run again."""
    plan = tmp_path / "plan.yaml"
    out, whole = tmp_path / "out", tmp_path / "whole"
    plan.write_text("sources: [in]\nplace: copy\nnegatives: 3\n", encoding="utf-8")
    code = "import sys; from training.builder.command import main; main()"
    command = [sys.executable, "-c", code, "build", "--plan", str(plan), "--workers", "1", "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = out / "1-import" / ".journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (out / "records.jsonl").exists()
    for target in (out, whole):
        assert run_cli(cli, ["build", "--plan", str(plan), "-o", str(target)]) == 0
    assert (out / "records.jsonl").read_bytes() == (whole / "records.jsonl").read_bytes()
    assert RsfgDataset([out])[0].image.startswith("1-import/images/")


def test_import_skips_what_it_cannot_take_and_names_its_line(folder, tmp_path, capsys):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:600])
    (folder / "2.png").unlink()
    secret = tmp_path / "secret.png"
    shutil.copy(folder / "4.png", secret)
    path = folder / "records.jsonl"
    (folder / "..a").mkdir()  # a name that begins like the way out, and is none
    shutil.copy(folder / "4.png", folder / "..a" / "4.png")
    strays = [{"image": name} for name in ("../secret.png", str(secret), "gone.tar!a.png", "..a/4.png")]
    path.write_text("\n" + path.read_text() + "\n".join(map(json.dumps, strays)) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    assert run_cli(cli, ["import", str(folder), "-o", str(out), "--copy"]) == 0
    told = capsys.readouterr().out
    assert "import: 9 of 14 records" in told
    assert "2  dropped: a picture lies outside of its data set" in told
    assert not list(out.glob("**/*secret*"))
    reasons = {entry["image"].rpartition("/")[2]: entry["measured"] for entry in lines(out / "rejected.jsonl")}
    expected = {"1.png": 3, "2.png": 4, "secret.png": 13, "gone.tar!a.png": 14}
    assert reasons.keys() == expected.keys()
    assert all(reasons[name].startswith(f"{path}:{line}: ") for name, line in expected.items())
    assert f": {folder / '1.png'}: an image is damaged" in reasons["1.png"]
    assert "--images" in reasons["secret.png"]
    assert not any(".incoming" in reason or ".." in reason for reason in reasons.values())
    assert all("import_note" not in record for record in lines(out / "records.jsonl"))


def test_import_into_a_linked_folder_finds_the_pictures(folder, tmp_path):
    (tmp_path / "far" / "away" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away" / "disk")
    (tmp_path / "also").symlink_to(folder)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:600])
    (folder / "2.png").unlink()
    assert run_cli(cli, ["import", str(tmp_path / "also"), "-o", str(tmp_path / "link")]) == 0
    data = RsfgDataset([tmp_path / "link"])
    assert len(data) == 8
    assert data.image(0).shape == (64, 64, 3)
    damaged, missing = (entry["measured"] for entry in lines(tmp_path / "link" / "rejected.jsonl"))
    assert f": {folder.resolve() / '1.png'}: an image is damaged" in damaged
    assert f": {folder.resolve() / '2.png'}: an image cannot be read" in missing


def test_records_of_any_layout_are_named_by_their_place(folder, tmp_path):
    images = [{"id": n, "file_name": name, "width": 64, "height": 64} for n, name in enumerate(["0.png", "no.png"])]
    coco = {"images": images, "annotations": [], "categories": []}
    (folder / "boxes.json").write_text(json.dumps(coco), encoding="utf-8")
    assert run_cli(cli, ["import", str(folder / "boxes.json"), "-o", str(tmp_path / "out")]) == 0
    (entry,) = lines(tmp_path / "out" / "rejected.jsonl")
    assert entry["measured"].startswith(f"{folder / 'boxes.json'}: images[1]: {folder / 'no.png'}: an image cannot be")


def test_pictures_are_linked_or_copied(folder, tmp_path):
    for place in ("copy", "link"):
        assert run_cli(cli, ["import", str(folder), "-o", str(tmp_path / place), f"--{place}"]) == 0
        shutil.copytree(tmp_path / place, tmp_path / f"moved-{place}")
        assert RsfgDataset([tmp_path / f"moved-{place}"]).image(0).shape == (64, 64, 3)
    links = [path.stat().st_nlink for path in (tmp_path / "link" / "images").rglob("*.png")]
    assert set(links) == {2}


def test_options_of_a_model_are_refused_without_an_endpoint(tmp_path, capsys):
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "a.png")
    write_records(tmp_path, [Record(image="a.png", label="road")])
    for name in ("caption", "negatives", "build"):
        command = [name, str(tmp_path), "-o", str(tmp_path / name), "--model", "m", "--max-cost", "1"]
        assert run_cli(cli, command) != 0
        told = capsys.readouterr().err
        assert "--endpoint" in told and "--model, --max-cost" in told and len(told.strip().splitlines()) == 1
        assert not (tmp_path / name / "records.jsonl").exists()
    assert run_cli(cli, ["caption", str(tmp_path), "-o", str(tmp_path / "rules")]) == 0
    assert json.loads((tmp_path / "rules" / "report.json").read_text())["written"] == len(RsfgDataset([tmp_path]))
