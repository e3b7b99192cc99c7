"""Matches as a file for other people: GeoPackage, Shapefile or GeoJSON."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsProject,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from ..words import tr
from .style import style_regions

DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".json": "GeoJSON"}
"""Drivers by suffix."""
_INNER = ("fid", "min_match")
"""Columns that only serve the slider."""


class ExportError(Exception):
    """The matches could not be saved; the text says why and what to do."""


def export_matches(layer: QgsVectorLayer | None, path: Path, context: QgsCoordinateTransformContext) -> int:
    """Write the features of a layer of matches and return how many there are.

    They are written into a folder beside the target and moved when complete, so that a full disk leaves an older
    file whole.

    Args:
        layer: The matches, filtered; None when they are gone.
        path: The file to write; its suffix tells the format.
        context: For the transformation that GeoJSON demands.

    Raises:
        ExportError: No matches, an unknown suffix, or the file cannot be written.
    """
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        text = tr("“{name}” has an unknown ending: use .gpkg, .shp or .geojson")
        raise ExportError(text.format(name=path.name))
    if layer is None:
        raise ExportError(tr("The matches are no longer in the project: ask again"))
    count = layer.featureCount()
    if count < 1:
        raise ExportError(tr("There is no match to save: lower the minimum match"))
    try:
        folder = Path(tempfile.mkdtemp(prefix=".geoalign-", dir=str(path.parent)))
    except OSError as error:
        raise ExportError(_cannot_write(path, error.strerror or "")) from error
    try:
        made = folder / path.name
        _write(layer, made, driver, context)
        if driver == "GPKG":
            _save_style(made, path.stem, "polygons" in layer.source())
        _move(folder, path)
    except OSError as error:
        raise ExportError(_cannot_write(path, error.strerror or "")) from error
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
    return int(count)


def _write(layer: QgsVectorLayer, made: Path, driver: str, context: QgsCoordinateTransformContext) -> None:
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = driver
    options.fileEncoding = "UTF-8"
    options.layerName = made.stem
    fields = layer.fields()
    options.attributes = [index for index in range(fields.count()) if fields.at(index).name() not in _INNER]
    if driver == "GeoJSON":
        # RFC 7946 knows longitude and latitude of WGS 84 only.
        target = QgsCoordinateReferenceSystem("EPSG:4326")
        options.ct = QgsCoordinateTransform(layer.crs(), target, QgsProject.instance())
        options.layerOptions = ["RFC7946=YES", "COORDINATE_PRECISION=7"]
    code, message = QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(made), context, options)[:2]
    if code != QgsVectorFileWriter.WriterError.NoError:
        raise ExportError(_cannot_write(made, message))


def _save_style(made: Path, table: str, polygons: bool) -> None:
    """Keep the look of the answer in the file: whoever opens it sees the same boxes."""
    copy = QgsVectorLayer(f"{made}|layername={table}", table, "ogr")
    if copy.isValid():
        style_regions(copy, polygons)
        copy.saveStyleToDatabase(table, tr("Matches of a question, by GeoAlign"), True, "")


def _move(folder: Path, path: Path) -> None:
    """Move what was written beside the target; the main file last."""
    written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
    for file in written:
        if not file.name.endswith(("-wal", "-shm")):
            os.replace(str(file), str(path.with_name(file.name)))


def _cannot_write(path: Path, reason: str) -> str:
    text = tr("“{name}” cannot be written ({reason}): choose another folder, or close the file where it is open")
    return text.format(name=path.name, reason=reason or tr("unknown reason"))
