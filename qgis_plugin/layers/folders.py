"""Where the files of answers lie, and how they are called."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from pathlib import Path

from qgis.core import QgsApplication, QgsProject

from .source import LayerSource

FOLDER = "geoalign"
_NAME_LENGTH = 40


def results_folder(project: QgsProject, source: LayerSource | None) -> Path:
    """Return the folder for result files, made if need be: beside the project, the image, or in the user's profile.

    Never the temporary folder of its own choice: QGIS marks layers there as temporary and asks about them on exit.

    Args:
        project: The project; one that was never saved has no folder.
        source: The image.
    """
    candidates: list[Path] = []
    if project.absolutePath():
        candidates.append(Path(project.absolutePath()) / FOLDER)
    if source is not None and source.path:
        candidates.append(Path(source.path).parent / FOLDER)
    last = Path(QgsApplication.qgisSettingsDirPath()) / FOLDER / "results"
    for folder in candidates:
        if _is_writable(folder):
            return folder
    last.mkdir(parents=True, exist_ok=True)
    return last


def stem_for(text: str, question_id: str, revision: int = 1) -> str:
    """Return an answer's file name without suffix: words of the question, its id, and the revision from the 2nd on.

    Each refit writes a new name, for Windows keeps the files of shown layers locked.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_NAME_LENGTH].strip("-") or "question"
    key = re.sub(r"[^A-Za-z0-9]", "", question_id)[:8] or "0"
    return f"{words}-{key}" + (f"-r{revision}" if revision > 1 else "")


def _is_writable(folder: Path) -> bool:
    """Permission bits do not tell on network drives and Windows: try."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=str(folder))
        os.close(handle)
        os.unlink(name)
    except OSError:
        return False
    return True
