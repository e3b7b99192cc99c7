"""Readers of the development data, and the validation split ``geoalign-val-1``.

Protocol ``geoalign-val-1``. With h(x) = SHA-256("geoalign-val-1:" + x) as a number in [0, 1):

- captions: an AID image is held out when h(name) < 0.116;
- aircraft: the 8 scenes with the smallest h(file name) are held out;
- vehicles: files are grouped by recording (the part of the name before the last "_"; runs of 100 consecutive frames
  of the longest recording); whole groups are held out, smallest h first, until at least 44 images are;
- pools: a chip is held out when h(name) < 0.2.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PROTOCOL = "geoalign-val-1"
AID_HELD_OUT = 0.116
POOLS_HELD_OUT = 0.2
AIRCRAFT_SCENES_HELD_OUT = 8
VEHICLE_IMAGES_HELD_OUT = 44
_RUN_FRAMES = 100


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An image with its captions."""

    name: str
    scene: str
    captions: tuple[str, ...]
    held_out: bool


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image file with boxes of one class."""

    path: Path
    boxes_xyxy_px: NDArray[np.float64]
    """(N, 4) left, top, right, bottom in pixels."""
    held_out: bool


def hash_unit(name: str) -> float:
    """Return the protocol's number in [0, 1) for a name."""
    digest = hashlib.sha256(f"{PROTOCOL}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the folder of the training data with --data")
    return path


def read_captions(data: Path) -> list[CaptionedImage]:
    """Read the RSICD captions of the AID images, in the order of the file.

    Raises:
        DataError: ``rsicd_aid/captions.jsonl`` is missing or holds something else.
    """
    path = _existing(data / "rsicd_aid" / "captions.jsonl")
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            item = json.loads(line)
            name, scene, captions = item["image"], item["class"], tuple(item["captions"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("is not a caption record", path=path, measured=f"line {number}") from error
        images.append(CaptionedImage(name, scene, captions, hash_unit(name) < AID_HELD_OUT))
    return images


@dataclass(frozen=True, slots=True)
class TarMember:
    """Where a file lies inside an uncompressed tar archive."""

    archive: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the file's bytes without unpacking the archive."""
        with self.archive.open("rb") as handle:
            handle.seek(self.offset)
            return handle.read(self.size)


def index_tars(archives: Iterable[Path]) -> dict[str, TarMember]:
    """Find the images of tar archives.

    Raises:
        DataError: An archive is missing or damaged.
    """
    members: dict[str, TarMember] = {}
    for path in archives:
        try:
            with tarfile.open(_existing(path), "r:") as archive:
                for item in archive:
                    if item.isfile() and item.name.endswith(".jpg"):
                        members[item.name] = TarMember(path, item.offset_data, item.size)
        except tarfile.TarError as error:
            raise DataError("is not a tar file", path=path, measured=str(error)) from error
    return members


def caption_tars(data: Path) -> list[Path]:
    """Return the archives of the AID images."""
    return sorted(_existing(data / "rsicd_aid").glob("images-*.tar"))


def decode(payload: bytes) -> NDArray[np.uint8]:
    """Decode an image file into uint8 RGB (H, W, 3)."""
    from PIL import Image

    with Image.open(io.BytesIO(payload)) as image:
        return np.asarray(image.convert("RGB"))


def read_boxes(folder: Path, *, held_out: Sequence[str] | None = None) -> list[BoxedImage]:
    """Read a COCO file ``annotations.coco.json`` and its images' paths, sorted by file name.

    Args:
        folder: Folder of one data set.
        held_out: File names of the validation part; by default none.

    Raises:
        DataError: The file is missing or not in COCO's layout.
    """
    path = _existing(folder / "annotations.coco.json")
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in coco["images"]}
        for item in coco["annotations"]:
            x, y, width, height = item["bbox"]
            boxes[item["image_id"]].append([x, y, x + width, y + height])
        files = {image["id"]: image["file_name"] for image in coco["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("is not a COCO file", path=path, measured=f"{type(error).__name__}: {error}") from error
    apart = set(held_out or ())
    return [
        BoxedImage(folder / name, np.asarray(boxes[key], dtype=np.float64).reshape(-1, 4), name in apart)
        for key, name in sorted(files.items(), key=lambda item: item[1])
    ]


def read_aircraft(data: Path) -> list[BoxedImage]:
    """Read the aircraft scenes with the protocol's split."""
    folder = data / "boxes" / "aircraft"
    names = sorted((f"images/{item.path.name}" for item in read_boxes(folder)), key=hash_unit)
    return read_boxes(folder, held_out=names[:AIRCRAFT_SCENES_HELD_OUT])


def read_vehicles(data: Path) -> list[BoxedImage]:
    """Read the vehicle images with the protocol's split by recording."""
    folder = data / "boxes" / "vehicles"
    groups: dict[str, list[str]] = {}
    for item in read_boxes(folder):
        groups.setdefault(recording_of(item.path.stem), []).append(f"images/{item.path.name}")
    apart: list[str] = []
    for key in sorted(groups, key=hash_unit):
        if len(apart) >= VEHICLE_IMAGES_HELD_OUT:
            break
        apart += groups[key]
    return read_boxes(folder, held_out=apart)


def recording_of(stem: str) -> str:
    """Return the recording that a vehicle image belongs to, from its file name without suffix.

    Long recordings are cut into runs of consecutive frames, so that neighbours stay together.
    """
    match = re.match(r"(.*?)_\(?(\d+)\)?$", stem)
    if match is None:
        return stem
    name, frame = match.group(1), int(match.group(2))
    return name if name.isdigit() else f"{name}-{frame // _RUN_FRAMES}"


@dataclass(frozen=True, slots=True)
class Chip:
    """A 50 × 50 px chip with a swimming pool or without."""

    name: str
    image: NDArray[np.uint8]
    pool: bool
    held_out: bool


def read_chips(data: Path) -> list[Chip]:
    """Read the swimming-pool chips, sorted by name.

    Raises:
        DataError: ``chips/pools.tar`` is missing or damaged.
    """
    members = index_tars([data / "chips" / "pools.tar"])
    return [
        Chip(name, decode(member.read()), name.startswith("pools/"), hash_unit(name) < POOLS_HELD_OUT)
        for name, member in sorted(members.items())
    ]
