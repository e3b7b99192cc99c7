"""What a batch has nothing for is no 0: not in a step's report, not over the ranks, not in the table nor its curves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import isnan

import pytest
import torch
from click.testing import CliRunner

from tests.recipe_tools import SMALL, rsfg, tiny_model
from tests.student_tools import EVERY, recipe, scenes, tiny_file
from tests.train_tools import launch
from training.cli import main
from training.loop.engine import mean_report
from training.loop.loader import Loader
from training.loop.plots import draw_curves, read_metrics, with_gaps
from training.loop.ranks import join, leave
from training.losses.gather import LOCAL, Gather
from training.model.start import start

REGIONAL = {"region", "hard_negative", "consistency", "distil", "category", "collapse", "accuracy_region"}
CONTRAST = {"region", "category", "collapse", "accuracy_region"}
"""What one region says nothing about, for it has no other beside it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Give a student with every loss on, another that takes equal texts for positives, and a batch of 4 × 2 regions."""
    init = f"random:{tiny_file(tmp_path_factory.mktemp('unmeasured'))}"
    given = {"data": {"crops": "regions"}, "model": {"tables": "77+248", "long_projection": True}}
    masking, config = start(recipe(init, loss=EVERY, **given), seed=1)
    shared, _ = start(recipe(init, loss=EVERY | {"duplicates": "positive"}, **given), seed=1)
    return masking, shared, next(Loader(scenes(), recipe(init, loss=EVERY, **given), config).batches())


def regions(batch, kept):
    """The batch with some of its regions alone; the negatives that stay belong to the first of them."""
    of = batch.negative_of == kept[0] if kept else torch.zeros_like(batch.negative_of, dtype=torch.bool)
    parts = {name: getattr(batch, name)[kept] for name in ("crops", "boxes", "image_of", "region", "region_id")}
    parts |= {"category": batch.category[kept], "negatives": batch.negatives[of]}
    return replace(batch, **parts, negative_of=torch.zeros(int(of.sum()), dtype=torch.int64))


def unmeasured(student, batch):
    found = student(batch)
    assert torch.isfinite(found["loss"])
    return {name for name, value in found.items() if torch.isnan(value)}


def test_a_batch_leaves_out_what_it_has_nothing_for(world):
    masking, shared, batch = world
    assert unmeasured(masking, batch) == set()
    assert unmeasured(masking, regions(batch, [])) == REGIONAL
    assert unmeasured(masking, regions(batch, [2])) == CONTRAST
    two = regions(batch, [0, 3])
    assert unmeasured(masking, two) == set()
    assert unmeasured(masking, replace(two, negatives=two.negatives[:0], negative_of=two.negative_of[:0])) == {
        "hard_negative"
    }
    alike = replace(two, region_id=torch.tensor([5, 5]))
    assert unmeasured(masking, alike) == {"region", "accuracy_region"}  # a masked twin is no rival
    assert unmeasured(shared, alike) == {"accuracy_region"}
    assert unmeasured(masking, replace(two, category=torch.tensor([3, -1]))) == {"category"}
    one = replace(batch, brief_id=torch.zeros(4, dtype=torch.int64))
    assert unmeasured(masking, one) == {"image_text", "textual", "accuracy_i2t"}


def test_numbers_differ():
    for ids, answer in (([], False), ([7], False), ([7, 7], False), ([7, -1], False), ([0, 2**62], True)):
        assert bool(LOCAL.differ(torch.tensor(ids, dtype=torch.int64))) is answer, ids


def on_a_rank(rank, folder):
    ranks, gather = join(device="cpu"), Gather.distributed()
    nan = torch.tensor(float("nan"))
    alone, same, apart = torch.tensor([4][rank:], dtype=torch.int64), torch.tensor([9]), torch.tensor([rank])
    parts = {"loss": torch.tensor(1.0), "both": torch.tensor(rank + 1.0), "one": (torch.tensor(3.0), nan)[rank]}
    found = mean_report(parts | {"none": nan}, 2.0, ranks)
    spoilt = mean_report(parts | {"loss": (nan, torch.tensor(1.0))[rank]}, 2.0, ranks)["loss"]
    found |= {"spoilt": spoilt, "differ": [bool(gather.differ(ids)) for ids in (alone, same, apart)]}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    leave()


def test_ranks_average_what_they_measured_and_a_loss_that_is_not_finite_shows_on_all(tmp_path):
    launch(2, on_a_rank, tmp_path)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (found["loss"], found["grad_norm"], found["both"], found["one"]) == (1.0, 2.0, 1.5, 3.0)
        assert isnan(found["none"])
        assert isnan(found["spoilt"])
        assert found["differ"] == [False, False, True]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The folder of a run of 16 steps, of which two see regions: one record of 32 has two, and there are two epochs."""
    folder = tmp_path_factory.mktemp("run")
    tiny_model(folder / "tiny")
    path = rsfg(folder / "data", 32) / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line if number == 3 else {**line, "regions": []} for number, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    small = [item for pair in SMALL for item in ("-s", pair)]
    asked = ["run", "geoalign-stage2-b16", "-o", folder / "run", "--data", folder / "data", "--init", folder / "tiny",
             *small, "-s", "run.log_every=1", "-s", "optim.epochs=2"]  # fmt: skip
    told = CliRunner().invoke(main, list(map(str, asked)))
    assert told.exit_code == 0, told.output
    return folder / "run"


def test_a_step_that_measured_nothing_is_an_empty_cell_and_a_gap(table, tmp_path):
    with (table / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 16
    for name in REGIONAL & {"region", "hard_negative", "consistency", "collapse", "accuracy_region"}:
        cells = [row[name] for row in rows]
        assert sum(map(bool, cells)) == 2, name  # the record with regions is seen once an epoch
        assert all(float(cell) for cell in cells if cell) or name == "accuracy_region"
    series = read_metrics(table / "metrics.csv", by="samples")
    places, values = with_gaps(series, "region")
    assert places == series["loss"][0]
    assert [isnan(value) for value in values] == [not row["region"] for row in rows]
    assert with_gaps(series, "loss") == series["loss"]
    draw_curves(table / "metrics.csv", tmp_path / "curves.png")


def test_the_card_has_the_last_that_was_measured(table, tmp_path):
    told = CliRunner().invoke(main, ["export", str(table), "-o", str(tmp_path / "again")])
    assert told.exit_code == 0, told.output
    last = {name: values[-1] for name, (_, values) in read_metrics(table / "metrics.csv").items()}
    for card in (table / "model" / "README.md", tmp_path / "again" / "README.md"):
        assert f"| region | {last['region']:.4f} |" in card.read_text("utf-8")


def test_a_validation_between_two_rows_is_no_gap():
    series = {"loss": ([4, 8], [2.0, 1.0]), "region": ([8], [0.5]), "validation/region_top1": ([6], [50.0])}
    places, values = with_gaps(series, "region")
    assert (places, isnan(values[0]), values[1]) == ([4, 8], True, 0.5)
    assert with_gaps(series, "validation/region_top1") == ([6], [50.0])
