"""Tiles on disk feed torch's loader as they were cut."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from torch.utils.data import DataLoader

from tiling.cli import command
from tiling.clikit import run_cli
from tiling.errors import UsageError
from training.tiles import TileDataset


@pytest.mark.parametrize("form", ["tif", "npy", "png"])
def test_items_are_the_tiles(make_raster, tmp_path, form):
    array = np.random.default_rng(0).integers(1, 255, (3, 64, 96)).astype(np.uint8)
    array[:, :8] = 0
    path = make_raster(array, nodata=0, photometric="RGB")
    assert run_cli(command, [str(path), "-o", str(tmp_path / "out"), "--tile", "32", "--format", form]) == 0
    data = TileDataset(tmp_path / "out")
    assert len(data) == 6
    for batch in DataLoader(data, batch_size=4):
        assert batch["image"].shape[1:] == (3, 32, 32)
    item = data[4]
    window = data.manifest.chips[item["index"]].window
    rows, cols = slice(window.row_off_px, window.row_end_px), slice(window.col_off_px, window.col_end_px)
    np.testing.assert_array_equal(item["image"].numpy(), array[:, rows, cols])
    with rasterio.open(path) as source:
        valid = source.dataset_mask()[:32, :32] > 0
    if form == "tif":
        np.testing.assert_array_equal(data[0]["valid"].numpy(), valid)


def test_parts(make_raster, tmp_path):
    path = make_raster(np.ones((1, 128, 128), np.uint8))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--tile", "16", "--split", "train=3,val=1"]
    assert run_cli(command, arguments) == 0
    train, val = (TileDataset(tmp_path / "out", part) for part in ("train", "val"))
    assert len(train) > len(val) > 0
    assert not {item["path"] for item in train} & {item["path"] for item in val}
    with pytest.raises(UsageError, match="train, val"):
        TileDataset(tmp_path / "out", "test")
