"""What an earlier run left in the output folder: gone on from, refused, or removed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tiling.chips.encode import COMPANIONS
from tiling.chips.job import plain
from tiling.chips.journal import JOURNAL, Entry, read_journal
from tiling.chips.labelfiles import label_files
from tiling.chips.manifest import TABLE, ManifestError, read_manifest
from tiling.errors import GeoAlignError, OutputExistsError, OutputWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiling.chips.job import Job
    from tiling.chips.journal import Key
    from tiling.chips.manifest import Manifest


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
    refuse_other_folder(folder, table)
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
    """Refuse to begin where files have the names of the job's; nobody has said that they may be replaced."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    first = next((path for path in outputs(job) if path in there), None) if there else None
    if first is not None:
        raise OutputExistsError(
            "is already there", path=folder / first, remedy="add --overwrite or choose another folder"
        )


def outputs(job: Job) -> Iterator[str]:
    """Yield the names of all files that a job writes into its folder, but for the manifest."""
    yield from job.files()
    if job.label_spec is not None and job.labels is not None:
        tiles = ((job.path(work, window, part), part) for work, window, part in job.windows())
        yield from label_files(job.label_spec.format, tiles, len(job.labels.classes))


def protect_inputs(job: Job, folder: Path, table: Path) -> None:
    """Refuse a job whose outputs, or the earlier files that they replace, are its own inputs.

    Raises:
        OutputExistsError: As said.
    """
    inputs = job.inputs()
    near = any(path.is_relative_to(folder.resolve()) for path in inputs)
    files = {folder / name for name in (*outputs(job), *_earlier(folder, table))} if near else set()
    first = next((path for path in (table, *files) if path.resolve() in inputs), None)
    if first is not None:
        raise OutputExistsError("is an input of this job", path=first, remedy="choose another folder")


def _earlier(folder: Path, table: Path) -> list[str]:
    """Return the names of an earlier job's files; what cannot be read is no list of files."""
    names: list[str] = []
    for path in {table, folder / TABLE}:
        with contextlib.suppress(GeoAlignError, KeyError):
            manifest = read_manifest(path)
            if manifest.folder.resolve() == folder.resolve():
                names += _named(manifest)
    with contextlib.suppress(OutputWriteError):
        names += [entry.path for entry in (read_journal(folder) or ({}, {}))[1].values() if entry.path]
    return names


def _named(manifest: Manifest) -> Iterator[str]:
    for chip in manifest.chips:
        yield chip.path
        path = PurePosixPath(chip.path)
        yield from (str(path.with_suffix(suffix)) for suffix in COMPANIONS.get(path.suffix[1:], ()))
    labels = manifest.job.get("labels")
    if isinstance(labels, dict):
        tiles = ((chip.path, chip.split) for chip in manifest.chips)
        yield from label_files(labels["format"], tiles, len(manifest.classes))


def clear(folder: Path, table: Path) -> None:
    """Remove the tiles, labels and STAC items, the manifest and the journal of an earlier job.

    Raises:
        OutputExistsError: The manifest to be replaced is that of another folder.
    """
    refuse_other_folder(folder, table)
    root = folder.resolve()
    names = _earlier(folder, table)
    for file in {folder / name for name in names}:
        if file.parent.resolve().is_relative_to(root) and (file.is_file() or file.is_symlink()):
            file.unlink()
    if names and (folder / "stac" / "collection.json").is_file() and not (folder / "stac").is_symlink():
        shutil.rmtree(folder / "stac")
    for path in {table, folder / TABLE}:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    (folder / JOURNAL).unlink(missing_ok=True)


def refuse_other_folder(folder: Path, table: Path) -> None:
    """Refuse a manifest that tells of the tiles of another folder.

    Raises:
        OutputExistsError: As said.
    """
    with contextlib.suppress(ManifestError):
        owner = read_manifest(table).folder
        if owner.resolve() != folder.resolve():
            raise OutputExistsError(
                "is the manifest of another folder", path=table, measured=str(owner), remedy="name another file"
            )
