"""The held-out side of ``geoalign-val-1`` as folders that ``geoalign-eval`` reads, with the suite of the model card.

Pictures are PNG files with the very pixels that are looked at; the aircraft scenes, which are not resized, are copied
byte for byte. What is written may be used as the raw data may: it belongs into no repository.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import UsageError
from tiling.files import atomic_file
from training.data.errors import DataError
from training.embedded.data import (
    PROTOCOL,
    caption_tars,
    hash_unit,
    read_aircraft,
    read_captions,
)
from training.embedded.samples import AID_PX, CAR_GSDS_M, POOL_CELLS_PX, aid_set, pool_set, vehicle_set
from training.embedded.words import DENSE_WORDS, SCENE_QUESTIONS, SEVEN, TWENTY, scene_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tiling.progress import Progress
    from training.embedded.data import CaptionedImage
    from training.embedded.samples import DenseSet

_FORMAT = 2
"""Of the folders; a raw data set's digest changes with it."""
SUITE = "suite.json"
CAPTIONS, NAMES, QUESTIONS = "captions", "scene-names", "scene-questions"
OTHER_WORDS = {"seven-other-words": SEVEN, "twenty-other-words": TWENTY}
"""Measurement → words of its scenes."""
WIDE_PX = 518
"""Side of the windows that the towers were pretrained on last; aircraft are read in these, too."""
AIRCRAFT = "aircraft-0.5m"
ASKED = f"{AIRCRAFT}-as-asked"
PATCHES = {
    AIRCRAFT: "aircraft 0.5 m", f"{AIRCRAFT}-{WIDE_PX}px": f"aircraft 0.5 m, {WIDE_PX} px windows",
    **{f"vehicles-{gsd:g}m": f"vehicles {gsd:g} m" for gsd in CAR_GSDS_M},
    **{f"pools-{cell}px": f"pools {cell} px" for cell in POOL_CELLS_PX},
    ASKED: "aircraft 0.5 m, as asked",
}  # fmt: skip
"""Measurements of patches → what the card calls them."""
CALIBRATION, _MIXED = "calibration", "aircraft-cars-pools"
"""The measurement, and its folder, whose name people read."""
_CALIBRATED_ON = {"aircraft": "aircraft", "vehicles-0.2m": "vehicle", "pools-56px": "pool"}
"""Folder → category of the boxes that scores are calibrated on, each looked for in its own pictures only."""
_PLACES_EACH = 256
"""Of a picture and word, at most: otherwise eight large scenes would outweigh all the others."""
_WHOLE_PX = 644
"""No picture of cars is larger: each is one window."""
_TERMS = """# Held-out data, protocol {protocol}

Written by `geoalign-train held-out`; `geoalign-eval suite {suite} --model NAME -o FOLDER` measures a model on it.
Development data with terms of its own: not for redistribution, not for a repository.

| folder | what | terms |
|---|---|---|
| scenes/ | {images} AID images at {aid_px} × {aid_px} px with {captions} RSICD captions; other words for {seven} and {twenty} of them | research use only, no redistribution |
| aircraft/ | {scenes} scenes at 0.5 m with {aircraft} boxes, byte for byte (Airbus aircraft sample) | CC BY-NC-SA 4.0 |
| vehicles-…m/ | {vehicles} drone images with {cars} boxes (CATS-Lab), reduced until a median car is as long as 4.5 m are at 0.12, 0.2 or 0.3 m per pixel | research use only |
| aircraft-cars-pools/ | pictures of aircraft/, vehicles-0.2m/ and pools-56px/ once more, together | theirs |
| pools-…px/ | mosaics of 224 × 224 px of {chips} pool chips in cells of 56 or 28 px | research use only |

The box of a pool is the inner half of its cell and a pixel around (56 px), or its cell (28 px): where in a chip the pool
lies is not known, and patches of 14 px around that half count as rim.
"""  # noqa: E501 - a table's rows


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture with the boxes of one category."""

    width: int
    height: int
    category: str
    boxes_xyxy_px: NDArray[np.float64]
    """(n, 4)"""


def raw_digest(data: Path) -> str:
    """Return a SHA-256 that tells held-out folders apart: of the raw annotations and its archives' names and sizes.

    Raises:
        DataError: A file is missing.
    """
    total = hashlib.sha256(f"{PROTOCOL} {_FORMAT}".encode())
    names = [f"boxes/{kind}/annotations.coco.json" for kind in ("aircraft", "vehicles")]
    try:
        for name in ("rsicd_aid/captions.jsonl", *names):
            total.update((data / name).read_bytes())
        for path in (*caption_tars(data), data / "chips" / "pools.tar"):
            total.update(f"{path.name} {path.stat().st_size}\n".encode())
    except OSError as error:
        raise DataError(
            "is missing", path=error.filename, remedy="give the folder of the training data with --data"
        ) from error
    return total.hexdigest()


def export_held_out(data: Path, out: Path, progress: Progress) -> Path:
    """Write the held-out side, the suite last.

    Args:
        data: Folder of the raw data.
        out: Folder to write; what an earlier run has written there is written again.
        progress: Told about every set.

    Returns:
        The suite.

    Raises:
        DataError: The raw data is missing or not as expected.
        UsageError: The folder lies in a repository, or holds something else.
    """
    _refuse_place(out)
    images = sorted((item for item in read_captions(data) if item.held_out), key=lambda item: hash_unit(item.name))
    (out / SUITE).unlink(missing_ok=True)
    counts = _write_scenes(images, data, out / "scenes", progress)
    counts |= _write_aircraft(data, out / "aircraft", progress)
    for gsd in CAR_GSDS_M:
        cars = vehicle_set(data, held_out=True, gsd_m=gsd)
        counts |= {"vehicles": len(cars.labels), "cars": sum(map(len, cars.boxes_xyxy_px))}
        export_boxes(cars, "vehicle", out / f"vehicles-{gsd:g}m", progress)
    for cell in POOL_CELLS_PX:
        pools = pool_set(data, held_out=True, cell_px=cell)
        counts["chips"] = max(counts.get("chips", 0), len(pools.labels) * (224 // cell) ** 2)
        export_boxes(pools, "pool", out / f"pools-{cell}px", progress)
    _write_calibration(out)
    text = _TERMS.format(protocol=PROTOCOL, suite=SUITE, aid_px=AID_PX, **counts)
    with atomic_file(out / "README.md", overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return write_suite(out)


def write_suite(out: Path) -> Path:
    """Write the measurements of the model card beside the folders that they read, and return their file."""
    _write_json(out / SUITE, suite())
    return out / SUITE


def _refuse_place(out: Path) -> None:
    """Refuse a place where data of these terms must not be, or where something else is."""
    if any((folder / ".git").exists() for folder in (out.absolute(), *out.absolute().parents)):
        raise UsageError("lies in a repository, where this data must not be", path=out, remedy="choose another folder")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in (SUITE, "scenes")):
        raise UsageError("holds something else", path=out, remedy="choose an empty folder")


def _write_scenes(images: list[CaptionedImage], data: Path, out: Path, progress: Progress) -> dict[str, int]:
    samples = aid_set(images, data)
    names = {image.name: _png(image.name) for image in images}
    for done, (key, pixels) in enumerate(zip(samples.keys, samples.load(samples.keys), strict=True), start=1):
        _write_png(out / names[key], pixels)
        progress(done, len(images), "scenes")
    records = [
        {
            "image": names[image.name], "width": AID_PX, "height": AID_PX, "source": f"{PROTOCOL} scenes",
            "captions": list(image.captions), "label": image.scene,
        }
        for image in images
    ]  # fmt: skip
    _write_lines(out / f"{CAPTIONS}.jsonl", records)
    for name, words in OTHER_WORDS.items():
        _write_lines(
            out / f"{name}.jsonl",
            ({**record, "label": words[str(record["label"])]} for record in records if record["label"] in words),
        )
    _write_json(out / f"{NAMES}.json", {scene: scene_name(scene) for scene in sorted({item.scene for item in images})})
    scenes = {image.scene for image in images}
    asked = {word: [name for name in names if name in scenes] for word, names in SCENE_QUESTIONS.items()}
    _write_json(out / f"{QUESTIONS}.json", {word: names for word, names in asked.items() if names})
    return {
        "images": len(images), "captions": sum(len(image.captions) for image in images),
        "seven": sum(image.scene in SEVEN for image in images),
        "twenty": sum(image.scene in TWENTY for image in images),
    }  # fmt: skip


def _write_aircraft(data: Path, out: Path, progress: Progress) -> dict[str, int]:
    from training.data.images import picture_size

    scenes = [scene for scene in read_aircraft(data) if scene.held_out]
    pictures = {}
    for done, scene in enumerate(scenes, start=1):
        name = f"images/{scene.path.name}"
        if not scene.path.exists():
            raise DataError("is missing", path=scene.path, remedy="complete the folder of the training data")
        with atomic_file(out / name, overwrite=True) as temporary:
            shutil.copyfile(scene.path, temporary)
        size = picture_size(scene.path.read_bytes(), scene.path.name)
        pictures[name] = _Picture(*size, "aircraft", scene.boxes_xyxy_px)
        progress(done, len(scenes), "aircraft")
    _write_coco(out, pictures)
    return {"scenes": len(scenes), "aircraft": sum(len(scene.boxes_xyxy_px) for scene in scenes)}


def export_boxes(dense: DenseSet, category: str, out: Path, progress: Progress) -> None:
    """Write samples as PNG files with their boxes, of one category, in COCO's layout.

    Args:
        dense: The samples.
        category: Name of the boxes.
        out: Folder to write.
        progress: Told after every picture.
    """
    keys = dense.samples.keys
    pictures = {}
    for done, (key, pixels, boxes) in enumerate(
        zip(keys, dense.samples.load(keys), dense.boxes_xyxy_px, strict=True), start=1
    ):
        name = f"images/{_png(key)}"
        _write_png(out / name, pixels)
        pictures[name] = _Picture(pixels.shape[1], pixels.shape[0], category, boxes)
        progress(done, len(keys), out.name)
    _write_coco(out, pictures)


def _write_calibration(out: Path) -> None:
    """Write the pictures of several folders into one, whose names tell what was looked for in them."""
    from training.evaluation.layouts.boxes import read_boxes

    pictures = {}
    for folder, category in _CALIBRATED_ON.items():
        for scene in read_boxes(out / folder).scenes:
            name = f"images/{category}/{scene.image.rpartition('/')[2]}"
            with atomic_file(out / _MIXED / name, overwrite=True) as temporary:
                shutil.copyfile(scene.root / scene.image, temporary)
            boxes = scene.boxes_xyxy_px.get(category, np.zeros((0, 4)))
            pictures[name] = _Picture(scene.width_px, scene.height_px, category, boxes)
    _write_coco(out / _MIXED, pictures)


def _write_coco(out: Path, pictures: Mapping[str, _Picture]) -> None:
    annotations: list[dict[str, Any]] = []
    images = []
    categories = list(dict.fromkeys(picture.category for picture in pictures.values()))
    for number, (name, picture) in enumerate(pictures.items(), start=1):
        images.append({"id": number, "file_name": name, "width": picture.width, "height": picture.height})
        for left, top, right, bottom in picture.boxes_xyxy_px.tolist():
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": categories.index(picture.category) + 1,
                "bbox": [left, top, right - left, bottom - top],
            })  # fmt: skip
    named = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
    _write_json(out / "annotations.coco.json", {"images": images, "annotations": annotations, "categories": named})


def _png(name: str) -> str:
    return f"{name.removesuffix('.jpg')}.png"


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image

    with atomic_file(path, overwrite=True) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, "PNG")


def _write_lines(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def suite() -> dict[str, Any]:
    """Return the measurements of the model card, as :func:`training.evaluation.suite.read_suite` takes them."""
    scenes = f"scenes/{CAPTIONS}.jsonl"
    found: list[dict[str, Any]] = [
        {"name": CAPTIONS, "task": "retrieval", "data": scenes, "protocol": "retrieval-own"},
        {
            "name": NAMES, "task": "classify", "data": scenes, "protocol": "zsc-folders",
            "settings": {"templates": "model", "words": {"file": f"scenes/{NAMES}.json"}},
        },
        *(
            {
                "name": name, "task": "classify", "data": f"scenes/{name}.jsonl", "protocol": "zsc-folders",
                "settings": {"templates": "model"},
            }
            for name in OTHER_WORDS
        ),
        {
            "name": QUESTIONS, "task": "presence", "data": scenes, "protocol": "presence-quarter",
            "settings": {"questions": {"file": f"scenes/{QUESTIONS}.json"}},
        },
    ]  # fmt: skip
    for name in PATCHES:
        folder = "aircraft" if name.startswith(AIRCRAFT) else name
        kind = {"aircraft": "aircraft", "vehicles": "vehicle", "pools": "pool"}[folder.partition("-")[0]]
        settings: dict[str, str | int | float] = {"words": f"{kind}={'|'.join(DENSE_WORDS[kind])}"}
        if name == ASKED:
            settings |= {"source_gsd": 0.5, "gsd": 0.5}
        elif kind == "vehicle":
            settings["window_px"] = _WHOLE_PX
        elif name.endswith(f"-{WIDE_PX}px"):
            settings["window_px"] = WIDE_PX
        protocol = "point-program" if name == ASKED else "point-windows"
        found.append({"name": name, "task": "point", "data": folder, "protocol": protocol, "settings": settings})
    words = ";".join(f"{kind}={'|'.join(DENSE_WORDS[kind])}" for kind in _CALIBRATED_ON.values())
    found.append({
        "name": CALIBRATION, "task": "calibrate", "data": _MIXED, "protocol": "calibration-program",
        "settings": {"words": words, "unboxed": "unknown", "most": _PLACES_EACH},
    })  # fmt: skip
    return {"title": f"The model card, on the held-out side of {PROTOCOL}", "measurements": found}
