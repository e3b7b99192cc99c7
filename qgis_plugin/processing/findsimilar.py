"""Search by example: what looks like the places that were marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgis.core import (
    QgsGeometry,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterString,
    QgsWkbTypes,
)

from ..words import tr
from .areas import fitting
from .parameters import avoid, explained, found, image, listed, look, where
from .search import SearchAlgorithm

if TYPE_CHECKING:
    from .base import Parameters


class FindSimilar(SearchAlgorithm):
    """Find what looks like examples."""

    ID = "findsimilar"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Find similar places (by example)")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        words = tr("search,similar,example,like this,sample,match,lookalike,objects,aerial,satellite,image,few shot")
        return words.split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Finds what looks like marked places in an aerial or satellite image.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Finds what looks like one or more marked places in the same image.\n\n"
            "Give examples as a layer of polygons or points (with only the selected features, if you like), or as a "
            "rectangle. Places that must not count go into a second layer. A text in English can be added; text and "
            "examples are then judged together.\n\n"
            "Three to ten examples of different looks work best. The first search in an image builds an index "
            "beside it; every later one takes seconds."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        anything = [QgsProcessing.SourceType.TypeVectorAnyGeometry]
        self.addParameter(image())
        self.addParameter(
            explained(
                QgsProcessingParameterFeatureSource("EXAMPLES", tr("Examples"), anything, None, True),
                tr("Polygons around what is meant, or points on it."),
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterExtent("EXAMPLE_EXTENT", tr("Example rectangle"), None, True),
                tr("A rectangle around one example; instead of the layer, or besides it."),
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterFeatureSource("EXCLUDE", tr("Not like these"), anything, None, True),
                tr("Polygons around what looks similar but is not meant, or points on it."),
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterString("QUERY", tr("Question"), None, False, True),
                tr("What the examples show, in English. May stay empty."),
            )
        )
        for parameter in (*where(), *found(), avoid(), *look()):
            self.addParameter(parameter)
        self.add_outputs()

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """There has to be an example."""
        if parameters.get("EXAMPLES") in (None, "") and parameters.get("EXAMPLE_EXTENT") in (None, ""):
            return False, tr("Give an example: a layer or a rectangle.")
        return super().checkParameterValues(parameters, context)

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Search."""
        examples = self.examples(parameters, "EXAMPLES", context)
        rectangle = self.rectangle(parameters, "EXAMPLE_EXTENT", context)
        if rectangle is not None:
            examples.append(rectangle)
        if not examples:
            raise QgsProcessingException(tr("The layer of examples has no features."))
        question = self.parameterAsString(parameters, "QUERY", context).strip() or None
        extra = {
            "include": fitting(examples, self.crs),
            "exclude": fitting(self.examples(parameters, "EXCLUDE", context), self.crs),
            "avoid": listed(self.parameterAsString(parameters, "AVOID", context)) if question else [],
        }
        return self.search(parameters, context, feedback, [question], extra)

    def examples(self, parameters: Parameters, name: str, context: QgsProcessingContext) -> list[QgsGeometry]:
        """The geometries of a parameter; points and lines become small areas."""
        return [self.widened(geometry) for geometry in self.geometries(parameters, name, context)]

    def widened(self, geometry: QgsGeometry) -> QgsGeometry:
        """A polygon as it is; around points, the squares that clicks on the map stand for."""
        if geometry.type() == QgsWkbTypes.GeometryType.PolygonGeometry:
            return geometry
        from ..layers.tools import mark_geometry

        points = [QgsPointXY(vertex) for vertex in geometry.vertices()]
        return QgsGeometry.unaryUnion([mark_geometry(point, self.crs, self.source) for point in points])
