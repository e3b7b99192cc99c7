"""A bank on disk: shards of vectors that appear whole or not at all, and a note of what they belong to.

A shard is one safetensors file: ``vectors`` (R, D) and, as metadata, the bank's digest, the shard's number, the
SHA-256 of the vectors and the rows that could not be made, with their reasons. A shard that is cut short, altered or
of another bank is no shard: it is made again. Rows that could not be made are NaN: whoever forgets them is told.
What is finished of a shard that takes long lies beside it in the same form, as a part, until the shard is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.indexing.sealed import unseal, write_sealed
from tiling.files import atomic_file, write_error
from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from tiling.progress import CancelToken, Progress

FORMAT = 1
NOTE, LOCK = "bank.json", "write.lock"
WHOLE, PART = ".safetensors", ".part"
_TYPES = {"float16": "F16", "float32": "F32"}
_HEADER_BYTES = 1 << 24
_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bank will hold."""

    kind: str
    """``image``, ``text``, ``roi`` or ``crop``."""
    about: Mapping[str, Any]
    """What decides the vectors besides the items: the model's key, templates, … as JSON."""
    items: str
    """SHA-256 of the items' keys in their order."""
    starts: NDArray[np.int64]
    """(S + 1,) first row of each shard, and the number of all rows."""
    width: int
    """D."""
    dtype: str
    """On disk: ``float16`` or ``float32``."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the bank's bytes."""
        body = [FORMAT, self.kind, dict(self.about), self.items, self.starts.tolist(), self.width, self.dtype]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard's rows."""

    path: Path
    offset: int
    shape: tuple[int, int]
    """(R, D)"""
    dtype: str
    skipped: Mapping[int, str]
    """Row within the shard → why there is no vector."""

    def map(self) -> NDArray[Any]:
        """Return the rows as on disk, memory-mapped. Each map holds a file open, so none is kept."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)


class Store:
    """The folder of one bank.

    Args:
        root: Folder of all banks.
        plan: What this one holds; its digest names the folder.
    """

    def __init__(self, root: Path, plan: Plan) -> None:
        self.plan = plan
        self.digest = plan.digest
        self.folder = root / f"{plan.kind}-{self.digest[:16]}"

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.plan.starts) - 1

    def rows(self, number: int) -> int:
        """Return how many rows a shard has."""
        return int(self.plan.starts[number + 1] - self.plan.starts[number])

    def read(self, number: int) -> Shard | None:
        """Map a shard; None where there is none, or where what there is must be made again."""
        return self._sound(self._path(number), number)

    def read_part(self, number: int) -> Shard | None:
        """Map the first rows of a shard that another run began; None where there are none that can be used."""
        return self._sound(self._path(number, PART), number)

    def _sound(self, path: Path, number: int) -> Shard | None:
        try:
            return self._read(path, number)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            return None

    def _read(self, path: Path, number: int) -> Shard:
        size, rows = path.stat().st_size, self.rows(number)
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 0 < length <= min(size, _HEADER_BYTES):
                raise ValueError("no header")
            header = json.loads(file.read(length))
        about, tensor = header["__metadata__"], header["vectors"]
        start, end = (8 + length + offset for offset in tensor["data_offsets"])
        if path.suffix == PART:
            rows = min(rows, int(tensor["shape"][0]))
        shape = rows, self.plan.width
        described = (tensor["dtype"], tuple(tensor["shape"]), about["bank"], about["shard"], end)
        if described != (_TYPES[self.plan.dtype], shape, self.digest, str(number), size):
            raise ValueError("another bank's, or cut short")
        skipped = {int(row): str(why) for row, why in json.loads(about["skipped"])}
        shard = Shard(path, start, shape, self.plan.dtype, skipped)
        if _sha256(shard.map()) != about["sha256"]:
            raise ValueError("altered")
        return shard

    def write(
        self, number: int, vectors: NDArray[np.float32], skipped: Mapping[int, str], *, part: bool = False
    ) -> None:
        """Write a shard under a temporary name and swap it in.

        Args:
            number: Which.
            vectors: (R, D); rows of ``skipped`` may hold anything.
            skipped: Row → reason.
            part: These are its first rows only.

        Raises:
            OutputWriteError: The disk is full or refuses.
        """
        from safetensors.numpy import save

        kept = np.ascontiguousarray(vectors, self.plan.dtype)
        kept[list(skipped)] = np.nan
        about = {
            "bank": self.digest, "shard": str(number), "sha256": _sha256(kept),
            "skipped": json.dumps(sorted(skipped.items())),
        }  # fmt: skip
        payload = save({"vectors": kept}, about)
        with atomic_file(self._path(number, PART if part else WHOLE), overwrite=True) as temporary:
            temporary.write_bytes(payload)
        if not part:
            with contextlib.suppress(OSError):
                self._path(number, PART).unlink()

    def describe(self) -> None:
        """Write ``bank.json``, for people and other programs, where it is missing or another bank's.

        Raises:
            OutputWriteError: The disk is full or refuses.
        """
        plan, path = self.plan, self.folder / NOTE
        body = {
            "format": FORMAT, "digest": self.digest, "kind": plan.kind, "about": dict(plan.about), "items": plan.items,
            "rows": int(plan.starts[-1]), "width": plan.width, "dtype": plan.dtype, "shards": len(self),
        }  # fmt: skip
        try:
            same = unseal(path.read_bytes()) == json.loads(json.dumps(body))  # tuples become lists
        except (OSError, ValueError):
            same = False
        if not same:
            write_sealed(path, body)

    def writer(self, progress: Progress, cancel: CancelToken) -> AbstractContextManager[None]:
        """Hold the bank's lock, waiting for another process as long as it lives; the system frees a dead one's.

        Args:
            progress: Told while waiting.
            cancel: Looked at while waiting.

        Raises:
            OutputWriteError: The lock file cannot be made.
            CancelledError: The token was set.
        """
        from filelock import FileLock, Timeout

        @contextlib.contextmanager
        def holding() -> Iterator[None]:
            path = self.folder / LOCK
            lock = FileLock(path, thread_local=False)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                while not lock.is_locked:
                    cancel.check()
                    with contextlib.suppress(Timeout):
                        lock.acquire(timeout=_PATIENCE_S)
                        break
                    progress(0, len(self), "waiting for another run that computes the same")
            except OSError as error:
                raise write_error(path, error) from error
            try:
                yield
            finally:
                lock.release()

        return holding()

    def _path(self, number: int, suffix: str = WHOLE) -> Path:
        return self.folder / f"{number:05d}{suffix}"


def cut(counts: NDArray[np.int64], rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut items into shards of about so many rows, each of whole items.

    Args:
        counts: Rows of each item, N of them.
        rows: A shard is closed when it has so many.

    Returns:
        (S + 1,) first item of each shard and N; (S + 1,) first row of each shard and the number of rows.
    """
    ends = np.concatenate([[0], np.cumsum(counts)])
    firsts = [0]
    while firsts[-1] < len(counts):
        firsts.append(min(int(np.searchsorted(ends, ends[firsts[-1]] + rows)), len(counts)))
    items = np.array(firsts, np.int64)
    return items, ends[items]


def keys_digest(keys: Sequence[str]) -> str:
    """Return the SHA-256 of texts in their order; no two lists share it by where they are cut."""
    digest = hashlib.sha256()
    for key in keys:
        payload = key.encode("utf-8", "surrogatepass")
        digest.update(len(payload).to_bytes(8, "little") + payload)
    return digest.hexdigest()


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return (R, D) rows as float32 of length 1; rows of NaN stay."""
    rows: NDArray[np.float32] = np.array(vectors, np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows


def checked(vectors: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32]:
    """Return (R, D) vectors of length 1.

    Args:
        vectors: As a model gave them.
        names: Of the R rows, for the error.

    Raises:
        DataError: A vector is not finite or has no length; it is named.
    """
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 1e-12)))
    if len(bad):
        first, more = int(bad[0]), f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(
            f"the model gives no usable vector for {names[first][:80]!r}{more}", measured=f"length {lengths[first]:g}",
            remedy="use --precision float32, and check the model with geoalign models verify",
        )  # fmt: skip
    return unit(rows)


def _sha256(vectors: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors).view(np.uint8).data).hexdigest()
