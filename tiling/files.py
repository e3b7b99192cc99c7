"""Outputs appear whole or not at all: a temporary name beside the target, flush, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tiling.errors import OutputExistsError, OutputWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REMEDY = {
    errno.ENOSPC: "free some space or write to another disk",
    errno.EDQUOT: "free some space or write to another disk",
    errno.EROFS: "choose a folder that you may write to",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOENT: "check the folder's name",
    errno.ENOTDIR: "check the folder's name",
}


def write_error(path: str | Path, error: BaseException) -> OutputWriteError:
    """Turn a failure of the operating system or of GDAL while writing ``path`` into a one-line error."""
    code = getattr(error, "errno", None)
    text = str(error)
    if code is None and "No space left" in text:
        code = errno.ENOSPC
    reason = os.strerror(code) if code else text.splitlines()[0] if text else type(error).__name__
    remedy = _REMEDY.get(code or 0, "check the folder and the free space")
    return OutputWriteError("cannot be written", path=path, measured=reason, remedy=remedy)


def refuse_existing(path: str | Path, *, overwrite: bool) -> None:
    """Raise unless ``path`` is free or may be replaced.

    Raises:
        OutputExistsError: The path exists and ``overwrite`` is false.
        OutputWriteError: The path is a folder or a symbolic link.
    """
    path = Path(path)
    if path.is_symlink() or path.is_dir():
        raise OutputWriteError(
            "is a folder or a link, not a file that can be replaced", path=path, remedy="give another name"
        )
    if path.exists() and not overwrite:
        raise OutputExistsError("is already there", path=path, remedy="add --overwrite or give another name")


def fsync_path(path: str | Path) -> None:
    """Flush a file or a folder entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(target: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path with the target's suffix; rename it onto ``target`` when the block ends well.

    Sidecar files that a driver writes beside the temporary file are removed with it.

    Args:
        target: Where the finished file shall be. Its folder is made when it is missing.
        overwrite: Whether a file that is already there may be replaced.

    Yields:
        A path in a fresh folder beside ``target``.

    Raises:
        OutputExistsError: ``target`` exists and ``overwrite`` is false.
        OutputWriteError: The folder or the disk refuses.
    """
    target = Path(target)
    refuse_existing(target, overwrite=overwrite)
    with atomic_folder(target.parent, prefix=f".{target.name}.") as folder:
        temporary = folder / target.name
        yield temporary
        try:
            fsync_path(temporary)
            os.replace(temporary, target)  # noqa: PTH105 - the one call that is atomic on every system
            fsync_path(target.parent)
        except OSError as error:
            raise write_error(target, error) from error


@contextlib.contextmanager
def atomic_folder(parent: str | Path, *, prefix: str) -> Iterator[Path]:
    """Give a temporary folder inside ``parent`` and remove it, whatever is left in it, at the end."""
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    except OSError as error:
        raise write_error(parent, error) from error
    try:
        yield folder
    except OSError as error:
        raise write_error(parent, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
