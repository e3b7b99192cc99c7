"""Scores of a question on an index, in words, by example or both; what does not change is kept for the next try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoalign_core.answer import Prepared, heat_lattice, resolution_notes
from geoalign_core.grounding.correction import fit_correction
from geoalign_core.grounding.examples import BACKGROUND_ROWS, fit_examples
from geoalign_core.grounding.heatmap import join_levels
from geoalign_core.grounding.relevance import log_odds
from geoalign_core.grounding.text import clean_query, encode_queries
from geoalign_core.indexing import LinearQuery, draw_rows, score_maps
from geoalign_core.models.calibration import find_calibration

if TYPE_CHECKING:
    import shapely
    from numpy.typing import NDArray

    from geoalign_core.engine.arguments import AskArgs
    from geoalign_core.engine.job import Job
    from geoalign_core.engine.session import Opened
    from geoalign_core.grounding.heatmap import Heatmap
    from geoalign_core.indexing import DrawnRows, Index, ScoreMap
    from geoalign_core.models.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-odds on the patch lattice."""

    cells: ScoreMap
    """The finest level's map, for its place."""
    odds: NDArray[np.float32]
    """(Q, rows, cols)"""
    logits: NDArray[np.float32]
    """(Q, rows, cols) scaled cosines; empty when no words were asked."""
    notes: tuple[str, ...] = ()


def prepared_of(opened: Opened, index: Index, area: shapely.Geometry | None) -> Prepared:
    """Return the raster, model and index as the question functions take them."""
    return Prepared(opened.raster, opened.encoder, index, area, opened.settings)


def text_scores(prepared: Prepared, queries: tuple[str, ...], avoid: tuple[str, ...], job: Job) -> Scores:
    """Score questions in words."""
    texts = encode_queries(prepared.encoder, queries, avoid=avoid)
    query = LinearQuery.from_text(texts.vectors, prepared.encoder.readout)
    maps = score_maps(prepared.index, query, area=prepared.area, progress=job.progress, cancel=job.token)
    cosines = join_levels(maps)
    scale = prepared.encoder.config.prompts.logit_scale
    return Scores(maps[0], log_odds(cosines, texts.competes, scale), cosines[: len(queries)] * scale, texts.notes)


def ask_scores(opened: Opened, index: Index, args: AskArgs, job: Job) -> Scores:
    """Score what is asked for: words, examples, or words corrected by examples."""
    prepared = prepared_of(opened, index, args.target.area)
    area = b"" if args.target.area is None else args.target.area.wkb
    words = None
    if args.query is not None:
        key = "text", args.query, args.avoid, area
        words = opened.answers.recall(key)
        if words is None:
            words = opened.answers.keep(key, text_scores(prepared, (clean_query(args.query),), args.avoid, job))
    if words is None:
        return _example_scores(opened, prepared, args, job)
    if not args.include and not args.exclude:
        return words
    background = _background(opened, index)
    query = fit_correction(index, words.cells, words.odds[0], args.include, args.exclude, background)
    maps = score_maps(index, query, area=prepared.area, cancel=job.token)
    # The finest level alone: what was marked is small, and beside it at a coarser level lies what was not.
    return Scores(words.cells, words.odds + maps[0].scores, words.logits, words.notes)


def _background(opened: Opened, index: Index) -> DrawnRows:
    """Return rows drawn from the whole map, the same ones for every try."""
    rows = opened.answers.recall("background")
    return opened.answers.keep("background", draw_rows(index, BACKGROUND_ROWS, seed=0)) if rows is None else rows


def _example_scores(opened: Opened, prepared: Prepared, args: AskArgs, job: Job) -> Scores:
    index = prepared.index
    model = fit_examples(index, args.include, args.exclude, background=_background(opened, index).features)
    maps = score_maps(index, model.query, area=prepared.area, progress=job.progress, cancel=job.token)
    odds = model.log_odds(index, maps[0], join_levels(maps)[0])[None]
    return Scores(maps[0], odds, np.zeros((0, *odds.shape[1:]), np.float32))


def heatmap_of(prepared: Prepared, scores: Scores) -> Heatmap:
    """Turn the scores of one question into a heatmap."""
    return heat_lattice(prepared, scores.cells).heatmap(scores.odds[0], area=prepared.area)


def calibration_of(opened: Opened, args: AskArgs) -> Calibration | None:
    """Return what the precision of an answer is known by: only words that no example corrects were calibrated."""
    if args.query is None or args.include or args.exclude:
        return None
    return find_calibration(opened.encoder, opened.settings.model)


def notes_of(prepared: Prepared, scores: Scores) -> list[str]:
    """Return what the user should know."""
    band = prepared.index.spec.bands.note
    return [*resolution_notes(prepared), *scores.notes, *([band] if band else [])]


def name_of(args: AskArgs) -> str:
    """Return what the question is called in files."""
    parts = []
    if args.include:
        parts.append(f"like {len(args.include)} example{'s' if len(args.include) > 1 else ''}")
    if args.exclude:
        parts.append(f"without {len(args.exclude)}")
    shown = " ".join(parts)
    if args.query is None:
        return shown
    return clean_query(args.query) if not shown else f"{clean_query(args.query)}, {shown}"
