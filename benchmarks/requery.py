"""How long asking again takes: 400,000 rows of 512 int8 numbers in real shards, against plain numpy in the same run.

    python benchmarks/requery.py [--rows 400000] [--channels 512] [--rounds 9]

"scan" gives every row its score; "heatmap" also joins the windows into the seam-free map. Both include the
division by the joint norm. The numpy lines only multiply. Ratios are to the float32 product of the same queries.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from affine import Affine

from geoalign_core.indexing import IndexSpec, LevelSpec, LinearQuery, score_maps
from geoalign_core.indexing.quantise import quantise
from geoalign_core.indexing.search import score_shards
from geoalign_core.indexing.shard import ShardContent, write_shard
from geoalign_core.indexing.store import SHARDS_FOLDER, Index
from tiling.canvas import Canvas
from tiling.fingerprint import SourceFingerprint
from tiling.grid import TileGrid
from tiling.radiometry import BandChoice, Stretch

PATCH_PX, WINDOW_PX, STRIDE_PX = 14, 518, 448
FP16_CHUNK = 4096


def make_spec(rows: int, channels: int) -> IndexSpec:
    """Lay a square grid with about so many rows."""
    per_window = (WINDOW_PX // PATCH_PX) ** 2
    side = max(1, round((rows / per_window) ** 0.5))
    size = WINDOW_PX + (side - 1) * STRIDE_PX
    canvas = Canvas(size, size, Affine.scale(0.5, -0.5), None, 0.5, 1.0, 1.0, size, size, 1)
    level = LevelSpec(canvas, TileGrid(size, size, WINDOW_PX, STRIDE_PX, "shift", PATCH_PX), PATCH_PX)
    bands = BandChoice((1, 2, 3), ("red", "green", "blue"), palette=False, grey=False)
    return IndexSpec("benchmark", "benchmark", "tokens", (level,), bands, Stretch("none"), "", channels, channels)


def make_index(root: Path, spec: IndexSpec) -> Index:
    """Fill the grid's shards with random unit vectors."""
    rng = np.random.default_rng(0)
    shape = spec.shape(0)
    entries = []
    for shard_id in spec.shard_ids():
        positions = tuple(at for at, _ in spec.levels[0].shard_windows(shard_id.row, shard_id.col))
        count = len(positions) * shape.rows_per_window
        vectors = rng.standard_normal((count, spec.channels), dtype=np.float32)
        rows = quantise(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        arrays = {
            "rows.npy": rows.values,
            "scale.npy": rows.scales,
            "inv_norm.npy": np.ones(count, np.float32),
            "valid.npy": np.full(count, 255, np.uint8),
            "windows.npy": rng.standard_normal((len(positions), spec.window_channels), dtype=np.float32),
        }
        folder = root / SHARDS_FOLDER
        entries.append(write_shard(folder, shard_id, positions, shape, ShardContent(arrays, b""), spec.key))
    return Index(root, spec, SourceFingerprint(0, 0, "", ()), entries)


def median_ms(function, rounds: int) -> float:
    """Return the median over some rounds after one to warm up."""
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def upcast_half(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply float16 rows the naive way, chunk by chunk."""
    return np.concatenate(
        [rows[at : at + FP16_CHUNK].astype(np.float32) @ weights for at in range(0, len(rows), FP16_CHUNK)]
    )


def measure(index: Index, queries: int, rounds: int) -> dict[str, float]:
    """Time one number of queries, in milliseconds."""
    channels = index.spec.channels
    vectors = np.random.default_rng(1).standard_normal((queries, channels), dtype=np.float32)
    query = LinearQuery(vectors, vectors, np.zeros(queries, np.float32), joint=True)
    floats = np.concatenate([shard.values.astype(np.float32) * shard.scales[:, None] for shard in index])
    weights = np.ascontiguousarray(vectors.T)
    result = {"numpy float32": median_ms(lambda: floats @ weights, rounds)}
    halves = floats.astype(np.float16)
    result["numpy float16, upcast"] = median_ms(lambda: upcast_half(halves, weights), min(rounds, 3))
    result["scan"] = median_ms(lambda: [None for _ in score_shards(index, query)], rounds)
    result["heatmap"] = median_ms(lambda: score_maps(index, query), rounds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    spec = make_spec(options.rows, options.channels)
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(Path(folder), spec)
        windows = sum(len(entry.positions) for entry in index.shards)
        print(f"{index.rows} rows × {options.channels}, {windows} windows, {len(index.shards)} shards")
        results = {}
        for queries in (1, 13):
            results[queries] = measure(index, queries, options.rounds)
            base = results[queries]["numpy float32"]
            print(f"\n{queries} quer{'y' if queries == 1 else 'ies (1 + 12 contrast prompts)'}:")
            for name, value in results[queries].items():
                print(f"  {name:24} {value:8.1f} ms   {value / base:5.2f} × numpy float32")
    if options.json:
        options.json.write_text(json.dumps({"rows": index.rows, "channels": options.channels, "ms": results}, indent=1))


if __name__ == "__main__":
    main()
