"""What searching by text and by example have in common: their outputs, and the way through the engine's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingMultiStepFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterRasterDestination,
)

from ..words import tr
from .base import ImageAlgorithm, Parameters, working_folder
from .outputs import add_matches, deliver, match_fields, match_type, name_bands, numbers, stack
from .parameters import explained
from .style import style_heatmap, style_matches

if TYPE_CHECKING:
    from pathlib import Path

    from ..engine.blocking import BlockingEngine

TINY = 1e-6
TOP = 100_000
"""More matches than anybody looks at; keeps a threshold that is far too low from filling the disk."""


class SearchAlgorithm(ImageAlgorithm):
    """What searching by text and by example have in common: their outputs."""

    def add_outputs(self) -> None:
        """Declare the heatmap, the matches and the numbers."""
        self.addParameter(
            explained(
                QgsProcessingParameterFeatureSink("OUTPUT", tr("Matches"), QgsProcessing.SourceType.TypeVectorPolygon),
                tr("The matches with question, score, rank, area in square metres, ground resolution and model."),
            )
        )
        self.addParameter(
            explained(
                QgsProcessingParameterRasterDestination("HEATMAP", tr("Heatmap"), None, True, True),
                tr("Scores from 0 to 1 as a GeoTIFF. Several questions give one band each, in their order."),
            )
        )
        self.addOutput(QgsProcessingOutputNumber("COUNT", tr("Number of matches")))
        self.addOutput(QgsProcessingOutputNumber("BEST_SCORE", tr("Best score of any place")))

    def search(
        self,
        parameters: Parameters,
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        questions: list[str | None],
        extra: dict[str, Any],
    ) -> dict[str, Any]:
        """Ask every question and collect the answers."""
        shape = self.choice(parameters, "SHAPE", context)
        sink, sink_id = self.parameterAsSink(parameters, "OUTPUT", context, match_fields(), match_type(shape), self.crs)
        if sink is None:
            raise QgsProcessingException(self.invalidSinkError(parameters, "OUTPUT"))
        parts = 1 if rung_of(self.parameterAsDouble(parameters, "THRESHOLD", context)) is not None else 2
        steps = QgsProcessingMultiStepFeedback(len(questions) * parts, feedback)
        heatmaps, count, best = [], 0, 0.0
        with working_folder() as folder, self.engine(feedback) as engine:
            common = {**self.request(parameters, context, feedback, folder), **extra}
            for step, question in enumerate(questions):
                steps.setCurrentStep(step * parts)
                answer = self.ask(engine, parameters, context, steps, folder, {**common, "query": question}, step)
                new = add_matches(sink, answer["regions"], shape, answer["rung"], steps, question or "")
                heatmaps.append(answer["heatmap"])
                count, best = count + new, max(best, answer["best_score"] or 0.0)
                feedback.pushInfo(
                    tr("{question}: {count} matches, best score {best:.2f}").format(
                        question=question or tr("Like the examples"), count=new, best=answer["best_score"] or 0.0
                    )
                )
            results = {"OUTPUT": sink_id, **numbers(count, best)}
            if parameters.get("HEATMAP") not in (None, ""):
                destination = self.parameterAsOutputLayer(parameters, "HEATMAP", context)
                results["HEATMAP"] = destination
                if len(heatmaps) == 1:
                    deliver(heatmaps[0], destination)
                else:
                    stack(heatmaps, destination, feedback)
                    name_bands(destination, [question or "" for question in questions], answer["tags"])
                style_heatmap(context, destination, self.parameterAsDouble(parameters, "THRESHOLD", context))
        style_matches(context, sink_id, shape)
        return results

    def ask(
        self,
        engine: BlockingEngine,
        parameters: Parameters,
        context: QgsProcessingContext,
        feedback: QgsProcessingMultiStepFeedback,
        folder: Path,
        arguments: dict[str, Any],
        step: int,
    ) -> dict[str, Any]:
        """Ask one question; thresholds between whole percents need a second look at the heatmap."""
        threshold = self.parameterAsDouble(parameters, "THRESHOLD", context)
        area = self.parameterAsDouble(parameters, "MIN_AREA", context)
        shape = self.choice(parameters, "SHAPE", context)
        rung = rung_of(threshold)
        arguments = {
            **arguments,
            "min_area_m2": area,
            "top": TOP,
            "rungs": [rung or 50],
            "products": ["heatmap"] if rung is None else ["heatmap", "regions"],
            "out": str(folder),
            "stem": f"answer{step + 1}",
        }
        result = engine.call("ask", arguments, feedback)
        files = result["files"]
        if rung is None:
            feedback.setCurrentStep(2 * step + 1)
            cut = {"heatmap": files["heatmap"], "threshold": threshold, "min_area_m2": area, "top": TOP}
            cut.update(shape="box" if shape == "boxes" else "polygon", out=str(folder), stem=f"regions{step + 1}")
            files = {**files, "regions": engine.call("regions", cut, feedback)["files"]["regions"]}
        tags = {f"GEOALIGN_{name.upper()}": str(result.get(name) or "") for name in ("model", "protocol")}
        return {**files, "tags": tags, "rung": rung, "best_score": result.get("best_score")}


def rung_of(threshold: float) -> int | None:
    """A threshold in percent, at which the engine cuts along with the search; None between whole percents."""
    percent = round(threshold * 100)
    return percent if abs(percent / 100 - threshold) < TINY else None
