"""Takes the README's picture of QGIS: a whole QGIS under Xvfb, the plugin enabled, a question typed and answered.

    python3 docs/desktop.py OUT.png [--dark] [--question "trees"]

Needs QGIS and xvfb-run; the engine is the one of ``GEOALIGN_PYTHON``, else of this repository's ``.venv``. QGIS
runs this very file again, inside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROFILE = """[PythonPlugins]
geoalign=true
[UI]
UITheme={theme}
[qgis]
checkVersion=false
showTips=false
[core]
NewsFeed\\httpsfeedqgisorg\\disabled=true
"""
PATIENCE_S = 120


def outside(arguments: argparse.Namespace) -> int:
    """Lay out a profile with the plugin and start QGIS in it."""
    here = Path(__file__).resolve()
    repo = here.parents[1]
    # Not in the temporary folder: QGIS marks layers there with a badge.
    (repo / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="desktop-", dir=repo / "build") as folder:
        profile = Path(folder) / "profiles" / "default"
        (profile / "QGIS").mkdir(parents=True)
        theme = "Night Mapping" if arguments.dark else "default"
        (profile / "QGIS" / "QGIS3.ini").write_text(PROFILE.format(theme=theme))
        subprocess.run(
            [sys.executable, str(repo / ".ci" / "plugin"), "install", str(profile)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        image = shutil.copy(repo / "samples" / "canal.tif", folder)
        job = {"out": str(Path(arguments.out).resolve()), "image": image, "question": arguments.question}
        environment = {
            **os.environ,
            "PATH": "/usr/bin:/bin",
            "GEOALIGN_DESKTOP": json.dumps(job),
            "GEOALIGN_PYTHON": os.environ.get("GEOALIGN_PYTHON") or str(repo / ".venv" / "bin" / "python"),
        }
        command = ["xvfb-run", "-a", "-s", f"-screen 0 {arguments.size}x24", "qgis", "--nologo", "--noversioncheck"]
        command += ["--profiles-path", folder, "--code", str(here)]
        return subprocess.run(command, env=environment, timeout=PATIENCE_S + 60, check=False).returncode


def inside() -> None:
    """Open the image and the panel, ask, wait for the answer, take the picture."""
    from qgis.core import QgsProject, QgsRasterLayer
    from qgis.PyQt.QtCore import Qt, QTimer
    from qgis.PyQt.QtWidgets import QApplication, QDockWidget, QToolBar
    from qgis.utils import iface, plugins

    job = json.loads(os.environ["GEOALIGN_DESKTOP"])
    started = time.monotonic()
    window = iface.mainWindow()

    def end(code: int) -> None:
        # A plain exit asks about unsaved work, and nobody is there to answer.
        if controller is not None:
            controller.client.stop()
        os._exit(code)

    def begin() -> None:
        nonlocal controller
        for dock in window.findChildren(QDockWidget):
            if dock.objectName() not in ("Layers", "GeoAlignAskDock"):
                dock.close()
        for bar in window.findChildren(QToolBar):
            bar.setVisible(bar.objectName() in ("mMapNavToolBar", "mRasterToolBar", "mFileToolBar"))
        layer = QgsRasterLayer(job["image"], "aerial_2023")
        QgsProject.instance().addMapLayer(layer)
        iface.mapCanvas().setExtent(layer.extent())
        plugin = plugins["geoalign"]
        plugin.show_panel()
        controller = plugin.controller
        window.resize(QApplication.primaryScreen().size())
        window.resizeDocks([controller.dock], [400], Qt.Orientation.Horizontal)
        controller.dock.set_where("layer")
        plugin.ask(job["question"])
        QTimer.singleShot(500, wait)

    def wait() -> None:
        if controller.runner.waits:
            controller.dock.cardAction.emit("start")
        answered = bool(controller.answers.matches) and controller.runner.search is None
        failed = controller.runner.error is not None or time.monotonic() - started > PATIENCE_S
        if failed:
            sys.stderr.write(f"no answer: {controller.runner.error}\n")
            window.grab().save(job["out"])
            end(1)
        elif answered:
            controller.answers.step(1)
            iface.mapCanvas().setExtent(controller.dock.layer().extent())
            iface.mapCanvas().refresh()
            QTimer.singleShot(4000, shoot)
        else:
            QTimer.singleShot(250, wait)

    def shoot() -> None:
        iface.messageBar().clearWidgets()  # QGIS's own notices lie over the map's upper edge
        window.grab().save(job["out"])
        end(0)

    controller = None
    QTimer.singleShot(1500, begin)


if os.environ.get("GEOALIGN_DESKTOP"):
    inside()
elif __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--question", default="trees")
    parser.add_argument("--size", default="1440x900")
    sys.exit(outside(parser.parse_args()))
