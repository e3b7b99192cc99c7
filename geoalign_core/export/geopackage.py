"""A GeoPackage that opens in QGIS already styled: layers, ``layer_styles`` and no journal left behind."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from geoalign_core.export.style import boxes_qml, polygons_qml
from geoalign_core.export.vector import write_layer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from geopandas import GeoDataFrame

# The table as QGIS itself creates it; QGIS looks for a row with the layer's table and geometry column.
_STYLE_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
  styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30),
  ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)
"""


def fill_geopackage(path: Path, frames: Mapping[str, GeoDataFrame]) -> None:
    """Write all layers and their styles into a new GeoPackage.

    Args:
        path: A temporary file that does not exist yet.
        frames: Frames with a schema, by layer name.
    """
    for number, (name, frame) in enumerate(frames.items()):
        # Older GDAL, as in QGIS before 3.34, warns at each opening of a newer version than this one.
        options = {} if number else {"VERSION": "1.2"}
        write_layer(path, frame, driver="GPKG", layer=name, append=number > 0, options=options)
    _add_styles(path, list(frames))


def remove_journals(target: Path) -> None:
    """Remove what an earlier database of this name left beside it.

    SQLite would replay such a write-ahead log into the new file.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)


def _add_styles(path: Path, names: list[str]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(_STYLE_TABLE)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles', 'QGIS styles of the layers')"
        )
        for name in names:
            (column,) = database.execute(
                "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (name,)
            ).fetchone()
            qml = boxes_qml() if name.startswith("boxes") else polygons_qml()
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column,"
                " styleName, styleQML, styleSLD, useAsDefault, description, owner, ui)"
                " VALUES ('', '', ?, ?, ?, ?, '', 1, 'GeoAlign', '', NULL)",
                (name, column, name[:30], qml),
            )
