"""FineHARD, FG-CLIP's training set: JSON lists with captions, boxes as shares, and ten hard negatives for a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.data.readers.base import Placed, Reader, json_items, need, numbers, parent, peek, text_or_none
from training.data.schema import HardNegative, Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KNOWN = ("f_path", "caption", "short_caption", "bbox_info")
_KNOWN_BOX = ("bbox", "short_expr", "long_expr", "flag_short_neg", "short_expr_negs")


def detect(path: Path) -> bool:
    """Say whether the first record has ``f_path`` and FG-CLIP's captions or boxes."""
    first = peek(path)
    return isinstance(first, dict) and "f_path" in first and bool(first.keys() & {"bbox_info", "short_caption"})


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records. The mapping is that of FG-CLIP's own data loader.

    Raises:
        DataError: A record lacks its picture or a box is not numbers.
    """
    del images  # f_path counts from whichever folder is the root
    for where, item in json_items(path):
        record = Record(
            image=need(item, "f_path", str, where).replace("\\", "/"),
            source="FineHARD",
            brief_caption=text_or_none(item.get("short_caption")),
            detailed_caption=text_or_none(item.get("caption")),
            regions=tuple(_region(entry, where) for entry in item.get("bbox_info") or ()),
            extra={key: value for key, value in item.items() if key not in _KNOWN},
        )
        yield where, record


def _region(entry: Any, where: str) -> Region:  # noqa: ANN401 - a parsed JSON value
    values = need(entry, "bbox", list, where)
    box = numbers(values[:4], 4, where)
    negatives = entry.get("short_expr_negs") if entry.get("flag_short_neg", 1) else None
    texts = negatives.values() if isinstance(negatives, dict) else negatives or ()
    return Region(
        bbox=(box[0], box[1], box[2], box[3]),
        phrase=text_or_none(entry.get("short_expr")),
        description=text_or_none(entry.get("long_expr")),
        hard_negatives=tuple(HardNegative(text) for text in texts if text_or_none(text)),
        score=numbers(values[4:5], 1, where)[0] if len(values) > 4 else None,
        extra={key: value for key, value in entry.items() if key not in _KNOWN_BOX},
    )


READER = Reader("finehard", "FineHARD (FG-CLIP) JSON", detect, read, parent)
