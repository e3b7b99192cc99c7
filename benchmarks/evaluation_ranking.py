"""Ranks of every image among every text and the other way round, of a size that no table of similarities would fit.

`--scale 1` is the promise: 10⁵ images × 5·10⁵ texts of 768 dimensions within 8 GB. The banks are written as the
evaluation writes them (float16 shards), of vectors made up: five texts about each image, which are the image's
direction with noise. Prints measured peak memory, the budget of the blocks, and the seconds of each part as a
Markdown table.
`--half` says instead what float16 on disk does to ranks and recalls.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from training.evaluation.bank import SHARD_ROWS, TEXT_SHARD_ROWS, Bank
from training.evaluation.bank_store import Plan, Store, cut, keys_digest, unit
from training.evaluation.ranking import BUDGET_BYTES, Block, ranks, topk

IMAGES, TEXTS_EACH, WIDTH, NOISE, CLUSTERS = 100_000, 5, 768, 6.0, 500


def directions(start: int, stop: int, width: int) -> np.ndarray:
    """Images in clusters, as scenes of one kind are."""
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, width)).astype(np.float32)
    own = np.stack([np.random.default_rng([1, n]).normal(size=width) for n in range(start, stop)]).astype(np.float32)
    return unit(centres[np.arange(start, stop) % CLUSTERS] + 0.5 * own)


def write_bank(root: Path, kind: str, count: int, width: int, dtype: str, each: int) -> Bank:
    """Write `each` noisy copies of every image's direction, image by image."""
    rows = TEXT_SHARD_ROWS if kind == "text" else SHARD_ROWS
    _, starts = cut(np.ones(count, np.int64), rows)
    plan = Plan(kind, {"made": "up"}, keys_digest([str(count)]), starts, width, dtype)
    store, rng = Store(root, plan), np.random.default_rng(2)
    store.folder.mkdir(parents=True, exist_ok=True)
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        owners = np.arange(start, stop) // each
        first = directions(owners[0], owners[-1] + 1, width)[owners - owners[0]]
        noise = NOISE * rng.normal(size=first.shape).astype(np.float32) / np.sqrt(width)
        store.write(number, unit(first + noise * (kind == "text")), {})
    shards = tuple(shard for number in range(len(store)) if (shard := store.read(number)))
    return Bank(((starts, shards),), width, plan.digest)


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def large(images: int, width: int, budget: int) -> None:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = write_bank(Path(folder), "image", images, width, "float16", 1)
        texts = write_bank(Path(folder), "text", images * TEXTS_EACH, width, "float16", TEXTS_EACH)
        ranks(pictures[:16], texts[:16], np.arange(16)[:, None])  # so that what torch itself takes is part of `before`
        before = peak_bytes()
        own = np.arange(len(texts)).reshape(images, TEXTS_EACH)
        parts = {
            "images → texts": lambda: ranks(pictures, texts, own, budget_bytes=budget),
            "texts → images": lambda: ranks(texts, pictures, np.repeat(np.arange(images), 5)[:, None],
                                            budget_bytes=budget),
            "10 nearest texts": lambda: topk(pictures, texts, 10, budget_bytes=budget),
        }  # fmt: skip
        for name, work in parts.items():
            start = time.perf_counter()
            found = work()
            share = f"{(found <= 10).mean():.1%}" if isinstance(found, np.ndarray) else ""
            lines.append(f"| {name} | {time.perf_counter() - start:.1f} | {peak_bytes() / 1e9:.2f} | {share} |")
    block = Block.within(budget, width)
    table = 4 * images * len(texts)
    print(f"{images} images × {len(texts)} texts × {width}: a table would take {table / 1e9:.1f} GB.")
    print(f"Blocks: {block.queries} × {block.candidates} within {budget / 1e9:.2f} GB; before: {before / 1e9:.2f} GB.")
    print("Buffers of the matrix product and what the allocator keeps come on top; shards are mapped while read.\n")
    print("| part | seconds | peak GB | R@10 |\n|---|---|---|---|")
    print("\n".join(lines))


def half(images: int, width: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, found = Path(folder), {}
        for dtype in ("float32", "float16"):
            pictures = write_bank(root, "image", images, width, dtype, 1)
            texts = write_bank(root, "text", images * TEXTS_EACH, width, dtype, TEXTS_EACH)
            sample = pictures[:500] @ texts[:5000].T
            own = np.repeat(np.arange(images), TEXTS_EACH)[:, None]
            found[dtype] = (ranks(texts, pictures, own), sample)
    (full, cosines), (short, rounded) = found["float32"], found["float16"]
    moved = np.abs(full - short)
    print(f"cosines move by at most {np.abs(cosines - rounded).max():.1e}")
    print(
        f"{(moved > 0).mean():.2%} of {len(full)} ranks move, by at most {moved.max()}, median rank {np.median(full)}"
    )
    for k in (1, 5, 10):
        print(f"R@{k}: {(full <= k).mean():.4%} and {(short <= k).mean():.4%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--budget-mb", type=int, default=BUDGET_BYTES >> 20)
    parser.add_argument("--half", action="store_true")
    asked = parser.parse_args()
    if asked.half:
        half(int(IMAGES * asked.scale), asked.width)
    else:
        large(int(IMAGES * asked.scale), asked.width, asked.budget_mb << 20)


if __name__ == "__main__":
    main()
