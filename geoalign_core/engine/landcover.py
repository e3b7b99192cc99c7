"""The smaller jobs: a land-cover map, regions of a heatmap at hand, tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.engine.protocol import Failure

if TYPE_CHECKING:
    from pathlib import Path

    from geoalign_core.engine.arguments import Fields, SourceArgs, Target
    from geoalign_core.engine.job import Job
    from geoalign_core.engine.session import Session
    from geoalign_core.grounding.heatmap import Heatmap

_MOST_HEAT_PX = 2**30


def landcover(
    session: Session, target: Target, queries: tuple[str, ...], path: Path, job: Job
) -> tuple[Path, list[str], list[str]]:
    """Map every place to the question that fits it best.

    Returns:
        The map, the names of its classes in the order of their values, and notes.
    """
    from geoalign_core.answer import heat_lattice, refuse_empty
    from geoalign_core.engine.build import build
    from geoalign_core.engine.search import notes_of, prepared_of, text_scores
    from geoalign_core.export import write_classes
    from geoalign_core.grounding.text import clean_query
    from geoalign_core.landcover import classify
    from geoalign_core.models.encoder import require_text

    names = tuple(clean_query(query) for query in queries)
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        raise Failure("query", "a land-cover map takes 2 to 255 different questions", remedy="name each class once")
    opened = session.open(target, job.stage)
    require_text(opened.encoder)
    index = build(opened, target.area, job)
    refuse_empty(index, opened.raster.path)
    job.stage("scoring")
    prepared = prepared_of(opened, index, target.area)
    scores = text_scores(prepared, names, (), job)
    found = classify(heat_lattice(prepared, scores.cells), scores.logits, names, target.area)
    job.stage("writing")
    heat = found.heatmap
    tags = {"GEOALIGN_MODEL": opened.encoder.config.name, "GEOALIGN_PROTOCOL": "argmax-cosine-1"}
    write_classes(path, found.classes, names, transform=heat.transform, crs=heat.crs, tags=tags, overwrite=True)
    return path, list(names), notes_of(prepared, scores)


def regions(heatmap: Path, target: Path, args: Fields, job: Job) -> tuple[Path, int, float | None]:
    """Outline the places of a heatmap that reach a threshold.

    Returns:
        The GeoPackage, how many regions it holds, and the best score.
    """
    from geoalign_core.engine.ladder import best_score, frames
    from geoalign_core.export import write_vector
    from geoalign_core.grounding.regions import find_regions

    threshold = args.number("threshold", 0.5, high=1.0)
    shape = args.optional_text("shape", "box")
    if shape not in ("box", "polygon"):
        raise args.fail("shape", "box or polygon")
    min_area_m2, top = args.number("min_area_m2", 0.0, high=1e15) or 0.0, args.whole("top", None)
    job.stage("reading the heatmap")
    heat, tags = read_heatmap(heatmap)
    job.stage("finding regions")
    level = 0.5 if threshold is None else threshold
    found = find_regions(heat, level, min_area_m2=min_area_m2, top=top)
    job.stage("writing")
    layers = frames(
        {round(level * 100): found}, heat, query=tags.get("GEOALIGN_QUERY", heatmap.stem),
        model=tags.get("GEOALIGN_MODEL", ""), gsd_m=heat.gsd_m,
    )  # fmt: skip
    kept = "boxes" if shape == "box" else "polygons"
    write_vector(target, {kept: layers[kept]}, overwrite=True)
    best = best_score(heat)
    return target, len(found), None if best is None else round(best, 4)


def read_heatmap(path: Path) -> tuple[Heatmap, dict[str, str]]:
    """Read a heatmap that was written before, with its tags; of several bands, each a question's, the first.

    Raises:
        GeoAlignError: It is no raster.
        Failure: ``raster``: it holds no scores 0..1, or is too large.
    """
    from geoalign_core.grounding.heatmap import Heatmap
    from tiling.raster import open_raster

    with open_raster(path) as raster:
        info = raster.info
        if info.dtype not in ("float32", "float64"):
            raise Failure(
                "raster", f"{path} is not a heatmap ({info.dtype})",
                remedy="choose a heatmap that GeoAlign has written",
            )  # fmt: skip
        if info.width_px * info.height_px > _MOST_HEAT_PX:
            raise Failure("raster", f"{path} is too large for a heatmap", remedy="cut out the part that matters")
        handle = raster.handle()
        values = handle.read(1, masked=True).filled(np.nan).astype(np.float32)
        tags = dict(handle.tags())
    finite = values[np.isfinite(values)]
    if finite.size and not (finite.min() >= 0 and finite.max() <= 1):
        raise Failure("raster", f"{path} holds values outside 0..1", remedy="choose a heatmap of GeoAlign")
    return Heatmap(values, info.transform, info.crs, info.gsd_m), tags


def tile(source: SourceArgs, folder: Path, args: Fields, job: Job) -> dict[str, Any]:
    """Cut a raster into georeferenced tiles."""
    from geoalign_core.engine.arguments import read_bands
    from tiling.chips.cut import run_job
    from tiling.chips.job import plan_job
    from tiling.chips.spec import ChipSpec
    from tiling.grid import Length
    from tiling.raster import OpenPolicy, open_raster

    form = args.optional_text("format", "tif")
    if form not in ("tif", "cog", "png", "jpg", "webp", "npy"):
        raise args.fail("format", "tif, cog, png, jpg, webp or npy")
    spec = ChipSpec(
        tile=Length.parse(args.optional_text("tile", "512px") or "512px"),
        overlap=Length.parse(args.optional_text("overlap", "0px") or "0px"),
        gsd_m=args.number("gsd_m", None, low=1e-4, high=1e5), bands=read_bands(args), format=form,  # type: ignore[arg-type]
    )  # fmt: skip
    job.stage("planning tiles")
    with open_raster(source.path, policy=OpenPolicy(allow_vrt=source.allow_vrt), crs=source.crs) as raster:
        plan = plan_job([raster], spec)
        cut = run_job(
            plan, folder, resume=True, overwrite=args.flag("overwrite"), progress=job.progress, cancel=job.token
        )
    return {"folder": "", "manifest": str(cut.table), "count": len(cut.manifest.chips), "notes": list(plan.notes)}
