"""A data set of records: folders, JSON lines and tar shards, one after the other, read in place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sized
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiling.files import atomic_file, write_error
from tiling.progress import silent
from training.data.errors import DataError
from training.data.images import decode, plain_path, read_bytes
from training.data.schema import Record, parse_record, problems, to_json
from training.data.shards import TarIndex, compressed, index_tar, is_compressed
from training.data.webdataset import picture_of, sample_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from tiling.progress import Progress

RECORDS = "records.jsonl"
"""Name of the file with a folder's records."""


class _Part(Protocol):
    """One file of records."""

    root: Path
    digest: bytes

    def __len__(self) -> int: ...
    def record(self, index: int) -> Record: ...
    def key(self, index: int) -> str: ...


class RsfgDataset:
    """Records of several files as one list. A record is read when it is asked for; memory is 8 bytes each.

    An instance can be handed to worker processes, forked or spawned: no file stays open.

    Args:
        paths: Folders with ``records.jsonl`` or with ``.tar`` shards, ``.jsonl`` files, or ``.tar`` shards.

    Raises:
        DataError: One is missing or holds no records, or a shard is damaged.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._parts = [_part(file) for path in paths for file in record_files(Path(path))]
        self._last: tuple[int, Record] | None = None
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._parts else 0

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        """Return a record.

        Raises:
            DataError: It breaks the schema; file and line are named.
            IndexError: There are fewer.
        """
        last = self._last
        if last is None or last[0] != index:  # a sample asks for its record and its picture, one after the other
            part, within = self._find(index)
            last = self._last = (index, part.record(within))
        return last[1]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the picture of a record, uint8 RGB (H, W, 3).

        Raises:
            DataError: The picture is missing or damaged; the record is named.
        """
        return decode(self.image_bytes(index), f"{self.key(index)}: {self[index].image}")

    def image_bytes(self, index: int) -> bytes:
        """Return the bytes of a record's picture.

        Raises:
            DataError: The picture is missing; the record is named.
        """
        try:
            return read_bytes(self.root(index), self[index].image)
        except DataError as error:
            # A GeoAlignError keeps its parts, so that the record can be put before them.
            raise DataError(
                error.what, path=f"{self.key(index)}: {plain_path(error.path or '')}", measured=error.measured,
                remedy=error.remedy,
            ) from error  # fmt: skip

    def line(self, index: int) -> bytes:
        """Return a record of a file of JSON lines as it is written there.

        Raises:
            DataError: It lies in a shard, or the file cannot be read.
        """
        part, within = self._find(index)
        if not isinstance(part, _Lines):
            raise DataError("is a sample of a shard, not a line", path=part.key(within))
        return part.line(within)

    def key(self, index: int) -> str:
        """Return the name of a record for messages: ``FILE:LINE`` or ``SHARD.tar!SAMPLE``."""
        part, within = self._find(index)
        return part.key(within)

    def root(self, index: int) -> Path:
        """Return the folder that a record's image is relative to."""
        return self._find(index)[0].root

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the records' bytes; of a shard, of its members' names, places and sizes."""
        return hashlib.sha256(b"".join(part.digest for part in self._parts)).hexdigest()

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """Names of the regions' categories, sorted; reads every record that can be read, once.

        A name's position here is its number in a run, whatever ``category_id`` says: data sets number as they like.
        """
        names: set[str] = set()
        for index in range(len(self)):
            try:
                names.update(region.category for region in self[index].regions if region.category)
            except DataError:
                continue
        return tuple(sorted(names))

    def _find(self, index: int) -> tuple[_Part, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        position = int(np.searchsorted(self._ends, index, side="right"))
        part = self._parts[position]
        return part, index - int(self._ends[position]) + len(part)


def record_files(path: Path) -> list[Path]:
    """Return the files that hold the records of a path.

    Raises:
        DataError: It is missing, or holds none.
    """
    if path.is_dir():
        if (path / RECORDS).is_file():
            return [path / RECORDS]
        shards = sorted(path.glob("*.tar"))
        if not shards:
            raise DataError(
                "holds no records", path=path, measured=f"neither {RECORDS} nor *.tar",
                remedy="make one with geoalign-data import",
            )  # fmt: skip
        return shards
    if not path.is_file():
        raise DataError(
            "is missing", path=path, remedy="give a folder with records.jsonl, a .jsonl file or .tar shards"
        )
    if is_compressed(path):
        raise compressed(path)
    if path.suffix not in (".jsonl", ".tar"):
        raise DataError(
            "is neither .jsonl nor .tar", path=path, remedy="turn it into records with geoalign-data import"
        )
    return [path]


def _part(path: Path) -> _Part:
    return _Shard(path) if path.suffix == ".tar" else _Lines(path)


class _Lines:
    """Records of a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path.parent
        digest, starts, numbers, place = hashlib.sha256(), [], [], 0
        try:
            with path.open("rb") as handle:
                for number, line in enumerate(handle, start=1):
                    digest.update(line)
                    if line.strip():
                        starts.append(place)
                        numbers.append(number)
                    place += len(line)
        except OSError as error:
            raise DataError("cannot be read", path=path, measured=str(error)) from error
        self.digest = digest.digest()
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def key(self, index: int) -> str:
        return f"{self.path}:{self._numbers[index]}"

    def line(self, index: int) -> bytes:
        try:
            with self.path.open("rb") as handle:
                handle.seek(int(self._starts[index]))
                return handle.readline()
        except OSError as error:
            raise DataError("cannot be read", path=self.key(index), measured=str(error)[:80]) from error

    def record(self, index: int) -> Record:
        return parse_record(parse_line(self.line(index), self.key(index)), where=self.key(index))


class _Shard:
    """Records of an archive in webdataset's layout."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path.parent
        self.index: TarIndex = index_tar(path)
        self.digest = self.index.digest()

    def __len__(self) -> int:
        return self.index.samples

    def key(self, index: int) -> str:
        first = next(iter(self.index.sample(index).values()))
        return f"{self.path}!{self.index.name(first)}"

    def record(self, index: int) -> Record:
        files, where = self.index.sample(index), self.key(index)
        picture = picture_of(files)
        if picture is None:
            raise DataError("a sample has no picture", path=where, measured=", ".join(files))
        image = f"{self.path.name}!{self.index.name(files[picture])}"
        try:
            return sample_record(
                lambda name: self.index.member(files[name]).read(), files, image=image, where=where
            )  # fmt: skip
        except OSError as error:
            raise DataError("cannot be read", path=where, measured=str(error)[:80]) from error


def parse_line(line: bytes, where: str) -> Any:  # noqa: ANN401 - whatever the line holds
    """Return the value of a line of JSON.

    Raises:
        DataError: It is not JSON in UTF-8.
    """
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError("is not a line of JSON", path=where, measured=str(error)[:90]) from error


def line_of(record: Record) -> bytes:
    """Return a record as a line of JSON with its newline.

    Raises:
        DataError: The record breaks the schema.
    """
    item = to_json(record)
    for problem in problems(item):
        raise DataError(problem.kind, path=record.image, measured=problem.measured, remedy="clip or drop the region")
    try:
        return (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise DataError("cannot be written as JSON", path=record.image, measured=str(error)[:80]) from error


def write_records(
    folder: str | Path, records: Iterable[Record], *, progress: Progress = silent, overwrite: bool = False
) -> Path:
    """Write ``records.jsonl`` as a whole or not at all. Memory is that of one record.

    Args:
        folder: The data set's folder; it is made when it is missing.
        records: Their images are relative to ``folder``; see :func:`training.data.images.rebase`.
        progress: Told after each record.
        overwrite: Whether records that are already there may be replaced.

    Returns:
        The file's path.

    Raises:
        DataError: A record breaks the schema.
        OutputExistsError: There are records already and ``overwrite`` is false.
        OutputWriteError: The disk is full or refuses.
    """
    target = Path(folder) / RECORDS
    total = len(records) if isinstance(records, Sized) else 0
    with atomic_file(target, overwrite=overwrite) as temporary:
        try:
            with temporary.open("wb") as handle:
                for done, record in enumerate(records, start=1):
                    handle.write(line_of(record))
                    progress(done, max(total, done), "writing records")
        except OSError as error:
            raise write_error(target, error) from error
    return target
