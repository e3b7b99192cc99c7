"""A job: several rasters, one specification, perhaps labels and a split, planned before the first tile is cut."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.chips.encode import PICTURES, Encoding, plan_encoding
from tiling.chips.manifest import SCHEMA, Source
from tiling.errors import UsageError
from tiling.fingerprint import fingerprint, fingerprint_all
from tiling.plan import MAX_TILES, Pixels, Tiles, lay_out
from tiling.radiometry import all_bands, band_numbers, choose_bands, plan_shared_stretch, plan_stretch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiling.chips.labels import LabelIndex, Labels
    from tiling.chips.spec import ChipSpec, LabelSpec, SplitSpec
    from tiling.grid import Window
    from tiling.info import RasterInfo
    from tiling.radiometry import BandChoice, Stretch
    from tiling.raster import Raster

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

    def paths(self) -> Iterator[str]:
        """Yield the name of every tile."""
        for work in self.works:
            for window, part in zip(work.tiles.layout.windows, work.parts, strict=True):
                yield self.path(work, window, part)

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
) -> Job:
    """Plan the tiles of several rasters.

    Raises:
        GeoAlignError: A raster cannot be cut like that; the message says why.
    """
    names = unique_names([Path(raster.path) for raster in rasters])
    pixels = _plan_pixels(rasters, spec)
    loaded = None
    if labels is not None:
        from tiling.chips.labels import Labels

        loaded = Labels.load(labels)
    left_out: Counter[str] = Counter()
    works: list[Work] = []
    for raster, name, made in zip(rasters, names, pixels, strict=True):
        encoding = plan_encoding(raster, made, spec.format, spec.dtype)
        layout = lay_out(
            raster, spec.tile, spec.overlap, edge=spec.edge, gsd_m=spec.gsd_m, area=spec.area,
            min_valid=spec.min_valid, indexes=made.indexes, max_tiles=max_tiles - sum(len(w.tiles) for w in works),
        )  # fmt: skip
        left_out.update(layout.left_out)
        index = None if loaded is None else loaded.onto(raster.info, layout.canvas)
        dropped: dict[str, tuple[Window, ...]] = {}
        if index is not None and labels is not None and labels.only_labelled:
            is_labelled = [bool(index.cut(window)) for window in layout.windows]
            dropped[UNLABELLED] = tuple(compress(layout.windows, map(not_, is_labelled)))
            left_out[UNLABELLED] += len(dropped[UNLABELLED])
            layout = replace(layout, windows=tuple(compress(layout.windows, is_labelled)))
        tiles = Tiles(raster, layout, made, jobs)
        source = _source(raster, name, tiles, encoding)
        works.append(Work(source, tiles, encoding, (None,) * len(tiles), index, dropped))
        raster.rest()
    notes = [*(loaded.notes if loaded is not None else ())]
    if labels is not None and labels.format.startswith("yolo") and spec.format not in PICTURES:
        notes.append(f"most trainers of YOLO read png or jpg, not {spec.format}: consider --format png")
    if split is not None:
        works, between, told = _divide(works, split)
        left_out[BETWEEN] = between
        notes += told
    return Job(spec, tuple(works), labels, loaded, split, +left_out, tuple(notes))


def _plan_pixels(rasters: Sequence[Raster], spec: ChipSpec) -> list[Pixels]:
    choices = [(raster, *_choose(raster.info, spec)) for raster in rasters]
    stretched = [(raster, bands) for raster, bands, _, how in choices if how is not None]
    shared: Stretch | None = None
    if spec.stretch_over == "collection" and stretched:
        text = next(how for *_, how in choices if how is not None)
        shared = plan_shared_stretch(stretched, text)
    made = []
    for raster, bands, is_picture, how in choices:
        stretch = None if how is None else shared or plan_stretch(raster, bands, how)
        made.append(Pixels(bands.indexes, stretch, bands if is_picture else None))
        raster.rest()
    return made


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
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-") or "tile"
