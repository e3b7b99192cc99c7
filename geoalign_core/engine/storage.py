"""The files of a server: what clients upload, what jobs write, and which other paths a client may name."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from geoalign_core.engine.protocol import Failure
from tiling.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PREFIX = "/v1/files/"
_KEY = re.compile(r"[a-z0-9-]{8,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ ()+-]{0,149}")
_RASTERS = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".ovr", ".msk", ".tfw", ".jgw", ".pgw", ".j2w", ".prj"}
_RESERVE_BYTES = 2**28
_JOB = re.compile(r"job-[0-9a-f]{16}")
_MARK = ".geoalign-upload"
"""Lies in the folders that uploads made: no other folder of the user's choice is ever removed."""
KEEP_HOURS = 24.0
_RESULT_S = 3600.0
_FETCHED_S = 300.0
"""Results that were all fetched stay so long, in case a client comes back for them."""


class Storage:
    """A folder with one folder per key, and the roots beside it.

    Args:
        base: Where uploads and results lie; made when missing.
        roots: Folders whose files clients may name by path.
        max_bytes: Largest upload.
        keep_hours: How long an upload stays that nobody uses, with what was indexed of it.
    """

    def __init__(self, base: Path, roots: tuple[Path, ...], max_bytes: int, *, keep_hours: float = KEEP_HOURS) -> None:
        self.base = base.resolve()
        self.base.mkdir(parents=True, exist_ok=True)
        self.roots = tuple(root.resolve() for root in roots)
        self.max_bytes = max_bytes
        self._keep_s = keep_hours * 3600
        self._fetched: dict[str, set[str]] = {}

    def place(self, key: str, name: str) -> Path:
        """Return where a file lies.

        Raises:
            Failure: Key or name are not plain.
        """
        if not _KEY.fullmatch(key) or not _NAME.fullmatch(name) or name.endswith((" ", ".")):
            raise Failure("bad_request", "the file's key or name is not plain", remedy="use letters, digits and . _ -")
        return self.base / key / name

    async def receive(self, key: str, name: str, stream: AsyncIterator[bytes]) -> Path:
        """Take an upload; it appears whole or not at all.

        Raises:
            Failure: It is too large, of another kind, or the disk is full.
        """
        target = self.place(key, name)
        if target.suffix.lower() not in _RASTERS:
            raise Failure("bad_request", f"{target.suffix} is no raster's suffix", remedy="upload a GeoTIFF")
        size = 0
        try:
            fresh = not target.parent.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            if fresh:
                (target.parent / _MARK).touch()
            with atomic_folder(target.parent, prefix=".upload.") as temporary:
                with (temporary / "data").open("wb") as file:
                    async for chunk in stream:
                        size += len(chunk)
                        self._check(size)
                        file.write(chunk)
                os.replace(temporary / "data", target)  # noqa: PTH105 - the one call that is atomic on every system
        except OSError as error:
            raise Failure("disk_full", f"the upload cannot be stored ({error.strerror})", retryable=True) from error
        return target

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise Failure("bad_request", f"the upload is larger than {self.max_bytes} bytes", remedy="cut it")
        if shutil.disk_usage(self.base).free < _RESERVE_BYTES:
            raise Failure("disk_full", "the engine's disk is full", remedy="free some space there", retryable=True)

    def readable(self, path: str) -> str:
        """Return the path of a file that a client may name: an upload, a result, or one under a root.

        Raises:
            Failure: ``raster``, for any other path, whether there is a file or not.
        """
        if path.startswith(PREFIX):
            key, _, name = path.removeprefix(PREFIX).partition("/")
            place = self.place(key, name)
            self.use(key)
            return str(place)
        real = Path(path).resolve()
        if Path(path).is_absolute() and any(real.is_relative_to(root) for root in (self.base, *self.roots)):
            return str(real)
        raise Failure(
            "raster", "the engine's machine does not offer that file",
            remedy="upload the image, or let whoever runs the engine offer its folder",
        )  # fmt: skip

    def virtual(self, *, asked: bool) -> bool:
        """Refuse rasters that only name other files: those could be any of this machine.

        Raises:
            Failure: ``raster``, when one is asked for.
        """
        if asked:
            raise Failure(
                "raster", "over the network no virtual raster is read, for it may lead to other files",
                remedy="convert it with gdal_translate and upload the image",
            )  # fmt: skip
        return False

    def folder(self, out: str | None) -> Path:
        """Return the folder that a client names when it lies under a root, else a fresh one."""
        if out:
            real = Path(out).resolve()
            if Path(out).is_absolute() and any(real.is_relative_to(root) for root in self.roots):
                return real
        return self.base / f"job-{secrets.token_hex(8)}"

    def told(self, path: Path) -> str:
        """Return the address under which a file can be fetched, or its path when it lies under a root."""
        if path.resolve().is_relative_to(self.base):
            return PREFIX + path.resolve().relative_to(self.base).as_posix()
        return str(path)

    def model(self, name: str | None) -> str | None:
        """Return a model's name; a folder may not be named over the network."""
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise Failure("model", "over the network a model has a name, not a path", remedy="choose one of the list")
        return name

    def use(self, key: str, name: str = "") -> None:
        """Note that somebody uses a folder, and which file of it was fetched."""
        if name:
            self._fetched.setdefault(key, set()).add(name)
        with contextlib.suppress(OSError):
            os.utime(self.base / key)

    def sweep(self, now: float | None = None) -> None:
        """Remove results that were fetched or are an hour old, and uploads that nobody has used for long.

        Args:
            now: Seconds since the epoch; the clock's when None.
        """
        now = time.time() if now is None else now
        for folder in self.base.iterdir():
            if folder.is_symlink() or not folder.is_dir():
                continue
            if now - _last_used(folder) > self._patience(folder):
                shutil.rmtree(folder, ignore_errors=True)
                self._fetched.pop(folder.name, None)

    def _patience(self, folder: Path) -> float:
        """Return how many seconds a folder stays unused."""
        if _JOB.fullmatch(folder.name):
            left = {file.name for file in folder.iterdir()} - self._fetched.get(folder.name, set())
            return _RESULT_S if left else _FETCHED_S
        return self._keep_s if (folder / _MARK).is_file() else float("inf")


def _last_used(folder: Path) -> float:
    """Return when anything in a folder changed last, or it was used; an index that is being built counts."""
    last = folder.stat().st_mtime
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with contextlib.suppress(OSError):  # it may go while we look
                last = max(last, path.lstat().st_mtime)
    return last
