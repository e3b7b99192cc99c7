"""Several words compete for every place: a land-cover map."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..words import tr
from .base import ImageAlgorithm, Parameters, working_folder
from .outputs import deliver
from .parameters import explained, image, listed, look, where
from .style import style_classes

MOST = 255
"""Classes that one byte holds."""


class LandCover(ImageAlgorithm):
    """Name the classes and get the map."""

    ID = "landcover"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Land cover from words")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        words = tr("land cover,land use,classify,classification,classes,segmentation,words,water,forest,buildings")
        return words.split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Gives every place of an image to the class whose name fits best.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Gives every place of an image to the one of your classes whose name fits best: “water; trees; "
            "buildings; grass”. No training is needed.\n\n"
            "The result is a GeoTIFF with whole numbers: 0 where there is no image, 1 for the first class, 2 for "
            "the second, and so on. Names and colours come with it. Name everything that covers much ground, "
            "otherwise it goes to the class that is least wrong."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.addParameter(image())
        self.addParameter(
            explained(
                QgsProcessingParameterString("CLASSES", tr("Classes"), None, False, False),
                tr("At least two names in English, separated by semicolons: “water; trees; buildings”."),
            )
        )
        for parameter in (*where(), *look()):
            self.addParameter(parameter)
        self.addParameter(
            explained(
                QgsProcessingParameterRasterDestination("OUTPUT", tr("Land cover")),
                tr("A GeoTIFF with one number for each class."),
            )
        )
        self.addOutput(QgsProcessingOutputNumber("COUNT", tr("Number of classes")))
        self.addOutput(QgsProcessingOutputString("NAMES", tr("Names of the classes, separated by semicolons")))

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """One class would take everything; more than a byte holds cannot be written."""
        if not 2 <= len(listed(self.parameterAsString(parameters, "CLASSES", context))) <= MOST:
            return False, tr("Name at least two different classes and at most 255, separated by semicolons.")
        return super().checkParameterValues(parameters, context)

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Classify."""
        classes = listed(self.parameterAsString(parameters, "CLASSES", context))
        destination = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        with working_folder() as folder, self.engine(feedback) as engine:
            request = self.request(parameters, context, feedback, folder)
            request.update(queries=classes, out=str(folder), stem="landcover")
            result = engine.call("landcover", request, feedback)
            deliver(result["files"]["classes"], destination)
        style_classes(context, destination, result["names"])
        return {"OUTPUT": destination, "COUNT": len(result["names"]), "NAMES": "; ".join(result["names"])}
