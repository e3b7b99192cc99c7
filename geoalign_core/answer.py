"""The main job: a raster and a question go in, a heatmap and regions come out."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from shapely import affinity

from geoalign_core.errors import TooManyWindowsError
from geoalign_core.grounding.heatmap import HeatLattice, join_levels
from geoalign_core.grounding.regions import AUTO_OUTLINE, AUTO_SEED, Region, find_regions
from geoalign_core.grounding.relevance import log_odds
from geoalign_core.grounding.text import encode_queries
from geoalign_core.landcover import classify
from geoalign_core.models.calibration import calibrated, is_share
from geoalign_core.models.encoder import require_text
from geoalign_core.models.registry import load_encoder
from tiling.errors import UnsupportedRasterError, UsageError
from tiling.progress import silent
from tiling.raster import open_raster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import shapely
    from numpy.typing import NDArray

    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.indexing.search import ScoreMap
    from geoalign_core.indexing.spec import IndexSpec
    from geoalign_core.indexing.store import Index
    from geoalign_core.landcover import ClassMap
    from geoalign_core.models.calibration import Calibration
    from geoalign_core.models.encoder import Encoder
    from geoalign_core.settings import Settings
    from tiling.progress import CancelToken, Progress
    from tiling.raster import Raster


_WAIT_FOR_ANOTHER_S = 3600.0
"""How long to wait for another process that builds the same index, to use what it built."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which regions of a heatmap are answers.

    Raises:
        UsageError: A number is out of range.
    """

    threshold: float | None = None
    """Lowest score, 0..1; None is automatic: places that reach 0.5, outlined at 0.35."""
    min_area_m2: float = 0.0
    top: int | None = None
    precision: float | None = None
    """In place of a threshold: lowest precision, 0..1, by the model's calibration."""
    prior: float | None = None
    """Share of the image that is what was asked for, as far as it is known; None is that of the calibration."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError("the threshold is not between 0 and 1", measured=f"{self.threshold}")
        if not 0 <= self.min_area_m2 < math.inf:
            raise UsageError("the smallest area is not a number of m²", measured=f"{self.min_area_m2}")
        if self.top is not None and self.top < 1:
            raise UsageError("at least one region must be allowed", measured=f"top {self.top}")
        if self.precision is not None and not 0 <= self.precision <= 1:
            raise UsageError("the precision is not between 0 and 1", measured=f"{self.precision}")
        if self.precision is not None and self.threshold is not None:
            raise UsageError("a threshold and a precision exclude each other", remedy="leave one of them out")
        if not is_share(self.prior):
            raise UsageError("the prior is not a share between 0 and 1", measured=f"{self.prior}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question found."""

    query: str
    heatmap: Heatmap
    regions: tuple[Region, ...]
    """Best first."""
    threshold: float
    """Lowest score of a region's pixels."""
    seed: float
    """Lowest best score of a region."""

    gsd_m: float | None
    """Ground resolution that the model looked at; None in pixel mode."""
    best_score: float | None
    """Highest score of the heatmap; None when nothing of the image was valid."""
    calibration: Calibration | None = None
    """What the scores' precision is known by; None for examples, and for models that were not calibrated."""

    @property
    def bar(self) -> float:
        """The score to tell people: what the regions lie above, or what nothing reached."""
        return self.threshold if self.regions else max(self.threshold, self.seed)


@dataclass(slots=True)
class Prepared:
    """An open raster with its model and its index, ready for questions."""

    raster: Raster
    encoder: Encoder
    index: Index
    area: shapely.Geometry | None
    settings: Settings
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""

    @property
    def gsd_m(self) -> float | None:
        """Ground resolution of the finest level; None in pixel mode."""
        return self.index.spec.levels[0].canvas.gsd_m

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's duration to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)


def count_windows(spec: IndexSpec, area: shapely.Geometry | None) -> list[int]:
    """Return how many windows of each level an index of the area holds."""
    from geoalign_core.indexing.areas import shards_in_area

    if area is None:
        return [len(level.grid) for level in spec.levels]
    counts = [0] * len(spec.levels)
    for shard in shards_in_area(spec, area):
        counts[shard.level] += len(spec.levels[shard.level].shard_windows(shard.row, shard.col))
    return counts


def refuse_endless(spec: IndexSpec, area: shapely.Geometry | None, path: str | Path, limit: int) -> None:
    """Raise when an index of the area would hold more windows than ``limit``.

    Raises:
        TooManyWindowsError: It would.
    """
    windows = sum(count_windows(spec, area))
    if windows > limit:
        raise TooManyWindowsError(
            "is too large to look at in one go", path=path, measured=f"{windows} windows, limit {limit}",
            remedy="choose an --area, a coarser --gsd, or raise --max-windows",
        )  # fmt: skip


def refuse_empty(index: Index, path: str | Path) -> None:
    """Raise when nothing of what was indexed is valid.

    Raises:
        UnsupportedRasterError: Every pixel is nodata or transparent.
    """
    if index.rows == 0:
        raise UnsupportedRasterError(
            "has no valid pixel", path=path, measured="everything is nodata or transparent",
            remedy="check its nodata value and mask, or choose another --area",
        )  # fmt: skip


@contextlib.contextmanager
def prepare(
    path: str | Path,
    settings: Settings,
    *,
    area: str | shapely.Geometry | None = None,
    encoder: Encoder | None = None,
    words: bool = False,
    verify: bool = False,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> Iterator[Prepared]:
    """Open a raster, load the model and build or reuse the index.

    Args:
        path: The raster.
        settings: How to look at it.
        area: Only this part: a geometry in the raster's CRS, ``"xmin,ymin,xmax,ymax"`` or a vector file.
        encoder: A model already loaded, instead of the one that ``settings`` names.
        words: Whether questions in words will follow: a model without a text tower is refused before it indexes.
        verify: Hash every file of the index instead of trusting sizes.
        progress: Called as windows are embedded.
        cancel: Stops between batches; what is finished stays in the index.

    Raises:
        GeoAlignError: The raster, the model or the area cannot be used.
    """
    from geoalign_core.indexing import build_index, plan_index
    from tiling.area import parse_area

    clock = time.perf_counter()
    with open_raster(path, policy=settings.policy) as raster:
        region = parse_area(area, raster.info) if isinstance(area, str | Path) else area
        if region is not None and raster.info.crs is None:
            # Without a CRS an area is in columns and rows; everything below works in the transform's coordinates.
            region = affinity.affine_transform(region, raster.info.transform.to_shapely())
        opened = time.perf_counter()
        encoder = encoder or load_encoder(settings.model, device=settings.device, options=settings.encoder)
        if words:
            require_text(encoder)
        loaded = time.perf_counter()
        spec = plan_index(raster, encoder, gsd_m=settings.gsd_m, bands=settings.bands, stretch=settings.stretch)
        refuse_endless(spec, region, path, settings.max_windows)
        index = build_index(
            raster,
            encoder,
            spec,
            area=region,
            jobs=settings.jobs,
            verify=verify,
            progress=progress,
            cancel=cancel,
            lock_timeout_s=_WAIT_FOR_ANOTHER_S,
        )
        refuse_empty(index, path)
        seconds = {"open": opened - clock, "model": loaded - opened, "index": time.perf_counter() - loaded}
        rounded = {stage: round(value, 3) for stage, value in seconds.items()}
        yield Prepared(raster, encoder, index, region, settings, rounded)


def heat_lattice(prepared: Prepared, cells: ScoreMap) -> HeatLattice:
    """Return the pixels of the heatmap that belongs to a score map of the finest level."""
    level = prepared.index.spec.levels[0]
    return HeatLattice.of(cells, level.canvas, prepared.encoder.config.patch_px)


def _answer(
    query: str, heatmap: Heatmap, gsd_m: float | None, choice: Filter, calibration: Calibration | None = None
) -> Answer:
    finite = heatmap.values[np.isfinite(heatmap.values)]
    threshold = AUTO_OUTLINE if choice.threshold is None else choice.threshold
    seed = AUTO_SEED if choice.threshold is None else 0.0
    regions = find_regions(
        heatmap, threshold, seed=seed, min_area_m2=choice.min_area_m2, top=choice.top,
        precision=None if calibration is None else calibration.precision,
    )  # fmt: skip
    best = float(finite.max()) if finite.size else None
    return Answer(query, heatmap, tuple(regions), threshold, seed, gsd_m, best, calibration)


def ask_texts(
    prepared: Prepared,
    queries: Sequence[str],
    *,
    avoid: Sequence[str] = (),
    choice: Filter | None = None,
    classes: bool = False,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> tuple[list[Answer], ClassMap | None, tuple[str, ...]]:
    """Answer questions on a prepared raster.

    Args:
        prepared: From :func:`prepare`.
        queries: One question each.
        avoid: Words that the answers should not be.
        choice: Which regions count.
        classes: Also make a land-cover map of the questions.
        progress: Called while scanning.
        cancel: Stops between chunks.

    Returns:
        The answers in the order of the questions, the land-cover map, and notes for the user.
    """
    from geoalign_core.indexing.search import LinearQuery, score_maps

    choice, calibration = calibrated(prepared.encoder, prepared.settings.model, choice or Filter())
    with prepared.timed("text"):
        texts = encode_queries(prepared.encoder, queries, avoid=avoid)
    with prepared.timed("scan"):
        query = LinearQuery.from_text(texts.vectors, prepared.encoder.readout)
        maps = score_maps(prepared.index, query, area=prepared.area, progress=progress, cancel=cancel)
        cosines = join_levels(maps)
    with prepared.timed("regions"):
        lattice = heat_lattice(prepared, maps[0])
        scale = prepared.encoder.config.prompts.logit_scale
        odds = log_odds(cosines, texts.competes, scale)
        answers = [
            _answer(name, lattice.heatmap(odds[number], area=prepared.area), prepared.gsd_m, choice, calibration)
            for number, name in enumerate(texts.queries)
        ]
        logits = cosines[: len(queries)] * scale
        class_map = classify(lattice, logits, texts.queries, prepared.area) if classes else None
    return answers, class_map, (*resolution_notes(prepared), *texts.notes)


def resolution_notes(prepared: Prepared) -> tuple[str, ...]:
    """Tell when the raster cannot be seen at the resolution asked for, or not at one that the model knows."""
    finest, known = prepared.index.spec.levels[0].canvas, prepared.encoder.config.gsd
    if finest.gsd_m is None:
        return ()
    notes = []
    if finest.is_clamped:
        notes.append(f"the raster is too coarse for {finest.requested_gsd_m:g} m: looked at {finest.gsd_m:.3g} m")
    if not known.min_m * 0.99 <= finest.gsd_m <= known.max_m * 1.01:
        notes.append(
            f"{finest.gsd_m:.3g} m per pixel is outside what {prepared.encoder.config.name} was made for "
            f"({known.min_m:g}–{known.max_m:g} m): expect little of the answers"
        )
    return tuple(notes)


def ask_examples(
    prepared: Prepared,
    include: Sequence[shapely.Geometry],
    exclude: Sequence[shapely.Geometry] = (),
    *,
    images: Sequence[NDArray[np.float32]] = (),
    text: str | None = None,
    choice: Filter | None = None,
    progress: Progress = silent,
    cancel: CancelToken | None = None,
) -> tuple[Answer, tuple[str, ...]]:
    """Search by example, and by text and example together when ``text`` is given (the mean of their log-odds).

    Args:
        prepared: From :func:`prepare`.
        include: Places that show what is looked for, in the raster's CRS.
        exclude: Places that must not be found.
        images: Examples from elsewhere (:func:`~geoalign_core.grounding.examples.example_image`).
        text: A question that the finds should answer too.
        choice: Which regions count.
        progress: Called while scanning.
        cancel: Stops between chunks.

    Returns:
        The answer and notes for the user.

    Raises:
        UsageError: A precision or a prior was given, which only questions in words have.
    """
    from geoalign_core.grounding.examples import fit_examples
    from geoalign_core.indexing.search import LinearQuery, score_maps

    if choice is not None and (choice.precision is not None or choice.prior is not None):
        raise UsageError("nothing is known of the precision of examples", remedy="give a threshold instead")
    with prepared.timed("examples"):
        model = fit_examples(prepared.index, include, exclude, images=images)
    with prepared.timed("scan"):
        maps = score_maps(prepared.index, model.query, area=prepared.area, progress=progress, cancel=cancel)
        odds = model.log_odds(prepared.index, maps[0], join_levels(maps)[0])
        notes = resolution_notes(prepared)
        if text is not None:
            texts = encode_queries(prepared.encoder, [text])
            query = LinearQuery.from_text(texts.vectors, prepared.encoder.readout)
            cosines = join_levels(score_maps(prepared.index, query, area=prepared.area, cancel=cancel))
            odds = (odds + log_odds(cosines, texts.competes, prepared.encoder.config.prompts.logit_scale)[0]) / 2
            notes += texts.notes
    number = len(include) + len(images)
    count = f"{number} example{'s' if number > 1 else ''}"
    name = f"like {count}" + (f" without {len(exclude)}" if exclude else "") + (f", {text}" if text else "")
    with prepared.timed("regions"):
        lattice = heat_lattice(prepared, maps[0])
        heat = lattice.heatmap(odds, area=prepared.area)
        return _answer(name, heat, prepared.gsd_m, choice or Filter()), notes
