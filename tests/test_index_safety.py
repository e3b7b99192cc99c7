"""Killed, edited, damaged, locked, full, read-only: the index survives and ends equal to an undisturbed one."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock

from geoalign_core.errors import IndexCorruptError
from geoalign_core.indexing import IndexBusyError, LinearQuery, open_index, score_maps
from geoalign_core.indexing.location import home_in_cache
from geoalign_core.indexing.store import load_index
from tests.index_tools import TinyEncoder, build, contents, picture, plan, save, square
from tiling.errors import OutputWriteError
from tiling.progress import CancelToken

REPO = Path(__file__).resolve().parents[1]
SMALL = {"levels": (1.0,)}


@pytest.fixture
def raster_path(tmp_path):
    return save(tmp_path / "town.tif", picture())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The files of an undisturbed index of the same raster."""
    return contents(build(save(tmp_path_factory.mktemp("reference") / "town.tif", picture())).root)


@pytest.fixture
def no_flushing(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


def start_builder(path, sleep_s):
    env = {**os.environ, "GEOALIGN_TEST_SLEEP": str(sleep_s), "PYTHONPATH": str(REPO)}
    return subprocess.Popen(
        [sys.executable, str(REPO / "tests" / "index_tools.py"), str(path)], env=env, stderr=subprocess.DEVNULL
    )


def shard_count(path):
    return len(list(path.parent.glob(f"{path.name}.geoalign/*/shards/L*")))


def test_sigkill_at_random_moments_then_the_same_bytes(raster_path, reference):
    rng = random.Random(7)
    for _ in range(10):
        before = shard_count(raster_path)
        builder = start_builder(raster_path, 0.01)
        while shard_count(raster_path) <= before and builder.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        assert builder.returncode in (-signal.SIGKILL, 0)
        if builder.returncode == 0:
            break
        with contextlib.suppress(IndexCorruptError):
            load_index(next(raster_path.parent.glob("*.geoalign/*")), plan(raster_path))
    assert shard_count(raster_path) > 1
    index = build(raster_path)
    assert index.complete
    assert contents(index.root) == reference
    assert build(raster_path, verify=True).reused


class Killed(BaseException):
    """Stands for a kill inside this process."""


@contextlib.contextmanager
def killed_after(monkeypatch, calls):
    """Die at the n-th call that makes something durable, and let nothing be cleaned up afterwards."""
    left = [calls]

    def guard(function):
        def call(*args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **options)

        return call

    remove = shutil.rmtree

    def remove_while_alive(*args, **options):
        if left[0] >= 0:
            remove(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", guard(lambda _: None))
        patch.setattr(os, "replace", guard(os.replace))
        patch.setattr(os, "rename", guard(os.rename))
        patch.setattr(Path, "rename", guard(Path.rename))
        patch.setattr(shutil, "rmtree", remove_while_alive)
        try:
            yield
        except Killed:
            left[0] = -(10**9)


def test_death_at_every_single_step_of_a_build(tmp_path, monkeypatch):
    image = picture(130, 260)
    clean = save(tmp_path / "clean.tif", image)
    expected = contents(build(clean, TinyEncoder(**SMALL)).root)
    path = save(tmp_path / "town.tif", image)
    deaths = 0
    for step in range(200):
        shutil.rmtree(f"{path}.geoalign", ignore_errors=True)
        finished = False
        with killed_after(monkeypatch, step):
            build(path, TinyEncoder(**SMALL))
            finished = True
        if finished:
            break
        deaths += 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)
            index = build(path, TinyEncoder(**SMALL))
        assert contents(index.root) == expected
    assert finished
    assert deaths > 20


def test_death_at_every_step_of_an_update(tmp_path, monkeypatch, no_flushing):
    before, after = picture(130, 260), picture(130, 260)
    after[:, 100:, 200:] = 77
    expected = contents(build(save(tmp_path / "clean.tif", after), TinyEncoder(**SMALL)).root)
    path = tmp_path / "town.tif"
    for step in range(200):
        shutil.rmtree(f"{path}.geoalign", ignore_errors=True)
        build(save(path, before), TinyEncoder(**SMALL))
        save(path, after)
        finished = False
        with killed_after(monkeypatch, step):
            build(path, TinyEncoder(**SMALL))
            finished = True
        if finished:
            break
        assert contents(build(path, TinyEncoder(**SMALL)).root) == expected
    assert finished
    assert step > 20


def test_an_edited_corner_costs_only_its_shards(raster_path, tmp_path, no_flushing):
    first = build(raster_path, TinyEncoder(**SMALL))
    image = picture()
    image[:, 400:, 500:] = 99
    save(raster_path, image)
    assert open_index(raster_path, first.spec) is None, "readers are told that it is stale"
    encoder = TinyEncoder(**SMALL)
    again = build(raster_path, encoder)
    assert again.report.built_shards == 1
    assert again.report.kept_shards == len(again.shards) - 1
    assert encoder.windows == again.report.embedded_windows < 16 + 1
    (tmp_path / "fresh").mkdir()
    assert contents(again.root) == contents(
        build(save(tmp_path / "fresh" / "town.tif", image), TinyEncoder(**SMALL)).root
    )


def test_pixels_that_turn_to_nodata_or_back_are_noticed(raster_path, tmp_path, no_flushing):
    first = build(raster_path, TinyEncoder(**SMALL))
    save(raster_path, picture(nodata_corner=200))
    second = build(raster_path, TinyEncoder(**SMALL))
    assert second.rows < first.rows
    save(raster_path, picture())
    assert build(raster_path, TinyEncoder(**SMALL)).rows == first.rows


def test_touching_the_file_embeds_nothing(raster_path, no_flushing):
    build(raster_path)
    os.utime(raster_path, ns=(1, 1))
    encoder = TinyEncoder()
    index = build(raster_path, encoder)
    assert encoder.windows == 0
    assert index.report.checked_windows > 0
    assert index.reused
    assert build(raster_path).report.checked_windows == 0


def test_an_edit_while_a_build_lay_interrupted_is_noticed(raster_path, tmp_path, no_flushing):
    token = CancelToken()

    def stop(done, total, stage):
        if done >= 60:
            token.cancel()

    with pytest.raises(Exception, match="stopped"):
        build(raster_path, progress=stop, cancel=token)
    image = picture()
    image[:, :40, :40] = 99
    save(raster_path, image)
    (tmp_path / "fresh").mkdir()
    expected = contents(build(save(tmp_path / "fresh" / "town.tif", image)).root)
    assert contents(build(raster_path).root) == expected


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "longer": lambda data: data + b"x",
    "header": lambda data: b"\x00" * 16 + data[16:],
    "missing": lambda data: None,
}


@pytest.mark.parametrize(
    "name", ["rows.npy", "scale.npy", "inv_norm.npy", "valid.npy", "windows.npy", "rows.parquet", "shard.json"]
)
def test_damaged_files_are_seen_on_opening_and_repaired(raster_path, reference, no_flushing, name):
    index = build(raster_path)
    for number, (kind, damage) in enumerate(DAMAGES.items()):
        if (name, kind) == ("rows.parquet", "header"):
            continue  # its size is unchanged: only --verify sees it
        file = index.root / "shards" / index.shards[number].id.name / name
        data = damage(file.read_bytes())
        file.unlink()
        if data is not None:
            file.write_bytes(data)
        assert open_index(raster_path, index.spec) is None, kind
        encoder = TinyEncoder()
        again = build(raster_path, encoder)
        assert again.report.built_shards == 1, kind
        assert encoder.windows <= 16
    assert contents(index.root) == reference


def test_flipped_bits_are_found_by_verify(raster_path, reference, no_flushing):
    index = build(raster_path)
    for number, name in enumerate(["rows.npy", "inv_norm.npy", "rows.parquet", "shard.json"]):
        file = index.root / "shards" / index.shards[number].id.name / name
        data = bytearray(file.read_bytes())
        data[len(data) * 2 // 3] ^= 0x10
        file.write_bytes(data)
    again = build(raster_path, verify=True)
    assert again.report.built_shards == 4
    assert contents(again.root) == reference


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[1,2]", b"\xff\xfe", b'{"schema": 1, "shards": 3}'])
@pytest.mark.parametrize("name", ["manifest.json", "build.json"])
def test_a_garbage_manifest_is_made_anew_from_the_shards(raster_path, reference, no_flushing, name, garbage):
    index = build(raster_path)
    whole = (index.root / "manifest.json").read_bytes()
    (index.root / "manifest.json").write_bytes(garbage)
    (index.root / name).write_bytes(garbage)
    encoder = TinyEncoder()
    build(raster_path, encoder)
    assert encoder.windows == 0
    assert (index.root / "manifest.json").read_bytes() == whole
    assert contents(index.root) == reference


def test_random_bytes_in_json_never_crash(raster_path, no_flushing):
    index = build(raster_path, TinyEncoder(**SMALL))
    rng = random.Random(3)
    for _ in range(40):
        file = rng.choice([*index.root.glob("*.json"), *index.root.glob("shards/*/shard.json")])
        data = bytearray(file.read_bytes())
        data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data)
        assert build(raster_path, TinyEncoder(**SMALL)).complete


def test_a_second_writer_gets_a_clear_error_and_a_patient_one_waits(raster_path, no_flushing):
    index = build(raster_path, area=square(raster_path, 10, 10, 10))
    with FileLock(index.root / "write.lock"):
        with pytest.raises(IndexBusyError, match=r"write\.lock: another process is building") as caught:
            build(raster_path)
        assert "\n" not in str(caught.value)
        assert build(raster_path, area=square(raster_path, 10, 10, 10)).reused, "readers never lock"
    lock = FileLock(index.root / "write.lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert build(raster_path, lock_timeout_s=20).complete


def test_two_processes_build_one_index(raster_path, reference):
    builders = [start_builder(raster_path, 0.01) for _ in range(2)]
    codes = [builder.wait(timeout=60) for builder in builders]
    assert 0 in codes
    index = build(raster_path)
    assert contents(index.root) == reference


def test_a_reader_goes_on_while_shards_are_replaced(raster_path, no_flushing):
    encoder = TinyEncoder()
    reader = build(raster_path, encoder)
    query = LinearQuery.from_text(encoder.encode_text(["x"]), encoder.readout)
    expected = score_maps(reader, query)[0].scores
    stop = threading.Event()
    failures = []

    def read():
        while not stop.is_set():
            try:
                fresh = load_index(reader.root, reader.spec)
                np.testing.assert_array_equal(score_maps(fresh, query)[0].scores, expected)
            except Exception as error:  # noqa: BLE001 - whatever happens in the thread must reach the test
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for round_ in range(len(reader.shards)):
        # One flipped bit per round that only the parquet table holds, so readers see the same numbers throughout.
        file = reader.root / "shards" / reader.shards[round_].id.name / "rows.parquet"
        flipped = file.read_bytes()[20] ^ 1
        with file.open("r+b") as stream:
            # In place: the reader must not meet a file that the test has just emptied.
            stream.seek(20)
            stream.write(bytes([flipped]))
        assert build(raster_path, verify=True).report.built_shards == 1
    stop.set()
    thread.join()
    assert not failures
    np.testing.assert_array_equal(score_maps(reader, query)[0].scores, expected)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GEOALIGN_CACHE", str(folder))
    return folder


def test_where_the_raster_is_not_writable_the_index_lies_in_the_cache(raster_path, reference, cache, no_flushing):
    (raster_path.parent / "town.tif.geoalign").write_text("in the way")
    index = build(raster_path)
    assert index.root.parent == home_in_cache(raster_path)
    assert index.root.is_relative_to(cache)
    assert index.root.parent.name.endswith("-town")
    assert contents(index.root) == reference
    assert build(raster_path).reused
    assert open_index(raster_path, index.spec).rows == index.rows


def test_nothing_is_written_to_use_what_is_there(raster_path, cache, no_flushing, monkeypatch):
    index = build(raster_path)

    plain = os.open

    def refuse_writing(path, flags, *args, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EACCES, "read-only")
        return plain(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse_writing)
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: refuse_writing("", os.O_CREAT))
    assert build(raster_path).root == index.root


def test_when_nowhere_is_writable_one_line_says_so(raster_path, tmp_path, monkeypatch):
    (raster_path.parent / "town.tif.geoalign").write_text("in the way")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEOALIGN_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputWriteError, match="cannot be written"):
        build(raster_path)


def test_a_full_disk_is_one_line_and_the_work_goes_on_later(tmp_path, reference, no_flushing):
    small = tmp_path / "small"
    small.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    try:
        path = save(small / "town.tif", picture(), compress="zstd")
        filler = small / "filler"
        free = shutil.disk_usage(small).free
        filler.write_bytes(b"\0" * max(0, free - 200_000))
        with pytest.raises(OutputWriteError, match="No space left") as caught:
            build(path)
        assert "\n" not in str(caught.value)
        assert not list(small.glob("*.geoalign/*/shards/.*")), "nothing half-written is left"
        filler.unlink()
        index = build(path)
        assert index.report.kept_shards > 0
        assert contents(index.root) == reference
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_disk_that_fills_inside_a_file_names_the_reason(raster_path, monkeypatch, no_flushing):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputWriteError, match=r"No space left on device\); free some space"):
        build(raster_path)
    monkeypatch.undo()
    assert build(raster_path).complete


def test_a_raster_replaced_by_one_of_another_size_gets_its_own_index(raster_path, no_flushing):
    first = build(raster_path)
    save(raster_path, picture(200, 300))
    second = build(raster_path)
    assert second.root != first.root
    with rasterio.open(raster_path) as raster:
        assert second.spec.levels[0].canvas.width_px >= raster.width
