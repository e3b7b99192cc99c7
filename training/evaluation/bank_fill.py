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
            with contextlib.closing(make(missing)) as making, _memory():
                for number, vectors, skipped in making:
                    self.store.write(number, vectors, skipped)
                    shards[number] = self.store.read(number)
        if not all(shards):
            raise DataError(
                "does not hold what was written to it", path=self.store.folder, remedy="check the disk, then run again"
            )
        return tuple(shard for shard in shards if shard), time.monotonic() - began

    def _read(self, number: int, loads: Sequence[Load]) -> Shard | None:
        shard = self.store.read(number)
        if shard is None or not loads:
            return shard
        items = np.repeat(self.numbers(number), self.counts[self.firsts[number] : self.firsts[number + 1]])
        unread = {int(items[row]) for row, reason in shard.skipped.items() if reason != NO_BOX}
        mended = any(not isinstance(attempt(loads[item]), str) for item in unread)
        return None if mended else shard


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
        wanted = (self.loads[item] for shard in missing for item in job.numbers(shard) if job.counts[item])
        with contextlib.closing(read_ahead(wanted)) as pictures:
            for shard in missing:
                yield shard, *self._shard(shard, pictures)

    def _shard(self, shard: int, pictures: Iterator[Picture | str]) -> tuple[NDArray[np.float32], dict[int, str]]:
        vectors, reasons = [np.zeros((0, self.job.store.plan.width), np.float32)], list[str]()
        for items, part in self._batches(shard, pictures):
            more, why = self._batch(items, part)
            vectors.append(more)
            reasons += why
            self.job.tell(len(items))
        return np.concatenate(vectors), {row: reason for row, reason in enumerate(reasons) if reason}

    def _batches(
        self, shard: int, pictures: Iterator[Picture | str]
    ) -> Iterator[tuple[list[int], list[Picture | str]]]:
        items, part, size = list[int](), list["Picture | str"](), 0
        for item in self.job.numbers(shard):
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
