"""A few queries of a retrieval with what they found, for the report: each query and each text once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation.ranking import Picked, ranks, topk

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from numpy.typing import NDArray

    from tiling.progress import CancelToken
    from training.evaluation.ranking import Rows

_SHOWN, _ANSWERS = 4, 3


@dataclass(frozen=True, slots=True)
class Way:
    """One direction: what asks, what is found, and the ranks."""

    name: str
    """``I2T`` or ``T2I``."""
    queries: Rows
    """(N, D)"""
    candidates: Rows
    """(M, D)"""
    right: Sequence[Sequence[int]]
    """Candidates that are right, for each query."""
    ranks: NDArray[np.int64]
    """(N,) from 1."""
    asked: Sequence[Hashable]
    """(N,) queries of one label look alike: only the first is shown."""
    found: Sequence[Hashable]
    """(M,) and so do candidates."""
    once: bool
    """Whether the ranks count candidates of one label once."""
    query: Callable[[int], dict[str, Any]]
    candidate: Callable[[int], dict[str, Any]]
    """They give what is shown."""


def cards(way: Way, *, pessimistic: bool, cancel: CancelToken) -> Iterator[dict[str, Any]]:
    """Yield the best and the worst queries, for ``retrievals`` of :attr:`Result.details`.

    Args:
        way: The direction.
        pessimistic: Whether its ranks count equal scores against the model; each card then tells how many do.
        cancel: Looked at before each card.
    """
    firsts = np.array(list(_firsts(way.found, range(len(way.found)))), np.int64)
    for group, places in _extremes(way):
        asking = way.queries[places]
        scores, answers = topk(asking, Picked(way.candidates, firsts), _ANSWERS)
        best = way.ranks[places]
        if pessimistic:
            owned = [way.right[place] for place in places.tolist()]
            same = way.found if way.once else None
            best = ranks(asking, way.candidates, owned, ties="optimistic", same=same)
        for row, place in enumerate(places.tolist()):
            cancel.check()
            right = {way.found[other]: other for other in reversed(way.right[place])}
            yield {
                "group": group, "direction": way.name, "query": way.query(place), "rank": int(way.ranks[place]),
                "tied": int(way.ranks[place] - best[row]),
                "right": [way.candidate(other) for other in sorted(right.values())[:_ANSWERS]],
                "answers": [
                    {**way.candidate(other), "score": round(float(score), 4), "right": way.found[other] in right}
                    for other, score in zip(firsts[answers[row]].tolist(), scores[row], strict=True)
                ],
            }  # fmt: skip


def _extremes(way: Way) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield places of a few queries of rank 1, spread evenly, and of the highest ranks above 1."""
    best = np.array(list(_firsts(way.asked, np.flatnonzero(way.ranks == 1).tolist())), np.int64)
    order = np.argsort(-way.ranks, kind="stable")
    worst = list(_firsts(way.asked, order[: int((way.ranks > 1).sum())].tolist()))[:_SHOWN]
    spread = np.unique(np.linspace(0, len(best) - 1, min(_SHOWN, len(best))).astype(np.int64))
    for group, places in (("best", best[spread]), ("worst", np.array(worst, np.int64))):
        if len(places):
            yield group, places


def _firsts(labels: Sequence[Hashable], places: Sequence[int]) -> Iterator[int]:
    """Yield the places whose label has not been there before."""
    seen: set[Hashable] = set()
    for place in places:
        if labels[place] not in seen:
            seen.add(labels[place])
            yield place
