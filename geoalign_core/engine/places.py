"""Which paths a client may name, and how it learns of the files that were made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from geoalign_core.engine.protocol import Failure


class Places(Protocol):
    """Between a client's names of files and this machine's."""

    def readable(self, path: str) -> str:
        """Return the path of a file to read.

        Raises:
            Failure: The client may not name it.
        """

    def virtual(self, *, asked: bool) -> bool:
        """Return whether a raster may be one that only names other files.

        Raises:
            Failure: It is asked for and may not.
        """

    def folder(self, out: str | None) -> Path:
        """Return the folder for results.

        Raises:
            Failure: None was named and there is no other.
        """

    def told(self, path: Path) -> str:
        """Return how the client finds a file of results."""

    def model(self, name: str | None) -> str | None:
        """Return a model's name.

        Raises:
            Failure: The client may not name it.
        """


class SamePlaces:
    """A client on this machine that may read and write what this process may."""

    def readable(self, path: str) -> str:
        """Return the path as it stands."""
        return path

    def virtual(self, *, asked: bool) -> bool:
        """Return what is asked for."""
        return asked

    def folder(self, out: str | None) -> Path:
        """Return the folder as it stands."""
        if not out:
            raise Failure("bad_request", "out names no folder for the results", remedy="give a folder")
        return Path(out)

    def told(self, path: Path) -> str:
        """Return the path as it stands."""
        return str(path)

    def model(self, name: str | None) -> str | None:
        """Return the name as it stands."""
        return name
