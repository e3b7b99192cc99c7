"""Pictures of the panel in all its states, light and dark: docs/images/panel-states.png and panel-states-dark.png.

    xvfb-run -a -s '-screen 0 1600x1200x24' /usr/bin/python3 docs/panel_states.py docs/images

The real panel in real QGIS with made-up answers; `--width 300` and `--long` (words 40 % longer) look for what is cut.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QRect, QSize, Qt
from qgis.PyQt.QtGui import QColor, QImage, QPainter, QPixmap
from qgis.PyQt.QtWidgets import QMainWindow

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from qgis_plugin import words  # noqa: E402
from qgis_plugin.engine.protocol import EngineError, Progress  # noqa: E402
from qgis_plugin.gui import states  # noqa: E402
from qgis_plugin.gui.dock import AskDock  # noqa: E402
from qgis_plugin.gui.model import Curve, Results, Row  # noqa: E402

THEMES = {"panel-states": "default", "panel-states-dark": "Night Mapping"}
QUESTION = "boats along the canal"
EXAMPLES = ("boats along the canal", "solar panels on roofs", "parking lots with many cars")
ENGINE = "Engine: ready (CPU)"
GAP, CAPTION = 14, 26


class LongWords(dict):
    """A made-up language whose every text is 40 % longer."""

    def get(self, text: str, _default: str | None = None) -> str:
        """Return the text with vowels repeated."""
        extra = max(2, round(len(text) * 0.4))
        tail = " ".join(["aeiou"] * (extra // 6 + 1))[:extra].strip()
        return f"{text[:-1]}{tail}…" if text.endswith("…") else f"{text} {tail}" if len(text) > 5 else f"{text}aeu"


def answers(image: QImage) -> tuple[Results, dict[int, QImage]]:
    """Return a plausible answer with thumbnails cut from the image."""
    places = ((678, 457), (774, 328), (695, 560), (612, 605), (510, 360), (904, 225), (745, 410), (730, 70))
    scores = (0.93, 0.88, 0.82, 0.79, 0.71, 0.66, 0.61, 0.57)
    verdicts = ("yes", "", "yes", "", "no", "", "", "")
    rows, thumbs = [], {}
    for number, ((x, y), score, verdict) in enumerate(zip(places, scores, verdicts, strict=True), 1):
        east, north = 127375 + x * 0.25, 428250 - y * 0.25
        rows.append(Row(number, score, f"{east:,.0f} E, {north:,.0f} N", verdict))
        thumbs[number] = image.copy(QRect(x, y, 96, 96)).scaled(QSize(96, 96))
    bars = tuple(round(90000 * 0.82**k * (0.3 if k < 3 else 1)) + (40 if 24 < k < 36 else 0) for k in range(38))
    return Results(tuple(rows), len(rows), (*bars, 0, 0), 55, by_example=True), thumbs


def views() -> list[tuple[str, states.View]]:
    """Return the ten states with captions."""
    moved = EngineError(
        "raster", "The image could not be read", "aerial_2023.tif was moved or renamed since it was indexed.", "ENOENT"
    )
    memory = EngineError("engine_stopped", "The engine stopped.", "It most likely ran out of memory.", "exit code -9")
    indexed = "Indexed: 1,024 tiles of 9.6 m · " + ENGINE
    searched = "Searched 1,024 tiles in 0.04 s · " + ENGINE
    folder = "/home/ada/.local/share/geoalign/engine-0.1.0"
    return [
        ("No layer", states.no_layer()),
        ("No engine", states.no_engine(600, folder)),
        ("Engine starting", states.starting()),
        ("Not indexed", states.not_indexed(1024, 140, 14e6, ENGINE)),
        ("Indexing", states.indexing(Progress("embedding", 389, 1024, 95.0), ENGINE)),
        ("Ready", states.ready(EXAMPLES, indexed)),
        ("Results", states.results(searched)),
        ("Empty", states.empty(55, 0.41, searched)),
        ("Error", states.error(moved, states.Action("repair_path", "Repair Path…"), ENGINE)),
        ("Engine stopped", states.stopped(memory)),
    ]


def panel(view: states.View, layer: QgsRasterLayer, size: QSize) -> QMainWindow:
    """Return a window with the panel in one state."""
    window = QMainWindow()
    dock = AskDock(window)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    window.resize(size)
    has_layer = view.state is not states.State.NO_LAYER
    dock.set_layer(layer if has_layer else None)
    asked = view.state not in (states.State.NO_LAYER, states.State.NO_ENGINE, states.State.READY)
    dock.set_question(QUESTION if asked else "")
    found, thumbs = answers(layer.previewAsImage(QSize(1000, 1000)))
    if view.state is states.State.RESULTS:
        dock.show_results(found)
        dock.set_examples(2, 1, can_undo=True)
        for number, thumb in thumbs.items():
            dock.set_thumbnail(number, thumb)
        dock.select_result(2)
    elif view.state is states.State.EMPTY:
        curve = Curve((0.0, 0.3, 0.55, 0.8, 1.0), (0.0, 0.06, 0.41, 0.83, 0.94), 0.021)
        dock.show_results(Results((), 0, (*found.histogram[:17], *[0] * 23), 55, curve))
    dock.show_view(view)
    window.show()
    dock.resize(size)
    return window


def settle(times: int = 6) -> None:
    """Let layouts and paints happen."""
    for _ in range(times):
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)


def sheet(pictures: list[tuple[str, QPixmap]], ground: str, ink: str, columns: int = 5) -> QImage:
    """Lay pictures with captions side by side."""
    size = pictures[0][1].size()
    rows = -(-len(pictures) // columns)
    width = columns * (size.width() + GAP) + GAP
    result = QImage(width, rows * (size.height() + CAPTION + GAP) + GAP // 2, QImage.Format.Format_RGB32)
    result.fill(QColor(ground))
    painter = QPainter(result)
    painter.setPen(QColor(ink))
    for place, (caption, picture) in enumerate(pictures):
        left = GAP + place % columns * (size.width() + GAP)
        top = place // columns * (size.height() + CAPTION + GAP)
        painter.drawText(QRect(left, top, size.width(), CAPTION), int(Qt.AlignmentFlag.AlignVCenter), caption)
        painter.drawPixmap(left, top + CAPTION, picture)
    painter.end()
    return result


def main() -> None:
    """Write one sheet per theme."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=340)
    parser.add_argument("--height", type=int, default=590)
    parser.add_argument("--long", action="store_true", help="words 40 %% longer")
    parser.add_argument("--options", action="store_true", help="unfold the search options")
    given = parser.parse_args()
    app = QgsApplication([], True)
    app.setStyle("Fusion")
    app.initQgis()
    if given.long:
        words._table = LongWords()
    with tempfile.TemporaryDirectory() as folder:
        image = shutil.copy(REPO / "samples" / "canal.tif", folder)
        layer = QgsRasterLayer(str(image), "aerial_2023")
        QgsProject.instance().addMapLayer(layer)
        given.out.mkdir(parents=True, exist_ok=True)
        for name, theme in THEMES.items():
            QgsApplication.setUITheme(theme)
            settle()
            pictures = []
            for caption, view in views():
                window = panel(view, layer, QSize(given.width, given.height))
                window.findChild(AskDock).search_options.setCollapsed(not given.options)
                settle()
                window.findChild(AskDock).block.list.scrollToTop()
                pictures.append((caption, window.findChild(AskDock).grab()))
                window.close()
            dark = theme != "default"
            sheet(pictures, "#1b1b1b" if dark else "#8c8c8c", "#dddddd" if dark else "#101010").save(
                str(given.out / f"{name}.png")
            )
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
