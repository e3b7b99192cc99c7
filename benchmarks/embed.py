"""Windows embedded per second: the index builder against a sliding window that reads and embeds one at a time.

The peer is what most notebooks do: open the raster, read each window at full resolution, resize it to the model's
ground resolution, embed it alone. Both see the same windows of the same raster with the same model, in one run, in
turns; the figure is the ratio of the medians.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window as SourceWindow
from torch.nn.functional import interpolate

from geoalign_core.indexing import build_index, plan_index
from geoalign_core.models import load_encoder
from tiling.raster import open_raster

REPO = Path(__file__).resolve().parents[1]
ROUNDS = 3
SIDE_PX = 2000


def mosaic(folder: Path) -> Path:
    """Mirror the sample to a 500 m × 500 m raster."""
    with rasterio.open(REPO / "samples" / "canal.tif") as source:
        tile, profile = source.read(), source.profile
    wide = np.concatenate([tile, tile[:, :, ::-1]] * (SIDE_PX // 2000), axis=2)
    image = np.concatenate([wide, wide[:, ::-1]] * (SIDE_PX // 2000), axis=1)
    path = folder / "mosaic.tif"
    profile.update(width=SIDE_PX, height=SIDE_PX, compress="deflate", photometric="rgb", blockxsize=512, blockysize=512)
    with rasterio.open(path, "w", **profile) as out:
        out.write(image)
    return path


def one_at_a_time(path: Path, encoder, spec) -> int:
    level = spec.levels[0]
    count = 0
    with rasterio.open(path) as source:
        for window in level.grid:
            scale = level.canvas.scale_x
            at = SourceWindow(
                window.col_off_px * scale, window.row_off_px * scale, window.width_px * scale, window.height_px * scale
            )
            image = torch.from_numpy(source.read(window=at)).float()[None]
            image = interpolate(image, size=(window.height_px, window.width_px), mode="bilinear", antialias=True)
            encoder.encode_raw(image.round().byte().numpy())
            count += 1
    return count


def main() -> None:
    encoder = load_encoder()
    ours, peer, windows = [], [], 0
    with tempfile.TemporaryDirectory() as name:
        path = mosaic(Path(name))
        with open_raster(path) as raster:
            spec = plan_index(raster, encoder)
            for _ in range(ROUNDS):
                start = time.perf_counter()
                windows = one_at_a_time(path, encoder, spec)
                peer.append(windows / (time.perf_counter() - start))
                start = time.perf_counter()
                build_index(raster, encoder, spec)
                ours.append(sum(len(level.grid) for level in spec.levels) / (time.perf_counter() - start))
                shutil.rmtree(path.with_name(path.name + ".geoalign"))
    mine, theirs = statistics.median(ours), statistics.median(peer)
    print(
        f"{windows} windows of {spec.levels[0].grid.tile_px} px at {spec.levels[0].canvas.gsd_m:.2f} m, {ROUNDS} rounds"
    )
    print(f"index builder {mine:.2f} windows/s, one at a time {theirs:.2f} windows/s: ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    main()
