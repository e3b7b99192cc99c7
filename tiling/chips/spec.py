"""What a user asks of tiles: plain values, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from tiling.errors import UsageError
from tiling.grid import Length

if TYPE_CHECKING:
    from pathlib import Path

    from tiling.grid import Edge

Format = Literal["tif", "cog", "png", "jpg", "webp", "npy"]
LabelFormat = Literal["coco", "yolo", "yolo-obb", "geojson", "geoparquet", "mask"]
StretchOver = Literal["raster", "collection"]

NO_OVERLAP = Length(0, "px")


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """How tiles are cut and written."""

    tile: Length
    overlap: Length = NO_OVERLAP
    edge: Edge = "shift"
    gsd_m: float | None = None
    """None keeps the raster's own pixels."""
    crs: str | None = None
    """None keeps the raster's own CRS; nothing is ever warped unasked."""
    bands: str | None = None
    """None keeps all bands."""
    stretch: str | None = None
    """None keeps the samples as they are where the format can hold them."""
    stretch_over: StretchOver = "raster"
    """Whether every raster has a stretch of its own or all share one."""
    dtype: str | None = None
    """Type of the samples written; None keeps the raster's."""
    area: str | None = None
    min_valid: float = 0.0
    """Tiles with a smaller share of valid pixels are left out."""
    format: Format = "tif"

    @property
    def suffix(self) -> str:
        """Suffix of the tiles' files, without a dot."""
        return "tif" if self.format == "cog" else self.format


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """Which labels are cut along with the tiles."""

    path: Path
    format: LabelFormat = "coco"
    field: str | None = None
    """Column that holds the class; None takes ``class``, ``label``, ``category`` or ``name`` when there is just one
    of them, else everything is one class named after the file."""
    layer: str | None = None
    min_visible: float = 0.0
    """Labels of which a smaller share lies in the tile are left out of it; 0 keeps every label that touches."""
    only_labelled: bool = False
    """Leave out tiles that hold no label."""

    def __post_init__(self) -> None:
        if self.format not in get_args(LabelFormat):
            raise UsageError(
                "unknown format of labels", measured=self.format, remedy=f"use {', '.join(get_args(LabelFormat))}"
            )
        if not 0 <= self.min_visible <= 1:
            raise UsageError("the least visible share is between 0 and 1", measured=str(self.min_visible))


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How tiles are divided into parts that share no pixel."""

    shares: tuple[tuple[str, float], ...]
    """(name, share) of each part; the shares sum to one."""
    block: Length | None = None
    """Side of the blocks that go to one part as a whole; None chooses."""
    seed: int = 0

    @classmethod
    def parse(cls, text: str, *, block: str | None = None, seed: int = 0) -> SplitSpec:
        """Read ``train=0.8,val=0.1,test=0.1``; shares may be any positive numbers, ``8,1,1`` also.

        Raises:
            UsageError: It is not such a text, a name is not plain, or a share is not positive.
        """
        shares = []
        for part in text.split(","):
            name, _, number = part.strip().partition("=")
            try:
                share = float(number)
            except ValueError:
                share = math.nan
            if not (name.isidentifier() and name.isascii() and math.isfinite(share) and share > 0):
                raise UsageError("is not a split", measured=text, remedy="write train=0.8,val=0.1,test=0.1")
            shares.append((name, share))
        names = [name for name, _ in shares]
        if len({name.lower() for name in names}) < len(names):
            raise UsageError("names a part twice", measured=text, remedy="write train=0.8,val=0.1,test=0.1")
        total = sum(share for _, share in shares)
        length = None if block is None else Length.parse(block)
        if length is not None and length.value <= 0:
            raise UsageError("is not the side of a block", measured=block, remedy="write --split-block 1000m or 4096px")
        return cls(tuple((name, share / total) for name, share in shares), length, seed)
