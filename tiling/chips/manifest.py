"""The manifest: ``tiles.parquet`` with one row per tile and ``tiles.json`` with what all tiles have in common."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affine import Affine

from tiling.errors import GeoAlignError
from tiling.files import atomic_file, write_error
from tiling.grid import TileGrid, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        known = {key: data[key] for key in cls.__slots__}
        known["transform"] = Affine(*data["transform"])
        known["bands"], known["others"] = tuple(data["bands"]), tuple(data["others"])
        known["grid"] = TileGrid(**data["grid"])
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
        OutputWriteError: The disk is full or refuses.
    """
    target = table or manifest.folder / TABLE
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


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest.

    Args:
        path: A folder of tiles, or the manifest's table.

    Raises:
        ManifestError: There is none, it is damaged, or of another version.
    """
    import geopandas

    path = Path(path)
    table = path / TABLE if path.is_dir() else path
    header = table.with_suffix(".json")
    for file in (table, header):
        if not file.is_file():
            raise ManifestError("has no manifest", path=path, measured=file.name, remedy="cut it with geoalign-tile")
    try:
        data = json.loads(header.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ManifestError(
                "is a manifest of another version",
                path=header,
                measured=f"schema {data['schema']}, not {SCHEMA}",
                remedy="cut the tiles again",
            )
        sources = tuple(Source.from_dict(entry) for entry in data["sources"])
        position = {source.name: index for index, source in enumerate(sources)}
        frame = geopandas.read_parquet(table)
        chips = tuple(
            Chip(
                row.path,
                position[row.source],
                Window(row.col_off_px, row.row_off_px, row.width_px, row.height_px, row.col, row.row),
                row.valid_fraction,
                row.split,
                json.loads(row.label_counts),
                row.size_bytes,
                row.crc32,
            )
            for row in frame.itertuples()
        )
        extra = tuple(data["classes"]), data["job"], data["left_out"], tuple(data["failures"])
        folder = table.parent / data["folder"]
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ManifestError(
            "is not a manifest that can be read", path=table, measured=str(error)[:120], remedy="cut the tiles again"
        ) from error
    return Manifest(folder, sources, chips, *extra)
