"""Detections from any file: COCO results, text files by class (DOTA's Task1 and Task2, VOC's), our vector answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.errors import DataError
from training.data.readers.base import json_items, numbers
from training.evaluation.layouts.classes import in_words
from training.evaluation.layouts.regions import hulls, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.evaluation.layouts.regions import Boxed

VECTORS = (".gpkg", ".geojson", ".fgb", ".parquet", ".shp")
_PREFIX = re.compile(r"^(Task[12]|comp\d+_det_[a-z0-9]+)_", re.IGNORECASE)
_NAMES = ("category", "category_name", "label", "class", "name")
_IMAGES = ("image_id", "image", "file_name")


@dataclass(frozen=True, slots=True)
class Detections:
    """D boxes that were found."""

    image: NDArray[np.int64]
    """(D,) places of the images."""
    labels: NDArray[np.int64]
    """(D,) places of the classes."""
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    """(D, 4) in pixels."""
    corners: NDArray[np.float64] | None = None
    """(D, 8) in pixels, where every detection is oriented."""
    elsewhere: int = 0
    """Left out because their image is not among the true ones."""
    unnamed: int = 0
    """Left out because their class is not among the true ones."""


@dataclass(frozen=True, slots=True)
class _Found:
    image: int | str
    name: int | str
    score: float
    box: tuple[float, ...]
    """Four or eight numbers, in pixels."""
    where: str


class _Names:
    """Finds images and classes by any of their names."""

    def __init__(self, data: Boxed, classes: Sequence[str] | None, first: int) -> None:
        self.images: dict[int | str, int] = {}
        for place, scene in enumerate(data.scenes):
            name = Path(scene.image).name
            for key in (scene.number, scene.image, name, Path(name).stem):
                if key is not None:
                    self.images.setdefault(key, place)
        numbered = all(scene.number is not None for scene in data.scenes)
        if not numbered:  # 00011726 is read as 11726 where a detector writes names as numbers
            for place, scene in enumerate(data.scenes):
                if (stem := Path(scene.image).stem).isdigit():
                    self.images.setdefault(int(stem), place)
        self.classes: dict[int | str, int] = {}
        for place, name in enumerate(data.classes):
            for title in (name, name.casefold(), in_words(name), plain(name), plain(name).replace(" ", "")):
                self.classes.setdefault(title, place)
        if classes is None:
            self.classes.update((key, place) for key, place in data.category_ids.items())
        else:
            self.classes.update({number: self.label(name) for number, name in enumerate(classes, start=first)})
        self.numbers = None if classes is None else range(first, first + len(classes))

    def label(self, name: int | str) -> int:
        """Return a class's place, −1 for none."""
        if isinstance(name, int):
            if self.numbers is not None and name not in self.numbers:
                raise DataError(
                    "a category_id is none of the classes", measured=f"{name}, not {self.numbers[0]} to "
                    f"{self.numbers[-1]}", remedy="check classes, and first_id: 0 where they are counted from 0",
                )  # fmt: skip
            return self.classes.get(name, -1)
        titles = (name, name.casefold(), in_words(name), plain(name), plain(name).replace(" ", ""))
        return next((self.classes[title] for title in titles if title in self.classes), -1)


def read_detections(
    path: Path, data: Boxed, *, classes: Sequence[str] | None = None, first_id: int = 1
) -> Detections:  # fmt: skip
    """Read detections.

    Args:
        path: A file, or a folder of one file a class (text) or one file an image (vectors).
        data: The true boxes: their images, classes and COCO ids.
        classes: Names of the classes that ``category_id`` counts, where the true boxes have no ids.
        first_id: The ``category_id`` of the first of them.

    Raises:
        DataError: The file is missing or damaged (line or entry are named), a ``category_id`` is none of the classes,
            or no detection fits the data.
    """
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give a file or a folder of detections")
    names, elsewhere, unnamed = _Names(data, classes, first_id), 0, 0
    kept: list[tuple[int, int, _Found]] = []
    for found in _read(path, data):
        image, label = names.images.get(found.image, -1), names.label(found.name)
        elsewhere += image < 0
        unnamed += image >= 0 and label < 0
        if not np.isfinite([found.score, *found.box]).all():
            raise DataError("a score or a box is not finite", path=found.where, remedy="mend the detector's output")
        if image >= 0 and label >= 0:
            kept.append((image, label, found))
    if not kept and elsewhere + unnamed:
        raise DataError(
            "has no detection of these images and classes", path=path,
            measured=f"{elsewhere} of other images, {unnamed} of other classes",
            remedy="compare the names of images and classes; numbers need -s classes=FILE",
        )  # fmt: skip
    rings = [found.box for _, _, found in kept if len(found.box) == 8]
    oriented = bool(kept) and len(rings) == len(kept)
    boxes = [found.box if len(found.box) == 4 else hulls(np.array([found.box]))[0] for _, _, found in kept]
    return Detections(
        np.array([image for image, _, _ in kept], np.int64), np.array([label for _, label, _ in kept], np.int64),
        np.array([found.score for _, _, found in kept], np.float64), np.array(boxes, np.float64).reshape(-1, 4),
        np.array(rings, np.float64) if oriented else None, elsewhere, unnamed,
    )  # fmt: skip


def _read(path: Path, data: Boxed) -> Iterator[_Found]:
    if path.is_file():
        if path.suffix.lower() in VECTORS:
            return _vectors(path, data)
        return _coco(path) if path.suffix.lower() in (".json", ".jsonl") else _lines(path)
    files = [file for file in sorted(path.iterdir()) if file.is_file()]
    if any(file.suffix.lower() in VECTORS for file in files):
        return (found for file in files if file.suffix.lower() in VECTORS for found in _vectors(file, data))
    texts = [file for file in files if file.suffix.lower() == ".txt"]
    if not texts:
        raise DataError("holds no detections", path=path, remedy="give Task1_CLASS.txt, COCO results or vector files")
    return (found for file in texts for found in _lines(file))


def _coco(path: Path) -> Iterator[_Found]:
    for where, item in json_items(path):
        if not isinstance(item, dict):
            raise DataError("is not a detection", path=where, measured=f"{item!r:.40}")
        image = next((item[key] for key in _IMAGES if isinstance(item.get(key), int | str)), None)
        name = next((item[key] for key in _NAMES if isinstance(item.get(key), str)), item.get("category_id"))
        score = item.get("score")
        if image is None or not isinstance(name, int | str) or not isinstance(score, int | float):
            raise DataError(
                "is not a detection", path=where, measured=str(sorted(item))[:80],
                remedy="give image_id, category_id, bbox and score",
            )  # fmt: skip
        polygons = item.get("segmentation")
        ring = polygons[0] if isinstance(polygons, list) and len(polygons) == 1 else None
        if isinstance(ring, list) and len(ring) == 8:
            box = numbers(ring, 8, where)
        else:
            x, y, width, height = numbers(item.get("bbox"), 4, where)
            box = (x, y, x + width, y + height)
        yield _Found(image, name, float(score), box, where)


def _lines(path: Path) -> Iterator[_Found]:
    """Yield the lines ``image score x y …`` of a class's file, of two corners or four."""
    name = _PREFIX.sub("", path.stem)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError("cannot be read", path=path, measured=str(error)[:60]) from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}:{number}"
        if len(words) not in (6, 10):
            raise DataError(
                "is not a detection", path=where, measured=f"{len(words)} words",
                remedy="write image, score and four or eight numbers",
            )  # fmt: skip
        values = numbers(words[1:], len(words) - 1, where)
        yield _Found(words[0], name, values[0], values[1:], where)


def _vectors(path: Path, data: Boxed) -> Iterator[_Found]:
    """Yield the boxes of a vector file that ``geoalign ask`` wrote, in the pixels of the image of its name.

    Coordinates go from the file's system to the image's and through its transform. The box is the upright one in the
    image around the geometry.
    """
    import geopandas
    import pyogrio
    from pyarrow import ArrowException
    from shapely.errors import ShapelyError

    place = _scene_of(path, data)
    try:
        layers = pyogrio.list_layers(path)[:, 0].tolist() if path.suffix.lower() != ".parquet" else []
        layer = {"layer": "boxes"} if "boxes" in layers else {}
        frame: Any = (
            geopandas.read_parquet(path) if path.suffix.lower() == ".parquet" else geopandas.read_file(path, **layer)
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ArrowException, ShapelyError) as error:
        raise DataError("is no vector file", path=path, measured=str(error)[:80]) from error
    lost = [name for name in ("query", "score") if name not in frame.columns]
    if lost:
        raise DataError(f"has no column {lost[0]}", path=path, remedy="give what geoalign ask writes")
    pixels = _in_pixels(frame, data.root / data.scenes[place].image)
    for number, (query, score, geometry) in enumerate(zip(frame["query"], frame["score"], pixels, strict=True)):
        if geometry is not None and not geometry.is_empty:
            yield _Found(data.scenes[place].image, str(query), float(score), geometry.bounds, f"{path}: row {number}")


def _scene_of(path: Path, data: Boxed) -> int:
    stems = {Path(scene.image).stem: place for place, scene in enumerate(data.scenes)}
    if path.stem in stems:
        return stems[path.stem]
    if len(stems) == 1:
        return 0
    raise DataError(
        "is named like none of the images", path=path, measured=f"{len(stems)} images",
        remedy="give a folder with one file an image, IMAGE.gpkg",
    )  # fmt: skip


def _in_pixels(frame: Any, image: Path) -> NDArray[Any]:  # noqa: ANN401 - a GeoDataFrame
    from shapely import affinity

    from tiling.raster import open_raster

    with open_raster(image) as raster:
        info = raster.info
    if frame.crs is not None and info.crs is not None:
        frame = frame.to_crs(info.crs)
    elif (frame.crs is None) != (info.crs is None):
        raise DataError(
            "of the detections and the image only one knows where it lies", path=image,
            remedy="give detections that were made on this image",
        )  # fmt: skip
    back = ~info.transform
    terms = (back.a, back.b, back.d, back.e, back.c, back.f)
    shapes = [None if shape is None else affinity.affine_transform(shape, terms) for shape in frame.geometry]
    return np.array(shapes, dtype=object)
