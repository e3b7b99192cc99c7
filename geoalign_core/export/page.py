"""A sheet of pixels to draw on: text that always fits, plain shapes, one PNG at the end.

Positions are page pixels from the top left. Nothing global in matplotlib is touched, so pictures may be drawn in
threads and inside other programs.
"""

from __future__ import annotations

import logging
import unicodedata
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

DPI = 100
INK = "#1b1f24"
MUTED = "#5b6570"
PAPER = "#ffffff"

_FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB",
    "Arial Unicode MS",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Symbol", "Symbola",
)  # fmt: skip
_LONGEST_TEXT = 400


def clean_text(text: str) -> str:
    """Return one line without characters that no font can draw (controls, joiners, half surrogates)."""
    whole = text.encode("utf-8", errors="replace").decode("utf-8")
    line = " ".join(whole.split())
    kept = "".join(
        char
        for char in line
        if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn"} and not _is_variation(char)
    )
    return kept[:_LONGEST_TEXT]


def _is_variation(char: str) -> bool:
    return 0xFE00 <= ord(char) <= 0xFE0F


class Page:
    """A figure of a given size with helpers in page pixels.

    Args:
        width_px: Page width.
        height_px: Page height.
    """

    def __init__(self, width_px: int, height_px: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width_px, self.height_px = width_px, height_px
        self.figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, facecolor=PAPER)
        self.canvas = FigureCanvasAgg(self.figure)
        self.fonts = _fonts()
        self.sheet = self.axes(0, 0, width_px, height_px)
        self.sheet.set_xlim(0, width_px)
        self.sheet.set_ylim(height_px, 0)

    def axes(self, x: float, y: float, width: float, height: float) -> Any:  # noqa: ANN401
        """Return invisible axes that fill a rectangle of the page."""
        area = (x / self.width_px, 1 - (y + height) / self.height_px, width / self.width_px, height / self.height_px)
        axes = self.figure.add_axes(area)
        axes.set_axis_off()
        return axes

    def image(self, pixels: NDArray[np.uint8], x: int, y: int) -> Any:  # noqa: ANN401
        """Show (h, w, 3) pixels one to one and return axes whose units are those pixels, clipped to them."""
        height, width = pixels.shape[:2]
        axes = self.axes(x, y, width, height)
        axes.imshow(pixels, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        return axes

    def text(self, x: float, y: float, text: str, size_px: float, *, axes: Any = None, **style: Any) -> Any:  # noqa: ANN401
        """Draw one line, by default dark, left-aligned and hanging from ``y``."""
        style = {"color": INK, "ha": "left", "va": "top", **style}
        where = self.sheet if axes is None else axes
        return where.text(
            x, y, text, fontsize=size_px * 72 / DPI, family=self.fonts, parse_math=False, **style
        )  # fmt: skip

    def text_size(self, text: str, size_px: float, weight: str = "normal") -> tuple[float, float]:
        """Return the width and height in pixels that a line takes."""
        with quiet():
            drawn = self.text(0, 0, text, size_px, weight=weight)
            box = drawn.get_window_extent(self.canvas.get_renderer())
            drawn.remove()
        return float(box.width), float(box.height)

    def wrap(self, text: str, size_px: float, width_px: float, *, lines: int, weight: str = "normal") -> list[str]:
        """Break a text into at most ``lines`` lines that fit, with an ellipsis when it does not."""
        rest = text
        result: list[str] = []
        while rest and len(result) < lines:
            cut = self._fitting(rest, size_px, width_px, weight)
            if cut < len(rest) and len(result) == lines - 1:
                cut = max(self._fitting(rest, size_px, width_px - size_px, weight), 1)
                return [*result, rest[:cut].rstrip() + "…"]
            space = rest.rfind(" ", 1, cut + 1) if cut < len(rest) else -1
            cut = space if space > cut // 2 else cut
            result.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        return result

    def _fitting(self, text: str, size_px: float, width_px: float, weight: str) -> int:
        """Return how many characters fit, by bisection."""
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.text_size(text[:middle], size_px, weight)[0] <= width_px:
                low = middle
            else:
                high = middle - 1
        return low

    def save(self, path: Path, *, metadata: Mapping[str, str]) -> None:
        """Write the page as a PNG."""
        with quiet():
            self.canvas.print_figure(path, dpi=DPI, format="png", facecolor=PAPER, metadata=dict(metadata))


class quiet(warnings.catch_warnings):  # noqa: N801 - used like a function
    """Hide matplotlib's remarks about glyphs that no installed font has."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)


def _fonts() -> Sequence[str]:
    """Return the bundled font and those installed ones that add scripts to it."""
    logger = logging.getLogger("matplotlib.font_manager")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from matplotlib.font_manager import fontManager

        installed = set(fontManager.get_font_names())
    finally:
        logger.setLevel(before)
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]
