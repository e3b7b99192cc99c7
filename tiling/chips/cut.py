"""Cutting: the windows of a job become files, and the manifest comes last."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.errors import RasterioError

from tiling.chips.earlier import clear, protect_inputs, refuse_strangers, take_over
from tiling.chips.encode import blank, cast, companions, encode
from tiling.chips.journal import JOURNAL, Entry, Journal, only_writer
from tiling.chips.manifest import TABLE, Chip, Manifest, check_table, write_manifest
from tiling.errors import OutputExistsError, OutputWriteError, RasterOpenError, RasterReadError
from tiling.files import write_error
from tiling.plan import BLANK
from tiling.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from tiling.chips.job import Job, Work
    from tiling.chips.journal import Key
    from tiling.grid import Window
    from tiling.progress import CancelToken, Progress
    from tiling.reader import Tile


@dataclass(frozen=True, slots=True)
class Cut:
    """What a job did."""

    manifest: Manifest
    table: Path
    """The manifest's table."""
    written: int
    """Tiles written now; the others were there from a stopped job."""
    labels: tuple[Path, ...] = ()
    """The labels' files; of many, the folder."""


def run_job(
    job: Job,
    folder: Path,
    *,
    jobs: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    table: Path | None = None,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Cut:
    """Cut the tiles of a job and write its labels and, last, its manifest.

    A stopped job goes on where it stopped when the same one is run again: ``tiles.journal`` tells what is done, and
    files that are not as they were written are cut again. Memory is that of :func:`tiling.reader.read_raw` and six
    tiles per job.

    Args:
        job: From :func:`tiling.chips.job.plan_job`.
        folder: Where the tiles go; made when missing.
        jobs: Threads that read; twice as many write.
        resume: Also complete a job that was finished.
        overwrite: Replace what an earlier job wrote here; its tiles are removed first.
        table: Where the manifest goes; ``tiles.parquet`` in the folder by default.
        progress: Told after every tile.
        cancel: Looked at before every tile.

    Raises:
        OutputExistsError: Tiles of another job, or files with the tiles' names, are there, or an input would be
            replaced.
        FolderBusyError: Another process is cutting into the folder.
        OutputWriteError: The disk is full or refuses.
        RasterReadError: The only raster is damaged. One of several is noted in :attr:`Manifest.failures`.
    """
    table = table or folder / TABLE
    check_table(table)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_writer(folder))
        if table.parent.resolve() != folder.resolve():
            stack.enter_context(only_writer(table.parent))
        protect_inputs(job, folder, table)
        if overwrite:
            clear(folder, table)
        done, goes_on = take_over(job, folder, table, resume=resume)
        if not goes_on and not overwrite:
            refuse_strangers(job, folder)
        _sweep(folder, job)
        journal = Journal.begin(folder, job.facts(), done)
        run = _Run(job, folder, journal, done, 2 * jobs, progress, cancel, replace_files=overwrite or goes_on)
        try:
            failures = run.cut_all()
        finally:
            journal.close()
        chips = run.chips()
        chips, labels = _write_labels(job, folder, chips, overwrite=overwrite or goes_on)
        left_out = job.left_out + run.blank()
        facts = job.facts()
        sources, classes = tuple(work.source for work in job.works), job.labels.classes if job.labels else ()
        del facts["sources"]
        manifest = Manifest(
            folder, sources, tuple(chips), tuple(classes), facts, dict(left_out), (*job.failures, *failures)
        )
        write_manifest(manifest, table=table)
        journal.remove()
    return Cut(manifest, table, run.written, tuple(labels))


class _Run:
    """One pass over the windows of a job."""

    def __init__(
        self, job: Job, folder: Path, journal: Journal, done: dict[Key, Entry], threads: int,
        progress: Progress, cancel: CancelToken | None, *, replace_files: bool,
    ) -> None:  # fmt: skip
        self.job, self.folder, self.journal = job, folder, journal
        self.done = done
        self.written = 0
        self._threads = threads
        self._progress, self._cancel = progress, cancel
        self._replace = replace_files
        self._total = len(job)
        self._lock = threading.Lock()

    def cut_all(self) -> list[dict[str, str]]:
        """Cut what is not done and return the rasters that failed."""
        failures = []
        # More threads than read, for writers also wait for the disk to flush.
        with ThreadPoolExecutor(self._threads, thread_name_prefix="geoalign-write") as pool:
            for number, work in enumerate(self.job.works):
                try:
                    self._cut_one(number, work, pool)
                except (RasterReadError, RasterOpenError) as error:
                    if len(self.job.works) == 1:
                        raise
                    failures.append({"path": work.source.path, "error": str(error)})
                work.raster.rest()
        return failures

    def chips(self) -> list[Chip]:
        """Return the tiles that are there, raster by raster and row by row."""
        found = []
        for number, work in enumerate(self.job.works):
            for window, part in zip(work.tiles.layout.windows, work.parts, strict=True):
                entry = self.done.get((number, window.row, window.col))
                if entry is not None and entry.path:
                    chip = Chip(entry.path, number, window, entry.valid_fraction, part)
                    found.append(replace(chip, size_bytes=entry.size_bytes, crc32=entry.crc32))
        return sorted(found, key=lambda chip: (chip.source, chip.window.row, chip.window.col))

    def blank(self) -> Counter[str]:
        """Return how many tiles were left out after reading."""
        return +Counter({BLANK: sum(not entry.path for entry in self.done.values())})

    def _cut_one(self, number: int, work: Work, pool: ThreadPoolExecutor) -> None:
        todo, parts = [], {}
        for window, part in zip(work.tiles.layout.windows, work.parts, strict=True):
            if (number, window.row, window.col) not in self.done:
                todo.append(window)
                parts[window.row, window.col] = part
        pending: deque[Future[None]] = deque()
        tiles = replace(work.tiles, cancel=self._cancel)
        try:
            for tile in tiles.read(todo):
                window = tile.window
                name = self.job.path(work, window, parts[window.row, window.col])
                pending.append(pool.submit(self._do, (number, window.row, window.col), tile, work, name))
                while len(pending) > 2 * self._threads or (pending and pending[0].done()):
                    self._finish(pending.popleft(), work)
            while pending:
                self._finish(pending.popleft(), work)
        finally:
            for future in pending:
                future.cancel()

    def _finish(self, future: Future[None], work: Work) -> None:
        future.result()
        self._progress(len(self.done), self._total, f"tiling {work.raster.path.name}")

    def _do(self, key: Key, tile: Tile, work: Work, name: str) -> None:
        """Write a tile and note it, in a thread: what a stopped job has written is in the journal."""
        entry = self._write(tile, work, name)
        with self._lock:
            self.done[key] = entry
            self.written += bool(entry.path)
            self.journal.add(key, entry)

    def _write(self, tile: Tile, work: Work, name: str) -> Entry:
        valid = float(tile.valid.mean())
        if valid < self.job.spec.min_valid:
            return Entry(valid)
        target = self.folder / name
        try:
            data = encode_tile(tile, work)
        except (RasterioError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise OutputWriteError(
                "cannot be encoded", path=target, measured=reason, remedy="use --format tif"
            ) from error
        for suffix, text in companions(work.encoding, tile.transform, tile.crs).items():
            _put(target.with_suffix(suffix), text.encode(), replace_file=True)
        _put(target, data, replace_file=self._replace)
        return Entry(valid, name, len(data), zlib.crc32(data))


def encode_tile(tile: Tile, work: Work) -> bytes:
    """Return the bytes of one tile's file.

    Raises:
        RasterioError, ValueError, TypeError: The format cannot hold the samples.
    """
    return encode(_samples(tile, work), tile.valid, tile.transform, tile.crs, work.encoding)


def _put(target: Path, data: bytes, *, replace_file: bool) -> None:
    """Write a file whole: under a temporary name, flushed, then renamed.

    The folder has one writer, which has swept it, so one fixed name does: thousands of tiles need no folder each.
    """
    if target.is_symlink() or (target.exists() and not replace_file):
        raise OutputExistsError("is already there", path=target, remedy="add --overwrite or choose another folder")
    temporary = _temporary(target)
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)  # noqa: PTH105 - the one call that is atomic on every system
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(target, error) from error


def _samples(tile: Tile, work: Work) -> NDArray[Any]:
    """Return samples of the type wanted, with nodata (or 0) where there is no raster.

    Samples that are the raster's own stay as they are also where they are not valid.
    """
    encoding = work.encoding
    is_own = work.tiles.canvas.is_native and tile.array.dtype == np.dtype(encoding.dtype)
    empty = _beyond(tile.window, work) if is_own else ~tile.valid
    array = cast(tile.array, encoding, None if is_own else tile.valid)
    return blank(array, empty, encoding) if empty.any() else array


def _beyond(window: Window, work: Work) -> NDArray[np.bool_]:
    info = work.raster.info
    rows = np.arange(window.row_off_px, window.row_end_px) >= info.height_px
    cols = np.arange(window.col_off_px, window.col_end_px) >= info.width_px
    return np.asarray(rows[:, None] | cols)


def _write_labels(job: Job, folder: Path, chips: list[Chip], *, overwrite: bool) -> tuple[list[Chip], list[Path]]:
    """Write the labels of the tiles that are there, and return the tiles with their counts."""
    if job.labels is None or job.label_spec is None:
        return chips, []
    from tiling.chips.labelfiles import LabelledTile, write_labels

    counted: list[Chip] = []

    def labelled() -> Iterator[LabelledTile]:
        for chip in chips:
            work = job.works[chip.source]
            labels = tuple(work.labels.cut(chip.window)) if work.labels is not None else ()
            counted.append(replace(chip, labels=dict(sorted(Counter(label.class_name for label in labels).items()))))
            place = work.source.place(chip.window)
            yield LabelledTile(chip.path, chip.window, place, work.source.crs, chip.split, labels)

    paths = write_labels(folder, job.label_spec.format, labelled(), job.labels.classes, overwrite=overwrite)
    return counted, paths


def _sweep(folder: Path, job: Job) -> None:
    """Make the folders of the tiles, and remove temporary files that a killed process has left."""
    root = folder.resolve()
    for part in sorted({(folder / name).parent for name in job.paths()}):
        if not part.resolve().is_relative_to(root):
            raise OutputWriteError("is a link that leads out of the folder", path=part, remedy="remove it")
        try:
            part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(part, error) from error
    # Names are made of the tiles', so that nobody else's files are touched; links go, not what they lead to.
    ours = {_temporary(folder / name) for name in job.files()} | {folder / f".{JOURNAL}.tmp"}
    for path in folder.rglob(".*.tmp"):
        if path in ours and (path.is_symlink() or path.is_file()):
            path.unlink()


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")
