"""The files of a server: what clients upload, what jobs write, and which other paths a client may name."""

from __future__ import annotations

import os
import re
import secrets
import shutil
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


class Storage:
    """A folder with one folder per key, and the roots beside it.

    Args:
        base: Where uploads and results lie; made when missing.
        roots: Folders whose files clients may name by path.
        max_bytes: Largest upload.
    """

    def __init__(self, base: Path, roots: tuple[Path, ...], max_bytes: int) -> None:
        self.base = base.resolve()
        self.base.mkdir(parents=True, exist_ok=True)
        self.roots = tuple(root.resolve() for root in roots)
        self.max_bytes = max_bytes

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
            target.parent.mkdir(parents=True, exist_ok=True)
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
            return str(self.place(key, name))
        real = Path(path).resolve()
        if Path(path).is_absolute() and any(real.is_relative_to(root) for root in (self.base, *self.roots)):
            return str(real)
        raise Failure(
            "raster", "the engine's machine does not offer that file",
            remedy="upload the image, or start the engine with --root for its folder",
        )  # fmt: skip

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
