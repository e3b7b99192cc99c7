"""What the plugin adds to QGIS's start, in milliseconds: ``python3 benchmarks/plugin_load.py`` with QGIS's Python.

Imports everything that QGIS imports when it starts with the plugin enabled, in a fresh process each time, and prints
the median of nine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

LOAD = """
import time
import qgis.core, qgis.gui, qgis.utils
begun = time.perf_counter()
import qgis_plugin
qgis_plugin.classFactory(None)
import qgis_plugin.processing.provider, qgis_plugin.locator
print(1000 * (time.perf_counter() - begun))
"""


def main():
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    repo = Path(__file__).resolve().parents[1]
    times = [float(subprocess.check_output([sys.executable, "-c", LOAD], cwd=repo, env=environment)) for _ in range(9)]
    print(f"loading the plugin: {statistics.median(times):.0f} ms (from {min(times):.0f} to {max(times):.0f})")


if __name__ == "__main__":
    main()
