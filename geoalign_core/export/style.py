"""QGIS styles (QML) for the answers: boxes, regions and the heatmap.

QGIS takes the first two from the ``layer_styles`` table of a GeoPackage and the third from a ``.qml`` file beside
the raster. Only elements that QGIS 3.22 and every later release read are used.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np

from geoalign_core.export.colors import heat_alpha, heat_floor, heat_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELD_ALIASES: dict[str, str] = {
    "query": "Question",
    "score": "Match (0–1)",
    "rank": "Rank",
    "area_m2": "Area (m²)",
    "gsd_m": "Ground resolution (m/px)",
    "model": "Model",
}
"""What QGIS shows instead of the short field names."""

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22.0"
_RANGES: tuple[tuple[float, float], ...] = ((0.0, 0.5), (0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0))
_RAMP_FROM = 0.4
"""Threshold for which the vector styles' colours are drawn, so that the usual scores span the ramp."""


def boxes_qml() -> str:
    """Return the style of boxes: a cased outline coloured by score in six grades, and the score as a label."""
    root = _vector_root(labels=True)
    _graduated(root, fill_alpha=0, casing=True)
    _labels(root)
    return _text(root)


def polygons_qml() -> str:
    """Return the style of regions: a half-transparent fill and a thin outline, coloured by score."""
    root = _vector_root(labels=False)
    _graduated(root, fill_alpha=90, casing=False)
    return _text(root)


def heatmap_qml(threshold: float = 0.5) -> str:
    """Return the style of a heatmap: transparent below the threshold, then the heat ramp.

    Args:
        threshold: The limit of a match, 0..1.
    """
    root = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="singlebandpseudocolor", band="1", opacity="1", alphaBand="-1",
        classificationMin="0", classificationMax="1", nodataColor="",
    )  # fmt: skip
    ET.SubElement(renderer, "rasterTransparency")
    origin = ET.SubElement(renderer, "minMaxOrigin")
    for name, value in (("limits", "None"), ("extent", "WholeRaster"), ("statAccuracy", "Exact")):
        ET.SubElement(origin, name).text = value
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", clip="0", minimumValue="0", maximumValue="1", labelPrecision="2",
    )  # fmt: skip
    floor = heat_floor(threshold)
    stops = np.unique(np.concatenate([[0.0], np.linspace(floor, 1.0, 13)]).round(6))
    for value, color, alpha in zip(stops, heat_rgb(stops, threshold), heat_alpha(stops, threshold), strict=True):
        ET.SubElement(
            shader, "item", value=f"{value:g}", label=f"{value:.2f}", color=_hex(color), alpha=str(round(255 * alpha))
        )
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ET.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ET.SubElement(pipe, "rasterresampler", zoomedInResampler="bilinear", maxOversampling="2")
    ET.SubElement(root, "blendMode").text = "0"
    return _text(root)


def classes_qml(names: Sequence[str], colors: Sequence[tuple[int, int, int]]) -> str:
    """Return the style of a class map, whose legend holds the named classes and nothing else.

    Without it QGIS lists all 256 entries of the colour table.

    Args:
        names: Class k is ``names[k - 1]``.
        colors: RGB 0..255 per class.
    """
    root = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, (name, color) in enumerate(zip(names, colors, strict=True), start=1):
        ET.SubElement(palette, "paletteEntry", value=str(value), label=name, color=_hex(np.asarray(color)), alpha="255")
    ET.SubElement(root, "blendMode").text = "0"
    return _text(root)


def _vector_root(*, labels: bool) -> ET.Element:
    root = ET.Element(
        "qgis", version=_VERSION, styleCategories="Symbology|Labeling|Fields|MapTips", labelsEnabled=str(int(labels))
    )
    aliases = ET.SubElement(root, "aliases")
    for index, (field, alias) in enumerate(FIELD_ALIASES.items()):
        ET.SubElement(aliases, "alias", field=field, index=str(index), name=alias)
    ET.SubElement(root, "previewExpression").text = 'concat("rank", \' · \', round("score", 2))'
    ET.SubElement(root, "mapTip").text = '<b>[% "query" %]</b><br>[% round("score", 2) %]'
    return root


def _graduated(root: ET.Element, *, fill_alpha: int, casing: bool) -> None:
    """Add a renderer with one symbol per grade of ``score``; the fill's alpha is 0..255."""
    renderer = ET.SubElement(
        root, "renderer-v2", type="graduatedSymbol", attr="score", graduatedMethod="GraduatedColor",
        symbollevels="0", enableorderby="1", forceraster="0",
    )  # fmt: skip
    ranges = ET.SubElement(renderer, "ranges")
    symbols = ET.SubElement(renderer, "symbols")
    for number, (lower, upper) in enumerate(_RANGES):
        ET.SubElement(
            ranges, "range", symbol=str(number), lower=f"{lower:.15f}", upper=f"{upper:.15f}",
            label=f"{lower:.1f} – {upper:.1f}", render="true",
        )  # fmt: skip
        color = heat_rgb([max((lower + upper) / 2, _RAMP_FROM)], _RAMP_FROM)[0]
        symbol = ET.SubElement(symbols, "symbol", name=str(number), type="fill", alpha="1", clip_to_extent="1")
        if casing:
            _fill(symbol, color, 0, outline=(20, 20, 24), outline_alpha=170, width_mm=1.0)
        _fill(symbol, color, fill_alpha, outline=color, outline_alpha=255, width_mm=0.56 if casing else 0.3)
    order = ET.SubElement(renderer, "orderby")
    ET.SubElement(order, "orderByClause", asc="1", nullsFirst="1").text = '"score"'


def _fill(
    symbol: ET.Element,
    color: np.ndarray,
    alpha: int,
    *,
    outline: np.ndarray | tuple[int, int, int],
    outline_alpha: int,
    width_mm: float,
) -> None:
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    values = {
        "color": ",".join(map(str, (*map(int, color), alpha))),
        "style": "solid" if alpha else "no",
        "outline_color": ",".join(map(str, (*map(int, outline), outline_alpha))),
        "outline_style": "solid",
        "outline_width": f"{width_mm:g}",
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }
    for name, value in values.items():
        ET.SubElement(options, "Option", name=name, value=value, type="QString")


def _labels(root: ET.Element) -> None:
    """Label each box with its score above its top left corner, where it does not cover what was found."""
    settings = ET.SubElement(ET.SubElement(root, "labeling", type="simple"), "settings", calloutType="simple")
    style = ET.SubElement(
        settings, "text-style", fieldName='format_number("score", 2)', isExpression="1", fontSize="8",
        fontSizeUnit="Point", fontWeight="63", textColor="255,255,255,255", textOpacity="1",
    )  # fmt: skip
    ET.SubElement(
        style, "text-buffer", bufferDraw="1", bufferSize="0.8", bufferSizeUnits="MM", bufferColor="20,20,24,255",
        bufferOpacity="0.8", bufferJoinStyle="128",
    )  # fmt: skip
    ET.SubElement(
        settings, "placement", placement="1", quadOffset="2", priority="7", geometryGeneratorEnabled="1",
        geometryGeneratorType="PointGeometry", layerType="PolygonGeometry",
        geometryGenerator="make_point(x_min($geometry), y_max($geometry))",
    )  # fmt: skip
    ET.SubElement(settings, "rendering", drawLabels="1", obstacle="0", displayAll="0", zIndex="0")


def _hex(color: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in color)


def _text(root: ET.Element) -> str:
    ET.indent(root, " ")
    return _DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"
