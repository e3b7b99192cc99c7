"""Cuts a raster into georeferenced tiles for other tools."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputFile,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterString,
)

from ..words import tr
from .base import ImageAlgorithm, Parameters, working_folder
from .parameters import explained, image, number

FORMATS = ["tif", "png", "jpg"]
LENGTH = re.compile(r"\d*\.?\d+\s*(px|m|%)?")


class TileRaster(ImageAlgorithm):
    """Cut tiles, with a manifest that leads back to the map."""

    ID = "tileraster"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Cut an image into tiles")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        return tr("tiles,tile,cut,split,chips,patches,grid,training data,dataset,retile").split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Cuts an image into georeferenced tiles, with a table that says where each lies.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Cuts an image into georeferenced tiles for labelling, training or other programs, and writes the table "
            "tiles.parquet with the place of each. The command geoalign-tile --stitch puts predictions for the "
            "tiles together again as one map."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.addParameter(image())
        self.addParameter(
            explained(
                QgsProcessingParameterString("TILE", tr("Tile size"), "512px"),
                tr("Pixels or metres on the ground: 512px or 250m."),
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterString("OVERLAP", tr("Overlap"), "0%"),
                tr("How much neighbouring tiles share: 20%, 64px or 30m."),
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterEnum("FORMAT", tr("File format"), FORMATS, False, "tif", False, True),
                tr("tif keeps the values; png and jpg are 8-bit pictures with a world file."),
            )
        )
        self.addParameter(
            explained(
                number("GSD", tr("Ground resolution (m per pixel)"), None, 0.001, 10000.0, True, 3),
                tr("Tiles are resampled to so many metres per pixel. Empty keeps the pixels of the image."),
                advanced=True,
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterBand("BANDS", tr("Bands"), None, "INPUT", True, True),
                tr("The bands to write, in this order. Empty means all."),
                advanced=True,
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterBoolean("OVERWRITE", tr("Replace tiles that are there"), False),
                tr("Otherwise a folder with other tiles is refused."),
                advanced=True,
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of the tiles")),
                tr("It is made when it is not there."),
            )
        )
        self.addOutput(QgsProcessingOutputNumber("COUNT", tr("Number of tiles")))
        self.addOutput(QgsProcessingOutputFile("MANIFEST", tr("Table of the tiles")))

    def canExecute(self) -> tuple[bool, str]:
        """Tiles are many files, which an engine on another machine keeps there."""
        reason = elsewhere()
        return (False, reason) if reason else super().canExecute()

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """Lengths have a unit."""
        for name, examples in (("TILE", "512px, 250m"), ("OVERLAP", "20%, 64px, 30m")):
            text = self.parameterAsString(parameters, name, context)
            if not LENGTH.fullmatch(text.strip()):
                label = self.parameterDefinition(name).description()
                return False, tr("{label}: write “{text}” like {examples}.").format(
                    label=label, text=text, examples=examples
                )
        return super().checkParameterValues(parameters, context)

    def prepareAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Scripts do not ask `canExecute`."""
        reason = elsewhere()
        if reason:
            raise QgsProcessingException(reason)
        return super().prepareAlgorithm(parameters, context, feedback)

    def bands(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[int, ...] | None:
        """Any number of bands."""
        return tuple(self.parameterAsInts(parameters, "BANDS", context)) if parameters.get("BANDS") else None

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Cut."""
        chosen = self.bands(parameters, context)
        with working_folder() as folder, self.engine(feedback) as engine:
            arguments = {
                "source": self.request_source(feedback, folder),
                "tile": self.parameterAsString(parameters, "TILE", context),
                "overlap": self.parameterAsString(parameters, "OVERLAP", context),
                "gsd_m": self.gsd(parameters, context),
                "bands": list(chosen) if chosen else None,
                "format": self.choice(parameters, "FORMAT", context),
                # The engine works in a folder of its own: a relative name counts from QGIS's.
                "out": str(Path(self.parameterAsString(parameters, "OUTPUT", context)).absolute()),
                "overwrite": self.parameterAsBoolean(parameters, "OVERWRITE", context),
            }
            result = engine.call("tile", arguments, feedback)
        return {"OUTPUT": result["folder"], "COUNT": result["count"], "MANIFEST": result["manifest"]}


def elsewhere() -> str:
    """Why no tiles are cut when the engine has an address, else an empty text."""
    from ..engine.command import find_engine
    from ..settings import Settings

    engine = find_engine(Settings())
    if engine is None or engine.kind != "address":
        return ""
    return tr("Tiles are cut on this computer only: choose another engine than an address.")
