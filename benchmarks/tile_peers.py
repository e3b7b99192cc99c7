"""Tiling against its peers, on two cores, in turns, each measurement in a process of its own.

    python benchmarks/tile_peers.py [--only read,write,torchgeo,coarse,codecs] [--runs 5] [--side 8192] [--image IMAGE]

An image (by default the sample of the repository) is mirrored into rasters of 8192 × 8192 px. Peers are installed
on first use, see ``peers.py``. The table shows medians; a ratio is the median of the ratios of each round. Figures
are good to a tenth when the machine does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from peers import Peer, gdal_retile, last_line, python_peer, run

REPO = Path(__file__).resolve().parents[1]
RUNS = Path(__file__).with_name("tile_runs.py")
Figures = dict[str, float]
CODECS = {
    "striped": {"compress": "deflate", "predictor": 2, "tiled": False},
    "uncompressed": {},
    "JPEG": {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 85},
    "LZW": {"compress": "lzw", "predictor": 2},
    "ZSTD": {"compress": "zstd", "predictor": 2},
    "WebP": {"compress": "webp", "webp_lossless": True},
    "16-bit": {"compress": "deflate", "predictor": 2, "dtype": "uint16"},
}


@dataclass
class Bench:
    """What the contests share."""

    folder: Path
    image: Path
    side: int
    runs: int
    table: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def raster(self, name: str, side: int = 0, **profile) -> Path:
        """Return a raster of the mirrored image, written on first use; ``driver="COG"`` adds overviews."""
        path = self.folder / f"{name}.tif"
        if not path.exists():
            make_raster(self.image, path, side or self.side, **profile)
        return path

    def measure(self, contestants: dict[str, list[str]]) -> dict[str, list[Figures]]:
        """Run commands of ``tile_runs.py`` in turns; a peer that fails is left out."""
        results: dict[str, list[Figures]] = {name: [] for name in contestants}
        for _ in range(self.runs):
            for name in list(results):
                done = run(contestants[name])
                if done.returncode == 0:
                    results[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
                elif name.startswith("ours"):
                    raise SystemExit(f"{' '.join(contestants[name])} failed:\n{done.stderr}")
                else:
                    print(f"left out: {name} failed: {last_line(done.stderr)}")
                    del results[name]
        counts = {name: int(figures[0]["count"]) for name, figures in results.items()}
        print("   " + ", ".join(f"{name} {summary(figures)}" for name, figures in results.items()))
        print(f"   tiles: {', '.join(f'{name} {count}' for name, count in counts.items())}", flush=True)
        return results

    def row(self, contest: str, mine: list[Figures], theirs: list[Figures], peer: str, goal: float) -> None:
        """Add a row of time relative to a peer's."""
        value = ratio(mine, theirs)
        self.add(contest, f"{seconds(mine):.2f} s", f"{seconds(theirs):.2f} s ({peer})", f"{value:.2f}", value, goal)

    def add(
        self, contest: str, mine: str, theirs: str, shown: str, value: float, goal: float, *, at_least: bool = False
    ) -> None:
        met = value >= goal if at_least else value <= goal
        verdict = f"{'≥' if at_least else '≤'} {goal:g}: {'met' if met else 'MISSED'}"
        self.table.append((contest, mine, theirs, shown, verdict))
        print(f"{contest}: {mine}, {theirs}, {shown} ({verdict})", flush=True)


def make_raster(source: Path, target: Path, side: int, **options) -> None:
    """Mirror an image until it fills a square raster."""
    import numpy as np
    import rasterio

    with rasterio.open(source) as image:
        tile = image.read([1, 2, 3])
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": image.crs, "transform": image.transform}
    both = np.concatenate([tile, tile[:, :, ::-1]], axis=2)
    both = np.concatenate([both, both[:, ::-1]], axis=1)
    whole = np.tile(both, [1, -(-side // both.shape[1]), -(-side // both.shape[2])])[:, :side, :side]
    if options.get("dtype") == "uint16":
        # Noise in the lower bits, as a sensor of 12 bits has it.
        whole = whole.astype("uint16") * 16 + np.random.default_rng(0).integers(0, 16, whole.shape, dtype="uint16")
    profile |= {"width": side, "height": side}
    if options.get("driver") == "COG":
        profile |= {"blocksize": 512}
    elif options.get("tiled", True):
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(target, "w", **(profile | options)) as out:
        out.write(whole)


def child(name: str, raster: Path, *more: object, python: Peer | None = None) -> list[str]:
    start = python.command if python else [sys.executable]
    return [*start, str(RUNS), name, str(raster), *map(str, more)]


def seconds(figures: list[Figures], key: str = "seconds") -> float:
    return statistics.median(run[key] for run in figures)


def ratio(mine: list[Figures], theirs: list[Figures]) -> float:
    return statistics.median(a["seconds"] / b["seconds"] for a, b in zip(mine, theirs, strict=True))


def summary(figures: list[Figures]) -> str:
    shown = f"{seconds(figures):.3f} s"
    if "cpu" in figures[0]:
        shown += f" ({seconds(figures, 'cpu'):.3f} s CPU, {seconds(figures, 'rss_mb'):.0f} MB)"
    return shown


def read(bench: Bench) -> None:
    """Windows of 512 px with 20 % overlap from deflate blocks of 512 px."""
    slicers = python_peer("slicers", "sahi", "supervision", "rasterio")
    path = bench.raster("deflate", compress="deflate", predictor=2)
    contestants = {"ours": child("ours", path), "plain rasterio loop": child("plain", path)}
    if slicers:
        print(f"   {slicers.version}")
        for name in ("sahi", "supervision"):
            contestants[name] = child(name, path, python=slicers)
    results = bench.measure(contestants)
    for name, figures in results.items():
        if name != "ours":
            bench.row("read 400 windows", results["ours"], figures, name, 0.6 if name.startswith("plain") else 1)
    large = bench.raster("large", bench.side * 2, compress="deflate", predictor=2)
    more = bench.measure({"ours": child("ours", large)})
    peak, larger = seconds(results["ours"], "rss_mb"), seconds(more["ours"], "rss_mb")
    bench.add("peak memory over import", f"{peak:.0f} MB", "", "", peak, 150)
    bench.add(
        "the same, raster 4 times larger", f"{larger:.0f} MB", f"{peak:.0f} MB", f"{larger / peak:.2f}", larger, 150
    )


def torchgeo(bench: Bench) -> None:
    """Patches as float32 from one COG, in one process."""
    peer = python_peer("torchgeo", "torch", "torchgeo", "requests")
    if peer is None:
        return
    print(f"   {peer.version}")
    path = bench.raster("cog", driver="COG", compress="deflate", predictor="YES")
    results = bench.measure({"ours": child("ours-floats", path), "torchgeo": child("torchgeo", path, python=peer)})
    if "torchgeo" not in results:
        return
    rates = {name: statistics.median(run["count"] / run["seconds"] for run in runs) for name, runs in results.items()}
    mine, theirs = rates.values()
    bench.add(
        "torchgeo patches/s",
        f"{mine:.0f}/s",
        f"{theirs:.0f}/s",
        f"{mine / theirs:.1f} ×",
        mine / theirs,
        2,
        at_least=True,
    )


def coarse(bench: Bench) -> None:
    """The model's pixel four and eight times coarser, from overviews, against reading the full resolution."""
    path = bench.raster("large-cog", bench.side * 2, driver="COG", compress="deflate", predictor="YES")
    for factor, goal in ((4, 4), (8, 15)):
        results = bench.measure({"ours": child("ours", path, factor), "plain": child("plain-coarse", path, factor)})
        gain = 1 / ratio(results["ours"], results["plain"])
        times = [f"{seconds(results[name]):.3f} s" for name in ("ours", "plain")]
        bench.add(f"{factor} × coarser", *times, f"{gain:.1f} ×", gain, goal, at_least=True)


def codecs(bench: Bench) -> None:
    """Each pixel once in windows of 512 px, against the best of four ways to read a file with rasterio."""
    for codec, profile in CODECS.items():
        path = bench.raster(codec.replace(" ", "-"), **profile)
        patterns = [f"{shape} {threads}" for shape in ("blocks", "bands") for threads in (1, 2)]
        results = bench.measure({name: child(name, path) for name in ("ours-aligned", *patterns)})
        best = min(patterns, key=lambda name: seconds(results[name]))
        bench.row(codec, results["ours-aligned"], results[best], f"{best} thread{'s' * best.endswith('2')}", 1.3)
        path.unlink()


def write(bench: Bench) -> None:
    """Overlapping tiles as GeoTIFF, deflate; whole commands, with the start of the interpreter."""
    path = bench.raster("deflate", compress="deflate", predictor=2)
    mine = [sys.executable, "-m", "tiling.cli", str(path), "--tile", "512px", "--overlap", "102px"]
    commands = {
        "ours": (lambda out: [*mine, "--min-valid", "0.01", "-o", out], {"PYTHONPATH": str(REPO)}),
        "plain rasterio loop": (lambda out: child("plain-write", path, out), {}),
    }
    peer = gdal_retile()
    if peer:
        print(f"   {peer.version}")
        sizes = ["-ps", "512", "512", "-overlap", "102", "-co", "COMPRESS=DEFLATE"]
        commands["gdal_retile.py"] = (lambda out: [*peer.command, *sizes, "-targetDir", out, str(path)], peer.environ)
    results: dict[str, list[Figures]] = {name: [] for name in commands}
    for _ in range(bench.runs):
        for name, (command, environ) in commands.items():
            results[name].append(run_command(command, environ, bench.folder))
    for name, figures in results.items():
        print(f"   {name} {summary(figures)}, {figures[0]['count']:.0f} tiles, {figures[0]['mb']:.0f} MB")
    for name, figures in results.items():
        if name != "ours":
            bench.row("write 400 tiles", results["ours"], figures, name, 0.65 if peer and "retile" in name else 1)


def run_command(command, environ: dict[str, str], folder: Path) -> Figures:
    """Time a command that fills a folder with tiles."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        begun = time.perf_counter()
        done = run(command(out), environ)
        took = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"{' '.join(command(out))} failed:\n{done.stderr}")
        tiles = list(Path(out).rglob("*.tif"))
        return {"count": len(tiles), "seconds": took, "mb": sum(tile.stat().st_size for tile in tiles) / 1e6}


def main() -> None:
    contests = {"read": read, "write": write, "torchgeo": torchgeo, "coarse": coarse, "codecs": codecs}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(contests))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--image", type=Path, default=REPO / "samples" / "canal.tif")
    parser.add_argument("--folder", type=Path, help="keep the rasters here for the next time")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, options.image, options.side, options.runs)
        for name in options.only.split(","):
            print(f"\n{name}: {contests[name].__doc__}", flush=True)
            contests[name](bench)
    print()
    header = ("contest", "ours", "peer", "ratio", "goal")
    widths = [max(len(row[at]) for row in (header, *bench.table)) for at in range(5)]
    for row in (header, *bench.table):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
