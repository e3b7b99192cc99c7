"""Answers in words, corrected by what the user says of places: right, or wrong.

The words' log-odds o stay the prior. A linear function f(x) = w · (x − μ) of raw patch features is added to them, and
fitted so that the marked places come out as marked while the rest of the map keeps its answer:

    min over w   Σ_m CE(y_m, σ(o_m + f(x_m)))  +  β · mean_b CE(σ(o_b), σ(o_b + f(x_b)))  +  λ/2 · |w|²

with m the marks, each as heavy as any other however large it is, b rows drawn from the whole map, μ their mean and CE
the cross-entropy. It is logistic regression with an offset and soft targets: convex, some hundred numbers, solved in
some hundredths of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from geoalign_core.errors import ExamplesError
from geoalign_core.indexing import LinearQuery, cells_of_place, rows_in_boxes
from geoalign_core.indexing.cores import single_threaded_blas

if TYPE_CHECKING:
    from collections.abc import Sequence

    import shapely
    from numpy.typing import NDArray

    from geoalign_core.indexing import DrawnRows, Index, ScoreMap

_ANCHOR = 3.0
"""β: how firmly the rest of the map keeps the words' answer."""
_RIDGE = 0.002
"""λ: small enough for one mark to turn its place around, large enough to leave unlike places alone."""
_STEPS = 100


def fit_correction(
    index: Index,
    cells: ScoreMap,
    odds: NDArray[np.float32],
    right: Sequence[shapely.Geometry],
    wrong: Sequence[shapely.Geometry],
    background: DrawnRows,
) -> LinearQuery:
    """Fit what has to be added to the words' log-odds.

    Args:
        index: The index of the raster.
        cells: The finest level's map, for its place on the lattice.
        odds: (rows, cols) log-odds of the words on that map.
        right: Places that answer the question, in the raster's CRS.
        wrong: Places that do not.
        background: Rows of the finest level drawn from the whole map.

    Returns:
        One linear form on raw rows; its value is added to ``odds``.

    Raises:
        ExamplesError: A place touches no image.
    """
    places = [*right, *wrong]
    marked = rows_in_boxes(index, places)
    missing = sorted(set(range(len(places))) - set(marked.box.tolist()))
    if missing:
        bounds = ", ".join(f"{value:g}" for value in places[missing[0]].bounds)
        raise ExamplesError("an example touches no image", measured=f"bounds {bounds}", remedy="mark a place on it")
    said = np.r_[np.ones(len(right)), np.zeros(len(wrong))]
    prior = np.array([_mean_odds(cells, odds, cells_of_place(index, place)) for place in places])
    rest, known = _look_up(cells, odds, background.cells)
    mean = background.features.mean(axis=0) if len(background.features) else np.zeros(marked.features.shape[1])
    rows = np.concatenate([marked.features, background.features[known]]) - mean
    offsets = np.concatenate([prior[marked.box], rest[known]])
    targets = np.concatenate([said[marked.box], expit(rest[known])])
    sizes = np.bincount(marked.box, minlength=len(places))
    weights = np.concatenate([1 / sizes[marked.box], np.full(known.sum(), _ANCHOR / max(known.sum(), 1))])
    w = _solve(rows.astype(np.float32, copy=False), offsets, targets, weights)
    return LinearQuery.from_raw(w[None], np.array([-w @ mean], np.float32))


def _solve(
    rows: NDArray[np.float32], offsets: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Minimise the loss.

    The products with the rows are made in their own precision: with float64 on one side numpy would convert all rows
    each time, which takes longer than the rest. What they add up to is float64.
    """

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = offsets + rows @ w.astype(np.float32)
        value = weights @ (np.logaddexp(0, z) - targets * z) + _RIDGE / 2 * w @ w
        pull = (weights * (expit(z) - targets)).astype(np.float32)
        return float(value), pull @ rows + _RIDGE * w

    with single_threaded_blas():
        found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return np.asarray(found.x, np.float32)


def _look_up(
    cells: ScoreMap, odds: NDArray[np.float32], places: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the odds at lattice cells, and which of them lie on the map and have some."""
    row, col = (places - (cells.row_off, cells.col_off)).T
    on = (row >= 0) & (col >= 0) & (row < odds.shape[0]) & (col < odds.shape[1])
    found = np.full(len(places), np.nan)
    found[on] = odds[row[on], col[on]]
    return found, np.isfinite(found)


def _mean_odds(cells: ScoreMap, odds: NDArray[np.float32], places: NDArray[np.int64]) -> float:
    """Return the mean odds of a place; 0, which says nothing, where the map has none."""
    found, known = _look_up(cells, odds, places)
    return float(found[known].mean()) if known.any() else 0.0
