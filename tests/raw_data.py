"""A tiny made-up set in the layouts of the raw data that the embedded model learns from."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
from PIL import Image

from tests.data_tools import put, tar
from training.embedded.data import AID_HELD_OUT, POOLS_HELD_OUT, hash_unit

SCENES = ("Beach", "Forest", "Parking", "River", "Pond")


def jpeg(pixels) -> bytes:
    """The bytes of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def coarse(seed, size, cells=10):
    """Smooth random colours (size, size, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def named(pattern, most, count, *, held_out=True):
    """The first names of a pattern that the split holds out, or keeps."""
    names = (pattern.format(number) for number in itertools.count())
    return list(itertools.islice((name for name in names if (hash_unit(name) < most) == held_out), count))


def raw_data(folder, *, per_scene=2, chips=64):
    """Write captioned images, aircraft, cars and pool chips, all held out but one image; give the folder."""
    pictures, records = [], []
    for seed, scene in enumerate(SCENES):
        names = named(f"{scene}/{scene.lower()}_{{}}.jpg", AID_HELD_OUT, per_scene)
        for number, name in enumerate(names):
            pictures.append((name, jpeg(coarse([seed, number], 150))))
            own = [f"a {scene.lower()} number {number}", "it is seen from above", "it is seen from above"]
            records.append({"image": name, "class": scene, "split": "train", "captions": own[: 2 + number]})
    (kept,) = named("Beach/beach_{}.jpg", AID_HELD_OUT, 1, held_out=False)
    pictures.append((kept, jpeg(coarse(99, 150))))
    records.append({"image": kept, "class": "Beach", "split": "train", "captions": ["a kept beach"]})
    put(folder / "rsicd_aid" / "captions.jsonl", records)
    tar(folder / "rsicd_aid" / "images-0.tar", pictures)
    for kind, size, boxes in (
        ("aircraft", 300, [[40, 60, 90, 70], [200, 180, 60, 80]]),
        ("vehicles", 640, [[100, 120, 80, 40], [400, 300, 45, 80]]),
    ):
        images = [f"images/{kind}_{number}.jpg" for number in range(2)]
        for number, name in enumerate(images):
            pixels = coarse([7, number, size], size).copy()
            for x, y, width, height in boxes:
                pixels[y : y + height, x : x + width] = (250, 250, 250)
            put(folder / "boxes" / kind / name, jpeg(pixels))
        whole = {
            "images": [{"id": n, "file_name": name, "width": size, "height": size} for n, name in enumerate(images)],
            "annotations": [
                {"id": 2 * n + m, "image_id": n, "category_id": 3, "bbox": box}
                for n in range(2) for m, box in enumerate(boxes)
            ],
            "categories": [{"id": 3, "name": "thing"}],
        }  # fmt: skip
        put(folder / "boxes" / kind / "annotations.coco.json", json.dumps(whole))
    cells = [
        (name, jpeg(coarse([5, number], 50, 4)))
        for part in ("pools", "none")
        for number, name in enumerate(named(f"{part}/{{}}.jpg", POOLS_HELD_OUT, chips // 2))
    ]
    tar(folder / "chips" / "pools.tar", cells)
    return folder
