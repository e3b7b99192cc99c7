"""One measurement in a process of its own: ``python tile_runs.py CONTESTANT RASTER [NUMBER]`` prints its figures.

Run by ``tile_peers.py``, also with the interpreters of the peers' environments, so each contestant imports what it
needs and nothing else. The clock starts with the files open, except where a peer opens them itself. Memory is the
peak over what the imports took.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

TILE, OVERLAP = 512, 102
STRIDE = TILE - OVERLAP


def peak_mb() -> float:
    """Return this process's peak resident memory; getrusage's would include the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Clock:
    """Figures from the imports on: ``imported()``, ``begun()``, then ``done(count)``."""

    def imported(self) -> None:
        self.before_mb = peak_mb()

    def begun(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def done(self, count: int) -> dict[str, float]:
        seconds, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"count": count, "seconds": seconds, "cpu": cpu, "rss_mb": peak_mb() - self.before_mb}


def starts(length: int, stride: int = STRIDE) -> list[int]:
    """Return where windows begin along an axis, the last one shifted back."""
    return [*range(0, length - TILE, stride), length - TILE]


def ours(clock: Clock, path: str, factor: float = 1, stride: int = STRIDE, picture: bool = True):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tiling import TileGrid, choose_bands, open_raster, pixel_canvas, plan_canvas, plan_stretch
    from tiling.reader import read_raw, read_windows

    clock.imported()
    with open_raster(path) as raster:
        canvas = pixel_canvas(raster.info) if factor == 1 else plan_canvas(raster.info, raster.info.gsd_m * factor)
        bands, grid = choose_bands(raster.info), TileGrid(canvas.width_px, canvas.height_px, TILE, stride)
        stretch = plan_stretch(raster, bands)
        clock.begun()
        if picture:
            tiles = read_windows(raster, canvas, grid, bands=bands, stretch=stretch)
        else:
            tiles = read_raw(raster, canvas, grid, indexes=bands.indexes)
        return clock.done(sum(1 for _ in tiles))


def ours_floats(clock: Clock, path: str, _: float):
    """Yield float32 patches, as torchgeo does."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tiling import TileGrid, choose_bands, open_raster, pixel_canvas
    from tiling.reader import read_raw

    clock.imported()
    with open_raster(path) as raster:
        canvas, bands = pixel_canvas(raster.info), choose_bands(raster.info)
        grid = TileGrid(canvas.width_px, canvas.height_px, TILE, STRIDE)
        clock.begun()
        tiles = read_raw(raster, canvas, grid, indexes=bands.indexes)
        return clock.done(sum(1 for tile in tiles if tile.array.astype("float32").size))


def ours_aligned(clock: Clock, path: str, _: float):
    return ours(clock, path, stride=TILE, picture=False)


def plain(clock: Clock, path: str, _: float):
    """Read windows one by one with rasterio."""
    import rasterio
    from rasterio.windows import Window

    clock.imported()
    with rasterio.open(path) as dataset:
        windows = [Window(x, y, TILE, TILE) for y in starts(dataset.height) for x in starts(dataset.width)]
        clock.begun()
        return clock.done(sum(1 for window in windows if dataset.read([1, 2, 3], window=window).size))


def plain_coarse(clock: Clock, path: str, factor: float):
    """Read each window at full resolution; the time to reduce it is not even counted."""
    import rasterio
    from rasterio.windows import Window

    clock.imported()
    step, side = int(factor), TILE * int(factor)
    with rasterio.open(path) as dataset:
        corners = [(x * step, y * step) for y in starts(dataset.height // step) for x in starts(dataset.width // step)]
        windows = [Window(x, y, side, side) for x, y in corners]
        clock.begun()
        return clock.done(sum(1 for window in windows if dataset.read([1, 2, 3], window=window).size))


def pattern(clock: Clock, path: str, banded: bool, threads: int):
    """Read every pixel once with rasterio, in blocks or in bands of the full width."""
    import rasterio
    from rasterio.windows import Window

    clock.imported()
    own = local()
    with rasterio.open(path) as dataset:
        width, height = dataset.width, dataset.height
    across = width if banded else TILE
    windows = [Window(x, y, across, TILE) for y in range(0, height, TILE) for x in range(0, width, across)]

    def read(window) -> int:
        if not hasattr(own, "dataset"):
            own.dataset = rasterio.open(path, sharing=False)
        return own.dataset.read([1, 2, 3], window=window).size

    with ThreadPoolExecutor(threads) as pool:
        clock.begun()
        return clock.done(sum(1 for size in pool.map(read, windows) if size))


def sahi(clock: Clock, path: str, _: float):
    from sahi.slicing import slice_image

    clock.imported()
    clock.begun()
    ratio = OVERLAP / TILE
    slices = slice_image(
        path, slice_height=TILE, slice_width=TILE, overlap_height_ratio=ratio, overlap_width_ratio=ratio
    )
    return clock.done(len(slices))


def supervision(clock: Clock, path: str, _: float):
    import rasterio
    import supervision as sv

    clock.imported()
    seen = []

    def callback(tile) -> sv.Detections:
        seen.append(tile.shape)
        return sv.Detections.empty()

    slicer = sv.InferenceSlicer(callback, slice_wh=TILE, overlap_wh=OVERLAP, thread_workers=2)
    with rasterio.open(path) as dataset:
        clock.begun()
        slicer(dataset)
        return clock.done(len(seen))


def torchgeo(clock: Clock, path: str, _: float):
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    clock.imported()
    dataset = RasterDataset(path)
    loader = DataLoader(dataset, sampler=GridGeoSampler(dataset, size=TILE, stride=STRIDE), collate_fn=stack_samples)
    clock.begun()
    return clock.done(sum(len(batch["image"]) for batch in loader))


def plain_write(clock: Clock, path: str, folder: str):
    """Write windows one by one with rasterio."""
    import rasterio
    from rasterio.windows import Window

    clock.imported()
    count = 0
    with rasterio.open(path) as dataset:
        clock.begun()
        for y in starts(dataset.height):
            for x in starts(dataset.width):
                window = Window(x, y, TILE, TILE)
                profile = {"driver": "GTiff", "width": TILE, "height": TILE, "count": 3, "dtype": "uint8"}
                profile |= {"crs": dataset.crs, "transform": dataset.window_transform(window), "compress": "deflate"}
                with rasterio.open(Path(folder) / f"{y}_{x}.tif", "w", **profile) as out:
                    out.write(dataset.read([1, 2, 3], window=window))
                count += 1
        return clock.done(count)


PATTERNS = {f"{shape} {threads}": (shape == "bands", threads) for shape in ("blocks", "bands") for threads in (1, 2)}
CONTESTANTS = {
    "ours": ours,
    "ours-floats": ours_floats,
    "ours-aligned": ours_aligned,
    "plain": plain,
    "plain-coarse": plain_coarse,
    "plain-write": plain_write,
    "sahi": sahi,
    "supervision": supervision,
    "torchgeo": torchgeo,
}


def main() -> None:
    name, path, *more = sys.argv[1:]
    clock = Clock()
    if name in PATTERNS:
        figures = pattern(clock, path, *PATTERNS[name])
    elif name == "plain-write":
        figures = plain_write(clock, path, more[0])
    else:
        figures = CONTESTANTS[name](clock, path, float(more[0]) if more else 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
