"""Labels of tiles as files: COCO, YOLO, oriented YOLO boxes, GeoJSON, GeoParquet, masks.

Boxes and COCO polygons need a surface, so there a point becomes the square of one pixel around it and a line becomes
one pixel wide. GeoJSON, GeoParquet and masks hold points and lines as they are.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import OutputWriteError, UsageError
from tiling.files import atomic_file, write_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from affine import Affine
    from rasterio.crs import CRS
    from shapely.geometry.base import BaseGeometry

    from tiling.chips.labels import TileLabel
    from tiling.chips.spec import LabelFormat
    from tiling.grid import Window

UNSPLIT = "instances"
"""Name of the COCO file of tiles without a split."""
_MOST_CLASSES = 65535
_LEFT_OVER = re.compile(r"\.(?P<target>.+)\.\w{8}\.tmp")
"""Name of a folder in which a killed process was writing a file."""
_PLACES: dict[LabelFormat, tuple[str, ...]] = {
    "coco": ("annotations",),
    "yolo": ("labels", "data.yaml"),
    "yolo-obb": ("labels", "data.yaml"),
    "geojson": ("labels.geojson",),
    "geoparquet": ("labels.parquet",),
    "mask": ("masks",),
}
"""What a format writes into the output folder: folders, which have no suffix, and files."""


@dataclass(frozen=True, slots=True)
class LabelledTile:
    """A tile and the labels in it."""

    path: str
    """Its image, relative to the output folder, with forward slashes."""
    window: Window
    transform: Affine
    """From tile pixel to CRS coordinates."""
    crs: CRS | None
    split: str | None
    labels: tuple[TileLabel, ...]

    def file(self, folder: Path, kind: str, suffix: str) -> Path:
        """Return the place of a file about this tile: ``folder/kind/[split/]STEM.suffix``.

        Raises:
            UsageError: The split or the image's name would lead elsewhere.
        """
        return inside(folder, *_parts(self.path, self.split, kind, suffix))


def _parts(image: str, split: str | None, kind: str, suffix: str) -> tuple[str, ...]:
    return kind, *([split] if split else []), f"{PurePosixPath(image).stem}.{suffix}"


def inside(folder: Path, *parts: str) -> Path:
    """Return the path that plain names lead to from a folder.

    Raises:
        UsageError: A name would lead elsewhere, or holds letters that cannot be printed.
    """
    for part in parts:
        if part in {"", ".", ".."} or Path(part).name != part or not part.isprintable():
            raise UsageError("is no plain name for a file", measured=ascii(part), remedy="rename the raster")
    return folder.joinpath(*parts)


def label_files(fmt: LabelFormat, tiles: Iterable[tuple[str, str | None]], class_count: int = 1) -> Iterator[str]:
    """Yield the names of the files that :func:`write_labels` writes, relative to the folder, with forward slashes.

    Args:
        fmt: The format.
        tiles: For each tile its image's path and its part of the split.
        class_count: How many classes there are, which decides the type of masks.

    Raises:
        UsageError: A tile's name or split is no plain name.
    """
    here = Path()
    kind, suffix = ("masks", mask_type(class_count)[1]) if fmt == "mask" else ("labels", "txt")
    if fmt in ("geojson", "geoparquet"):
        yield _PLACES[fmt][0]
    elif fmt == "coco":
        splits = dict.fromkeys(split for _, split in tiles) or {None: None}
        yield from (inside(here, "annotations", f"{split or UNSPLIT}.json").as_posix() for split in splits)
    else:
        for image, split in tiles:
            yield inside(here, *_parts(image, split, kind, suffix)).as_posix()
        yield "masks/classes.json" if fmt == "mask" else "data.yaml"


def write_labels(
    folder: Path,
    fmt: LabelFormat,
    tiles: Iterable[LabelledTile],
    classes: Sequence[str],
    *,
    overwrite: bool = True,
) -> list[Path]:
    """Write the labels of tiles.

    ==========  ===========================================================================================
    coco        ``annotations/SPLIT.json``, or ``instances.json`` without splits; see :mod:`tiling.chips.coco`
    yolo        ``labels/[SPLIT/]STEM.txt`` and ``data.yaml``; a line is class, centre, width and height, as
                shares of the tile. The images lie under ``images/[SPLIT/]``. Without splits, all images are
                named for training and for validation.
    yolo-obb    the same with the four corners of the smallest rotated rectangle, clockwise as seen, from the
                topmost. Corners outside the tile are moved to its edge, for readers refuse them.
    geojson     ``labels.geojson``, RFC 7946
    geoparquet  ``labels.parquet``, in the CRS of the tiles when they share one, else in longitude and latitude
    mask        ``masks/[SPLIT/]STEM.png``: 0 is background, class id + 1 else, smaller labels above larger
                ones; ``.tif`` of 16 bits above 255 classes. ``masks/classes.json`` tells the values.
    ==========  ===========================================================================================

    Memory is that of one tile for yolo, yolo-obb and mask, of the images' names for coco, of all pieces of labels for
    geojson and geoparquet. Pixels are never read. What a killed process has left half-written is removed first.

    Args:
        folder: The output folder.
        fmt: The format.
        tiles: Taken one at a time.
        classes: Names by class id.
        overwrite: Whether files of these names may be replaced.

    Returns:
        The files written.

    Raises:
        UsageError: A tile's name or split is no plain name, or there are too many classes for a mask.
        OutputExistsError: A file is there and ``overwrite`` is false. Ask :func:`label_files` before.
        OutputWriteError: The disk is full or refuses, or a folder for labels is a link out of ``folder``.
    """
    sweep(folder, fmt)
    to = Target(folder, overwrite)
    if fmt == "coco":
        from tiling.chips.coco import write_coco

        return write_coco(to, tiles, classes)
    if fmt in ("geojson", "geoparquet"):
        from tiling.chips.labelframe import write_frame

        return [write_frame(to, tiles, as_geojson=fmt == "geojson")]
    if fmt == "mask":
        return _write_masks(to, tiles, classes)
    return _write_yolo(to, tiles, classes, oriented=fmt == "yolo-obb")


@dataclass(frozen=True, slots=True)
class Target:
    """Where labels are written."""

    folder: Path
    overwrite: bool

    @contextlib.contextmanager
    def file(self, path: Path) -> Iterator[Path]:
        """Give a temporary path that becomes ``path``, as :func:`tiling.files.atomic_file` does.

        Raises:
            OutputExistsError: The file is there and may not be replaced.
            OutputWriteError: The disk refuses, or the path leads out of the folder.
        """
        refuse_way_out(self.folder, path.parent)
        with atomic_file(path, overwrite=self.overwrite) as temporary:
            yield temporary

    def text(self, path: Path, text: str) -> Path:
        """Write a whole text file and return its path."""
        with self.file(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return path


def refuse_way_out(folder: Path, place: Path) -> None:
    """Raise unless a place is within a folder when links are followed.

    Raises:
        OutputWriteError: A link leads out of the folder, or in a circle.
    """
    try:
        is_within = place.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise write_error(place, error) from error
    if not is_within:
        raise OutputWriteError("is a link that leads out of the folder", path=place, remedy="remove it")


def sweep(folder: Path, fmt: LabelFormat) -> None:
    """Remove the half-written label files that a killed process has left.

    Raises:
        OutputWriteError: A folder for labels is a link out of ``folder``.
    """
    for name in _PLACES[fmt]:
        place = folder / name
        if Path(name).suffix:
            found = [path for path in folder.glob(f".{name}.*.tmp") if _is_left_over(path, name)]
        else:
            refuse_way_out(folder, place)
            found = [path for path in (*place.glob(".*.tmp"), *place.glob("*/.*.tmp")) if _is_left_over(path)]
        for path in found:
            shutil.rmtree(path, ignore_errors=True)


def _is_left_over(path: Path, target: str | None = None) -> bool:
    """Say whether a path is a temporary folder of :func:`tiling.files.atomic_file`, which holds one file at most."""
    match = _LEFT_OVER.fullmatch(path.name)
    if match is None or path.is_symlink() or path.parent.is_symlink() or not path.is_dir():
        return False
    return match["target"] == (target or match["target"]) and {p.name for p in path.iterdir()} <= {match["target"]}


def surface(geometry: BaseGeometry, window: Window) -> BaseGeometry:
    """Return a label as a polygon in its tile: points and lines are made one pixel wide."""
    import shapely

    if shapely.get_dimensions(geometry) == 2:
        return geometry
    wide = shapely.buffer(geometry, 0.5, cap_style="square", join_style="bevel")
    return shapely.intersection(wide, shapely.box(0, 0, window.width_px, window.height_px))


def _write_yolo(to: Target, tiles: Iterable[LabelledTile], classes: Sequence[str], *, oriented: bool) -> list[Path]:
    written, splits = [], dict[str | None, None]()
    for tile in tiles:
        numbers = _oriented if oriented else _upright
        lines = [
            " ".join([str(label.class_id), *(f"{number:.7g}" for number in numbers(label, tile.window))]) + "\n"
            for label in tile.labels
        ]
        written.append(to.text(tile.file(to.folder, "labels", "txt"), "".join(lines)))
        splits[tile.split] = None
    # Without "path", the folders are sought beside data.yaml, wherever it is moved.
    images = {split: f"images/{split}" for split in splits if split} or {"train": "images", "val": "images"}
    # A JSON text is also a YAML text, so no name can break out of its quotes.
    names = [f"  {index}: {_quoted(name)}\n" for index, name in enumerate(classes)]
    head = [f"{_quoted(split)}: {_quoted(place)}\n" for split, place in images.items()]
    text = "".join([*head, f"nc: {len(classes)}\n", "names:\n", *names])
    return [*written, to.text(to.folder / "data.yaml", text)]


def _quoted(text: str) -> str:
    return json.dumps("".join(letter if letter.isprintable() else " " for letter in text), ensure_ascii=False)


def _upright(label: TileLabel, window: Window) -> list[float]:
    """Return centre, width and height as shares of the tile."""
    left, top, right, bottom = surface(label.geometry, window).bounds
    centre_size = np.array([left + right, top + bottom, 2 * (right - left), 2 * (bottom - top)]) / 2
    return _shares(centre_size, window)


def _oriented(label: TileLabel, window: Window) -> list[float]:
    """Return the four corners of the smallest rotated rectangle as shares of the tile."""
    import shapely

    shape = surface(label.geometry, window)
    rectangle = shapely.oriented_envelope(shape)
    if rectangle.geom_type != "Polygon":
        rectangle = shapely.box(*shape.bounds)
    # y points down, so a ring that mathematics calls counter-clockwise is seen clockwise.
    corners = shapely.get_coordinates(shapely.orient_polygons(rectangle))[:4]
    first = np.lexsort((corners[:, 0], corners[:, 1]))[0]
    return _shares(np.roll(corners, -first, axis=0).ravel(), window)


def _shares(numbers: Any, window: Window) -> list[float]:  # noqa: ANN401 - x and y in turn
    sides = np.tile((window.width_px, window.height_px), len(numbers) // 2)
    return np.clip(numbers / sides, 0, 1).tolist()


def _write_masks(to: Target, tiles: Iterable[LabelledTile], classes: Sequence[str]) -> list[Path]:
    if len(classes) > _MOST_CLASSES:
        raise UsageError(
            "there are too many classes for a mask", measured=str(len(classes)), remedy="choose another label field"
        )
    dtype, suffix = mask_type(len(classes))
    written = []
    for tile in tiles:
        target = tile.file(to.folder, "masks", suffix)
        data = _encoded(burn(tile, dtype), tile, suffix)
        with to.file(target) as temporary:
            temporary.write_bytes(data)
        written.append(target)
    values = [{"value": index + 1, "name": name} for index, name in enumerate(classes)]
    legend = json.dumps({"background": 0, "classes": values}, ensure_ascii=False, indent=1)
    return [*written, to.text(to.folder / "masks" / "classes.json", legend + "\n")]


def mask_type(class_count: int) -> tuple[str, str]:
    """Return the type of a mask's samples and its file's suffix."""
    return ("uint8", "png") if class_count <= 255 else ("uint16", "tif")


def burn(tile: LabelledTile, dtype: str) -> Any:  # noqa: ANN401 - an array (h, w) of that type
    """Return a mask (h, w): 0, or class id + 1 of the smallest label at the pixel's centre.

    Lines lie above polygons and points above lines. Order is by the size of whole labels, so that the masks of
    overlapping tiles agree.
    """
    import shapely
    from rasterio.features import rasterize

    def rank(label: TileLabel) -> tuple[int, float, int]:
        return -int(shapely.get_dimensions(label.geometry)), -label.size, label.feature

    shapes = [(label.geometry, label.class_id + 1) for label in sorted(tile.labels, key=rank)]
    shape = (tile.window.height_px, tile.window.width_px)
    return rasterize(shapes, shape, dtype=dtype) if shapes else np.zeros(shape, dtype)


def _encoded(mask: Any, tile: LabelledTile, suffix: str) -> bytes:  # noqa: ANN401
    from rasterio.io import MemoryFile

    from tiling.raster import gdal_env, quietly

    height, width = mask.shape
    profile: dict[str, Any] = {"driver": "PNG"}
    if suffix == "tif":
        profile = {"driver": "GTiff", "compress": "deflate", "crs": tile.crs, "transform": tile.transform}
    with gdal_env(), MemoryFile(ext=f".{suffix}") as memory:
        with quietly():
            out = memory.open(count=1, height=height, width=width, dtype=mask.dtype, **profile)
        with out:
            out.write(mask, 1)
        return bytes(memory.getbuffer())
