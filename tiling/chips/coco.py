"""COCO instances, one file for each split.

Polygons of COCO cannot hold holes, and run lengths are understood by few readers for single objects. So a polygon
with holes is cut along vertical lines through them into pieces without: same area, same pixels, plain polygons.
Besides COCO's own fields each annotation tells ``truncated``, ``visible`` and ``feature``. Coordinates are pixels of
the tile from its outer corner, as COCO has them; ``file_name`` is relative to the output folder.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tiling.chips.labelfiles import UNSPLIT, inside, surface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

    from tiling.chips.labelfiles import LabelledTile, Target
    from tiling.chips.labels import TileLabel
    from tiling.grid import Window

_DECIMALS = 4


def write_coco(to: Target, tiles: Iterable[LabelledTile], classes: Sequence[str]) -> list[Path]:
    """Write ``annotations/SPLIT.json`` for each split; ``instances.json`` for tiles without one.

    Annotations go to the disk as they come. Memory is that of the images' entries.

    Raises:
        UsageError: A split is no plain name.
        OutputExistsError, OutputWriteError: See :meth:`tiling.chips.labelfiles.Target.file`.
    """
    categories = [{"id": index + 1, "name": name, "supercategory": ""} for index, name in enumerate(classes)]
    files: dict[Path, _File] = {}
    with contextlib.ExitStack() as stack:

        def opened(name: str) -> _File:
            target = inside(to.folder, "annotations", f"{name}.json")
            if target not in files:
                files[target] = stack.enter_context(_writing(to, target, categories))
            return files[target]

        for tile in tiles:
            opened(tile.split or UNSPLIT).add(tile)
        if not files:
            opened(UNSPLIT)
    return list(files)


@dataclass(slots=True)
class _File:
    """A file that is being written. Annotations come first, for images must be collected."""

    stream: IO[str]
    images: list[str] = field(default_factory=list)
    annotations: int = 0

    def add(self, tile: LabelledTile) -> None:
        image_id = len(self.images) + 1
        size = {"width": tile.window.width_px, "height": tile.window.height_px}
        self.images.append(json.dumps({"id": image_id, "file_name": tile.path, **size}))
        for label in tile.labels:
            comma = "," if self.annotations else ""
            self.annotations += 1
            entry = {"id": self.annotations, "image_id": image_id, **_annotation(label, tile.window)}
            self.stream.write(f"{comma}\n{json.dumps(entry)}")


@contextlib.contextmanager
def _writing(to: Target, target: Path, categories: list[dict[str, Any]]) -> Iterator[_File]:
    with to.file(target) as temporary, temporary.open("w", encoding="ascii") as stream:
        file = _File(stream)
        stream.write('{"info": {"description": "tiles cut by geoalign-tile"}, "licenses": [],\n"annotations": [')
        yield file
        stream.write('\n],\n"images": [\n' + ",\n".join(file.images) + "\n],\n")
        stream.write(f'"categories": {json.dumps(categories)}}}\n')


def _annotation(label: TileLabel, window: Window) -> dict[str, Any]:
    import shapely

    shape = surface(label.geometry, window)
    left, top, right, bottom = shape.bounds
    polygons = [whole for part in shapely.get_parts(shape) for whole in _without_holes(part)]
    rings = shapely.get_exterior_ring(polygons)
    return {
        "category_id": label.class_id + 1,
        "bbox": np.round([left, top, right - left, bottom - top], _DECIMALS).tolist(),
        "area": round(shape.area, _DECIMALS),
        "iscrowd": 0,
        "segmentation": [np.round(shapely.get_coordinates(ring)[:-1].ravel(), _DECIMALS).tolist() for ring in rings],
        "truncated": label.truncated,
        "visible": round(label.visible, 6),
        "feature": label.feature,
    }


def _without_holes(polygon: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yield pieces of a polygon that have no holes: it is halved at its middle hole until none is left."""
    import shapely

    if polygon.area == 0:
        return
    if not polygon.interiors:
        yield polygon
        return
    middles = sorted((hole.bounds[0] + hole.bounds[2]) / 2 for hole in polygon.interiors)
    x = middles[len(middles) // 2]
    left, top, right, bottom = polygon.bounds
    for half in (shapely.box(left, top, x, bottom), shapely.box(x, top, right, bottom)):
        for part in shapely.get_parts(shapely.intersection(polygon, half)):
            if part.geom_type == "Polygon":
                yield from _without_holes(part)
