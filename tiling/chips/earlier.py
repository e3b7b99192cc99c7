"""What an earlier run left in the output folder: gone on from, refused, or removed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tiling.chips.encode import COMPANIONS
from tiling.chips.job import plain
from tiling.chips.journal import JOURNAL, Entry, read_journal
from tiling.chips.manifest import ManifestError, read_manifest
from tiling.errors import OutputExistsError, OutputWriteError

if TYPE_CHECKING:
    from pathlib import Path

    from tiling.chips.job import Job
    from tiling.chips.journal import Key


def take_over(job: Job, folder: Path, table: Path, *, resume: bool) -> tuple[dict[Key, Entry], bool]:
    """Return what an earlier run of the same job has done, and whether there was one.

    Raises:
        OutputExistsError: The folder holds the tiles of another job, or of this one, finished.
    """
    facts = job.facts()
    stopped = read_journal(folder)
    if stopped is not None:
        before, done = stopped
        if before != facts:
            raise OutputExistsError(
                "another job was stopped here",
                path=folder,
                measured=f"it differs in {_difference(before, facts)}",
                remedy="run that one again, add --overwrite, or choose another folder",
            )
        return {key: entry for key, entry in done.items() if entry.is_there(folder)}, True
    if not (table.exists() or table.with_suffix(".json").exists()):
        return {}, False
    if not resume:
        raise OutputExistsError(
            "holds finished tiles",
            path=table.parent,
            remedy="add --resume to complete them or --overwrite to replace them",
        )
    manifest = read_manifest(table)
    before = {**manifest.job, "sources": [plain(source.to_dict()) for source in manifest.sources]}
    if before != facts:
        raise OutputExistsError(
            "holds the tiles of another job",
            path=folder,
            measured=f"it differs in {_difference(before, facts)}",
            remedy="add --overwrite or choose another folder",
        )
    entries = {
        (chip.source, chip.window.row, chip.window.col): Entry(
            chip.valid_fraction, chip.path, chip.size_bytes, chip.crc32
        )
        for chip in manifest.chips
    }
    return {key: entry for key, entry in entries.items() if entry.is_there(folder)}, True


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name what two jobs do not share."""
    if before.get("sources") != now["sources"] and all(before.get(k) == now[k] for k in now if k != "sources"):
        return "the rasters"
    spec, wanted = before.get("spec") or {}, now["spec"]
    names = [key for key in wanted if spec.get(key) != wanted[key]]
    return ", ".join(names) or "labels or split"


def refuse_strangers(job: Job, folder: Path) -> None:
    """Refuse to begin where files have the tiles' names; nobody has said that they may be replaced."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    first = next((path for path in job.paths() if path in there), None) if there else None
    if first is not None:
        raise OutputExistsError(
            "is already there", path=folder / first, remedy="add --overwrite or choose another folder"
        )


def protect_inputs(job: Job, folder: Path, table: Path) -> None:
    """Refuse a job whose outputs, or the earlier tiles that they replace, are its own inputs.

    Raises:
        OutputExistsError: As said.
    """
    inputs = {path.resolve() for work in job.works for path in work.raster.paths}
    if not any(path.is_relative_to(folder.resolve()) for path in inputs):
        return
    first = next(
        (name for name in {*job.paths(), *_earlier(folder, table)} if (folder / name).resolve() in inputs), None
    )
    if first is not None:
        raise OutputExistsError("is an input of this job", path=folder / first, remedy="choose another folder")


def _earlier(folder: Path, table: Path) -> list[str]:
    """Return the names of an earlier job's tiles; what cannot be read is no list of files."""
    names: list[str] = []
    with contextlib.suppress(ManifestError, OutputWriteError):
        names += [chip.path for chip in read_manifest(table).chips]
    with contextlib.suppress(OutputWriteError):
        names += [entry.path for entry in (read_journal(folder) or ({}, {}))[1].values() if entry.path]
    return names


def clear(folder: Path, table: Path) -> None:
    """Remove the tiles, the manifest and the journal of an earlier job."""
    root = folder.resolve()
    for name in _earlier(folder, table):
        path = folder / name
        for file in (path, *(path.with_suffix(suffix) for suffix in COMPANIONS.get(path.suffix[1:], ()))):
            if file.parent.resolve().is_relative_to(root) and file.is_file():
                file.unlink()
    for file in (table, table.with_suffix(".json"), folder / JOURNAL):
        file.unlink(missing_ok=True)
