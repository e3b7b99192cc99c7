"""Banks: the vectors are the model's, nothing is computed twice, and no accident on the way leaves a wrong row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from geoalign_core.features import encode_images, region_features
from tests.clip_tools import write_encoder
from tiling.errors import CancelledError, OutputWriteError
from tiling.progress import CancelToken
from training.data.errors import DataError
from training.evaluation import bank as banks
from training.evaluation import bank_fill
from training.evaluation.ahead import read_ahead
from training.evaluation.bank import Item, file_item, image_bank, region_bank, text_bank
from training.evaluation.ranking import Block, ranks, topk

WORDS = ["river", "a harbour with boats", "river", "farmland", "{braces} and 100 %", "river"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def encoder(model_folder):
    return write_encoder(model_folder)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(banks, "SHARD_ROWS", 4)
    monkeypatch.setattr(banks, "TEXT_SHARD_ROWS", 2)


def picture(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, size=(30 + 9 * (number % 3), 40, 3), dtype=np.uint8)


class Source:
    """Pictures that count how often they are read."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.read: list[int] = []
        self.broken = set(broken)
        self.items = [Item(f"{number}.png", lambda number=number: self._load(number)) for number in range(count)]

    def _load(self, number: int) -> np.ndarray:
        self.read.append(number)
        if number in self.broken:
            raise DataError("an image is damaged", path=f"{number}.png")
        return picture(number)


def direct(encoder, numbers) -> np.ndarray:
    return encode_images(encoder, [picture(number).transpose(2, 0, 1) for number in numbers])


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_images_have_the_models_vectors_in_their_order_and_are_read_once(encoder, tmp_path):
    source, told = Source(11), []
    bank = image_bank(
        encoder, source.items, tmp_path, batch=3, dtype="float32", progress=lambda *step: told.append(step)
    )
    np.testing.assert_allclose(bank.vectors, direct(encoder, range(11)), atol=1e-6)
    assert bank.shape == (11, 32)
    assert len(shard_files(tmp_path)) == 3
    assert sorted(source.read) == list(range(11))
    assert told[-1] == (11, 11, "embedding images")
    assert bank.seconds > 0
    again = image_bank(encoder, source.items, tmp_path, batch=5, dtype="float32")
    np.testing.assert_array_equal(again.vectors, bank.vectors)
    assert len(source.read) == 11
    assert again.seconds == 0


def test_rows_can_be_asked_for_as_of_an_array(encoder, tmp_path):
    bank = image_bank(encoder, Source(11).items, tmp_path)
    whole = np.asarray(bank)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    for key in (slice(2, 9), slice(None, None, -3), np.array([10, 0, 0, 5]), whole[:, 0] > 0, [3], slice(4, 4)):
        np.testing.assert_array_equal(bank[key], whole[key])
    np.testing.assert_array_equal(bank[-1], whole[-1])
    np.testing.assert_array_equal(bank.rows(3, 6), whole[3:6])
    with pytest.raises(IndexError):
        bank[11]


def test_float16_moves_cosines_by_its_last_digit_only(encoder, tmp_path):
    half, full = (image_bank(encoder, Source(9).items, tmp_path, dtype=kind) for kind in ("float16", "float32"))
    assert np.abs(half.vectors @ half.vectors.T - full.vectors @ full.vectors.T).max() < 5e-4
    assert half.digest != full.digest
    assert half.vectors.tobytes() != full.vectors.tobytes()


def test_unreadable_images_are_rows_of_nan_that_ranks_refuse(encoder, tmp_path):
    source = Source(6, broken=(1, 4))
    bank = image_bank(encoder, source.items, tmp_path)
    assert [(item.row, item.key) for item in bank.skipped] == [(1, "1.png"), (4, "4.png")]
    assert "damaged" in bank.skipped[0].reason
    assert bank.readable.tolist() == [0, 2, 3, 5]
    assert np.isnan(bank.vectors[[1, 4]]).all()
    np.testing.assert_allclose(bank[bank.readable], direct(encoder, [0, 2, 3, 5]), atol=1e-3)
    with pytest.raises(DataError, match="candidate 1 has no finite vector"):
        ranks(bank[bank.readable], bank, [[0]] * 4)


def test_an_image_that_was_mended_is_read_by_the_next_run(encoder, tmp_path):
    source = Source(10, broken=(1,))
    image_bank(encoder, source.items, tmp_path)
    assert image_bank(encoder, source.items, tmp_path).skipped[0].row == 1
    assert source.read.count(7) == 1  # the other shards are left alone
    source.broken.clear()
    bank = image_bank(encoder, source.items, tmp_path)
    assert not bank.skipped
    np.testing.assert_allclose(bank.vectors, direct(encoder, range(10)), atol=1e-3)
    assert source.read.count(7) == 1


def test_files_are_items_and_a_changed_file_is_another(encoder, tmp_path):
    from PIL import Image

    folder, cache = tmp_path / "images", tmp_path / "cache"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])

    def bank():
        return image_bank(encoder, [file_item(folder, f"{n}.png") for n in (0, 1, 2, 3)], cache)

    first = bank()
    assert [item.key for item in first.skipped] == ["2.png", "3.png"]
    np.testing.assert_allclose(first[[0, 1]], direct(encoder, [0, 1]), atol=1e-3)
    Image.fromarray(picture(5)).save(folder / "1.png")
    Image.fromarray(picture(2)).save(folder / "2.png")
    Image.fromarray(picture(3)).save(folder / "3.png")
    mended = bank()
    assert mended.readable.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(mended.vectors, direct(encoder, [0, 5, 2, 3]), atol=1e-3)


def test_uncompressed_pictures_of_one_size_are_told_apart(encoder, tmp_path):
    """An edited file, and another data set whose files have the same names and sizes."""
    from PIL import Image

    def bank(folder, seed):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(2):
            Image.fromarray(picture(seed + number)).resize((32, 32)).save(tmp_path / folder / f"{number}.bmp")
        return image_bank(encoder, [file_item(tmp_path / folder, f"{n}.bmp") for n in range(2)], tmp_path / "cache")

    first, edited, other = bank("one", 0), bank("one", 2), bank("two", 4)
    assert len({bank.digest for bank in (first, edited, other)}) == 3
    assert not np.allclose(first.vectors, edited.vectors) and not np.allclose(first.vectors, other.vectors)


def test_what_is_no_picture_is_skipped_and_what_is_a_fault_of_the_program_is_raised(encoder, tmp_path):
    gray = Item("gray.png", lambda: np.zeros((8, 8), np.uint8))
    bank = image_bank(encoder, [gray, *Source(2).items], tmp_path)
    assert "not an RGB image" in bank.skipped[0].reason

    def fault():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        image_bank(encoder, [Item("x", fault)], tmp_path)


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "foreign", "another shard", "text", "gone"])
def test_a_damaged_shard_is_made_again_and_no_other(encoder, tmp_path, harm):
    source = Source(12)
    before = image_bank(encoder, source.items, tmp_path).vectors
    first, second, third = shard_files(tmp_path)
    data = bytearray(second.read_bytes())
    if harm == "cut":
        second.write_bytes(data[:-7])
    elif harm == "flipped":
        data[-5] ^= 1
        second.write_bytes(data)
    elif harm == "empty":
        second.write_bytes(b"")
    elif harm == "foreign":
        other = tmp_path / "other"
        image_bank(encoder, [replace(item, version="2") for item in source.items], other)
        second.write_bytes(shard_files(other)[1].read_bytes())
        source.read.clear()
    elif harm == "another shard":
        second.write_bytes(third.read_bytes())
    elif harm == "text":
        second.write_bytes(b"\x05\0\0\0\0\0\0\0[1,2]")
    else:
        second.unlink()
    if harm != "foreign":
        source.read.clear()
    stamps = [path.stat().st_mtime_ns for path in (first, third)]
    np.testing.assert_array_equal(image_bank(encoder, source.items, tmp_path).vectors, before)
    assert sorted(source.read) == [4, 5, 6, 7]
    assert [path.stat().st_mtime_ns for path in (first, third)] == stamps


def test_other_models_items_and_preparations_have_banks_of_their_own(encoder, model_folder, tmp_path):
    items = Source(3).items
    cropping = replace(encoder.config, preprocess=replace(encoder.config.preprocess, mode="crop"))
    digests = {
        image_bank(encoder, items, tmp_path).digest,
        image_bank(encoder, items[::-1], tmp_path).digest,
        image_bank(encoder, [replace(items[0], version="5 bytes"), *items[1:]], tmp_path).digest,
        text_bank(encoder, WORDS, tmp_path).digest,
        text_bank(encoder, WORDS, tmp_path, templates=["a photo of {}."]).digest,
        text_bank(encoder, WORDS, tmp_path, templates=["a map of {}."]).digest,
    }
    digests.add(image_bank(write_encoder(model_folder, cropping), items, tmp_path).digest)
    assert len(digests) == 7


def test_texts_are_computed_once_and_templates_averaged(encoder, tmp_path):
    templates = ("a photo of {}.", "{} from above", "an image")
    with pytest.raises(DataError, match="needs one"):
        text_bank(encoder, WORDS, tmp_path, templates=templates)
    bank = text_bank(encoder, WORDS, tmp_path, templates=templates[:2], batch=3, dtype="float32")
    assert len(bank) == len(WORDS)
    for row, word in enumerate(WORDS):
        both = encoder.encode_text([template.replace("{}", word) for template in templates[:2]]).mean(axis=0)
        np.testing.assert_allclose(bank[row], both / np.linalg.norm(both), atol=2e-6)
    assert bank[0].tobytes() == bank[2].tobytes() == bank[5].tobytes()
    plain = text_bank(encoder, WORDS, tmp_path, dtype="float32")
    np.testing.assert_allclose(plain.vectors, encoder.encode_text(WORDS), atol=2e-6)


def test_banks_are_ranked_as_arrays_are(encoder, tmp_path):
    images, texts = image_bank(encoder, Source(6).items, tmp_path), text_bank(encoder, WORDS, tmp_path)
    right, block = [[number] for number in range(6)], Block(4, 3)
    for same in (None, WORDS):
        found = ranks(images, texts, right, same=same, block=block)
        assert found.tolist() == ranks(images.vectors, texts.vectors, right, same=same).tolist()
        assert found.max() <= (6 if same is None else 4)
    values, indices = topk(images, texts, 6, block=block)
    np.testing.assert_allclose(values, np.take_along_axis(images.vectors @ texts.vectors.T, indices, axis=1), atol=1e-6)


def test_nothing_in_gives_nothing_out(encoder, tmp_path):
    assert image_bank(encoder, [], tmp_path).vectors.shape == (0, 32)
    assert text_bank(encoder, [], tmp_path).vectors.shape == (0, 32)
    assert region_bank(encoder, [(Source(1).items[0], np.zeros((0, 4)))], tmp_path).vectors.shape == (0, 32)


BOXES = [
    np.array([[0, 0, 20, 20], [5, 5, 12, 30.0]]), np.zeros((0, 4)), np.array([[500, 500, 600, 600], [1, 2, 30, 20.0]]),
    np.array([[3, 3, 9, 9.0]]), np.array([[i, i, i + 9, i + 9.0] for i in range(7)]),
]  # fmt: skip


@pytest.mark.parametrize("view", ["roi", "crop", "both"])
def test_boxes_have_the_vectors_of_region_features(encoder, tmp_path, view):
    source = Source(5)
    bank = region_bank(encoder, list(zip(source.items, BOXES, strict=True)), tmp_path, view=view, dtype="float32")
    images = [picture(number).transpose(2, 0, 1) for number in range(5)]
    expected = region_features(images, BOXES, encoder=encoder, view=view)
    assert [(item.row, item.key) for item in bank.skipped] == [(2, "2.png, box 1")]
    np.testing.assert_array_equal(bank.readable, np.flatnonzero(expected.valid))
    np.testing.assert_allclose(bank[bank.readable], expected.mean[expected.valid], atol=2e-6)
    assert np.isnan(bank[2]).all()
    assert 1 not in source.read  # no boxes, no picture


def test_boxes_of_both_views_leave_nothing_to_do_for_one(encoder, tmp_path):
    source = Source(5, broken=(3,))
    items = list(zip(source.items, BOXES, strict=True))
    both = region_bank(encoder, items, tmp_path)
    assert [item.row for item in both.skipped] == [2, 4]
    source.read.clear()
    for view in ("roi", "crop"):
        assert region_bank(encoder, items, tmp_path, view=view).seconds == 0
    assert set(source.read) <= {3}  # only tried again
    moved = [(item, boxes + 1) for item, boxes in items]
    assert region_bank(encoder, moved, tmp_path).digest != both.digest


class Blind:
    """The model, but some of its vectors are useless."""

    def __init__(self, encoder, value: float) -> None:
        self._encoder, self._value = encoder, value

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_text(self, texts):
        vectors = self._encoder.encode_text(texts)
        vectors[[text == "farmland" for text in texts]] = self._value
        return vectors


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_model_that_gives_no_direction_is_an_error_that_names_the_item(encoder, tmp_path, value):
    with pytest.raises(DataError, match="no usable vector for 'farmland'"):
        text_bank(Blind(encoder, value), WORDS, tmp_path)
    assert len(text_bank(encoder, WORDS, tmp_path)) == len(WORDS)


def test_a_stopped_run_keeps_its_finished_shards(encoder, tmp_path):
    source, token = Source(12), CancelToken()

    def progress(done, total, stage):
        if done >= 10:
            token.cancel()

    with pytest.raises(CancelledError):
        image_bank(encoder, source.items, tmp_path, batch=2, progress=progress, cancel=token)
    assert len(shard_files(tmp_path)) == 2
    source.read.clear()
    told = []
    image_bank(encoder, source.items, tmp_path, batch=2, progress=lambda *step: told.append(step[0]))
    assert sorted(source.read) == [8, 9, 10, 11]
    assert told == [8, 10, 12]  # what is there shows before the first batch


@pytest.mark.skipif(os.name == "nt", reason="a limit of this system")
def test_a_disk_that_refuses_is_one_line_and_leaves_nothing(encoder, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(OutputWriteError, match="cannot be written"):
            image_bank(encoder, Source(5).items, tmp_path, dtype="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not shard_files(tmp_path)
    assert not list(tmp_path.glob("*/.*.tmp"))


SCRIPT = """
import time
from pathlib import Path
import numpy as np
from tests.clip_tools import write_encoder
from training.evaluation import bank, bank_fill

def load(number):
    time.sleep({pause})
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, size=(30 + 9 * (number % 3), 40, 3), dtype=np.uint8)

bank.SHARD_ROWS, bank_fill.KEEP_S = {rows}, 0.0
items = [bank.Item(f"{{n}}.png", lambda n=n: load(n)) for n in range(24)]
bank.image_bank(write_encoder(Path({model!r})), items, Path({work!r}), batch=2)
"""


def start(tmp_path, encoder_folder, pause, rows=4) -> subprocess.Popen:
    script = SCRIPT.format(work=str(tmp_path), model=str(encoder_folder), pause=pause, rows=rows)
    repo = str(Path(__file__).parents[1])
    return subprocess.Popen([sys.executable, "-c", script], cwd=repo, env={**os.environ, "PYTHONPATH": repo})


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_two_processes_share_one_computation_and_one_goes_on_when_the_other_is_killed(encoder, tmp_path, model_folder):
    process, source, made = start(tmp_path, model_folder, 0.4), Source(24), []
    wait_for(lambda: shard_files(tmp_path))
    told: list[tuple[int, str]] = []
    here = threading.Thread(
        target=lambda: made.append(
            image_bank(encoder, source.items, tmp_path, progress=lambda done, _, stage: told.append((done, stage)))
        )
    )
    here.start()
    wait_for(lambda: told and len(shard_files(tmp_path)) >= 3)
    assert not source.read  # this one waits for the other
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(shard_files(tmp_path))
    here.join(timeout=60)
    assert 3 <= kept < 6
    assert "waiting" in told[0][1]
    assert told[-1] == (24, "embedding images")
    assert sorted(source.read) == list(range(4 * kept, 24))
    np.testing.assert_allclose(made[0].vectors, direct(encoder, range(24)), atol=1e-3)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_run_goes_on_within_a_shard(encoder, tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(banks, "SHARD_ROWS", 1024)
    process, source, told = start(tmp_path, model_folder, 0.3, rows=1024), Source(24), []
    wait_for(lambda: part_rows(tmp_path) >= 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part_rows(tmp_path)
    assert 4 <= kept < 24 and not shard_files(tmp_path)
    bank = image_bank(encoder, source.items, tmp_path, progress=lambda done, *_: told.append(done))
    assert sorted(source.read) == list(range(kept, 24))  # and no image that was finished
    assert told[:2] == [0, kept] and told[-1] == 24
    np.testing.assert_allclose(bank.vectors, direct(encoder, range(24)), atol=1e-3)
    assert [path.name for path in shard_files(tmp_path)] == ["00000.safetensors"] and not parts(tmp_path)


def parts(folder: Path) -> list[Path]:
    return list(folder.glob("*/*.part"))


def part_rows(folder: Path) -> int:
    return max((load_file(path)["vectors"].shape[0] for path in parts(folder)), default=0)


def stopped(make, after: int) -> None:
    """Run until so many items are told."""

    def progress(done, *_):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(progress)


def test_parts_are_kept_of_slow_shards_only(encoder, tmp_path, monkeypatch):
    def make(progress):
        return image_bank(encoder, Source(4).items, tmp_path, batch=1, progress=progress)

    stopped(make, 3)
    assert not parts(tmp_path)  # it took no 20 seconds
    monkeypatch.setattr(bank_fill, "KEEP_S", 0.0)
    stopped(make, 3)
    assert part_rows(tmp_path) == 3


@pytest.mark.parametrize("harm", ["altered", "cut short", "mended"])
def test_a_part_that_cannot_be_used_is_made_again(encoder, tmp_path, monkeypatch, harm):
    monkeypatch.setattr(bank_fill, "KEEP_S", 0.0)
    broken = Source(4, broken=(1,))
    stopped(lambda progress: image_bank(encoder, broken.items, tmp_path, batch=1, progress=progress), 3)
    (path,), source = parts(tmp_path), Source(4, broken=() if harm == "mended" else (1,))
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    if harm != "mended":
        path.write_bytes(payload if harm == "altered" else payload[:-9])
    bank = image_bank(encoder, source.items, tmp_path)
    assert set(source.read) == ({1, 2, 3} if harm == "mended" else {0, 1, 2, 3})
    rows = [row for row in range(4) if row not in source.broken]
    np.testing.assert_allclose(bank.vectors[rows], direct(encoder, rows), atol=1e-3)
    assert [item.row for item in bank.skipped] == sorted(source.broken)


def test_texts_and_boxes_go_on_within_a_shard(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(bank_fill, "KEEP_S", 0.0)
    monkeypatch.setattr(banks, "TEXT_SHARD_ROWS", 8192)
    words, asked, real = [f"word {number}" for number in range(6)], [], encoder.encode_text
    stopped(lambda progress: text_bank(encoder, words, tmp_path / "t", batch=2, progress=progress), 4)
    monkeypatch.setattr(type(encoder), "encode_text", lambda self, texts, *a: asked.extend(texts) or real(texts, *a))
    bank = text_bank(encoder, words, tmp_path / "t")
    assert asked == words[4:]
    np.testing.assert_allclose(bank.vectors, real(words), atol=1e-3)

    boxes = [[[0, 0, 9, 9], [3, 3, 30, 20]], [], [[1, 1, 20, 20]]]
    more = {"view": "crop", "batch": 1}
    source = Source(3)
    items = list(zip(source.items, boxes, strict=True))
    stopped(lambda progress: region_bank(encoder, items, tmp_path / "b", progress=progress, **more), 2)
    source.read.clear()
    bank = region_bank(encoder, items, tmp_path / "b", **more)
    assert set(source.read) == {2}
    whole = region_bank(encoder, items, tmp_path / "c", **more)
    np.testing.assert_allclose(bank.vectors, whole.vectors, atol=1e-3)


def wait_for(true) -> None:
    deadline = time.monotonic() + 90
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_run_that_waits_for_another_can_be_stopped(encoder, tmp_path):
    from filelock import FileLock

    bank = image_bank(encoder, Source(3).items, tmp_path)
    (path,) = shard_files(tmp_path)
    path.unlink()
    token, stages = CancelToken(), []

    def progress(done, total, stage):
        stages.append(stage)
        token.cancel()

    with FileLock(path.parent / "write.lock", thread_local=False), pytest.raises(CancelledError):
        image_bank(encoder, Source(3).items, tmp_path, progress=progress, cancel=token)
    assert stages == ["waiting for another run that computes the same"]
    with pytest.raises(OSError):  # whichever the system says
        bank[0]


def test_reading_ahead_keeps_the_order_and_a_bounded_number_of_pictures():
    begun, lock = [], threading.Lock()

    def load(number):
        with lock:
            begun.append(number)
        time.sleep(0.002 * (number % 3))
        return np.full((10, 10, 3), number, np.uint8)

    pictures = read_ahead((lambda n=n: load(n) for n in range(60)), threads=3, waiting_bytes=1500)
    ahead = []
    for number, found in enumerate(pictures):
        assert found[0, 0, 0] == number
        time.sleep(0.02 * (number < 3))
        ahead.append(len(begun) - number - 1)
    # Five pictures of 300 bytes wait, and each thread may have one on its way.
    assert max(ahead) <= 5 + 3
    assert max(ahead[:3]) >= 5
    assert sorted(begun) == list(range(60))


def test_reading_ahead_ends_its_threads_when_nobody_listens():
    before = threading.active_count()
    pictures = read_ahead(((lambda: np.zeros((2, 2, 3), np.uint8)) for _ in range(1000)), threads=4)
    next(pictures)
    pictures.close()
    assert threading.active_count() == before
