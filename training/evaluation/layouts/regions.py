"""Images with boxes of named classes, however they are laid out: NWPU VHR-10, RRSIS-D, VOC, COCO, DOTA, or ours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.evaluation.layouts.classes import in_words, read_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data.schema import Region

GLUED = {
    "baseballfield": "baseball field", "basketballcourt": "basketball court", "golffield": "golf field",
    "groundtrackfield": "ground track field", "storagetank": "storage tank", "tenniscourt": "tennis court",
    "trainstation": "train station",
}  # fmt: skip
"""DIOR writes some of its classes in one word."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and its n true boxes."""

    image: str
    """Path from the data set's folder."""
    boxes: NDArray[np.float64]
    """(n, 4) left, top, right, bottom in pixels; of an oriented box the upright one around it."""
    labels: NDArray[np.int64]
    """(n,) places in the classes."""
    difficult: NDArray[np.bool_]
    """(n,) boxes that count neither as found nor as missed."""
    corners: NDArray[np.float64] | None = None
    """(n, 8) corners x, y in pixels, where the layout has oriented boxes."""
    number: int | None = None
    """Id in a COCO file."""

    def keep(self, places: NDArray[np.bool_]) -> Scene:
        """Return some of the boxes."""
        corners = None if self.corners is None else self.corners[places]
        return replace(
            self, boxes=self.boxes[places], labels=self.labels[places], difficult=self.difficult[places],
            corners=corners,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Boxed:
    """A data set of boxes in C classes."""

    name: str
    root: Path
    layout: str
    scenes: tuple[Scene, ...]
    classes: tuple[str, ...]
    split: str | None = None
    category_ids: Mapping[int, int] = field(default_factory=dict)
    """Place in the classes by id in a COCO file."""
    notes: tuple[str, ...] = ()

    @property
    def oriented(self) -> bool:
        """Whether every image has oriented boxes."""
        return bool(self.scenes) and all(scene.corners is not None for scene in self.scenes)

    @property
    def count(self) -> int:
        """Number of boxes."""
        return sum(len(scene.boxes) for scene in self.scenes)

    def take(self, places: Iterable[int]) -> Boxed:
        """Return some of the images; all classes stay."""
        return replace(self, scenes=tuple(self.scenes[int(place)] for place in places))


def gather(
    image: str,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    difficult: Sequence[bool] | None = None,
    *,
    corners: Sequence[Sequence[float]] | None = None,
    number: int | None = None,
) -> Scene:
    """Return a scene from lists; boxes may be empty when there are corners."""
    ring = None if corners is None else np.asarray(corners, np.float64).reshape(-1, 8)
    upright = np.asarray(boxes, np.float64).reshape(-1, 4) if ring is None else hulls(ring)
    hard = np.zeros(len(upright), bool) if difficult is None else np.asarray(difficult, bool)
    return Scene(image, upright, np.asarray(labels, np.int64), hard, ring, number)


def hulls(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 4) upright boxes around (n, 8) corners."""
    x, y = corners[:, ::2], corners[:, 1::2]
    if not len(corners):
        return np.zeros((0, 4))
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)


def read_boxed(path: Path, *, split: str | None = None, trust_pickle: bool = False) -> Boxed:
    """Read a data set of boxes; which layout it has is found out.

    Args:
        path: Its folder, or the file of COCO annotations.
        split: The part; by default the list ``test`` of RRSIS-D and VOC, and everything of the other layouts.
        trust_pickle: Whether RRSIS-D's list, a pickle, may be read (by a reader that makes plain values alone).

    Raises:
        DataError: The data is missing, damaged, empty or of no known layout.
    """
    from training.data.readers import dior_rsvg
    from training.evaluation.layouts import cocobox, dotabox, rrsisd, vhr10, voc

    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the data set's folder or its COCO file")
    if vhr10.detect(path):
        found = vhr10.read(path, split)
    elif rrsisd.detect(path):
        found = rrsisd.read(path, split, trust_pickle=trust_pickle).boxed()
    elif voc.detect(path) and not dior_rsvg.detect(path):  # its lists number objects, not images
        found = voc.read(path, split)
    elif dotabox.detect(path):
        found = dotabox.read(path, split)
    elif (file := cocobox.find(path)) is not None:
        found = cocobox.read(file, split)
    else:
        found = _from_records(path, split)
    if not found.count:
        raise DataError("has no boxes", path=path, remedy="check the layout and the split")
    return found


def words_of(classes: Sequence[str], path: Path | None) -> tuple[str, ...]:
    """Return what a model is told of each class.

    Args:
        classes: Names.
        path: JSON object from a class to its words; others are put into plain words.

    Raises:
        DataError: The file is damaged, or names a class that is not there.
    """
    told = {} if path is None else read_words(path)
    unknown = sorted(set(told) - set(classes))
    if unknown:
        raise DataError("has words for a class that is not there", path=path, measured=unknown[0][:60])
    return tuple(told.get(name, plain(name)) for name in classes)


def plain(name: str) -> str:
    """Return a class's name in plain words: ``Expressway-Service-area`` gives ``expressway service area``."""
    return GLUED.get(name.lower(), in_words(name))


def no_splits(path: Path, split: str | None) -> None:
    """Refuse a part of data that has none.

    Raises:
        DataError: One was asked for.
    """
    if split is not None:
        raise DataError("has no splits", path=path, measured=split, remedy="leave the split out")


def _from_records(path: Path, split: str | None) -> Boxed:
    """Read boxes with a category from any layout of ``geoalign-data``; their shares become pixels."""
    from training.data.images import picture_size, read_bytes
    from training.evaluation.layouts.records import BOXES, open_records

    source = open_records(path, BOXES)
    records = [record for record in source.records() if split is None or record.split == split]
    names = sorted({region.category for record in records for region in record.regions if region.category})
    places, sizes = {name: place for place, name in enumerate(names)}, {}
    found: dict[str, list[Region]] = {}
    for record in records:  # an image may have a record in each part
        found.setdefault(record.image, []).extend(region for region in record.regions if region.category)
        sizes[record.image] = record.width, record.height
    scenes = []
    for image, regions in found.items():
        width, height = sizes[image]
        if width is None or height is None:
            width, height = picture_size(read_bytes(source.root, image), image)
        boxes = np.array([region.bbox for region in regions]).reshape(-1, 4) * [width, height, width, height]
        labels = [places[str(region.category)] for region in regions]
        scenes.append(
            gather(image, boxes.tolist(), labels, [bool(region.extra.get("difficult")) for region in regions])
        )
    parts = sorted({record.split for record in records if record.split})
    notes = (f"All parts were taken: {', '.join(parts)[:90]}.",) if split is None and parts else ()
    return Boxed(source.name, source.root, source.format, tuple(scenes), tuple(names), split, notes=notes)
