"""The shape of a task: options in, a result out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from geoalign_core.models.encoder import TorchEncoder
    from tiling.progress import CancelToken, Progress
    from training.evaluation.result import Result


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a task needs."""

    data: Path
    """The data set's folder or file."""
    protocol: str
    """Id; each task knows its own."""
    encoder: Callable[[], TorchEncoder]
    """Loads the model when first called, and gives the same one after that."""
    cache: Path
    """Folder for embeddings."""
    progress: Progress
    cancel: CancelToken
    split: str | None = None
    limit: int | None = None
    """Look at so many items only, spread evenly; the result says so."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The task's own options as given on the command line, checked by the task (unknown ones are refused by name)."""
    trust_pickle: bool = False
    dataset: str | None = None
    """Which data set of the catalogue it is, where that is said and not left to the names of folders."""
    model: str | None = None
    """The model's name or folder as given; None where a caller has only the model itself."""


class Task(Protocol):
    """One module of :mod:`training.evaluation.tasks` has ``TASK``, such an object."""

    name: str
    """As on the command line."""
    title: str
    protocols: tuple[str, ...]
    """Ids, the default first."""
    settings: Mapping[str, str]
    """Own options: name → one line of help with the default."""
    place: frozenset[str]
    """Those, and others that its results store, that only say where data lies, how it is laid out or how much is told.
    Any other that is not as the protocol says keeps a result from being compared with printed figures."""
    files: frozenset[str]
    """Those that are files, or may be."""

    def run(self, job: Job) -> Result:
        """Measure.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout.
        """
        ...
