"""The ablation on material made up on the spot, and its report on numbers worked by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional
from torchvision.ops import roi_align

from geoalign_core.models.registry import WEIGHTS_DIR
from tiling.errors import CancelledError
from tiling.progress import CancelToken
from training.builder.colours import tint_of
from training.data.errors import DataError
from training.embedded.ablation import (
    VARIANTS,
    AblationModel,
    AblationRecipe,
    ragged,
    stage_one,
    step_loss,
    train_stage,
)
from training.embedded.ablation import _Draws as Draws
from training.embedded.ablation_command import ablation as command
from training.embedded.ablation_command import write_report
from training.embedded.ablation_data import (
    Crops,
    Dense,
    Images,
    Material,
    Prompts,
    Regions,
    load_material,
    offsets,
    save_material,
    thin,
)  # fmt: skip
from training.embedded.ablation_figures import FIGURES, measure, region_figures
from training.embedded.ablation_regions import (
    CATEGORIES,
    DISTRACTORS,
    RULES,
    Box,
    colours,
    compose,
    negatives,
    place,
    position_word,
    roi_weights,
)  # fmt: skip
from training.embedded.ablation_report import (
    BEGIN,
    END,
    ReportError,
    Spread,
    check_page,
    difference,
    render,
    summary,
    verdict,
)  # fmt: skip
from training.embedded.ablation_run import Ablation, run_all
from training.embedded.package import PACKAGE, load_config

WIDTH, TEXT_WIDTH = 12, 10
RECIPE = AblationRecipe(stage1_epochs=3, stage2_epochs=3, batch=16, regions=12, patches=4, adapter=6)


@pytest.fixture(scope="module")
def config():
    """geoalign-s, much narrower."""
    real = load_config(PACKAGE)
    return replace(
        real, embed_dim=8, vision_cfg=real.vision_cfg | {"width": WIDTH},
        text_cfg=real.text_cfg | {"width": TEXT_WIDTH, "head_hidden": 12},
    )  # fmt: skip


def _unit(rng, *shape):
    return functional.normalize(torch.from_numpy(rng.normal(size=shape)).float(), dim=-1)


def make_material(seed=0, images=48, regions=30):
    """Images and texts that share a hidden class, and regions of three kinds; small enough for a blink."""
    rng = np.random.default_rng(seed)
    kinds, sentences = _unit(rng, 4, WIDTH), _unit(rng, 60, TEXT_WIDTH)

    def some_images(count):
        scene = torch.arange(count) % 4
        window = functional.normalize(kinds[scene] + 0.3 * _unit(rng, count, WIDTH), dim=-1)
        patches = functional.normalize(kinds[scene][:, None] + 0.5 * _unit(rng, count, 4, WIDTH), dim=-1)
        brief = torch.stack([scene * 3, scene * 3 + 1], dim=1).flatten()
        return Images(window.half(), patches.half(), brief, offsets([2] * count), 20 + scene, scene)

    def some_regions(cropped):
        category = torch.arange(regions) % 3
        sizes = [1 + index % 3 for index in range(regions)]
        cells = sum(sizes)
        asked = [index % 4 for index in range(regions)]  # also regions without a negative
        return Regions(
            _unit(rng, cells, WIDTH).half(), torch.cat([torch.full((size,), 1 / size) for size in sizes]),
            offsets(sizes), _unit(rng, regions, WIDTH).half(), category,
            torch.arange(regions) if cropped else torch.full((regions,), -1), 30 + category,
            torch.arange(sum(asked)) % 20 + 40, offsets(asked), torch.arange(sum(asked)) % 3,
        )  # fmt: skip

    def dense():
        label = torch.zeros(24, dtype=torch.int8)
        label[::5] = 1
        return Dense(_unit(rng, 24, WIDTH).half(), _unit(rng, 3, WIDTH).half(), torch.arange(3).repeat_interleave(8),
                     label, torch.tensor([0, 0, 1]))  # fmt: skip

    return Material(
        sentences, some_images(images), some_images(12), some_regions(True), some_regions(False),
        Crops(_unit(rng, regions, WIDTH).half(), _unit(rng, regions, 4, WIDTH).half()), dense(), dense(),
        Prompts(_unit(rng, 4, 2, TEXT_WIDTH), _unit(rng, len(CATEGORIES) + len(DISTRACTORS), 2, TEXT_WIDTH),
                _unit(rng, 3, TEXT_WIDTH)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def material():
    """Material that nobody changes."""
    return make_material()


@pytest.fixture(scope="module")
def finished(config, material, tmp_path_factory):
    """All variants with two seeds."""
    folder = tmp_path_factory.mktemp("ablation")
    save_material(material, folder / "material.safetensors")
    job = Ablation(config, RECIPE, folder / "material.safetensors", folder / "out")
    return job, run_all(job, (0, 1))


def test_every_variant_runs_with_its_losses_and_every_figure(finished):
    _, results = finished
    assert [(item["variant"], item["seed"]) for item in results] == [
        (name, seed) for name in VARIANTS for seed in (0, 1)
    ]
    keys = {item.key for item in FIGURES}
    for item in results:
        assert set(item["figures"]) == keys
        assert all(math.isfinite(value) for value in item["figures"].values())
        expected = set(VARIANTS[item["variant"]]) | (
            {"image_text"} if "textual" not in VARIANTS[item["variant"]] else set()
        )
        assert set(item["losses"]) == expected | {"loss"}


def test_the_variants_differ_and_losses_fall(finished, config, material):
    _, results = finished
    by_name = {item["variant"]: item for item in results if item["seed"] == 0}
    assert len({json.dumps(item["figures"], sort_keys=True) for item in by_name.values()}) == len(VARIANTS)
    longer = replace(RECIPE, stage1_epochs=20)
    start = AblationModel(config, RECIPE.adapter)
    first = step_loss(start, material, torch.arange(16), longer, (), Draws.of(0, 1))["loss"].item()
    trained = stage_one(config, material, longer, 0)
    assert step_loss(trained, material, torch.arange(16), longer, (), Draws.of(0, 1))["loss"].item() < 0.8 * first


def test_what_is_there_is_not_made_again(finished, monkeypatch):
    job, results = finished
    gone = job.run_path("+RPA", 1)
    stamps = {path: path.stat().st_mtime_ns for path in job.folder.rglob("*.json") if path != gone}
    gone.write_text("{", encoding="utf-8")  # a damaged file counts as missing
    reports = []
    again = run_all(job, (0, 1), progress=lambda done, total, stage: reports.append((done, total, stage)))
    assert [total for _, total, stage in reports if stage.startswith("runs")] == [1]
    assert not any(stage.startswith("starts") for *_, stage in reports)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert [item["figures"] for item in again] == [item["figures"] for item in results]  # same seed, same numbers


def test_another_recipe_is_another_result(finished):
    job, _ = finished
    assert job.result("none", 0) is not None
    assert replace(job, recipe=replace(RECIPE, noise=0.1)).result("none", 0) is None


def test_processes_give_the_same_numbers(finished, tmp_path):
    job, results = finished
    apart = replace(job, folder=tmp_path)
    found = run_all(apart, (0,), variants=("none", "all"), jobs=2)
    expected = [item["figures"] for item in results if item["seed"] == 0 and item["variant"] in ("none", "all")]
    assert [item["figures"] for item in found] == expected


def test_cancelled_between_steps(config, material):
    cancel = CancelToken()
    steps = []

    def progress(done, total, stage):
        steps.append(done)
        cancel.cancel()

    with pytest.raises(CancelledError):
        train_stage(AblationModel(config, 4), material, RECIPE, (), stage=1, seed=0, progress=progress, cancel=cancel)
    assert steps == [1]


def test_variants_see_the_same_images(config, material):
    model = AblationModel(config, 4)
    rows = torch.arange(16)
    losses = [
        step_loss(model, material, rows, RECIPE, VARIANTS[name], Draws.of(5, 2))["image_text"].item()
        for name in ("none", "+RPA", "+RPA+VIC+HNA")
    ]
    assert len(set(losses)) == 1


def test_the_weighted_sum(config, material):
    parts = step_loss(AblationModel(config, 4), material, torch.arange(16), RECIPE, VARIANTS["all"], Draws.of(5, 2))
    total = parts["textual"] + 0.1 * parts["region"] + 0.5 * parts["hard_negative"] + 0.5 * parts["consistency"]
    assert parts["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_an_untrained_adapter_changes_nothing(config):
    model = AblationModel(config, 4)
    patches = _unit(np.random.default_rng(0), 5, WIDTH)
    assert torch.allclose(model.adapt(patches), patches, atol=1e-6)


def test_a_region_is_the_roi_align_of_the_joint_map(config):
    rng = np.random.default_rng(3)
    model, grid, window = AblationModel(config, 4), _unit(rng, 16, WIDTH), _unit(rng, 1, WIDTH)
    torch.nn.init.normal_(model.outer.weight)
    box = [10.0, 3.0, 41.0, 30.0]
    weights = roi_weights([box], 4, 4, 14)[0]
    used = weights.nonzero()[:, 0]
    regions = Regions(
        grid[used], weights[used], offsets([len(used)]), window, torch.zeros(1).long(), torch.zeros(1).long(),
        torch.zeros(1).long(), torch.zeros(0).long(), offsets([0]), torch.zeros(0).long(),
    )  # fmt: skip
    found = model.region_vectors(model.regions(regions, torch.tensor([0])))
    head = model.head
    joint = functional.linear(model.adapt(grid), head.image.weight[:, WIDTH:], head.image.bias)
    joint = joint + functional.linear(window, head.image.weight[:, :WIDTH]) * head.window_weight
    pooled = roi_align(joint.T.reshape(1, -1, 4, 4), [torch.tensor([box]) / 14], (1, 1), aligned=True).reshape(1, -1)
    assert torch.allclose(found, functional.normalize(pooled, dim=-1), atol=1e-5)
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_ragged_parts():
    places, of = ragged(offsets([2, 0, 3]), torch.tensor([2, 1, 0, 2]))
    assert places.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert of.tolist() == [0, 0, 0, 2, 2, 3, 3, 3]


def test_ties_are_misses(config, material):
    regions = material.held_out_regions
    same = replace(regions, negative=regions.text.repeat_interleave(regions.negative_start.diff()))
    figures = region_figures(AblationModel(config, 4), replace(material, held_out_regions=same))
    assert figures["hard_negative_acc1"] == 0


def test_measuring_is_read_only_and_repeatable(config, material):
    model = AblationModel(config, 4).eval()
    assert measure(model, material, 20.0) == measure(model, material, 20.0)


def test_material_survives_its_file(material, tmp_path):
    save_material(material, tmp_path / "m.safetensors")
    again = load_material(tmp_path / "m.safetensors")
    assert torch.equal(again.regions.patches, material.regions.patches)
    assert torch.equal(again.prompts.contrast, material.prompts.contrast)


def test_thinning_keeps_one_patch_of_every_four():
    side = 4
    cells = torch.arange(side * side).reshape(1, -1, 1).expand(3, -1, 2)
    kept = thin(cells)
    assert kept.shape == (3, 4, 2)
    quarter = (cells[0, :, 0] // side // 2) * 2 + cells[0, :, 0] % side // 2
    assert all(sorted(quarter[row[:, 0]].tolist()) == [0, 1, 2, 3] for row in kept)


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [(0.1, 0.1, "upper left"), (0.5, 0.9, "lower"), (0.75, 0.5, "right"), (0.55, 0.45, "centre"), (0.41, 0.2, "upper")],
)
def test_positions(x, y, word):
    assert position_word(x, y) == word


def test_negatives_change_one_part_and_never_repeat_the_phrase():
    phrase = compose("small", "white", "airplane", "upper left")
    assert phrase == "a small white airplane in the upper left"
    found = negatives(Box("k", (0, 0, 10, 10), 0, "small", "white", ("black", "red")), "upper left")
    texts = [text for text, _ in found]
    assert phrase not in texts
    assert len(set(texts)) == len(texts)
    assert {rule for _, rule in found} == set(RULES)
    assert ("a large white airplane in the upper left", "attribute") in found
    assert {"lower right", "lower left", "upper right"} == {
        text.partition(" in the ")[2] for text, rule in found if rule == "orientation"
    }
    assert all(rule == "category" for _, rule in negatives(Box("k", (0, 0, 10, 10), 1, "", "", ()), "centre"))
    assert compose("", "", "airplane", "left").startswith("an ")


def test_a_box_that_is_mostly_cut_off_is_left_out():
    box = Box("k", (0, 0, 10, 10), 0, "", "white", ())
    assert place(box, np.array([-5.0, 0, 5, 10]), 224) is None
    kept = place(box, np.array([-2.0, 0, 8, 10]), 224)
    assert kept is not None
    assert kept.xyxy_px == (0, 0, 8, 10)
    assert kept.phrase == "a white airplane in the upper left"


@pytest.mark.parametrize(
    ("rgb", "word"),
    [((250, 250, 245), "white"), ((200, 30, 40), "red"), ((40, 90, 220), "blue"), ((30, 140, 40), "green"),
     ((220, 200, 30), "yellow"), ((150, 130, 125), "")],
)  # fmt: skip
def test_a_box_has_the_colour_that_differs_from_its_ground(rgb, word):
    image = np.full((120, 120, 3), 110, np.uint8)
    image[40:80, 40:80] = rgb
    colour, contrasts = colours(image, (40, 40, 80, 80), tint_of(image))
    assert colour == word
    assert bool(contrasts) == bool(word)
    assert word not in contrasts


def test_no_negative_names_a_colour_that_the_box_holds():
    image = np.full((120, 120, 3), 110, np.uint8)
    image[40:80, 40:80] = (250, 250, 245)
    assert "red" in colours(image, (40, 40, 80, 80), tint_of(image))[1]
    image[40:48, 40:80] = (200, 30, 40)  # a fifth of the box
    colour, contrasts = colours(image, (40, 40, 80, 80), tint_of(image))
    assert colour == "white"
    assert "red" not in contrasts


def _results(table):
    figures = {item.key: 0.0 for item in FIGURES}
    return [
        {"variant": name, "seed": seed, "figures": figures | {"image_to_text_r1": value}}
        for name, values in table.items()
        for seed, value in enumerate(values)
    ]


def test_spreads_by_hand():
    results = _results({"none": (10.0, 12.0, 14.0), "+RPA": (13.0, 14.0, 18.0)})
    found = difference(results, "image_to_text_r1", "+RPA", "none")
    # 3, 2, 4: mean 3, deviation 1, half of the interval t(0.975; 2) / √3 = 4.3027 / 1.7321
    assert (found.mean, found.deviation, found.count) == (3.0, 1.0, 3)
    assert found.half_width == pytest.approx(2.4842, abs=1e-3)
    assert not found.within_noise
    assert Spread.of([1.0, 2.0, 0.0]).within_noise
    assert Spread.of([5.0]).within_noise
    assert difference(results, "image_to_text_r1", "all", "none") is None


def test_pairs_are_taken_by_seed_whatever_their_order():
    results = _results({"none": (10.0, 20.0), "+RPA": (11.0, 21.0)})
    assert difference(results[::-1], "image_to_text_r1", "+RPA", "none") == Spread(1.0, 0.0, 2)


def test_tables():
    text = render(_results({"none": (10.0, 12.0, 14.0), "+RPA": (13.0, 14.0, 18.0)}))
    assert "| R@1 | 12.0 ± 2.0 | 15.0 ± 2.6 |" in text
    assert "| image → text (%): R@1 | **+3.0 ± 1.0** |" in text
    assert "| +RPA − none | UCM image → text R@1 | +3.33 | +3.0 ± 1.0 | agrees |" in text
    assert "| +RPA − none | SIRI-WHU Acc@1 | +7.29 | +0.0 ± 0.0 | within our noise |" in text


def test_verdicts():
    up = Spread(1.0, 0.1, 3)
    assert verdict(-1.9, up) == "**disagrees**"
    assert verdict(0.0, up) == "paper: no change"
    assert verdict(2.0, Spread(1.0, 5.0, 3)) == "within our noise"


def test_report_files_and_page(finished, tmp_path):
    _, results = finished
    page = tmp_path / "docs" / "ablation.md"
    page.parent.mkdir()
    page.write_text(f"before\n{BEGIN}\nstale text\n{END}\nafter\n", encoding="utf-8")
    path = write_report(results, tmp_path / "out", page)
    text = page.read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").strip() in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "stale text" not in text
    assert (page.parent / "images" / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    stored = json.loads((tmp_path / "out" / "ablation.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(summary(results)))
    assert len(stored["runs"]) == 12


def test_a_page_without_marks_is_refused(tmp_path):
    with pytest.raises(ReportError, match="add the lines"):
        check_page(tmp_path / "missing.md")


def test_command_refuses_an_unknown_variant_and_missing_data(tmp_path):
    runner = CliRunner()
    wrong = runner.invoke(command, ["--data", str(tmp_path), "--variant", "+XYZ"])
    assert wrong.exit_code == 2
    assert "+RPA+VIC" in wrong.output
    missing = runner.invoke(command, ["--data", str(tmp_path), "-o", str(tmp_path / "out")])
    assert isinstance(missing.exception, DataError)
    assert not (tmp_path / "out").exists()


def test_windows_hold_the_boxes_that_the_labels_show(data_dir):
    from training.embedded.ablation_windows import held_out_windows, read_objects

    assert WEIGHTS_DIR.exists()
    objects = read_objects(data_dir, lambda *_: None)
    windows = held_out_windows(data_dir, objects, 224)
    for part in windows.values():
        for regions, label in zip(part.regions, part.dense.labels, strict=True):
            for item in regions:
                x, y = (item.xyxy_px[0] + item.xyxy_px[2]) / 28, (item.xyxy_px[1] + item.xyxy_px[3]) / 28
                assert label[min(int(y), len(label) - 1), min(int(x), len(label) - 1)] != 0
    counts = {name: sum(map(len, part.regions)) for name, part in windows.items()}
    assert counts["vehicles 0.2 m"] == 225
