"""Rows of all ranks: what a loss over the whole batch needs when every rank holds a part of it.

A rank's share of a loss is computed from its own rows against the columns of all ranks. The row sums are divided by
the global number of rows and multiplied by the number of ranks: data parallelism averages over ranks, and that average
is the loss, and its gradient, of one process that holds the whole batch, however unequal the parts are.

Every method is a fixed sequence of collectives, forward and backward, whatever a rank holds (also nothing): all ranks
must call it, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import distributed

from training.losses.inputs import one_of, raised
from training.losses.options import GATHERS

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of all ranks, in the order of the ranks."""

    all: torch.Tensor
    """(ΣK, …)"""
    start: int
    """Where this rank's own rows begin."""
    total: int
    """ΣK"""


@dataclass(frozen=True, slots=True)
class Gather:
    """How the rows of other ranks are seen.

    ``grad`` is exact: gradients flow back to the rank that a row came from. ``nograd`` treats all gathered rows, this
    rank's own among them and also on a single rank, as constants (DGTRS-CLIP as released). ``local`` sees and counts
    nothing but its own rows, as FG-CLIP does with regions: each rank is a batch of its own.
    """

    mode: str = "local"
    world: int = 1
    rank: int = 0
    equal: bool = False
    """Whether all ranks are known to hold equally many rows: then no counts are exchanged and waited for."""

    @classmethod
    def local(cls) -> Self:
        """Return the view of one process for itself."""
        return cls()

    @classmethod
    def distributed(cls, mode: str = "grad", *, equal: bool = False) -> Self:
        """Return the view of this rank of the default process group; of a single rank where there is none.

        Raises:
            UsageError: The mode is unknown.
        """
        one_of("the way to gather", mode, GATHERS)
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(mode, equal=equal)
        return cls(mode, distributed.get_world_size(), distributed.get_rank(), equal)

    @property
    def joined(self) -> bool:
        """Whether there are other ranks whose rows count."""
        return self.mode != "local" and self.world > 1

    def rows(self, own: torch.Tensor) -> Rows:
        """Return the rows of all ranks.

        Args:
            own: (K, …), K ≥ 0 and different per rank, the other axes equal; bfloat16 travels as float32.
        """
        return self.together(own)[0]

    def together(self, *tensors: torch.Tensor) -> tuple[Rows, ...]:
        """Return the rows of all ranks of tensors that have equally many, with one exchange of counts at most."""
        full = [raised(item) for item in tensors]
        own = len(full[0])
        if not self.joined:
            return tuple(Rows(item.detach() if self.mode == "nograd" else item, 0, own) for item in full)
        if self.equal:
            return tuple(Rows(self._padded(item, own), self.rank * own, self.world * own) for item in full)
        counts = self._counts(own, full[0].device)
        start, total, most = sum(counts[: self.rank]), sum(counts), max(1, *counts)
        valid = torch.cat([torch.arange(count) + rank * most for rank, count in enumerate(counts)])
        valid = valid.to(full[0].device)
        found = (self._padded(item, most).index_select(0, valid) for item in full)
        return tuple(Rows(item, start, total) for item in found)

    def total(self, count: torch.Tensor) -> torch.Tensor:
        """Return the sum over ranks of a number, () int64."""
        count = count.detach().clone()
        if self.joined:
            distributed.all_reduce(count)
        return count

    def differ(self, ids: torch.Tensor) -> torch.Tensor:
        """Return whether the rows of all ranks have at least two different numbers, () bool.

        Args:
            ids: (K,) int64; numbers below 0 do not count.
        """
        most = torch.iinfo(ids.dtype).max
        high = torch.cat([ids, ids.new_full((1,), -1)]).amax()
        low = torch.cat([ids.masked_fill(ids < 0, most), ids.new_full((1,), most)]).amin()
        ends = torch.stack([high, -low])
        if self.joined:
            distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        return ends[0] > -ends[1]

    def share(self, own: torch.Tensor, total: torch.Tensor | int) -> torch.Tensor:
        """Return own · R / total: sums of rows become shares whose mean over ranks is the mean over all rows.

        Args:
            own: () the sum over this rank's rows.
            total: Rows of all ranks; 0 gives 0 with ``own``'s gradient path.
        """
        ranks = self.world if self.joined else 1
        return own * ranks / (total.clamp(min=1) if isinstance(total, torch.Tensor) else max(total, 1))

    def _counts(self, own: int, device: torch.device) -> list[int]:
        counts = torch.zeros(self.world, dtype=torch.int64, device=device)
        counts[self.rank] = own
        distributed.all_reduce(counts)
        return [int(count) for count in counts.tolist()]

    def _padded(self, own: torch.Tensor, most: int) -> torch.Tensor:
        """Return (R · most, …): every rank's rows, filled up with zeros."""
        padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        if self.mode == "grad" and padded.is_floating_point() and torch.is_grad_enabled():
            # A rank whose rows are constants (it had none) must take part in the backward all the same.
            tied = padded if padded.requires_grad else padded.requires_grad_()
            return _AllRows.apply(tied, self.world, self.rank)
        return _gathered(padded.detach(), self.world)


class _AllRows(torch.autograd.Function):
    """All-gather whose gradient is the sum of what every rank asks of a row.

    The backward is one all-reduce, which every backend has; reduce-scatter would send half as much, of features only.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, own: torch.Tensor, world: int, rank: int) -> torch.Tensor:
        ctx.span = (rank * len(own), (rank + 1) * len(own))  # type: ignore[attr-defined]
        return _gathered(own, world)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed[slice(*ctx.span)], None, None  # type: ignore[attr-defined]


def _gathered(own: torch.Tensor, world: int) -> torch.Tensor:
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world)]
    distributed.all_gather(parts, own.contiguous())
    return torch.cat(parts)


LOCAL = Gather()
