"""Colours and icons: everything follows the palette, nothing is fixed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from qgis.PyQt.QtCore import QByteArray, QRectF, QSize, Qt
from qgis.PyQt.QtGui import QColor, QFont, QIcon, QPainter, QPalette, QPixmap
from qgis.PyQt.QtSvg import QSvgRenderer
from qgis.PyQt.QtWidgets import QDialog, QDockWidget, QLineEdit, QMainWindow, QWidget

RESOURCES = Path(__file__).resolve().parent.parent / "resources"
NEUTRAL = "#7f7f7f"
YES = QColor(46, 158, 91)
NO = QColor(219, 68, 68)


def mix(first: QColor, second: QColor, share: float) -> QColor:
    """Return a colour between two: share 0 is the first, 1 the second."""
    pairs = zip(first.getRgb()[:3], second.getRgb()[:3])
    return QColor(*(round(a + (b - a) * share) for a, b in pairs))


def luminance(color: QColor) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color.getRgbF()[:3])
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts))


def contrast(first: QColor, second: QColor) -> float:
    """Return the contrast ratio of WCAG 2, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def readable(color: QColor, ground: QColor, ratio: float) -> QColor:
    """Return the colour, lightened or darkened as far as the ground needs it to be seen."""
    end = _extreme(ground)
    moved = (mix(color, end, step / 20) for step in range(21))
    return next((shade for shade in moved if contrast(shade, ground) >= ratio), end)


def scene(widget: QWidget) -> tuple[QColor, QColor]:
    """Return the ground that a widget lies on, and the colour of text there.

    Style sheets of themes write these into the palettes of windows and docks only; those of plain widgets keep what
    the application had before the theme came.
    """
    owner = widget
    while owner is not None and not isinstance(owner, (QDockWidget, QDialog, QMainWindow)):
        owner = owner.parentWidget()
    palette = (owner or widget).palette()
    group = QPalette.ColorGroup.Active
    ground, text = palette.color(group, QPalette.ColorRole.Window), palette.color(group, QPalette.ColorRole.WindowText)
    return ground, ink(text, ground)


def ink(text: QColor, ground: QColor) -> QColor:
    """Return the theme's text colour, or black or white where the theme's cannot be read."""
    return text if contrast(text, ground) >= 4.5 else _extreme(ground)


def _extreme(ground: QColor) -> QColor:
    """Return black or white, whichever stands out more."""
    white, black = QColor(Qt.GlobalColor.white), QColor(Qt.GlobalColor.black)
    return max((white, black), key=lambda color: contrast(color, ground))


def card_ground(ground: QColor, text: QColor) -> QColor:
    """Return a card's ground: lighter than what it lies on, in light themes and in dark ones."""
    bright = luminance(ground) > luminance(text)
    return mix(ground, QColor(Qt.GlobalColor.white), 0.55) if bright else mix(ground, text, 0.10)


def card_edge(ground: QColor, text: QColor) -> QColor:
    """Return the card's edge."""
    return mix(ground, text, 0.26)


def small(font: QFont) -> QFont:
    """Return the font for secondary text: smaller, never greyed."""
    font = QFont(font)
    if font.pointSizeF() > 0:
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.92))
    else:
        font.setPixelSize(max(10, round(font.pixelSize() * 0.92)))
    return font


def bold(font: QFont) -> QFont:
    """Return the font in bold."""
    font = QFont(font)
    font.setBold(True)
    return font


def clear_placeholder(edit: QLineEdit) -> None:
    """Make a placeholder readable where a theme paints grey on grey."""
    palette = edit.palette()
    for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive, QPalette.ColorGroup.Disabled):
        ground = palette.color(group, QPalette.ColorRole.Base)
        text = ink(palette.color(group, QPalette.ColorRole.Text), ground)
        faint = readable(mix(ground, text, 0.7), ground, 4.5)
        if palette.color(group, QPalette.ColorRole.PlaceholderText) != faint:
            palette.setColor(group, QPalette.ColorRole.PlaceholderText, faint)
    edit.setPalette(palette)


def icon(name: str, color: QColor, size: int = 24) -> QIcon:
    """Return one of the plugin's drawings in a colour, faded when its widget is disabled."""
    result = QIcon()
    faded = QColor(color)
    faded.setAlphaF(0.45)
    for scale in (1, 2):
        result.addPixmap(pixmap(name, color, size, scale), QIcon.Mode.Normal)
        result.addPixmap(pixmap(name, faded, size, scale), QIcon.Mode.Disabled)
    return result


def pixmap(name: str, color: QColor, size: int = 24, scale: float = 1) -> QPixmap:
    """Return one of the plugin's drawings, its neutral strokes in `color`."""
    return _pixmap(name, color.name(), round(color.alphaF(), 2), size, float(scale))


@lru_cache(maxsize=256)
def _pixmap(name: str, color: str, alpha: float, size: int, scale: float) -> QPixmap:
    text = (RESOURCES / f"{name}.svg").read_text(encoding="utf-8").replace(NEUTRAL, color)
    result = QPixmap(QSize(round(size * scale), round(size * scale)))
    result.fill(Qt.GlobalColor.transparent)
    painter = QPainter(result)
    painter.setOpacity(alpha)
    QSvgRenderer(QByteArray(text.encode("utf-8"))).render(painter, QRectF(0, 0, size * scale, size * scale))
    painter.end()
    result.setDevicePixelRatio(scale)
    return result
