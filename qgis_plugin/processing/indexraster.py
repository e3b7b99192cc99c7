"""Builds the index of a raster ahead of the first question."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputFolder,
    QgsProcessingOutputNumber,
)

from ..words import tr
from .base import ImageAlgorithm, Parameters, working_folder
from .parameters import image, look, where


class IndexRaster(ImageAlgorithm):
    """Look at a raster once, so that every question about it is answered at once."""

    ID = "indexraster"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Prepare an image for searching (index)")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        return tr("index,prepare,embed,embeddings,features,search,cache,batch,image,aerial,satellite").split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Builds the index that makes every question about an image quick.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Looks at an image once and stores what it saw in a folder beside it, named like the image with "
            "“.geoalign” at the end. Every later question reads only this index and takes seconds.\n\n"
            "Run it over many images in a batch, for instance at night. It can be cancelled at any time and goes on "
            "where it was. Extent and mask limit it to a part of the image."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        for parameter in (image(), *where(), *look()):
            self.addParameter(parameter)
        self.addOutput(QgsProcessingOutputFolder("INDEX", tr("Index folder")))
        self.addOutput(QgsProcessingOutputNumber("ROWS", tr("Number of patches in the index")))
        self.addOutput(QgsProcessingOutputNumber("BYTES", tr("Size of the index in bytes")))
        self.addOutput(QgsProcessingOutputNumber("SECONDS", tr("Duration in seconds")))

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Index."""
        with working_folder() as folder, self.engine(feedback) as engine:
            request = self.request(parameters, context, feedback, folder)
            result = engine.call("index", request, feedback)
        built, kept = int(result.get("built_shards") or 0), int(result.get("kept_shards") or 0)
        feedback.pushInfo(tr("Parts of the index built: {built}, already there: {kept}").format(built=built, kept=kept))
        return {
            "INDEX": result["index"],
            "ROWS": result["rows"],
            "BYTES": result["bytes"],
            "SECONDS": result["seconds"],
        }
