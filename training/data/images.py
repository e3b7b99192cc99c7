"""Pictures of records: where they lie, their bytes, their size and their pixels."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from PIL.Image import Image

    from training.data.schema import Record

SUFFIXES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif")
MARK = ".tar!"
"""Ends an archive's name in :attr:`training.data.schema.Record.image`."""
MOST_PIXELS = 89_478_485
"""Pillow's own limit, a quarter of a gigabyte as RGB; larger pictures are for ``geoalign-tile`` to cut."""
MOST_BYTES = 1 << 30
"""Of a picture's file: twice what a picture of as many pixels takes without compression."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, TypeError, OverflowError)
"""What Pillow's decoders raise on damaged files."""
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def split_name(image: str) -> tuple[str, str | None]:
    """Return a file's path and, for a picture inside an archive, the member's name."""
    head, mark, member = image.partition(MARK)
    return (head + MARK[:-1], member) if mark else (image, None)


def read_bytes(root: Path, image: str) -> bytes:
    """Return the bytes of a picture's file.

    Args:
        root: The data set's folder.
        image: As :attr:`training.data.schema.Record.image`.

    Raises:
        DataError: It is missing or cannot be read.
    """
    from training.data.shards import member_of

    name, member = split_name(image)
    path = root / name
    try:
        if member is not None:
            return member_of(path, member).read()
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would wait for ever, a device never end
            raise ValueError("no plain file")
        if about.st_size > MOST_BYTES:
            raise ValueError(f"{about.st_size} bytes, more than {MOST_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise DataError("an image cannot be read", path=path, measured=reason, remedy="check the folder") from error


def decode(payload: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a picture's file into uint8 RGB (H, W, 3); transparency is dropped, orientation tags are not applied.

    Args:
        payload: The file's bytes.
        where: Name of the record, for the error.

    Raises:
        DataError: It is no picture, is cut short, too large, or has more than 8 bits.
    """
    with _opened(payload, where) as image:
        if image.mode in _DEEP:
            raise DataError(
                "an image has more than 8 bits", path=where, measured=image.mode, remedy="cut it with geoalign-tile"
            )
        return np.asarray(image.convert("RGB"))


def resize(image: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Resize a uint8 RGB image (H, W, 3), bicubic with antialiasing."""
    from PIL import Image

    if image.shape[:2] == (height_px, width_px):
        return image
    return np.asarray(Image.fromarray(image).resize((width_px, height_px), Image.Resampling.BICUBIC))


def picture_size(payload: bytes, where: str) -> tuple[int, int]:
    """Return width and height in pixels from a picture's header.

    Raises:
        DataError: It is no picture, or too large.
    """
    with _opened(payload, where) as image:
        return image.size


def _opened(payload: bytes, where: str) -> AbstractContextManager[Image]:
    """Open a picture; what decoding it raises inside the block becomes a ``DataError``."""
    import contextlib

    from PIL import Image, UnidentifiedImageError

    @contextlib.contextmanager
    def opening() -> Iterator[Image.Image]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of large pictures and odd tags; the size is checked here
                image = Image.open(io.BytesIO(payload))
            with image:
                if image.width * image.height > MOST_PIXELS:
                    raise DataError(
                        "an image is too large",
                        path=where,
                        measured=f"{image.width} × {image.height} px",
                        remedy="cut it with geoalign-tile",
                    )
                yield image
        except Image.DecompressionBombError as error:
            raise DataError(
                "an image is too large", path=where, measured=str(error)[:80], remedy="cut it with geoalign-tile"
            ) from error
        except _DAMAGE as error:
            reason = "no known format" if isinstance(error, UnidentifiedImageError) else str(error)[:80]
            raise DataError(
                "an image is damaged", path=where, measured=reason or type(error).__name__, remedy="fetch it again"
            ) from error

    return opening()


def plain_path(path: str | Path) -> str:
    """Return a path for messages without the ``..`` in it; behind a link, the file's own path."""
    short = os.path.normpath(path)
    real = os.path.realpath(path)
    return short if os.path.realpath(short) == real else real


def rebase(record: Record, root: Path, folder: Path) -> Record:
    """Return a record of one data set's folder as a record of another's: the picture stays where it is.

    Args:
        record: Its image is relative to ``root``.
        root: Folder that the record was read from.
        folder: Folder that the record will be written to.
    """
    name, member = split_name(record.image)
    try:
        # The way up from a folder behind a link is that of the folder itself, whatever leads to it.
        moved = Path(os.path.relpath(root.resolve() / name, folder.resolve())).as_posix()
    except ValueError:  # another drive
        moved = (root / name).absolute().as_posix()
    return replace(record, image=moved if member is None else f"{moved}!{member}")
