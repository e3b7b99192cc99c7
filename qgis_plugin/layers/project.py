"""Questions live in the project: text, area, threshold, examples and the files of their answers."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qgis.core import QgsProject, QgsRasterLayer

_SCOPE = "geoalign"
_KEY = "questions"
_FORMAT = 1
_KINDS = {"area": dict, "best_score": float, "gsd_m": float, "calibration": dict}
"""Types of the fields whose default does not tell."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A question and all that is needed to show its answer again."""

    id: str
    text: str = ""
    avoid: tuple[str, ...] = ()
    where: str = "visible"
    area: dict[str, Any] | None = None
    """GeoJSON in the image's coordinate system; None is the whole image."""
    threshold_pct: int = 50
    what: str = "both"
    include: tuple[dict[str, Any], ...] = ()
    """GeoJSON geometries of what is right."""
    exclude: tuple[dict[str, Any], ...] = ()
    layer_id: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """Paths by "heatmap" and "regions"."""
    options: dict[str, Any] = field(default_factory=dict)
    histogram: tuple[int, ...] = ()
    best_score: float | None = None
    gsd_m: float | None = None
    """The finest ground resolution that the engine looked at."""
    calibration: dict[str, Any] | None = None
    """What the engine knows of the scores' precision, as it came."""
    revision: int = 1
    missing: tuple[str, ...] = ()
    """Roles of `files` that were not found when the project was read; never saved."""

    def to_dict(self) -> dict[str, Any]:
        """Return the question as JSON types."""
        data = asdict(self)
        del data["missing"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Question:
        """Make a question from JSON types; what is unknown or of a wrong type is left out.

        Raises:
            ValueError: It has no id.
        """
        if not isinstance(data, dict) or not isinstance(data.get("id"), str) or not data["id"]:
            raise ValueError("a question needs an id")
        plain = cls(id=data["id"])
        kept: dict[str, Any] = {"id": data["id"]}
        for item in fields(cls):
            value, default = data.get(item.name), getattr(plain, item.name)
            if isinstance(default, tuple) and isinstance(value, (list, tuple)):
                kept[item.name] = tuple(value)
            elif isinstance(value, _KINDS.get(item.name, type(default))):
                kept[item.name] = value
        kept.pop("missing", None)
        return cls(**kept)


def save_questions(project: QgsProject, questions: list[Question], current_id: str = "") -> None:
    """Write the questions into the project, which becomes modified if they changed."""
    entries = []
    for question in questions:
        entry = question.to_dict()
        entry["files"] = {role: _stored(project, path) for role, path in question.files.items()}
        layer = project.mapLayer(question.layer_id)
        entry["layer_source"] = project.writePath(layer.source()) if layer is not None else ""
        entries.append(entry)
    document = {"format": _FORMAT, "current": current_id, "questions": entries}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if project.readEntry(_SCOPE, _KEY, "")[0] != text:
        project.writeEntry(_SCOPE, _KEY, text)


def load_questions(project: QgsProject) -> tuple[list[Question], str]:
    """Return the questions of the project and the id of the current one; a broken entry gives none.

    Layers that were removed and added again are found by their source. Questions whose files are gone are kept and
    name the lost ones in `missing`.
    """
    text = project.readEntry(_SCOPE, _KEY, "")[0]
    if not text:
        return [], ""
    try:
        document = json.loads(text)
        entries = list(document["questions"])
        current = str(document.get("current") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        _log.warning("the questions saved in this project cannot be read")
        return [], ""
    found = []
    for entry in entries:
        try:
            found.append(_restored(project, entry))
        except (ValueError, TypeError, AttributeError):
            _log.warning("a question saved in this project cannot be read")
    return found, current if any(question.id == current for question in found) else ""


def _restored(project: QgsProject, entry: dict[str, Any]) -> Question:
    saved = entry.get("files") if isinstance(entry, dict) else {}
    files = {str(role): _found(project, places) for role, places in (saved or {}).items()}
    question = Question.from_dict({**entry, "files": files})
    lost = tuple(role for role, path in files.items() if not Path(path).is_file())
    layer_id = _layer_id(project, question.layer_id, str(entry.get("layer_source") or ""))
    return replace(question, missing=lost, layer_id=layer_id)


def _stored(project: QgsProject, path: str) -> list[str]:
    """Return where a file is, first as the project writes its own paths (relative or not), then absolutely."""
    return list(dict.fromkeys((project.writePath(path), str(Path(path).absolute()))))


def _found(project: QgsProject, places: Any) -> str:
    """Return the first place that holds the file; a moved project folder is found by its relative path."""
    names = [places] if isinstance(places, str) else [str(place) for place in places]
    paths = [str(project.readPath(name)) for name in names]
    return next((path for path in paths if Path(path).is_file()), paths[-1] if paths else "")


def _layer_id(project: QgsProject, layer_id: str, source: str) -> str:
    if not source or project.mapLayer(layer_id) is not None:
        return layer_id
    wanted = project.readPath(source)
    for layer in project.mapLayers().values():
        if isinstance(layer, QgsRasterLayer) and wanted in (layer.source(), project.readPath(layer.source())):
            return str(layer.id())
    return layer_id
