"""One step of training, whatever carries it out: the interface of the engines, and the choice between them."""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from training.loop.failures import EngineError
from training.loop.ranks import Ranks, join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from training.batch import Batch
    from training.recipe import Recipe


class State(NamedTuple):
    """One trainable parameter whole, in float32: its master copy and AdamW's moments."""

    weight: Tensor
    mean: Tensor
    square: Tensor


class Engine(Protocol):
    """Carries out steps: forward of the whole student, one backward, clipping, AdamW."""

    ranks: Ranks
    module: nn.Module
    """The bare student; under ZeRO its live weights are bfloat16 and the masters are in :meth:`states`."""
    rate: float
    """Learning rate of the next step."""
    updates: int
    """Steps that AdamW has taken."""

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW over what this rank updates."""

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """Learn from a batch; ``progress`` is the share of the run that is over, from 0 to 1.

        Returns:
            What the student reports, with ``loss`` and ``grad_norm`` (before clipping): see :func:`mean_report`. Where
            one of these two is not finite, the caller must give up: the weights may be spoilt.
        """

    def states(self) -> Iterator[tuple[str, State]]:
        """Yield the trainable parameters by name in the state dict, in one order; all ranks must go to the end."""

    def restore(self, name: str, state: State) -> None:
        """Put a parameter and its moments back, on every rank; :meth:`restored` ends the work."""

    def restored(self, updates: int) -> None:
        """Make what was put back take effect."""


def make_engine(
    student: nn.Module, recipe: Recipe, *, ranks: Ranks | None = None, allow_untested: bool = False
) -> Engine:
    """Return the engine that the recipe asks for.

    ``auto`` is DeepSpeed where several processes run and a trusted version of it is installed, else plain torch.

    Args:
        student: ``forward(batch, progress)`` gives the loss and its parts; ``after_step()``, where there is one, is
            called after every update.
        recipe: Engine, precision and optimiser.
        ranks: The processes; by default those that the launcher started.
        allow_untested: Take a version of DeepSpeed whose gradients were not measured.

    Raises:
        EngineError: An unknown engine or precision, or a DeepSpeed that is missing or not trusted.
    """
    ranks = ranks or join()
    if recipe.optim.precision not in {"bf16", "fp32"}:
        raise EngineError(
            "unknown precision", measured=recipe.optim.precision, remedy="set optim.precision to bf16 or fp32"
        )
    kind = recipe.run.engine
    if kind not in {"auto", "plain", "deepspeed"}:
        raise EngineError("unknown engine", measured=kind, remedy="set run.engine to auto, plain or deepspeed")
    if kind == "deepspeed" or (kind == "auto" and ranks.world > 1):
        from training.loop import zero

        if kind == "deepspeed" or zero.trusted():
            return zero.ZeroEngine(student, recipe, ranks, allow_untested=allow_untested)
    from training.loop.plain import PlainEngine

    return PlainEngine(student, recipe, ranks)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that take gradients by their names in the state dict, each once.

    These are not always the modules' own names: attention publishes its ``in_proj.weight`` as ``in_proj_weight``.
    """
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, torch.nn.Parameter) and value.requires_grad:
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def mean_report(parts: dict[str, Tensor], norm: Tensor | float, ranks: Ranks) -> dict[str, float]:
    """Return the means over the ranks of a step's figures and its gradient norm, with one wait for the device.

    NaN is a figure that a rank had nothing for: the mean is that of the others, NaN where there is none. Not so of
    ``loss`` and ``grad_norm``, whose NaN on one rank is one on all.
    """
    names = (*parts, "grad_norm")
    figures = torch.stack(
        [torch.as_tensor(value).detach().float().to(ranks.device) for value in (*parts.values(), norm)]
    ).tolist()
    there = [name in ("loss", "grad_norm") or not isnan(value) for name, value in zip(names, figures, strict=True)]
    known = [value if kept else 0.0 for value, kept in zip(figures, there, strict=True)]
    sums = ranks.total([*known, *map(float, there)])
    pairs = zip(names, sums[: len(names)], sums[len(names) :], strict=True)
    return {name: total / count if count else nan for name, total, count in pairs}
