"""Filling a bank: which shards are missing, and their rows from pictures that are read ahead."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.evaluation.ahead import WAITING_BYTES, attempt, read_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from tiling.progress import CancelToken, Progress
    from training.evaluation.ahead import Load
    from training.evaluation.bank_store import Shard, Store

    Picture = NDArray[np.uint8]
    Rows = tuple[NDArray[np.float32], list[str]]
    """Vectors, and for each why there is none, or ""."""
    Encode = Callable[[Sequence[int], list[Picture]], Rows]
    """Numbers of items and their pictures → the rows of all of them."""
    Made = tuple[int, NDArray[np.float32], dict[int, str]]
    """Shard, its rows, and row → why there is none."""

NO_BOX = "the box shows nothing of the image"
KEEP_S = 20.0
"""A shard that takes longer is kept in parts: a killed run loses so many seconds. Fast machines write whole shards."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What another run has made of a shard."""

    items: int
    """How many of its first items are finished."""
    vectors: NDArray[np.float32]
    """(R, D)"""
    reasons: list[str]
    """Of each row why there is no vector, or ""."""


@dataclass(frozen=True, slots=True)
class Filling:
    """One bank that is being filled."""

    store: Store
    firsts: NDArray[np.int64]
    """First item of each shard, and the number of items."""
    counts: NDArray[np.int64]
    """Rows of each item."""
    stage: str
    progress: Progress
    cancel: CancelToken
    _done: list[int] = field(default_factory=lambda: [0])
    _written: list[float] = field(default_factory=lambda: [0.0])

    def numbers(self, shard: int) -> range:
        """Return the items of a shard."""
        return range(int(self.firsts[shard]), int(self.firsts[shard + 1]))

    def tell(self, items: int) -> None:
        """Count items as done; the place to stop.

        Raises:
            CancelledError: The token was set.
        """
        self._done[0] += items
        self.progress(self._done[0], int(self.firsts[-1]), self.stage)
        self.cancel.check()

    def fill(
        self, make: Callable[[Sequence[int]], Generator[Made, None, None]], loads: Sequence[Load] = ()
    ) -> tuple[tuple[Shard, ...], float]:
        """Read the shards, and make those that are missing.

        Args:
            make: Yields the shards that it is given, in order.
            loads: Of the items; a shard that lacks one that can be read now is made again.

        Returns:
            All shards, and the seconds that making took.
        """
        self.cancel.check()
        began = time.monotonic()
        shards = [self._read(number, loads) for number in range(len(self.store))]
        if all(shards):
            return tuple(shard for shard in shards if shard), 0.0
        with self.store.writer(self.progress, self.cancel):
            self.store.describe()
            # Another run may have made some while this one waited for it.
            shards = [shard or self._read(number, loads) for number, shard in enumerate(shards)]
            missing = [number for number, shard in enumerate(shards) if shard is None]
            self._done[0] = sum(len(self.numbers(number)) for number, shard in enumerate(shards) if shard)
            self.tell(0)  # before the first batch, which may take a while
            self._written[0] = time.monotonic()
            with contextlib.closing(make(missing)) as making, _memory():
                for number, vectors, skipped in making:
                    self.store.write(number, vectors, skipped)
                    shards[number] = self.store.read(number)
                    self._written[0] = time.monotonic()
        if not all(shards):
            raise DataError(
                "does not hold what was written to it", path=self.store.folder, remedy="check the disk, then run again"
            )
        return tuple(shard for shard in shards if shard), time.monotonic() - began

    def _read(self, number: int, loads: Sequence[Load]) -> Shard | None:
        shard = self.store.read(number)
        return None if shard and loads and self._mended(number, shard, loads) is not None else shard

    def _mended(self, number: int, shard: Shard, loads: Sequence[Load]) -> int | None:
        """Return the first item that could not be read and can be read now."""
        items = np.repeat(self.numbers(number), self.counts[self.firsts[number] : self.firsts[number + 1]])
        unread = {int(items[row]) for row, reason in shard.skipped.items() if reason != NO_BOX}
        return next((item for item in sorted(unread) if not isinstance(attempt(loads[item]), str)), None)

    def begun(self, number: int, loads: Sequence[Load] = ()) -> Begun:
        """Return what another run has made of a shard, up to the first item that can be read only now."""
        part, first = self.store.read_part(number), int(self.firsts[number])
        if part is None:
            return Begun(0, np.zeros((0, self.store.plan.width), np.float32), [])
        ends = np.cumsum(self.counts[first : self.firsts[number + 1]])
        items = int(np.searchsorted(ends, part.shape[0], side="right"))
        if loads and (mended := self._mended(number, part, loads)) is not None:
            items = mended - first
        rows = int(ends[items - 1]) if items else 0
        return Begun(items, np.array(part.map()[:rows], np.float32), [part.skipped.get(row, "") for row in range(rows)])

    def keep(self, number: int, vectors: Sequence[NDArray[np.float32]], reasons: Sequence[str] = ()) -> None:
        """Write the first rows of a shard, of whole items, where nothing was written for a while.

        Raises:
            OutputWriteError: The disk is full or refuses.
        """
        if time.monotonic() - self._written[0] < KEEP_S or sum(map(len, vectors)) == self.store.rows(number):
            return
        skipped = {row: reason for row, reason in enumerate(reasons) if reason}
        self.store.write(number, np.concatenate(vectors), skipped, part=True)
        self._written[0] = time.monotonic()


@dataclass(frozen=True, slots=True)
class Pictures:
    """Makes shards from pictures."""

    job: Filling
    loads: Sequence[Load]
    encode: Encode
    batch: int

    def make(self, missing: Sequence[int]) -> Generator[Made, None, None]:
        """Yield shards as they are finished."""
        job = self.job
        begun = {shard: job.begun(shard, self.loads) for shard in missing}
        left = {shard: job.numbers(shard)[part.items :] for shard, part in begun.items()}
        wanted = (self.loads[item] for items in left.values() for item in items if job.counts[item])
        with contextlib.closing(read_ahead(wanted)) as pictures:
            for shard in missing:
                yield shard, *self._shard(shard, begun.pop(shard), left[shard], pictures)

    def _shard(
        self, shard: int, begun: Begun, left: range, pictures: Iterator[Picture | str]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        vectors, reasons = [begun.vectors], begun.reasons
        if begun.items:
            self.job.tell(begun.items)
        for items, part in self._batches(left, pictures):
            more, why = self._batch(items, part)
            vectors.append(more)
            reasons += why
            self.job.keep(shard, vectors, reasons)
            self.job.tell(len(items))
        return np.concatenate(vectors), {row: reason for row, reason in enumerate(reasons) if reason}

    def _batches(
        self, left: range, pictures: Iterator[Picture | str]
    ) -> Iterator[tuple[list[int], list[Picture | str]]]:
        items, part, size = list[int](), list["Picture | str"](), 0
        for item in left:
            picture = next(pictures) if self.job.counts[item] else "no boxes"
            items.append(item)
            part.append(picture)
            size += 0 if isinstance(picture, str) else picture.nbytes
            if len(part) >= self.batch or size >= WAITING_BYTES:
                yield items, part
                items, part, size = [], [], 0
        if items:
            yield items, part

    def _batch(self, items: list[int], pictures: list[Picture | str]) -> Rows:
        """Return the rows of some items; those of a picture that cannot be read have its reason."""
        checked = [picture if isinstance(picture, str) else _refusal(picture) or picture for picture in pictures]
        good = [(item, picture) for item, picture in zip(items, checked, strict=True) if not isinstance(picture, str)]
        reasons = [
            picture if isinstance(picture, str) else ""
            for item, picture in zip(items, checked, strict=True)
            for _ in range(self.job.counts[item])
        ]
        vectors = np.zeros((len(reasons), self.job.store.plan.width), np.float32)
        if good:
            rows = [row for row, reason in enumerate(reasons) if not reason]
            vectors[rows], found = self.encode([item for item, _ in good], [picture for _, picture in good])
            for row, reason in zip(rows, found, strict=True):
                reasons[row] = reason
        return vectors, reasons


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Say what to do when the accelerator is too small for a batch."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DataError(
            "the accelerator's memory does not hold a batch", measured=str(error).splitlines()[0][:80],
            remedy="take a smaller batch; finished parts are kept",
        ) from error  # fmt: skip


def _refusal(picture: Picture) -> str:
    """Return why an array is no picture, or ""."""
    fits = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and 0 not in picture.shape
    return "" if fits else f"is not an RGB image of 8 bits ({picture.dtype} {picture.shape})"
