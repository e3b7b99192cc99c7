"""Land cover from questions: each pixel goes to the question that it is most similar to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geoalign_core.grounding.heatmap import Heatmap

if TYPE_CHECKING:
    import shapely
    from numpy.typing import NDArray

    from geoalign_core.grounding.heatmap import HeatLattice


@dataclass(frozen=True, slots=True)
class ClassMap:
    """A land-cover map: each pixel's most similar question."""

    classes: NDArray[np.uint8]
    """(H, W): 0 where there is no image, k for the k-th name."""
    names: tuple[str, ...]
    heatmap: Heatmap
    """Carries the map's transform and CRS; its values are the winning class's share of the softmax, 0..1."""


def classify(
    lattice: HeatLattice, logits: NDArray[np.float32], names: tuple[str, ...], area: shapely.Geometry | None
) -> ClassMap:
    """Give each pixel the question with the highest cosine; confidence is its softmax among the questions.

    Args:
        lattice: The pixels of the map.
        logits: (Q, rows, columns): cosines times the model's logit scale; NaN where there is no image.
        names: (Q,) what the questions are called, 255 at most.
        area: Only this part, in the raster's CRS; None is everything.
    """
    best = lattice.interpolate(logits[0])
    winner = np.where(np.isfinite(best), 1, 0).astype(np.uint8)
    total = np.ones_like(best)
    for number in range(1, len(names)):
        logit = lattice.interpolate(logits[number])
        higher, gap = logit > best, np.exp(-np.abs(logit - best))
        total = np.where(higher, total * gap + 1, total + gap)
        winner[higher] = number + 1
        best = np.where(higher, logit, best)
    share = np.where(winner > 0, 1 / total, np.nan).astype(np.float32)
    if area is not None:
        outside = lattice.outside(area)
        winner[outside], share[outside] = 0, np.nan
    return ClassMap(winner, names, Heatmap(share, lattice.transform, lattice.crs, lattice.gsd_m))
