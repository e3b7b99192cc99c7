"""The parameters that several algorithms share, each with its help, and how they are read."""

from __future__ import annotations

import re

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from ..words import tr

DEVICES = ["auto", "cpu", "cuda:0", "cuda:1"]
SHAPES = ["boxes", "polygons"]
LOWEST, HIGHEST = 0.05, 0.99
Parameter = QgsProcessingParameterDefinition


def explained(parameter: Parameter, text: str, advanced: bool = False) -> Parameter:
    """Give a parameter its help, and put it under the advanced ones when asked."""
    parameter.setHelp(text)
    if advanced:
        parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
    return parameter


def number(
    name: str, label: str, default: float | None, low: float, high: float, optional: bool = False, decimals: int = 2
) -> QgsProcessingParameterNumber:
    """A decimal number with limits."""
    kind = QgsProcessingParameterNumber.Type.Double
    parameter = QgsProcessingParameterNumber(name, label, kind, default, optional, low, high)
    parameter.setMetadata({"widget_wrapper": {"decimals": decimals}})
    return parameter


def image() -> Parameter:
    """The raster to look at."""
    return explained(
        QgsProcessingParameterRasterLayer("INPUT", tr("Image")),
        tr("An aerial or satellite image with a coordinate reference system."),
    )


def where() -> list[Parameter]:
    """The part of the raster to look at."""
    return [
        explained(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), None, True),
            tr("Only this rectangle is searched. Empty means the whole image."),
        ),
        explained(
            QgsProcessingParameterFeatureSource(
                "MASK", tr("Mask layer"), [QgsProcessing.SourceType.TypeVectorPolygon], None, True
            ),
            tr("Only what lies in these polygons is searched, in any coordinate reference system."),
        ),
    ]


def found() -> list[Parameter]:
    """What counts as a match."""
    return [
        threshold(),
        explained(
            QgsProcessingParameterEnum("SHAPE", tr("Shape of the matches"), SHAPES, False, "boxes", False, True),
            tr(
                "boxes: the rectangle around each match. polygons: its outline, which follows it to about half a patch."
            ),
        ),
        minimum_area(),
    ]


def threshold() -> Parameter:
    """The lowest score of a match."""
    return explained(
        number("THRESHOLD", tr("Minimum match"), 0.5, LOWEST, HIGHEST),
        tr(
            "From 0.05 to 0.99. Every pixel of a match has at least this score. 0.5 means that the question explains "
            "the place as well as everything generic together; lower values find more."
        ),
    )


def minimum_area() -> Parameter:
    """The smallest match."""
    return explained(
        number("MIN_AREA", tr("Smallest match (m²)"), 0.0, 0.0, 1e12),
        tr("Smaller matches are left out. In square metres on the ground."),
        advanced=True,
    )


def avoid() -> Parameter:
    """Words that a match should not fit."""
    return explained(
        QgsProcessingParameterString("AVOID", tr("Words to avoid"), "", False, True),
        tr("What looks similar but is not meant, in English, separated by semicolons: “shadow; dark water”."),
        advanced=True,
    )


def look() -> list[Parameter]:
    """How the raster is looked at."""
    return [
        explained(
            number("GSD", tr("Ground resolution (m per pixel)"), None, 0.01, 1000.0, True, 3),
            tr(
                "How closely to look, in metres per pixel. Empty means what suits the model. Small things need small "
                "values, which take longer."
            ),
            advanced=True,
        ),
        explained(
            QgsProcessingParameterBand("BANDS", tr("Red, green and blue band"), None, "INPUT", True, True),
            tr("Three bands in the order red, green, blue. Empty means the bands of the layer's style."),
            advanced=True,
        ),
        explained(
            QgsProcessingParameterBoolean("AS_SHOWN", tr("Stretch as shown"), True),
            tr("Look at the image with the contrast of its layer style. Otherwise the engine chooses the contrast."),
            advanced=True,
        ),
        explained(
            QgsProcessingParameterString("MODEL", tr("Model"), "", False, True),
            tr("The name of an installed model, or its folder. Empty means the model of the settings."),
            advanced=True,
        ),
        explained(
            QgsProcessingParameterEnum("DEVICE", tr("Device"), DEVICES, False, "auto", False, True),
            tr("Where to compute: auto takes the graphics card when the engine has one."),
            advanced=True,
        ),
    ]


def listed(text: str) -> list[str]:
    """The entries of a text with one on each line, or with semicolons between them; each once, in their order."""
    return list(dict.fromkeys(part for part in (raw.strip() for raw in re.split(r"[;\n]", text)) if part))
