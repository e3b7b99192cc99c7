"""The store: one folder for each imported or pulled model, and what lies in it under which name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from geoalign_core.errors import ModelError
from geoalign_core.models.config import CONFIG_DIR
from tiling.files import atomic_folder, fsync_path, write_error

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG_NAME, WEIGHTS_NAME, PROVENANCE_NAME = "model.json", "model.safetensors", "provenance.json"
"""The files of a model's folder; the last is written last, so a folder that has it is whole."""
HEADER_KEY = "geoalign"
"""Key of the record in the weights' own header, which must agree with the files beside them."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a model may be called: a file name that means the same on every system."""


def models_dir() -> Path:
    """Return the store: the folder of imported and pulled models (``GEOALIGN_MODELS`` overrides it)."""
    import platformdirs

    override = os.environ.get("GEOALIGN_MODELS")
    return Path(override) if override else Path(platformdirs.user_data_dir("geoalign")) / "models"


def downloads_dir(name: str) -> Path:
    """Return the folder of a model's download in work."""
    return models_dir() / ".downloads" / name


def is_installed(name: str) -> bool:
    """Return whether a model of that name is in the store, whole."""
    return (models_dir() / name / PROVENANCE_NAME).is_file()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def import_lock(store: Path, name: str) -> Path:
    """Return the lock that whoever writes or deletes a model holds; not the pull's, which imports within its own."""
    return store / ".downloads" / f"{name}.import.lock"


def leftovers(store: Path, name: str) -> list[Path]:
    """Return the temporary folders that a killed import or removal of a model has left in a store."""
    form = re.compile(rf"\.{re.escape(name)}\.[^.]+\.tmp")
    return [path for path in store.glob(f".{name}.*.tmp") if form.fullmatch(path.name)]


@contextlib.contextmanager
def new_model(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside a model's place in the store, flush what was put in, and rename it.

    Args:
        folder: The place, free; whoever calls holds its :func:`import_lock`.

    Raises:
        OutputWriteError: The store cannot be written; nothing is left behind.
    """
    for left in leftovers(folder.parent, folder.name):
        shutil.rmtree(left, ignore_errors=True)
    with atomic_folder(folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh = temporary / folder.name
        try:
            fresh.mkdir()
            yield fresh
            for item in fresh.iterdir():
                fsync_path(item)
            fresh.rename(folder)
            fsync_path(folder.parent)
        except OSError as error:
            raise write_error(folder, error) from error


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock, which the system frees when the process dies.

    Args:
        path: The lock's file; its folder is made.
        busy: What to say where another process holds it; None waits for that one.

    Raises:
        ModelError: Another process holds it.
        OutputWriteError: The file cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout as error:
        raise ModelError(f"{busy} by another process", remedy="wait until it is finished, then run again") from error
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


def size_of(folder: Path) -> int:
    """Return the bytes of all the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stored(name: str) -> list[Path]:
    """Return the folders that a name has in the store: the model's, its download's, and what a killed import left."""
    if not NAME.fullmatch(name):
        raise ModelError(f"{name!r} is not the name of a model", remedy="see the names with: geoalign models list")
    folders = (models_dir() / name, downloads_dir(name))
    for folder in folders:
        if folder.is_symlink():
            raise ModelError(
                "is a link to a folder elsewhere, which is not deleted from here", path=folder,
                measured=str(folder.readlink()), remedy="delete the link yourself",
            )  # fmt: skip
    found = [folder for folder in (*folders, *leftovers(models_dir(), name)) if folder.is_dir()]
    if not found:
        packaged = (CONFIG_DIR / f"{name}.json").exists()
        what = "is part of the package and cannot be deleted" if packaged else "is not in the store"
        raise ModelError(f"{name} {what}", path=models_dir())
    return found


def stored_size(name: str) -> int:
    """Return the bytes that a model takes in the store, with what is left of its download.

    Raises:
        ModelError: Nothing of that name is in the store.
    """
    return sum(size_of(folder) for folder in _stored(name))


def remove_model(name: str) -> None:
    """Delete a model from the store; half a model is never left under its name.

    Raises:
        ModelError: Nothing of that name is in the store.
        OutputWriteError: The folder cannot be deleted.
    """
    _stored(name)
    pulling = locked(downloads_dir(f"{name}.lock"), f"{name} is being pulled")
    with pulling, locked(import_lock(models_dir(), name)):
        for folder in _stored(name):
            with atomic_folder(models_dir(), prefix=f".{name}.") as bin_:
                folder.rename(bin_ / name)
