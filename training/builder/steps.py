"""The one way a step of the builder runs: record by record, in any order, killed at any moment, the same bytes.

A step is a pure function of a record and its picture. Finished records go to a journal beside the output, keyed by
what decides them (the record and the step's settings); a second run does only what is missing. When all are there,
``records.jsonl`` is written in the order of the input, with ``rejected.jsonl`` (what was dropped and why),
``report.json`` (counts) and ``step.json`` (what it was made from), and the journal goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiling.errors import CancelledError, GeoAlignError, OutputExistsError, UsageError
from tiling.files import atomic_file, write_error
from tiling.progress import CancelToken, Progress, silent
from training.data.dataset import line_of
from training.data.errors import DataError
from training.data.images import decode, plain_path, rebase, split_name
from training.data.schema import Record, parse_record, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

RECORDS, REJECTED, REPORT, STAMP, JOURNAL = (
    "records.jsonl", "rejected.jsonl", "report.json", "step.json", ".journal.jsonl",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a record is left out."""

    reason: str
    """A few words that are counted, the same for every record with this fault."""
    measured: str = ""
    """The value that decided, in words."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A record that goes on, and what is worth counting about it."""

    record: Record
    counts: Mapping[str, int]


class Supply(Protocol):
    """Where a step's records come from, as :class:`training.data.dataset.RsfgDataset` is."""

    @property
    def digest(self) -> str:
        """SHA-256 that changes with the records."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...

    def image_bytes(self, index: int, /) -> bytes:
        """Return the bytes of the picture's file."""

    def root(self, index: int, /) -> Path:
        """Return the folder that the record's image path is relative to."""

    def key(self, index: int, /) -> str:
        """Return the record's name for messages."""


class Picture:
    """A record's picture, read when it is asked for; both properties raise ``DataError``."""

    def __init__(self, source: Supply, index: int) -> None:
        self._source, self._index = source, index

    @cached_property
    def content(self) -> bytes:
        """Bytes of the file."""
        return self._source.image_bytes(self._index)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Uint8 RGB (H, W, 3)."""
        place = self.root / self._source[self._index].image
        return decode(self.content, f"{self._source.key(self._index)}: {plain_path(place)}")

    @property
    def root(self) -> Path:
        """Folder that the record's image path is relative to."""
        return self._source.root(self._index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done to every record."""

    name: str
    settings: Mapping[str, Any]
    """Everything beside the record that decides the result; plain JSON."""
    apply: Callable[[Record, Picture], Record | Noted | Rejection]
    """Must not depend on other records, on time or on the order; is called from several threads."""
    settle: Callable[[Iterable[Record]], Mapping[int, Rejection]] | None = None
    """Looks at all records that are left, and rejects by their place among them (duplicates)."""
    needs_content: bool = False
    """Whether the picture's bytes decide the result and the record may not know their digest yet."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did; the same for an undisturbed and a resumed run."""

    step: str
    read: int
    written: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as ``report.json`` holds it."""
        return {
            "step": self.step, "read": self.read, "written": self.written,
            "rejected": dict(sorted(self.rejected.items())), "counts": dict(sorted(self.counts.items())),
        }  # fmt: skip


def record_rng(record: Record, seed: int, purpose: str = "") -> np.random.Generator:
    """Return the random numbers of a record: a function of the seed and of its image, never of its place."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{record.md5 or PurePosixPath(record.image).name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def canonical(item: object) -> str:
    """Return the one JSON text of a value: what digests are taken of."""
    return json.dumps(item, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _Journal:
    """Outcomes on disk by key; a line that a kill has cut is forgotten."""

    def __init__(self, path: Path) -> None:
        self._places: dict[str, int] = {}
        try:
            path.touch()
            self._handle = path.open("r+b")
            good = 0
            for line in self._handle:
                try:
                    self._places[json.loads(line)["key"]] = good
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                good += len(line)
            self._places = {key: place for key, place in self._places.items() if place < good}
            self._handle.truncate(good)
            self._handle.seek(0, os.SEEK_END)
        except OSError as error:
            raise write_error(path, error) from error
        self._path = path

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def add(self, key: str, entry: dict[str, Any]) -> None:
        try:
            place = self._handle.seek(0, os.SEEK_END)
            self._handle.write(json.dumps({"key": key, **entry}, ensure_ascii=False).encode() + b"\n")
            self._handle.flush()
        except OSError as error:
            raise write_error(self._path, error) from error
        self._places[key] = place

    def get(self, key: str) -> dict[str, Any]:
        self._handle.seek(self._places[key])
        return json.loads(self._handle.readline())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._handle.close()


def run_step(
    step: Step, source: Supply, out: Path, *, workers: int = 1, progress: Progress = silent,
    cancel: CancelToken | None = None, overwrite: bool = False,
) -> StepReport:  # fmt: skip
    """Run a step over a source and write its folder; go on where an earlier run stopped.

    A folder that was made from the same records with the same settings is left as it is.

    Args:
        step: What is done.
        source: The records.
        out: Folder of the result; a folder that this mechanism wrote is replaced.
        workers: Threads that run ``step.apply``.
        progress: Told after every record.
        cancel: Stops between records; what is finished is kept.
        overwrite: Whether a ``records.jsonl`` that was not made by a step may be replaced.

    Raises:
        OutputExistsError: ``out`` holds records of other origin.
        UsageError: ``out`` is where the input lies, or another process works there.
        CancelledError: Stopped.
    """
    import filelock

    cancel = cancel or CancelToken()
    made_from = hashlib.sha256(canonical([step.name, step.settings, source.digest]).encode()).hexdigest()
    if (out / RECORDS).exists() and not (out / STAMP).exists() and not overwrite:
        raise OutputExistsError("already holds records", path=out, remedy="add --overwrite or give another folder")
    if len(source) and (out / RECORDS).exists() and source.root(0).resolve() == out.resolve():
        raise UsageError("a step cannot write where it reads", path=out, remedy="give another folder with -o")
    if (done := _finished(out, made_from)) is not None:
        progress(done.read, done.read, step.name)
        return done
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UsageError("another process writes here", path=out, remedy="wait for it, or give another -o") from error
    journal = _Journal(out / JOURNAL)
    try:
        _work(step, source, journal, workers, progress, cancel)
        report = _write(step, source, journal, out, made_from)
    finally:
        journal.close()
        lock.release()
    (out / JOURNAL).unlink(missing_ok=True)
    (out / ".lock").unlink(missing_ok=True)
    return report


def _finished(out: Path, made_from: str) -> StepReport | None:
    try:
        if json.loads((out / STAMP).read_text(encoding="utf-8"))["made_from"] != made_from:
            return None
        item = json.loads((out / REPORT).read_text(encoding="utf-8"))
        return StepReport(**item) if (out / RECORDS).exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(step: Step, record: Record, root: Path) -> str:
    item: list[Any] = [step.name, step.settings, to_json(record)]
    if step.needs_content and record.md5 is None:
        # A picture that was replaced between two runs must not get the old one's figures.
        file = root / split_name(record.image)[0]
        with contextlib.suppress(OSError):
            item += [file.stat().st_size, file.stat().st_mtime_ns]
    return hashlib.sha256(canonical(item).encode()).hexdigest()


def _entry(step: Step, source: Supply, index: int, record: Record) -> dict[str, Any]:
    try:
        outcome = step.apply(record, Picture(source, index))
    except DataError as error:
        outcome = Rejection("image cannot be read", str(error))
    if isinstance(outcome, Rejection):
        return {"rejected": [outcome.reason, outcome.measured]}
    if isinstance(outcome, Noted):
        return {"record": to_json(outcome.record), "counts": {k: n for k, n in outcome.counts.items() if n}}
    return {"record": to_json(outcome)}


def _work(step: Step, source: Supply, journal: _Journal, workers: int, progress: Progress, cancel: CancelToken) -> None:
    """Do what the journal lacks; an error or a cancel first keeps what is under way."""
    total, done = len(source), 0
    failure: GeoAlignError | None = None
    running: dict[Future[dict[str, Any]], str] = {}

    def reap(*, least: int) -> None:
        nonlocal done, failure
        while len(running) > least:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                key = running.pop(future)
                try:
                    journal.add(key, future.result())
                except GeoAlignError as error:
                    # The first real error is told; the cancellations that follow from it are not.
                    if failure is None or isinstance(failure, CancelledError):
                        failure = error
                    continue
                done += 1
                progress(done, total, step.name)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for index in range(total):
                if cancel.cancelled or failure is not None:
                    break
                record = source[index]
                key = _key(step, record, source.root(index))
                if key in journal:
                    done += 1
                    progress(done, total, step.name)
                    continue
                running[pool.submit(_entry, step, source, index, record)] = key
                reap(least=2 * workers)
            reap(least=0)
        except BaseException:
            cancel.cancel()  # threads that wait for a server look at it
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failure is not None:
        raise failure
    cancel.check()


def _write(step: Step, source: Supply, journal: _Journal, out: Path, made_from: str) -> StepReport:
    """Write the four files; the stamp comes last, because it says that the others are whole."""
    keys = [_key(step, source[index], source.root(index)) for index in range(len(source))]

    def left() -> Iterator[Record]:
        for key in keys:
            entry = journal.get(key)
            if "record" in entry:
                yield parse_record(entry["record"], where="journal")

    late = step.settle(left()) if step.settle else {}
    rejected: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    written = survivor = 0
    (out / STAMP).unlink(missing_ok=True)
    with (
        atomic_file(out / RECORDS, overwrite=True) as records_path,
        atomic_file(out / REJECTED, overwrite=True) as rejected_path,
        records_path.open("wb") as records,
        rejected_path.open("w", encoding="utf-8") as refused,
    ):
        for index, key in enumerate(keys):
            entry = journal.get(key)
            reason = entry.get("rejected")
            if reason is None:
                if survivor in late:
                    reason = [late[survivor].reason, late[survivor].measured]
                survivor += 1
            if reason is None:
                counts.update(entry.get("counts", {}))
                record = rebase(parse_record(entry["record"], where="journal"), source.root(index), out)
                records.write(line_of(record))
                written += 1
            else:
                rejected[reason[0]] += 1
                item = {"image": rebase(source[index], source.root(index), out).image, "reason": reason[0]}
                refused.write(json.dumps({**item, "measured": reason[1]}, ensure_ascii=False) + "\n")
    report = StepReport(step.name, len(keys), written, dict(sorted(rejected.items())), dict(sorted(counts.items())))
    write_json(out / REPORT, report.to_json())
    write_json(out / STAMP, {"step": step.name, "settings": dict(step.settings), "made_from": made_from})
    return report


def write_json(path: Path, item: object) -> None:
    """Write a value as a JSON file, whole or not at all."""
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(item, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
