"""The manifest: ``tiles.parquet`` with one row per tile and ``tiles.json`` with what all tiles have in common."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affine import Affine

from tiling.chips import sound
from tiling.errors import GeoAlignError, OutputExistsError, UsageError
from tiling.files import atomic_file, write_error
from tiling.grid import TileGrid, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rasterio.crs import CRS

SCHEMA = 2
TABLE = "tiles.parquet"
LONLAT = "OGC:CRS84"


class ManifestError(GeoAlignError):
    """A folder's manifest is missing, damaged, or of another version."""


@dataclass(frozen=True, slots=True)
class Source:
    """One raster that was cut: its canvas, its grid and what its tiles hold."""

    name: str
    """Beginning of its tiles' names, unique in the manifest."""
    path: str
    fingerprint: dict[str, Any]
    width_px: int
    """Size of the canvas that the grid lies on."""
    height_px: int
    transform: Affine
    """From canvas pixel to CRS coordinates."""
    crs_wkt: str | None
    gsd_m: float | None
    overview: int
    """Reduction factor of the overview that was read; 1 is the full resolution."""
    grid: TileGrid
    bands: tuple[int, ...]
    dtype: str
    nodata: float | None
    stretch: dict[str, Any] | None
    others: tuple[str, ...] = ()
    """The further files of a mosaic."""

    @property
    def crs(self) -> CRS | None:
        """The CRS of the tiles, or None in pixel mode."""
        from rasterio.crs import CRS

        return None if self.crs_wkt is None else CRS.from_wkt(self.crs_wkt)

    def place(self, window: Window) -> Affine:
        """Return the transform of one tile."""
        return self.transform * Affine.translation(window.col_off_px, window.row_off_px)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **asdict(self),
            "transform": list(self.transform)[:6],
            "bands": list(self.bands),
            "others": list(self.others),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Source:
        """Build from :meth:`to_dict`'s values.

        Raises:
            KeyError, TypeError, ValueError: They are not such values.
        """
        sound.check_all(data, _SOURCE)
        sound.check_all(data["grid"], _GRID)
        known = {key: data[key] for key in cls.__slots__}
        known["transform"] = Affine(*data["transform"])
        known["bands"], known["others"] = tuple(data["bands"]), tuple(data["others"])
        try:
            known["grid"] = TileGrid(**data["grid"])
        except UsageError as error:
            raise ValueError(str(error)) from error
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Chip:
    """One tile that was written."""

    path: str
    """Relative to the folder, with forward slashes."""
    source: int
    """Position of its raster in :attr:`Manifest.sources`."""
    window: Window
    valid_fraction: float
    split: str | None = None
    labels: dict[str, int] = field(default_factory=dict)
    """How many labels of each class lie in it."""
    size_bytes: int = 0
    crc32: int = 0
    """Of the file as it was written; picture formats' small files beside it are not counted."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is known about a folder of tiles."""

    folder: Path
    sources: tuple[Source, ...]
    chips: tuple[Chip, ...]
    classes: tuple[str, ...] = ()
    job: dict[str, Any] = field(default_factory=dict)
    """What was asked for, in plain values."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason, and how many tiles were left out for it."""
    failures: tuple[dict[str, str], ...] = ()
    """Rasters that could not be cut: ``path`` and ``error``."""

    def header(self) -> dict[str, Any]:
        """Return ``tiles.json`` without the folder, which depends on where the table lies."""
        from importlib.metadata import version

        return {
            "schema": SCHEMA,
            "program": f"geoalign-tile {version('geoalign')}",
            "tiles": len(self.chips),
            "left_out": self.left_out,
            "classes": list(self.classes),
            "job": self.job,
            "sources": [source.to_dict() for source in self.sources],
            "failures": list(self.failures),
        }


def corners(transform: Affine, width_px: int, height_px: int) -> list[tuple[float, float]]:
    """Return the four corners of a raster in its CRS, beginning at the first pixel, along the first row."""
    return [transform * corner for corner in ((0, 0), (width_px, 0), (width_px, height_px), (0, height_px))]


def footprint(source: Source, window: Window) -> list[tuple[float, float]]:
    """Return the corners of a tile in its CRS."""
    return corners(source.place(window), window.width_px, window.height_px)


def write_manifest(manifest: Manifest, *, table: Path | None = None) -> Path:
    """Write the GeoParquet table and, after it, the header.

    The geometry is each tile's outline: in the CRS of the tiles when they share one (or none), else in longitude
    and latitude. ``crs``, ``affine`` and ``xmin`` … ``ymax`` always tell the place in the tile's own CRS.

    Args:
        manifest: What to write.
        table: Where the table goes; ``tiles.parquet`` in the folder by default. The header lies beside it.

    Returns:
        The table's path.

    Raises:
        UsageError, OutputExistsError: As :func:`check_table`.
        OutputWriteError: The disk is full or refuses.
    """
    target = table or manifest.folder / TABLE
    check_table(target)
    frame = _frame(manifest)
    try:
        with atomic_file(target, overwrite=True) as temporary:
            frame.to_parquet(temporary, index=False)
    except OSError as error:
        raise write_error(target, error) from error
    header = {"folder": os.path.relpath(manifest.folder, target.parent), **manifest.header()}
    with atomic_file(target.with_suffix(".json"), overwrite=True) as temporary:
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    return target


def _frame(manifest: Manifest) -> Any:  # noqa: ANN401 - geopandas has no types
    import geopandas
    import numpy as np

    sources = manifest.sources
    texts = [_crs_text(source) for source in sources]
    rings = [footprint(sources[chip.source], chip.window) for chip in manifest.chips]
    corner = np.array(rings).reshape(-1, 4, 2)
    columns: dict[str, Any] = {
        "path": [chip.path for chip in manifest.chips],
        "source": [sources[chip.source].name for chip in manifest.chips],
        "source_path": [sources[chip.source].path for chip in manifest.chips],
        "source_sha256": [sources[chip.source].fingerprint["sha256"] for chip in manifest.chips],
        "split": [chip.split for chip in manifest.chips],
    }
    for name in ("row", "col", "row_off_px", "col_off_px", "height_px", "width_px"):
        columns[name] = [getattr(chip.window, name) for chip in manifest.chips]
    columns |= {
        "affine": [list(sources[chip.source].place(chip.window))[:6] for chip in manifest.chips],
        "crs": [texts[chip.source] for chip in manifest.chips],
        "xmin": corner[:, :, 0].min(axis=1),
        "ymin": corner[:, :, 1].min(axis=1),
        "xmax": corner[:, :, 0].max(axis=1),
        "ymax": corner[:, :, 1].max(axis=1),
        "gsd_m": [sources[chip.source].gsd_m for chip in manifest.chips],
        "valid_fraction": [chip.valid_fraction for chip in manifest.chips],
        "labels": [sum(chip.labels.values()) for chip in manifest.chips],
        "label_counts": [json.dumps(chip.labels, sort_keys=True) for chip in manifest.chips],
        "size_bytes": [chip.size_bytes for chip in manifest.chips],
        "crc32": [chip.crc32 for chip in manifest.chips],
    }
    geometry, crs = _outlines(manifest, rings)
    return geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)


def _crs_text(source: Source) -> str | None:
    crs = source.crs
    if crs is None:
        return None
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(source.crs_wkt)


def _outlines(manifest: Manifest, rings: Sequence[list[tuple[float, float]]]) -> tuple[list[Any], str | None]:
    """Return the tiles' outlines and their CRS."""
    import shapely

    systems = {source.crs_wkt for source in manifest.sources}
    if len(systems) <= 1:
        return [shapely.Polygon(ring) for ring in rings], next(iter(systems), None)
    from tiling.lonlat import to_lonlat

    systems_of = [source.crs for source in manifest.sources]
    return [
        None if systems_of[chip.source] is None else to_lonlat(ring, systems_of[chip.source])
        for chip, ring in zip(manifest.chips, rings, strict=True)
    ], LONLAT


def manifest_files(path: str | Path) -> tuple[Path, Path]:
    """Return the table and the header of a folder of tiles, or of a table."""
    path = Path(path)
    table = path / TABLE if path.is_dir() else path
    return table, table.with_suffix(".json")


def check_table(table: Path) -> None:
    """Refuse a place where a manifest would replace what is none, whether files may be replaced or not.

    Of an earlier manifest one of the two files may be missing or damaged.

    Raises:
        UsageError: The name does not end in ``.parquet``.
        OutputExistsError: The table or the header is there and is somebody else's file, a link or a folder.
    """
    if table.suffix.lower() != ".parquet":
        raise UsageError("is no name for a manifest", path=table, remedy="let it end in .parquet")
    header = table.with_suffix(".json")
    there = [file for file in (table, header) if file.is_symlink() or file.exists()]
    for file in there:
        if file.is_symlink() or not file.is_file():
            raise OutputExistsError("is a link or a folder", path=file, remedy="give the manifest another name")
    known = {file: _is_ours(file) for file in there}
    for file, ours in known.items():
        if ours is False or True not in known.values():
            raise OutputExistsError(
                "is there and is no manifest of tiles", path=file, remedy="move it away or give another name"
            )


def _is_ours(file: Path) -> bool | None:
    """Return whether a file is a table or a header of ours, or None when it is damaged."""
    import pyarrow.parquet

    try:
        if file.suffix.lower() == ".parquet":
            return set(_COLUMNS) <= set(pyarrow.parquet.read_schema(file).names)
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, pyarrow.ArrowException):
        return None
    return str(data.get("program")).startswith("geoalign-tile") if isinstance(data, dict) else None


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest. Whoever wrote it, what is returned is sound: types, sizes, windows of the grid, paths inside.

    Args:
        path: A folder of tiles, or the manifest's table.

    Raises:
        ManifestError: There is none, it is damaged, or of another version.
    """
    import pyarrow as pa

    table, header = manifest_files(path)
    try:
        for file in (table, header):
            if not file.is_file():
                what = "has no manifest" if Path(path).exists() else "does not exist"
                remedy = "name the one of the tiles with --manifest, or cut tiles with geoalign-tile"
                raise ManifestError(what, path=path, measured=file.name, remedy=remedy)
        data = json.loads(header.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ManifestError(
                "is a manifest of another version",
                path=header,
                measured=f"schema {data['schema']!r:.20}, not {SCHEMA}",
                remedy="cut the tiles again",
            )
        sound.check_all(data, _HEADER)
        sources = tuple(Source.from_dict(entry) for entry in data["sources"])
        chips = tuple(_read_chips(table, sources))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, OSError, pa.ArrowException) as error:
        reason = f"without {error}" if isinstance(error, KeyError) else str(error)
        raise ManifestError(
            "is not a manifest that can be read", path=table, measured=reason[:120], remedy="cut the tiles again"
        ) from error
    extra = tuple(data["classes"]), data["job"], data["left_out"], tuple(data["failures"])
    return Manifest(table.parent / data["folder"], sources, chips, *extra)


def _read_chips(table: Path, sources: Sequence[Source]) -> Iterator[Chip]:
    import pyarrow.parquet

    position = {source.name: index for index, source in enumerate(sources)}
    if len(position) < len(sources):
        raise ValueError("two sources have one name")
    # Not by way of pandas, which makes other types of a column with a null in it.
    with pyarrow.parquet.ParquetFile(table) as file:
        columns = file.read(columns=list(_COLUMNS)).to_pydict()
    for values in zip(*(columns[name] for name in _COLUMNS), strict=True):
        row = dict(zip(_COLUMNS, values, strict=True))
        sound.check_all(row, _COLUMNS)
        if not sound.is_inside(row["path"]):
            raise ManifestError("names a file outside of its folder", path=table, measured=repr(row["path"]))
        source, labels = position[row["source"]], json.loads(row["label_counts"])
        sound.check_all({"label_counts": labels}, {"label_counts": sound.is_counts})
        place = [row[name] for name in _PLACE]
        grid = sources[source].grid
        is_known = row["row"] < grid.rows and row["col"] < grid.cols
        window = grid.window(row["row"], row["col"]) if is_known else None
        if window != Window(*place):
            raise ManifestError("names a tile that is not on its grid", path=table, measured=repr(row["path"]))
        facts = row["valid_fraction"], row["split"], labels, row["size_bytes"], row["crc32"]
        yield Chip(row["path"], source, Window(*place), *facts)


_SOURCE: dict[str, sound.Check] = {
    "name": sound.is_text,
    "path": sound.is_text,
    "fingerprint": lambda value: isinstance(value, dict) and sound.is_text(value["sha256"]),
    "width_px": sound.is_size,
    "height_px": sound.is_size,
    "transform": sound.is_transform,
    "crs_wkt": sound.or_none(sound.is_crs),
    "gsd_m": sound.or_none(lambda value: sound.is_number(value) and value > 0),
    "overview": sound.is_size,
    "grid": lambda value: isinstance(value, dict),
    "bands": lambda value: sound.all_of(sound.is_size)(value) and bool(value),
    "dtype": sound.is_text,
    "nodata": sound.or_none(lambda value: type(value) is float or sound.is_number(value)),
    "stretch": sound.or_none(lambda value: isinstance(value, dict)),
    "others": sound.all_of(sound.is_text),
}
_SIZES = ("width_px", "height_px", "tile_px", "stride_px", "snap_px")
_GRID: dict[str, sound.Check] = dict.fromkeys(_SIZES, sound.is_size)
_HEADER: dict[str, sound.Check] = {
    "folder": sound.is_text,
    "classes": sound.all_of(sound.is_text),
    "job": lambda value: isinstance(value, dict) and isinstance(value.get("spec", {}), dict),
    "left_out": sound.is_counts,
    "sources": sound.all_of(lambda value: isinstance(value, dict)),
    "failures": sound.all_of(lambda value: isinstance(value, dict) and all(map(sound.is_text, value.values()))),
}
_PLACE = ("col_off_px", "row_off_px", "width_px", "height_px", "col", "row")
_COLUMNS: dict[str, sound.Check] = {
    "path": lambda value: isinstance(value, str),
    "source": sound.is_text,
    "split": sound.or_none(sound.is_text),
    **dict.fromkeys(_PLACE, sound.is_whole),
    **dict.fromkeys(("row", "col", "size_bytes", "crc32"), sound.is_count),
    "valid_fraction": lambda value: sound.is_number(value) and 0 <= value <= 1,
    "label_counts": sound.is_text,
}
