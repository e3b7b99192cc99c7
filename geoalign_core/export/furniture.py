"""What stands on and around the frame: outlines, labels, legends, scale bar, north arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.export.colors import heat_alpha, heat_rgb
from geoalign_core.export.page import INK, MUTED
from geoalign_core.export.view import length_label, round_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from geoalign_core.export.page import Page
    from geoalign_core.export.view import View

OUTLINE = "#27e8ff"
CASING = "#101418"
MOST_LABELS = 15
LEGEND_WIDTH_PX = 380
LEGEND_HEIGHT_PX = 62
BAR_LONGEST_PX = 260
_LEGEND_GREY = 205.0


def outlines(boxes: GeoDataFrame, view: View) -> list[NDArray[np.float64]]:
    """Return the outer ring of every part of every box in display pixels, the best ranked last (on top)."""
    import shapely

    order = np.argsort(-_ranks(boxes), kind="stable")
    parts = shapely.get_parts(boxes.geometry.to_numpy()[order])
    rings = shapely.get_exterior_ring(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    return [to_display(shapely.get_coordinates(ring), view) for ring in rings]


def to_display(xy: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    """Map (N, 2) map coordinates to display pixels."""
    m = ~view.to_map
    return np.column_stack([m.a * xy[:, 0] + m.b * xy[:, 1] + m.c, m.d * xy[:, 0] + m.e * xy[:, 1] + m.f])


def draw_outlines(axes: Any, rings: Sequence[NDArray[np.float64]]) -> None:  # noqa: ANN401
    """Draw rings as thin bright lines on wider dark ones, thinner when there are many."""
    from matplotlib.collections import PolyCollection

    if not rings:
        return
    width = 2.4 if len(rings) <= 60 else 1.7 if len(rings) <= 400 else 1.1
    for color, points, alpha in ((CASING, width * 1.6 + 1.2, 0.75), (OUTLINE, width * 0.72, 1.0)):
        axes.add_collection(
            PolyCollection(
                rings, facecolors="none", edgecolors=color, linewidths=points, alpha=alpha, joinstyle="miter"
            ),
            autolim=False,
        )


def draw_labels(page: Page, axes: Any, boxes: GeoDataFrame, view: View) -> None:  # noqa: ANN401
    """Label the best boxes with rank and score where that covers neither another label nor another of the best."""
    import shapely

    ranks = _ranks(boxes)
    best = np.argsort(ranks, kind="stable")[:MOST_LABELS]
    bounds = []
    for index in best:
        xy = to_display(shapely.get_coordinates(boxes.geometry.iloc[index]), view)
        bounds.append((*xy.min(axis=0), *xy.max(axis=0)) if len(xy) else (np.nan,) * 4)
    taken: list[tuple[float, float, float, float]] = []
    for position, index in enumerate(best):
        if not _on_frame(bounds[position], view):
            continue
        text = f"{int(ranks[index])} · {float(boxes['score'].iloc[index]):.2f}"
        width, height = page.text_size(text, 17, "bold")
        better, others = bounds[:position], bounds[:position] + bounds[position + 1 :]
        spot = _free_spot(bounds[position], width + 12, height + 9, view, taken, (others, better))
        if spot is None:
            continue
        taken.append((spot[0], spot[1], spot[0] + width + 12, spot[1] + height + 9))
        chip(page, axes, spot[0], spot[1], text, width, height)


def chip(page: Page, axes: Any, x: float, y: float, text: str, width: float, height: float) -> None:  # noqa: ANN401
    """Draw white text on a dark rounded plate whose top left corner is (x, y)."""
    from matplotlib.patches import FancyBboxPatch

    plate = FancyBboxPatch(
        (x + 3, y + 3), width + 6, height + 3, boxstyle="round,pad=3,rounding_size=4", facecolor=CASING,
        edgecolor="none",
        alpha=0.86, zorder=6,
    )  # fmt: skip
    axes.add_patch(plate)
    page.text(
        x + 6 + width / 2, y + 4.5 + height / 2, text, 17, axes=axes, color="white", weight="bold", ha="center",
        va="center",
        zorder=7,
    )  # fmt: skip


def draw_best_spot(page: Page, axes: Any, heat: NDArray[np.float32], view: View, best: float) -> None:  # noqa: ANN401
    """Ring the highest place of the heat although it is no match."""
    from matplotlib.patches import Circle

    if np.isnan(heat).all() or min(view.width_px, view.height_px) < 60:
        return
    row, col = np.unravel_index(np.nanargmax(heat), heat.shape)
    radius = 30.0
    for color, width, style in ((CASING, 5.0, "solid"), ("white", 2.0, (0, (4, 2.5)))):
        axes.add_patch(
            Circle(
                (float(col), float(row)),
                radius,
                facecolor="none",
                edgecolor=color,
                linewidth=width,
                linestyle=style,
                alpha=0.9,
            )
        )
    text = f"best {best:.2f}"
    width_px, height_px = page.text_size(text, 17, "bold")
    x = float(np.clip(col - width_px / 2 - 6, 4, max(view.width_px - width_px - 16, 4)))
    below = row + radius + 8
    y = below if below + height_px + 12 < view.height_px else row - radius - height_px - 17
    chip(page, axes, x, float(y), text, width_px, height_px)


def draw_heat_legend(page: Page, x: float, y: float, threshold: float, *, width: float = LEGEND_WIDTH_PX) -> None:
    """Draw the ramp from 0 to 1 over grey, as it looks over an image, with a mark at the threshold."""
    scores = np.linspace(0, 1, round(width))
    alpha = heat_alpha(scores, threshold)[:, None]
    strip = np.round(_LEGEND_GREY * (1 - alpha) + heat_rgb(scores, threshold) * alpha).astype(np.uint8)
    page.image(np.repeat(strip[None], 20, axis=0), round(x), round(y))
    _frame(page, x, y, width, 20)
    mark = x + threshold * width
    page.sheet.plot([mark, mark], [y - 5, y + 25], color=INK, linewidth=1.6, solid_capstyle="butt")
    page.text(x, y + 28, "weak match", 16, color=MUTED)
    page.text(x + width, y + 28, "strong match", 16, color=MUTED, ha="right")
    middle = float(np.clip(mark, x + 130, x + width - 145))
    page.text(middle, y + 28, f"{threshold:.2f}", 16, ha="center", weight="bold")


def draw_box_key(page: Page, x: float, y: float) -> None:
    """Explain the outlines: a small box and its meaning."""
    for color, width in ((CASING, 5.0), (OUTLINE, 1.8)):
        page.sheet.plot(
            [x, x + 30, x + 30, x, x], [y, y, y + 20, y + 20, y], color=color, linewidth=width, solid_joinstyle="miter"
        )
    page.text(x + 44, y + 10, "match · rank and score", 16, color=MUTED, va="center_baseline")


def draw_class_legend(
    page: Page,
    x: float,
    y: float,
    entries: Sequence[tuple[str, tuple[int, int, int] | None]],
    columns: int,
    column_px: float,
) -> None:
    """Draw swatches with names, row by row; an entry without colour is plain text."""
    from matplotlib.patches import Rectangle

    for number, (label, color) in enumerate(entries):
        left, top = x + (number % columns) * column_px, y + (number // columns) * CLASS_ROW_PX
        if color is not None:
            fill = tuple(value / 255 for value in color)
            page.sheet.add_patch(Rectangle((left, top), 26, 18, facecolor=fill, edgecolor=INK, linewidth=0.6))
        line = page.wrap(label, 16, column_px - 52, lines=1)
        page.text(left + 36, top + 9, line[0] if line else "", 16, va="center_baseline", color=INK if color else MUTED)


CLASS_ROW_PX = 30


def bar_length_px(view: View) -> float:
    """Return the drawn length of the scale bar; 0 without a scale."""
    if view.unit_per_px is None:
        return 0.0
    return round_length(BAR_LONGEST_PX * view.unit_per_px) / view.unit_per_px


def draw_scale_bar(page: Page, x: float, y: float, view: View) -> None:
    """Draw a bar of a round length, split in the middle, hanging from ``y``."""
    from matplotlib.patches import Rectangle

    length = bar_length_px(view)
    if view.unit_per_px is None or length <= 0:
        return
    for start, color in ((0.0, INK), (0.5, "white")):
        page.sheet.add_patch(
            Rectangle((x + start * length, y), length / 2, 9, facecolor=color, edgecolor=INK, linewidth=1.1)
        )
    page.text(x, y + 16, "0", 16, ha="center", color=MUTED)
    page.text(x + length, y + 16, length_label(length * view.unit_per_px, view.unit), 16, ha="center", weight="bold")


def draw_north(page: Page, x: float, y: float, north: tuple[float, float], *, size: float = 23) -> None:
    """Draw a two-tone needle around its centre (x, y) that points along ``north``, with an N at the tip."""
    from matplotlib.patches import Polygon

    ahead = np.array(north)
    side = np.array([-ahead[1], ahead[0]])
    centre = np.array([x, y])
    tip, tail = centre + ahead * size, centre - ahead * size * 0.62
    notch = centre - ahead * size * 0.28
    for sign, color in ((1, INK), (-1, "white")):
        corner = tail + side * sign * size * 0.48
        page.sheet.add_patch(
            Polygon([tip, corner, notch], facecolor=color, edgecolor=INK, linewidth=1.1, joinstyle="miter")
        )
    label = tip + ahead * 12
    page.text(float(label[0]), float(label[1]), "N", 17, weight="bold", ha="center", va="center")


def _frame(page: Page, x: float, y: float, width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    page.sheet.add_patch(
        Rectangle((x, y), width, height, facecolor="none", edgecolor="#8a939c", linewidth=0.8, zorder=3)
    )


def _ranks(boxes: GeoDataFrame) -> NDArray[np.float64]:
    return np.asarray(boxes["rank"], dtype=np.float64)


def _on_frame(bound: tuple[float, ...], view: View) -> bool:
    left, top, right, bottom = bound
    return bool(right > 0 and bottom > 0 and left < view.width_px and top < view.height_px)


def _free_spot(
    bound: tuple[float, ...],
    width: float,
    height: float,
    view: View,
    taken: Sequence[tuple[float, float, float, float]],
    keep_clear: Sequence[Sequence[tuple[float, ...]]],
) -> tuple[float, float] | None:
    """Return the first free place around a box: above, below, right, left, then inside its corner.

    Each element of ``keep_clear`` is tried in turn: the boxes that must not be covered.
    """
    left, top, right, bottom = bound
    gap = 5.0
    candidates = [
        (left - 2, top - height - gap), (right - width + 2, top - height - gap), (left - 2, bottom + gap),
        (right - width + 2, bottom + gap), (right + gap, top), (left - width - gap, top), (left + gap, top + gap),
    ]  # fmt: skip
    for avoid in keep_clear:
        for x, y in candidates:
            spot = (x, y, x + width, y + height)
            inside = x >= 2 and y >= 2 and spot[2] <= view.width_px - 2 and spot[3] <= view.height_px - 2
            if inside and not any(_overlap(spot, other) for other in (*taken, *avoid)):
                return x, y
    return None


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
