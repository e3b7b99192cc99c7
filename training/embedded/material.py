"""What the tuning of the embedded model learns from: captioned images in two views, and windows with boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from training.embedded.data import hash_unit, read_captions
from training.embedded.middle import cache_middle
from training.embedded.phrases import label_images
from training.embedded.samples import (
    CAR_GSDS_M,
    POOL_CELLS_PX,
    aid_set,
    aid_view_set,
    aircraft_set,
    pool_set,
    vehicle_set,
)
from training.embedded.tune import Material, Windows

if TYPE_CHECKING:
    from pathlib import Path

    from geoalign_core.models.embedded import Towers
    from tiling.progress import Progress
    from training.embedded.samples import DenseSet

_WINDOW_PX = 224


def gather_material(data: Path, towers: Towers, blocks: int, work: Path, progress: Progress) -> Material:
    """Compute the hidden states behind the first ``blocks`` blocks of everything on the training side of the split.

    Args:
        data: Folder of the training data.
        towers: As they were pretrained.
        blocks: Blocks that stay as they are.
        work: Folder of the cache; about 4 GB.
        progress: Told about every stage.

    Raises:
        DataError: The data is missing.
    """
    images = [image for image in read_captions(data) if not image.held_out]
    images.sort(key=lambda image: hash_unit(image.name))
    sets: dict[str, list[tuple[DenseSet, int]]] = {
        "aircraft": [
            (aircraft_set(data, held_out=False, gsd_m=0.5, window_px=_WINDOW_PX, windows=36, far=2), 12),
            (aircraft_set(data, held_out=False, gsd_m=1.0, window_px=_WINDOW_PX, windows=12, far=2), 4),
        ],
        "vehicle": [(vehicle_set(data, held_out=False, gsd_m=gsd), 3) for gsd in CAR_GSDS_M],
        "pool": [(pool_set(data, held_out=False, cell_px=cell), 3) for cell in POOL_CELLS_PX],
    }
    return Material(
        images=images,
        views=[cache_middle(view(images, data), towers, blocks, work, progress) for view in (aid_set, aid_view_set)],
        phrase_labels=torch.from_numpy(label_images(images).labels),
        windows={
            kind: [
                Windows(cache_middle(part.samples, towers, blocks, work, progress), part.labels, per_step)
                for part, per_step in parts
            ]
            for kind, parts in sets.items()
        },
    )
