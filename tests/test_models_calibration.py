"""The map from scores to precision: reading it, turning it round, shifting it, and asking with it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoalign_core.answer import Filter
from geoalign_core.errors import ModelError
from geoalign_core.grounding.heatmap import Heatmap
from geoalign_core.grounding.regions import find_regions
from geoalign_core.models.calibration import (
    PACKAGED,
    Calibration,
    find_calibration,
    place_of,
    read_calibration,
    require_calibration,
    write_calibration,
)
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.registry import load_encoder, locate
from tests.engine_tools import EngineProcess, square
from tiling.errors import UsageError

SHARES = st.floats(0, 1, allow_nan=False)


def a_map(**changes):
    values = {"model": "m", "key": "k", "prior": 0.1, "scores": (0.0, 0.5, 1.0), "precisions": (0.0, 0.2, 0.8)}
    return Calibration(**{**values, **changes})


@st.composite
def maps(draw):
    scores = sorted(draw(st.lists(st.floats(0.01, 0.99), unique=True, min_size=1, max_size=8)))
    precisions = sorted(draw(st.lists(SHARES, min_size=len(scores) + 2, max_size=len(scores) + 2)))
    prior = draw(st.floats(0.01, 0.99))
    return a_map(scores=(0.0, *scores, 1.0), precisions=tuple(precisions), prior=prior)


# The map ------------------------------------------------------------------------------------------------------------


def test_both_ways_by_hand():
    found = a_map()
    assert found.precision([0.0, 0.25, 0.5, 0.75, 1.0]).tolist() == pytest.approx([0, 0.1, 0.2, 0.5, 0.8])
    assert np.isnan(found.precision(np.array([np.nan, 0.5], np.float32))).tolist() == [True, False]
    assert [found.score_for(p) for p in (0, 0.1, 0.2, 0.5, 0.8)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    level = a_map(scores=(0.0, 0.4, 0.6, 1.0), precisions=(0.3, 0.3, 0.7, 0.7))
    assert level.score_for(0.2) == level.score_for(0.3) == 0 and level.score_for(0.7) == pytest.approx(0.6)
    with pytest.raises(UsageError, match=r"never so sure.*0\.9, at most 0\.8"):
        found.score_for(0.9)


@given(maps(), SHARES)
@settings(max_examples=60, deadline=None)
def test_the_score_for_a_precision_is_the_lowest(found, wanted):
    if wanted > found.most:
        with pytest.raises(UsageError, match="never so sure"):
            found.score_for(wanted)
        return
    score = found.score_for(wanted)
    assert 0 <= score <= 1 and found.precision(score) >= wanted - 1e-6
    below = np.linspace(0, score, 50)[:-1] if score else np.zeros(0)
    assert (found.precision(below) <= wanted + 1e-6).all()
    assert (np.diff(found.precision(np.linspace(0, 1, 200))) >= 0).all()


def test_another_prior_by_hand():
    """Odds of 1/4 at a prior of 1/10 are 9/4 at 1/2: the odds of the prior are nine times as high."""
    even = a_map().shifted(0.5)
    assert even.prior == 0.5 and even.precisions == pytest.approx([0, 9 / 13, 36 / 37])
    with pytest.raises(UsageError, match="share between 0 and 1"):
        a_map().shifted(1.0)


def test_another_prior_is_that_of_thinned_places():
    """Throwing away four of five wrong places makes the shares that the shift foretells."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, 200_000) / 2
    truth = rng.random(len(scores)) < np.array([0.02, 0.1, 0.5])[(2 * scores).astype(int)]
    kept = truth | (rng.random(len(scores)) < 0.2)
    share = [float(truth[scores == value].mean()) for value in (0, 0.5, 1)]
    found = a_map(precisions=tuple(share), prior=float(truth.mean())).shifted(float(truth[kept].mean()))
    counted = [float(truth[kept & (scores == value)].mean()) for value in (0, 0.5, 1)]
    assert found.precisions == pytest.approx(counted, abs=0.01) and counted[1] > 3 * share[1]


@given(maps(), st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_shift_never_turns_the_order_and_can_be_taken_back(found, prior):
    moved = found.shifted(prior)
    assert all(a <= b for a, b in zip(moved.precisions, moved.precisions[1:], strict=False))
    assert moved.shifted(found.prior).precisions == pytest.approx(found.precisions, abs=1e-6)


def test_written_and_read(tmp_path):
    found = a_map(data={"name": "Bäume", "counts": {"images": 3}}, figures={"ECE after": 0.01}, protocol="p")
    write_calibration(tmp_path / "new" / "c.json", found)
    assert read_calibration(tmp_path / "new" / "c.json") == found
    assert found.curve()["precisions"] == [0.0, 0.2, 0.8] and found.curve()["data"] == "Bäume"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"scores": [0, 0.5]}, {"scores": [0, 0.5, 0.5]}, {"precisions": [0, 0.5, 0.4]},
        {"precisions": [0, 0.5, 1.1]}, {"scores": [], "precisions": []}, {"scores": "abc"}, {"prior": 1}, {"key": 3},
        {"scores": [0, None, 1]}, {"more": 1}, {"data": []}, {"prior": float("nan")}, {"precisions": {"a": 1}},
    ],
)  # fmt: skip
def test_damaged_files_are_one_line(tmp_path, change):
    path = tmp_path / "c.json"
    write_calibration(path, a_map())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match="is not a calibration") as caught:
        read_calibration(path)
    assert "\n" not in str(caught.value) and "calibrate again" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "\x00\xff", " " * 2_000_000])
def test_other_files_are_one_line(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="is not a calibration"):
        read_calibration(path)
    with pytest.raises(ModelError, match="is not a calibration"):
        read_calibration(tmp_path)


# Whose it is ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tiny_model, tmp_path):
    """A model folder of one's own, its encoder, and a way to put a map into it."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    encoder = load_encoder(str(folder), device="cpu")

    def put(**changes):
        found = a_map(**{"model": encoder.config.name, "key": encoder.score_key, **changes})
        write_calibration(place_of(locate(str(folder))), found)
        return found

    return folder, encoder, put


def test_a_model_without_and_with_a_map(own):
    folder, encoder, put = own
    assert find_calibration(encoder, str(folder)) is None
    with pytest.raises(ModelError, match="has no calibration"):
        require_calibration(encoder, str(folder))
    found = put()
    assert find_calibration(encoder, str(folder)) == require_calibration(encoder, str(folder)) == found
    assert find_calibration(encoder, "nothing-of-that-name") is None


@pytest.mark.parametrize("change", [{"key": "0" * 64}, {"score": "relevance-2"}, {"key": ""}])
def test_the_map_of_another_model_is_refused(own, change):
    folder, encoder, put = own
    put(**change)
    assert find_calibration(encoder, str(folder)) is None
    with pytest.raises(ModelError, match="does not hold for"):
        require_calibration(encoder, str(folder))


def test_words_decide_and_arithmetic_does_not(own):
    folder, encoder, put = own
    put()
    low = load_encoder(str(folder), device="cpu", options=EncoderOptions(precision="bfloat16"))
    assert low.key != encoder.key and find_calibration(low, str(folder)) is not None
    other = load_encoder(str(folder), device="cpu", options=EncoderOptions(templates="skyscript"))
    assert other.config.prompts != encoder.config.prompts and find_calibration(other, str(folder)) is None


def test_the_packaged_map_is_that_of_the_packaged_model():
    path = PACKAGED / "geoalign-s.json"
    if not path.is_file():
        pytest.skip("the embedded model has no map yet")
    read_calibration(path).check(load_encoder("geoalign-s", device="cpu"))


# Asking with it -------------------------------------------------------------------------------------------------------


def test_a_regions_precision_is_the_mean_of_its_pixels():
    """Two regions, one cut by the border of a block."""
    values = np.zeros((8, 8), np.float32)
    values[0:2, 0:2] = 0.5
    values[3:5, 3:7] = 0.75
    values[3, 3] = 1.0
    values[7, 7] = np.nan
    heat = Heatmap(values, Affine.identity(), None, None)
    found = find_regions(heat, 0.4, precision=a_map().precision, block_px=4)
    assert [region.precision for region in found] == pytest.approx([(7 * 0.5 + 0.8) / 8, 0.2])
    assert [region.precision for region in find_regions(heat, 0.4)] == [None, None]


@pytest.fixture
def scene(make_raster):
    rng = np.random.default_rng(1)
    image = rng.integers(60, 120, (3, 120, 140), dtype=np.uint8)
    image[:, 40:90, 40:100] = np.array([20, 40, 60], np.uint8)[:, None, None]
    return make_raster(image, "scene.tif")


def test_answers_tell_their_precision(own, scene):
    import geoalign_core as ga

    folder, _, put = own
    look = {"model": str(folder), "device": "cpu"}
    best = float(np.nanmax(ga.heatmap(scene, "lake", **look).values))
    low, level = 0.5 * best, 0.9 * best
    plain = ga.ask(scene, "lake", threshold=low, **look)
    assert "precision" not in plain
    with pytest.raises(ModelError, match="has no calibration"):
        ga.ask(scene, "lake", min_precision=0.1, **look)
    known = put()
    frame = ga.ask(scene, "lake", threshold=low, **look)
    assert list(frame.columns) == ["query", "score", "precision", "rank", "area_m2", "gsd_m", "model", "geometry"]
    assert len(frame) and frame["precision"].between(known.precision(low), known.precision(best)).all()
    assert list(frame["score"]) == list(plain["score"])
    asked = ga.ask(scene, "lake", min_precision=float(known.precision(level)), **look)
    same = ga.ask(scene, "lake", threshold=level, **look)
    assert len(same) and list(asked["area_m2"]) == pytest.approx(list(same["area_m2"]), rel=0.05)
    more = ga.ask(scene, "lake", threshold=low, prior=0.5, **look)
    assert (more["precision"] > frame["precision"]).all()
    assert "precision" not in ga.similar(scene, [(500025, 5799960, 500045, 5799975)], **look)


def test_the_command_tells_and_asks_for_precision(own, scene, geoalign, tmp_path):
    import geopandas

    folder, _, put = own
    call = ("ask", scene, "lake", "--model", folder, "--boxes", tmp_path / "a.gpkg", "--overwrite")
    code, out, _ = geoalign(*call, "--threshold", "0", "--json")
    item = json.loads(out)["queries"][0]
    assert code == 0 and item["precision"] is None
    half, top = item["best_score"] / 2, item["best_score"] * 2
    known = put(scores=(0.0, half, top, 1.0), precisions=(0.0, 0.3, 0.6, 0.8))
    code, out, _ = geoalign(*call, "--min-precision", "0.3", "--json")
    item = json.loads(out)["queries"][0]
    assert code == 0 and item["count"] and item["threshold"] == pytest.approx(half, abs=1e-4)
    assert item["precision"]["prior"] == 0.1 and item["precision"]["above"] == pytest.approx(0.3, abs=1e-3)
    assert item["precision"]["best"] == pytest.approx(float(known.precision(item["best_score"])), abs=0.02)
    rows = geopandas.read_file(tmp_path / "a.gpkg", layer="polygons")
    assert len(rows) and rows["precision"].between(0.3, 0.6).all() and list(rows)[:3] == ["query", "score", "precision"]
    code, out, _ = geoalign(*call, "--min-precision", "0.3")
    assert code == 0 and "(about 30% of places at that limit are right)" in out
    code, _, err = geoalign(*call, "--min-precision", "0.9")
    assert code != 0 and "never so sure" in err and err.count("\n") == 1
    code, _, err = geoalign(*call, "--min-precision", "0.1", "--threshold", "0.1")
    assert code != 0 and "exclude each other" in err
    place_of(locate(str(folder))).write_text("{")
    code, _, err = geoalign(*call)
    assert code != 0 and "is not a calibration" in err and err.strip().count("\n") == 0


def test_the_engine_tells_the_curve_with_answers_to_words(own, scene, tmp_path):
    import geopandas

    folder, _, put = own
    asked = {
        "source": {"path": str(scene)}, "look": {"model": str(folder), "device": "cpu"}, "out": str(tmp_path),
        "rungs": [0, 50],
    }  # fmt: skip
    lake = square(500020, 5799960, 10)
    with EngineProcess() as engine:
        assert engine.result("ask", query="lake", stem="a", **asked)["calibration"] is None
        known = put()
        messages = [message for _, message in engine.until(engine.send("ask", query="lake", stem="b", **asked))]
        told = [message["result"] for message in messages if message["type"] in ("partial", "result")]
        assert len(told) >= 2 and all(result["calibration"] == known.curve() for result in told)
        assert set(known.curve()) == {"scores", "precisions", "prior", "protocol", "data"}
        assert engine.result("ask", query="lake", include=[lake], stem="c", **asked)["calibration"] is None
        put(key="0" * 64)
        assert engine.result("ask", query="lake", stem="d", **asked)["calibration"] is None
    rows = {stem: geopandas.read_file(tmp_path / f"{stem}.gpkg", layer="boxes") for stem in "abcd"}
    assert len(rows["b"]) and rows["b"]["precision"].between(0, known.most).all()
    assert all("precision" not in rows[stem] for stem in "acd")


@pytest.mark.parametrize(("change", "said"), [({"precision": 1.1}, "precision"), ({"prior": 0.0}, "prior")])
def test_filters_out_of_range(change, said):
    with pytest.raises(UsageError, match=said):
        Filter(**change)
