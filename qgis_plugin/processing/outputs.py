"""From the engine's files to what the user asked for: features into a sink, rasters to their destination."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsFeature,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsFields,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtXml import QDomDocument, QDomElement

from ..words import tr

COLUMNS = {
    "query": "string",
    "score": "double",
    "precision": "double",
    "rank": "integer",
    "area_m2": "double",
    "gsd_m": "double",
    "model": "string",
}
ROWS_PER_STEP = 512


def match_fields() -> QgsFields:
    """The columns of a layer of matches; made from an address, as QGIS 3 and 4 name their types differently."""
    columns = "&".join(f"field={name}:{kind}" for name, kind in COLUMNS.items())
    return QgsVectorLayer(f"NoGeometry?{columns}", "", "memory").fields()


def match_type(shape: str) -> QgsWkbTypes.Type:
    """The geometry type of a layer of matches."""
    return QgsWkbTypes.Type.Polygon if shape == "boxes" else QgsWkbTypes.Type.MultiPolygon


def add_matches(
    sink: QgsFeatureSink, path: str, shape: str, rung: int | None, feedback: QgsProcessingFeedback, question: str = ""
) -> int:
    """Stream the engine's regions into a sink.

    Args:
        sink: Where they go.
        path: The engine's GeoPackage.
        shape: Its layer, "boxes" or "polygons".
        rung: Only the regions of this threshold in percent; None for all.
        feedback: Stops the streaming when it is cancelled.
        question: Written into the column `query`; an empty one leaves what the engine wrote.

    Returns:
        How many there were.
    """
    layer = matches_layer(path, shape)
    fields, count = match_fields(), 0
    columns = [layer.fields().indexOf(name) for name in COLUMNS]
    request = QgsFeatureRequest()
    if rung is not None:
        request.setFilterExpression(f'"min_match" = {int(rung)}')
    for row in layer.getFeatures(request):
        if feedback.isCanceled():
            break
        feature = QgsFeature(fields)
        feature.setGeometry(_as_kind(row.geometry(), shape))
        values = [row.attribute(place) if place >= 0 else None for place in columns]
        values[0] = question or values[0]
        feature.setAttributes(values)
        if not sink.addFeature(feature, QgsFeatureSink.Flag.FastInsert):
            raise QgsProcessingException(tr("A match could not be written: is there space on the disk?"))
        count += 1
    return count


def matches_layer(path: str, shape: str) -> QgsVectorLayer:
    """Open the engine's GeoPackage."""
    options = QgsVectorLayer.LayerOptions()
    options.loadDefaultStyle = False
    layer = QgsVectorLayer(f"{path}|layername={shape}", shape, "ogr", options)
    if not layer.isValid():
        raise QgsProcessingException(tr("The engine's answer cannot be read: {path}").format(path=path))
    return layer


def _as_kind(geometry: QgsGeometry, shape: str) -> QgsGeometry:
    """The geometry as the sink's type."""
    if shape == "boxes":
        geometry.convertToSingleType()
    else:
        geometry.convertToMultiType()
    return geometry


def deliver(path: str, destination: str) -> str:
    """Move a raster of the engine, and the files that belong to it, to where the user wants it."""
    source, target = Path(path), Path(destination)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        Path(f"{target}.aux.xml").unlink(missing_ok=True)  # names and statistics of an answer before
        for beside in source.parent.glob(f"{source.stem}.*"):
            if beside.name != source.name and beside.suffix in (".qml", ".xml"):
                shutil.move(str(beside), str(target.with_name(target.stem + beside.name[len(source.stem) :])))
        shutil.move(str(source), str(target))
    except OSError as error:
        raise QgsProcessingException(
            tr("{path} cannot be written: {reason}").format(path=destination, reason=error.strerror or error)
        ) from error
    return destination


def stack(paths: list[str], destination: str, feedback: QgsProcessingFeedback) -> str:
    """Write rasters of the same grid as the bands of one GeoTIFF, a strip at a time."""
    layers = [QgsRasterLayer(path, "", "gdal") for path in paths]
    first = layers[0].dataProvider()
    writer = QgsRasterFileWriter(destination)
    writer.setCreateOptions(["COMPRESS=DEFLATE", "TILED=YES", "BIGTIFF=IF_SAFER"])
    width, height, extent = first.xSize(), first.ySize(), first.extent()
    target = writer.createMultiBandRaster(Qgis.DataType.Float32, width, height, extent, first.crs(), len(layers))
    if target is None or not target.isValid():
        raise QgsProcessingException(tr("{path} cannot be written.").format(path=destination))
    target.setEditable(True)
    pixel = extent.height() / height
    for band, layer in enumerate(layers, start=1):
        provider = layer.dataProvider()
        if provider.sourceHasNoDataValue(1):
            target.setNoDataValue(band, provider.sourceNoDataValue(1))
        for top in range(0, height, ROWS_PER_STEP):
            if feedback.isCanceled():
                return destination
            rows = min(ROWS_PER_STEP, height - top)
            strip = type(extent)(extent)
            strip.setYMaximum(extent.yMaximum() - top * pixel)
            strip.setYMinimum(strip.yMaximum() - rows * pixel)
            target.writeBlock(provider.block(1, strip, width, rows), band, 0, top)
    target.setEditable(False)
    return destination


def name_bands(path: str, names: list[str], tags: dict[str, str]) -> None:
    """Name the bands of a raster: in the file beside it that GDAL reads, as QGIS cannot write names into it."""
    document = QDomDocument()
    root = document.appendChild(document.createElement("PAMDataset"))
    root.appendChild(_metadata(document, tags))
    for number, name in enumerate(names, start=1):
        band = document.createElement("PAMRasterBand")
        band.setAttribute("band", number)
        description = band.appendChild(document.createElement("Description"))
        description.appendChild(document.createTextNode(name))
        band.appendChild(_metadata(document, {"GEOALIGN_QUERY": name}))
        root.appendChild(band)
    Path(f"{path}.aux.xml").write_text(document.toString(), encoding="utf-8")


def _metadata(document: QDomDocument, tags: dict[str, str]) -> QDomElement:
    metadata = document.createElement("Metadata")
    for key, value in tags.items():
        tag = document.createElement("MDI")
        tag.setAttribute("key", key)
        tag.appendChild(document.createTextNode(value))
        metadata.appendChild(tag)
    return metadata


def numbers(count: int, best: float | None) -> dict[str, Any]:
    """The number outputs of a search; where there is no image the best score is 0."""
    return {"COUNT": count, "BEST_SCORE": best or 0.0}
