"""Data sets of lines and shards: random access, streams, archives that are cut short."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.data_tools import RSFG, picture, put, rsteller, tar
from tiling.errors import OutputExistsError
from training.data import shards
from training.data.dataset import RsfgDataset, write_records
from training.data.errors import DataError
from training.data.images import read_bytes, rebase
from training.data.readers import open_source
from training.data.schema import Record, Region, parse_record
from training.data.stream import braced, open_shards, write_shards


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """Three records with a picture each."""
    for number in range(3):
        put(tmp_path / "set" / f"{number}.png", picture(seed=number))
    regions = [(Region((0, 0, 1, 1), category=name),) for name in "bcb"]
    records = [Record(image=f"{n}.png", brief_caption=f"text {n}", regions=regions[n]) for n in range(3)]
    write_records(tmp_path / "set", records)
    return tmp_path / "set"


def test_records_and_pictures_are_found_by_number(folder):
    data = RsfgDataset([folder])
    assert [record.brief_caption for record in data] == ["text 0", "text 1", "text 2"]
    assert data.image(2).shape == (20, 40, 3)
    assert data.image(2).tobytes() == np.asarray(Image.open(folder / "2.png")).tobytes()
    assert data.key(1) == f"{folder}/records.jsonl:2"
    assert data.category_names == ("b", "c")
    with pytest.raises(IndexError):
        data[3]
    again = pickle.loads(pickle.dumps(data))
    assert again[1] == data[1]
    assert again.digest == data.digest


def test_data_sets_are_joined_in_order(folder, tmp_path):
    shard = tar(tmp_path / "s.tar", rsteller(7) + rsteller(8))
    data = RsfgDataset([folder, shard, folder / "records.jsonl"])
    assert len(data) == 8
    assert [data[index].brief_caption for index in (2, 3, 4, 5)] == [
        "text 2",
        "a long road 7",
        "a long road 8",
        "text 0",
    ]
    assert data[3].captions == ("road 7",)
    assert data.image(4).shape == (16, 16, 3)
    assert data.key(3) == f"{shard}!7.json"
    assert data.digest != RsfgDataset([shard, folder, folder]).digest


def test_the_digest_sees_a_changed_letter(folder):
    before = RsfgDataset([folder]).digest
    lines = (folder / "records.jsonl").read_text()
    (folder / "records.jsonl").write_text(lines.replace("text 2", "text 3"))
    assert RsfgDataset([folder]).digest != before


def test_blank_lines_windows_lines_and_byte_order_marks_are_read(tmp_path):
    line = json.dumps({"image": "a.png", "brief_caption": "one\u2028line"}, ensure_ascii=False)
    path = put(tmp_path / "a.jsonl", f"\ufeff{line}\r\n\r\n{line}".encode())
    data = RsfgDataset([path])
    assert len(data) == 2
    assert data[0] == data[1]
    assert data.key(1).endswith("a.jsonl:3")


BROKEN = {
    "no JSON": (b'{"image": "a.png"}\n{"image": ', "a.jsonl:2: is not a line of JSON"),
    "not UTF-8": (b'{"image": "a.png"}\n{"image": "\xff"}\n', "a.jsonl:2: is not a line of JSON"),
    "not a record": (b'{"image": "a.png"}\n\n[]\n', "a.jsonl:3: is not a record"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named(tmp_path, name):
    content, message = BROKEN[name]
    data = RsfgDataset([put(tmp_path / "a.jsonl", content)])
    assert data[0].image == "a.png"
    with pytest.raises(DataError) as caught:
        data[1]
    assert message in str(caught.value)


def test_paths_without_records_are_refused(tmp_path):
    put(tmp_path / "a.csv", "x")
    for path, message in (
        (tmp_path / "no", "is missing"),
        (tmp_path, "holds no records"),
        (tmp_path / "a.csv", "neither"),
    ):
        with pytest.raises(DataError, match=message):
            RsfgDataset([path])


PICTURES = {
    "missing": (None, "cannot be read"),
    "cut short": (picture(300, 300)[:2000], "damaged"),
    "a text": (b"no picture", "no known format"),
    "broken header": (picture()[:20], "damaged"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_cannot_be_read_names_its_record(tmp_path, name):
    content, message = PICTURES[name]
    if content is not None:
        put(tmp_path / "a.png", content)
    write_records(tmp_path, [Record(image="a.png")])
    with pytest.raises(DataError, match=message) as caught:
        RsfgDataset([tmp_path]).image(0)
    assert "records.jsonl:1" in str(caught.value)
    assert "a.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_that_are_too_large_or_too_deep_are_refused(tmp_path, monkeypatch):
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    huge = bytearray(picture())
    huge[16:24] = (60000).to_bytes(4, "big") * 2  # the header's width and height; its checksum is made to fit
    import zlib

    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    put(tmp_path / "huge.png", bytes(huge))
    write_records(tmp_path, [Record(image="deep.png"), Record(image="huge.png")])
    data = RsfgDataset([tmp_path])
    with pytest.raises(DataError, match="more than 8 bits"):
        data.image(0)
    with pytest.raises(DataError, match="too large"):
        data.image(1)


def test_pictures_inside_archives_are_read_in_place(tmp_path):
    tar(tmp_path / "images-00.tar", [("a/1.png", picture(seed=1)), ("./a/2.png", picture(seed=2))])
    write_records(tmp_path, [Record(image="images-00.tar!a/2.png"), Record(image="images-00.tar!a/3.png")])
    data = RsfgDataset([tmp_path])
    assert data.image_bytes(0) == picture(seed=2)
    with pytest.raises(DataError, match=r"no such file \(a/3.png\)"):
        data.image(1)
    moved = rebase(data[0], tmp_path, tmp_path / "other" / "place")
    assert moved.image == "../../images-00.tar!a/2.png"
    write_records(tmp_path / "other" / "place", [moved])
    assert RsfgDataset([tmp_path / "other" / "place"]).image_bytes(0) == picture(seed=2)


def test_writing_refuses_to_replace_and_leaves_nothing_half_written(folder):
    with pytest.raises(OutputExistsError):
        write_records(folder, [])
    before = (folder / "records.jsonl").read_bytes()

    def failing():
        yield Record(image="a.png")
        raise DataError("stop")

    with pytest.raises(DataError):
        write_records(folder, failing(), overwrite=True)
    assert (folder / "records.jsonl").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_shards_hold_the_same_records_and_the_same_bytes(folder, tmp_path):
    put(
        folder / "records.jsonl", (folder / "records.jsonl").read_text() + json.dumps({**RSFG, "image": "0.png"}) + "\n"
    )
    data = RsfgDataset([folder])
    written = write_shards(tmp_path / "shards", data, samples=3)
    assert [path.name for path in written] == ["shard-000000.tar", "shard-000001.tar"]
    packed = RsfgDataset([tmp_path / "shards"])
    assert len(packed) == 4
    for index, record in enumerate(data):
        assert packed.image_bytes(index) == data.image_bytes(index)
        origin = {**record.extra, "origin": record.image}
        assert packed[index] == replace(record, image=packed[index].image, extra=origin)
    assert write_shards(tmp_path / "twice", data, samples=3)[0].read_bytes() == written[0].read_bytes()
    # Packed once more, the first name of a picture stays.
    again = write_shards(tmp_path / "again", packed)
    assert RsfgDataset(again)[3].extra["origin"] == "0.png"


def test_the_index_of_a_large_archive_is_kept_and_checked(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(shards, "_WORTH_KEEPING", 2)
    path = tar(tmp_path / "a.tar", rsteller(1) + rsteller(2))
    first = RsfgDataset([path])
    (kept,) = (cache / "shards").iterdir()
    shards._indexed.cache_clear()
    monkeypatch.setattr(shards, "_scan", lambda *_: pytest.fail("the index is known"))
    assert RsfgDataset([path])[1] == first[1]
    monkeypatch.undo()
    monkeypatch.setenv("GEOALIGN_CACHE", str(cache))
    shards._indexed.cache_clear()
    kept.write_bytes(b"broken")
    assert RsfgDataset([path])[1] == first[1]
    tar(path, rsteller(3))  # another archive of the same name
    assert [record.brief_caption for record in RsfgDataset([path])] == ["a long road 3"]
    assert list(tmp_path.glob("*.npz")) == []


def samples(stream):
    return [record.brief_caption for record, _ in stream]


@pytest.fixture
def archives(tmp_path):
    return [tar(tmp_path / "s" / f"t-{n}.tar", [m for k in range(10) for m in rsteller(10 * n + k)]) for n in range(4)]


def test_a_stream_gives_every_sample_once_to_all_readers_together(archives):
    whole = samples(open_shards(archives))
    assert whole == [f"a long road {n}" for n in range(40)]
    for world, workers in ((1, 1), (2, 2), (3, 2), (5, 1)):  # also more readers than archives
        for buffer in (0, 7):
            parts = [
                samples(open_shards(archives, rank=r, world=world, worker=w, workers=workers, buffer=buffer, seed=1))
                for r in range(world)
                for w in range(workers)
            ]
            assert sorted(text for part in parts for text in part) == sorted(whole)


def test_the_shuffled_order_is_that_of_seed_and_epoch(archives):
    options = {"buffer": 12, "seed": 3}
    first = samples(open_shards(archives, **options))
    assert first == samples(open_shards(archives, **options))
    assert first != samples(open_shards(archives, **options, epoch=1))
    assert first != sorted(first)


def test_patterns_name_archives(archives):
    root = archives[0].parent
    assert len(open_shards([root]).paths) == len(open_shards([root / "t-*.tar"]).paths) == 4
    assert [path.name for path in open_shards([f"{root}/t-{{1..2}}.tar"]).paths] == ["t-1.tar", "t-2.tar"]
    assert braced("{pub11,rs3}-{0008..0010}.tar")[:4] == [
        "pub11-0008.tar",
        "pub11-0009.tar",
        "pub11-0010.tar",
        "rs3-0008.tar",
    ]
    with pytest.raises(DataError, match="names no archive"):
        open_shards([root / "x-*.tar"])


def test_rs5m_and_compressed_archives_stream(tmp_path):
    members = [("1.img_content", picture()), ("1.img_name", b"laion_1.jpg"), ("1.caption", b"aerial view of a bay")]
    path = tar(tmp_path / "pub11-train-0000.tar.gz", members, "w:gz")
    ((record, data),) = open_shards([path])
    assert (record.brief_caption, record.source, data) == ("aerial view of a bay", "RS5M", picture())
    assert record.extra == {"img_name": "laion_1.jpg"}
    for name in ("a.tar.gz", "a.tgz", "a.tar"):
        path = path.rename(tmp_path / name)
        with pytest.raises(DataError, match="is compressed, so nothing can be read in place; unpack it"):
            RsfgDataset([path])
        with pytest.raises(DataError, match="is compressed, so nothing can be read in place; unpack it"):
            list(open_source(path).records())


@pytest.mark.parametrize("cut", [1024, 1636, 2600, 3072, 5000])
def test_an_archive_that_is_cut_short_is_counted_with_its_byte(tmp_path, archives, cut):
    raw = archives[0].read_bytes()
    whole = samples(open_shards(archives[:1]))
    path = put(tmp_path / "cut.tar", raw[:cut])
    stream = open_shards([path, archives[1]])
    found = samples(stream)
    assert found[-10:] == [f"a long road {n}" for n in range(10, 20)]
    assert found[:-10] == whole[: len(found) - 10]
    assert stream.skipped == {"truncated archive": 1}
    assert f"byte {cut}" in stream.errors[0]
    with pytest.raises(DataError, match="byte") as caught:
        RsfgDataset([path])
    assert str(path) in str(caught.value)


def test_a_broken_header_is_not_taken_for_the_end(tmp_path, archives):
    raw = bytearray(archives[0].read_bytes())
    raw[raw.index(b"5.json") + 150] ^= 0xFF
    stream = open_shards([put(tmp_path / "bad.tar", bytes(raw))])
    assert len(samples(stream)) == 5
    assert stream.skipped == {"truncated archive": 1}
    with pytest.raises(DataError, match="header"):
        RsfgDataset([tmp_path / "bad.tar"])


def test_cut_gzip_and_samples_without_picture_or_text_are_counted(tmp_path, archives):
    packed = gzip.compress(archives[0].read_bytes())
    path = put(tmp_path / "a.tar.gz", packed[: len(packed) // 2])
    odd = tar(tmp_path / "odd.tar", [("1.txt", b"text"), ("2.png", picture()), ("3.json", b"{"), ("3.png", picture())])
    stream = open_shards([path, odd, tmp_path / "odd.tar"])
    assert len(samples(stream)) < 10
    assert stream.skipped == {"truncated archive": 1, "no picture": 2, "unusable text": 4}
    assert all("\n" not in line for line in stream.errors)


def test_names_with_several_dots_follow_webdataset():
    assert shards.sample_key("a.b/7.seg.PNG") == ("a.b/7", "seg.png")


def test_a_sample_is_parsed_once(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write_records(tmp_path, [Record(image="a.png"), Record(image="a.png")])
    from training.data import dataset as module

    parsed = []
    monkeypatch.setattr(
        module, "parse_record", lambda item, where: parsed.append(where) or parse_record(item, where=where)
    )
    data = RsfgDataset([tmp_path])
    assert data[1].image == "a.png" and data.image(1).shape == (4, 4, 3)
    assert len(parsed) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_plain_files_of_bearable_size_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no plain file"):
        read_bytes(tmp_path, "pipe.png")
    monkeypatch.setattr("training.data.images.MOST_BYTES", 10)
    with pytest.raises(DataError, match="more than 10"):
        read_bytes(tmp_path, "a.png")
