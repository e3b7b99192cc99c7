"""Tiles divided into parts (training, validation, test) that share no ground, by blocks.

The planes of :mod:`tiling.chips.planes` are cut into square blocks that begin where tiles begin, and each block goes to
one part. A tile belongs to a part when its whole footprint lies in blocks of that part; a tile between two parts is
left out. Where neither tiles nor rasters overlap, no tile is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tiling.chips.planes import SLIVER_PX, lay_planes
from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tiling.chips.manifest import Source
    from tiling.chips.planes import Plane
    from tiling.chips.spec import SplitSpec
    from tiling.grid import Length, Window

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_SIDES = (16, 12, 8, 6, 4, 3, 2, 1)
"""Sides that are tried, in strides, when none is asked for."""
_ENOUGH = 10
"""Blocks that the smallest part should have."""
_FEW = 0.1
"""Share of the tiles that may be left out."""
_FEWNESS = 0.25
"""What it costs when the smallest part has a single block, in shares of the tiles."""
_TRIES = 8
_EXACT, _CLOSE = 0.005, 0.05
"""Shares that are off by less than this are not improved, and by more than this are told."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which part every tile belongs to."""

    parts: tuple[tuple[str | None, ...], ...]
    """For each source, for each of its windows, a part, or None: left out, for it lies between two parts."""
    counts: dict[str, int]
    """Tiles of each part."""
    left_out: int
    """Tiles between parts."""
    blocks: int
    """Blocks that hold at least one whole tile."""
    block: str
    """Side of the blocks, in words."""
    notes: tuple[str, ...]
    """What a user should know."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The blocks of all planes, numbered, and the tiles on them."""

    sides_px: tuple[int, ...]
    """For each plane."""
    corners: Ints
    """(N, 4) blocks under the corners of each tile; −1 for a tile that has no place on its plane."""
    weight: Floats
    """(B,) tiles of each block; a tile over several blocks counts in parts."""
    whole: Ints
    """(B,) tiles that lie in the block as a whole."""

    @property
    def usable(self) -> int:
        """Number of blocks with at least one whole tile."""
        return int(np.count_nonzero(self.whole))


@dataclass(frozen=True, slots=True)
class _Deal:
    """Blocks given to parts."""

    blocks: _Blocks
    tiles: Ints
    """(N,) part of each tile, −1 when it is left out."""
    counts: Ints
    """(P,) tiles of each part."""
    left_out: float
    """Share of the tiles that is left out."""
    badness: float
    """Lower is better: empty parts first, then shares that are off, tiles left out, and few blocks."""


def assign_parts(sources: Sequence[Source], windows: Sequence[Sequence[Window]], spec: SplitSpec) -> Assignment:
    """Divide tiles into parts that share no ground.

    Blocks go to parts at random (by the seed), each to the part that lacks most tiles; the best of several such deals
    is taken. Without ``spec.block`` the side of the blocks is the largest of 16, 12, 8, 6, 4, 3, 2 and 1 strides with
    which the smallest part can expect ten blocks and at most a tenth of the tiles is left out. Where there is no such
    side, the best compromise between shares, tiles left out and number of blocks is taken. A block is never smaller
    than a tile, also of another raster on the same ground. Tiles that share a strip narrower than a thousandth of a
    pixel count as apart.

    A million tiles take a few seconds and some 300 bytes each.

    Args:
        sources: The rasters.
        windows: For each raster the tiles to divide.
        spec: The parts and their shares, the blocks' side, and the seed.

    Raises:
        UsageError: A part would be empty, or ``spec.block`` is in metres and a raster has none.
    """
    names: list[str | None] = [name for name, _ in spec.shares]
    planes = lay_planes(sources, windows)
    if not planes:
        return Assignment(tuple(() for _ in sources), {name: 0 for name, _ in spec.shares}, 0, 0, "", ())
    deal = _best_deal(planes, np.array([share for _, share in spec.shares]), spec)
    if (deal.counts == 0).any():
        _refuse(spec, deal)
    found = np.array([*names, None], object)[deal.tiles].tolist()
    parts: list[tuple[str | None, ...]] = [()] * len(sources)
    begin = 0
    for plane in planes:
        for member, boxes in zip(plane.members, plane.boxes, strict=True):
            parts[member] = tuple(found[begin : begin + len(boxes)])
            begin += len(boxes)
    counts = {name: int(count) for (name, _), count in zip(spec.shares, deal.counts, strict=True)}
    return Assignment(
        parts=tuple(parts),
        counts=counts,
        left_out=len(found) - sum(counts.values()),
        blocks=deal.blocks.usable,
        block=_side(planes, deal.blocks.sides_px),
        notes=tuple(_notes(spec, planes, deal)),
    )


def _best_deal(planes: list[Plane], shares: Floats, spec: SplitSpec) -> _Deal:
    """Deal the blocks that were asked for, or try sides from large to small."""
    if spec.block is not None:
        return _deal(_lay_blocks(planes, _asked_px(planes, spec.block)), shares, spec.seed)
    deals: dict[tuple[int, ...], _Deal] = {}
    for side in _SIDES:
        blocks = _lay_blocks(planes, [side * plane.home.grid.stride_px for plane in planes])
        if blocks.sides_px in deals:
            continue
        deals[blocks.sides_px] = _deal(blocks, shares, spec.seed)
        if blocks.usable * shares.min() >= _ENOUGH and deals[blocks.sides_px].left_out <= _FEW:
            return deals[blocks.sides_px]
    return min(reversed(deals.values()), key=lambda deal: deal.badness)


def _asked_px(planes: list[Plane], block: Length) -> list[int]:
    return [max(1, block.to_px(gsd_m=plane.home.gsd_m, tile_px=plane.home.grid.tile_px)) for plane in planes]


def _lay_blocks(planes: list[Plane], wanted_px: list[int]) -> _Blocks:
    """Cut the planes into blocks of whole strides, of at least the wanted sides and no smaller than a tile."""
    sides, corners, begin = [], [np.empty((0, 4), np.int64)], 0
    for plane, wanted in zip(planes, wanted_px, strict=True):
        stride = plane.home.grid.stride_px
        sides.append(math.ceil(max(wanted, plane.widest_px - SLIVER_PX) / stride) * stride)
        corners.append(_block_numbers(plane, sides[-1], begin))
        begin = int(corners[-1].max()) + 1
    numbers = np.concatenate(corners)
    there = numbers >= 0
    # Only blocks under tiles count, so they are numbered anew.
    numbers[there] = np.unique(numbers[there], return_inverse=True)[1]
    inside = numbers[(numbers == numbers[:, :1]).all(axis=1) & there[:, 0], 0]
    weight = np.bincount(numbers[there]) / 4
    return _Blocks(tuple(sides), numbers, weight, np.bincount(inside, minlength=len(weight)))


def _block_numbers(plane: Plane, side: int, begin: int) -> Ints:
    """Return the blocks under the corners of each tile of a plane (N, 4), numbered from ``begin``."""
    boxes = np.concatenate(plane.boxes)
    known = np.isfinite(boxes).all(axis=1)
    first, end = boxes[known, :2] + SLIVER_PX, boxes[known, 2:] - SLIVER_PX
    spans = []
    for axis in (0, 1):
        cuts = _cuts(plane, axis, side, float(first[:, axis].min()), float(end[:, axis].max()))
        spans.append([np.searchsorted(cuts, edge[:, axis], "right") for edge in (first, end)])
    across = int(spans[0][1].max()) + 1
    numbers = np.full((len(boxes), 4), -1, np.int64)
    numbers[known] = begin + np.stack([row * across + col for row in spans[1] for col in spans[0]], axis=1)
    return numbers


def _cuts(plane: Plane, axis: int, side: int, low: float, end: float) -> Floats:
    """Return where blocks begin along one axis, all but the first.

    The last block reaches to the end, so that it is no narrower than a tile, and a last window that was shifted back
    lies with its neighbour. Only when tiles overlap anyway and all would be one block, the last has one of its own.
    """
    grid, origin, last = plane.home.grid, float(plane.first[axis]), float(plane.last[axis])
    cuts = origin + side * np.arange(math.floor((low - origin) / side), max(0, (end - origin) / side) + 1)
    cuts = cuts[(cuts > low) & (cuts + plane.widest_px <= end + 2 * SLIVER_PX)]
    if len(cuts) or grid.stride_px == grid.tile_px or last - min(low, origin) < plane.widest_px - SLIVER_PX:
        return cuts
    return np.array([last])


def _deal(blocks: _Blocks, shares: Floats, seed: int) -> _Deal:
    """Give every block to a part, several times, and return the best deal."""
    rng = np.random.default_rng(seed)
    targets, deals = shares, []
    for _ in range(_TRIES):
        parts = _give(blocks, targets, rng)[blocks.corners]
        same = (parts == parts[:, :1]).all(axis=1) & (blocks.corners[:, 0] >= 0)
        counts = np.bincount(parts[same, 0], minlength=len(shares))
        got, left_out = counts / max(1, same.sum()), 1 - float(same.mean())
        off = float(np.abs(got - shares).sum())
        few = _FEWNESS / max(1, blocks.usable) / shares.min()
        badness = 10 * int((counts == 0).sum()) + off + left_out + few
        deals.append(_Deal(blocks, np.where(same, parts[:, 0], -1), counts, left_out, badness))
        if off < _EXACT and left_out == 0:
            break
        # Large parts keep more of the tiles over two blocks: what a part got too few of it is promised more of.
        targets = targets * np.clip(shares / np.maximum(got, 1e-9), 0.5, 2)
        targets = targets / targets.sum()
    return min(deals, key=lambda deal: deal.badness)


def _give(blocks: _Blocks, targets: Floats, rng: np.random.Generator) -> Ints:
    """Give blocks in random order, each to the part that lacks most; no part goes without while there are blocks."""
    weight = blocks.weight.tolist()
    lacks = (targets * blocks.weight.sum()).tolist()
    order = rng.permutation(len(weight)).tolist()
    parts = np.zeros(len(weight), np.int64)
    for block in order:
        part = lacks.index(max(lacks))
        lacks[part] -= weight[block]
        parts[block] = part
    usable = np.flatnonzero(blocks.whole)
    for part in np.argsort(-targets, kind="stable"):
        held = np.bincount(parts[usable], minlength=len(targets))
        if held[part] or held.max(initial=0) < 2:
            continue
        # The part with the most blocks gives the lightest.
        giving = usable[parts[usable] == held.argmax()]
        parts[giving[blocks.whole[giving].argmin()]] = part
    return parts


def _refuse(spec: SplitSpec, deal: _Deal) -> None:
    empty = [name for (name, _), count in zip(spec.shares, deal.counts, strict=True) if not count]
    count, smaller = deal.blocks.usable, "" if spec.block is None else ", smaller blocks"
    raise UsageError(
        f"the tiles cannot be divided: nothing would be left for {' and '.join(empty)}",
        measured=f"{count} block{'s' * (count != 1)} for {len(spec.shares)} parts that share no ground",
        remedy=f"use smaller tiles, less overlap{smaller} or fewer parts",
    )


def _notes(spec: SplitSpec, planes: list[Plane], deal: _Deal) -> Iterator[str]:
    shares = [f"{name} {count:,}" for (name, _), count in zip(spec.shares, deal.counts, strict=True)]
    kept, total = int(deal.counts.sum()), len(deal.tiles)
    side, count = _side(planes, deal.blocks.sides_px), deal.blocks.usable
    yield f"split by {count:,} blocks of {side}: {', '.join(shares)} tiles, {total - kept:,} between parts left out"
    far = [
        f"{name} {got / kept:.0%} instead of {share:.0%}"
        for (name, share), got in zip(spec.shares, deal.counts, strict=True)
        if abs(got / kept - share) > _CLOSE
    ]
    if far:
        yield f"the shares come out as {', '.join(far)}, for there are only {count} blocks"
    if spec.block is not None:
        asked_px = _asked_px(planes, spec.block)
        if deal.blocks.sides_px != tuple(asked_px):
            yield f"blocks of {side} are used instead of {spec.block}: whole strides, and no smaller than a tile"
    homeless = int((deal.blocks.corners[:, 0] < 0).sum())
    if homeless:
        yield f"{homeless:,} tiles are left out, for they cannot be placed beside those of the other rasters"


def _side(planes: list[Plane], sides_px: tuple[int, ...]) -> str:
    """Return the side of the blocks in words."""
    text = _span(list(sides_px)) + " px"
    metres = [side * plane.home.gsd_m for side, plane in zip(sides_px, planes, strict=True) if plane.home.gsd_m]
    return text if not metres else f"{text} ({_span(metres)} m)"


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:,.0f}" if value >= 10 else f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"
