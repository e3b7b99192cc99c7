"""A job: several rasters, one specification, perhaps labels and a split, planned before the first tile is cut."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tiling.chips.encode import COMPANIONS, PICTURES, Encoding, plan_encoding
from tiling.chips.manifest import SCHEMA, Source
from tiling.errors import GeoAlignError, UsageError
from tiling.fingerprint import fingerprint, fingerprint_all
from tiling.plan import MAX_TILES, Pixels, Tiles, TooManyTilesError, lay_out
from tiling.radiometry import all_bands, band_numbers, choose_bands, plan_shared_stretch, plan_stretch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiling.chips.labels import LabelIndex, Labels
    from tiling.chips.spec import ChipSpec, LabelSpec, SplitSpec
    from tiling.grid import Window
    from tiling.info import RasterInfo
    from tiling.radiometry import BandChoice, Stretch
    from tiling.raster import Raster

_LONGEST = 150
"""Characters of a raster's name in its tiles' names, which file systems limit to 255 bytes."""
BETWEEN, UNLABELLED = "between the parts of the split", "without a label"


@dataclass(frozen=True, slots=True)
class Work:
    """One raster's part of a job."""

    source: Source
    tiles: Tiles
    encoding: Encoding
    parts: tuple[str | None, ...]
    """For each window its part of the split; all None without a split."""
    labels: LabelIndex | None = None
    dropped: dict[str, tuple[Window, ...]] = field(default_factory=dict)
    """Reason, and the windows that labels or the split left out."""

    @property
    def raster(self) -> Raster:
        """The raster that is cut."""
        return self.tiles.raster


@dataclass(frozen=True, slots=True)
class Job:
    """Everything decided before the first tile is cut."""

    spec: ChipSpec
    works: tuple[Work, ...]
    label_spec: LabelSpec | None = None
    labels: Labels | None = None
    split: SplitSpec | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason, and how many windows were left out for it before any reading."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    failures: tuple[dict[str, str], ...] = ()
    """Rasters that cannot be cut: ``path`` and ``error``."""

    def __len__(self) -> int:
        return sum(len(work.tiles) for work in self.works)

    def path(self, work: Work, window: Window, part: str | None) -> str:
        """Return a tile's file name, relative to the output folder."""
        grid = work.tiles.grid
        digits = max(4, len(str(max(grid.rows, grid.cols) - 1)))
        name = f"{work.source.name}_r{window.row:0{digits}d}_c{window.col:0{digits}d}.{self.spec.suffix}"
        # The layout that YOLO's trainers look for: images/PART beside labels/PART.
        top = "images/" if self.label_spec is not None and self.label_spec.format.startswith("yolo") else ""
        return f"{top}{part}/{name}" if part else f"{top}{name}"

    def windows(self) -> Iterator[tuple[Work, Window, str | None]]:
        """Yield every window with its raster and its part of the split."""
        for work in self.works:
            for window, part in zip(work.tiles.layout.windows, work.parts, strict=True):
                yield work, window, part

    def paths(self) -> Iterator[str]:
        """Yield the name of every tile."""
        return (self.path(*place) for place in self.windows())

    def files(self) -> Iterator[str]:
        """Yield the name of every tile, and of the small files that lie beside pictures."""
        suffixes = COMPANIONS.get(self.spec.format, ())
        for path in self.paths():
            yield path
            yield from (str(PurePosixPath(path).with_suffix(suffix)) for suffix in suffixes)

    def inputs(self) -> set[Path]:
        """Return the files that the job reads, as they really lie."""
        paths = {path for work in self.works for path in work.raster.paths}
        paths |= {self.label_spec.path} if self.label_spec is not None else set()
        paths |= {Path(text) for text in (self.spec.area, self.spec.stretch) if text is not None}
        return {path.resolve() for path in paths}

    def facts(self) -> dict[str, Any]:
        """Return the values by which a stopped job is recognised, as JSON gives them back."""
        labels = None
        if self.label_spec is not None:
            labels = {**asdict(self.label_spec), "path": str(self.label_spec.path.absolute())}
            labels["fingerprint"] = fingerprint(self.label_spec.path).to_dict()
        facts = {
            "schema": SCHEMA,
            "spec": asdict(self.spec),
            "labels": labels,
            "split": None if self.split is None else asdict(self.split),
            "sources": [work.source.to_dict() for work in self.works],
        }
        return dict(plain(facts))


def plain(data: Any) -> Any:  # noqa: ANN401
    """Return values as they come back from JSON."""
    return json.loads(json.dumps(data))


def plan_job(
    rasters: Sequence[Raster],
    spec: ChipSpec,
    *,
    labels: LabelSpec | None = None,
    split: SplitSpec | None = None,
    jobs: int = 2,
    max_tiles: int = MAX_TILES,
    needs_crs: bool = False,
) -> Job:
    """Plan the tiles of several rasters.

    Args:
        rasters: Open rasters.
        spec: How tiles are cut and written.
        labels: What is cut along with them.
        split: How they are divided.
        jobs: Reading threads.
        max_tiles: More windows in all are refused.
        needs_crs: Whether a raster without a CRS is one that cannot be cut.

    Raises:
        GeoAlignError: No raster can be cut like that; the message says why. One of several that cannot is noted in
            :attr:`Job.failures`.
    """
    loaded = None
    if labels is not None:
        from tiling.chips.labels import Labels

        loaded = Labels.load(labels)
    planner = _Planner(spec, labels, loaded, jobs, needs_crs)
    planner.share_stretch(rasters)
    for raster, name in zip(rasters, unique_names([Path(raster.path) for raster in rasters]), strict=True):
        planner.add(raster, name, max_tiles)
    works, left_out = planner.works, planner.left_out
    if not works:
        raise planner.errors[0]
    notes = list(_label_notes(spec, labels, loaded, works, is_split=split is not None))
    if split is not None:
        works, left_out[BETWEEN], told = _divide(works, split)
        notes += told
    return Job(spec, tuple(works), labels, loaded, split, +left_out, tuple(notes), tuple(planner.failures))


class _Planner:
    """Plans raster by raster; one that cannot be cut does not stop the others."""

    def __init__(
        self, spec: ChipSpec, label_spec: LabelSpec | None, labels: Labels | None, jobs: int, needs_crs: bool
    ) -> None:
        self.works: list[Work] = []
        self.left_out: Counter[str] = Counter()
        self.errors: list[GeoAlignError] = []
        self.failures: list[dict[str, str]] = []
        self._spec, self._label_spec, self._labels = spec, label_spec, labels
        self._jobs, self._needs_crs = jobs, needs_crs
        self._shared: Stretch | None = None

    def share_stretch(self, rasters: Sequence[Raster]) -> None:
        """Compute the stretch of a collection from the rasters that have one."""
        if self._spec.stretch_over != "collection":
            return
        chosen = []
        for raster in rasters:
            # What is wrong with a raster is told when it is planned.
            with contextlib.suppress(GeoAlignError):
                bands, _, how = _choose(raster.info, self._spec)
                if how is not None:
                    chosen.append((raster, bands, how))
        if chosen:
            self._shared = plan_shared_stretch([(raster, bands) for raster, bands, _ in chosen], chosen[0][2])

    def add(self, raster: Raster, name: str, max_tiles: int) -> None:
        """Plan one raster, or note why it cannot be cut."""
        try:
            self.works.append(self._plan(raster, name, max_tiles - sum(len(work.tiles) for work in self.works)))
        except TooManyTilesError:
            raise
        except GeoAlignError as error:
            self.errors.append(error)
            self.failures.append({"path": str(raster.path), "error": str(error)})
        finally:
            raster.rest()

    def _plan(self, raster: Raster, name: str, max_tiles: int) -> Work:
        spec = self._spec
        bands, is_picture, how = _choose(raster.info, spec)
        stretch = None if how is None else self._shared or plan_stretch(raster, bands, how)
        pixels = Pixels(bands.indexes, stretch, bands if is_picture else None)
        encoding = plan_encoding(raster, pixels, spec.format, spec.dtype)
        layout = lay_out(
            raster, spec.tile, spec.overlap, edge=spec.edge, gsd_m=spec.gsd_m, area=spec.area,
            min_valid=spec.min_valid, indexes=pixels.indexes, max_tiles=max_tiles,
        )  # fmt: skip
        index = None if self._labels is None else self._labels.onto(raster.info, layout.canvas)
        dropped: dict[str, tuple[Window, ...]] = {}
        if index is not None and self._label_spec is not None and self._label_spec.only_labelled:
            is_labelled = [bool(index.cut(window)) for window in layout.windows]
            dropped[UNLABELLED] = tuple(compress(layout.windows, map(not_, is_labelled)))
            layout = replace(layout, windows=tuple(compress(layout.windows, is_labelled)))
        tiles = Tiles(raster, layout, pixels, self._jobs)
        source = _source(raster, name, tiles, encoding)
        if self._needs_crs:
            from tiling.chips.stac import check_stac

            check_stac([source])
        self.left_out.update({**layout.left_out, **{reason: len(windows) for reason, windows in dropped.items()}})
        return Work(source, tiles, encoding, (None,) * len(tiles), index, dropped)


def _label_notes(
    spec: ChipSpec, label_spec: LabelSpec | None, labels: Labels | None, works: Sequence[Work], *, is_split: bool
) -> Iterator[str]:
    if label_spec is None or labels is None:
        return
    yield from labels.notes
    if not any(work.labels is not None and len(work.labels) for work in works):
        yield f"none of the {len(labels):,} labels touches a raster: check their coordinates and their CRS"
    if label_spec.format.startswith("yolo"):
        if spec.format not in PICTURES:
            yield f"most trainers of YOLO read png or jpg, not {spec.format}: consider --format png"
        if not is_split:
            yield "without --split, data.yaml names the same tiles for training and validation"


def _choose(info: RasterInfo, spec: ChipSpec) -> tuple[BandChoice, bool, str | None]:
    """Return a raster's bands, whether its tiles are pictures, and the text of its stretch."""
    resampled_palette = info.has_palette and bool(spec.gsd_m or "m" in (spec.tile.unit, spec.overlap.unit))
    if spec.format in PICTURES or resampled_palette:
        bands = choose_bands(info, spec.bands)
        as_is = spec.stretch == "none" and not bands.palette
        return bands, not as_is, None if as_is else spec.stretch or "auto"
    numbers = None if spec.bands is None else band_numbers(info, spec.bands)
    stretch = None if spec.stretch == "none" else spec.stretch
    return all_bands(info, numbers, transparency=stretch is None), False, stretch


def _source(raster: Raster, name: str, tiles: Tiles, encoding: Encoding) -> Source:
    canvas, stretch = tiles.canvas, tiles.pixels.stretch
    return Source(
        name=name,
        path=str(raster.path),
        fingerprint=fingerprint_all(raster.paths).to_dict(),
        width_px=canvas.width_px,
        height_px=canvas.height_px,
        transform=canvas.transform,
        crs_wkt=None if canvas.crs is None else canvas.crs.to_wkt(),
        gsd_m=canvas.gsd_m,
        overview=canvas.overview,
        grid=tiles.grid,
        bands=tiles.pixels.indexes,
        dtype=encoding.dtype,
        nodata=encoding.nodata,
        stretch=None if stretch is None else stretch.to_dict(),
        others=tuple(map(str, raster.paths[1:])),
    )


def _divide(works: list[Work], split: SplitSpec) -> tuple[list[Work], int, list[str]]:
    """Give every tile its part; tiles that would share ground with another part are left out."""
    from tiling.chips.split import assign_parts

    assignment = assign_parts([work.source for work in works], [work.tiles.layout.windows for work in works], split)
    divided, between = [], 0
    for work, parts in zip(works, assignment.parts, strict=True):
        whole = work.tiles.layout
        is_kept = [part is not None for part in parts]
        dropped = {**work.dropped, BETWEEN: tuple(compress(whole.windows, map(not_, is_kept)))}
        between += len(dropped[BETWEEN])
        tiles = replace(work.tiles, layout=replace(whole, windows=tuple(compress(whole.windows, is_kept))))
        divided.append(replace(work, tiles=tiles, parts=tuple(compress(parts, is_kept)), dropped=dropped))
    return divided, between, list(assignment.notes)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return the beginnings of the tiles' names: stems, with folders before them where stems are alike.

    Raises:
        UsageError: A raster is named twice.
    """
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise UsageError("is named twice", path=twice, remedy="name each raster once")
    for depth in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = [_plain("_".join((*path.parts[-depth:-1], path.stem))) for path in paths]
        if len({name.lower() for name in names}) == len(names):
            return names
    return [f"{_plain(path.stem)}_{number}" for number, path in enumerate(paths)]


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")[:_LONGEST] or "tile"
