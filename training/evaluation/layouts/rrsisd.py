"""RRSIS-D (and other sets in the layout of RefCOCO's ``refer``): ``refs(unc).p`` and ``instances.json``.

The list is a pickle. It is read only with consent, and then by a reader that makes lists, dicts, texts and numbers and
refuses anything else before it is made: nothing of a pickle is ever called.
"""

from __future__ import annotations

import io
import pickle  # nosec B403 - only through a reader that finds no class at all
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.errors import DataError
from training.data.readers.base import load_json, need, numbers, place
from training.evaluation.layouts.regions import Boxed, gather

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

REFS, INSTANCES = "refs(unc).p", "instances.json"
_TOPS = ("", "rrsisd", "data/rrsisd", "refer/data/rrsisd")
_PICTURES = ("images/rrsisd/JPEGImages", "JPEGImages", "images")
_MOST_BYTES = 1 << 28
_SPLIT = "test"


class _PlainReader(pickle.Unpickler):
    """Makes plain values only."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:  # noqa: ANN401 - what pickle's own returns
        raise pickle.UnpicklingError(f"it holds {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401 - what pickle's own returns
        raise pickle.UnpicklingError(f"it refers to {pid!r:.40} outside")


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that sentences refer to."""

    image: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    category: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class References:
    """The objects of one part."""

    name: str
    root: Path
    references: tuple[Reference, ...]
    categories: tuple[str, ...]
    split: str | None
    notes: tuple[str, ...]

    def boxed(self) -> Boxed:
        """Return one box per object, by image."""
        places = {name: number for number, name in enumerate(self.categories)}
        found: dict[str, list[Reference]] = {}
        for item in self.references:
            found.setdefault(item.image, []).append(item)
        scenes = tuple(
            gather(image, [item.box for item in items], [places[item.category] for item in items])
            for image, items in found.items()
        )
        return Boxed(self.name, self.root, "rrsisd", scenes, self.categories, self.split, notes=self.notes)


def _folder(path: Path) -> Path | None:
    return next((path / top for top in _TOPS if (path / top / REFS).is_file()), None) if path.is_dir() else None


def detect(path: Path) -> bool:
    """Say whether there is a ``refs(unc).p`` with its ``instances.json``."""
    folder = _folder(path)
    return folder is not None and (folder / INSTANCES).is_file()


def read(path: Path, split: str | None = None, *, trust_pickle: bool = False) -> References:
    """Read the objects of a part, by default ``test``.

    Args:
        path: The folder ``refer/data``, one above it, or that of the two files.
        split: ``train``, ``val`` or ``test``; ``all`` takes every one.
        trust_pickle: The user's consent to read the pickle.

    Raises:
        DataError: Consent is missing, the pickle holds more than plain values, or an entry does not fit.
    """
    folder = _folder(path) or path
    refs = plain_pickle(folder / REFS, trust_pickle=trust_pickle)
    file = folder / INSTANCES
    whole = load_json(file)
    names = {item["id"]: item["name"] for item in need(whole, "categories", list, str(file))}
    images = {item["id"]: item for item in need(whole, "images", list, str(file))}
    truth = {item["id"]: item for item in need(whole, "annotations", list, str(file))}
    root = folder.parent if (folder.parent / "images").is_dir() else folder
    if not isinstance(refs, list):
        raise DataError("is no list of references", path=folder / REFS, measured=type(refs).__name__)
    wanted, kept = split or _SPLIT, []
    for number, ref in enumerate(refs):
        where = f"{folder / REFS}: reference {number}"
        if wanted == "all" or need(ref, "split", str, where) == wanted:
            kept.append((where, ref))
    if not kept:
        raise DataError(f"has no references of the part {wanted}", path=folder / REFS, remedy="use train, val or test")
    try:
        marks = [truth[ref["ann_id"]] for _, ref in kept]
        shown = [images[mark["image_id"]] for mark in marks]
        kinds = [names[mark["category_id"]] for mark in marks]
        sides = np.array([[item["width"], item["height"]] for item in shown], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a reference has no annotation, image or category", path=file, measured=str(error)[:60]
        ) from error
    given = np.array([numbers(mark.get("bbox"), 4, str(file)) for mark in marks])
    boxes, note = _corners(given, sides, [mark.get("area") for mark in marks])
    found = tuple(
        Reference(
            place(str(item["file_name"]), root, _PICTURES), (box[0], box[1], box[2], box[3]), str(kind),
            _sentences(ref, where),
        )
        for (where, ref), item, kind, box in zip(kept, shown, kinds, boxes.tolist(), strict=True)
    )  # fmt: skip
    order = tuple(str(names[key]) for key in sorted(names))
    return References(path.resolve().name, root, found, order, None if wanted == "all" else wanted, (note,))


def plain_pickle(path: Path, *, trust_pickle: bool) -> Any:  # noqa: ANN401 - plain values of any shape
    """Return the lists, dicts, texts and numbers of a pickle.

    Raises:
        DataError: Consent is missing, or it is damaged, too large, or holds anything else.
    """
    if not trust_pickle:
        raise DataError(
            "is a pickle", path=path, remedy="if you trust where it comes from, add --trust-pickle: only plain values"
            " are read",
        )  # fmt: skip
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        return _PlainReader(io.BytesIO(path.read_bytes()), encoding="utf-8").load()  # nosec B301 - finds no class
    except Exception as error:  # whatever a damaged pickle raises
        raise DataError(
            "is no pickle of plain values", path=path, measured=str(error)[:80], remedy="take the published file"
        ) from error


def _sentences(ref: dict[str, Any], where: str) -> tuple[str, ...]:
    found = []
    for item in ref.get("sentences") or ():
        text = item.get("raw") or item.get("sent") if isinstance(item, dict) else item
        if not isinstance(text, str) or not text.strip():
            raise DataError("has a sentence without words", path=where, measured=f"{item!r:.60}")
        found.append(text.strip())
    return tuple(found)


def _corners(
    given: NDArray[np.float64], sides: NDArray[np.float64], areas: Sequence[Any]
) -> tuple[NDArray[np.float64], str]:
    """Return corners of boxes, and a sentence that says how four numbers were read.

    Files in this layout differ: COCO's corner and size, or two corners. What no box contradicts is taken: sizes must
    stay in the image, corners must be in order, and a box is no smaller than the mask inside it. Where both fit it is
    COCO's.
    """
    low, other = given[:, :2], given[:, 2:]
    masks = np.array([float(area) if isinstance(area, int | float) else 0.0 for area in areas])
    as_sizes = ((low + other <= sides + 1).all(axis=1) & (other.prod(axis=1) >= 0.98 * masks)).mean()
    as_corners = ((other >= low).all(axis=1) & ((other - low + 1).prod(axis=1) >= 0.98 * masks)).mean()
    if as_sizes >= as_corners:
        return np.concatenate([low, low + other], axis=1), "Boxes were read as left, top, width, height."
    return given, "Boxes were read as left, top, right, bottom: as sizes they would leave the image."
