"""Recall at k in both directions, from the ranks of the best positives.

``R@k`` is the share of queries with at least one positive among the first k candidates; ``mean`` of a direction is the
mean of R@1, R@5 and R@10 (FarSLIP's figure), ``mr`` the mean of the six.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

KS = (1, 5, 10)
"""What the means are made of."""
DIRECTIONS = ("i2t", "t2i")


def hits(ranks: NDArray[np.int64], ks: Sequence[int]) -> NDArray[np.float64]:
    """Return (N, len(ks)) whether a rank (1 is first) is at most k."""
    return (np.asarray(ranks)[:, None] <= np.asarray(ks)[None, :]).astype(np.float64)


def recalls(ranks: NDArray[np.int64], ks: Sequence[int] = KS) -> dict[int, float]:
    """Return R@k in per cent for every k; NaN without queries."""
    if not len(ranks):
        return dict.fromkeys(ks, float("nan"))
    return {k: 100 * float(value) for k, value in zip(ks, hits(ranks, ks).mean(axis=0), strict=True)}


def per_image(
    i2t: NDArray[np.int64], t2i: NDArray[np.int64], owner: NDArray[np.int64], ks: Sequence[int] = KS
) -> NDArray[np.float64]:
    """Return what :func:`figures` needs, one row per image, so that a bootstrap can draw images with their texts.

    Args:
        i2t: (N,) ranks of images.
        t2i: (M,) ranks of texts.
        owner: (M,) the image that a text is drawn with.
        ks: The k.

    Returns:
        (N, 2·len(ks) + 2): hits of the image, sums of the hits of its texts, 1, number of its texts.
    """
    table = np.zeros((len(i2t), 2 * len(ks) + 2))
    table[:, : len(ks)], table[:, -2] = hits(i2t, ks), 1.0
    np.add.at(table[:, len(ks) : -2], owner, hits(t2i, ks))
    np.add.at(table[:, -1], owner, 1.0)
    return table


def figures(sums: NDArray[np.float64], ks: Sequence[int] = KS) -> dict[str, NDArray[np.float64]]:
    """Return the figures in per cent; NaN where a direction has no queries.

    Args:
        sums: (S, 2·len(ks) + 2) sums over rows of :func:`per_image`, one for each drawing of images.
        ks: As there; must hold those of :data:`KS`.

    Returns:
        (S,) each: ``i2t_r@1`` …, ``i2t_mean``, ``t2i_r@1`` …, ``t2i_mean`` and ``mr``.
    """
    width = len(ks)
    found: dict[str, NDArray[np.float64]] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (100 * sums[:, :width] / sums[:, -2:-1], 100 * sums[:, width:-2] / sums[:, -1:])
    for direction, values in zip(DIRECTIONS, shares, strict=True):
        found |= {f"{direction}_r@{k}": values[:, place] for place, k in enumerate(ks)}
        found[f"{direction}_mean"] = np.mean([found[f"{direction}_r@{k}"] for k in KS], axis=0)
    found["mr"] = (found["i2t_mean"] + found["t2i_mean"]) / 2
    return found
