"""What the tasks on captions, classes and candidate texts share: options, pictures, digests, templates, stages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import UsageError
from training.data.errors import DataError
from training.data.images import decode, read_bytes, split_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from training.evaluation.bank import Bank, Item
    from training.evaluation.result import Measured, Metric
    from training.evaluation.task import Job

BATCH = {"cpu": 16, "cuda": 128}
"""Images at a time; vectors do not depend on it."""
UNREADABLE = "what to do with images that cannot be read: refuse (default) or skip"
PLAIN = "{}"
"""The template that adds nothing."""


def check_settings(job: Job, known: Mapping[str, str]) -> None:
    """Refuse options that the task does not have.

    Raises:
        UsageError: One is unknown; it is named.
    """
    for name in job.settings:
        if name not in known:
            raise UsageError(f"has no option {name!r}", remedy=f"use one of {', '.join(known) or 'none'}")


def given(job: Job, place: Collection[str]) -> dict[str, str]:
    """Return the options that were given, but those of the place: what a result says of them."""
    return {name: value for name, value in job.settings.items() if name not in place}


def choice(job: Job, name: str, allowed: Sequence[str], default: str | None = None) -> str:
    """Return an option's value, by default the first of those allowed.

    Raises:
        UsageError: It is another.
    """
    value = job.settings.get(name, default or allowed[0])
    if value not in allowed:
        raise UsageError(f"{name} has no value {value!r}", remedy=f"use one of {', '.join(allowed)}")
    return value


def number_of(job: Job, name: str, default: float | None = None, *, zero: bool = False) -> float | None:
    """Return a setting that is a positive number, or none, where ``zero`` counts as one.

    Raises:
        UsageError: It is not.
    """
    if name not in job.settings:
        return default
    try:
        value = float(job.settings[name])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        least = "of 0 or more" if zero else "above 0"
        raise UsageError(f"{name} is a number {least}", measured=job.settings[name][:40])
    return value


def sizes(job: Job, encoder: TorchEncoder, *, program: bool) -> dict[str, float | None]:
    """Return at which sizes images are looked at, as a result tells them: the defaults, too.

    Args:
        job: Has them as settings.
        encoder: The model, whose own sizes are the defaults.
        program: Whether images are seen as ``geoalign ask`` does, instead of through plain windows.

    Raises:
        UsageError: One is out of range.
    """
    if program:
        source = number_of(job, "source_gsd")
        own = None if source is None else max(encoder.config.gsd.default_m, source)
        return {"source_gsd": source, "gsd": number_of(job, "gsd", own)}
    window, length = number_of(job, "window_px", encoder.config.dense.window_px), number_of(job, "object_px")
    scale = number_of(job, "scale", 1.0) if length is None else None
    return {"window_px": window, "scale": scale, "object_px": length}


def known_protocol(job: Job, protocols: Sequence[str]) -> str:
    """Return the job's protocol.

    Raises:
        UsageError: The task has no such protocol.
    """
    if job.protocol not in protocols:
        raise UsageError(f"there is no protocol {job.protocol!r} here", remedy=f"use one of {', '.join(protocols)}")
    return job.protocol


def spread(count: int, limit: int | None) -> NDArray[np.int64]:
    """Return the places of at most ``limit`` of ``count`` items, spread evenly and in order.

    Raises:
        UsageError: The limit leaves nothing.
    """
    if limit is not None and limit < 1:
        raise UsageError("a limit leaves at least one item", measured=str(limit), remedy="give a larger one")
    if limit is None or limit >= count:
        return np.arange(count)
    return np.arange(limit, dtype=np.int64) * count // limit


def size_of(root: Path, image: str) -> int:
    """Return the bytes of a picture's file, -1 where it is missing."""
    from training.data.shards import member_of

    name, member = split_name(image)
    try:
        return (root / name).stat().st_size if member is None else member_of(root / name, member).size
    except (OSError, DataError):
        return -1


def digest_of(parts: Iterable[object]) -> str:
    """Return the SHA-256 over values of JSON, order counting."""
    total = hashlib.sha256()
    for part in parts:
        total.update(json.dumps(part, ensure_ascii=True).encode() + b"\n")
    return total.hexdigest()


def present(job: Job, root: Path, images: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the sizes of pictures and the places of those that are there, before anything is computed.

    Raises:
        DataError: One is missing and the option ``unreadable`` does not say ``skip``.
    """
    sizes = [size_of(root, image) for image in images]
    there = [place for place, size in enumerate(sizes) if size >= 0]
    if len(there) < len(images) and choice(job, "unreadable", ("refuse", "skip")) == "refuse":
        lost = next(place for place, size in enumerate(sizes) if size < 0)
        raise DataError(
            "an image is missing", path=root / images[lost], measured=f"{len(images) - len(there)} of {len(images)}",
            remedy="complete the folder, or leave them out with -s unreadable=skip",
        )  # fmt: skip
    if not there:
        raise DataError("has no image that can be read", path=root, remedy="check the folder of the pictures")
    return sizes, there


def items_of(root: Path, images: Sequence[str]) -> list[Item]:
    """Return pictures as the bank takes them; a file of another size or time is another picture."""
    from training.evaluation.bank import file_item

    return [file_item(root, image) for image in images]


def readable(job: Job, root: Path, bank: Bank, what: str = "an image cannot be read") -> NDArray[np.int64]:
    """Return the rows of a bank that have a vector.

    Args:
        job: Says with ``unreadable`` what to do about the others.
        root: Folder of the pictures.
        bank: The vectors.
        what: What is wrong with a row that has none.

    Raises:
        DataError: There are such rows and the option does not say ``skip``, or there are no others.
    """
    if bank.skipped and (choice(job, "unreadable", ("refuse", "skip")) == "refuse" or not len(bank.readable)):
        first = bank.skipped[0]
        raise DataError(
            what, path=root / first.key, measured=f"{first.reason}; {len(bank.skipped)} in all",
            remedy="mend it, or leave it out with -s unreadable=skip",
        )  # fmt: skip
    return bank.readable


def templates_of(job: Job, default: Sequence[str], encoder: TorchEncoder | None = None) -> tuple[str, ...]:
    """Return sentences with one ``{}`` each, as the option ``templates`` says.

    It is ``model`` (the model's own), the name of a set of :mod:`geoalign_core.models.prompts`, a file (a JSON list
    or one sentence a line), or a sentence with ``{}``.

    Raises:
        UsageError: It is none of these, or a sentence has not exactly one ``{}``.
    """
    from geoalign_core.models.prompts import template_set, template_sets

    given = job.settings.get("templates")
    if given is None:
        return tuple(default)
    if given == "model" and encoder is not None:
        return encoder.config.prompts.templates
    if PLAIN in given:
        found: tuple[str, ...] = (given,)
    elif given in template_sets():
        found = template_set(given)
    else:
        found = _from_file(Path(given), ("model", *template_sets()))
    for sentence in found:
        if sentence.count(PLAIN) != 1 or "{" in sentence.replace(PLAIN, ""):
            raise UsageError("a template has one {} and no other braces", measured=sentence[:60])
    return found


def _from_file(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(
            "are no templates", measured=str(path)[:60],
            remedy=f"give {', '.join(names)}, a file of sentences, or a sentence with {{}}",
        ) from error  # fmt: skip
    try:
        lines = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        found = tuple(line.strip() for line in lines if line.strip())
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError("is not a list of templates", path=path, remedy="give a JSON list of sentences") from error
    if not found:
        raise UsageError("holds no template", path=path, remedy="give one sentence with {} a line")
    return found


def lost_words(encoder: TorchEncoder, texts: Sequence[str]) -> tuple[int, int]:
    """Return how many texts are longer than the model reads, and how many of their words are lost."""
    from geoalign_core.models.encoder import words_beyond

    cut = words = 0
    for text in texts:
        if encoder.count_tokens(text) > encoder.max_tokens:
            cut += 1
            words += len(words_beyond(text, lambda part: encoder.count_tokens(part) <= encoder.max_tokens).split())
    return cut, words


def measured(encoder: TorchEncoder, templates: Sequence[str] = (), *, dense: bool = False) -> Measured:
    """Return what a result says of its model; the dense mode only where dense features were used."""
    from training.evaluation.result import Measured

    return Measured(
        name=encoder.config.name, key=encoder.key, dense_mode=encoder.config.dense.mode if dense else None,
        templates=tuple(templates), precision=encoder.precision, device=str(encoder.device),
    )  # fmt: skip


def batch_of(encoder: TorchEncoder) -> int:
    """Return how many images are seen at a time."""
    return BATCH.get(encoder.device.type, BATCH["cpu"])


def with_intervals(
    table: NDArray[np.float64],
    figures: Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]],
    groups: Sequence[str] | NDArray[np.int64] | None = None,
) -> dict[str, Metric]:
    """Return figures in per cent with the ends of their bootstrap intervals.

    Args:
        table: (N, k) what each item adds to the sums that the figures are made of.
        figures: (S, k) sums → (S,) values by name.
        groups: (N,) what is drawn together; by default each item for itself.
    """
    from training.evaluation.intervals import bootstrap_sums
    from training.evaluation.result import Metric

    values = figures(table.sum(axis=0, keepdims=True))
    low, high = bootstrap_sums(table, lambda sums: np.stack(list(figures(sums).values()), axis=1), groups=groups)
    return {
        name: Metric(float(value[0]), float(low[place]), float(high[place]))
        for place, (name, value) in enumerate(values.items())
    }


def shares(names: Sequence[str]) -> Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Return the figures of a table of hits whose last column counts the items: one share in per cent a name."""
    return lambda sums: {name: 100 * sums[:, place] / sums[:, -1] for place, name in enumerate(names)}


def thumbnail(root: Path, image: str) -> dict[str, Any]:
    """Return a small picture for the report."""
    from training.evaluation.report.thumbs import thumbnail as small

    picture: dict[str, Any] = small(decode(read_bytes(root, image), image))
    return picture


@contextlib.contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of a block to a stage."""
    start = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 3)
