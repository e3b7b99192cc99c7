"""From what the panel shows to what the engine is asked: layer, area, way of looking."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgis.core import QgsProject

from ..engine.protocol import EngineError
from ..layers.area import AreaError, area_of
from ..layers.folders import results_folder, stem_for
from ..layers.render import RenderError, RenderPlan, plan_render
from ..layers.source import LayerSource, describe
from .model import SearchOptions

if TYPE_CHECKING:
    from qgis.core import QgsRasterLayer
    from qgis.gui import QgsMapCanvas

    from ..layers.project import Question


class PlanError(Exception):
    """Something about the layer or the area prevents the search; carries what the card says.

    Args:
        message: What is the matter, and after a colon what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        what, _, remedy = message.partition(": ")
        self.error = EngineError("area", what, remedy[:1].upper() + remedy[1:])


@dataclass(frozen=True)
class Plan:
    """Where and how to look, ready to be sent."""

    request_source: dict[str, Any]
    area: dict[str, Any] | None
    look: dict[str, Any]
    layer_id: str
    folder: str = ""
    """Where results go; empty when nothing is to be written."""
    render: RenderPlan | None = None
    """What to draw first when the layer is no file …"""
    picture: str = ""
    """… and into which file: the same one for every question about the same place."""

    @property
    def key(self) -> str:
        """The same for everything that needs the same tiles to be read."""
        return json.dumps([self.layer_id, self.request_source, self.area, self.look], sort_keys=True)


def source_of(layer: QgsRasterLayer, options: SearchOptions) -> LayerSource:
    """Describe a layer as the options want it seen."""
    return describe(layer, stretch_as_shown=options.stretch_as_shown, bands=options.bands)


def area_in(
    where: str, source: LayerSource, canvas: QgsMapCanvas, *, selection: object = None, rectangle: object = None
) -> dict[str, Any] | None:
    """Return the area as GeoJSON in the source's CRS, None for the whole layer.

    Raises:
        PlanError: The area is empty or misses the layer.
    """
    try:
        return area_of(where, source, canvas, selection=selection, rectangle=rectangle)
    except AreaError as problem:
        raise PlanError(str(problem)) from problem


def options_of(question: Question) -> SearchOptions:
    """Return the options that a question was asked with."""
    known = {key: value for key, value in question.options.items() if key in SearchOptions.__dataclass_fields__}
    lists = {key: tuple(known[key]) for key in ("bands", "avoid") if known.get(key)}
    return SearchOptions(**{**known, **lists})


def plan_for(question: Question, layer: QgsRasterLayer, *, writes: bool = True) -> Plan:
    """Lay out the search of a question.

    Args:
        question: What is asked, where and how.
        layer: The image.
        writes: Whether there will be results, so that they need a folder.

    Raises:
        PlanError: The layer cannot be searched, or has too many map tiles.
    """
    options = options_of(question)
    source = source_of(layer, options)
    if source.kind == "none":
        raise PlanError(source.reason)
    folder = str(results_folder(QgsProject.instance(), source)) if writes else ""
    plan = Plan(source.request_source(), question.area, _look(options, source), layer.id(), folder)
    if source.kind == "file":
        return plan
    picture = f"{folder}/{_picture_name(source, layer, question.area, options.gsd_m)}"
    if Path(picture).is_file():
        return replace(plan, request_source=source.request_source(picture))
    try:
        render = plan_render(layer, question.area, options.gsd_m)
    except RenderError as problem:
        raise PlanError(str(problem)) from problem
    return replace(plan, render=render, picture=picture)


def _picture_name(source: LayerSource, layer: QgsRasterLayer, area: dict[str, Any] | None, gsd_m: float | None) -> str:
    place = json.dumps([layer.source(), source.crs_wkt, area, gsd_m], sort_keys=True)
    return f"{stem_for(source.name, hashlib.sha256(place.encode()).hexdigest())}-image.tif"


def _look(options: SearchOptions, source: LayerSource) -> dict[str, Any]:
    """Only what was chosen; the engine knows its defaults. A drawn picture is looked at as it is."""
    chosen = {key: getattr(options, key) for key in ("model", "device", "gsd_m") if getattr(options, key)}
    return {**chosen, **source.request_look()}


def finest(gsd_m: object) -> float | None:
    """Return the finest of the ground resolutions that the engine looked at."""
    levels = gsd_m if isinstance(gsd_m, list) else [gsd_m]
    return next((float(level) for level in levels if level), None)
