"""The Python face: ``import geoalign_core as ga``."""

from __future__ import annotations

import functools
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack

from geoalign_core import answer as _answer
from geoalign_core.errors import ExamplesError
from geoalign_core.features import OnBad, Order, RegionFeatures, View
from geoalign_core.features import raster_region_features as _region_features
from geoalign_core.frame import Shape, answers_frame
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.registry import DEFAULT_MODEL, load_encoder
from geoalign_core.settings import MAX_WINDOWS, Settings
from tiling.progress import silent
from tiling.raster import OpenPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import shapely
    from geopandas import GeoDataFrame, GeoSeries

    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.indexing.store import Index
    from geoalign_core.models.encoder import Encoder
    from tiling.progress import CancelToken, Progress

    Places: TypeAlias = Sequence[Sequence[float] | shapely.Geometry] | GeoDataFrame | GeoSeries


class Look(TypedDict, total=False):
    """Keywords that every function takes: how to look at the raster."""

    model: str
    """A name of ``geoalign models list`` or a model folder. Default: the embedded ``geoalign-s``."""
    gsd_m: float | None
    """Ground resolution in metres per pixel. Default: the model's, or the raster's when that is coarser."""
    area: str | shapely.Geometry | None
    """A geometry in the raster's CRS, ``"xmin,ymin,xmax,ymax"`` or a vector file. Default: everything."""
    bands: str | None
    """For example ``"4,1,2"``. Default: by colour interpretation."""
    stretch: str
    """``auto``, ``none``, ``p2-98``, ``min-max``, ``"lo,hi"`` or a JSON file."""
    device: str
    """``auto``, ``cpu`` or ``cuda:N``."""
    options: EncoderOptions
    """How the model is run: precision, compile, dense mode, prompt templates."""
    jobs: int
    """Reading threads."""
    max_windows: int
    """Refuse a raster that needs more."""
    allow_vrt: bool
    """Open virtual rasters, which may read any file that they name."""
    progress: Progress
    """Called as ``progress(done, total, stage)``."""
    cancel: CancelToken | None
    """Set it from another thread to stop."""


@functools.lru_cache(maxsize=2)
def _encoder(model: str, device: str, options: EncoderOptions) -> Encoder:
    return load_encoder(model, device=device, options=options)


def _settings(look: Look) -> Settings:
    unknown = sorted(set(look) - set(Look.__annotations__))
    if unknown:
        raise TypeError(f"unknown keyword {', '.join(unknown)}; known are {', '.join(sorted(Look.__annotations__))}")
    return Settings(
        model=look.get("model", DEFAULT_MODEL),
        gsd_m=look.get("gsd_m"),
        bands=look.get("bands"),
        stretch=look.get("stretch", "auto"),
        device=look.get("device", "auto"),
        jobs=look.get("jobs", os.cpu_count() or 1),
        max_windows=look.get("max_windows", MAX_WINDOWS),
        policy=OpenPolicy(allow_vrt=look.get("allow_vrt", False)),
        encoder=look.get("options", EncoderOptions()),
    )


def _prepare(path: str | Path, look: Look, *, words: bool) -> Any:  # noqa: ANN401 - a context manager of Prepared
    settings = _settings(look)
    return _answer.prepare(
        path,
        settings,
        area=look.get("area"),
        encoder=_encoder(settings.model, settings.device, settings.encoder),
        progress=look.get("progress", silent),
        cancel=look.get("cancel"),
        words=words,
    )


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        warnings.warn(note, stacklevel=3)


def _filter(
    threshold: float | str, min_area_m2: float, top: int | None, precision: float | None = None,
    prior: float | None = None,
) -> _answer.Filter:  # fmt: skip
    return _answer.Filter(None if threshold == "auto" else float(threshold), min_area_m2, top, precision, prior)


def _listed(queries: str | Sequence[str]) -> list[str]:
    return [queries] if isinstance(queries, str) else list(queries)


def ask(
    path: str | Path,
    queries: str | Sequence[str],
    *,
    threshold: float | Literal["auto"] = "auto",
    min_precision: float | None = None,
    prior: float | None = None,
    top: int | None = None,
    min_area_m2: float = 0.0,
    avoid: Sequence[str] = (),
    shape: Shape = "box",
    **look: Unpack[Look],
) -> GeoDataFrame:
    """Find what the questions name.

    Args:
        path: A raster.
        queries: One question or several.
        threshold: Lowest score 0..1, or ``"auto"``.
        min_precision: In place of a threshold, for a calibrated model: lowest share, 0..1, of right places among
            those of a score.
        prior: Share of the image that is what was asked for, between 0 and 1, which precision depends on. Default:
            that of the calibration's images.
        top: At most so many regions per question.
        min_area_m2: Smallest true ground area in square metres.
        avoid: Words that the answers should not be.
        shape: ``"box"`` or ``"polygon"``.
        **look: See :class:`Look`.

    Returns:
        Columns geometry, query, score (0..1), rank (1 = best of its query), area_m2, gsd_m, model, in the raster's
        CRS; best first within each query. A calibrated model adds precision (0..1): the share of the outline that is
        to be expected to be what was asked for.

    Raises:
        GeoAlignError: The raster, the model or a question cannot be used; the message says what to do.
    """
    with _prepare(path, look, words=True) as prepared:
        answers, _, notes = _answer.ask_texts(
            prepared,
            _listed(queries),
            avoid=avoid,
            choice=_filter(threshold, min_area_m2, top, min_precision, prior),
            progress=look.get("progress", silent),
            cancel=look.get("cancel"),
        )
        _tell(notes)
        return answers_frame(answers, model=prepared.encoder.config.name, shape=shape)


def heatmap(path: str | Path, query: str, *, avoid: Sequence[str] = (), **look: Unpack[Look]) -> Heatmap:
    """Give the score of every place.

    Args:
        path: A raster.
        query: The question.
        avoid: Words that the answer should not be.
        **look: See :class:`Look`.

    Returns:
        ``values`` (H, W) float32 0..1 with NaN where there is no image, and its ``transform``, ``crs``, ``gsd_m``.

    Raises:
        GeoAlignError: See :func:`ask`.
    """
    with _prepare(path, look, words=True) as prepared:
        answers, _, notes = _answer.ask_texts(
            prepared, [query], avoid=avoid, progress=look.get("progress", silent), cancel=look.get("cancel")
        )
        _tell(notes)
        return answers[0].heatmap


def similar(
    path: str | Path,
    examples: Places,
    *,
    exclude: Places = (),
    text: str | None = None,
    threshold: float | Literal["auto"] = "auto",
    top: int | None = None,
    min_area_m2: float = 0.0,
    shape: Shape = "box",
    **look: Unpack[Look],
) -> GeoDataFrame:
    """Find what looks like the examples.

    Args:
        path: A raster.
        examples: Boxes (xmin, ymin, xmax, ymax), geometries or a GeoDataFrame, in the raster's CRS.
        exclude: Places that must not be found.
        text: A question that the finds should answer too.
        threshold: Lowest score 0..1, or ``"auto"``.
        top: At most so many regions.
        min_area_m2: Smallest true ground area in square metres.
        shape: ``"box"`` or ``"polygon"``.
        **look: See :class:`Look`.

    Returns:
        The same columns as :func:`ask`.

    Raises:
        GeoAlignError: See :func:`ask`; also for an example that lies outside the image.
    """
    with _prepare(path, look, words=text is not None) as prepared:
        answer, notes = _answer.ask_examples(
            prepared,
            places(examples, prepared.raster.info.crs),
            places(exclude, prepared.raster.info.crs),
            text=text,
            choice=_filter(threshold, min_area_m2, top),
            progress=look.get("progress", silent),
            cancel=look.get("cancel"),
        )
        _tell(notes)
        return answers_frame([answer], model=prepared.encoder.config.name, shape=shape)


def index(path: str | Path, **look: Unpack[Look]) -> Index:
    """Build the index, or update what is missing or stale of it.

    Args:
        path: A raster.
        **look: See :class:`Look`.

    Returns:
        The index; ``ask`` and ``similar`` with the same keywords will use it.

    Raises:
        GeoAlignError: See :func:`ask`.
    """
    with _prepare(path, look, words=False) as prepared:
        return prepared.index


def region_features(
    path: str | Path,
    boxes: Places,
    *,
    view: View = "both",
    order: Order = "pool_then_normalise",
    on_bad: OnBad = "raise",
    **look: Unpack[Look],
) -> RegionFeatures:
    """Give joint-space features of boxes, on the GPU when there is one.

    Args:
        path: A raster.
        boxes: Boxes (xmin, ymin, xmax, ymax), geometries or a GeoDataFrame, in the raster's CRS.
        view: ``"roi"`` (RoIAlign on the dense map), ``"crop"`` (the box as an image of its own) or ``"both"``.
        order: Whether patch vectors keep their lengths until they are pooled (``"pool_then_normalise"``, FG-CLIP), or
            are all of length 1 (``"normalise_then_pool"``, CLIPSelf).
        on_bad: For a box without area on the image: ``"raise"``, or ``"mark"`` it.
        **look: See :class:`Look`; ``area``, ``max_windows`` and the prompt templates are not used.

    Returns:
        ``roi`` and ``crop``, (N, D) float32, L2-normalised, their normalised ``mean``, and ``valid``, (N,): False, and
        rows of zeros, for a marked box and for one over nothing but nodata.

    Raises:
        GeoAlignError: See :func:`ask`; also for a box without area on the image when ``on_bad`` is ``"raise"``.
    """
    from geoalign_core.indexing import plan_index
    from tiling.raster import open_raster

    settings = _settings(look)
    encoder = _encoder(settings.model, settings.device, settings.encoder)
    with open_raster(path, policy=settings.policy) as raster:
        spec = plan_index(raster, encoder, gsd_m=settings.gsd_m, bands=settings.bands, stretch=settings.stretch)
        return _region_features(
            raster,
            encoder,
            places(boxes, raster.info.crs),
            bands=spec.bands,
            stretch=spec.stretch,
            gsd_m=spec.levels[0].canvas.gsd_m,
            view=view,
            order=order,
            on_bad=on_bad,
            jobs=settings.jobs,
            progress=look.get("progress", silent),
            cancel=look.get("cancel"),
        )


def places(items: Places, crs: Any) -> list[shapely.Geometry]:  # noqa: ANN401 - rasterio's CRS or None
    """Turn boxes, geometries or a GeoDataFrame (reprojected when its CRS differs) into geometries.

    Raises:
        ExamplesError: A box is not four numbers with xmin < xmax and ymin < ymax.
    """
    import shapely as shp

    frame: Any = items
    if hasattr(frame, "geometry"):
        known = frame.crs is not None and crs is not None
        return list(frame.to_crs(crs).geometry if known else frame.geometry)
    if isinstance(items, shp.Geometry) or (len(items) == 4 and all(isinstance(value, int | float) for value in items)):
        items = [items]
    result = []
    for item in items:
        if isinstance(item, shp.Geometry):
            result.append(item)
            continue
        numbers = tuple(float(value) for value in item)
        if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            raise ExamplesError(
                "a box is xmin, ymin, xmax, ymax", measured=", ".join(f"{value:g}" for value in numbers),
                remedy="give four numbers with xmin < xmax and ymin < ymax",
            )  # fmt: skip
        result.append(shp.box(*numbers))
    return result
