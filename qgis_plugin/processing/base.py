"""What all algorithms share: the engine, the image read in the main thread, the area, and one-line errors."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgis.core import (
    QgsGeometry,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterRasterDestination,
    QgsRasterLayer,
)
from qgis.PyQt.QtGui import QIcon

from ..sentences import sentences
from ..words import tr
from .areas import fitting, transformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..engine.blocking import BlockingEngine
    from ..layers.render import RenderTask

ICON = str(Path(__file__).parents[1] / "resources" / "icon.svg")
HELP_URL = "https://github.com/geoalign/geoalign/blob/main/docs/plugin.md#processing"
Parameters = dict[str, Any]


class GeoAlignAlgorithm(QgsProcessingAlgorithm):
    """An algorithm that asks the engine.

    Layers are read in `prepareAlgorithm`, which QGIS calls in the main thread; all waiting happens in
    `processAlgorithm`, in a thread of its own, so QGIS stays usable.
    """

    ID = ""

    def name(self) -> str:
        """The id; published, never changed."""
        return self.ID

    def createInstance(self) -> GeoAlignAlgorithm:
        """A fresh one for each run."""
        return type(self)()

    def helpUrl(self) -> str:
        """The guide."""
        return HELP_URL

    def icon(self) -> QIcon:
        """The plugin's icon."""
        return QIcon(ICON)

    def svgIconPath(self) -> str:
        """The icon as SVG, which scales."""
        return ICON

    def canExecute(self) -> tuple[bool, str]:
        """Whether there is an engine; otherwise how to get one."""
        from ..engine.command import find_engine, why_none
        from ..settings import Settings

        settings = Settings()
        if find_engine(settings) is not None:
            return True, ""
        if settings.engine_mode == "address" or settings.engine_command:
            problem = why_none(settings)
            return False, sentences(problem.message, problem.remedy)
        return False, tr(
            "There is no search engine yet. Open Raster ▸ GeoAlign ▸ Ask the Map and choose Install…, "
            "or set GEOALIGN_PYTHON to a Python that has the package geoalign."
        )

    def checkParameterValues(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[bool, str]:
        """Whether all is well; choices may be given as numbers, outputs have to be what the engine writes."""
        for definition in self.parameterDefinitions():
            if isinstance(definition, QgsProcessingParameterRasterDestination):
                ending = Path(destination(parameters.get(definition.name()))).suffix.lower()
                if ending not in ("", ".tif", ".tiff"):
                    text = tr("{output}: GeoAlign writes GeoTIFF. Choose a name that ends in .tif.")
                    return False, text.format(output=definition.description())
        return super().checkParameterValues(self.in_words(parameters), context)

    def in_words(self, parameters: Parameters) -> Parameters:
        """The parameters with the words of choices that were given as numbers, as `qgis_process help` lists them."""
        worded = dict(parameters)
        for definition in self.parameterDefinitions():
            number = str(parameters.get(definition.name()))
            if isinstance(definition, QgsProcessingParameterEnum) and number.isdecimal():
                worded[definition.name()] = dict(enumerate(definition.options())).get(int(number), number)
        return worded

    def choice(self, parameters: Parameters, name: str, context: QgsProcessingContext) -> str:
        """The word of a choice."""
        return self.parameterAsEnumString(self.in_words(parameters), name, context)

    def raster_layer(self, parameters: Parameters, context: QgsProcessingContext) -> QgsRasterLayer:
        """The layer to work on."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        return layer

    @contextmanager
    def engine(self, feedback: QgsProcessingFeedback) -> Iterator[BlockingEngine]:
        """The engine of the settings, for one run of the algorithm; its errors become sentences."""
        from ..engine.blocking import BlockingEngine, EngineFailure
        from ..settings import Settings

        try:
            with BlockingEngine(Settings()) as engine:
                yield engine
        except EngineFailure as failure:
            error = failure.error
            if error.details:
                feedback.pushDebugInfo(error.details)
            raise QgsProcessingException(sentences(error.message, error.remedy)) from failure


class ImageAlgorithm(GeoAlignAlgorithm):
    """An algorithm that looks at a raster layer."""

    def prepareAlgorithm(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Copy what is needed of the layer: it may only be touched in the main thread."""
        from ..layers.source import describe

        layer = self.raster_layer(parameters, context)
        bands = self.bands(parameters, context)
        self.source = describe(layer, self.as_shown(parameters, context), bands)
        if self.source.kind == "none":
            raise QgsProcessingException(sentences(self.source.reason))
        self.crs = self.source.crs
        self.render = None if self.source.kind == "file" else self.drawing(layer, parameters, context)
        return True

    def bands(self, parameters: Parameters, context: QgsProcessingContext) -> tuple[int, ...] | None:
        """The bands that were chosen."""
        if self.parameterDefinition("BANDS") is None:
            return None
        bands = tuple(self.parameterAsInts(parameters, "BANDS", context)) if parameters.get("BANDS") else ()
        if len(bands) not in (0, 1, 3):
            raise QgsProcessingException(tr("Choose one band or three bands, in the order red, green, blue."))
        return bands or None

    def as_shown(self, parameters: Parameters, context: QgsProcessingContext) -> bool:
        """Whether the layer's own contrast counts."""
        known = self.parameterDefinition("AS_SHOWN") is not None
        return known and self.parameterAsBoolean(parameters, "AS_SHOWN", context)

    def gsd(self, parameters: Parameters, context: QgsProcessingContext) -> float | None:
        """The ground resolution that was asked for."""
        return None if parameters.get("GSD") in (None, "") else self.parameterAsDouble(parameters, "GSD", context)

    def drawing(self, layer: QgsRasterLayer, parameters: Parameters, context: QgsProcessingContext) -> RenderTask:
        """How a layer that is no file will be drawn into one; made in the main thread, run in the other one."""
        from ..layers.render import RenderError, RenderTask, plan_render

        try:
            plan = plan_render(layer, self.area(parameters, context), self.gsd(parameters, context))
        except RenderError as problem:
            raise QgsProcessingException(str(problem)) from problem
        return RenderTask(plan, layer, "")

    def request(
        self, parameters: Parameters, context: QgsProcessingContext, feedback: QgsProcessingFeedback, folder: Path
    ) -> dict[str, Any]:
        """The arguments that every question about a raster has: source, look and area."""
        return {
            "source": self.request_source(feedback, folder),
            "look": self.look(parameters, context),
            "area": self.area(parameters, context),
        }

    def request_source(self, feedback: QgsProcessingFeedback, folder: Path) -> dict[str, Any]:
        """The raster as the engine is told about it, drawn into a file first where it is none."""
        if self.render is None:
            return self.source.request_source()
        from .drawing import draw

        return self.source.request_source(draw(self.render, folder, feedback))

    def look(self, parameters: Parameters, context: QgsProcessingContext) -> dict[str, Any]:
        """How the engine looks at the raster."""
        from ..settings import Settings

        settings = Settings()
        look: dict[str, Any] = {
            "model": self.parameterAsString(parameters, "MODEL", context).strip() or settings.model,
            "device": self.choice(parameters, "DEVICE", context),
            "gsd_m": self.gsd(parameters, context),
            **self.source.request_look(),
        }
        if look["device"] == "auto":
            look["device"] = settings.device
        return {name: value for name, value in look.items() if value not in (None, "")}

    def area(self, parameters: Parameters, context: QgsProcessingContext) -> dict[str, Any] | None:
        """What lies in the extent and in the mask, as GeoJSON in the raster's CRS; None for everything."""
        parts = []
        extent = self.rectangle(parameters, "EXTENT", context)
        if extent is not None:
            parts.append(extent)
        if self.parameterAsSource(parameters, "MASK", context) is not None:
            mask = self.geometries(parameters, "MASK", context)
            if not mask:
                raise QgsProcessingException(tr("The mask layer has no polygons. Draw some, or leave the mask empty."))
            parts.append(QgsGeometry.unaryUnion(mask))
        if not parts:
            return None
        area = parts[0] if len(parts) == 1 else parts[0].intersection(parts[1])
        if area.isEmpty():
            raise QgsProcessingException(tr("There is nothing to search: the extent and the mask share no ground."))
        return fitting([area], self.crs)[0]

    def rectangle(self, parameters: Parameters, name: str, context: QgsProcessingContext) -> QgsGeometry | None:
        """An extent parameter in the raster's CRS, turned where the systems are; None when it was left empty."""
        if self.parameterAsExtent(parameters, name, context, self.crs).isEmpty():
            return None
        return self.parameterAsExtentGeometry(parameters, name, context, self.crs)

    def geometries(self, parameters: Parameters, name: str, context: QgsProcessingContext) -> list[QgsGeometry]:
        """The geometries of a vector parameter in the raster's CRS."""
        source = self.parameterAsSource(parameters, name, context)
        if source is None:
            return []
        return transformed(source, self.crs, context.transformContext())


def destination(value: Any) -> str:
    """The text behind an output parameter."""
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink.staticValue()
    return value if isinstance(value, str) else ""


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for the engine's files; on Windows an open file may keep it until QGIS ends, which is no error."""
    folder = tempfile.mkdtemp(prefix="geoalign-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
