"""The order of the data, and batches in that order: a function of the seed, never of workers, ranks or restarts."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tiling.errors import GeoAlignError
from training.batch import Batch
from training.data.errors import DataError
from training.loop.collate import Reader, Sample

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from geoalign_core.models.config import ModelConfig
    from training.data.schema import Record
    from training.recipe import Recipe

LOG = logging.getLogger(__name__)
UNREADABLE = "record not readable"
"""Key of :attr:`Loader.skipped` for records that were replaced."""
_PREFETCH = 2
_MOST_BAD = 0.5
_MOST_COUNTED = np.iinfo(np.uint16).max  # of one reason in one record
_NAMED = 20
_SPARE_STEPS = 8


class Records(Protocol):
    """What is read: :class:`training.data.dataset.RsfgDataset`, or anything like it that can be pickled."""

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of the regions' categories; a name's place is its number in a run."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Record: ...
    def image(self, index: int, /) -> NDArray[np.uint8]:
        """Return a picture, uint8 RGB (H, W, 3), or raise DataError."""

    def key(self, index: int, /) -> str:
        """Return a record's name for messages."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """The order of an epoch: one permutation of all records, cut into global batches, these into the ranks' parts.

    What does not fill a last global batch is left out of the epoch; the next one has another order.

    Args:
        count: Records.
        batch: Records per rank and step.
        world: Ranks.
        rank: This one.
        seed: Of the order.

    Raises:
        DataError: There are fewer records than a step takes.
    """

    count: int
    batch: int
    world: int
    rank: int
    seed: int

    def __post_init__(self) -> None:
        if not (self.batch >= 1 and 0 <= self.rank < self.world and self.seed >= 0):
            raise ValueError(f"no such part of a batch: {self}")
        if not self.count:
            raise DataError(
                "there are no records to train on", remedy="give a data set that holds some, by data.train or --data"
            )
        if self.count < self.batch * self.world:
            most = self.count // self.world
            raise DataError(
                "there are fewer records than a step takes",
                measured=f"{self.count} records, {self.world} × {self.batch} per step",
                remedy=f"set optim.batch to {most} at most" if most else f"use {self.count} processes at most",
            )  # fmt: skip

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return self.count // (self.batch * self.world)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return this rank's records of an epoch, (steps, batch)."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        taken = order[: len(self) * self.world * self.batch].reshape(len(self), self.world, self.batch)
        own: NDArray[np.int64] = taken[:, self.rank]
        return own

    def batches(self, epoch: int, skip: int = 0) -> Iterator[list[int]]:
        """Yield this rank's records of each step of an epoch, from step ``skip`` on."""
        for indices in self.order(epoch)[skip:]:
            yield indices.tolist()


@dataclass(frozen=True, slots=True)
class _Task:
    """One batch to be made."""

    epoch: int
    indices: list[int]
    spares: list[int]
    """Records that replace those which cannot be read, in this order."""


class Loader:
    """Batches of a rank, from any step on, made by worker processes ahead of time.

    Args:
        dataset: The records.
        recipe: What is read of them.
        config: The model's, for pixels and texts.
        rank: This rank.
        world: Ranks.
        workers: Processes that read; 0 reads in this one. None takes the recipe's.

    Raises:
        DataError: There are fewer records than a step takes.
        UsageError: The recipe contradicts itself.
    """

    def __init__(
        self, dataset: Records, recipe: Recipe, config: ModelConfig, *,
        rank: int = 0, world: int = 1, workers: int | None = None,
    ) -> None:  # fmt: skip
        self.dataset, self.seed = dataset, recipe.run.seed
        self.workers = recipe.data.workers if workers is None else workers
        self.sampler = Sampler(len(dataset), recipe.optim.batch, world, rank, self.seed)
        self.unreadable: dict[str, str] = {}
        """Records that were replaced, by key, with the reason."""
        self._skips: dict[str, NDArray[np.uint16]] = {}
        self._bad: tuple[int, set[str]] = (0, set())
        reader = Reader(recipe, config)
        if reader.needs.categories:  # names are read from all the records: only where they are wanted
            reader = Reader(recipe, config, dataset.category_names)
        self._made = _Made(dataset, reader, self.seed)

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return len(self.sampler)

    @property
    def skipped(self) -> Counter[str]:
        """What was left out since the loader was made, by reason: each text, region and record once.

        A record is read in every epoch and augmented anew; of what it lost, the most in one reading counts.
        """
        counts = Counter({reason: int(most.sum()) for reason, most in self._skips.items()})
        return counts + Counter({UNREADABLE: len(self.unreadable)})

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """Yield batches without end, epoch after epoch, from global step ``step`` on.

        The worker processes end when the iterator is closed or forgotten.

        Raises:
            DataError: A worker died, or more than half of an epoch's records cannot be read.
        """
        tasks = _Order(self.sampler, step)
        loader: DataLoader[Any] = DataLoader(
            self._made, batch_size=None, sampler=tasks, num_workers=self.workers,
            prefetch_factor=_PREFETCH if self.workers else None,
            # A forked process inherits threads and locks of the parent in whatever state they are.
            multiprocessing_context="spawn" if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own, an iterator draws from the global generator, and a resumed run would differ.
            generator=torch.Generator().manual_seed(self.seed),
        )  # fmt: skip
        with contextlib.closing(_guarded(loader)) as made:
            for item in made:
                if item["failed"]:
                    raise DataError(item["failed"])
                self._count(item)
                yield Batch(**item["batch"])

    def _count(self, item: dict[str, Any]) -> None:
        """Take over what a worker counted, name records once, and stop where most of the data is bad."""
        for index, reason, number in item["skipped"]:
            most = self._skips.setdefault(reason, np.zeros(len(self.dataset), np.uint16))
            most[index] = max(int(most[index]), min(number, _MOST_COUNTED))
        if item["epoch"] != self._bad[0]:
            self._bad = (item["epoch"], set())
        bad = self._bad[1]
        for key, reason in item["bad"]:
            bad.add(key)
            if key in self.unreadable:
                continue
            self.unreadable[key] = reason
            if len(self.unreadable) <= _NAMED:
                LOG.warning("record left out: %s", reason)
            elif len(self.unreadable) == _NAMED + 1:
                LOG.warning("more records are left out, counted from here on")
        records = len(self) * self.sampler.batch
        if len(bad) > _MOST_BAD * records:
            raise _too_many(len(bad), records, item["bad"][-1][1] if item["bad"] else "")


def _too_many(bad: int, records: int, last: str) -> DataError:
    return DataError(
        "more than half of the records of an epoch cannot be read", measured=f"{bad} of {records}; the last: {last}",
        remedy="run: geoalign-data validate",
    )  # fmt: skip


def _guarded(loader: DataLoader[Any]) -> Generator[dict[str, Any]]:
    """Yield what workers make; the death of one is a line."""
    try:
        yield from _watched(loader)
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two where it dies while a batch is fetched
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that reads the data died", measured=" ".join(str(error).split())[:200],
            remedy="look for a lack of memory, set data.workers lower, or 0 to see the error",
        ) from error  # fmt: skip


def _watched(loader: DataLoader[Any]) -> Iterator[dict[str, Any]]:
    """Return the batches without PyTorch's answer to SIGCHLD, which raises wherever the program happens to be.

    Waiting for a batch looks every few seconds whether its worker lives: the death is an error of the data, not of a
    step in the middle of its update.
    """
    signum = getattr(signal, "SIGCHLD", None)
    if signum is None or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signum)
    batches = iter(loader)
    signal.signal(signum, signal.SIG_DFL if before is None else before)
    return batches


class _Order:
    """The tasks from a step on, without end."""

    def __init__(self, sampler: Sampler, step: int) -> None:
        self._sampler, self._step = sampler, step

    def __iter__(self) -> Iterator[_Task]:
        epoch, skip = divmod(self._step, len(self._sampler))
        while True:
            own = self._sampler.order(epoch)
            steps = len(own)
            # The rank's next records, and at last those of the step itself: a picture may come twice, a run goes on.
            most = min(steps - 1, _SPARE_STEPS)
            for step in range(skip, steps):
                later = own[[(step + 1 + ahead) % steps for ahead in range(most)]]
                yield _Task(epoch, own[step].tolist(), [*later.ravel().tolist(), *own[step].tolist()])
            epoch, skip = epoch + 1, 0


class _Made(Dataset[dict[str, Any]]):
    """Batches by task: what a worker process holds."""

    def __init__(self, dataset: Records, reader: Reader, seed: int) -> None:
        self.dataset, self.reader, self.seed = dataset, reader, seed

    def __getitem__(self, task: _Task) -> dict[str, Any]:
        """Return a batch as plain values, which may be pinned and cross processes; errors cross as text."""
        bad: list[tuple[str, str]] = []
        samples: list[Sample] = []
        taken: list[int] = []
        spares = iter(task.spares)
        for first in task.indices:
            index: int | None = first
            while index is not None:
                found = self._sample(index, task.epoch)
                if isinstance(found, Sample):
                    samples.append(found)
                    taken.append(index)
                    break
                bad.append(found)
                index = next(spares, None)
        made: dict[str, Any] = {"epoch": task.epoch, "bad": bad, "skipped": [], "batch": {}, "failed": ""}
        if len(samples) < len(task.indices):
            records = {key for key, _ in bad}  # the spares come round to records that were tried before
            made["failed"] = str(_too_many(len(records), len({*task.indices, *task.spares}), bad[-1][1]))
            return made
        batch, skipped = self.reader.batch(samples)
        return made | {
            "skipped": [
                (index, reason, number)
                for index, counts in zip(taken, skipped, strict=True)
                for reason, number in counts.items()
            ],
            "batch": {item.name: getattr(batch, item.name) for item in fields(Batch)},
        }

    def _sample(self, index: int, epoch: int) -> Sample | tuple[str, str]:
        """Return a record as a step of an epoch sees it, or its name and why it cannot be read."""
        rng = np.random.default_rng([self.seed, epoch, index, 1])
        key = self.dataset.key(index)
        try:
            return self.reader.sample(key, self.dataset[index], self.dataset.image(index), rng)
        except GeoAlignError as error:
            return key, str(error)
        except OSError as error:
            return key, f"{key}: {error}"
