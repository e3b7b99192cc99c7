"""From a stored heatmap to matches, at another threshold and without another search."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from ..words import tr
from .base import GeoAlignAlgorithm, Parameters, working_folder
from .outputs import add_matches, match_fields, match_type, numbers
from .parameters import SHAPES, explained, minimum_area, threshold
from .style import style_matches


class HeatmapToBoxes(GeoAlignAlgorithm):
    """Cut a heatmap at a threshold."""

    ID = "heatmaptoboxes"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Heatmap to boxes")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        return tr("heatmap,threshold,boxes,polygons,outlines,vectorize,vectorise,polygonize,matches,score").split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Turns a heatmap of scores into boxes or outlines.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Turns a heatmap made by GeoAlign into boxes or outlines at the threshold you choose, with score and "
            "area in square metres. Nothing is searched again, so this takes a moment only. Of a heatmap with "
            "several bands the first is taken."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.addParameter(
            explained(
                QgsProcessingParameterRasterLayer("INPUT", tr("Heatmap")),
                tr("A GeoTIFF with scores from 0 to 1, from “Ask the map” or “Find similar places”."),
            )
        )
        self.addParameter(threshold())
        self.addParameter(
            explained(
                QgsProcessingParameterEnum("SHAPE", tr("Shape of the matches"), SHAPES, False, "boxes", False, True),
                tr("boxes: the rectangle around each match. polygons: its outline."),
            )
        )
        self.addParameter(minimum_area())
        self.addParameter(
            explained(
                QgsProcessingParameterNumber(
                    "TOP", tr("Most matches"), QgsProcessingParameterNumber.Type.Integer, 10000, False, 1, 1000000
                ),
                tr("Only so many matches are kept, the best ones first."),
                advanced=True,
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterString("QUERY", tr("Question"), None, False, True),
                tr("Written into the column “query” of the matches. May stay empty."),
                advanced=True,
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterFeatureSink("OUTPUT", tr("Matches"), QgsProcessing.SourceType.TypeVectorPolygon),
                tr("The matches with score, rank and area in square metres."),
            )
        )
        self.addOutput(QgsProcessingOutputNumber("COUNT", tr("Number of matches")))
        self.addOutput(QgsProcessingOutputNumber("BEST_SCORE", tr("Best score of any place")))

    def prepareAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Copy what is needed of the layer: it may only be touched in the main thread."""
        from ..layers.source import local_file

        layer = self.raster_layer(parameters, context)
        self.path, self.crs = local_file(layer), layer.crs()
        if not self.path:
            raise QgsProcessingException(tr("The heatmap has to be a file. Export the layer first."))
        return True

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Cut."""
        shape = self.choice(parameters, "SHAPE", context)
        sink, sink_id = self.parameterAsSink(parameters, "OUTPUT", context, match_fields(), match_type(shape), self.crs)
        if sink is None:
            raise QgsProcessingException(self.invalidSinkError(parameters, "OUTPUT"))
        with working_folder() as folder, self.engine(feedback) as engine:
            arguments = {
                "heatmap": self.path,
                "threshold": self.parameterAsDouble(parameters, "THRESHOLD", context),
                "min_area_m2": self.parameterAsDouble(parameters, "MIN_AREA", context),
                "top": self.parameterAsInt(parameters, "TOP", context),
                "shape": "box" if shape == "boxes" else "polygon",
                "out": str(folder),
                "stem": "regions",
            }
            result = engine.call("regions", arguments, feedback)
            question = self.parameterAsString(parameters, "QUERY", context).strip()
            count = add_matches(sink, result["files"]["regions"], shape, None, feedback, question)
        style_matches(context, sink_id, shape)
        return {"OUTPUT": sink_id, **numbers(count, result.get("best_score"))}
