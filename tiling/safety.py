"""Checks that need no GDAL: is this text a local file's name, and does the file try to lead elsewhere?"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tiling.errors import RasterOpenError

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]+:")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = (
    *((magic, "GTiff") for magic in _TIFF),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
)
"""First bytes and the driver that may read what begins with them: the allow-list, but for WebP."""
_SIDECARS = (".ovr", ".msk", ".msk.ovr")


def check_text(path: str | Path, *, allow_remote: bool = False) -> str:
    """Return ``path`` as text if it can only mean a local file.

    Raises:
        RasterOpenError: It is inline XML, a virtual file system, an address or a driver's own syntax.
    """
    text = str(path)
    shown = text if len(text) <= 80 else text[:77] + "…"
    name_a_file = "name a local raster file"
    if not text.strip() or "\0" in text:
        raise RasterOpenError("is not a file name", path=shown or "''", remedy=name_a_file)
    if text.lstrip().startswith("<"):
        raise RasterOpenError("is inline XML, not a file name", path=shown, remedy=name_a_file)
    if text.replace("\\", "/").lower().startswith("/vsi"):
        raise RasterOpenError("is a GDAL virtual file system", path=shown, remedy=name_a_file)
    if _DRIVE.match(text):
        return text
    if "://" in text or _ADDRESS.match(text):
        if allow_remote:
            return text
        raise RasterOpenError("is an address, not a local file", path=shown, remedy="download it and name the file")
    if _PREFIX.match(text) and not Path(text).exists():
        raise RasterOpenError(
            "uses a driver's own syntax", path=shown, remedy="convert the part to GeoTIFF with gdal_translate"
        )
    return text


def check_file(file: Path, *, allow_vrt: bool = False) -> str:
    """Return the driver for a file, told by its first bytes and never by its name.

    Raises:
        RasterOpenError: It is not a regular file, is empty, is of a format that is not allowed, or is a VRT
            (whatever its suffix) and ``allow_vrt`` is false.
    """
    try:
        if file.is_dir():
            raise RasterOpenError("is a folder", path=file, remedy="name the raster files in it")
        if not file.exists():
            raise RasterOpenError("does not exist", path=file, remedy="check the name")
        if not file.is_file():
            raise RasterOpenError("is not a regular file", path=file, remedy="name a raster file")
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RasterOpenError("cannot be read", path=file, measured=reason, remedy="check its permissions") from error
    if not head:
        raise RasterOpenError("is empty", path=file, measured="0 bytes", remedy="get the file again")
    if b"<VRTDataset" in head:
        if allow_vrt:
            return "VRT"
        raise RasterOpenError(
            "is a virtual raster, which may read other files",
            path=file,
            remedy="add --allow-vrt if you trust it, or convert it with gdal_translate",
        )
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    driver = "WEBP" if is_webp else next((driver for magic, driver in _MAGIC if head.startswith(magic)), None)
    if driver is None:
        raise RasterOpenError(
            "is not a GeoTIFF, JPEG 2000, PNG, JPEG or WebP file",
            path=file,
            measured=f"begins with {head[:8]!r}",
            remedy="convert it with 'gdal_translate -of COG IN OUT.tif'",
        )
    return driver


def check_sidecars(file: Path) -> None:
    """Refuse overview and mask files beside ``file`` that are not TIFFs: GDAL would open them with any driver.

    Raises:
        RasterOpenError: As said.
    """
    for suffix in _SIDECARS:
        sidecar = file.with_name(file.name + suffix)
        # A name that is too long for the system is no file either.
        if not os.path.isfile(sidecar):  # noqa: PTH113
            continue
        with sidecar.open("rb") as stream:
            magic = stream.read(4)
        if magic not in _TIFF:
            raise RasterOpenError(
                f"has a {suffix} file beside it that is not a TIFF",
                path=file,
                measured=f"begins with {magic!r}",
                remedy=f"move {sidecar.name} away",
            )
