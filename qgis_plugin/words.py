"""Every visible string of the plugin goes through `tr`.

Translations are read at run time from `i18n/geoalign_<language>.ts`: compiled files count as binaries on the plugin
site. They are looked up here, not in a QTranslator: an installed translator written in Python would be called for
every string of QGIS, from any of its threads.
"""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QFile, QIODevice, QLocale, QXmlStreamReader

CONTEXT = "GeoAlign"
FOLDER = Path(__file__).parent / "i18n"

_table: dict[str, str] | None = None


def tr(text: str) -> str:
    """Return `text` in the language of QGIS, or as it is where there is no translation."""
    table = _table if _table is not None else install_translator()
    return table.get(text, text)


def install_translator(language: str | None = None) -> dict[str, str]:
    """Read the translations of `language` (default: that of QGIS); English where there are none."""
    global _table  # noqa: PLW0603 - one language for the whole process
    _table = read_translations(_file_for(language or str(QgsApplication.locale())))
    return _table


def read_translations(path: Path | None) -> dict[str, str]:
    """Read the finished messages of a Qt .ts file; an unreadable file gives none."""
    table: dict[str, str] = {}
    file = QFile(str(path or ""))
    if path is None or not file.open(QIODevice.OpenModeFlag.ReadOnly):
        return table
    reader = QXmlStreamReader(file)
    source = ""
    while not reader.atEnd():
        reader.readNext()
        if not reader.isStartElement():
            continue
        if reader.name() == "source":
            source = reader.readElementText()
        elif reader.name() == "translation":
            finished = reader.attributes().value("type") not in ("unfinished", "vanished", "obsolete")
            translation = reader.readElementText()
            if finished and translation:
                table[source] = translation
    file.close()
    return table


def _file_for(language: str) -> Path | None:
    """The file of a locale such as de_AT: its own, else that of the language."""
    names = (language.replace("-", "_"), language[:2])
    paths = (FOLDER / f"geoalign_{name}.ts" for name in names)
    return next((path for path in paths if path.is_file()), None)


def number(value: float, digits: int = 0) -> str:
    """Return a number as QGIS's language writes it: 2,561 or 2.561."""
    return QLocale().toString(float(value), "f", digits)


def percent(share: float) -> str:
    """Return a share, 0..1, as QGIS's language writes it: 62% or 62 %; below 10 % with a decimal."""
    return tr("{number}%").format(number=number(100 * share, 0 if share >= 0.0995 else 1))
