"""Suites: lists of measurements as data, each with a result file of its own, continued after a stop.

A suite is a JSON file ``{"title": …, "measurements": [{"name": …, "task": …, "data": …}, …]}``. A measurement may have
``protocol``, ``split``, ``limit``, ``dataset`` and ``settings`` besides, as on the command line; a setting that is a
file is written ``{"file": "words.json"}``, or as its name alone. Files and folders are relative to the suite; one that
is named alone may also lie where the command runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tiling.errors import CancelledError, GeoAlignError, UsageError
from training.data.errors import DataError
from training.evaluation.catalogue import check_id
from training.evaluation.fingerprints import digest_of, found_file, lines_of
from training.evaluation.registry import find_task
from training.evaluation.result import read_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from geoalign_core.models.encoder import TorchEncoder
    from tiling.progress import CancelToken, Progress
    from training.evaluation.result import Result

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One entry of a suite."""

    name: str
    """Of its result's file, without the suffix."""
    task: str
    data: Path
    protocol: str
    split: str | None = None
    limit: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    """Those that settings name."""
    dataset: str | None = None
    """Id in the catalogue."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a measurement."""

    measurement: Measurement
    path: Path
    """Of its result."""
    kept: bool = False
    """Whether the result was there already."""
    error: str | None = None
    """One line; None where there is a result."""


def read_suite(path: Path) -> tuple[Measurement, ...]:
    """Read a suite; whether the data is there is looked at when it is measured.

    Raises:
        DataError: The file cannot be read.
        UsageError: A key, task, protocol or setting is unknown, something is missing or of another type, or a name
            is given twice.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("is no suite", path=path, measured=str(error)[:80], remedy="give a JSON file") from error
    if not isinstance(whole, dict):
        raise UsageError("is no suite", path=path, measured=type(whole).__name__, remedy="write an object")
    _check(whole, {"title": str, "measurements": list}, ("measurements",), str(path))
    found = [
        _measurement(item, path.parent, f"{path}: measurements[{number}]")
        for number, item in enumerate(whole["measurements"])
    ]
    names = [item.name.lower() for item in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not found:
        raise UsageError(
            "gives a name twice" if twice else "has no measurements", path=path, measured=", ".join(twice)[:80] or None
        )
    return tuple(found)


_KEYS = {"name": str, "task": str, "data": str, "protocol": str, "split": str, "limit": int, "dataset": str,
         "settings": dict}  # fmt: skip


def _check(item: Any, kinds: Mapping[str, type], needed: Iterable[str], where: str) -> None:  # noqa: ANN401 - JSON
    if not isinstance(item, dict):
        raise UsageError("is no object", path=where, measured=type(item).__name__)
    if unknown := sorted(set(item) - set(kinds)):
        raise UsageError("has an unknown key", path=where, measured=unknown[0][:60], remedy=f"use {', '.join(kinds)}")
    if missing := [key for key in needed if key not in item]:
        raise UsageError("lacks a key", path=where, measured=missing[0], remedy=f"add {missing[0]}")
    for key, value in item.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise UsageError(f"{key} is of another type", path=where, measured=f"{value!r:.60}")


def _measurement(item: Any, root: Path, where: str) -> Measurement:  # noqa: ANN401 - JSON
    _check(item, _KEYS, ("name", "task", "data"), where)
    if not _NAME.fullmatch(item["name"]):
        raise UsageError("a name has letters, digits, dots and dashes only", path=where, measured=item["name"][:60])
    if item.get("limit", 1) < 1:
        raise UsageError("a limit leaves at least one item", path=where, measured=str(item["limit"]))
    try:
        task = find_task(item["task"])
    except UsageError as error:
        raise UsageError(error.what, path=where, remedy=error.remedy) from error
    protocol = item.get("protocol", task.protocols[0])
    if protocol not in task.protocols:
        raise UsageError(
            f"{task.name} has no protocol {protocol!r}", path=where, remedy=f"use one of {', '.join(task.protocols)}"
        )
    try:
        dataset = check_id(item["dataset"], task.name) if "dataset" in item else None
    except GeoAlignError as error:
        raise UsageError(error.what, path=where, measured=error.measured, remedy=error.remedy) from error
    settings, files = {}, []
    for name, value in item.get("settings", {}).items():
        if name not in task.settings:
            known = ", ".join(sorted(task.settings)) or "none"
            raise UsageError(f"{task.name} has no setting {name!r}", path=where, remedy=f"use {known}")
        if isinstance(value, dict) and set(value) == {"file"} and isinstance(value["file"], str):
            files.append(root / value["file"])
            value = files[-1]  # noqa: PLW2901 - the place that it stands for
        elif isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UsageError(f"the setting {name} is of another type", path=where, measured=f"{value!r:.60}")
        elif name in task.files and (found := found_file(name, str(value), root)) is not None:
            files.append(found)
            value = found  # noqa: PLW2901 - as above
        settings[name] = str(value)
    return Measurement(
        item["name"], task.name, root / item["data"], protocol, item.get("split"), item.get("limit"), settings,
        tuple(files), dataset,
    )  # fmt: skip


def run_suite(
    measurements: Iterable[Measurement], encoder: Callable[[], TorchEncoder], out: Path, *, cache: Path,
    progress: Progress, cancel: CancelToken, again: bool = False, trust_pickle: bool = False, model: str | None = None,
) -> Iterator[Outcome]:  # fmt: skip
    """Measure one after the other and yield what became of each; results that are there are kept.

    Args:
        measurements: Of a suite.
        encoder: Loads the model.
        out: Folder of the results, ``NAME.json``.
        cache: Folder of embeddings.
        progress: Told the stages of each, with its place in the whole.
        cancel: Looked at by the tasks.
        again: Measure also what is there.
        trust_pickle: Read data sets that come as Python pickles.
        model: The model's name or folder as given.

    Raises:
        GeoAlignError: The model cannot be loaded.
        CancelledError: The token was set; finished results stay.
    """
    from training.evaluation.measuring import measure
    from training.evaluation.task import Job

    chosen = list(measurements)
    key = encoder().key
    for number, item in enumerate(chosen, start=1):
        path = out / f"{item.name}.json"

        def tell(done: int, total: int, stage: str, /, prefix: str = f"{number}/{len(chosen)} {item.name}") -> None:
            progress(done, total, f"{prefix}: {stage}")

        try:
            asked = asked_digest(item)
            if not again and is_result_of(path, key, asked):
                yield Outcome(item, path, kept=True)
                continue
            job = Job(
                item.data, item.protocol, encoder, cache, tell, cancel, split=item.split, limit=item.limit,
                settings=item.settings, trust_pickle=trust_pickle, dataset=item.dataset, model=model,
            )  # fmt: skip
            result = measure(find_task(item.task), job)
            details = {**result.details, "suite": {"name": item.name, "asked": asked}}
            dataclasses.replace(result, details=details).write(path)
        except CancelledError:
            raise
        except (GeoAlignError, OSError, RuntimeError, MemoryError) as error:  # one that fails stops no other
            text = str(error) if isinstance(error, GeoAlignError) else f"{type(error).__name__}: {error}"
            yield Outcome(item, path, error=" ".join(text.split()))
        else:
            yield Outcome(item, path)


def is_result_of(path: Path, key: str, asked: str) -> bool:
    """Say whether a file is the result of a model for what :func:`asked_digest` stands for."""
    try:
        result: Result = read_result(path)
    except DataError:
        return False
    told = result.details.get("suite")
    same = isinstance(told, dict) and told.get("asked") == asked
    return same and (result.model is None or result.model.key == key)


def asked_digest(item: Measurement) -> str:
    """Return a SHA-256 of everything but the model that decides a result: the question and the data as it lies there.

    See :mod:`training.evaluation.fingerprints`.

    Raises:
        DataError: The data or a setting's file is missing or damaged.
    """
    files = {str(path): digest_of(path) for path in item.files}
    settings = {name: files.get(value, value) for name, value in item.settings.items()}
    asked = [item.task, item.protocol, item.split, item.limit, sorted(settings.items())]
    asked += [] if item.dataset is None else [item.dataset]
    total = hashlib.sha256(json.dumps(asked).encode())
    for line in lines_of(item.data):
        total.update(line.encode() + b"\n")
    return total.hexdigest()
