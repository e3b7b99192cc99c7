"""AIR-SLT, the test set of semantic localisation: 22 large images, 59 sentences with the regions that they are about.

As its authors hand it out::

    annotations/anno.json   [{"caption": "…", "jpg_name": "0.jpg", "points": [[[x, y], …], …]}, …]
    imgs/0.jpg …            (``images/`` does as well)

``points`` holds one polygon per region, in pixels.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.errors import DataError
from training.data.readers.base import load_json
from training.evaluation.metrics.selo import circle_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES = ("annotations/anno.json", "anno.json")
FOLDERS = ("imgs", "images", "")
MOST_PIXELS = 200_000_000
"""The largest of its images has 100 million; this many take 600 MB."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One query."""

    caption: str
    image: str
    regions: tuple[NDArray[np.float64], ...]
    """(N, 2) corners x, y in pixels, each."""


@dataclass(frozen=True, slots=True)
class AirSlt:
    """The data set; no picture is decoded yet."""

    folder: Path
    """Of the pictures."""
    sentences: tuple[Sentence, ...]
    sizes_px: dict[str, tuple[int, int]]
    """Height and width of every image."""


def read_airslt(path: Path) -> AirSlt:
    """Read the sentences and the headers of their images.

    Args:
        path: The data set's folder, or its JSON file.

    Raises:
        DataError: Something is missing, or an entry is not as above; it is named.
    """
    file = path if path.suffix.lower() == ".json" else _first(path, FILES)
    items = load_json(file)
    if not isinstance(items, list) or not items:
        raise DataError("is not a list of sentences", path=file, remedy='give [{"caption", "jpg_name", "points"}, …]')
    sentences = tuple(_sentence(item, f"{file}[{index}]") for index, item in enumerate(items))
    home = file.parent.parent if file.parent.name == "annotations" else file.parent
    folder = next((home / name for name in FOLDERS if (home / name / sentences[0].image).is_file()), home / FOLDERS[0])
    sizes = {name: _size(folder / name) for name in dict.fromkeys(item.image for item in sentences)}
    for index, sentence in enumerate(sentences):
        height, width = sizes[sentence.image]
        for region in sentence.regions:
            low, high = region.min(axis=0), region.max(axis=0)
            if not (low[0] < width and low[1] < height and (high >= 0).all()):
                raise DataError(
                    "a region lies outside of its image", path=f"{file}[{index}]",
                    measured=f"x {low[0]:.0f}–{high[0]:.0f}, y {low[1]:.0f}–{high[1]:.0f} in {width} × {height} px",
                    remedy=f"check the points and {sentence.image}",
                )  # fmt: skip
    return AirSlt(folder, sentences, sizes)


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        "is not AIR-SLT", path=folder, measured=f"no {' or '.join(names)}",
        remedy="see 'geoalign-eval data' for its layout",
    )  # fmt: skip


def _sentence(item: Any, where: str) -> Sentence:  # noqa: ANN401 - whatever the file holds
    if not isinstance(item, dict):
        raise DataError("is not a sentence with regions", path=where, measured=type(item).__name__)
    caption, image, points = item.get("caption"), item.get("jpg_name"), item.get("points")
    if not isinstance(caption, str) or not caption.strip():
        raise DataError("has no words", path=where, measured=f"caption = {caption!r:.60}")
    if not isinstance(image, str) or not image or Path(image).name != image:
        raise DataError("is not the name of a picture", path=where, measured=f"jpg_name = {image!r:.60}")
    if not isinstance(points, list) or not points:
        raise DataError("has no regions", path=where, measured=f"points = {points!r:.60}")
    regions = tuple(_region(region, f"{where}.points[{number}]") for number, region in enumerate(points))
    return Sentence(" ".join(caption.split()), image, regions)


def _region(points: Any, where: str) -> NDArray[np.float64]:  # noqa: ANN401
    try:
        region = np.array(points, np.float64)
    except (TypeError, ValueError):
        region = np.empty(0)
    if region.ndim != 2 or region.shape[1] != 2 or len(region) < 3 or not np.isfinite(region).all():
        raise DataError(
            "is not a polygon", path=where, measured=f"{points!r:.60}", remedy="give three or more [x, y] in pixels"
        )
    try:
        circle_of(region)
    except DataError as error:
        raise DataError(error.what, path=where, measured=error.measured, remedy=error.remedy) from error
    return region


def _size(path: Path) -> tuple[int, int]:
    from tiling.raster import open_raster

    if not path.is_file():
        raise DataError("is missing", path=path, remedy="put the pictures of AIR-SLT into imgs/")
    with open_raster(path) as raster:
        info = raster.info
    if info.dtype != "uint8" or info.count not in (1, 3, 4):
        raise DataError(
            "is not a picture of 8 bits", path=path, measured=f"{info.count} bands of {info.dtype}",
            remedy="fetch it again",
        )  # fmt: skip
    if info.width_px * info.height_px > MOST_PIXELS:
        raise DataError(
            "is too large", path=path, measured=f"{info.width_px} × {info.height_px} px",
            remedy=f"cut it to {MOST_PIXELS:,} pixels",
        )  # fmt: skip
    return info.height_px, info.width_px


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode a picture into uint8 RGB (H, W, 3); grey is repeated, a fourth band dropped.

    Raises:
        DataError: It is damaged.
    """
    from rasterio.errors import RasterioError

    from tiling.raster import open_raster

    with open_raster(path) as raster:
        try:
            bands = raster.handle().read([1] * 3 if raster.info.count == 1 else [1, 2, 3])
        except RasterioError as error:
            raise DataError("is damaged", path=path, measured=str(error)[:80], remedy="fetch it again") from error
    return np.ascontiguousarray(bands.transpose(1, 2, 0))


@dataclass(slots=True)
class Pictures:
    """Decoded pictures for readers in several threads; the last two are kept (1.2 GB at most)."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def get(self, name: str) -> NDArray[np.uint8]:
        """Return a picture (H, W, 3)."""
        with self._lock:
            if name not in self._kept:
                if len(self._kept) > 1:
                    del self._kept[next(iter(self._kept))]
                self._kept[name] = read_picture(self.folder / name)
            return self._kept[name]
