"""Small pictures on the disk, and jobs of geoalign-eval on them."""

from __future__ import annotations

import functools
import json

import numpy as np
from PIL import Image

from tiling.progress import CancelToken, silent
from training.evaluation.task import Job


def picture(path, seed=0, size=(48, 40)):
    """Write a picture of coarse random colours and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(coarse.repeat(8, axis=0).repeat(8, axis=1)).save(path)
    return path


def lines(path, items):
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


@functools.cache
def encoder(folder):
    """Load a model once."""
    from geoalign_core.models import load_encoder

    return load_encoder(str(folder), device="cpu")


def job(data, model, cache, protocol, **more):
    """Describe a run; ``settings`` are keyword arguments that a job does not have."""
    own = {key: more.pop(key) for key in ("split", "limit", "trust_pickle", "progress", "cancel") if key in more}
    values = {"progress": silent, "cancel": CancelToken(), **own}
    return Job(
        data=data, protocol=protocol, encoder=lambda: encoder(model), cache=cache,
        settings={key: str(value) for key, value in more.items()}, **values,
    )  # fmt: skip


def whole(encoder, path):
    """Give the vector of a picture, not by way of a bank."""
    from geoalign_core.features import encode_images

    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return encode_images(encoder, [np.ascontiguousarray(array)])[0]
