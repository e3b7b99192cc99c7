"""The order of the data and what a step sees: the same for every number of workers and ranks, and after a restart."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoalign_core.models.tokens import EOT, Tokenizer
from tests.student_tools import EVERY, Memory, recipe, scenes, tiny_file
from tiling.errors import GeoAlignError, UsageError
from training.batch import Batch
from training.data.dataset import RsfgDataset
from training.data.errors import DataError
from training.data.schema import HardNegative, Record, Region
from training.loop.collate import Reader, text_id
from training.loop.crops import cut, random_box, sanitised, turned, turned_box
from training.loop.loader import UNREADABLE, Loader, Sampler
from training.model.start import start
from training.recipe_file import load_recipe


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Of a small model for short and long texts, with every loss on."""
    path = tiny_file(tmp_path_factory.mktemp("tiny"))
    used = recipe(f"random:{path}", loss=EVERY, data={"crops": "regions"}, model={"tables": "77+248"})
    return start(used, seed=0)[1]


def full(**data):
    """A recipe whose losses read everything."""
    return recipe("random:none", loss=EVERY, data={"crops": "regions", **data}, seed=5)


def take(loader, count, step=0):
    batches = loader.batches(step)
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, item.name), getattr(other, item.name)) for item in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else tuple(a) == tuple(b) for a, b in pairs)


# ---- order


@given(st.integers(8, 60), st.integers(0, 5), st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_every_world_sees_one_order(count, epoch, world):
    whole = list(Sampler(count, 8, 1, 0, seed=3).batches(epoch))
    parts = [list(Sampler(count, 8 // world, world, rank, seed=3).batches(epoch)) for rank in range(world)]
    joined = [[index for part in step for index in part] for step in zip(*parts, strict=True)]
    assert joined == whole
    seen = [index for step in whole for index in step]
    assert len(set(seen)) == len(seen) == count // 8 * 8 and set(seen) <= set(range(count))
    assert list(Sampler(count, 8, 1, 0, seed=3).batches(epoch, skip=1)) == whole[1:]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(next(Sampler(64, 16, 1, 0, seed).batches(epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_too_few_records():
    with pytest.raises(DataError, match=r"set optim.batch to 5"):
        Sampler(10, 8, 2, 0, seed=0)
    with pytest.raises(DataError, match=r"use 3 processes at most"):
        Sampler(3, 8, 4, 0, seed=0)
    with pytest.raises(DataError, match=r"no records to train on; give a data set that holds some"):
        Sampler(0, 8, 1, 0, seed=0)


def test_resumed_batches_are_the_same_bit_for_bit(config):
    recipe_ = full(regions="random")
    loader = Loader(scenes(), recipe_, config)
    undisturbed = take(loader, 9)  # two epochs of four steps and one more
    for step in (1, 4, 6):
        resumed = take(Loader(scenes(), recipe_, config), 9 - step, step)
        assert all(same(a, b) for a, b in zip(undisturbed[step:], resumed, strict=True))
    assert not same(undisturbed[0], undisturbed[4])


def test_the_global_generator_is_left_alone(config):
    state = torch.get_rng_state()
    take(Loader(scenes(), full(), config), 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_ranks_make_the_batch_of_one_process(config):
    one = take(Loader(scenes(), full(), config), 2)
    recipe_ = replace(full(), optim=replace(full().optim, batch=1))
    ranks = [take(Loader(scenes(), recipe_, config, rank=rank, world=4), 2) for rank in range(4)]
    for step in range(2):
        parts = [rank[step] for rank in ranks]
        for name in ("images", "crops", "boxes", "brief_id", "detailed_id", "region_id", "category"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(one[step], name)), name


class Mortal(RsfgDataset):
    """Data that kill the process that has read 24 of their pictures, if it is a worker."""

    left = 24

    def image(self, index):
        self.left -= 1
        if self.left < 0 and torch.utils.data.get_worker_info():
            os._exit(9)
        return super().image(index)


def test_workers_make_the_same_batches_from_files_and_the_death_of_one_is_a_line(config, tmp_path):
    data = _written(scenes(), tmp_path)
    recipe_ = full(regions="random", workers=2)
    inline = take(Loader(RsfgDataset([data]), recipe_, config, workers=0), 4)
    loader = Loader(Mortal([data]), recipe_, config)
    assert loader.workers == 2
    batches = loader.batches()
    assert all(same(a, b) for a, b in zip(inline, batches, strict=False))
    with pytest.raises(DataError, match="process that reads the data died") as caught:
        next(batch for batch in batches if batch is None)
    assert "\n" not in str(caught.value)


def _written(memory, folder):
    from PIL import Image

    from training.data.dataset import write_records

    write_records(folder, memory.records)
    for record, image in zip(memory.records, memory.images, strict=True):
        Image.fromarray(image).save(folder / record.image)
    return folder


# ---- bad records


def test_bad_records_are_replaced_counted_and_named_once(config, caplog):
    data = scenes(bad={3: "is cut off", 8: "is missing"})
    loader = Loader(data, full(), config)
    batches = take(loader, 8)
    keys = [key for batch in batches for key in batch.keys]
    assert len(keys) == 32 and not {"memory:3", "memory:8"} & set(keys)
    assert loader.skipped == {UNREADABLE: 2} and set(loader.unreadable) == {"memory:3", "memory:8"}
    assert sum("memory:3" in line for line in caplog.messages) == 1
    assert all(same(a, b) for a, b in zip(batches, take(Loader(data, full(), config), 8), strict=True))


def test_mostly_bad_data_stop_the_run(config):
    loader = Loader(scenes(bad=dict.fromkeys(range(9), "is cut off")), full(), config)
    with pytest.raises(DataError, match="more than half") as caught:
        take(loader, 4)
    assert "is cut off" in str(caught.value) and "\n" not in str(caught.value)
    everything = Loader(scenes(bad=dict.fromkeys(range(16), "is cut off")), full(), config)
    with pytest.raises(DataError, match="more than half"):
        take(everything, 1)


def test_a_record_without_captions_is_replaced(config):
    data = scenes()
    data.records[2] = replace(data.records[2], brief_caption=None, detailed_caption=None)
    loader = Loader(data, full(), config)
    take(loader, 4)
    assert "has no caption" in loader.unreadable["memory:2"]


# ---- what a step sees


_SHARE = st.floats(-0.5, 1.5) | st.just(float("nan")) | st.just(float("inf"))
_NEGATIVE = st.builds(HardNegative, st.sampled_from(["a tank", "a shed", "", "a pond"]))
_REGION = st.builds(
    Region,
    bbox=st.tuples(_SHARE, _SHARE, _SHARE, _SHARE),
    category=st.none() | st.sampled_from(["tank", "pool"]),
    phrase=st.none() | st.sampled_from(["a tank", "A  Tank", "a pool", ""]),
    hard_negatives=st.lists(_NEGATIVE, max_size=6).map(tuple),
)  # fmt: skip


@given(st.lists(st.lists(_REGION, max_size=5), min_size=4, max_size=4), st.sampled_from(["none", "regions", "random"]))
@settings(max_examples=40, deadline=None)
def test_batches_hold_their_invariants(config, regions, crops):
    loss = {"image_text": 1.0} if crops == "random" else {"region": 1.0, "hard_negative": 1.0}
    if crops != "none":
        loss = loss | {"consistency" if crops == "regions" else "distil": 1.0}
    images = [np.full((7, 9, 3), 50 * number, np.uint8) for number in range(4)]
    records = [Record(image="x", brief_caption="x", regions=tuple(found)) for found in regions]
    used = recipe("random:none", loss=loss, data={"crops": crops})
    batch = take(Loader(Memory(records, images), used, config), 1)[0]
    count = len(batch.boxes)
    assert batch.images.shape == (4, 3, 32, 32) and batch.images.dtype == torch.uint8
    assert len(batch.image_of) == len(batch.category) == count
    assert len(batch.crops) == (0 if crops == "none" else count)
    assert (batch.image_of.diff() >= 0).all() and ((batch.image_of >= 0) & (batch.image_of < 4)).all()
    assert batch.image_of.bincount(minlength=4).max() <= 2
    boxes = batch.boxes
    assert torch.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= 1).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(batch.negative_of) == len(batch.negatives)
    if crops != "random":
        assert len(batch.region) == len(batch.region_id) == count
        assert (batch.negative_of < max(count, 1)).all() and (batch.negative_of.bincount() <= 3).all()
    for tokens in (batch.brief, batch.region, batch.negatives):
        assert (tokens == EOT).any(dim=1).all()


def _one(config, record, image=None, *, loss=None, seed=0, **data):
    """What a step sees of one record."""
    used = recipe("random:none", loss=loss or {"region": 1.0}, data=data)
    reader = Reader(used, config, ("pool", "tank"))
    image = np.zeros((40, 40, 3), np.uint8) if image is None else image
    return reader.sample("k", record, image, np.random.default_rng(seed))


def _boxes(*boxes, **values):
    regions = tuple(Region(box, **{"phrase": f"thing {number}", **values}) for number, box in enumerate(boxes))
    return Record(image="x", brief_caption="x", regions=regions)


def test_regions_are_chosen_after_the_bad_ones_are_left_out(config):
    nan = float("nan")
    record = _boxes(
        (nan, 0, 1, 1), (1.2, 0, 1.4, 1), (0.5, 0.5, 0.5, 0.9), (0, 0, 0.05, 0.05), (0, 0, 1, 1),
        (-0.2, 0, 0.5, 0.5), (0.1, 0.1, 0.5, 0.5), (0.2, 0.2, 0.7, 0.7),
    )  # fmt: skip
    sample = _one(config, record, min_region_px=4, max_region_px=30)
    assert sample.texts == ["thing 5", "thing 6"] and sample.boxes[0] == (0, 0, 0.5, 0.5)
    assert sample.skipped == {
        "box not finite": 1, "box outside": 1, "box without area": 1, "region too small": 1, "region too large": 1,
    }  # fmt: skip
    random = {tuple(_one(config, record, regions="random", seed=seed).texts) for seed in range(30)}
    assert len(random) > 3


def test_texts_of_regions(config):
    both = Region((0, 0, 1, 1), category="tank", phrase="short", description="long")
    record = Record(image="x", brief_caption="x", regions=(both,))
    assert _one(config, record, region_text="phrase").texts == ["short"]
    assert _one(config, record, region_text="description").texts == ["long"]
    assert {_one(config, record, seed=seed).texts[0] for seed in range(20)} == {"short", "long"}
    alone = _one(config, record, loss={"category": 1.0}, crops="regions")
    assert alone.texts == ["a satellite image of tank"] and alone.categories == [1]
    bare = Record(image="x", brief_caption="x", regions=(replace(both, phrase=None, description=None),))
    assert _one(config, bare).texts == ["a satellite image of tank"]
    nothing = replace(bare, regions=(Region((0, 0, 1, 1)),))
    assert _one(config, nothing).skipped == {"region without text": 1}


def test_captions_and_their_fallbacks(config):
    loss = {"textual": 1.0}
    cases = [
        ({"brief_caption": "b", "detailed_caption": "d", "captions": ("c",)}, "b", "d"),
        ({"captions": ("one", "two", "one")}, "one", "one two"),
        ({"detailed_caption": "d"}, "d", "d"),
        ({"label": "harbour"}, "a satellite image of harbour", "a satellite image of harbour"),
    ]
    for values, brief, detailed in cases:
        sample = _one(config, Record(image="x", **values), loss=loss, brief_prefix="p ")
        assert (sample.brief, sample.detailed) == (f"p {brief}", detailed)


def test_one_caption_may_be_the_detailed_one(config):
    both = Record(image="x", brief_caption="b", detailed_caption="d")
    loss = {"image_text": 1.0}
    assert _one(config, both, loss=loss).brief == "b"
    assert _one(config, both, loss=loss, caption="detailed").brief == "d"
    assert _one(config, replace(both, detailed_caption=None), loss=loss, caption="detailed").brief == "b"
    assert {_one(config, both, loss=loss, caption="random", seed=seed).brief for seed in range(20)} == {"b", "d"}
    with pytest.raises(UsageError, match=r"set data\.caption to brief"):
        _one(config, both, loss={"textual": 1.0}, caption="detailed")


def test_farslips_second_stage_reads_what_its_code_reads(config):
    """Boxes of 64² to 1024² pixels of the original, the detailed caption, the category's text."""
    sides = (50, 70, 200, 800)
    regions = tuple(
        Region((0.1, 0.1, 0.1 + side / 1024, 0.1 + side / 1024), category="ship", phrase="a ship") for side in sides
    )
    record = Record(image="x", brief_caption="BRIEF", detailed_caption="DETAILED", regions=regions)
    reader = Reader(load_recipe("farslip-stage2"), config, ("ship",))
    sample = reader.sample("k", record, np.zeros((1024, 1024, 3), np.uint8), np.random.default_rng(0))
    assert [round(1024 * (box[2] - box[0])) for box in sample.boxes] == [70, 200, 800]
    assert sample.skipped == {"region too small": 1}
    assert (sample.brief, sample.texts) == ("DETAILED", ["a satellite image of ship"] * 3)
    large = reader.sample("k", record, np.zeros((1400, 1400, 3), np.uint8), np.random.default_rng(0))
    assert len(large.boxes) == 3 and large.skipped == {"region too large": 1}


def test_hard_negatives_are_limited_and_never_true(config):
    texts = ["thing 0", "Thing  0", *(f"other {number}" for number in range(100_000))]
    record = _boxes((0, 0, 1, 1), hard_negatives=tuple(HardNegative(text) for text in texts))
    loss = {"hard_negative": 1.0}
    chosen = [_one(config, record, loss=loss, seed=seed).negatives for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 3 and all(text.startswith("other") for _, text in chosen[0])
    few = replace(record.regions[0], hard_negatives=record.regions[0].hard_negatives[:4] * 2)
    assert [text for _, text in _one(config, replace(record, regions=(few,)), loss=loss).negatives] == [
        "other 0", "other 1",
    ]  # fmt: skip


def test_long_texts_are_cut_and_counted(config):
    record = Record(image="x", brief_caption="house " * 300, detailed_caption="house " * 300)
    used = recipe("random:none", loss={"textual": 1.0})
    reader = Reader(used, config)
    sample = reader.sample("k", record, np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))
    exact = replace(sample, brief="house " * 75, detailed="house " * 246)
    batch, skipped = reader.batch([sample, exact])
    assert batch.brief.shape == (2, 77) and batch.detailed.shape == (2, 248) and skipped == [{"text cut": 2}, {}]
    assert (batch.brief[:, -1] == EOT).all() and (batch.detailed[:, -1] == EOT).all()


def test_what_is_skipped_is_counted_once_however_often_it_is_read(config):
    data = scenes()
    data.records[1] = replace(data.records[1], brief_caption="house " * 300)
    small = replace(data.records[2].regions[0], bbox=(0.5, 0.5, 0.5001, 0.5001))
    data.records[2] = replace(data.records[2], regions=(*data.records[2].regions, small, small))
    loader = Loader(data, full(), config)
    steps = len(loader)
    for _ in zip(range(3 * steps), loader.batches(), strict=False):
        pass
    once = Counter(dict(loader.skipped))
    assert once["text cut"] >= 1 and sum(once.values()) == once["text cut"] + 2
    one = Loader(data, full(), config)
    for _ in zip(range(steps), one.batches(), strict=False):
        pass
    assert one.skipped == once


def test_one_bad_record_of_one_is_counted_as_one(config):
    data = Memory(scenes().records[:1], [None], bad={0: "is cut off"})
    loader = Loader(data, replace(full(), optim=replace(full().optim, batch=1)), config)
    with pytest.raises(DataError, match=r"1 of 1; the last: .*is cut off"):
        take(loader, 1)


def test_equal_texts_share_their_number(config):
    assert text_id("A  red roof ") == text_id("a red roof") != text_id("a red roofs")
    assert 0 <= text_id("x") < 2**63
    assert text_id("half a pair \ud800") != text_id("half a pair \udc00")
    tokens = Tokenizer(77).encode(["A  red roof ", "a red roof"])[0]
    assert torch.equal(tokens[0], tokens[1])


# ---- geometry


def test_crops_show_their_boxes(config):
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:45] = 255
    box = (30 / 60, 10 / 40, 45 / 60, 20 / 40)
    assert cut(image, box).shape == (10, 15, 3) and cut(image, box).min() == 255
    assert cut(image, box, 0.2).shape == (14, 21, 3)
    assert cut(image, (0.999, 0.999, 1.0, 1.0)).shape == (1, 1, 3)
    record = _boxes(box)
    for seed in range(8):
        sample = _one(config, record, image, loss={"consistency": 1.0}, crops="regions", flips=True, seed=seed)
        assert sample.crops[0].min() == 255
        left, top, right, bottom = (round(32 * share) for share in sample.boxes[0])
        assert sample.image[:, top + 2 : bottom - 2, left + 2 : right - 2].min() > 200


def test_colours_change_for_image_and_crop_apart_and_repeat_with_the_seed(config):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    record = _boxes((0.0, 0.0, 1.0, 1.0))
    changed = {"jitter": (0.4, 0.4, 0.2, 0.1), "jitter_share": 1.0}

    def sample(**data):
        return _one(config, record, image, loss={"consistency": 1.0}, crops="regions", seed=4, **data)

    plain, one, other = sample(), sample(**changed), sample(**changed)
    assert torch.equal(plain.image, plain.crops[0])
    assert torch.equal(one.image, other.image) and torch.equal(one.crops[0], other.crops[0])
    assert not torch.equal(one.image, plain.image)
    assert not torch.equal(one.image, one.crops[0])
    assert one.boxes == plain.boxes
    grey = sample(grey_share=1.0)
    assert torch.equal(grey.image[0], grey.image[2]) and torch.equal(grey.crops[0][0], grey.crops[0][2])


@given(st.integers(0, 3), st.booleans())
def test_boxes_turn_with_their_image(quarters, mirrored):
    image = np.zeros((20, 30, 3), np.uint8)
    image[4:9, 12:27] = 1
    box = turned_box((12 / 30, 4 / 20, 27 / 30, 9 / 20), quarters, mirrored)
    part = cut(turned(image, quarters, mirrored), box)
    assert part.min() == 1 and part.sum() == image.sum()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_random_boxes_keep_their_bounds(width, height, seed):
    box = random_box(np.random.default_rng(seed), width, height, (0.3, 0.7), (0.75, 4 / 3))
    assert sanitised(box, width, height) == box
    w, h = (box[2] - box[0]) * width, (box[3] - box[1]) * height
    assert abs(w - round(w)) < 1e-6 and abs(h - round(h)) < 1e-6 and round(w) >= 1 and round(h) >= 1
    if min(width, height) > 100 and 0.9 < width / height < 1.1:
        assert 0.28 < w * h / (width * height) < 0.72 and 0.72 < w / h < 1.4


def test_wrong_choices_are_one_line(config):
    for data in ({"regions": "last"}, {"region_text": "poem"}, {"crops": "corners"}, {"caption": "haiku"}):
        with pytest.raises(GeoAlignError, match=next(iter(data))):
            Reader(recipe("random:none", data=data), config)
