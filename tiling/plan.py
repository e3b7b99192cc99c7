"""Which windows of a raster are tiles, and how their pixels are made: decided before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.area import parse_area, to_canvas
from tiling.canvas import no_metres, pixel_canvas, plan_canvas
from tiling.cells import cell_dtype, lay_cells
from tiling.errors import UnsupportedRasterError, UsageError
from tiling.grid import Length, TileGrid
from tiling.reader import Tile, read_raw, read_windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from tiling.canvas import Canvas
    from tiling.grid import Edge, Window
    from tiling.progress import CancelToken
    from tiling.radiometry import BandChoice, Stretch
    from tiling.raster import Raster

MAX_TILES = 500_000
MAX_WINDOW_BYTES = 2**30
"""Samples of one tile, as they are read. Encoding and stretching need a few times as much."""
_NEIGHBOURHOOD_PX = 4096
_WINDOWS_AT_ONCE = 65536
NO_OVERLAP = Length(0, "px")
OUTSIDE, BLANK = "outside the area", "too few valid pixels"


class TooManyTilesError(UsageError):
    """A job would make more tiles than allowed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The windows of one raster that will be read."""

    canvas: Canvas
    grid: TileGrid
    windows: tuple[Window, ...]
    """Neighbourhood by neighbourhood, so that what is read close together lies close together."""
    area: BaseGeometry | None = None
    """The area of interest in canvas pixels."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason, and how many windows of the grid were left out for it."""
    told_by: str = ""
    """What told that windows are blank; empty when nothing could without reading them."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a window's pixels are made from the raster's samples."""

    indexes: tuple[int, ...]
    """One-based bands."""
    stretch: Stretch | None = None
    """None keeps the samples."""
    picture: BandChoice | None = None
    """Set when tiles are pictures of three bands: palettes become colours, a single band is repeated."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of one raster, read when iterated over, any number of times.

    Memory is that of the cells that one window needs (:meth:`tiling.cells.CellLayout.keys`; all bands of whole rows
    for files in strips), 96 MB of cells beside them, and what :func:`tiling.reader.read_windows` tells.
    """

    raster: Raster
    layout: Layout
    pixels: Pixels
    jobs: int = 2
    cancel: CancelToken | None = None

    def __len__(self) -> int:
        return len(self.layout.windows)

    def __iter__(self) -> Iterator[Tile]:
        return self.read(self.layout.windows)

    @property
    def canvas(self) -> Canvas:
        """What the windows lie on."""
        return self.layout.canvas

    @property
    def grid(self) -> TileGrid:
        """The grid that the windows belong to."""
        return self.layout.grid

    def blend(self, path: str | Path, outputs: Iterable[tuple[Tile, NDArray[Any]]], **options: Any) -> Path:  # noqa: ANN401
        """Join what a model made of the tiles into one Cloud Optimized GeoTIFF in the raster's place.

        Args:
            path: The target.
            outputs: Each tile with the model's answer, (C, h, w) or (h, w), in the order of the tiles. Tiles may be
                missing; pixels that are not valid in the tile stay empty.
            options: As for :func:`tiling.blend.write_blended`: ``how``, ``dtype``, ``nodata``, ``overwrite``, …

        Raises:
            UsageError: The tiles come out of order, or an answer has another size than its tile.
            OutputExistsError: The target exists.
            OutputWriteError: The disk is full or refuses.
        """
        from tiling.blend import write_blended

        canvas = self.canvas
        return write_blended(
            path, ((tile.window, values, tile.valid) for tile, values in outputs), grid=self.grid,
            width_px=canvas.width_px, height_px=canvas.height_px, transform=canvas.transform, crs=canvas.crs, **options,
        )  # fmt: skip

    def read(self, windows: Iterable[Window]) -> Iterator[Tile]:
        """Yield some windows in the order given; see :func:`tiling.reader.read_windows` for memory and errors."""
        pixels = self.pixels
        if pixels.picture is not None and pixels.stretch is not None:
            yield from read_windows(
                self.raster, self.canvas, windows, bands=pixels.picture, stretch=pixels.stretch,
                jobs=self.jobs, cancel=self.cancel,
            )  # fmt: skip
            return
        for tile in read_raw(
            self.raster, self.canvas, windows, indexes=pixels.indexes, jobs=self.jobs, cancel=self.cancel
        ):
            yield tile if pixels.stretch is None else replace(tile, array=pixels.stretch.map(tile.array, tile.valid))


def lay_out(
    raster: Raster,
    tile: Length,
    overlap: Length = NO_OVERLAP,
    *,
    edge: Edge = "shift",
    gsd_m: float | None = None,
    area: str | None = None,
    min_valid: float = 0.0,
    indexes: Sequence[int] | None = None,
    max_tiles: int = MAX_TILES,
) -> Layout:
    """Decide which windows of a raster are tiles.

    Args:
        raster: The open raster.
        tile: Side of a window.
        overlap: Shared by neighbours.
        edge: What the last windows do, see :mod:`tiling.grid`.
        gsd_m: Ground metres per pixel; None keeps the raster's own pixels unless a length is in metres.
        area: Only windows that share surface with it, see :func:`tiling.area.parse_area`.
        min_valid: Windows whose share of valid pixels is surely smaller are left out, as far as an overview or the
            file's block table tells.
        indexes: Bands that count for validity; all by default.
        max_tiles: More windows are refused.

    Raises:
        UnsupportedRasterError: The samples are complex numbers.
        NotGeoreferencedError: Metres were asked of a raster without a CRS.
        AreaError: The area cannot be read or misses the raster.
        TooManyTilesError: There are more windows than ``max_tiles``.
        UsageError: One tile has more than ``MAX_WINDOW_BYTES``, or a number makes no sense.
    """
    info = raster.info
    if not 0 <= min_valid <= 1:
        raise UsageError("the share of valid pixels is from 0 to 1", measured=f"min-valid {min_valid}")
    if info.is_complex:
        raise UnsupportedRasterError("holds complex numbers", path=info.path, measured=info.dtype)
    in_metres = "m" in (tile.unit, overlap.unit)
    if in_metres and info.gsd_m is None:
        raise no_metres(info)
    canvas = plan_canvas(info, gsd_m) if in_metres or gsd_m else pixel_canvas(info)
    grid = TileGrid.lay(canvas.width_px, canvas.height_px, tile, overlap, gsd_m=canvas.gsd_m, edge=edge)
    bands = tuple(indexes) if indexes else tuple(range(1, info.count + 1))
    _refuse_huge(raster, canvas, grid, len(bands))
    place = None if area is None else to_canvas(parse_area(area, info), info, canvas.scale_x, canvas.scale_y)
    windows = list(islice(_inside(grid, place), max_tiles + 1))
    if len(windows) > max_tiles:
        raise _too_many(raster, grid, max_tiles)
    left_out = {OUTSIDE: len(grid) - len(windows)} if place is not None else {}
    told_by = ""
    if min_valid > 0:
        from tiling.validity import survey

        coverage = survey(raster, canvas, bands, grid.tile_px)
        if coverage is not None:
            kept = [window for window in windows if coverage.at_most(window) >= min_valid]
            left_out[BLANK] = len(windows) - len(kept)
            windows, told_by = kept, coverage.told_by
    return Layout(canvas, grid, tuple(windows), place, left_out, told_by)


def _too_many(raster: Raster, grid: TileGrid, max_tiles: int) -> TooManyTilesError:
    return TooManyTilesError(
        "would be cut into too many tiles",
        path=raster.path,
        measured=f"more than {max_tiles:,} of {grid.tile_px} px",
        remedy="name an area, use a larger tile, or raise --max-tiles",
    )


def _refuse_huge(raster: Raster, canvas: Canvas, grid: TileGrid, bands: int) -> None:
    """Refuse windows that cannot be held; the first of a grid is as large as any."""
    window = grid.window(0, 0)
    size = window.width_px * window.height_px * bands * cell_dtype(raster, lay_cells(raster, canvas)).itemsize
    if size > MAX_WINDOW_BYTES:
        raise UsageError(
            "a tile is too large to be held in memory",
            path=raster.path,
            measured=f"{window.width_px} × {window.height_px} px of {bands} bands are {size / 2**30:,.1f} GB, "
            f"at most {MAX_WINDOW_BYTES / 2**30:g}",
            remedy="use a smaller tile or fewer bands",
        )


def _inside(grid: TileGrid, area: BaseGeometry | None) -> Iterator[Window]:
    """Yield the windows that share surface with the area, neighbourhood by neighbourhood."""
    import shapely

    if area is None:
        for rows, cols in grid.blocks(_NEIGHBOURHOOD_PX):
            yield from (grid.window(row, col) for row in rows for col in cols)
        return
    shapely.prepare(area)
    for block, cols in grid.blocks(_NEIGHBOURHOOD_PX, area.bounds):
        step = max(1, _WINDOWS_AT_ONCE // len(cols))
        for rows in (block[start : start + step] for start in range(0, len(block), step)):
            edges = grid.edges(rows, cols)
            if not shapely.intersects(area, shapely.box(*edges[:, :2].min(axis=0), *edges[:, 2:].max(axis=0))):
                continue
            boxes = shapely.box(*edges.T)
            hits = shapely.intersects(area, boxes) & ~shapely.touches(area, boxes)
            for index in np.flatnonzero(hits):
                row, col = divmod(int(index), len(cols))
                yield grid.window(rows[row], cols[col])


def tiles(
    raster: Raster,
    tile: str | Length = "512px",
    overlap: str | Length = NO_OVERLAP,
    *,
    edge: Edge = "shift",
    gsd_m: float | None = None,
    bands: Sequence[int] | None = None,
    stretch: str | Stretch | None = None,
    area: str | None = None,
    min_valid: float = 0.0,
    jobs: int = 2,
    cancel: CancelToken | None = None,
) -> Tiles:
    """Return the tiles of a raster, read lazily; the method :meth:`tiling.raster.Raster.tiles` is this.

    Args:
        raster: The open raster, which stays open while tiles are read.
        tile: Side of a tile, such as ``512px`` or ``100m``.
        overlap: Such as ``64px``, ``20%`` or ``10m``.
        edge: ``shift``, ``pad``, ``partial`` or ``drop``, see :mod:`tiling.grid`.
        gsd_m: Ground metres per pixel; None keeps the raster's own pixels.
        bands: One-based; all by default.
        stretch: None keeps the samples; else a stretch or its text (see
            :func:`tiling.radiometry.plan_stretch`), one for the whole raster.
        area: Only tiles that share surface with it.
        min_valid: Tiles with a smaller share of valid pixels are left out. ``len()`` counts those that only
            reading can tell.
        jobs: Reading threads.
        cancel: Looked at before each window.

    Raises:
        GeoAlignError: The raster cannot be cut like that; the message says why.
    """
    from tiling.radiometry import all_bands, plan_stretch

    choice = all_bands(raster.info, bands, transparency=stretch is None)
    layout = lay_out(
        raster, _length(tile), _length(overlap), edge=edge, gsd_m=gsd_m, area=area, min_valid=min_valid,
        indexes=choice.indexes,
    )  # fmt: skip
    # Row by row, the order in which outputs are blended with memory for a strip.
    windows = sorted(layout.windows, key=lambda window: (window.row, window.col))
    layout = replace(layout, windows=tuple(windows))
    planned = plan_stretch(raster, choice, stretch) if isinstance(stretch, str) else stretch
    whole = Tiles(raster, layout, Pixels(choice.indexes, planned), jobs, cancel)
    return whole if min_valid == 0 else _Valid(raster, layout, whole.pixels, jobs, cancel, min_valid)


@dataclass(frozen=True, slots=True)
class _Valid(Tiles):
    """Tiles of which those with too few valid pixels are passed over."""

    min_valid: float = 0.0

    def __iter__(self) -> Iterator[Tile]:
        return (tile for tile in self.read(self.layout.windows) if tile.valid.mean() >= self.min_valid)


def _length(value: str | Length) -> Length:
    return Length.parse(value) if isinstance(value, str) else value
