"""What an evaluation says: figures with their intervals, and everything that decides them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tiling.files import atomic_file
from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure."""

    value: float
    """In ``unit``; NaN where the data has nothing for it."""
    low: float | None = None
    high: float | None = None
    """Ends of the bootstrap interval at 95 %; None where there is none."""
    unit: str = "%"
    """``%``, ``share`` (0..1), ``m`` or nothing."""
    better: str = "higher"
    """``higher`` or ``lower``."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was measured on."""

    name: str
    digest: str
    """SHA-256 of the items, their labels and the sizes of their files."""
    counts: Mapping[str, int]
    """Images, texts, boxes, classes … that were used, and what was skipped (``skipped_images``)."""
    id: str = ""
    """In the catalogue; empty where it is none of its sets, or it is not known which."""

    @property
    def known_as(self) -> str:
        """The catalogue's id, else the data's own name."""
        return self.id or self.name


@dataclass(frozen=True, slots=True)
class Measured:
    """The model and how it was run."""

    name: str
    key: str
    """Of the weights and all that decides features."""
    dense_mode: str | None
    templates: tuple[str, ...]
    precision: str
    device: str


@dataclass(frozen=True, slots=True)
class Result:
    """One task, one protocol, one data set, one model."""

    task: str
    protocol: str
    """An id of :mod:`training.evaluation.protocols`."""
    dataset: Dataset
    model: Measured | None
    """None when a file of detections or answers was measured."""
    metrics: Mapping[str, Metric]
    seconds: Mapping[str, float]
    """By stage; vectors from the cache take next to none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options that change figures."""
    notes: tuple[str, ...] = ()
    """One sentence each: skips, ties, what differs from the published protocol."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """For the report: per class, per item (JSON values; large arrays lie beside as ``NAME.npz``)."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that settings name, by setting."""
    version: str = ""
    """Of the program."""

    @property
    def subject(self) -> str:
        """What was measured: the model's name, or which file."""
        if self.model is not None:
            return self.model.name
        kind = "answers" if "answers" in self.settings else "detections"
        return f"{kind} file {PurePath(str(self.settings.get(kind, ''))).name}".rstrip()

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        with atomic_file(path, overwrite=True) as temporary:
            temporary.write_text(
                json.dumps({"format": FORMAT, **_plain(asdict(self))}, indent=1, ensure_ascii=False) + "\n",
                encoding="utf-8",
            )


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        DataError: The file is not one.
    """
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
        if item.pop("format") != FORMAT:
            raise DataError("was written in another format", path=path, remedy="evaluate again")
        metrics = {name: _metric(metric) for name, metric in item.pop("metrics").items()}
        model = item.pop("model")
        dataset = item.pop("dataset")
        counts = {name: int(count) for name, count in dataset["counts"].items()}
        return Result(
            task=str(item.pop("task")),
            protocol=str(item.pop("protocol")),
            metrics=metrics,
            dataset=Dataset(str(dataset["name"]), str(dataset["digest"]), counts, str(dataset.get("id", ""))),
            model=None if model is None else _measured(model),
            seconds={name: float(value) for name, value in item.pop("seconds").items()},
            settings=dict(item.pop("settings")),
            notes=tuple(map(str, item.pop("notes"))),
            details=dict(item.pop("details")),
            version=str(item.pop("version", "")),
            files={name: str(digest) for name, digest in item.pop("files", {}).items()},
            **item,
        )
    except OSError as error:
        raise DataError("cannot be read", path=path, measured=error.strerror or "", remedy="check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            "is not a result of geoalign-eval", path=path, measured=f"{type(error).__name__}: {error}"[:80],
            remedy="give a file that was written with -o",
        ) from error  # fmt: skip


def _measured(item: Mapping[str, Any]) -> Measured:
    """Return a model; templates that are no texts are a TypeError."""
    mode = item["dense_mode"]
    texts = {name: str(value) for name, value in item.items() if name not in ("templates", "dense_mode")}
    templates = tuple(map(str, item["templates"]))
    return Measured(**texts, dense_mode=None if mode is None else str(mode), templates=templates)


def _metric(item: Mapping[str, Any]) -> Metric:
    """Return a metric; what is no number is a ValueError or TypeError."""
    value, low, high = (None if item[name] is None else float(item[name]) for name in ("value", "low", "high"))
    return Metric(math.nan if value is None else value, low, high, str(item["unit"]), str(item["better"]))


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
