"""Layers drawn into files, thumbnails, and the map tools."""

from __future__ import annotations

import http.server
import math
import threading
import time

import numpy as np
import pytest
from answer_files import write_raster
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.gui import QgsMapCanvas, QgsMapMouseEvent
from qgis.PyQt.QtCore import QEvent, QPoint, Qt
from qgis.PyQt.QtGui import QImage, QKeyEvent

from qgis_plugin.layers.area import AreaError
from qgis_plugin.layers.render import RenderError, RenderTask, plan_render
from qgis_plugin.layers.results import Match
from qgis_plugin.layers.source import describe
from qgis_plugin.layers.thumbnails import Thumbnails
from qgis_plugin.layers.tools import BoxTool, MarkTool, mark_geometry

WORLD = 20_037_508.342789
CENTER = (500_000.0, 6_800_000.0)


def png() -> bytes:
    write_raster("/vsimem/t.tif", np.stack([np.full((256, 256), value, np.uint8) for value in (200, 90, 30)]))
    gdal.Translate("/vsimem/t.png", "/vsimem/t.tif", format="PNG")
    handle = gdal.VSIFOpenL("/vsimem/t.png", "rb")
    data = bytes(gdal.VSIFReadL(1, 10**6, handle))
    gdal.VSIFCloseL(handle)
    return data


class Tiles(http.server.BaseHTTPRequestHandler):
    """Serves one orange tile everywhere; `broken` tiles are missing; `delay_s` makes it slow."""

    tile = b""
    broken = staticmethod(lambda x, y: False)
    delay_s = 0.0

    def do_GET(self):
        _, _, x, y = self.path.split(".")[0].split("/")
        time.sleep(self.delay_s)
        if self.broken(int(x), int(y)):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(self.tile)))
        self.end_headers()
        self.wfile.write(self.tile)

    def log_message(self, *_):
        pass


@pytest.fixture
def tiles(qgis_app):
    handler = type("Handler", (Tiles,), {"tile": png()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/%7Bz%7D/%7Bx%7D/%7By%7D.png"
    layer = QgsRasterLayer(f"type=xyz&url={url}&zmax=18&zmin=0", "tiles", "wms")
    assert layer.isValid()
    yield layer, handler
    server.shutdown()
    server.server_close()


def around(metres: float) -> QgsGeometry:
    half = metres / 2
    return QgsGeometry.fromRect(QgsRectangle(CENTER[0] - half, CENTER[1] - half, CENTER[0] + half, CENTER[1] + half))


def run(task, qtbot, timeout=20_000):
    outcome = []
    task.done.connect(lambda path: outcome.append(("done", path)))
    task.failed.connect(lambda text: outcome.append(("failed", text)))
    QgsApplication.taskManager().addTask(task)
    qtbot.waitUntil(lambda: bool(outcome), timeout=timeout)
    return outcome[0]


def test_plan_knows_the_size_on_the_ground(tiles):
    layer, _ = tiles
    plan = plan_render(layer, around(1000), 0.5)
    ground = 1000 * 0.613  # what 1,000 units of Web Mercator are at 52° N
    assert plan.width_px == pytest.approx(ground / 0.5, rel=0.02)
    assert plan.tiles == math.ceil(plan.width_px / 256) * math.ceil(plan.height_px / 256)
    assert plan.bytes == plan.width_px * plan.height_px * 4
    assert plan_render(layer, around(1000)).gsd_m == pytest.approx(0.597 * 0.613, rel=0.03)


def test_too_large_an_area_is_refused(tiles):
    layer, _ = tiles
    with pytest.raises(RenderError, match="tiles, 4,096 at most: zoom in or choose a coarser"):
        plan_render(layer, None, 0.3)
    with pytest.raises(RenderError, match="does not touch"):
        plan_render(layer, QgsGeometry.fromRect(QgsRectangle(5e7, 5e7, 6e7, 6e7)))


def test_tiles_become_a_file(tiles, tmp_path, qtbot):
    layer, _ = tiles
    task = RenderTask(plan_render(layer, around(800), 0.5), layer, tmp_path / "out" / "drawn.tif")
    assert run(task, qtbot) == ("done", str(tmp_path / "out" / "drawn.tif"))
    assert task.failed_tiles == 0
    drawn = QgsRasterLayer(task.path, "drawn")
    assert drawn.crs() == layer.crs()
    assert describe(drawn).kind == "file"
    assert describe(drawn).gsd_m == pytest.approx(0.5, rel=0.01)
    array = gdal.Open(task.path).ReadAsArray()
    assert array[:4, 50, 50].tolist() == [200, 90, 30, 255]
    assert not list((tmp_path / "out").glob("*.part*"))


def test_missing_tiles_are_counted(tiles, tmp_path, qtbot):
    layer, handler = tiles
    handler.broken = staticmethod(lambda x, y: x % 2 == 0)
    task = RenderTask(plan_render(layer, around(1200), 0.3665), layer, tmp_path / "drawn.tif")
    assert run(task, qtbot)[0] == "done"
    assert 0.25 * task.plan.tiles < task.failed_tiles < 0.6 * task.plan.tiles


def test_no_tile_at_all_is_a_failure(tiles, tmp_path, qtbot):
    layer, handler = tiles
    handler.broken = staticmethod(lambda x, y: True)
    task = RenderTask(plan_render(layer, around(300), 0.5), layer, tmp_path / "drawn.tif")
    outcome = run(task, qtbot)
    assert outcome[0] == "failed"
    assert "No image came back" in outcome[1]
    assert not list(tmp_path.iterdir())


def test_drawing_is_cancelled(tiles, tmp_path, qtbot):
    layer, handler = tiles
    handler.delay_s = 0.3
    task = RenderTask(plan_render(layer, around(8000), 0.5), layer, tmp_path / "drawn.tif")
    outcome = []
    task.failed.connect(outcome.append)
    QgsApplication.taskManager().addTask(task)
    qtbot.wait(400)
    start = time.perf_counter()
    task.cancel()
    qtbot.waitUntil(lambda: bool(outcome), timeout=10_000)
    assert time.perf_counter() - start < 5
    assert outcome == [""]
    assert not list(tmp_path.iterdir())


def test_layer_removed_while_drawn(tiles, tmp_path, qtbot):
    layer, handler = tiles
    handler.delay_s = 0.05
    QgsProject.instance().addMapLayer(layer)
    kept = layer.id()
    task = RenderTask(plan_render(layer, around(1000), 0.5), layer, tmp_path / "drawn.tif")
    outcome = []
    task.done.connect(outcome.append)
    QgsApplication.taskManager().addTask(task)
    QgsProject.instance().removeMapLayer(kept)
    qtbot.waitUntil(lambda: bool(outcome), timeout=20_000)


def test_memory_raster_is_drawn_as_shown(tmp_path, qtbot):
    write_raster("/vsimem/m.tif", np.full((3, 64, 64), 77, np.uint8))
    layer = QgsRasterLayer("/vsimem/m.tif", "memory")
    task = RenderTask(plan_render(layer), layer, tmp_path / "drawn.tif")
    assert task.plan.width_px == 64
    assert run(task, qtbot)[0] == "done"
    drawn = QgsRasterLayer(task.path, "drawn")
    assert drawn.extent().width() == pytest.approx(layer.extent().width(), rel=0.02)
    assert gdal.Open(task.path).ReadAsArray()[0, 30, 30] == 77


def test_coarser_pictures_are_averages(tmp_path, qtbot):
    checks = (np.indices((256, 256)).sum(0) % 2 * 200).astype(np.uint8)
    layer = QgsRasterLayer(write_raster("/vsimem/c.tif", np.stack([checks] * 3), pixel=0.25), "checks")
    assert plan_render(layer).gsd_m == pytest.approx(0.25, rel=1e-3)
    task = RenderTask(plan_render(layer, None, 1.0), layer, tmp_path / "drawn.tif")
    assert run(task, qtbot)[0] == "done"
    assert gdal.Open(task.path).ReadAsArray()[0, 10:50, 10:50].std() < 15


def test_degrees_have_square_ground_pixels(tmp_path, qtbot):
    path = write_raster("/vsimem/g.tif", np.full((3, 80, 80), 5, np.uint8), origin=(5.0, 60.0), pixel=1e-4, epsg=4326)
    layer = QgsRasterLayer(path, "degrees")
    plan = plan_render(layer, None, 5.0)
    assert plan.height_px == pytest.approx(2 * plan.width_px, rel=0.03)


# --- thumbnails ---


def match(number, x, y, side):
    shape = QgsGeometry.fromRect(QgsRectangle(x, y, x + side, y + side))
    return Match(number, 0.9, number, side * side, shape, shape.boundingBox().center())


def test_thumbnails_come_one_by_one_and_are_kept(sample_layer, qtbot):
    extent = sample_layer.extent()
    matches = [match(k, extent.xMinimum() + 5 * k, extent.yMinimum() + 5 * k, 8.0) for k in range(6)]
    thumbnails = Thumbnails()
    got = {}
    thumbnails.ready.connect(got.__setitem__)
    thumbnails.request(sample_layer, matches, 96)
    qtbot.waitUntil(lambda: len(got) == 6, timeout=10_000)
    assert all(isinstance(image, QImage) and image.width() == 96 for image in got.values())
    assert got[0].pixelColor(48, 48).alpha() == 255
    got.clear()
    thumbnails.request(sample_layer, matches, 96)
    assert len(got) == 6


def test_thumbnails_of_a_removed_layer(sample_layer, qtbot):
    extent = sample_layer.extent()
    matches = [match(k, extent.xMinimum() + 5 * k, extent.yMinimum(), 8.0) for k in range(20)]
    thumbnails = Thumbnails()
    thumbnails.request(sample_layer, matches)
    QgsProject.instance().removeMapLayer(sample_layer.id())
    qtbot.wait(300)
    thumbnails.request(None, matches)
    thumbnails.cancel()


def test_thumbnails_are_cancelled(sample_layer, qtbot):
    extent = sample_layer.extent()
    thumbnails = Thumbnails()
    got = []
    thumbnails.ready.connect(lambda number, image: got.append(number))
    thumbnails.request(sample_layer, [match(k, extent.xMinimum() + k, extent.yMinimum(), 8.0) for k in range(50)])
    thumbnails.cancel()
    qtbot.wait(300)
    assert got == []
    thumbnails.request(sample_layer, [match(99, extent.xMinimum(), extent.yMinimum(), 8.0)])
    qtbot.waitUntil(lambda: got == [99], timeout=5000)


# --- tools ---


@pytest.fixture
def canvas(qgis_app):
    canvas = QgsMapCanvas()
    canvas.resize(400, 400)
    canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:28992"))
    canvas.setExtent(QgsRectangle(127_500, 428_000, 127_600, 428_100))
    yield canvas
    canvas.deleteLater()


def mouse(canvas, tool, kind, x, y, button=Qt.MouseButton.LeftButton, modifiers=Qt.KeyboardModifier.NoModifier):
    event = QgsMapMouseEvent(canvas, kind, QPoint(x, y), button, button, modifiers)
    name = {QEvent.Type.MouseButtonPress: "Press", QEvent.Type.MouseMove: "Move"}.get(kind, "Release")
    getattr(tool, f"canvas{name}Event")(event)


def drag(canvas, tool, start, end):
    mouse(canvas, tool, QEvent.Type.MouseButtonPress, *start)
    mouse(canvas, tool, QEvent.Type.MouseMove, *end)
    mouse(canvas, tool, QEvent.Type.MouseButtonRelease, *end)


@pytest.mark.parametrize("rotation", [0, 30])
def test_box_is_upright_on_the_screen(canvas, rotation):
    canvas.setRotation(rotation)
    tool = BoxTool(canvas)
    canvas.setMapTool(tool)
    boxes = []
    tool.drawn.connect(boxes.append)
    drag(canvas, tool, (100, 100), (200, 150))
    drag(canvas, tool, (100, 100), (102, 101))
    assert len(boxes) == 1
    per_px = canvas.mapUnitsPerPixel()
    assert boxes[0].area() == pytest.approx(100 * 50 * per_px**2, rel=0.01)
    assert (boxes[0].boundingBox().area() > 1.2 * boxes[0].area()) == bool(rotation)


def test_escape_leaves(canvas):
    tool = BoxTool(canvas)
    canvas.setMapTool(tool)
    left = []
    tool.left.connect(lambda: left.append(True))
    mouse(canvas, tool, QEvent.Type.MouseButtonPress, 10, 10)
    tool.keyPressEvent(QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier))
    assert canvas.mapTool() is not tool
    assert left == [True]


def test_marks(canvas):
    tool = MarkTool(canvas)
    canvas.setMapTool(tool)
    marks = []
    tool.marked.connect(lambda point, verdict: marks.append(verdict))
    release = QEvent.Type.MouseButtonRelease
    mouse(canvas, tool, release, 50, 50)
    mouse(canvas, tool, release, 50, 50, Qt.MouseButton.RightButton)
    mouse(canvas, tool, release, 50, 50, modifiers=Qt.KeyboardModifier.ShiftModifier)
    assert marks == ["yes", "no", "no"]


def test_mark_is_three_patches_wide(sample_layer):
    source = describe(sample_layer)
    center = sample_layer.extent().center()
    shape = mark_geometry(center, sample_layer.crs(), source, gsd_m=0.2)
    assert shape.boundingBox().width() == pytest.approx(3 * 14 * 0.2, rel=0.01)
    with pytest.raises(AreaError, match="missed"):
        mark_geometry(QgsPointXY(0, 0), sample_layer.crs(), source)
    with pytest.raises(AreaError, match="missed"):
        mark_geometry(QgsPointXY(1e9, 1e9), QgsCoordinateReferenceSystem("EPSG:3857"), source)
