"""Data sets in a layout of the training data's readers, and what is said of a path that has none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.data.errors import DataError, LayoutError
from training.data.readers import open_source
from training.data.readers.base import json_items, load_json, peek
from training.data.readers.dior_rsvg import first_tree

if TYPE_CHECKING:
    from pathlib import Path

    from training.data.readers import Source

CAPTIONS = "images with captions: dataset.json (RSICD, RSITMD, UCM), a table with filepath and title, or JSON lines"
BOXES = "boxes of classes: NWPU VHR-10, RRSIS-D, VOC, DOTA, COCO, or records"
CATEGORIES = "boxes with categories: COCO, DOTA, VRSBench, DIOR-RSVG, tiles of geoalign-tile, or records"
SENTENCES = "sentences with boxes: DIOR-RSVG, RRSIS-D, VRSBench, or records with phrases"
NEGATIVES = "regions with negatives: lines with img_path, bbox, pos_expression and neg_expression, or records"
_LARGEST = 1 << 26
"""Bytes of a JSON file that is parsed only to say what is wrong with it."""
_SHOWN = 4


def open_records(path: Path, reads: str, *, layout: str | None = None, images: Path | None = None) -> Source:
    """Open a data set of any layout that the readers know.

    Args:
        path: Its folder or file.
        reads: What the task can read, for the error.
        layout: Name of the layout; by default it is found out.
        images: Folder of the pictures, where it is not the one beside the file.

    Raises:
        DataError: The path is missing, a list in it is damaged, or nothing in it is what the task reads.
    """
    try:
        return open_source(path, layout, images=images)
    except LayoutError as error:
        _refuse_damage(path)
        raise DataError(
            "holds nothing that this task reads", path=path, measured=_contents(path),
            remedy=f"give {reads}; see geoalign-eval data",
        ) from error  # fmt: skip


def _refuse_damage(path: Path) -> None:
    """Name the damaged list of a path: one that cannot be read has no layout.

    Raises:
        DataError: A JSON file, or the first XML files, are damaged.
    """
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    for file in files:
        if file.suffix.lower() in (".jsonl", ".ndjson"):
            next(json_items(file), None)
        elif file.suffix.lower() == ".json" and file.stat().st_size <= _LARGEST:
            load_json(file)
    if path.is_dir():
        first_tree(path)


def _contents(path: Path) -> str:
    """Return in a few words what lies there."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        more = ", …" if len(names) > _SHOWN else ""
        return f"a folder of {', '.join(names[:_SHOWN])[:80]}{more}" if names else "an empty folder"
    first = peek(path)
    if isinstance(first, dict):
        return f"a file of {', '.join(list(first)[:_SHOWN])[:80]}" if first else "an empty object"
    return "a list without objects" if path.suffix.lower() == ".json" else f"a file {path.suffix}".rstrip()
