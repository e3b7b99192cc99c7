"""What the plugin costs QGIS, in milliseconds: ``python3 benchmarks/plugin.py``, with the Python that QGIS uses.

- Start: everything that QGIS imports when it starts with the plugin enabled, in a fresh process each time.
- Slider: one step of the threshold, on an answer of 1,000 matches at each limit and a heatmap of 2,000 × 2,000 pixels,
  with the layer tree and the map listening, drawing included as far as it happens in the main thread.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
START = """
import time
import qgis.core, qgis.gui, qgis.utils
begun = time.perf_counter()
import qgis_plugin
qgis_plugin.classFactory(None)
import qgis_plugin.processing.provider, qgis_plugin.locator
print(1000 * (time.perf_counter() - begun))
"""


def start_ms(environment: dict[str, str]) -> list[float]:
    """Import in nine fresh processes."""
    command = [sys.executable, "-c", START]
    return [float(subprocess.check_output(command, cwd=REPO, env=environment)) for _ in range(9)]


def slider_ms() -> tuple[list[float], object]:
    """Move the threshold up and down in a live project; the second value keeps QGIS's objects alive."""
    sys.path[:0] = [str(REPO), str(REPO / "tests" / "qgis")]
    from answer_files import write_answer
    from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
    from qgis.gui import QgsLayerTreeMapCanvasBridge, QgsMapCanvas

    from qgis_plugin.layers.results import AnswerGroup

    application = QgsApplication([], True)
    application.initQgis()
    with tempfile.TemporaryDirectory() as folder:
        files = write_answer(Path(folder), "answer", per_rung=1000, heat_px=2000)
        project = QgsProject.instance()
        image = QgsRasterLayer(str(REPO / "samples" / "canal.tif"), "image")
        project.addMapLayer(image)
        canvas = QgsMapCanvas()
        bridge = QgsLayerTreeMapCanvasBridge(project.layerTreeRoot(), canvas)
        canvas.resize(1000, 800)
        canvas.show()
        group = AnswerGroup.create(project, image, "answer", "bench")
        group.show(files, "both", 50)
        times = []
        for percent in 4 * [*range(10, 100, 5), *range(95, 5, -5)]:
            begun = time.perf_counter()
            group.set_threshold(percent)
            application.processEvents()
            times.append(1000 * (time.perf_counter() - begun))
        canvas.stopRendering()
    return times, (application, image, canvas, bridge, group)


def main() -> None:
    """Print both."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    start = sorted(start_ms(dict(os.environ)))
    times, _alive = slider_ms()
    slider = sorted(times)
    print(f"start: {statistics.median(start):.0f} ms (from {start[0]:.0f} to {start[-1]:.0f})")
    late = slider[int(0.95 * len(slider))]
    print(f"slider step: {statistics.median(slider):.1f} ms, 95 % under {late:.1f} ms", flush=True)
    os._exit(0)  # QGIS takes its layers down in an order of its own


if __name__ == "__main__":
    main()
