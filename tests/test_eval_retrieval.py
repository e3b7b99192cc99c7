"""Image–text retrieval: figures by hand, against torchmetrics, both protocols where captions repeat, all layouts."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval_pictures import encoder, job, lines, picture, whole
from tiling.errors import CancelledError, GeoAlignError
from tiling.progress import CancelToken
from training.data.errors import DataError
from training.evaluation.layouts.captions import Captioned, read_captions
from training.evaluation.metrics import retrieval as metric
from training.evaluation.ranking import ranks
from training.evaluation.result import read_result
from training.evaluation.tasks.retrieval import PREFIX, TASK, pair

FIVE, UNIQUE, LONG, _OWN = TASK.protocols


def figures(i2t, t2i, owner, ks=metric.KS):
    table = metric.per_image(*(np.array(values, np.int64) for values in (i2t, t2i, owner)), ks)
    return {name: float(value[0]) for name, value in metric.figures(table.sum(axis=0, keepdims=True), ks).items()}


# Metric -----------------------------------------------------------------------------------------------------------


def test_figures_by_hand():
    found = figures([1, 2, 6, 11], [1, 1, 5, 10, 12], [0, 0, 1, 2, 3])
    assert found == pytest.approx({
        "i2t_r@1": 25, "i2t_r@5": 50, "i2t_r@10": 75, "i2t_mean": 50,
        "t2i_r@1": 40, "t2i_r@5": 60, "t2i_r@10": 80, "t2i_mean": 60, "mr": 55,
    })  # fmt: skip


def test_without_queries_there_is_no_figure():
    assert np.isnan(metric.recalls(np.zeros(0, np.int64))[1])
    assert np.isnan(figures([], [], [])["mr"])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 10]))
def test_agrees_with_torchmetrics(seed, k):
    """I2T is a hit rate, since any caption will do; T2I with one image each is recall. It wants scores above 0."""
    import torch
    from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_recall

    rng = np.random.default_rng(seed)
    images, texts = unit(rng.normal(size=(12, 6))), unit(rng.normal(size=(36, 6)))
    owner = np.arange(36) // 3
    own = torch.from_numpy(owner[None, :] == np.arange(12)[:, None])
    likely = torch.from_numpy(images @ texts.T + 1) / 2
    found = figures(
        ranks(images, texts, [np.flatnonzero(owner == image) for image in range(12)]),
        ranks(texts, images, owner[:, None]), owner,
    )  # fmt: skip
    hit = [float(retrieval_hit_rate(likely[n], own[n], top_k=k)) for n in range(12)]
    recall = [float(retrieval_recall(likely[:, n], own[:, n], top_k=k)) for n in range(36)]
    assert found[f"i2t_r@{k}"] == pytest.approx(100 * np.mean(hit))
    assert found[f"t2i_r@{k}"] == pytest.approx(100 * np.mean(recall))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# Protocols --------------------------------------------------------------------------------------------------------


def toy(texts, name="toy"):
    return Captioned(name, None, tuple(f"{n}.png" for n in range(len(texts))), texts, None, 0)


def test_protocols_differ_where_captions_repeat():
    """Images a, b, c; "sea" is said of a and of b.

    Vectors: a = sea, b near sea, c = fort. Five-caption: 4 texts sea₁ sea₂ tree fort. a: its sea ties with b's, so it
    is second of all; b: its own sea ties with a's, second, and so is tree behind; c first. T2I: sea₁ → a first;
    sea₂ → b second; tree → b first; fort → c first. Unique: 3 texts; a, b, c first; sea → {a, b} first.
    """
    data = toy((("sea",), ("sea", "tree"), ("fort",)))
    words = {"sea": (1, 0, 0), "tree": (0, 1, 0), "fort": (0, 0, 1)}
    images = unit(np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1.0]]))
    both = {}
    for unique in (False, True):
        pairs = pair(data, unique=unique)
        texts = unit(np.array([words[text] for text in pairs.texts], float))
        i2t, t2i = ranks(images, texts, pairs.of_image), ranks(texts, images, pairs.of_text)
        both[unique] = pairs.texts, i2t.tolist(), t2i.tolist()
    assert both[False] == (("sea", "sea", "tree", "fort"), [2, 2, 1], [1, 2, 1, 1])
    assert both[True] == (("sea", "tree", "fort"), [1, 1, 1], [1, 1, 1])


def test_a_caption_that_an_image_has_twice_is_two_texts_or_one():
    data = toy((("sea", "sea"), ("fort",)))
    assert pair(data, unique=False).of_image == ((0, 1), (2,))
    assert pair(data, unique=True).of_image == ((0,), (1,))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_images_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    texts = tuple(tuple(f"text {rng.integers(6)}" for _ in range(rng.integers(1, 4))) for _ in range(7))
    vectors, words = unit(rng.normal(size=(7, 4))), unit(rng.normal(size=(6, 4)))
    order = rng.permutation(7)
    for unique in (False, True):
        found = []
        for places in (np.arange(7), order):
            pairs = pair(toy(texts).take(places), unique=unique)
            rows = words[[int(text.split()[1]) for text in pairs.texts]]
            i2t = ranks(vectors[places], rows, pairs.of_image)
            t2i = ranks(rows, vectors[places], pairs.of_text)
            found.append((i2t[np.argsort(places)].tolist(), sorted(t2i.tolist())))
        assert found[0] == found[1]


# Layouts, end to end ----------------------------------------------------------------------------------------------

SAID = (("a sea.", "blue water."), ("a forest.", "a sea."), ("a long road.", "grey."))


@pytest.fixture
def karpathy(tmp_path):
    folder = tmp_path / "rsicd"
    for number in range(4):
        picture(folder / "images" / f"{number}.png", number)
    entries = [
        {"filename": f"{n}.png", "split": "test", "sentences": [{"raw": text} for text in texts]}
        for n, texts in enumerate(SAID)
    ]
    entries.append({"filename": "3.png", "split": "train", "sentences": [{"raw": "a port."}]})
    (folder / "dataset_rsicd.json").write_text(json.dumps({"dataset": "rsicd", "images": entries}))
    return folder


def test_end_to_end_as_by_hand(karpathy, tiny_model, tmp_path):
    result = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE))
    model = encoder(tiny_model)
    images = np.stack([whole(model, karpathy / "images" / f"{n}.png") for n in range(3)])
    texts = [text for part in SAID for text in part]
    scores = images @ model.encode_text(texts).T
    owner = np.arange(6) // 2
    t2i = [1 + sum(scores[:, text] > scores[owner[text], text] + 1e-6) for text in range(6)]
    first = [max(scores[n][owner == n]) > max(scores[n][owner != n]) + 1e-6 for n in range(3)]
    assert result.metrics["i2t_r@1"].value == pytest.approx(100 * np.mean(first))
    assert result.metrics["t2i_r@1"].value == pytest.approx(100 * np.mean(np.array(t2i) == 1))
    assert result.metrics["t2i_r@5"].value == 100 and result.metrics["mr"].low <= result.metrics["mr"].value
    assert result.dataset.counts["images"] == 3 and result.dataset.counts["texts"] == 6
    assert result.dataset.counts["unique_texts"] == 5 and result.dataset.name == "rsicd"
    assert any("repeat" in note for note in result.notes) and any("'test'" in note for note in result.notes)
    result.write(tmp_path / "result.json")
    again = read_result(tmp_path / "result.json")
    assert again.metrics == dict(result.metrics) and again.details["retrievals"][0]["direction"] == "I2T"


def test_cards_show_each_query_and_each_text_once_and_tell_ties(tmp_path, tiny_model):
    folder = tmp_path / "rsicd"
    said = [*["a sea."] * 6, "a forest.", "a road."]
    for number in range(len(said)):
        picture(folder / "images" / f"{number}.png", number)
    entries = [
        {"filename": f"{n}.png", "split": "test", "sentences": [{"raw": text}, {"raw": text}]}
        for n, text in enumerate(said)
    ]
    (folder / "dataset_rsicd.json").write_text(json.dumps({"dataset": "rsicd", "images": entries}))
    result = TASK.run(job(folder, tiny_model, tmp_path / "cache", FIVE))
    cards = result.details["retrievals"]
    asked = [card["query"]["text"] for card in cards if card["direction"] == "T2I" and card["group"] == "worst"]
    assert len(set(asked)) == len(asked)
    for card in cards:
        if card["direction"] == "I2T":
            answers = [answer["text"] for answer in card["answers"]]
            assert sorted(answers) == ["a forest.", "a road.", "a sea."]
            assert len(card["right"]) == 1
            place = [answer["right"] for answer in card["answers"]].index(True)
            copies = sum(2 * said.count(text) for text in answers[:place])
            assert card["rank"] - card["tied"] == 1 + copies
            assert card["tied"] == 2 * said.count(answers[place]) - 2
    assert any(card["tied"] for card in cards)
    kind = TASK.run(job(folder, tiny_model, tmp_path / "cache", FIVE, ties="optimistic")).details["retrievals"]
    assert not any(card["tied"] for card in kind)


def test_unique_merges_and_takes_the_prefix(karpathy, tiny_model, tmp_path):
    result = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", UNIQUE))
    assert result.dataset.counts["texts"] == 5 and result.settings["prefix"] == PREFIX
    assert result.model.templates == (PREFIX + "{}",) and "i2t_r@100" in result.metrics
    plain = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", UNIQUE, prefix="none"))
    assert plain.settings["prefix"] == "" and plain.model.templates == ()
    assert plain.dataset.digest == result.dataset.digest


def test_a_split_a_limit_and_what_is_not_there(karpathy, tiny_model, tmp_path):
    other = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE, split="train"))
    assert other.dataset.counts["images"] == 1
    few = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE, limit=2))
    assert few.dataset.counts["images"] == 2 and any("Only 2 of 3" in note for note in few.notes)
    with pytest.raises(DataError, match=r"no split 'val' \(test, train\)"):
        TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE, split="val"))
    with pytest.raises(GeoAlignError, match="no option 'tie'"):
        TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE, tie="x"))
    stopped = CancelToken()
    stopped.cancel()
    with pytest.raises(CancelledError):
        TASK.run(job(karpathy, tiny_model, tmp_path / "other", FIVE, cancel=stopped))


def test_missing_and_damaged_pictures(karpathy, tiny_model, tmp_path):
    (karpathy / "images" / "1.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(DataError, match=r"1\.png: an image cannot be read"):
        TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE))
    result = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE, unreadable="skip"))
    assert result.dataset.counts["skipped_images"] == 1 and result.dataset.counts["texts"] == 4
    (karpathy / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: an image is missing \(1 of 3\)"):
        TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE))
    again = TASK.run(job(karpathy, tiny_model, tmp_path / "cache", FIVE, unreadable="skip"))
    assert again.metrics == result.metrics and again.dataset.digest != result.dataset.digest


def table(path, rows, encoding="utf-8"):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def test_skyscript_tables(tiny_model, tmp_path):
    """Pictures are named from the folder above; the column is the one with several objects."""
    for number in range(2):
        picture(tmp_path / "images2" / f"{number}.png", number)
    rows = [
        ["filepath", "title", "title_multi_objects"],
        ["images2/0.png", "a", "a, beside b"],
        ["images2/1.png", "c", "c"],
    ]
    path = table(tmp_path / "frames" / "SkyScript_test.csv", rows)
    found = read_captions(path)
    assert found.texts == (("a, beside b",), ("c",)) and found.root == tmp_path and not found.satellite
    assert read_captions(path, column="title").texts == (("a",), ("c",))
    result = TASK.run(job(path, tiny_model, tmp_path / "cache", UNIQUE))
    assert result.settings["prefix"] == "" and result.dataset.counts["images"] == 2
    with pytest.raises(DataError, match="no column caption"):
        read_captions(path, column="caption")


def test_tables_in_gb18030_and_of_three_sets(tmp_path):
    for number in range(2):
        picture(tmp_path / "RSICD" / "images" / f"{number}.png", number)
    rows = [
        ["filepath", "title_multi_objects", "title"],
        ["0.png", "x", "海 sea"],
        ["0.png", "x", "sea"],
        ["1.png", "x", "fort"],
    ]
    path = table(tmp_path / "RSICD" / "RSICD_img_txt_pairs_test.csv", rows, "gb18030")
    table(tmp_path / "RSICD" / "RSICD_img_txt_pairs_train.csv", rows)
    found = read_captions(path.parent)
    assert found.texts == (("海 sea", "sea"), ("fort",)) and found.satellite and "gb18030" in found.note
    assert found.root == path.parent / "images"
    lone = table(tmp_path / "benchmark" / "UCM_img_txt_pairs_test.csv", rows)
    assert read_captions(lone.parent).satellite and read_captions(lone.parent).texts == found.texts
    assert not read_captions(table(tmp_path / "mine" / "pairs.csv", rows).parent).satellite


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filepath,title\na.png,x,y\n", r"t\.csv:2: a line has another number of cells"),
        ("filepath,title\n", "has no rows"),
        ("name,title\na,b\n", "has no column filepath"),
        ("filepath,title\n/etc/a.png,b\n", "lies outside"),
        ("filepath,title\n../a.png,b\n", "lies outside"),
        ('filepath,title\n"a.png,b\n', r"t\.csv:2: is not a table"),
        ("filepath,title\na.png,\n", "no images with captions"),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_captions(tmp_path / "t.csv")


def test_long_texts_and_lost_words(tiny_model, tmp_path):
    """The model reads 77 tokens, start and end among them: 75 words of one token."""
    for number in range(2):
        picture(tmp_path / f"{number}.png", number)
    long = " ".join(["sea"] * 80)
    path = lines(tmp_path / "long.jsonl", [{"image": "0.png", "long": long}, {"image": "1.png", "long": "a fort."}])
    result = TASK.run(job(path, tiny_model, tmp_path / "cache", LONG))
    assert result.dataset.counts["cut_texts"] == 1 and result.dataset.counts["lost_words"] == 5
    assert any("5 words were lost" in note for note in result.notes)


def test_records_lend_captions_or_detailed_ones(tmp_path):
    picture(tmp_path / "0.png")
    record = {"image": "0.png", "brief_caption": "sea", "detailed_caption": "a wide sea", "captions": ["water"]}
    path = lines(tmp_path / "records.jsonl", [record, {"image": "0.png", "captions": ["more"]}])
    assert read_captions(path).texts == (("sea", "water", "more"),)
    assert read_captions(path, long=True).texts == (("a wide sea",),)


def test_a_bad_line_is_named(tmp_path):
    path = lines(tmp_path / "captions.jsonl", [{"image": "0.png", "class": "sea", "captions": ["a"]}])
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(DataError, match=r"captions\.jsonl:2"):
        read_captions(path)


def test_pictures_in_archives(tiny_model, tmp_path):
    folder = tmp_path / "packed"
    folder.mkdir()
    with tarfile.open(folder / "images-00.tar", "w") as archive:
        for number in range(2):
            archive.add(picture(tmp_path / f"{number}.png", number), f"Sea/{number}.png")
    rows = [{"image": f"Sea/{n}.png", "class": "Sea", "split": "test", "captions": [f"text {n}"]} for n in range(2)]
    lines(folder / "captions.jsonl", rows)
    result = TASK.run(job(folder, tiny_model, tmp_path / "cache", FIVE))
    assert result.dataset.counts["images"] == 2 and result.dataset.name == "packed"


def test_the_development_data(data_dir):
    """All of it is one part, called train: it is taken, since there is no test part."""
    found = read_captions(data_dir / "rsicd_aid")
    assert found.split is None and len(found.images) == len(set(found.images)) > 8000
    assert found.note == "There is no test part; all was taken: train."
    assert read_captions(data_dir / "rsicd_aid", split="train").texts == found.texts


def test_taking_images_keeps_their_texts():
    data = toy((("a",), ("b",), ("c",)))
    assert data.take([2, 0]).texts == (("c",), ("a",)) and replace(data, name="RSITMD").satellite
