"""The model card's figures are those of the packaged files; figures and command line behave."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from geoalign_core.models.registry import WEIGHTS_DIR
from training.cli import main
from training.embedded.card import BEGIN, END, CardError, read_card, render_figures, update_card
from training.embedded.figures import dense_figures, retrieval, top1, yes_no

CARD = "docs/model-card-geoalign-s.md"


def unit(rng, *shape):
    values = rng.standard_normal(shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def test_retrieval_counts_by_hand():
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[0.9, 0.1, 0], [0.5, 0.6, 0], [0, 0, 1], [0.8, 0, 0.1]], np.float32)
    found = retrieval(images, texts, [(1,), (1, 0), (2,)])
    assert found.image_to_text[0] == pytest.approx(100 * 2 / 3)
    assert found.text_to_image[0] == pytest.approx(100 * 2 / 4)
    assert found.image_to_text[1] == found.text_to_image[1] == 100.0


def test_figures_of_a_perfect_and_a_useless_score():
    rng = np.random.default_rng(0)
    labels = (rng.random((4, 8, 8)) < 0.2).astype(np.int8)
    perfect = dense_figures([np.where(label == 1, 3.0, -3.0) for label in labels], list(labels), list("aabb"))
    assert perfect.average_precision == perfect.roc_auc == perfect.f1_at_half == 1.0
    assert (perfect.pointing_hits, perfect.pointing_scenes) == (2, 2)
    rims = dense_figures([np.array([[3.0, 2.0, -3.0]])], [np.array([[-1, 1, 0]], np.int8)], ["a"])
    assert (rims.average_precision, rims.average_precision_without_rims) == (0.5, 1.0)
    useless = dense_figures([rng.standard_normal((8, 8)) for _ in labels], list(labels), list("abcd"))
    assert useless.average_precision < 0.5
    assert useless.base_rate == pytest.approx(labels.mean())
    answers = yes_no(np.array([2.0, 1.0, -1.0, 0.5], np.float32), np.array([True, True, False, False]))
    assert answers.f1_at_half == pytest.approx(0.8)
    assert answers.f1_best == 1.0
    assert top1(np.eye(3, dtype="f"), np.eye(3, dtype="f"), np.array([0, 1, 1])) == pytest.approx(200 / 3)


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
def test_the_card_s_figures_come_out_again(data_dir, tmp_path, request):
    from tiling.progress import silent
    from training.embedded.evaluate import dense_set_figures, held_out_sets
    from training.embedded.package import PACKAGE, load_model

    figures, encoder = read_card(request.config.rootpath / CARD), load_model(PACKAGE)
    sets = held_out_sets(data_dir, encoder.config.dense.window_px)
    for name in ("pools 56 px", "vehicles 0.3 m"):
        kind, dense = sets[name]
        for word, item in dense_set_figures(encoder, kind, dense, tmp_path, silent).items():
            assert item["average_precision"] == pytest.approx(figures[name][word]["average_precision"], abs=0.003)
            assert item["f1_at_half"] == pytest.approx(figures[name][word]["f1_at_half"], abs=0.01)


def test_help_and_errors_on_the_command_line(tmp_path):
    runner = CliRunner()
    for command in ("align", "evaluate", "towers", "card"):
        result = runner.invoke(main, [command, "--help"])
        assert result.exit_code == 0
    result = runner.invoke(
        main, ["align", "--data", str(tmp_path), "--work", str(tmp_path), "--out", str(tmp_path / "m")]
    )
    assert result.exit_code == 1
    assert "captions.jsonl" in result.output
    result = runner.invoke(main, ["towers", "--wheels", str(tmp_path), "--out", str(tmp_path / "m")])
    assert result.exit_code == 1
    assert "pip download --no-deps" in result.output


def test_help_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys\nfrom training.cli import main\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
