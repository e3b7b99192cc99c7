"""How fast windows are read, against a plain rasterio loop in the same run.

    python benchmarks/read_windows.py [IMAGE] [--side 8192] [--runs 5] [--jobs 2]

An image (by default the sample of the repository) is mirrored into a deflate raster of 8192 × 8192 px in tiles of
512. Both readers then cut it into windows of 512 px with 20 % overlap, in turns; each run is a process of its own,
so that the peak of its memory can be told. The two files are open before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Figures = dict[str, float]
REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))


def make_raster(source: Path, target: Path, side_px: int) -> None:
    """Mirror an image until it fills a square raster."""
    import numpy as np
    import rasterio

    with rasterio.open(source) as image:
        tile = image.read([1, 2, 3])
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": image.crs, "transform": image.transform}
    both = np.concatenate([tile, tile[:, :, ::-1]], axis=2)
    both = np.concatenate([both, both[:, ::-1]], axis=1)
    repeat = [1, -(-side_px // both.shape[1]), -(-side_px // both.shape[2])]
    whole = np.tile(both, repeat)[:, :side_px, :side_px]
    profile |= {"width": side_px, "height": side_px, "tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(target, "w", compress="deflate", predictor=2, **profile) as out:
        out.write(whole)


def peak_mb() -> float:
    """Return this process's peak resident memory."""
    # Not getrusage: its peak is inherited from the parent process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def plain(path: Path) -> Figures:
    """Read windows one by one, as one would without this package."""
    import rasterio
    from rasterio.windows import Window

    from tiling.grid import TileGrid

    with rasterio.open(path) as dataset:
        windows = [
            Window(w.col_off_px, w.row_off_px, w.width_px, w.height_px)
            for w in TileGrid(dataset.width, dataset.height, 512, 410)
        ]
        return measure(dataset.read([1, 2, 3], window=window) for window in windows)


def ours(path: Path, jobs: int) -> Figures:
    """Read windows with read_windows."""
    from tiling import TileGrid, choose_bands, open_raster, pixel_canvas, plan_stretch, read_windows

    with open_raster(path) as raster:
        canvas, bands = pixel_canvas(raster.info), choose_bands(raster.info)
        grid = TileGrid(canvas.width_px, canvas.height_px, 512, 410)
        stretch = plan_stretch(raster, bands)
        return measure(read_windows(raster, canvas, grid, bands=bands, stretch=stretch, jobs=jobs))


def measure(tiles: Iterable[object]) -> Figures:
    """Drain an iterator of windows and tell how long it took and how much memory."""
    before, begun, busy = peak_mb(), time.perf_counter(), time.process_time()
    count = sum(1 for _ in tiles)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - busy
    return {"windows": count, "seconds": seconds, "cpu": cpu, "rss_mb": peak_mb() - before}


def main() -> None:
    """Run the readers in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, default=REPO / "samples" / "canal.tif")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--child", choices=["plain", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(plain(args.image) if args.child == "plain" else ours(args.image, args.jobs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mirrored.tif"
        make_raster(args.image, path, args.side)
        results: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
        for _ in range(args.runs):
            for reader, runs in results.items():
                command = [sys.executable, __file__, str(path), "--jobs", str(args.jobs), "--child", reader]
                runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    rates = {}
    for reader, runs in results.items():
        rates[reader] = statistics.median(run["windows"] / run["seconds"] for run in runs)
        seconds, cpu, rss = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "rss_mb"))
        print(
            f"{reader:5}  {rates[reader]:5.0f} windows/s  {seconds:.3f} s  {cpu:.3f} s CPU  {rss:.0f} MB more at peak"
        )
    print(f"ratio  {rates['ours'] / rates['plain']:.2f}")


if __name__ == "__main__":
    main()
