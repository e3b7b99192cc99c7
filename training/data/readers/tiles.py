"""What ``geoalign-tile --labels`` wrote: tiles of rasters with labels in any of its formats.

A mask says of each pixel what it is, not which pixels are one object. Its connected areas are taken for the objects
only where there are as many of each class as the manifest counts; else the mask is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.readers import coco
from training.data.readers.base import Placed, Reader, bounds, corner_shares, load_json, numbers, parent, shares
from training.data.schema import Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tiling.chips.manifest import Chip, Manifest
    from tiling.chips.spec import LabelFormat

_PLACES: dict[LabelFormat, str] = {
    "coco": "annotations",
    "geoparquet": "labels.parquet",
    "geojson": "labels.geojson",
    "yolo": "data.yaml",
    "yolo-obb": "data.yaml",
    "mask": "masks/classes.json",
}
"""What tells that labels of a format are there; of several, the manifest's is read, else the first."""
_AGAIN = "cut the tiles again"
_DIGITS = 6
"""Of a box's sides that are sums of the seven digits in YOLO's files, so that no box leaves its tile by rounding."""
_POINT_PX = 0.5
"""Half the side of the square that a point or a line becomes, as in ``geoalign-tile``'s own boxes."""


def detect(path: Path) -> bool:
    """Say whether a folder has the manifest that ``geoalign-tile`` writes."""
    return path.is_dir() and (path / "tiles.parquet").is_file() and (path / "tiles.json").is_file()


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield a record for each tile of the manifest, with the labels of the first label file that is there.

    Raises:
        ManifestError: The manifest is damaged.
        DataError: The labels are damaged or do not belong to the tiles.
    """
    from tiling.chips.manifest import read_manifest

    del images
    manifest = read_manifest(path)
    labels = _labels(path, manifest)
    for chip in manifest.chips:
        source = manifest.sources[chip.source]
        record = Record(
            image=chip.path,
            width=chip.window.width_px,
            height=chip.window.height_px,
            source=path.resolve().name,
            scene=source.name,
            split=chip.split,
            regions=tuple(labels.get(chip.path, ())),
            extra={} if source.gsd_m is None else {"gsd_m": source.gsd_m},
        )
        yield f"{path}: {chip.path}", record


def _labels(path: Path, manifest: Manifest) -> Mapping[str, list[Region]]:
    """Return the regions of each tile by its path."""
    told = manifest.job.get("labels")
    fmt = told.get("format") if isinstance(told, dict) else None
    if fmt not in _PLACES or not (path / _PLACES[fmt]).exists():
        fmt = next((name for name, place in _PLACES.items() if (path / place).exists()), None)
    match fmt:
        case None:
            if count := sum(sum(chip.labels.values()) for chip in manifest.chips):
                raise DataError(
                    "lacks the labels that its manifest counts", path=path, measured=f"{count:,} labels", remedy=_AGAIN
                )
            return {}
        case "coco":
            files = sorted((path / "annotations").glob("*.json"))
            return {record.image: list(record.regions) for file in files for _, record in coco.read(file, path)}
        case "yolo" | "yolo-obb":
            return dict(_of_lines(path, manifest))
        case "mask":
            return dict(_of_masks(path, manifest))
    return _framed(path / _PLACES[fmt], manifest)


def _files(path: Path, manifest: Manifest, fmt: LabelFormat) -> Iterator[tuple[Chip, Path]]:
    """Yield the tiles with their own files of labels."""
    from tiling.chips.labelfiles import label_files

    tiles = [(chip.path, chip.split) for chip in manifest.chips]
    names = label_files(fmt, tiles, len(manifest.classes))
    for chip, name in zip(manifest.chips, names, strict=False):  # the last name is that of the classes' file
        yield chip, path / name


def _of_lines(path: Path, manifest: Manifest) -> Iterator[tuple[str, list[Region]]]:
    """Yield the regions of YOLO's text files, with upright and with oriented boxes."""
    names = _yolo_names(path / _PLACES["yolo"])
    for chip, file in _files(path, manifest, "yolo"):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError("cannot be read", path=file, measured=str(error)[:80], remedy=_AGAIN) from error
        entries = [(f"{file}:{number}", line.split()) for number, line in enumerate(lines, start=1)]
        yield chip.path, [_of_line(words, names, where) for where, words in entries if words]


def _yolo_names(file: Path) -> Mapping[int, str]:
    """Return the classes' names that ``data.yaml`` tells, as a list or by number."""
    import yaml

    try:
        names = yaml.safe_load(file.read_text(encoding="utf-8"))["names"]
        found = names if isinstance(names, dict) else dict(enumerate(names))
        if not all(isinstance(name, (str, int, float)) for name in found.values()):
            raise TypeError("a name is a list or a table")  # whose text may be without end, by YAML's references
        return {int(number): str(name) for number, name in found.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise DataError("tells no names of classes", path=file, measured=str(error)[:80], remedy=_AGAIN) from error


def _of_line(words: list[str], names: Mapping[int, str], where: str) -> Region:
    if len(words) not in (5, 9):
        raise DataError("is not a box of YOLO", path=where, measured=f"{len(words)} words, not 5 or 9")
    number = int(words[0]) if words[0].isdecimal() else -1
    if number not in names:
        raise DataError("names a class that data.yaml lacks", path=where, measured=words[0][:40])
    values: Any = numbers(words[1:], len(words) - 1, where)
    if len(words) == 9:
        turned = values if _is_turned(values) else None
        return Region(bbox=bounds(values), obb=turned, category=names[number], category_id=number)
    x, y, width, height = values
    sides = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    box: Any = tuple(round(side, _DIGITS) for side in sides)
    return Region(bbox=box, category=names[number], category_id=number)


def _is_turned(corners: tuple[float, ...]) -> bool:
    import shapely

    ring = shapely.Polygon(list(zip(corners[::2], corners[1::2], strict=True)))
    return bool(ring.area < 0.99 * ring.envelope.area)


def _of_masks(path: Path, manifest: Manifest) -> Iterator[tuple[str, list[Region]]]:
    """Yield the connected areas of masks, pixels that meet at a corner together, as upright boxes."""
    legend = load_json(path / _PLACES["mask"])
    try:
        names = {int(entry["value"]): str(entry["name"]) for entry in legend["classes"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("tells no names of classes", path=path / _PLACES["mask"], remedy=_AGAIN) from error
    for chip, file in _files(path, manifest, "mask"):
        regions = _areas(file, names)
        found = Counter(region.category for region in regions)
        if found != Counter(chip.labels):
            raise DataError(
                "does not tell its objects apart", path=file,
                measured=f"labels: {sum(chip.labels.values())}, connected areas: {found.total()}",
                remedy="cut the tiles again with --labels-format coco",
            )  # fmt: skip
        yield chip.path, regions


def _areas(file: Path, names: Mapping[int, str]) -> list[Region]:
    from rasterio.features import shapes

    from tiling.raster import open_raster
    from tiling.source import SourceRect, read_source

    with open_raster(file) as raster:
        width, height = raster.info.width_px, raster.info.height_px
        mask = read_source(raster, (1,), SourceRect(0, 0, width, height))[0][0]
    regions = []
    for outline, value in shapes(mask, mask=mask > 0, connectivity=8):
        if value not in names:
            raise DataError("holds a value that classes.json lacks", path=file, measured=f"{value:g}", remedy=_AGAIN)
        ring = [number for corner in outline["coordinates"][0] for number in corner]
        box = shares(bounds(ring), width, height)
        regions.append(Region(bbox=box, category=names[int(value)], category_id=int(value) - 1))
    return regions


def _framed(file: Path, manifest: Manifest) -> dict[str, list[Region]]:
    import geopandas

    chips = {chip.path: chip for chip in manifest.chips}
    found: dict[str, list[Region]] = {}
    try:
        frame = geopandas.read_parquet(file) if file.suffix == ".parquet" else geopandas.read_file(file)
        rows = frame[["tile", "class", "class_id"]].to_dict("records")
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # pyogrio's and Arrow's are among them
        raise DataError("is not a file of labels", path=file, measured=str(error)[:80]) from error
    systems = {source.crs_wkt for source in manifest.sources}
    moved = {system: frame.geometry.to_crs(system) if system and frame.crs else frame.geometry for system in systems}
    for position, row in enumerate(rows):
        chip = chips.get(row["tile"])
        if chip is None:
            raise DataError(
                "names a tile that the manifest lacks", path=file, measured=str(row["tile"])[:80],
                remedy="cut the tiles again",
            )  # fmt: skip
        shape = moved[manifest.sources[chip.source].crs_wkt].iloc[position]
        if shape is not None and not shape.is_empty:
            found.setdefault(chip.path, []).append(_region(shape, chip, manifest, row))
    return found


def _region(shape: Any, chip: Chip, manifest: Manifest, row: dict[str, Any]) -> Region:  # noqa: ANN401 - shapely
    import shapely

    place = ~manifest.sources[chip.source].place(chip.window)
    pixels = shapely.affinity.affine_transform(shape, place.to_shapely())
    if shapely.get_dimensions(pixels) < 2:
        pixels = shapely.buffer(pixels, _POINT_PX, cap_style="square", join_style="bevel")
    width, height = chip.window.width_px, chip.window.height_px
    inside = shapely.intersection(pixels, shapely.box(0, 0, width, height))
    rectangle = shapely.oriented_envelope(inside)
    ring = shapely.get_coordinates(rectangle)[:4].ravel().tolist()
    is_turned = rectangle.geom_type == "Polygon" and rectangle.area < 0.99 * inside.envelope.area
    return Region(
        bbox=shares((inside if not inside.is_empty else pixels).bounds, width, height),
        obb=corner_shares(ring, width, height) if is_turned else None,
        category=str(row["class"]),
        category_id=int(row["class_id"]),
    )


READER = Reader("tiles", "geoalign-tile with --labels", detect, read, parent)
