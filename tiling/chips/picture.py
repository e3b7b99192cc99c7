"""The picture of a plan: the raster with its tiles drawn over it, kept and left out, before anything is cut."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.canvas import preview_canvas
from tiling.chips.job import BETWEEN
from tiling.chips.kinds import left_out_ground, sort_windows
from tiling.errors import BandError, UnsupportedRasterError
from tiling.files import atomic_file, write_error
from tiling.grid import Window
from tiling.plan import BLANK, OUTSIDE
from tiling.radiometry import choose_bands, plan_stretch
from tiling.reader import read_windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from tiling.canvas import Canvas
    from tiling.chips.kinds import Kind
    from tiling.grid import TileGrid
    from tiling.raster import Raster

_HATCHES = {OUTSIDE: "//", BLANK: "xx", BETWEEN: "..", "": "\\\\\\\\"}
_INK, _MUTED, _HATCH, _EMPTY = "#1b1f24", "#5b6570", "#78828c", "#eef0f2"
_FRAME_PX, _SIDE_PX, _MARGIN_PX, _TITLE_PX, _LEAST_PX = (1080, 860), 380, 36, 64, 64
_DPI = 100
_FILL, _MOST_FILL, _DIM, _MAP = 0.12, 0.26, 0.5, 0.35
"""Opacities: of a tile, of tiles one over the other, of what is left out, and of tiles on the map."""
_PREVIEW_PX = 1400
_MOST_READ_PX = 256 * 2**20
"""A raster of more pixels without a small overview is drawn without its image: reading it would take long."""
_MOST_TILES = 4000
"""More tiles are drawn as a map of their places, without outlines."""


def draw_plan(
    raster: Raster,
    canvas: Canvas,
    grid: TileGrid,
    windows: Sequence[Window],
    *,
    path: str | Path,
    title: str = "",
    parts: Sequence[str | None] | None = None,
    left_out: Mapping[str, Iterable[Window]] | None = None,
    area: BaseGeometry | None = None,
    labels: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw which windows of a raster become tiles, as a PNG of about 1500 px.

    The image is read through an overview; where there is none and the raster has more than 256 Mpx, and where it
    makes no picture, it is left away. Memory is some 150 MB, whatever the raster's size.

    Args:
        raster: The open raster.
        canvas: From ``plan_canvas`` or ``pixel_canvas``.
        grid: The grid on it.
        windows: The windows that are kept.
        path: The target.
        title: The first line; the raster's name by default.
        parts: For each window its part of the split; None counts as left out between two parts.
        left_out: Reason, and the windows that were left out for it. Windows of the grid that are named nowhere
            count as outside the area where they miss it, else as too few valid pixels.
        area: The area of interest in canvas pixels.
        labels: For each window how many labels it holds.
        overwrite: Whether a file that is there may be replaced.

    Returns:
        The target.

    Raises:
        RasterReadError: The raster is damaged.
        OutputExistsError: The target exists and ``overwrite`` is false.
        OutputWriteError: The disk is full or refuses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = sort_windows(grid, windows, parts, left_out or {}, area)
    width, height = _frame(raster, canvas, grid)
    page = width + _SIDE_PX + 3 * _MARGIN_PX, max(height, 460) + _TITLE_PX + 2 * _MARGIN_PX
    figure = Figure(figsize=(page[0] / _DPI, page[1] / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    top = page[1] - _MARGIN_PX - _TITLE_PX
    box = (_MARGIN_PX / page[0], (top - height) / page[1], width / page[0], height / page[1])
    axes = figure.add_axes(box, facecolor=_EMPTY)
    _draw_raster(axes, raster, canvas)
    many = sum(len(kind.edges) for kind in kinds) > _MOST_TILES
    (_draw_map if many else _draw_tiles)(axes, kinds, grid, (width, height))
    if area is not None:
        _draw_area(axes, area)
    if labels is not None and not many:
        _draw_counts(axes, windows, labels, width / _shown_px(grid)[0])
    _furnish(axes, grid, raster, canvas, width)
    _write_texts(figure, page, title or raster.path.name, _facts(raster, canvas, grid))
    _draw_legend(figure, page, kinds, many, area is not None, labels)
    path = Path(path)
    with atomic_file(path, overwrite=overwrite) as temporary:
        try:
            figure.savefig(temporary, format="png", metadata={"Software": None, "Title": _plain(title)})
        except OSError as error:
            raise write_error(path, error) from error
    return path


def _shown_px(grid: TileGrid) -> tuple[int, int]:
    """Return the width and height of the part of the canvas that is shown."""
    last = grid.window(grid.rows - 1, grid.cols - 1)
    return max(grid.width_px, last.col_end_px), max(grid.height_px, last.row_end_px)


def _frame(raster: Raster, canvas: Canvas, grid: TileGrid) -> tuple[int, int]:
    """Return the frame's size on the page with the proportions of the ground, unless they are extreme."""
    x_m, y_m = raster.info.gsd_x_m, raster.info.gsd_y_m
    width, height = _shown_px(grid)
    tallness = 1.0
    if x_m is not None and y_m is not None:
        tallness = y_m * canvas.scale_y / (x_m * canvas.scale_x)
    scale = min(_FRAME_PX[0] / width, _FRAME_PX[1] / (height * tallness))
    return max(_LEAST_PX, round(width * scale)), max(_LEAST_PX, round(height * tallness * scale))


def _draw_raster(axes: Any, raster: Raster, canvas: Canvas) -> None:  # noqa: ANN401 - matplotlib has no types
    image = _preview(raster)
    extent = (0, canvas.raster_width_px, canvas.raster_height_px, 0)
    if image is not None:
        axes.imshow(image, extent=extent, aspect="auto", interpolation="bilinear", zorder=1)
    x, y = [0, extent[1], extent[1], 0, 0], [0, 0, extent[2], extent[2], 0]
    axes.plot(x, y, color=_MUTED, linewidth=0.8, zorder=2)


def _preview(raster: Raster) -> NDArray[np.uint8] | None:
    """Return the raster as a pale RGBA picture, transparent where it holds nothing."""
    info = raster.info
    long, short = max(info.width_px, info.height_px), min(info.width_px, info.height_px)
    factor = max(1.0, min(long / _PREVIEW_PX, short))
    canvas = preview_canvas(info, factor)
    if info.width_px * info.height_px / canvas.overview**2 > _MOST_READ_PX:
        return None
    try:
        bands = choose_bands(info)
        stretch = plan_stretch(raster, bands)
    except (BandError, UnsupportedRasterError):
        return None
    whole = Window(0, 0, canvas.width_px, canvas.height_px)
    tile = next(iter(read_windows(raster, canvas, [whole], bands=bands, stretch=stretch)))
    # A little greyer and lighter, so that the colours of the tiles stand out.
    colour = tile.array.transpose(1, 2, 0).astype(np.float32)
    grey = colour @ np.array([0.3, 0.59, 0.11], np.float32)
    pale = 64 + 0.75 * (0.6 * colour + 0.4 * grey[..., None])
    return np.dstack([pale.astype(np.uint8), tile.mask])


def _draw_tiles(axes: Any, kinds: Sequence[Kind], grid: TileGrid, frame: tuple[int, int]) -> None:  # noqa: ANN401
    """Draw the outline of every tile that is kept, and dim the ground of no tile."""
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import PathPatch

    width, height = _shown_px(grid)
    side = grid.tile_px * frame[0] / width
    line = 1.1 if side > 60 else 0.8 if side > 24 else 0.5
    for kind in kinds:
        if not kind.kept:
            continue
        corners = list(kind.edges[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        color = _rgb(kind.color)
        face, edge = (*color, _fill(grid)), (*color, 0.9)
        tiles = PolyCollection(corners, facecolors=[face], edgecolors=[edge], linewidths=line, zorder=4)
        axes.add_collection(tiles, autolim=False)
    dim, grounds = left_out_ground(kinds, width, height)
    if dim:
        axes.add_patch(PathPatch(_outline(dim), facecolor=(1, 1, 1, _DIM), linewidth=0, zorder=3))
    for reason, ground in grounds.items():
        axes.add_patch(
            PathPatch(_outline(ground), facecolor="none", edgecolor=_HATCH, linewidth=0, hatch=_hatch(reason), zorder=3)
        )


def _fill(grid: TileGrid) -> float:
    """Return the opacity of a tile; overlapping tiles add up, but never hide the image."""
    layers = (grid.tile_px / grid.stride_px) ** 2
    return min(_FILL, 1 - (1 - _MOST_FILL) ** (1 / layers))


def _outline(ground: BaseGeometry) -> Any:  # noqa: ANN401
    """Return polygons with holes as a path of matplotlib."""
    import shapely
    from matplotlib.path import Path as Outline

    rings = shapely.get_rings(shapely.get_parts(shapely.orient_polygons(ground)))
    return Outline.make_compound_path(*(Outline(shapely.get_coordinates(ring), closed=True) for ring in rings))


def _hatch(reason: str) -> str:
    return _HATCHES.get(reason, _HATCHES[""])


def _draw_map(axes: Any, kinds: Sequence[Kind], grid: TileGrid, frame: tuple[int, int]) -> None:  # noqa: ANN401
    """Draw the places of thousands of tiles, a pixel of the page at a time."""
    width, height = _shown_px(grid)
    across, down = frame[0] / width, frame[1] / height
    layer = np.zeros((frame[1], frame[0], 4), np.float32)
    layer[:] = (1, 1, 1, 0.55)
    for kind in reversed(kinds):
        steps = np.array([across, down, across, down])
        pixels = np.rint(kind.edges * steps).astype(np.int64)
        color = (*_rgb(kind.color), _opacity(kind))
        for left, top, right, bottom in np.unique(pixels, axis=0).tolist():
            layer[top : max(bottom, top + 1), left : max(right, left + 1)] = color
    axes.imshow(layer, extent=(0, width, height, 0), aspect="auto", interpolation="nearest", zorder=4)


def _draw_area(axes: Any, area: BaseGeometry) -> None:  # noqa: ANN401
    import shapely

    for ring in shapely.get_rings(shapely.get_parts(area)):
        x, y = shapely.get_coordinates(ring).T
        axes.plot(x, y, color="white", linewidth=4.2, zorder=6, solid_joinstyle="miter")
        axes.plot(x, y, color=_INK, linewidth=2, zorder=6, dashes=(5, 2.5))


def _draw_counts(axes: Any, windows: Sequence[Window], labels: Sequence[int], scale: float) -> None:  # noqa: ANN401
    """Write into each tile how many labels it holds, where there is room."""
    from matplotlib.patheffects import withStroke

    for window, count in zip(windows, labels, strict=True):
        side = min(window.width_px, window.height_px) * scale
        if not count or side < 26:
            continue
        middle = (window.col_off_px + window.col_end_px) / 2, (window.row_off_px + window.row_end_px) / 2
        axes.text(
            *middle, f"{count:,}", ha="center", va="center", color=_INK, fontsize=min(13, max(6, side / 7)), zorder=7,
            fontweight="bold", path_effects=[withStroke(linewidth=2.4, foreground="white")], clip_on=True,
        )  # fmt: skip


def _furnish(axes: Any, grid: TileGrid, raster: Raster, canvas: Canvas, width: int) -> None:  # noqa: ANN401
    """Set the limits, and draw a scale bar where metres are known."""
    cols, rows = _shown_px(grid)
    axes.set_xlim(0, cols)
    axes.set_ylim(rows, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=_MUTED, linewidth=0.8)
    x_m = raster.info.gsd_x_m
    if x_m is None or width < 240:
        return
    step_m = x_m * canvas.scale_x
    length_m = _round_down(cols * step_m / 4)
    page_px = length_m / step_m * width / cols
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    style = {"xycoords": "axes pixels", "textcoords": "axes pixels", "annotation_clip": False, "color": _INK}
    ends = {"arrowstyle": "|-|,widthA=0.3,widthB=0.3", "color": _INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (page_px, -12), (0, -12), arrowprops=ends, **style)
    axes.annotate(text, (page_px, -12), (page_px + 10, -12), va="center", fontsize=10, **style)


def _round_down(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at most the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{step * power:.3g}") for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))


def _facts(raster: Raster, canvas: Canvas, grid: TileGrid) -> str:
    info, overlap = raster.info, grid.tile_px - grid.stride_px
    code = info.crs.to_authority() if info.crs is not None else None
    crs = "no CRS" if info.crs is None else ":".join(code) if code else "a CRS without a code"
    metres = "" if canvas.gsd_m is None else f" = {grid.tile_px * canvas.gsd_m:,.4g} m"
    source = "full resolution" if canvas.overview == 1 else f"overview 1:{canvas.overview}"
    lines = [
        f"{info.width_px:,} × {info.height_px:,} px, {crs}",
        f"{grid.cols:,} × {grid.rows:,} windows",
        f"tile {grid.tile_px:,} px{metres}",
        f"overlap {overlap:,} px ({overlap / grid.tile_px:.0%}), edge {grid.edge}",
        f"reads the {source}",
    ]
    if canvas.gsd_m is not None:
        lines.append(f"{canvas.gsd_m:.4g} m per pixel")
    return "\n".join(lines)


def _write_texts(figure: Any, page: tuple[int, int], title: str, facts: str) -> None:  # noqa: ANN401
    from matplotlib.transforms import IdentityTransform

    top, style = page[1] - _MARGIN_PX, {"va": "top", "parse_math": False, "transform": IdentityTransform()}
    figure.text(_MARGIN_PX, top, _plain(title)[: page[0] // 16], fontsize=17, fontweight="bold", color=_INK, **style)
    figure.text(_side_x(page), top - _TITLE_PX, facts, fontsize=11, linespacing=1.6, color=_MUTED, **style)


def _side_x(page: tuple[int, int]) -> int:
    return page[0] - _SIDE_PX - _MARGIN_PX


def _draw_legend(
    figure: Any,  # noqa: ANN401
    page: tuple[int, int],
    kinds: Sequence[Kind],
    many: bool,
    has_area: bool,
    labels: Sequence[int] | None,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kept = max(1, sum(kind.count for kind in kinds if kind.kept))
    split = sum(kind.kept for kind in kinds) > 1
    entries: list[tuple[Any, str]] = []
    for kind in kinds:
        share = f" ({kind.count / kept:.0%})" if kind.kept and split else ""
        color, opacity = _rgb(kind.color), _opacity(kind) if many else _MOST_FILL if kind.kept else 0
        style: dict[str, Any] = {} if many or kind.kept else {"hatch": _hatch(kind.name)}
        edge, line = (color, 1.1) if kind.kept else (_HATCH, 0.6)
        patch = Patch(facecolor=(*color, opacity), edgecolor=edge, linewidth=line, **style)
        entries.append((patch, f"{kind.name}: {kind.count:,}{share}"))
    if has_area:
        entries.append((Line2D([], [], color=_INK, linewidth=2, dashes=(5, 2.5)), "area of interest"))
    if labels is not None:
        number = Line2D([], [], linestyle="", marker="$9$", color=_INK, markersize=9)
        entries.append((number, f"labels in a tile: {sum(labels):,} in all"))
    figure.legend(
        *zip(*entries, strict=True), loc="upper left", frameon=False, fontsize=12, labelcolor=_INK, labelspacing=0.9,
        handlelength=2.2, handleheight=1.5, borderpad=0, borderaxespad=0,
        bbox_to_anchor=(_side_x(page) / page[0], (page[1] - _MARGIN_PX - _TITLE_PX - 170) / page[1]),
    )  # fmt: skip


def _opacity(kind: Kind) -> float:
    return _MAP if kind.kept else 0.25


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = bytes.fromhex(color[1:])
    return red / 255, green / 255, blue / 255


def _plain(text: str) -> str:
    """Return one line of characters that the font has."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(char if ord(char) in known else "?" for char in " ".join(text.split()))
