"""One picture that answers a question at a glance: image, heat, boxes, legend, scale bar, north arrow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.export import furniture, overlay
from geoalign_core.export.colors import class_colors
from geoalign_core.export.failures import writing
from geoalign_core.export.page import INK, MUTED, Page, clean_text
from geoalign_core.export.view import View, north_on_page, plan_view
from tiling.errors import UsageError
from tiling.files import atomic_file, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from rasterio.crs import CRS

_MARGIN_PX = 40
_PANEL_PX = 480
_GAP_PX = 36
_TITLE_PX = 34
_BODY_PX = 19
_NARROW_PX = 860
"""A frame narrower than this gets its texts at its side instead of above and below."""
_MOST_CLASSES = 24
_CLASS_OPACITY = 0.6


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand on the page, in page pixels."""

    width_px: int
    height_px: int
    frame_x: int
    frame_y: int
    text_x: int
    text_y: int
    text_width: int
    foot_x: int
    foot_y: int
    aside: bool
    title: list[str]
    body: list[str]


def draw_picture(
    path: str | Path,
    *,
    image: NDArray[np.uint8],
    image_valid: NDArray[np.bool_] | None,
    transform: Affine,
    crs: CRS | None,
    heat: NDArray[np.float32],
    heat_transform: Affine,
    boxes: GeoDataFrame,
    query: str,
    threshold: float,
    model: str,
    gsd_m: float | None,
    overwrite: bool = False,
) -> Path:
    """Draw the answer to one question as a PNG of at most about 1,700 px on its longer side.

    The image lies in its own pixel grid with the aspect of the ground. Memory is a few copies of the frame (at
    most 1600 × 1600 px) besides the arguments.

    Args:
        path: The target, by convention with suffix ``.png``.
        image: (H, W, 3) uint8, already thinned to about 2,048 px.
        image_valid: (H, W), False where there is no data; None when every pixel is valid.
        transform: Image pixels to map coordinates.
        crs: The coordinate system of image, heat and boxes; None in pixel mode.
        heat: (h, w) float32, 0..1, NaN where there is no data; any resolution.
        heat_transform: Heat pixels to map coordinates.
        boxes: Matches with columns ``score`` and ``rank``; all are drawn, the best fifteen labelled.
        query: The question.
        threshold: The limit of a match, 0..1.
        model: The model's name.
        gsd_m: Ground resolution at which the model looked, metres per pixel; None in pixel mode.
        overwrite: Whether a file that is already there may be replaced.

    Raises:
        UsageError: The image is not (H, W, 3) with at least one pixel.
        OutputExistsError: The target exists and ``overwrite`` is false.
        OutputWriteError: The disk refuses.
    """
    target = _check(path, image, overwrite=overwrite)
    view = plan_view(image.shape[1], image.shape[0], transform, crs)
    if boxes.crs is not None and crs is not None and boxes.crs != crs:
        boxes = boxes.to_crs(crs)
    shown = overlay.place_heat(heat, heat_transform, view)
    best = float(np.nanmax(heat)) if np.isfinite(heat).any() else None
    lines = [_verdict(len(boxes), threshold, best), *_facts(model, gsd_m, view)]
    layout = _plan(view, f"“{clean_text(query)}”", lines, foot_px=furniture.LEGEND_HEIGHT_PX, panel_px=150)
    page = Page(layout.width_px, layout.height_px)
    _draw_texts(page, layout)
    base = overlay.render_image(image, image_valid, view)
    axes = page.image(overlay.blend_heat(base, shown, threshold), layout.frame_x, layout.frame_y)
    _draw_matches(page, axes, boxes, view, shown, best)
    furniture.draw_heat_legend(page, layout.foot_x, layout.foot_y, threshold)
    if len(boxes):
        key = (0, 76) if layout.aside else (furniture.LEGEND_WIDTH_PX + 44, 0)
        furniture.draw_box_key(page, layout.foot_x + key[0], layout.foot_y + key[1])
    _draw_orientation(page, layout, view, crs, below=124)
    return _save(page, target, title=query, text=" ".join(lines), overwrite=overwrite)


def draw_classes_picture(
    path: str | Path,
    *,
    image: NDArray[np.uint8],
    image_valid: NDArray[np.bool_] | None,
    transform: Affine,
    crs: CRS | None,
    classes: NDArray[np.uint8],
    class_transform: Affine,
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]] | None = None,
    model: str,
    gsd_m: float | None,
    title: str = "Land cover",
    overwrite: bool = False,
) -> Path:
    """Draw a class map over the image as a PNG, with each class's share of the classified pixels.

    Args:
        path: The target, by convention with suffix ``.png``.
        image: (H, W, 3) uint8, already thinned to about 2,048 px.
        image_valid: (H, W), False where there is no data; None when every pixel is valid.
        transform: Image pixels to map coordinates.
        crs: The coordinate system of image and classes; None in pixel mode.
        classes: (h, w) uint8, 0 = no data, k = ``names[k - 1]``.
        class_transform: Class pixels to map coordinates.
        names: One name per class; the legend shows the 24 most frequent.
        colors: RGB 0..255 per class; by default :func:`~geoalign_core.export.colors.class_colors`.
        model: The model's name.
        gsd_m: Ground resolution at which the model looked, metres per pixel; None in pixel mode.
        title: The headline.
        overwrite: Whether a file that is already there may be replaced.

    Raises:
        UsageError: The image is not (H, W, 3) with at least one pixel.
        OutputExistsError: The target exists and ``overwrite`` is false.
        OutputWriteError: The disk refuses.
    """
    target = _check(path, image, overwrite=overwrite)
    view = plan_view(image.shape[1], image.shape[0], transform, crs)
    palette = list(class_colors(len(names)) if colors is None else colors)
    entries = _class_entries(classes, names, palette)
    aside = _aside(view)
    columns = 1 if aside else max(1, view.width_px // 300)
    legend_px = furniture.CLASS_ROW_PX * -(-len(entries) // columns)
    lines = [f"{len(names)} classes", *_facts(model, gsd_m, view)]
    foot = legend_px if aside else legend_px + 96
    layout = _plan(view, clean_text(title), lines, foot_px=foot, panel_px=legend_px + 24)
    page = Page(layout.width_px, layout.height_px)
    _draw_texts(page, layout)
    placed = overlay.place_classes(classes, class_transform, view)
    base = overlay.render_image(image, image_valid, view)
    page.image(overlay.blend_classes(base, placed, palette, _CLASS_OPACITY), layout.frame_x, layout.frame_y)
    column_px = layout.text_width / columns
    furniture.draw_class_legend(page, layout.foot_x, layout.foot_y, entries, columns, column_px)
    _draw_orientation(page, layout, view, crs, below=legend_px + 24)
    return _save(page, target, title=title, text=" ".join(lines), overwrite=overwrite)


def _check(path: str | Path, image: NDArray[np.uint8], *, overwrite: bool) -> Path:
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError("a picture needs an image of three bands", path=target, measured=f"shape {image.shape}")
    return target


def _draw_matches(
    page: Page,
    axes: Any,  # noqa: ANN401
    boxes: GeoDataFrame,
    view: View,
    shown: NDArray[np.float32],
    best: float | None,
) -> None:
    """Draw the boxes with their labels, or ring the best place when there are none."""
    if len(boxes):
        furniture.draw_outlines(axes, furniture.outlines(boxes, view))
        if min(view.width_px, view.height_px) >= 60:
            furniture.draw_labels(page, axes, boxes, view)
    elif best is not None:
        furniture.draw_best_spot(page, axes, shown, view, best)


def _verdict(count: int, threshold: float, best: float | None) -> str:
    if best is None:
        return "no valid pixel to search"
    if not count:
        return f"no match above {threshold:.2f} — best is {best:.2f} here"
    return f"{count:,} {'match' if count == 1 else 'matches'} above {threshold:.2f}, best {best:.2f}"


def _facts(model: str, gsd_m: float | None, view: View) -> list[str]:
    facts = [f"model {clean_text(model)}"]
    if gsd_m is not None:
        facts.append(f"ground resolution {gsd_m:.3g} m")
    if view.stretch > 1:
        facts.append(f"short side drawn {view.stretch:.3g} × too long")
    return facts


def _class_entries(
    classes: NDArray[np.uint8], names: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> list[tuple[str, tuple[int, int, int] | None]]:
    counts = np.bincount(classes.reshape(-1), minlength=len(names) + 1)[1 : len(names) + 1]
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")
    entries: list[tuple[str, tuple[int, int, int] | None]] = [
        (f"{clean_text(names[k])}  {_percent(counts[k] / total)}", colors[k]) for k in order[:_MOST_CLASSES]
    ]
    if len(names) > _MOST_CLASSES:
        entries.append((f"and {len(names) - _MOST_CLASSES} more", None))
    return entries


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _aside(view: View) -> bool:
    return view.width_px < _NARROW_PX


def _plan(view: View, title: str, lines: Sequence[str], *, foot_px: int, panel_px: int) -> _Layout:
    """Place the frame and the texts; ``panel_px`` is the height of the legend when it stands at the side."""
    ruler = Page(8, 8)
    aside = _aside(view)
    width = _PANEL_PX if aside else view.width_px
    heading = ruler.wrap(title, _TITLE_PX, width, lines=4 if aside else 2, weight="bold")
    if title.endswith("”") and heading[-1].endswith("…"):
        heading[-1] += "”"
    if aside:
        body = [part for line in lines for part in ruler.wrap(line, _BODY_PX, width, lines=2)]
    else:
        body = ruler.wrap("   ·   ".join(lines), _BODY_PX, width, lines=2)
    text_px = round(len(heading) * _TITLE_PX * 1.3 + 10 + len(body) * _BODY_PX * 1.5)
    if aside:
        text_x = _MARGIN_PX + view.width_px + _GAP_PX
        foot_y = _MARGIN_PX + text_px + _GAP_PX
        panel_end = foot_y + panel_px + 100
        return _Layout(
            width_px=text_x + width + _MARGIN_PX,
            height_px=max(view.height_px + _MARGIN_PX, panel_end) + _MARGIN_PX,
            frame_x=_MARGIN_PX, frame_y=_MARGIN_PX, text_x=text_x, text_y=_MARGIN_PX, text_width=width,
            foot_x=text_x, foot_y=foot_y, aside=True, title=heading, body=body,
        )  # fmt: skip
    frame_y = _MARGIN_PX + text_px + 20
    foot_y = frame_y + view.height_px + 30
    return _Layout(
        width_px=view.width_px + 2 * _MARGIN_PX, height_px=foot_y + foot_px + _MARGIN_PX - 8,
        frame_x=_MARGIN_PX, frame_y=frame_y, text_x=_MARGIN_PX, text_y=_MARGIN_PX, text_width=width,
        foot_x=_MARGIN_PX, foot_y=foot_y, aside=False, title=heading, body=body,
    )  # fmt: skip


def _draw_texts(page: Page, layout: _Layout) -> None:
    y = float(layout.text_y)
    for line in layout.title:
        page.text(layout.text_x, y, line, _TITLE_PX, weight="bold", color=INK)
        y += _TITLE_PX * 1.3
    y += 10
    for number, line in enumerate(layout.body):
        page.text(layout.text_x, y, line, _BODY_PX, color=INK if layout.aside and number == 0 else MUTED)
        y += _BODY_PX * 1.5


def _draw_orientation(page: Page, layout: _Layout, view: View, crs: CRS | None, *, below: int) -> None:
    """Draw scale bar and north arrow: at the right end of the foot, or under the legend of the side panel."""
    north = north_on_page(view, crs)
    room = 0 if north is None else 84
    length = furniture.bar_length_px(view)
    if layout.aside:
        bar_x, bar_y = layout.foot_x + 6, layout.foot_y + below + 30
        needle = (layout.foot_x + layout.text_width - 60, layout.foot_y + below + 40)
    else:
        right = layout.frame_x + view.width_px
        bottom = layout.height_px - _MARGIN_PX - furniture.LEGEND_HEIGHT_PX + 8
        bar_x, bar_y = round(right - room - length - 30), bottom + 4
        needle = (right - 34, bottom + 29)
    furniture.draw_scale_bar(page, bar_x, bar_y, view)
    if north is not None:
        furniture.draw_north(page, *needle, north)


def _save(page: Page, target: Path, *, title: str, text: str, overwrite: bool) -> Path:
    with atomic_file(target, overwrite=overwrite) as temporary, writing(target):
        page.save(temporary, metadata={"Title": clean_text(title), "Description": clean_text(text)})
    return target
