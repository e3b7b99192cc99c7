"""Any source → records: one list of records with sizes, digests and valid boxes; pictures stay where they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tiling.errors import CancelledError, OutputExistsError
from tiling.files import atomic_file, write_error
from tiling.progress import CancelToken, Progress, silent
from training.builder.steps import RECORDS, STAMP, Noted, Rejection, Step, StepReport, run_step
from training.data.dataset import RsfgDataset, write_records
from training.data.fingerprints import pixel_md5
from training.data.images import picture_size, rebase, split_name
from training.data.readers import OUTSIDE, outside
from training.data.schema import clip_regions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from training.builder.steps import Picture
    from training.data.readers import Source
    from training.data.schema import Record

PLACES = ("stay", "copy", "link")
"""Where pictures go: nowhere, into the folder as copies, or as hard links where the disk allows it."""
_INCOMING = ".incoming"
_NOTE = "import_note"
"""Key of what is known of a record when it arrives; it does not stay."""


class _Arrivals(RsfgDataset):
    """The listed records; messages name their places in the sources, because the list itself does not stay."""

    def key(self, index: int) -> str:
        """Return the place of a record in its source."""
        return str(self[index].extra[_NOTE]["where"])


def harmonise(
    sources: Sequence[Source], out: Path, *, place: str = "stay", limit: int | None = None, workers: int = 2,
    progress: Progress = silent, cancel: CancelToken | None = None, overwrite: bool = False,
) -> StepReport:  # fmt: skip
    """Import sources into one folder of records.

    Boxes are cut at the image's edges and dropped when nothing is left of them, both counted. Images get their size,
    the MD5 of their bytes and, in ``extra``, of their decoded pixels; one that cannot be read, or that lies outside of
    its data set, drops its record, and ``rejected.jsonl`` names the record's place in the source.

    Args:
        sources: From :func:`training.data.readers.open_source`.
        out: Folder of the result.
        place: One of :data:`PLACES`.
        limit: Take this many records of each source, evenly spread over it; None takes all.
        workers: Threads that read pictures.
        progress: Told after every record.
        cancel: Stops between records.
        overwrite: Whether records of other origin in ``out`` may be replaced.

    Raises:
        DataError: A source is not what it claims to be.
        OutputExistsError: ``out`` holds records of other origin.
    """
    if (out / RECORDS).exists() and not (out / STAMP).exists() and not overwrite:
        raise OutputExistsError("already holds records", path=out, remedy="add --overwrite or give another folder")
    incoming = out / _INCOMING
    write_records(incoming, _listed(sources, incoming, limit, cancel or CancelToken()), overwrite=True)
    report = run_step(
        harmonise_step(out, place), _Arrivals([incoming]), out, workers=workers, progress=progress, cancel=cancel,
        overwrite=overwrite,
    )  # fmt: skip
    with contextlib.suppress(OSError):
        (incoming / RECORDS).unlink()
        incoming.rmdir()
    return report


def _listed(sources: Sequence[Source], folder: Path, limit: int | None, cancel: CancelToken) -> Iterator[Record]:
    """Read the records of all sources with valid boxes; what the step must know of them goes along in ``extra``."""
    for source in sources:
        records = list(source.placed()) if limit is not None else source.placed()
        if isinstance(records, list) and limit is not None and len(records) > limit:
            records = [records[index * len(records) // limit] for index in range(limit)]
        for where, record in records:
            if cancel.cancelled:
                raise CancelledError("stopped", remedy="run the same command again")
            counts: Counter[str] = Counter()
            clipped = clip_regions(record, counts)
            error = outside(record, where)
            extra = {**clipped.extra, _NOTE: {"where": where, "counts": dict(counts), "outside": error and str(error)}}
            yield rebase(replace(clipped, source=record.source or source.name, extra=extra), source.root, folder)


def harmonise_step(out: Path, place: str = "stay") -> Step:
    """Return the step that reads each picture once and completes its record."""

    def apply(record: Record, picture: Picture) -> Noted | Rejection:
        note = record.extra.get(_NOTE, {})
        if note.get("outside"):
            return Rejection(OUTSIDE, note["outside"])
        content, pixels = picture.content, picture.pixels
        height, width = pixels.shape[:2]
        counts = Counter(note.get("counts", {}))
        if record.width and record.height and (record.width, record.height) != picture_size(content, record.image):
            counts["sizes corrected"] += 1
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        extra = {key: value for key, value in record.extra.items() if key != _NOTE}
        image = record.image if place == "stay" else _bring(picture.root, record.image, out, digest, content, place)
        counts["regions"] += len(record.regions)
        done = replace(
            record, image=image, width=width, height=height, md5=digest,
            scene=record.scene or Path(record.image.rpartition("!")[2]).stem,
            extra={**extra, "pixel_md5": pixel_md5(pixels)},
        )  # fmt: skip
        return Noted(done, counts)

    return Step(name="import", settings={"place": place}, apply=apply, needs_content=True)


def _bring(root: Path, image: str, out: Path, digest: str, content: bytes, place: str) -> str:
    """Put a picture into ``out/images`` under its digest; return its path from ``root``."""
    name, member = split_name(image)
    suffix = Path(member or name).suffix.lower()
    target = out / "images" / digest[:2] / f"{digest}{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        linked = False
        if place == "link" and member is None:
            try:
                os.link((root / name).resolve(), target)
                linked = True
            except FileExistsError:
                linked = True
            except OSError:  # another disk, or a system without links
                linked = False
        if not linked:
            try:
                with atomic_file(target, overwrite=True) as temporary:
                    temporary.write_bytes(content)
            except OSError as error:
                raise write_error(target, error) from error
    return Path(os.path.relpath(target.absolute(), root.absolute())).as_posix()
