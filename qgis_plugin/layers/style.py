"""How answers look: one heat ramp that stays readable over imagery, and outlines with a casing.

The ramp is that of the engine's pictures and styles, so that an answer looks the same everywhere.
"""

from __future__ import annotations

from qgis.core import (
    QgsBilinearRasterResampler,
    QgsColorRampLegendNodeSettings,
    QgsColorRampShader,
    QgsFillSymbol,
    QgsGradientColorRamp,
    QgsGradientStop,
    QgsPalLayerSettings,
    QgsProperty,
    QgsRasterLayer,
    QgsRasterRenderer,
    QgsRasterShader,
    QgsSimpleFillSymbolLayer,
    QgsSingleBandPseudoColorRenderer,
    QgsSingleSymbolRenderer,
    QgsTextBufferSettings,
    QgsTextFormat,
    QgsUnitTypes,
    QgsVectorLayer,
    QgsVectorLayerSimpleLabeling,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor, QFont

from ..words import tr

HEAT_STOPS: tuple[tuple[int, int, int], ...] = (
    (92, 1, 166),
    (143, 13, 164),
    (184, 50, 137),
    (219, 92, 104),
    (244, 136, 73),
    (254, 189, 42),
    (240, 249, 33),
)
"""RGB at equal steps from the weakest to the strongest match shown; lightness rises evenly."""
HEAT_OPACITY = 0.7
"""Of a new heatmap layer; the user may change it, and it is kept."""
OUTLINE = QColor(255, 214, 64)
CASING = QColor(18, 18, 22, 190)
_STEPS = 12
_FAINTEST = 0.35
"""Opacity right at the limit, of the full one: weak matches show the image best."""
_EDGE = 0.012
"""Width in score of the fade below the limit, which keeps the edge from looking torn."""


def heat_color(position: float) -> QColor:
    """Return the ramp's colour at 0..1."""
    place = min(max(position, 0.0), 1.0) * (len(HEAT_STOPS) - 1)
    index = min(int(place), len(HEAT_STOPS) - 2)
    part = place - index
    low, high = HEAT_STOPS[index], HEAT_STOPS[index + 1]
    return QColor(*(round(a + part * (b - a)) for a, b in zip(low, high)))


def heat_renderer(layer: QgsRasterLayer, limit: float) -> QgsSingleBandPseudoColorRenderer:
    """Return the renderer of a heatmap: nothing below the limit, then the ramp up to 1, growing more opaque.

    Args:
        layer: The heatmap.
        limit: The least match shown, 0..1.
    """
    limit = min(max(limit, 0.0), 0.99)
    clear = heat_color(0.0)
    clear.setAlpha(0)
    items = [
        QgsColorRampShader.ColorRampItem(value, clear, f"{value:.2f}") for value in (0.0, limit - _EDGE) if value >= 0
    ]
    for step in range(_STEPS + 1):
        position = step / _STEPS
        color = heat_color(position)
        color.setAlphaF(_FAINTEST + (1.0 - _FAINTEST) * min(1.0, 1.8 * position))
        value = limit + position * (1.0 - limit)
        items.append(QgsColorRampShader.ColorRampItem(value, color, f"{value:.2f}"))
    function = QgsColorRampShader(limit, 1.0, _ramp(), QgsColorRampShader.Type.Interpolated)
    function.setColorRampItemList(items)
    legend = QgsColorRampLegendNodeSettings()
    legend.setUseContinuousLegend(True)
    legend.setMinimumLabel(tr("{limit} weaker match").format(limit=f"{limit:.2f}"))
    legend.setMaximumLabel(tr("1.00 stronger match"))
    function.setLegendSettings(legend)
    shader = QgsRasterShader(0.0, 1.0)
    shader.setRasterShaderFunction(function)
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1, shader)
    renderer.setClassificationMin(limit)
    renderer.setClassificationMax(1.0)
    return renderer


def style_heatmap(layer: QgsRasterLayer, limit: float) -> None:
    """Give a new heatmap layer its style."""
    renderer = heat_renderer(layer, limit)
    renderer.setOpacity(HEAT_OPACITY)
    layer.setRenderer(renderer)
    layer.resampleFilter().setZoomedInResampler(QgsBilinearRasterResampler())


def move_limit(layer: QgsRasterLayer, limit: float) -> None:
    """Show a heatmap from another limit on; opacity is the user's, and so is a renderer of another kind."""
    shown: QgsRasterRenderer = layer.renderer()
    if shown is not None and not isinstance(shown, QgsSingleBandPseudoColorRenderer):
        return
    renderer = heat_renderer(layer, limit)
    renderer.setOpacity(shown.opacity() if shown is not None else HEAT_OPACITY)
    layer.setRenderer(renderer)
    layer.triggerRepaint()


def style_regions(layer: QgsVectorLayer, polygons: bool = False) -> None:
    """Give boxes or polygons their style: cased outline, score as a label, words for the columns, a map tip."""
    layer.setRenderer(QgsSingleSymbolRenderer(_symbol(polygons)))
    layer.setLabeling(QgsVectorLayerSimpleLabeling(_labels(polygons)))
    layer.setLabelsEnabled(True)
    name_columns(layer)
    layer.setDisplayExpression('concat("rank", \' · \', format_number("score", 2))')
    tip = tr("Match {score}, {area} m²").format(
        score='[% format_number("score", 2) %]', area='[% format_number("area_m2", 0) %]'
    )
    layer.setMapTipTemplate(f'<b>[% "query" %]</b><br>{tip}')


def name_columns(layer: QgsVectorLayer) -> None:
    """Give columns that have no name in words one; those that the user gave stay."""
    aliases = {
        "query": tr("Question"),
        "score": tr("Match (0–1)"),
        "precision": tr("Expected precision (0–1)"),
        "rank": tr("Rank"),
        "area_m2": tr("Area (m²)"),
        "gsd_m": tr("Ground resolution (m/px)"),
        "model": tr("Model"),
        "min_match": tr("Minimum match (%)"),
    }
    for name, alias in aliases.items():
        index = layer.fields().lookupField(name)
        if index >= 0 and not layer.attributeAlias(index):
            layer.setFieldAlias(index, alias)


def _ramp() -> QgsGradientColorRamp:
    last = len(HEAT_STOPS) - 1
    stops: list[QgsGradientStop] = [QgsGradientStop(k / last, QColor(*HEAT_STOPS[k])) for k in range(1, last)]
    return QgsGradientColorRamp(QColor(*HEAT_STOPS[0]), QColor(*HEAT_STOPS[-1]), False, stops)


def _symbol(polygons: bool) -> QgsFillSymbol:
    """Return two outlines, the dark one wider: the pair reads on bright and on dark ground."""
    symbol = QgsFillSymbol()
    symbol.deleteSymbolLayer(0)
    for color, width in ((CASING, 1.1), (OUTLINE, 0.55)):
        line = QgsSimpleFillSymbolLayer()
        line.setBrushStyle(Qt.BrushStyle.NoBrush)
        line.setStrokeColor(color)
        line.setStrokeWidth(width)
        line.setStrokeWidthUnit(QgsUnitTypes.RenderUnit.RenderMillimeters)
        line.setPenJoinStyle(Qt.PenJoinStyle.MiterJoin if not polygons else Qt.PenJoinStyle.RoundJoin)
        symbol.appendSymbolLayer(line)
    return symbol


def _labels(polygons: bool) -> QgsPalLayerSettings:
    """Return labels above the top left corner of boxes, where they cover nothing, and inside polygons.

    The corner of a polygon's box may be far from it. Where room is short, the best matches get it.
    """
    buffer = QgsTextBufferSettings()
    buffer.setEnabled(True)
    buffer.setSize(0.9)
    buffer.setColor(QColor(18, 18, 22, 220))
    text = QgsTextFormat()
    font = QFont(text.font())
    font.setBold(True)
    text.setFont(font)
    text.setSize(8.5)
    text.setColor(QColor(255, 255, 255))
    text.setBuffer(buffer)
    settings = QgsPalLayerSettings()
    settings.setFormat(text)
    settings.fieldName = 'format_number("score", 2)'
    settings.isExpression = True
    settings.placement = QgsPalLayerSettings.Placement.OverPoint
    quadrant = QgsPalLayerSettings.QuadrantPosition
    settings.quadOffset = quadrant.QuadrantOver if polygons else quadrant.QuadrantAboveRight
    settings.geometryGeneratorEnabled = True
    settings.geometryGeneratorType = QgsWkbTypes.GeometryType.PointGeometry
    corner = "make_point(x_min($geometry), y_max($geometry))"
    settings.geometryGenerator = "point_on_surface($geometry)" if polygons else corner
    properties = settings.dataDefinedProperties()
    properties.setProperty(QgsPalLayerSettings.Property.Priority, QgsProperty.fromExpression('10 * "score"'))
    settings.setDataDefinedProperties(properties)
    return settings
