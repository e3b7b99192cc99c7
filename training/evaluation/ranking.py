"""Ranks and nearest rows of large similarity tables, block by block, without the table.

Similarities are cosines: both sides are L2-normalised, as banks are. Products are summed in float32 whatever the model
ran in; TF32 is off. Sums of 768 products err by some 10⁻⁷, so that equal texts may differ there, by where in a block
they lie: cosines within :data:`TIE` of each other are equal.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tiling.progress import CancelToken, silent
from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from tiling.progress import Progress

TIE = 1e-6
BUDGET_BYTES = 1 << 30
"""For blocks, besides what the caller holds."""
_COLUMNS = 4096
Ties = Literal["pessimistic", "optimistic"]


class Rows(Protocol):
    """(N, D) vectors that give some of their rows: an array, or a :class:`~training.evaluation.bank.Bank`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401 - a slice or an array of rows
        """Return (n, D)."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """Sizes of one block of the table."""

    queries: int
    candidates: int

    @classmethod
    def within(cls, budget_bytes: int, width: int, each_bytes: int = 5) -> Block:
        """Return the largest block that fits.

        A query takes 12·D bytes (as stored, as float32, on the device), and so does a candidate.

        Args:
            budget_bytes: For everything.
            width: D.
            each_bytes: For one similarity: 4 itself and 1 compared, or 40 where the best are sorted out.
        """
        columns = min(_COLUMNS, max(1, budget_bytes // (48 * width)))
        return cls(max(1, (budget_bytes - 12 * width * columns) // (12 * width + each_bytes * columns)), columns)


@dataclass(frozen=True, slots=True)
class Positives:
    """Which candidates are right, for all queries one after the other."""

    starts: NDArray[np.int64]
    """(N + 1,)"""
    columns: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | NDArray[np.integer]], queries: int, candidates: int) -> Positives:
        """Check and flatten lists.

        Raises:
            DataError: A query has no positive, or one that there is not; the query is named.
        """
        if len(lists) != queries:
            raise DataError("every query needs its positives", measured=f"{queries} queries, {len(lists)} lists")
        lengths = np.fromiter((len(item) for item in lists), np.int64, len(lists))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            raise DataError(
                f"query {empty[0]} has no right candidate", measured=f"{len(empty)} such queries",
                remedy="leave them out, and count them",
            )  # fmt: skip
        columns = np.fromiter((value for item in lists for value in item), np.int64, int(starts[-1]))
        wrong = np.flatnonzero((columns < 0) | (columns >= candidates))
        if len(wrong):
            query = int(np.searchsorted(starts, wrong[0], side="right")) - 1
            raise DataError(
                f"query {query} names a candidate that there is not",
                measured=f"{columns[wrong[0]]} of {candidates}", remedy="count candidates from 0",
            )  # fmt: skip
        return cls(starts, columns)

    def part(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs of some queries: rows counted from ``start``, and columns."""
        rows = np.repeat(np.arange(stop - start), np.diff(self.starts[start : stop + 1]))
        return rows, self.columns[self.starts[start] : self.starts[stop]]


def ranks(
    queries: Rows,
    candidates: Rows,
    positives: Sequence[Sequence[int] | NDArray[np.integer]],
    *,
    ties: Ties = "pessimistic",
    same: Sequence[Any] | NDArray[Any] | None = None,
    budget_bytes: int = BUDGET_BYTES,
    block: Block | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> NDArray[np.int64]:
    """Give the rank of each query's best right candidate: 1 + how many wrong ones are before it.

    Args:
        queries: (N, D), L2-normalised.
        candidates: (M, D), L2-normalised.
        positives: For each query the candidates that are right, from 0; at least one.
        ties: Whether wrong candidates with the same cosine are before it (``pessimistic``) or behind (``optimistic``).
        same: (M,) a label for each candidate, its text say; those of one label count once, by the first of them, and
            are right together.
        budget_bytes: Memory for blocks.
        block: Their sizes, instead.
        device: Where the products are made.
        progress: Told the queries done.
        cancel: Looked at after each block.

    Returns:
        (N,) from 1.

    Raises:
        DataError: A query has no positive, sizes differ, or a value is not finite.
        CancelledError: The token was set.
    """
    _check_widths(queries, candidates)
    if same is not None:
        candidates, positives = _once(candidates, positives, same)
    count = queries.shape[0]
    right = Positives.of(positives, count, candidates.shape[0])
    out = np.empty(count, np.int64)
    block = block or Block.within(budget_bytes, queries.shape[1])
    margin = -TIE if ties == "pessimistic" else TIE
    job = _Sweep(candidates, block, device, cancel or CancelToken())
    for start in range(0, count, block.queries):
        stop = min(start + block.queries, count)
        asked = job.put(queries, start, stop, "query")
        rows, columns = right.part(start, stop)
        best = job.best(asked, rows, columns, budget_bytes // 2)
        out[start:stop] = 1 + job.count(asked, best + margin, rows, columns)
        progress(stop, count, "ranking")
    return out


def topk(
    queries: Rows,
    candidates: Rows,
    k: int,
    *,
    budget_bytes: int = BUDGET_BYTES,
    block: Block | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Give the k most similar candidates of each query.

    Args:
        queries: (N, D), L2-normalised.
        candidates: (M, D), L2-normalised.
        k: How many; all M where there are fewer.
        budget_bytes: Memory for blocks.
        block: Their sizes, instead.
        device: Where the products are made.
        progress: Told the queries done.
        cancel: Looked at after each block.

    Returns:
        (N, k) cosines, falling, and (N, k) candidates; those of one cosine in their own order.

    Raises:
        DataError: Sizes differ, or a value is not finite.
        CancelledError: The token was set.
    """
    _check_widths(queries, candidates)
    count, k = queries.shape[0], max(0, min(k, candidates.shape[0]))
    values, indices = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
    block = block or Block.within(budget_bytes, queries.shape[1], each_bytes=40)
    job = _Sweep(candidates, block, device, cancel or CancelToken())
    for start in range(0, count, block.queries):
        stop = min(start + block.queries, count)
        values[start:stop], indices[start:stop] = job.top(job.put(queries, start, stop, "query"), k)
        progress(stop, count, "searching")
    return values, indices


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One query block against all candidates."""

    candidates: Rows
    block: Block
    device: str
    cancel: CancelToken

    def put(self, source: Rows, start: int, stop: int, what: str) -> torch.Tensor:
        """Return (n, D) float32 rows on the device.

        Raises:
            DataError: A value is not finite; the row is named.
        """
        return self._put(source[start:stop], np.arange(start, stop), what)

    def _put(self, taken: Any, numbers: NDArray[np.int64], what: str) -> torch.Tensor:  # noqa: ANN401 - array-like
        import torch

        array = np.ascontiguousarray(taken, np.float32)
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise DataError(
                f"{what} {numbers[bad[0]]} has no finite vector", measured=f"{len(bad)} in its block",
                remedy="leave out what a bank lists as skipped, and count it",
            )  # fmt: skip
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device)

    def scores(self, asked: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the number of a block's first candidate, and the (n, m) similarities."""
        total = self.candidates.shape[0]
        for start in range(0, total, self.block.candidates):
            self.cancel.check()
            with _exact_products():
                found = (
                    asked @ self.put(self.candidates, start, min(start + self.block.candidates, total), "candidate").T
                )
            yield start, found
            del found  # so that the next block is not the second: whoever takes it lets it go, too

    def best(
        self, asked: torch.Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64], budget_bytes: int
    ) -> torch.Tensor:
        """Return (n,) the highest similarity of each query to a right candidate.

        Args:
            asked: (n, D) queries.
            rows: (P,) query of each right pair.
            columns: (P,) its candidate.
            budget_bytes: Memory for the pairs' vectors.
        """
        import torch

        best = torch.full((len(asked),), -torch.inf, device=asked.device)
        step = max(1, budget_bytes // (20 * asked.shape[1]))
        for start in range(0, len(rows), step):
            self.cancel.check()
            at = torch.from_numpy(rows[start : start + step]).to(asked.device)
            some, where = np.unique(columns[start : start + step], return_inverse=True)
            right = self._put(self.candidates[some], some, "candidate")
            found = (asked[at] * right[torch.from_numpy(where).to(asked.device)]).sum(dim=1)
            best.scatter_reduce_(0, at, found, "amax")
        return best

    def count(
        self, asked: torch.Tensor, above: torch.Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return (n,) how many wrong candidates of each query are at or above a limit.

        Args:
            asked: (n, D) queries.
            above: (n,) the limits.
            rows: (P,) query of each right pair.
            columns: (P,) its candidate.
        """
        import torch

        order = np.argsort(columns, kind="stable")
        rows, columns = rows[order], columns[order]
        total = torch.zeros(len(asked), dtype=torch.int64, device=asked.device)
        for start, found in self.scores(asked):
            low, high = np.searchsorted(columns, [start, start + found.shape[1]])
            right = (torch.from_numpy(rows[low:high]), torch.from_numpy(columns[low:high] - start))
            found[tuple(item.to(asked.device) for item in right)] = -torch.inf
            total += torch.count_nonzero(found >= above[:, None], dim=1)
            del found
        return total.cpu().numpy()

    def top(self, asked: torch.Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return (n, k) similarities and candidates of the nearest."""
        import torch

        kept = torch.empty((len(asked), 0), dtype=torch.int64, device=asked.device)
        for start, found in self.scores(asked):
            kept = torch.cat([kept, _nearest(found, start, k)], dim=1)
            del found
            kept = torch.topk(kept, min(k, kept.shape[1]), dim=1, sorted=True).values
        bits = kept >> 32
        values = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int32).view(torch.float32)
        return values.cpu().numpy(), (0xFFFFFFFF - (kept & 0xFFFFFFFF)).cpu().numpy()


def _nearest(scores: torch.Tensor, start: int, k: int) -> torch.Tensor:
    """Return (n, at least k) sortable numbers of a block's nearest, those of equal scores by their numbers.

    torch takes any of those that share the last place; where there are such, all are sorted.
    """
    import torch

    if k >= scores.shape[1]:
        return _sortable(scores, torch.arange(start, start + scores.shape[1], device=scores.device))
    values, places = torch.topk(scores, k + 1, dim=1, sorted=True)
    keys = _sortable(values, places + start)
    shared = torch.nonzero(values[:, k] == values[:, max(k - 1, 0)])[:, 0]
    if len(shared):
        numbers = torch.arange(start, start + scores.shape[1], device=scores.device)
        keys[shared] = torch.topk(_sortable(scores[shared], numbers), k + 1, dim=1).values
    return keys


def _sortable(scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return (n, m) whole numbers that fall with the score and, for equal scores, with the candidate's number.

    A float32's bits sort like the number where it is positive, and the other way round where it is negative.

    Args:
        scores: (n, m).
        numbers: (m,) or (n, m) of the candidates, below 2³².
    """
    import torch

    bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # −0 becomes 0
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (bits << 32) | (0xFFFFFFFF - numbers)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Keep TF32, whose 10 bits would move ranks, out of products on CUDA."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@dataclass(frozen=True, slots=True)
class Picked:
    """Some rows of others."""

    source: Rows
    index: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self.index), self.source.shape[1]

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401
        return self.source[self.index[key]]


def _once(
    candidates: Rows, positives: Sequence[Sequence[int] | NDArray[np.integer]], same: Sequence[Any] | NDArray[Any]
) -> tuple[Rows, list[NDArray[np.int64]]]:
    """Return the first candidate of each label, and the positives among them."""
    numbers: dict[Any, int] = {}
    kinds = np.array([numbers.setdefault(label, len(numbers)) for label in same], np.int64)
    if len(kinds) != candidates.shape[0]:
        raise DataError(
            "every candidate needs a label", measured=f"{candidates.shape[0]} candidates, {len(kinds)} labels"
        )
    checked = Positives.of(positives, len(positives), len(kinds))
    _, firsts = np.unique(kinds, return_index=True)
    return Picked(candidates, firsts), np.split(kinds[checked.columns], checked.starts[1:-1])


def _check_widths(queries: Rows, candidates: Rows) -> None:
    if len(queries.shape) != 2 or len(candidates.shape) != 2 or queries.shape[1] != candidates.shape[1]:
        raise DataError(
            "queries and candidates are not of one model",
            measured=f"{tuple(queries.shape)} and {tuple(candidates.shape)}", remedy="embed both with the same one",
        )  # fmt: skip
    if not candidates.shape[0]:
        raise DataError("there is no candidate", remedy="check the data set")
