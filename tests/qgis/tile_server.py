"""An XYZ server of a raster, for layers that are no files."""

from __future__ import annotations

import contextlib
import http.server
import threading
from typing import TYPE_CHECKING

from osgeo import gdal

if TYPE_CHECKING:
    from pathlib import Path

WORLD = 20_037_508.342789


def tile_png(raster: str, zoom: int, x: int, y: int, work: Path) -> bytes:
    """Return one tile of a raster as a PNG with an alpha band."""
    side = 2 * WORLD / 2**zoom
    west, north = -WORLD + x * side, WORLD - y * side
    warped, png = f"/vsimem/{zoom}-{x}-{y}.tif", work / f"{zoom}-{x}-{y}.png"
    bounds = (west, north - side, west + side, north)
    gdal.Warp(warped, raster, dstSRS="EPSG:3857", outputBounds=bounds, width=256, height=256, dstAlpha=True)
    gdal.Translate(str(png), warped, format="PNG")
    gdal.Unlink(warped)
    return png.read_bytes()


@contextlib.contextmanager
def serve_tiles(raster: Path, work: Path):
    """Serve a raster as XYZ tiles; gives the layer's data source."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            zoom, x, y = map(int, self.path.split(".")[0].strip("/").split("/"))
            data = tile_png(str(raster), zoom, x, y, work)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"type=xyz&url=http://127.0.0.1:{server.server_port}/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=19&zmin=0"
    finally:
        server.shutdown()
        server.server_close()
