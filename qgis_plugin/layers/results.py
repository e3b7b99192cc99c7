"""An answer as a group of layers above its image: a heatmap, and boxes or polygons above it.

Layers are looked up by id each time they are needed. Users delete, move and rename them whenever they like, and a
kept reference to a deleted layer would crash QGIS.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsDataProvider,
    QgsGeometry,
    QgsLayerTreeGroup,
    QgsMapLayer,
    QgsMapLayerLegendUtils,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QTimer

from ..words import tr
from .export import export_matches
from .leftovers import leftovers_of
from .matches import Match, count_rungs, open_regions, read_matches, read_outline, rung_filter, uri_of
from .style import move_limit, name_columns, style_heatmap, style_regions

_QUESTION = "geoalign/question"
_IMAGE = "geoalign/image"
"""Of a group: the id of the layer that was searched."""
_WHAT = "geoalign/what"
_TITLE_LENGTH = 60
_ROLE = "geoalign/role"
_FILE = "geoalign/file/"
_PERCENT = "geoalign/percent"
_PACE_MS = 25


def question_of(layer: QgsMapLayer) -> str:
    """Return the id of the question that a layer answers, or "" for other layers."""
    return str(layer.customProperty(_QUESTION) or "")


class AnswerGroup:
    """The layers of one question. Everything works, doing nothing, when the user has deleted them."""

    def __init__(self, project: QgsProject, question_id: str) -> None:
        self.question_id = question_id
        self._project = project
        self._shape = "boxes"
        self._files: dict[str, str] = {}
        self._percent = 0
        self._matches: dict[int, list[Match]] = {}
        self._counts: dict[int, int] = {}
        self._filtered_at = 0.0
        self._later = QTimer()
        self._later.setSingleShot(True)
        self._later.setInterval(_PACE_MS)
        self._later.timeout.connect(self._filter)

    @classmethod
    def create(cls, project: QgsProject, source_layer: QgsMapLayer, title: str, question_id: str) -> AnswerGroup:
        """Make the group directly above the image in the layer tree, or take up the one that is there.

        Args:
            project: The project.
            source_layer: The image.
            title: The question.
            question_id: What the group is found by later.
        """
        answer = cls(project, question_id)
        if answer._group() is None:
            answer._make_group(source_layer, title)
        return answer

    @classmethod
    def find(cls, project: QgsProject, question_id: str, files: dict[str, str] | None = None) -> AnswerGroup | None:
        """Return the answer of a question if the project still holds its group.

        Args:
            project: The project.
            question_id: As given to `create`.
            files: The files saved with the question, for layers that are not in the project.
        """
        answer = cls(project, question_id)
        group = answer._group()
        if group is None:
            return None
        shown = {"heatmap": answer.heatmap, "regions": answer.regions}
        noted = {role: str(group.customProperty(f"{_FILE}{role}") or "") for role in shown}
        answer._files = {
            **{role: path for role, path in noted.items() if Path(path).is_file()},
            **{role: path for role, path in (files or {}).items() if role in shown},
            **{role: _path_of(layer) for role, layer in shown.items() if layer is not None},
        }
        regions = answer.regions
        if regions is not None:
            answer._shape = "polygons" if "layername=polygons" in regions.source().lower() else "boxes"
            answer._percent = int(regions.customProperty(_PERCENT, 0) or 0)
        return answer

    @property
    def exists(self) -> bool:
        """Tell whether the group is still in the project."""
        return self._group() is not None

    @property
    def heatmap(self) -> QgsRasterLayer | None:
        """The heatmap layer, if it is there."""
        layer = self._layer("heatmap")
        return layer if isinstance(layer, QgsRasterLayer) else None

    @property
    def regions(self) -> QgsVectorLayer | None:
        """The layer of boxes or polygons, if it is there."""
        layer = self._layer("regions")
        return layer if isinstance(layer, QgsVectorLayer) else None

    @property
    def files(self) -> dict[str, str]:
        """The files of the answer by role, shown or not."""
        return dict(self._files)

    def show(self, files: dict[str, Any], what: str, threshold_pct: int) -> None:
        """Add the layers, or put new files under those that are there.

        Layers keep their place, name, visibility, opacity and style when their files change; the files they showed
        before are deleted.

        Args:
            files: Paths by "heatmap" and "regions"; a missing or empty one leaves that layer as it is.
            what: "both" (heatmap and boxes), "outlines" (heatmap and outlines), "heatmap" or "boxes": layers that
                are not wanted are hidden.
            threshold_pct: The least match shown.
        """
        group = self._group()
        if group is None:
            return
        self._percent = threshold_pct
        self._forget()
        before = list(self._files.values())
        self._shape = "polygons" if what == "outlines" else "boxes"
        wanted = {"heatmap": what != "boxes", "regions": what != "heatmap"}
        if what != group.customProperty(_WHAT, what):
            self._show_only(group, wanted)
        group.setCustomProperty(_WHAT, what)
        for role in ("heatmap", "regions"):
            path = str(files.get(role) or "")
            if path and Path(path).is_file():
                self._files[role] = path
            group.setCustomProperty(f"{_FILE}{role}", self._files.get(role, ""))
            self._show_role(group, role, wanted[role])
        leftovers_of(self._project).put([path for path in before if path not in self._files.values()])

    def _show_only(self, group: QgsLayerTreeGroup, wanted: dict[str, bool]) -> None:
        """Hide what is not wanted any more and show what is: layers stay, their names and styles are the user's."""
        for role, is_wanted in wanted.items():
            layer = self._layer(role)
            node = group.findLayer(layer.id()) if layer is not None else None
            if node is not None:
                node.setItemVisibilityChecked(is_wanted)

    def _show_role(self, group: QgsLayerTreeGroup, role: str, is_wanted: bool) -> None:
        """Add, change or take away one layer."""
        layer, path = self._layer(role), self._files.get(role)
        if isinstance(layer, QgsVectorLayer) and layer.isEditable():
            # The user is working on it: it stays as it is, and is theirs from now on.
            layer.removeCustomProperty(_ROLE)
            layer = None
        if path and layer is not None:
            self._swap(layer, path)
        elif path and is_wanted:
            self._add(group, role, path)

    def set_threshold(self, pct: int) -> None:
        """Show what reaches `pct` per cent, at once and without the engine.

        While the slider moves, boxes follow at most every 25 ms: QGIS opens the file anew for each filter.
        """
        self._percent = pct
        heatmap = self.heatmap
        if heatmap is not None:
            move_limit(heatmap, pct / 100)
        if 1000 * (time.monotonic() - self._filtered_at) >= _PACE_MS:
            self._filter()
        elif not self._later.isActive():
            self._later.start()

    def matches(self, pct: int, limit: int = 200) -> list[Match]:
        """Return the matches that reach `pct` per cent, best first; none when the layer is gone."""
        held = self._matches.get(pct)
        if held is None or len(held) < min(limit, self.count(pct)):
            held = self._matches[pct] = read_matches(self._reader(pct), limit)
        return held[:limit]

    def count(self, pct: int) -> int:
        """Return how many matches reach `pct` per cent."""
        if not self._counts:
            self._counts = count_rungs(self._files.get("regions", ""), self._shape)
        return self._counts.get(pct, 0)

    def outline(self, match: Match, pct: int) -> QgsGeometry:
        """Return what a match covers, as exactly as the engine knows it; its box where that is all there is."""
        outline = read_outline(self._files.get("regions", ""), pct, match.rank)
        return match.geometry if outline.isEmpty() else outline

    def export(self, path: str | Path, pct: int, without: Iterable[int] = ()) -> int:
        """Write the matches that reach `pct` per cent and return how many there are.

        Args:
            path: Ends in .gpkg, .shp, .geojson or .json, which tells the format.
            pct: The least match.
            without: Ids of matches to leave out.

        Raises:
            ExportError: With a sentence that says what to do.
        """
        reader = self._reader(pct)
        unwanted = ", ".join(map(str, without))
        if reader is not None and unwanted:
            reader.setSubsetString(f'{rung_filter(pct)} AND "fid" NOT IN ({unwanted})')
        return export_matches(reader, Path(path), self._project.transformContext())

    def bring_forward(self) -> None:
        """Show this answer, and hide and fold those to other questions about the same image: they would cover it."""
        group = self._group()
        if group is None:
            return
        group.setItemVisibilityChecked(True)
        # QGIS folds a group that was empty when it came, and hears only of changes.
        group.setExpanded(False)
        group.setExpanded(True)
        for other in self._siblings(group):
            other.setItemVisibilityChecked(False)
            other.setExpanded(False)

    def _group(self) -> QgsLayerTreeGroup | None:
        for group in self._project.layerTreeRoot().findGroups(True):
            if group.customProperty(_QUESTION) == self.question_id:
                return group
        return None

    def _make_group(self, source_layer: QgsMapLayer, title: str) -> QgsLayerTreeGroup:
        """Make the group above the image and above the answers that are there already."""
        root = self._project.layerTreeRoot()
        node = root.findLayer(source_layer.id())
        parent = node.parent() if node is not None and node.parent() is not None else root
        nodes = parent.children()
        answers = [place for place, item in enumerate(nodes) if item.customProperty(_IMAGE) == source_layer.id()]
        index = min([*answers, nodes.index(node) if node in nodes else 0])
        name = title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1] + "…"
        group = parent.insertGroup(index, tr("Ask: {question}").format(question=name))
        group.setCustomProperty(_QUESTION, self.question_id)
        group.setCustomProperty(_IMAGE, source_layer.id())
        return group

    def _siblings(self, group: QgsLayerTreeGroup) -> list[QgsLayerTreeGroup]:
        image = group.customProperty(_IMAGE)
        groups = self._project.layerTreeRoot().findGroups(True)
        return [one for one in groups if image and one.customProperty(_IMAGE) == image and one != group]

    def _layer(self, role: str) -> QgsMapLayer | None:
        for layer in self._project.mapLayers().values():
            if layer.customProperty(_QUESTION) == self.question_id and layer.customProperty(_ROLE) == role:
                return layer
        return None

    def _add(self, group: QgsLayerTreeGroup, role: str, path: str) -> None:
        layer: QgsMapLayer
        if role == "heatmap":
            # Without the default style: its statistics would read the whole file, here in the main thread.
            options = QgsRasterLayer.LayerOptions(False, self._project.transformContext())
            layer = QgsRasterLayer(path, tr("Heatmap"), "gdal", options)
        else:
            layer = QgsVectorLayer(uri_of(path, self._shape, self._percent), tr("Matches"), "ogr")
        if not layer.isValid():
            return
        layer.setCustomProperty(_QUESTION, self.question_id)
        layer.setCustomProperty(_ROLE, role)
        layer.setCustomProperty(_PERCENT, self._percent)
        if isinstance(layer, QgsRasterLayer):
            style_heatmap(layer, self._percent / 100)
        else:
            style_regions(layer, self._shape == "polygons")
        self._project.addMapLayer(layer, False)
        # Boxes go to the top; the heatmap below everything else that the user may have put here.
        node = group.insertLayer(0 if role == "regions" else len(group.children()), layer)
        if role == "heatmap":
            # The legend may begin with the name of the band, which says nothing; the ramp comes last.
            last = len(layer.renderer().createLegendNodes(node)) - 1
            QgsMapLayerLegendUtils.setLegendNodeOrder(node, [last])
            layer.legend().itemsChanged.emit()

    def _swap(self, layer: QgsMapLayer, path: str) -> None:
        """Put another file under a layer, which keeps its id and so its node in the tree."""
        if isinstance(layer, QgsRasterLayer):
            opacity = layer.opacity()
            layer.setDataSource(path, layer.name(), "gdal", QgsDataProvider.ProviderOptions(), False)
            layer.setOpacity(opacity)
            move_limit(layer, self._percent / 100)
        else:
            uri = uri_of(path, self._shape, self._percent)
            layer.setDataSource(uri, layer.name(), "ogr", QgsDataProvider.ProviderOptions(), False)
            layer.setCustomProperty(_PERCENT, self._percent)
            name_columns(layer)  # a refit has other columns: precision is known of words alone
        layer.triggerRepaint()

    def _reader(self, pct: int) -> QgsVectorLayer | None:
        """Open the regions once more, so that neither filter nor selection of the shown layer matters."""
        return open_regions(self._files.get("regions", ""), self._shape, pct)

    def _filter(self) -> None:
        """Show one rung. A layer that is being edited keeps its rows: QGIS refuses filters then."""
        self._later.stop()
        regions = self.regions
        if regions is not None:
            regions.setCustomProperty(_PERCENT, self._percent)
            text = rung_filter(self._percent)
            if not regions.isEditable() and regions.subsetString() != text:
                regions.setSubsetString(text)
        self._filtered_at = time.monotonic()

    def _forget(self) -> None:
        self._matches.clear()
        self._counts.clear()


def _path_of(layer: QgsMapLayer) -> str:
    return str(layer.source()).split("|", 1)[0]
