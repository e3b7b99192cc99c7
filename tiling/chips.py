"""A raster cut into georeferenced tiles with a manifest, resumable at any tile."""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.errors import RasterioError

from tiling.area import parse_area, to_canvas
from tiling.canvas import no_metres, pixel_canvas, plan_canvas
from tiling.chipfile import ChipFormat, encode_chip, encoding_error, write_chip
from tiling.errors import OutputExistsError, UnsupportedRasterError, UsageError
from tiling.files import atomic_file, write_error
from tiling.grid import Length, TileGrid, Window
from tiling.progress import silent
from tiling.radiometry import BandChoice, Stretch, band_numbers, choose_bands, plan_stretch
from tiling.reader import RawTile, Tile, read_raw, read_windows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from tiling.canvas import Canvas
    from tiling.grid import Edge
    from tiling.progress import CancelToken, Progress
    from tiling.raster import Raster

SCHEMA = 1
NO_OVERLAP = Length(0, "px")
_NEIGHBOURHOOD_PX = 4096


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """What a user asks of the tiles."""

    tile: Length
    overlap: Length = NO_OVERLAP
    edge: Edge = "shift"
    gsd_m: float | None = None
    """None keeps the raster's own pixels."""
    bands: str | None = None
    """None keeps all bands."""
    stretch: str | None = None
    """None keeps the samples as they are."""
    area: str | None = None
    min_valid: float = 0.0
    """Tiles with a smaller share of valid pixels are left out."""
    suffix: str = "tif"


@dataclass(frozen=True, slots=True)
class Chip:
    """One tile, written or left out."""

    path: str
    """Name relative to the output folder; empty when the tile was left out."""
    window: Window
    valid_fraction: float


@dataclass(frozen=True, slots=True)
class ChipPlan:
    """Everything decided before the first tile is cut."""

    spec: ChipSpec
    canvas: Canvas
    grid: TileGrid
    indexes: tuple[int, ...]
    picture: tuple[BandChoice, Stretch] | None
    """The bands and the stretch when the tiles are pictures, None when they are samples."""
    format: ChipFormat
    area: BaseGeometry | None
    """In canvas pixels."""
    stem: str

    def windows(self) -> Iterator[Window]:
        """Yield the windows that touch the area, neighbourhood by neighbourhood."""
        import shapely

        if self.area is None:
            for rows, cols in self.grid.blocks(_NEIGHBOURHOOD_PX):
                yield from (self.grid.window(row, col) for row in rows for col in cols)
            return
        shapely.prepare(self.area)
        for window in self.grid.touching(*self.area.bounds):
            box = shapely.box(window.col_off_px, window.row_off_px, window.col_end_px, window.row_end_px)
            if self.area.intersects(box) and not self.area.touches(box):
                yield window

    def count(self) -> int:
        """Return the number of windows."""
        return len(self.grid) if self.area is None else sum(1 for _ in self.windows())

    def name(self, window: Window) -> str:
        """Return a tile's file name."""
        digits = max(4, len(str(max(self.grid.rows, self.grid.cols) - 1)))
        return f"{self.stem}_r{window.row:0{digits}d}_c{window.col:0{digits}d}.{self.spec.suffix}"

    def header(self, raster: Raster) -> dict[str, Any]:
        """Return the plain facts by which an interrupted job is recognised."""
        status = raster.path.stat()
        grid, spec = asdict(self.grid), asdict(self.spec)
        source = {"path": str(raster.path), "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        canvas = {"gsd_m": self.canvas.gsd_m, "scale_x": self.canvas.scale_x, "scale_y": self.canvas.scale_y}
        stretch = None if self.picture is None else self.picture[1].to_dict()
        return {
            "schema": SCHEMA,
            "source": source,
            "spec": spec,
            "canvas": canvas,
            "grid": grid,
            "bands": list(self.indexes),
            "stretch": stretch,
        }


def plan_chips(raster: Raster, spec: ChipSpec) -> ChipPlan:
    """Decide everything about the tiles of a raster.

    Raises:
        GeoAlignError: The raster cannot be cut like that; the message says why.
    """
    info = raster.info
    if info.is_complex:
        raise UnsupportedRasterError("holds complex numbers", path=info.path, measured=info.dtype)
    in_metres = "m" in (spec.tile.unit, spec.overlap.unit)
    if in_metres and info.gsd_m is None:
        raise no_metres(info)
    canvas = plan_canvas(info, spec.gsd_m) if in_metres or spec.gsd_m else pixel_canvas(info)
    grid = TileGrid.lay(canvas.width_px, canvas.height_px, spec.tile, spec.overlap, gsd_m=canvas.gsd_m, edge=spec.edge)
    area = None if spec.area is None else to_canvas(parse_area(spec.area, info), info, canvas.scale_x, canvas.scale_y)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", info.path.stem) or "tile"
    as_picture = spec.stretch is not None or spec.suffix == "png" or (info.has_palette and not canvas.is_native)
    if as_picture:
        bands = choose_bands(info, spec.bands)
        picture = bands, plan_stretch(raster, bands, spec.stretch or "auto")
        chip = ChipFormat(spec.suffix, "uint8", 3, None, ("red", "green", "blue"), has_alpha=False)
        return ChipPlan(spec, canvas, grid, bands.indexes, picture, chip, area, stem)
    indexes = band_numbers(info, spec.bands) if spec.bands else tuple(range(1, info.count + 1))
    return ChipPlan(spec, canvas, grid, indexes, None, _sample_format(raster, spec, indexes), area, stem)


def _sample_format(raster: Raster, spec: ChipSpec, indexes: tuple[int, ...]) -> ChipFormat:
    info = raster.info
    return ChipFormat(
        suffix=spec.suffix,
        dtype=info.dtype,
        count=len(indexes),
        nodata=info.nodata if not info.has_mask else None,
        colorinterp=tuple(info.colorinterp[index - 1] for index in indexes),
        has_alpha=info.alpha_band in indexes,
        palette=raster.palette if indexes == (1,) else None,
    )


def cut_chips(
    raster: Raster,
    plan: ChipPlan,
    folder: Path,
    *,
    jobs: int = 2,
    overwrite: bool = False,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> list[Chip]:
    """Cut a raster into tiles and write the manifest last.

    A stopped job goes on where it stopped when it is asked for again in the same words: its header
    ``STEM_tiles.json`` lies there from the beginning, its manifest ``STEM_tiles.parquet`` at the end only.

    Args:
        raster: The open raster.
        plan: From :func:`plan_chips`.
        folder: Where the tiles go; made when missing.
        jobs: Threads that read; twice as many write.
        overwrite: Replace tiles that are there.
        progress: Told after every tile.
        cancel: Looked at before every tile.

    Raises:
        OutputExistsError: Other tiles of that name are there.
        OutputWriteError: The disk is full or refuses.
        RasterReadError: The raster is damaged.
    """
    header = plan.header(raster)
    resumed = _begin(folder, plan, header, overwrite=overwrite)
    chips: list[Chip] = []
    pending: deque[tuple[Chip, Future[None]]] = deque()
    total = plan.count()
    # Twice as many as read, for writers mostly wait for the disk to flush.
    with ThreadPoolExecutor(2 * jobs, thread_name_prefix="geoalign-write") as pool:
        try:
            for tile in _tiles(raster, plan, jobs, cancel):
                valid = float(tile.valid.mean())
                if valid < plan.spec.min_valid:
                    chips.append(Chip("", tile.window, valid))
                else:
                    chip = Chip(plan.name(tile.window), tile.window, valid)
                    target = folder / chip.path
                    if not (resumed and target.exists()):
                        pending.append((chip, pool.submit(_write, target, tile, raster, plan, overwrite)))
                    chips.append(chip)
                while len(pending) > 4 * jobs:
                    pending.popleft()[1].result()
                progress(len(chips), total, f"tiling {raster.path.name}")
            for _, future in pending:
                future.result()
        finally:
            for _, future in pending:
                future.cancel()
    _write_manifest(folder, plan, chips)
    _write_header(folder, plan, {**header, "complete": True})
    return chips


def _tiles(raster: Raster, plan: ChipPlan, jobs: int, cancel: CancelToken | None) -> Iterator[Tile | RawTile]:
    if plan.picture is not None:
        bands, stretch = plan.picture
        return read_windows(raster, plan.canvas, plan.windows(), bands=bands, stretch=stretch, jobs=jobs, cancel=cancel)
    return read_raw(raster, plan.canvas, plan.windows(), indexes=plan.indexes, jobs=jobs, cancel=cancel)


def _write(target: Path, tile: Tile | RawTile, raster: Raster, plan: ChipPlan, overwrite: bool) -> None:
    array = tile.image if isinstance(tile, Tile) else _samples(tile, raster, plan)
    try:
        data = encode_chip(array, tile.valid, tile.transform, tile.crs, plan.format)
    except (RasterioError, ValueError, TypeError) as error:
        raise encoding_error(target, error) from error
    write_chip(target, data, tile.transform, overwrite=overwrite)


def _samples(tile: RawTile, raster: Raster, plan: ChipPlan) -> NDArray[Any]:
    """Return samples of the file's type, with nodata (or 0) where there is no raster."""
    array, dtype = tile.array, np.dtype(plan.format.dtype)
    if array.dtype != dtype:
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            array = np.clip(np.rint(array), limits.min, limits.max)
        array = array.astype(dtype)
    if tile.valid.all():
        return array
    beyond = ~tile.valid if not plan.canvas.is_native else _beyond(tile.window, raster)
    fill = 0 if plan.format.nodata is None else plan.format.nodata
    return np.where(beyond, np.asarray(fill).astype(dtype), array)


def _beyond(window: Window, raster: Raster) -> NDArray[np.bool_]:
    rows = np.arange(window.row_off_px, window.row_end_px) >= raster.info.height_px
    cols = np.arange(window.col_off_px, window.col_end_px) >= raster.info.width_px
    return np.asarray(rows[:, None] | cols)


def _begin(folder: Path, plan: ChipPlan, header: dict[str, Any], *, overwrite: bool) -> bool:
    """Lay the header down and return whether this goes on with a stopped job."""
    path = folder / f"{plan.stem}_tiles.json"
    stored = _read_header(path)
    same = stored is not None and stored == {**_plain(header), "complete": False}
    if stored is not None and not same and not overwrite:
        raise OutputExistsError("tiles of this name are already there", path=path, remedy="add --overwrite")
    resumed = stored is not None and not overwrite
    for left in folder.glob(f".{plan.stem}_*.tmp"):
        # A killed process leaves its temporary folders behind.
        shutil.rmtree(left, ignore_errors=True)
    if not resumed:
        first = next((folder / plan.name(w) for w in plan.windows() if (folder / plan.name(w)).exists()), None)
        if first is not None and not overwrite:
            raise OutputExistsError("is already there", path=first, remedy="add --overwrite or choose another folder")
    _write_header(folder, plan, {**header, "complete": False})
    return resumed


def _plain(header: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(header))


def _read_header(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise OutputExistsError("is not a tile header", path=path, remedy="move it away") from error
    return data if isinstance(data, dict) else {}


def _write_header(folder: Path, plan: ChipPlan, header: dict[str, Any]) -> None:
    path = folder / f"{plan.stem}_tiles.json"
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")


def _write_manifest(folder: Path, plan: ChipPlan, chips: list[Chip]) -> None:
    """Write a GeoParquet table with one row per tile written."""
    import geopandas
    import shapely

    written = [chip for chip in chips if chip.path]
    boxes = [chip.window for chip in written]
    corners = [
        [
            plan.canvas.transform * corner
            for corner in (
                (w.col_off_px, w.row_off_px),
                (w.col_end_px, w.row_off_px),
                (w.col_end_px, w.row_end_px),
                (w.col_off_px, w.row_end_px),
            )
        ]
        for w in boxes
    ]
    columns: dict[str, Any] = {
        "path": [chip.path for chip in written],
        "gsd_m": [plan.canvas.gsd_m] * len(written),
        "valid_fraction": [chip.valid_fraction for chip in written],
    }
    for name in ("row", "col", "row_off_px", "col_off_px", "height_px", "width_px"):
        columns[name] = [getattr(window, name) for window in boxes]
    crs = None if plan.canvas.crs is None else plan.canvas.crs.to_wkt()
    table = geopandas.GeoDataFrame(columns, geometry=[shapely.Polygon(c) for c in corners], crs=crs)
    target = folder / f"{plan.stem}_tiles.parquet"
    try:
        with atomic_file(target, overwrite=True) as temporary:
            table.to_parquet(temporary, index=False)
    except OSError as error:
        raise write_error(target, error) from error


def check_stems(paths: list[Path]) -> None:
    """Refuse rasters whose tiles would have the same names.

    Raises:
        UsageError: As said.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise UsageError(
                "two rasters have the same name",
                path=path,
                measured=str(other),
                remedy="cut them into different folders",
            )
