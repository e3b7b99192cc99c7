"""Counts of finished images on the disk, so that a stopped run goes on: one line of JSON each.

Of images that a page may show, the answer as it is drawn lies beside the counts: a second run asks no model.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from tiling.errors import OutputWriteError
from tiling.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray


class Tallies:
    """Tables of whole numbers by name; what a killed program has half written is made again.

    Args:
        folder: Of all of them.
        digest: Of everything that decides the numbers.
        size: Rows and columns of a table.
    """

    def __init__(self, folder: Path, digest: str, size: int) -> None:
        self._path, self._size = folder / f"segment-{digest[:32]}.jsonl", size
        self._found: dict[str, tuple[NDArray[np.int64], int]] = {}
        self._drawn: dict[str, list[Any]] = {}
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            text = ""
        for line in text.splitlines():
            self._learn(line)
        lines = "".join(self._line(name, *item) for name, item in self._found.items())
        if lines != text:
            with atomic_file(self._path, overwrite=True) as temporary:
                temporary.write_text(lines, encoding="utf-8")

    def __len__(self) -> int:
        return len(self._found)

    def get(self, name: str) -> tuple[NDArray[np.int64], int] | None:
        """Return a table and the number beside it."""
        return self._found.get(name)

    def drawn(self, name: str) -> NDArray[np.int32] | None:
        """Return the labels (h, w) that were kept with a table, None where there are none."""
        try:
            rows, columns, text = self._drawn[name]
            labels = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i2").reshape(rows, columns)
        except (KeyError, ValueError, TypeError, zlib.error):
            return None
        return labels.astype(np.int32) if labels.size and -1 <= labels.min() <= labels.max() < self._size else None

    def add(self, name: str, table: NDArray[np.int64], beside: int, drawn: NDArray[np.int32] | None = None) -> None:
        """Keep a table and a number, and with them labels (h, w), −1 to the table's size.

        Raises:
            OutputWriteError: The disk is full or refuses.
        """
        self._found[name] = table, beside
        if drawn is not None:
            packed = base64.b64encode(zlib.compress(drawn.astype("<i2").tobytes())).decode()
            self._drawn[name] = [*drawn.shape, packed]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._line(name, table, beside))
        except OSError as error:
            raise OutputWriteError(
                "cannot be written", path=self._path, measured=error.strerror, remedy="choose another --cache"
            ) from error

    def _line(self, name: str, table: NDArray[np.int64], beside: int) -> str:
        cells = np.flatnonzero(table)
        numbers = [cells.tolist(), table.ravel()[cells].tolist()]
        return json.dumps([name, *numbers, beside, self._drawn.get(name)], separators=(",", ":")) + "\n"

    def _learn(self, line: str) -> None:
        try:
            name, cells, counts, beside, *drawn = json.loads(line)
            table = np.zeros(self._size**2, np.int64)
            table[np.array(cells, np.int64)] = np.array(counts, np.int64)
            self._found[str(name)] = table.reshape(self._size, self._size), int(beside)
            if drawn and drawn[0] is not None:
                self._drawn[str(name)] = list(drawn[0])
        except (ValueError, TypeError, IndexError):
            return
