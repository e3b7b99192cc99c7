"""Files of earlier answers. They go when nothing names them any more, which is not before the project is saved."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProject
from qgis.PyQt.QtCore import QObject

_NAME = "geoalignLeftovers"
_BESIDE = ("", ".aux.xml", "-wal", "-shm")


class Leftovers(QObject):
    """What a newer answer has replaced in one project.

    The project on the disk still names these files until it is saved, and a duplicate of a layer may show them.
    """

    def __init__(self, project: QgsProject) -> None:
        super().__init__(project)
        self.setObjectName(_NAME)
        self._project = project
        self._paths: list[Path] = []
        project.projectSaved.connect(self.delete)
        project.cleared.connect(self._paths.clear)

    def put(self, paths: list[str]) -> None:
        """Take files that an answer needs no more; in a project that was never saved they go at once."""
        self._paths += [Path(path) for path in paths]
        if not self._project.fileName():
            self.delete()

    def delete(self) -> None:
        """Delete what no layer shows; what is locked elsewhere is tried again next time."""
        shown = {_file_of(layer.source()) for layer in self._project.mapLayers().values()}
        waiting, self._paths[:] = list(self._paths), []
        self._paths += [path for path in waiting if path in shown or not _delete(path)]


def leftovers_of(project: QgsProject) -> Leftovers:
    """Return the leftovers of a project; they live as long as it does."""
    found = project.findChild(Leftovers, _NAME)
    return found if found is not None else Leftovers(project)


def _file_of(source: str) -> Path:
    return Path(source.split("|", maxsplit=1)[0])


def _delete(path: Path) -> bool:
    """Delete a file and what lies beside it; tell whether it is gone."""
    names = [path.with_name(path.name + end) for end in _BESIDE]
    try:
        for name in (*names, path.with_suffix(".qml")) if path.suffix == ".tif" else names:
            name.unlink(missing_ok=True)
    except OSError:
        return False
    return True
