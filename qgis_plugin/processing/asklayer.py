"""Text search: questions to a heatmap and matches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgis.core import QgsProcessingContext, QgsProcessingFeedback, QgsProcessingParameterString

from ..words import tr
from .parameters import avoid, explained, found, image, listed, look, where
from .search import SearchAlgorithm

if TYPE_CHECKING:
    from .base import Parameters


class AskLayer(SearchAlgorithm):
    """Find what a sentence names."""

    ID = "asklayer"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Ask the map (find by text)")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        return tr(
            "search,find,text,question,words,detect,objects,heatmap,boxes,aerial,satellite,image,imagery,buildings,"
            "cars,trees,water,clip,ai,machine learning"
        ).split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Finds what a sentence names in an aerial or satellite image.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Finds what a sentence names in an aerial or satellite image: “parking lots with many cars”.\n\n"
            "The matches come as boxes or outlines with a score from 0 to 1, and the score of every place as a "
            "heatmap. Questions are in English. The first question about an image builds an index beside it, which "
            "takes minutes for a large image; every later question takes seconds.\n\n"
            "Scenes and surfaces (water, forest, car parks, roofs, fields) are found best at 0.3 to 2 metres per "
            "pixel. Small things are found better by example."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.addParameter(image())
        self.addParameter(
            explained(
                QgsProcessingParameterString("QUERY", tr("Question"), None, False, False),
                tr("What to look for, in English. Several questions are separated by semicolons: “trees; water”."),
            )
        )
        for parameter in (*where(), *found(), avoid(), *look()):
            self.addParameter(parameter)
        self.add_outputs()

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """An empty question finds nothing."""
        if not listed(self.parameterAsString(parameters, "QUERY", context)):
            return False, tr("Type what to look for.")
        return super().checkParameterValues(parameters, context)

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Ask."""
        questions: list[str | None] = list(listed(self.parameterAsString(parameters, "QUERY", context)))
        extra = {"avoid": listed(self.parameterAsString(parameters, "AVOID", context))}
        return self.search(parameters, context, feedback, questions, extra)
