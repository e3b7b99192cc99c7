"""Draw the diagrams of ``how-tiling-works.md`` with the code that they explain: ``python docs/diagrams.py``."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import FixedLocator
from PIL import Image
from shapely.affinity import affine_transform

from tiling.blend import overlap_weights, write_blended
from tiling.canvas import pixel_canvas, plan_canvas
from tiling.chips.labels import Labels
from tiling.chips.manifest import Source, footprint
from tiling.chips.spec import LabelSpec, SplitSpec
from tiling.chips.split import assign_parts
from tiling.cli import command as tile_command
from tiling.clikit import run_cli
from tiling.grid import TileGrid, Window
from tiling.radiometry import Stretch, choose_bands, plan_stretch
from tiling.raster import open_raster
from tiling.reader import read_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tiling.grid import Edge

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "samples" / "canal.tif"
INK, MUTED, PALE = "#1b1f24", "#5b6570", "#e4e8ec"
BLUE, ORANGE, PINK, GREEN, GREY = "#0072b2", "#e69f00", "#cc3d74", "#009e73", "#9aa3ab"
PARTS = {"train": BLUE, "val": ORANGE, "test": PINK, None: GREY}
CORNER = (500000.0, 5800000.0)


def page(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:  # noqa: ANN401
    """Return a white page of 900 px width with plots in rows and columns."""
    figure = Figure(figsize=(9, height), dpi=100, facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=options or None).ravel()


def bare(axes: Any, title: str = "") -> None:  # noqa: ANN401
    """Take the frame and the ticks away."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=12, color=INK, loc="left")


def read(path: Path, row: int, col: int, height: int, width: int) -> NDArray[Any]:
    """Return a part of a raster (H, W, C)."""
    with open_raster(path) as raster:
        indexes = tuple(range(1, raster.info.count + 1))
        window = Window(col, row, width, height)
        tile = next(iter(read_raw(raster, pixel_canvas(raster.info), [window], indexes=indexes)))
    return np.asarray(tile.array.transpose(1, 2, 0))


def write(path: Path, array: NDArray[Any], gsd_m: float = 1.0, overviews: tuple[int, ...] = ()) -> None:
    """Write (C, H, W) as a GeoTIFF."""
    count, height, width = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=array.dtype, crs="EPSG:32631",
        transform=Affine(gsd_m, 0, CORNER[0], 0, -gsd_m, CORNER[1]), tiled=True,
    ) as out:  # fmt: skip
        out.write(array)
        if overviews:
            out.build_overviews(overviews)


def cut(image: NDArray[Any], window: Window) -> NDArray[Any]:
    """Return a window of an image (H, W, …)."""
    return image[window.row_off_px : window.row_end_px, window.col_off_px : window.col_end_px]


TITLES = "tiles that overlap", "what a model makes of each", "pasted together", "joined by --stitch"


def draw_stitching() -> Figure:
    """Tiles, what a model made of each alone, and two ways to put that together again."""
    height, width, gap = 320, 440, 14
    image = read(SAMPLE, 480, 400, height, width)
    grid = TileGrid(width, height, 200, 120)
    brightness = image.mean(axis=2).astype(np.float32)
    rng = np.random.default_rng(5)
    # A stand-in for a model: it never sees beyond its tile, so each tile comes out a little different.
    outputs = [(window, cut(brightness, window) + np.float32(rng.uniform(-35, 35)), None) for window in grid]
    pasted = np.zeros_like(brightness)
    for window, values, _ in outputs:
        cut(pasted, window)[:] = values
    figure, axes = page(6.6, 2, 2)
    for plot, title in zip(axes, TITLES, strict=True):
        bare(plot, title)
    colors = {"cmap": "viridis", "vmin": 0, "vmax": 230}
    for window, values, _ in outputs:
        x, y = window.col * (grid.tile_px + gap), window.row * (grid.tile_px + gap)
        place = (x, x + window.width_px, y + window.height_px, y)
        axes[0].imshow(cut(image, window), extent=place)
        axes[1].imshow(values, extent=place, **colors)
    for plot in axes[:2]:
        plot.set(xlim=(0, grid.cols * (grid.tile_px + gap) - gap), ylim=(grid.rows * (grid.tile_px + gap) - gap, 0))
    axes[2].imshow(pasted, **colors)
    axes[3].imshow(joined(outputs, grid), **colors)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.95, wspace=0.04, hspace=0.14)
    return figure


def joined(outputs: list[tuple[Window, NDArray[np.float32], None]], grid: TileGrid) -> NDArray[np.float32]:
    """Join outputs as ``--stitch`` does."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_blended(
            Path(folder) / "joined.tif", outputs, grid=grid, width_px=grid.width_px, height_px=grid.height_px,
            transform=Affine.identity(), crs=None,
        )  # fmt: skip
        return read(path, 0, 0, grid.height_px, grid.width_px)[..., 0]


def draw_edges() -> Figure:
    """The four rules for windows that would reach beyond the raster."""
    figure, axes = page(2.5, 1, 4)
    texts: dict[Edge, str] = {
        "shift": "moved back inside\n(the default)",
        "pad": "reaches out; what lies\nbeyond is not valid",
        "partial": "cut at the edge",
        "drop": "left away",
    }
    for plot, (edge, text) in zip(axes, texts.items(), strict=True):
        grid = TileGrid(430, 330, 130, 130, edge)
        bare(plot, f"--edge {edge}")
        plot.add_patch(Rectangle((0, 0), 430, 330, facecolor=PALE))
        for window in grid:
            color = ORANGE if (window.col == 3 or window.row == 2) and edge != "drop" else BLUE
            place = (window.col_off_px, window.row_off_px), window.width_px, window.height_px
            plot.add_patch(Rectangle(*place, facecolor=color, alpha=0.28))
            plot.add_patch(Rectangle(*place, fill=False, edgecolor=color, linewidth=1.4))
        plot.add_patch(Rectangle((0, 0), 430, 330, fill=False, edgecolor=INK, linewidth=1.6))
        plot.set(xlim=(-6, 526), ylim=(396, -6), aspect="equal")
        plot.text(0, 410, text, fontsize=10.5, color=MUTED, va="top")
    figure.subplots_adjust(left=0.015, right=0.99, bottom=0.17, top=0.93, wspace=0.08)
    return figure


def draw_weights() -> Figure:
    """Weights of four windows along a line, and their sum."""
    grid = TileGrid(340, 100, 100, 80)
    figure, (plot,) = page(3.0)
    total = np.zeros(grid.width_px)
    for window, color in zip(grid, (BLUE, ORANGE, GREEN, PINK), strict=True):
        weights = overlap_weights(window.width_px, *grid.overlaps_px(0, window.col)[:2])
        columns = np.arange(window.col_off_px, window.col_end_px)
        total[columns] += weights
        plot.fill_between(columns + 0.5, weights, color=color, alpha=0.2, linewidth=0)
        plot.plot(columns + 0.5, weights, color=color, linewidth=2)
        plot.text(columns.mean(), 0.42, f"tile {window.col + 1}", ha="center", fontsize=12, color=color)
    plot.fill_between([0, grid.width_px], total.min(), total.max(), color=INK, linewidth=1.2)
    plot.text(170, 1.06, "their sum is 1 everywhere, also in the outermost pixel", fontsize=11, color=INK, ha="center")
    plot.set(xlim=(0, grid.width_px), ylim=(0, 1.2), yticks=[0, 0.5, 1])
    describe(plot, "column of the raster", "weight")
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.18, top=0.97)
    return figure


def describe(plot: Any, below: str, beside: str = "") -> None:  # noqa: ANN401
    """Name the axes and take half of the frame away."""
    plot.set_xlabel(below, fontsize=11, color=MUTED)
    plot.set_ylabel(beside, fontsize=11, color=MUTED)
    plot.spines[["top", "right"]].set_visible(False)
    plot.tick_params(colors=MUTED, labelsize=10)


def draw_resolution() -> Figure:
    """Which overview is read for which resolution of the tiles."""
    asked_m = np.geomspace(0.1, 3.2, 501)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pyramid.tif"
        write(path, np.zeros((1, 1024, 1024), np.uint8), 0.2, (2, 4, 8))
        with open_raster(path) as raster:
            factors = np.array([plan_canvas(raster.info, float(gsd)).overview for gsd in asked_m])
    figure, (plot,) = page(3.4)
    for factor, color in ((1, BLUE), (2, GREEN), (4, ORANGE), (8, PINK)):
        span = asked_m[factors == factor][[0, -1]]
        plot.fill_between(span, 0.2 * factor, 0.1, color=color, alpha=0.16, linewidth=0)
        plot.plot(span, [0.2 * factor] * 2, color=color, linewidth=3, solid_capstyle="butt")
        name = "full\nresolution" if factor == 1 else f"overview\n1:{factor}"
        plot.text(span[1] * 0.97, 0.108, name, ha="right", va="bottom", fontsize=11, color=INK)
    plot.plot(asked_m, asked_m, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    arrow = {"arrowstyle": "->", "color": INK}
    plot.annotate("as fine as the tiles", (0.3, 0.3), (0.14, 0.55), fontsize=11, color=INK, arrowprops=arrow)
    plot.set(xscale="log", yscale="log", xlim=(0.1, 3.2), ylim=(0.1, 3.2))
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_major_locator(FixedLocator([0.1, 0.2, 0.4, 0.8, 1.6, 3.2]))
        axis.set_minor_locator(FixedLocator([]))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    describe(plot, "--gsd: metres per pixel of the tiles", "metres per pixel read")
    figure.subplots_adjust(left=0.08, right=0.975, bottom=0.16, top=0.96)
    return figure


def draw_stretch() -> Figure:
    """One stretch for the raster beside one for each tile."""
    samples = (read(SAMPLE, 520, 40, 360, 360).astype(np.float32) * 9 + 300).astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.tif"
        write(path, samples.transpose(2, 0, 1))
        with open_raster(path) as raster:
            stretch = plan_stretch(raster, choose_bands(raster.info), "p2-98")
    single = np.zeros(samples.shape, np.uint8)
    for window in TileGrid(360, 360, 120, 120):
        part = cut(samples, window).transpose(2, 0, 1)
        low, high = (tuple(map(float, np.percentile(part, percent, axis=(1, 2)))) for percent in (2, 98))
        cut(single, window)[:] = Stretch("percentile", low, high).apply(part).transpose(1, 2, 0)
    figure, axes = page(3.7, 1, 3, width_ratios=[1, 1, 0.78])
    bare(axes[0], "a stretch per tile: never done")
    axes[0].imshow(single)
    bare(axes[1], "--stretch p2-98: one for all")
    axes[1].imshow(stretch.apply(samples.transpose(2, 0, 1)).transpose(1, 2, 0))
    plot = axes[2]
    for band, color in enumerate((PINK, GREEN, BLUE)):
        plot.hist(samples[..., band].ravel(), 60, histtype="step", color=color, linewidth=1.2)
        for value in (stretch.low[band], stretch.high[band]):
            plot.axvline(value, color=color, linewidth=1.2, linestyle=(0, (3, 3)))
    plot.set(yticks=[])
    describe(plot, "sample (uint16)")
    plot.spines["left"].set_visible(False)
    plot.set_title("dashed: become 0 and 255", fontsize=12, color=INK, loc="left")
    figure.subplots_adjust(left=0.01, right=0.985, bottom=0.15, top=0.91, wspace=0.06)
    return figure


def draw_labels() -> Figure:
    """Labels cut at the border of two tiles."""
    import geopandas

    shapes = {
        "roof": shapely.Polygon([(110, 40), (330, 20), (346, 120), (126, 140)]),
        "pond": shapely.Point(120, 200).buffer(42),
        "boat": shapely.Polygon([(370, 188), (462, 172), (470, 204), (378, 220)]),
    }
    grid = TileGrid(512, 256, 256, 256)
    with tempfile.TemporaryDirectory() as folder:
        path, vector = Path(folder) / "image.tif", Path(folder) / "labels.gpkg"
        write(path, np.zeros((1, 256, 512), np.uint8))
        placed = [affine_transform(shape, (1, 0, 0, -1, *CORNER)) for shape in shapes.values()]
        geopandas.GeoDataFrame({"class": list(shapes)}, geometry=placed, crs="EPSG:32631").to_file(vector)
        with open_raster(path) as raster:
            index = Labels.load(LabelSpec(vector)).onto(raster.info, pixel_canvas(raster.info))
            pieces = [(window, index.cut(window)) for window in grid]
    figure, (plot,) = page(4.35)
    bare(plot)
    gap, colors = 40, {"roof": BLUE, "pond": GREEN, "boat": PINK}
    for window, labels in pieces:
        left = window.col_off_px + gap * window.col
        plot.add_patch(Rectangle((left, 0), 256, 256, facecolor=PALE, edgecolor=INK, linewidth=1.4))
        for label in labels:
            ring = shapely.get_coordinates(label.geometry.exterior) + np.array([left, 0])
            plot.add_patch(Polygon(ring, facecolor=colors[label.class_name], alpha=0.3))
            plot.add_patch(Polygon(ring, fill=False, edgecolor=colors[label.class_name], linewidth=2))
            text = f"{label.class_name}\nvisible {label.visible:.2f}" + "\ntruncated" * label.truncated
            middle = shapely.Polygon(ring).centroid
            plot.text(middle.x, middle.y, text, fontsize=11, color=INK, ha="center", va="center")
        plot.text(left, 262, f"tile {window.col + 1}", fontsize=11.5, color=MUTED, va="top")
    plot.set(xlim=(-4, 512 + gap + 4), ylim=(282, -4), aspect="equal")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99)
    return figure


def draw_split() -> Figure:
    """Two rasters that overlap on the ground, divided by blocks."""
    upright = Affine.translation(*CORNER) * Affine.scale(1, -1)
    sources = [
        source("spring", 2200, 1400, upright, TileGrid(2200, 1400, 100, 100)),
        source("summer", 1500, 1000, upright * Affine.translation(1500, 700) * Affine.rotation(-14),
               TileGrid(1500, 1000, 100, 100)),
    ]  # fmt: skip
    windows = [list(one.grid) for one in sources]
    assignment = assign_parts(sources, windows, SplitSpec.parse("train=0.7,val=0.15,test=0.15", block="400px", seed=1))
    figure, (plot,) = page(5.2)
    bare(plot)
    for one, own, parts in zip(sources, windows, assignment.parts, strict=True):
        for window, part in sorted(zip(own, parts, strict=True), key=lambda pair: pair[1] is not None):
            color, corners = PARTS[part], footprint(one, window)
            plot.add_patch(Polygon(corners, facecolor=color, alpha=0.3 if part else 0))
            plot.add_patch(Polygon(corners, fill=False, edgecolor=color, linewidth=0.9, alpha=1 if part else 0.5))
        whole = Window(0, 0, one.width_px, one.height_px)
        plot.add_patch(Polygon(footprint(one, whole), fill=False, edgecolor=INK, linewidth=1.8))
    x, y = CORNER
    entries = [*((name, f"{name}: {count}") for name, count in assignment.counts.items()),
               (None, f"between two parts: {assignment.left_out}")]  # fmt: skip
    for place, (part, text) in enumerate(entries):
        left = x + place * 480
        plot.add_patch(Rectangle((left, y + 90), 90, 70, facecolor=PARTS[part], alpha=0.3 if part else 0))
        plot.add_patch(Rectangle((left, y + 90), 90, 70, fill=False, edgecolor=PARTS[part], linewidth=1.4))
        plot.text(left + 115, y + 122, text, fontsize=12, color=INK, va="center")
    plot.set(xlim=(x - 20, x + 3230), ylim=(y - 1720, y + 180), aspect="equal")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99)
    return figure


def source(name: str, width: int, height: int, transform: Affine, grid: TileGrid) -> Source:
    """Return what the manifest knows about a raster with pixels of a metre."""
    wkt = rasterio.crs.CRS.from_epsg(32631).to_wkt()
    return Source(name, name, {}, width, height, transform, wkt, 1.0, 1, grid, (1,), "uint8", None, None)


def draw_picture(path: Path) -> None:
    """The picture that the page's own command draws."""
    import geopandas

    page_text = (HERE / "how-tiling-works.md").read_text(encoding="utf-8")
    command = re.search(r"^\$ geoalign-tile (.*--picture) plan\.png$", page_text, re.MULTILINE)
    if command is None:
        raise ValueError("the page draws no plan")
    target = path.resolve()
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
        copyfile(SAMPLE, "site.tif")
        with rasterio.open("site.tif") as raster:
            place, crs = raster.transform, raster.crs
        field = affine_transform(
            shapely.Polygon([(90, 120), (700, 40), (960, 420), (820, 930), (180, 860)]), place.to_shapely()
        )
        geopandas.GeoDataFrame(geometry=[field], crs=crs).to_file("field.gpkg")
        code = run_cli(tile_command, [*shlex.split(command[1]), str(target), "--overwrite"])
    if code:
        raise SystemExit(code)


DIAGRAMS: dict[str, Callable[[], Figure]] = {
    "stitching": draw_stitching,
    "edges": draw_edges,
    "weights": draw_weights,
    "resolution": draw_resolution,
    "stretch": draw_stretch,
    "labels": draw_labels,
    "split": draw_split,
}


def draw_all(folder: Path) -> list[Path]:
    """Draw every diagram into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in DIAGRAMS.items():
        paths.append(folder / f"tiling-{name}.png")
        with rc_context({"font.family": "DejaVu Sans"}):
            draw().savefig(paths[-1], metadata={"Software": None})
    paths.append(folder / "tiling-plan.png")
    draw_picture(paths[-1])
    for path in paths:
        # Photographs keep their gradients by a palette of their own; flat colours of a legend need an even one.
        method = Image.Quantize.FASTOCTREE if path.stem == "tiling-plan" else Image.Quantize.MEDIANCUT
        with Image.open(path) as drawn:
            drawn.convert("RGB").quantize(256, method).save(path, optimize=True)
    return paths


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images")
