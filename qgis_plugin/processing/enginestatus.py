"""Says which engine answers, with what model and on what device; also when there is none."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputString,
)

from ..words import tr
from .base import GeoAlignAlgorithm, Parameters


class EngineStatus(GeoAlignAlgorithm):
    """A first look when something does not work, and a check for scripts."""

    ID = "enginestatus"

    def displayName(self) -> str:
        """The name in the toolbox."""
        return tr("Engine status")

    def tags(self) -> list[str]:
        """Everyday words that find the algorithm in the toolbox."""
        return tr("engine,status,version,installed,gpu,cuda,device,model,diagnose,help").split(",")

    def shortDescription(self) -> str:
        """One line."""
        return tr("Says whether the search engine works, and what it has.")

    def shortHelpString(self) -> str:
        """What it does, in plain sentences."""
        return tr(
            "Starts the search engine and says its version, its models and the devices it can compute on. When "
            "there is no engine, it says why and what to do."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare the outputs; there are no parameters."""
        self.addOutput(QgsProcessingOutputBoolean("READY", tr("The engine works")))
        self.addOutput(QgsProcessingOutputString("VERSION", tr("Version of the engine")))
        self.addOutput(QgsProcessingOutputString("DEVICES", tr("Devices, separated by semicolons")))
        self.addOutput(QgsProcessingOutputString("MODELS", tr("Installed models, separated by semicolons")))
        self.addOutput(QgsProcessingOutputString("PROBLEM", tr("What is wrong, or empty")))

    def canExecute(self) -> tuple[bool, str]:
        """Always: it is there to say that there is no engine."""
        return True, ""

    def processAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Ask the engine about itself."""
        possible, reason = super().canExecute()
        if not possible:
            return self.problem(reason, feedback)
        try:
            with self.engine(feedback) as engine:
                status = engine.call("status", {}, feedback)
        except QgsProcessingException as error:
            return self.problem(str(error), feedback)
        results = {
            "READY": True,
            "VERSION": str(status["engine"]),
            "DEVICES": "; ".join(device["title"] for device in status["devices"]),
            "MODELS": "; ".join(model["name"] for model in status["models"] if model["installed"]),
            "PROBLEM": "",
        }
        feedback.pushInfo(tr("Engine {version}").format(version=results["VERSION"]))
        feedback.pushInfo(tr("Devices: {names}").format(names=results["DEVICES"]))
        feedback.pushInfo(tr("Models: {names}").format(names=results["MODELS"]))
        return results

    def problem(self, reason: str, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """No engine is an answer, not a failure."""
        feedback.pushWarning(reason)
        return {"READY": False, "VERSION": "", "DEVICES": "", "MODELS": "", "PROBLEM": reason}
