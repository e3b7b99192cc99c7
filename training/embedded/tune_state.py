"""A tuning on disk: killed at any moment, it goes on from the last state as if nothing had happened.

What is drawn in a step depends on the seed and the step's number alone, so no generator is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from tiling.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

_KEY = "geoalign"
_OPTIMISER = "optimiser."


@dataclass(frozen=True, slots=True)
class TuneState:
    """Where a state is kept, and what it must be of: a state of another recipe, head or material is not taken up."""

    path: Path
    digest: str
    every: int = 20
    """Steps from one state to the next."""

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], optimiser: torch.optim.Optimizer) -> None:
        """Write the state after ``step`` steps: tensors by name, and the optimiser's moments."""
        from safetensors.torch import save

        held = {name: value.detach().contiguous() for name, value in tensors.items()}
        for number, moments in optimiser.state_dict()["state"].items():
            held |= {f"{_OPTIMISER}{number}.{name}": value.contiguous() for name, value in moments.items()}
        payload = save(held, metadata={_KEY: json.dumps({"step": step, "digest": self.digest})})
        with atomic_file(self.path, overwrite=True) as path:
            path.write_bytes(payload)

    def load(self, optimiser: torch.optim.Optimizer) -> tuple[int, dict[str, torch.Tensor]]:
        """Put the optimiser's moments back; return the step and the tensors, 0 and nothing where there is no state."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                told = json.loads((file.metadata() or {}).get(_KEY, "{}"))
                if told.get("digest") != self.digest:
                    return 0, {}
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError):
            return 0, {}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name in [name for name in held if name.startswith(_OPTIMISER)]:
            number, _, which = name.removeprefix(_OPTIMISER).partition(".")
            moments.setdefault(int(number), {})[which] = held.pop(name)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        return int(told["step"]), held


def loss_table(file: TextIO) -> Callable[[int, dict[str, float]], None]:
    """Return what writes a step's losses into a CSV, in place of the rows that it held of that step and later ones."""
    first = True

    def note(step: int, losses: dict[str, float]) -> None:
        nonlocal first
        if first:
            file.seek(0)
            earlier = [line for line in file if line.partition(",")[0].isdigit() and int(line.partition(",")[0]) < step]
            file.truncate(0)
            file.writelines([",".join(["step", *losses]) + "\n", *earlier])
            first = False
        file.write(",".join([str(step), *(f"{value:.5g}" for value in losses.values())]) + "\n")

    return note
