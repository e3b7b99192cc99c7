"""The leakage analysis at the size of a real training set, with leaks that were put there.

`--scale 1` is 10⁵ training and 10⁴ test records. Pictures (96 px) and texts are made up; one test record in a hundred
has a training picture with the same bytes, another one a turned and compressed training picture, another one a
training text. Prints what was found of each, seconds, and peak memory as a Markdown table; a planted leak that is
missed ends it with 1. `--model geoalign-s` adds the likenesses of meaning, which take most of the time on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from training.builder.leakage import LeakageOptions, analyse
from training.data.dataset import RsfgDataset

if TYPE_CHECKING:
    from collections.abc import Callable

TRAIN, TEST, SIDE_PX, WORDS, EACH = 100_000, 10_000, 96, 8_000, 100


def picture(seed: int, turns: int = 0, quality: int = 90) -> bytes:
    """A soft pattern of its own with fine noise, as JPEG."""
    rng = np.random.default_rng([7, seed])
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(
        (SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC
    )
    noisy = np.clip(np.asarray(coarse, np.int16) + rng.integers(-12, 13, (SIDE_PX, SIDE_PX, 1)), 0, 255)
    stream = io.BytesIO()
    Image.fromarray(np.rot90(noisy.astype(np.uint8), turns)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def caption(seed: int) -> str:
    """Eight to 24 words, as often as words of a language are (Zipf)."""
    rng = np.random.default_rng([8, seed])
    chosen = np.minimum(rng.zipf(1.3, rng.integers(8, 25)), WORDS)
    return " ".join(f"w{word}" for word in [*chosen, seed])


def write(folder: Path, count: int, picture_of: Callable[[int], bytes], text_of: Callable[[int], str]) -> RsfgDataset:
    (folder / "images").mkdir(parents=True)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as lines:
        for n in range(count):
            name = f"images/{n:06}.jpg"
            (folder / name).write_bytes(picture_of(n))
            print(json.dumps({"image": name, "brief_caption": text_of(n)}), file=lines)
    return RsfgDataset([folder])


def planted(train: int, n: int) -> tuple[bytes, str]:
    """Return picture and text of the n-th test record; the first three of every hundred are leaks."""
    own, other = train + n, n % train
    kind = n % EACH
    content = picture(other) if kind == 0 else picture(other, 1, 75) if kind == 1 else picture(own)
    return content, caption(other if kind == 2 else own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--model", help="encoder of meaning; without one only surfaces are compared")
    asked = parser.parse_args()
    train, test = (max(int(count * asked.scale), EACH) for count in (TRAIN, TEST))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known = write(root / "train", train, picture, caption)
        judged = write(root / "test", test, lambda n: planted(train, n)[0], lambda n: planted(train, n)[1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        report = analyse(known, judged, root / "report", LeakageOptions(model=asked.model))
        seconds = time.perf_counter() - start
        with (root / "report" / "offenders.csv").open(encoding="utf-8", newline="") as handle:
            found = Counter(
                (row["channel"], int(Path(row["test_image"]).stem) % EACH) for row in csv.DictReader(handle)
            )
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    print(report.text())
    print(f"{train:,} × {test:,} records, model {asked.model}: {seconds:.0f} s, peak {peak:.2f} GB")
    print(f"(before the analysis {before * unit / 1e9:.2f} GB)\n")
    print("| planted | of | found |\n|---|---:|---:|")
    wanted = [("same bytes", "bytes", 0), ("turned, compressed again", "picture", 1), ("same text", "text", 2)]
    missed = 0
    for name, channel, kind in wanted:
        of = len(range(kind, test, EACH))
        missed += of - found[channel, kind]
        print(f"| {name} | {of} | {found[channel, kind]} |")
    others = sum(count for (channel, kind), count in found.items() if kind > 2)
    print(f"\nOffenders that were not planted: {others}.")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
