"""Tiles on disk, or what a model made of them, joined back into one raster per source."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from tiling.blend import enlarged, write_blended
from tiling.chips.manifest import ManifestError, manifest_files, read_manifest
from tiling.errors import GeoAlignError, OutputExistsError, UsageError
from tiling.files import refuse_existing
from tiling.progress import silent
from tiling.raster import open_raster
from tiling.source import SourceRect, read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from tiling.blend import How
    from tiling.chips.manifest import Chip, Manifest, Source
    from tiling.grid import TileGrid, Window
    from tiling.progress import CancelToken, Progress
    from tiling.raster import Raster

    Tile = tuple[Window, Path]

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".npy")
_LARGE_BYTES = 2**30
_LEAST_COVER = 10_000
"""A raster larger than that is written only if its tiles cover one part in so many of it."""


class TileError(GeoAlignError):
    """A tile is missing, damaged, or does not fit its manifest or the other tiles."""


def stitch(
    folder: str | Path,
    out: str | Path,
    *,
    manifest: str | Path | None = None,
    how: How = "hann",
    overwrite: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> list[Path]:
    """Join tiles into one Cloud Optimized GeoTIFF per source raster of their manifest.

    A tile's file is found by the path in the manifest, with any of ``SUFFIXES``, or by its bare name in ``folder``.
    Its size is the tile's, or the same fraction 1/k of it for all tiles; the raster then has pixels k times as large
    where k divides the grid, else the outputs are enlarged to the tiles' own pixels.
    Integers stay integers of their type; floating point becomes float32. Nodata, alpha, masks and colours are those
    of the files. A ``.npy`` array is (h, w), (C, h, w) or (h, w, C); one that could be both of the latter is refused.
    It has nodata only as a tile that was cut, that is, when it is like its raster and lies beside the manifest.

    Args:
        folder: Where the tiles lie.
        out: A file ``*.tif`` if the manifest tells of one raster, else a folder, where each file is named after its
            raster.
        manifest: The manifest's table or its folder; by default that of ``folder``.
        how: As in ``write_blended``. Tiles of palette colours are always joined by ``nearest``.
        overwrite: Whether files that are already there may be replaced.
        note: Told in a line what a user should know, such as how many tiles are missing.
        progress: Told tiles done, raster by raster.
        cancel: Looked at before each tile.

    Returns:
        The files written. A raster of which no tile is there is left out with a note.

    Raises:
        ManifestError: There is no manifest, or it cannot be read or names files outside of the folder.
        TileError: No tile is there, or one is ambiguous, damaged, or of another size or type than the others.
        OutputExistsError: An output exists and ``overwrite`` is false, or it would take the place of an input.
        OutputWriteError: The disk is full or refuses.
        CancelledError: The token was set; rasters already finished stay.
    """
    folder = Path(folder)
    plan = read_manifest(folder if manifest is None else manifest)
    tiles = _find_tiles(folder, plan)
    if not any(tiles):
        raise TileError(
            "holds no tile of the manifest",
            path=folder,
            measured=f"{len(plan.chips)} wanted",
            remedy=f"name the outputs like the tiles, with one of the suffixes {', '.join(SUFFIXES)}",
        )
    targets = _targets(Path(out), plan, tiles)
    inputs = [
        *manifest_files(folder if manifest is None else manifest),
        *(path for found in tiles for _, path in found),
    ]
    for target in targets.values():
        _refuse_input(target, inputs, plan, folder)
        refuse_existing(target, overwrite=overwrite)
    wanted = Counter(chip.source for chip in plan.chips)
    for number, source in enumerate(plan.sources):
        if len(tiles[number]) < wanted[number]:
            rest = "they stay empty" if tiles[number] else "it is left out"
            note(f"{source.name}: {wanted[number] - len(tiles[number])} of {wanted[number]} tiles are missing; {rest}")
    total, done = sum(map(len, tiles)), count(1)

    def tick() -> None:
        progress(next(done), total, "joining tiles")

    for number, target in targets.items():
        source = plan.sources[number]
        if manifest is not None:
            # The manifest lies elsewhere: these are not the tiles that were cut, so their nodata means nothing here.
            source = replace(source, nodata=None)
        _write(target, source, tiles[number], how, overwrite=overwrite, tick=tick, cancel=cancel)
    return list(targets.values())


def _find_tiles(folder: Path, plan: Manifest) -> list[list[Tile]]:
    """Return the files that are there, source by source, in the grid's row order."""
    shelves = _Shelves(folder)
    tiles: list[list[Tile]] = [[] for _ in plan.sources]
    for chip in plan.chips:
        path = shelves.find(chip)
        if path is not None:
            tiles[chip.source].append((chip.window, path))
    return [sorted(found, key=lambda tile: (tile[0].row, tile[0].col)) for found in tiles]


class _Shelves:
    """The files of a folder by folder and stem, each listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = root.resolve()
        self._stems: dict[Path, dict[str, list[Path]]] = {}

    def find(self, chip: Chip) -> Path | None:
        """Return a tile's file, or None when it is missing.

        Raises:
            TileError: A file is a link out of the folder, or there are several.
        """
        place = PurePosixPath(chip.path)
        for shelf in dict.fromkeys((self._root / place.parent, self._root)):
            found = self._listed(shelf).get(place.stem, [])
            if len(found) > 1:
                names = ", ".join(sorted(path.name for path in found))
                raise TileError("has several files for one tile", path=shelf, measured=names, remedy="keep one of them")
            if found:
                return self._inside(found[0])
        return None

    def _listed(self, shelf: Path) -> dict[str, list[Path]]:
        if shelf not in self._stems:
            stems: dict[str, list[Path]] = {}
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for path in shelf.iterdir():
                    if path.suffix.lower() in SUFFIXES:
                        stems.setdefault(path.stem, []).append(path)
            self._stems[shelf] = stems
        return self._stems[shelf]

    def _inside(self, path: Path) -> Path:
        if not path.resolve().is_relative_to(self._real):
            raise TileError("is a link out of its folder", path=path, remedy="copy the file into the folder")
        return path


def _targets(out: Path, plan: Manifest, tiles: Sequence[Sequence[Tile]]) -> dict[int, Path]:
    """Return the file to write for each source that has tiles."""
    there = [number for number, found in enumerate(tiles) if found]
    if out.suffix.lower() in {".tif", ".tiff"} and not out.is_dir():
        if len(there) > 1:
            raise UsageError(
                "one file cannot hold several rasters", path=out, measured=str(len(there)), remedy="give a folder"
            )
        return {there[0]: out}
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise UsageError("a stitched raster is a GeoTIFF", path=out, remedy="let it end in .tif, or name a folder")
    targets = {number: out / f"{plan.sources[number].name}.tif" for number in there}
    for number, target in targets.items():
        name = plan.sources[number].name
        if {"/", "\\", "\0", ":"} & set(name) or target.name == ".tif":
            raise ManifestError("names a raster by what is no file name", path=plan.folder, measured=repr(name))
    return targets


def _refuse_input(target: Path, inputs: Sequence[Path], plan: Manifest, folder: Path) -> None:
    """Refuse an output that is an input, or lies where a tile is looked for."""
    is_input = target.exists() and any(target.samefile(path) for path in inputs)
    home = target.parent.resolve()
    for root in {folder.resolve(), plan.folder.resolve()}:
        if is_input or not home.is_relative_to(root):
            continue
        inside = (home / target.stem).relative_to(root)
        stems = (PurePosixPath(chip.path).with_suffix("") for chip in plan.chips)
        is_input = any(inside in {Path(stem), Path(stem.name)} for stem in stems)
    if is_input:
        raise OutputExistsError("is an input of the stitching", path=target, remedy="give another name")


def _refuse_mostly_empty(target: Path, look: _Look, grid: TileGrid, windows: Sequence[Window]) -> None:
    """Refuse to fill a disk with nothing, for a canvas is as large as its manifest says."""
    canvas_px = grid.width_px * grid.height_px
    size_bytes = canvas_px * look.channels * (4 if look.dtype.kind == "f" else look.dtype.itemsize)
    covered_px = sum(window.width_px * window.height_px for window in windows)
    if size_bytes > _LARGE_BYTES and covered_px * _LEAST_COVER < canvas_px:
        raise TileError(
            "would be almost empty",
            path=target,
            measured=f"{len(windows)} tiles on {grid.width_px} × {grid.height_px} px, {size_bytes / 2**30:,.0f} GB",
            remedy="see that the tiles belong to this manifest, or cut only the area needed",
        )


def _write(
    target: Path, source: Source, tiles: Sequence[Tile], how: How, *, overwrite: bool, tick: Callable[[], None],
    cancel: CancelToken | None,
) -> None:  # fmt: skip
    """Join the tiles of one raster."""
    look = _look(*tiles[0], source)
    shrink = 1
    try:
        grid = source.grid.scaled(look.reduction)
        windows = [window.scaled(look.reduction) for window, _ in tiles]
    except ValueError:
        # Larger pixels do not fit the grid, so the outputs are enlarged to the tiles' own.
        grid, windows, shrink = source.grid, [window for window, _ in tiles], look.reduction

    _refuse_mostly_empty(target, look, grid, windows)

    def outputs() -> Iterator[tuple[Window, NDArray[Any], NDArray[np.bool_] | None]]:
        for window, (_, path) in zip(windows, tiles, strict=True):
            values, valid = look.read(path, window, shrink)
            yield window, enlarged(values, shrink), None if valid is None else enlarged(valid, shrink)
            tick()

    write_blended(
        target, outputs(), grid=grid, width_px=grid.width_px, height_px=grid.height_px,
        transform=source.transform * Affine.scale(look.reduction // shrink), crs=source.crs,
        how="nearest" if look.colormap else how, nodata=look.nodata, colorinterp=look.colorinterp,
        colormap=look.colormap, overwrite=overwrite, cancel=cancel,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Look:
    """What all tiles of a raster have in common, taken from the first."""

    reduction: int
    """How many of the tile's pixels one pixel of the files is wide."""
    channels: int
    dtype: np.dtype[Any]
    is_last: bool
    """Whether an array's channels come last."""
    nodata: float | None = None
    colorinterp: tuple[str, ...] = ()
    colormap: dict[int, tuple[int, ...]] | None = None

    def read(self, path: Path, window: Window, shrink: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the values (C, h, w) and the validity of a tile, ``shrink`` times smaller than the window.

        Raises:
            TileError: It is damaged, or differs from the first tile.
        """
        if path.suffix.lower() == ".npy":
            array = _load(path)
            array = array.transpose(2, 0, 1) if self.is_last and array.ndim == 3 else array
            self._check(path, window, shrink, (1, *array.shape)[-3:], array.dtype.newbyteorder("="))
            return np.array(array, self.dtype), None
        with open_raster(path) as raster:
            info = raster.info
            self._check(path, window, shrink, (info.count, info.height_px, info.width_px), _sample_type(raster))
            return read_source(raster, range(1, info.count + 1), SourceRect(0, 0, info.width_px, info.height_px))

    def _check(self, path: Path, window: Window, shrink: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        channels, height, width = shape
        if (height * shrink, width * shrink) != (window.height_px, window.width_px):
            raise _wrong_size(path, f"{width} × {height}", window)
        if (channels, dtype) != (self.channels, self.dtype):
            raise TileError(
                "differs from the tiles before it",
                path=path,
                measured=f"{channels} × {dtype}, not {self.channels} × {self.dtype}",
                remedy="write all tiles with the same channels and type",
            )


def _look(window: Window, path: Path, source: Source) -> _Look:
    """Find out what the tiles are like from the first."""
    if path.suffix.lower() == ".npy":
        return _look_at_array(window, path, source)
    with open_raster(path) as raster:
        info, palette, dtype = raster.info, raster.palette, _sample_type(raster)
        reduction = _reduction(window, info.height_px, info.width_px)
        if reduction is None:
            raise _wrong_size(path, f"{info.width_px} × {info.height_px}", window)
        colormap = None if palette is None else {index: tuple(map(int, rgba)) for index, rgba in enumerate(palette)}
        # Transparency and masks outrank nodata: they may call a pixel valid that holds it.
        outranked = info.has_mask or info.alpha_band is not None
        nodata = info.nodata if not outranked and _holds(dtype, info.nodata) else None
        return _Look(reduction, info.count, dtype, False, nodata, info.colorinterp, colormap)


def _look_at_array(window: Window, path: Path, source: Source) -> _Look:
    array = _load(path)
    shape, dtype = array.shape, array.dtype.newbyteorder("=")
    last = _reduction(window, *shape[:2])
    first = _reduction(window, *shape[1:]) if array.ndim == 3 else None
    if first and last:
        raise TileError(
            "could have its channels first or last", path=path, measured=str(shape), remedy="write GeoTIFFs instead"
        )
    reduction = first or last
    if reduction is None:
        raise _wrong_size(path, " × ".join(map(str, reversed(shape))), window)
    channels = 1 if array.ndim == 2 else shape[0] if first else shape[2]
    is_like_source = (dtype.name, channels) == (source.dtype, len(source.bands))
    nodata = source.nodata if is_like_source and _holds(dtype, source.nodata) else None
    return _Look(reduction, channels, dtype, is_last=bool(last), nodata=nodata)


def _load(path: Path) -> NDArray[Any]:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:80]
        raise TileError(
            "is not an array that can be read", path=path, measured=reason, remedy="write it again"
        ) from error
    if array.ndim not in {2, 3} or array.dtype.kind not in "biuf":
        shown = f"{array.shape}, {array.dtype}"
        raise TileError(
            "is not an array of samples", path=path, measured=shown, remedy="save (h, w) or (C, h, w) numbers"
        )
    return array


def _sample_type(raster: Raster) -> np.dtype[Any]:
    if raster.info.is_complex:
        raise TileError("holds complex numbers", path=raster.path, measured=raster.info.dtype)
    return np.dtype(raster.info.dtype)


def _holds(dtype: np.dtype[Any], nodata: float | None) -> bool:
    """Return whether the samples written, of the type or else float32, can hold a nodata value."""
    if nodata is None:
        return False
    if dtype.kind == "f":
        return math.isnan(nodata) or abs(nodata) <= float(np.finfo(np.float32).max)
    return float(nodata).is_integer() and np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max


def _reduction(window: Window, height_px: int, width_px: int) -> int | None:
    """Return how many times smaller a file is than its tile, if that is a whole number."""
    factor = window.height_px // max(1, height_px)
    same = factor * height_px == window.height_px and factor * width_px == window.width_px
    return factor if same else None


def _wrong_size(path: Path, found: str, window: Window) -> TileError:
    return TileError(
        "differs in size from its tile",
        path=path,
        measured=f"{found} px, the tile has {window.width_px} × {window.height_px}",
        remedy="write outputs as large as the tiles",
    )
