"""How long the engine takes to say hello, to ask again, to refit and to stop: ``python benchmarks/engine.py RASTER``.

The raster is indexed beside itself first, so give a copy. With ``--side M`` only a square of so many metres around
its middle.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time


class Engine:
    def __init__(self):
        begun = time.perf_counter()
        command = [sys.executable, "-m", "geoalign_core", "engine", "--stdio"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        self.hello_s = time.perf_counter() - begun
        self.last = 0

    def call(self, op, **args):
        """Return the result, and seconds until the first partial and the end."""
        self.last += 1
        begun, partial = time.perf_counter(), None
        self.process.stdin.write(json.dumps({"v": 1, "id": self.last, "op": op, "args": args}).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            message = json.loads(self.process.stdout.readline())
            if message["type"] == "partial" and partial is None:
                partial = time.perf_counter() - begun
            if message["type"] in ("result", "error"):
                return message, partial, time.perf_counter() - begun


def square(x, y, side):
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [corners]}


def main():
    import rasterio

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster")
    parser.add_argument("--side", type=float, default=1000.0)
    options = parser.parse_args()
    with rasterio.open(options.raster) as raster:
        x, y = raster.transform * (raster.width / 2, raster.height / 2)
        width, height = raster.bounds.right - raster.bounds.left, raster.bounds.top - raster.bounds.bottom
    options.side = min(options.side, width, height)
    half = options.side / 2
    common = {"source": {"path": options.raster}, "area": square(x - half, y - half, options.side), "query": "trees"}
    engine = Engine()
    print(f"hello             {engine.hello_s:6.2f} s")
    with tempfile.TemporaryDirectory() as out:
        common["out"] = out
        print(f"index             {engine.call('ask', **common, stem='a')[2]:6.2f} s")
        _, partial, whole = engine.call("ask", **common, stem="b")
        print(f"ask again         {partial:6.2f} s to the heatmap, {whole:.2f} s in all")
        for number in range(1, 5):
            marks = [square(x - half / 2 + half / 10 * n, y, 8) for n in range(2 * number)]
            refit = {"include": marks[:number], "exclude": marks[number:], "stem": f"r{number}"}
            _, partial, whole = engine.call("ask", **common, **refit)
            print(f"refit {number} + {number}       {partial:6.2f} s to the heatmap, {whole:.2f} s in all")
        _, _, seconds = engine.call("ping")
        print(f"ping              {seconds * 1000:6.2f} ms")
    engine.process.stdin.close()
    engine.process.wait(5)


if __name__ == "__main__":
    main()
