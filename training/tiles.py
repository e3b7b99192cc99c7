"""Tiles on disk, as ``geoalign-tile`` wrote them, as a data set for torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tiling.chips.manifest import read_manifest
from tiling.errors import RasterReadError, UsageError
from tiling.raster import open_raster
from tiling.source import SourceRect, read_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiling.chips.manifest import Chip


class TileDataset(Dataset[dict[str, Any]]):
    """The tiles of a manifest, or of one part of its split.

    An item is a dictionary: ``image`` (C, h, w) tensor of the tiles' own type; ``valid`` (h, w) bool tensor, all
    True for formats that cannot tell; ``index``, the row of the manifest; ``path``. Files are opened one by one
    and closed again, so the data set can be handed to any number of worker processes, started by spawning.

    Args:
        folder: A folder of tiles, or the manifest's table.
        part: Name of a part of the split; None takes every tile.

    Raises:
        ManifestError: There is no manifest.
        UsageError: The part does not exist.
    """

    def __init__(self, folder: str | Path, part: str | None = None) -> None:
        self.manifest = read_manifest(folder)
        parts = sorted({chip.split for chip in self.manifest.chips if chip.split})
        if part is not None and part not in parts:
            raise UsageError("has no such part", path=folder, measured=part, remedy=f"use {', '.join(parts) or 'none'}")
        self._rows = [row for row, chip in enumerate(self.manifest.chips) if part is None or chip.split == part]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        chip = self.manifest.chips[row]
        array, valid = self._read(chip)
        if valid is None:
            valid = np.ones(array.shape[-2:], np.bool_)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(array)),
            "valid": torch.from_numpy(valid),
            "index": row,
            "path": chip.path,
        }

    def _read(self, chip: Chip) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        path = self.manifest.folder / chip.path
        if path.suffix == ".npy":
            try:
                return np.load(path, allow_pickle=False), None
            except (OSError, ValueError) as error:
                raise RasterReadError("is not an array of samples", path=path, remedy="cut the tiles again") from error
        with open_raster(path) as raster:
            whole = SourceRect(0, 0, raster.info.width_px, raster.info.height_px)
            return read_source(raster, tuple(range(1, raster.info.count + 1)), whole)
