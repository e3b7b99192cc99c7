"""Runs from the command line: from data to a model that loads, killed and resumed, on two ranks, and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from geoalign_core.models import load_encoder
from geoalign_core.models.clip import ClipModel
from geoalign_core.models.convert import import_checkpoint
from tests.recipe_tools import SMALL, rsfg, tiny_model
from training.cli import main
from training.loop.plots import read_metrics
from training.recipe_file import load_recipe

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny_model(folder / "tiny")
    rsfg(folder / "data")
    rsfg(folder / "held", 6, seed=1)
    return folder


def asked(place, out, *more, recipe="geoalign-stage2-b16"):
    small = [item for pair in SMALL for item in ("-s", pair)]
    return [
        "run", recipe, "-o", str(out), "--data", str(place / "data"), "--init", str(place / "tiny"), *small,
        "-s", "optim.rate=1e-3", *map(str, more),
    ]  # fmt: skip


def call(*args):
    return CliRunner().invoke(main, list(map(str, args)))


def process(place, *command):
    """Start a process of the command line; its threads leave the other core alone."""
    threads = str(torch.get_num_threads())  # another number of threads adds in another order
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(REPO), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(place):
    """A run of 8 steps."""
    told = call(*asked(place, place / "run", "--validation", place / "held", "--steps", 8))
    assert told.exit_code == 0, told.output
    return place / "run", told


def test_a_run_ends_in_a_model_that_loads(finished, place, tmp_path):
    run, told = finished
    assert told.stdout.strip() == str(run / "model")
    assert f"--model {run / 'model'}" in told.stderr
    encoder = load_encoder(str(run / "model"), device="cpu")
    assert encoder.config.family == "geoalignclip"
    assert encoder.config.name == "run"
    importable(run / "model", tmp_path / "store")
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "`geoalign ask RASTER TEXT --model FOLDER`" in card
    assert "step 4  validating" in told.stderr
    before, after = (load_file(place / part / "model.safetensors") for part in ("tiny", "run/model"))
    assert not (before["visual.proj"] == after["visual.proj"]).all()
    series = read_metrics(run / "metrics.csv")
    assert series["loss"][0] == [2, 4, 6, 8]
    assert series["loss"][1][-1] < series["loss"][1][0]
    assert series["validation/region_top1"][0] == [4, 8]
    assert (run / "curves.png").is_file()
    assert load_recipe(run / "recipe.yaml").optim.steps == 8


def test_what_is_exported_is_the_last_checkpoint(finished, tmp_path):
    run, _ = finished
    told = call("export", run, "-o", tmp_path / "own")
    assert told.exit_code == 0, told.output
    one, two = (load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "own"))
    assert one.keys() == two.keys()
    assert all((one[key] == two[key]).all() for key in one)
    card = (tmp_path / "own" / "README.md").read_text(encoding="utf-8")
    assert "| steps | 8 |" in card
    assert "region_top1" in card


@pytest.mark.parametrize("recipe", ["farslip-stage1", "dgtrs-b16"])
def test_the_other_systems_run_too(place, tmp_path, recipe):
    told = call(*asked(place, tmp_path / "run", "--steps", 2, recipe=recipe))
    assert told.exit_code == 0, told.output
    load_encoder(str(tmp_path / "run" / "model"), device="cpu")


def test_a_folder_that_is_not_empty_is_refused(finished, place, tmp_path):
    told = call(*asked(place, finished[0], "--steps", 8))
    assert told.exit_code == 1
    assert "is not empty" in told.stderr
    assert "--resume" in told.stderr
    (tmp_path / "letter.txt").write_text("dear")
    told = call(*asked(place, tmp_path, "--resume"))
    assert "holds no run to go on with" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "geoalign-stage2-b16", "-o", "x", "--data", "y"], "give that run's folder with --init"),
        (["run", "geoalign-stage1-b16", "-o", "x"], "give data sets with --data"),
        (["run", "geoalign-stage1-b16", "--data", "y"], "give it with -o FOLDER"),
        (["run", "geoalign-stage9-b16"], "no recipe is called 'geoalign-stage9-b16'"),
        (["run", "geoalign-stage1-b16", "-s", "optim.rat=1"], "optim.rat is unknown"),
        (["run", "geoalign-stage1-b16", "-o", "x", "--data", "nowhere"], "nowhere"),
        (["export", "nowhere"], "holds no checkpoint"),
    ],
)
def test_what_is_missing_is_one_line(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code in (1, 2)
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_records_is_told_before_the_model_is_made(tmp_path):
    (tmp_path / "none.jsonl").touch()
    result = call("run", "geoalign-stage1-b16", "-o", tmp_path / "x", "--data", tmp_path / "none.jsonl")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there are no records to train on; give a data set")
    assert result.stderr.count("\n") == 1


def test_print_config_is_the_recipe_and_dry_run_draws_the_first_batch(place, tmp_path):
    told = call(*asked(place, tmp_path / "out", "--print-config"))
    path = tmp_path / "printed.yaml"
    path.write_text(told.stdout)
    assert load_recipe(path).optim.rate == 1e-3
    assert "set on the command line" in told.stdout
    assert not (tmp_path / "out").exists()
    told = call(*asked(place, tmp_path / "out", "--dry-run"))
    assert told.exit_code == 0, told.output
    assert "24 records, 6 steps an epoch, 30 in all" in told.stderr
    assert "4 images, 8 regions, 8 crops, 24 hard negatives, 4 detailed captions" in told.stderr
    assert Image.open(tmp_path / "out" / "first-batch.png").width > 300


def test_recipes_are_listed():
    assert "geoalign-stage2-l14-336" in call("recipes").stdout


def test_a_killed_run_goes_on_to_the_same_end(finished, place, tmp_path):
    """SIGKILL after the first checkpoint; the resumed run ends where the undisturbed one did."""
    run = tmp_path / "run"
    own = asked(place, run, "--validation", place / "held", "--steps", 8)
    with process(place, "-m", "training.cli", *own) as first:
        deadline = time.monotonic() + 300
        while not (run / "checkpoints" / "latest").is_file() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    assert (run / "checkpoints" / "latest").is_file()
    told = call(*own, "--resume")
    assert told.exit_code == 0, told.output
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (run, finished[0]))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-6
    assert read_metrics(run / "metrics.csv")["loss"][0] == [2, 4, 6, 8]


def test_two_ranks_of_deepspeed_under_torchrun_give_a_model_of_the_masters(place, tmp_path):
    run = tmp_path / "run"
    own = asked(
        place, run, "--steps", 2, "-s", "optim.batch=2", "-s", "run.engine=deepspeed", "-s", "optim.precision=bf16"
    )
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "training.cli"]
    with process(place, *launcher, *own) as started:
        out, err = started.communicate(timeout=400)
    assert started.returncode == 0, err
    assert out.strip() == str(run / "model")
    assert err.count("2 steps of 2 × 2 images") == 1
    record = json.loads((run / "model" / "provenance.json").read_text())
    assert record["training"]["images"] == 8
    importable(run / "model", tmp_path / "store")
    masters = load_file(run / "checkpoints" / "step-00000002" / "weights.safetensors")
    model = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(masters[f"clip.{key}"], value) for key, value in model.items())
    assert not torch.equal(model["visual.proj"], model["visual.proj"].bfloat16().float())
    block = "visual.transformer.resblocks.0.attn.in_proj_weight"
    assert not torch.equal(model[block], model[block].bfloat16().float())


def importable(model, store):
    """A run's weights file holds what a CLIP of its configuration has, each once, and can be imported alone."""
    weights = load_file(model / "model.safetensors")
    config = load_encoder(str(model), device="cpu").config
    assert weights.keys() == ClipModel(config).state_dict().keys()
    report = import_checkpoint(model / "model.safetensors", family=config.family, name="again", store=store)
    again = load_file(report.folder / "model.safetensors")
    assert all(torch.equal(again[key], value) for key, value in weights.items())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_resuming_a_finished_run_changes_nothing(finished, place):
    run, _ = finished
    before = contents(run)
    told = call(*asked(place, run, "--validation", place / "held", "--steps", 8, "--resume"))
    assert told.exit_code == 0, told.output
    assert "already finished, with 8 steps" in told.stderr
    assert contents(run) == before


def test_a_refused_resume_changes_nothing(finished, place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    before = contents(run)
    told = call(*asked(place, run, "--steps", 8, "--resume", "-s", "optim.rate=5", "-s", "optim.batch=12"))
    assert told.exit_code == 1
    assert "optim.rate is 0.001 there, 5.0 here" in told.stderr
    assert contents(run) == before
    with FileLock(run / ".lock"):
        told = call(*asked(place, run, "--steps", 8, "--resume"))
    assert told.stderr.count("another run is at work here") == 1
    for name, content in (
        ("run.json", "{}"),
        ("metrics.csv", "nothing"),
        ("checkpoints/step-00000008/state.json", "[]"),
    ):
        kept = (run / name).read_text()
        (run / name).write_text(content)
        told = call(*asked(place, run, "--steps", 8, "--resume"))
        assert told.exit_code in (1, 2), name
        assert told.stderr.strip().splitlines()[-1].startswith(f"error: {run / name}".removesuffix("/state.json")), name
        assert "Traceback" not in told.output
        (run / name).write_text(kept)


def test_a_run_goes_on_with_moved_data_another_batch_and_without_its_start_model(finished, place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    shutil.copytree(place / "data", tmp_path / "moved")
    shutil.rmtree(run / "model")
    own = asked(place, run, "--steps", 8, "--resume", "--init", "nowhere")
    again = [str(tmp_path / "moved") if item == str(place / "data") else item for item in own]
    told = call(*again)
    assert told.exit_code == 0, told.output
    assert "| steps | 8 |" in (run / "model" / "README.md").read_text(encoding="utf-8")
    told = call(*again, "-s", "optim.batch=2", "-s", "optim.steps=17")  # 8 steps of 4 images were 16 of 2
    assert told.exit_code == 1  # another length of the run is another schedule
    assert "optim.steps is 8 there, 17 here" in told.stderr


def test_deepspeed_works_in_one_process_that_nothing_launched(place, tmp_path, monkeypatch):
    for name in ("LOCAL_RANK", "DS_ACCELERATOR"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    told = call(*asked(place, tmp_path / "run", "--steps", 1, "--engine", "deepspeed", "-s", "run.engine=deepspeed"))
    assert told.exit_code == 0, told.output
    importable(tmp_path / "run" / "model", tmp_path / "store")
