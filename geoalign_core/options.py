"""The options that several commands of ``geoalign`` share, and how their values are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoalign_core.settings import Settings

PATH = click.Path(path_type=Path)
MODEL = "geoalign-s"
EXTENT = "XMIN,YMIN,XMAX,YMAX"


class Metres(click.ParamType):
    """A length on the ground: ``0.5m``, ``50cm`` or plain ``0.5``."""

    name = "metres"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Return metres."""
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        factor = 0.01 if text.endswith("cm") else 1.0
        try:
            metres = float(text.removesuffix("cm").removesuffix("m")) * factor
        except ValueError:
            self.fail(f"{value!r} is not a length; write it like 0.5m", param, ctx)
        if not 0 < metres < 1e6:
            self.fail(f"{value!r} is not a ground resolution; write it like 0.5m", param, ctx)
        return metres


class Threshold(click.ParamType):
    """``auto`` or a number from 0 to 1."""

    name = "threshold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:  # noqa: ANN401
        """Return the number, or None for ``auto``."""
        if value is None or value == "auto":
            return None
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a number", param, ctx)
        if not 0 <= number <= 1:
            self.fail(f"{value} is not between 0 and 1", param, ctx)
        return number


class Box(click.ParamType):
    """``xmin,ymin,xmax,ymax``."""

    name = "box"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:  # noqa: ANN401
        """Return the four numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            self.fail(f"{value!r} is not xmin,ymin,xmax,ymax", param, ctx)
        return numbers


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


_seeing = (
    click.option("--model", default=MODEL, show_default=True, metavar="NAME|PATH", help="Model name or folder."),
    click.option("--gsd", type=Metres(), metavar="0.5m", help="Ground resolution to look at.  [default: the model's]"),
    click.option("--bands", metavar="R,G,B", help="Band numbers.  [default: by colour]"),
    click.option(
        "--stretch", default="auto", show_default=True, metavar="auto|none|p2-98|min-max|LO,HI|FILE.json",
        help="How values become 8-bit, once for the whole raster.",
    ),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where to compute."),
    click.option(
        "--precision", type=click.Choice(["auto", "float32", "bfloat16", "int8"]), default="auto", show_default=True,
        help="How the model computes; auto takes bfloat16 where it is faster.",
    ),
    click.option("--compile", "compile_", is_flag=True, help="Fuse the image tower first; pays on long runs."),
    click.option("--dense-mode", metavar="MODE", help="Last-block variant of a CLIP model.  [default: its own]"),
    click.option("--cls-bias", type=float, metavar="λ", help="Weight of the class token in patches, e.g. -0.3."),
    click.option("-j", "--jobs", type=click.IntRange(1), default=None, help="Reading threads.  [default: all cores]"),
    click.option("--allow-vrt", is_flag=True, help="Open virtual rasters, which may read any file they name."),
)  # fmt: skip
_reporting = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)
seeing = _options(*_seeing, *_reporting)
"""How to look at a raster."""
looking = _options(
    *_seeing,
    click.option("--templates", metavar="NAME", help="Prompt template set.  [default: the model's]"),
    click.option("--max-windows", type=click.IntRange(1), help="Refuse larger rasters.  [default: 200000]"),
    *_reporting,
)
"""How to ask a raster: by words, and all of it."""
area = click.option(
    "--area", metavar="EXTENT|FILE", help="Only this part: xmin,ymin,xmax,ymax[@EPSG:4326] or a vector file."
)
finding = _options(
    click.option("--out", type=PATH, metavar="DIR", help="Folder for all files.  [default: RASTER-geoalign]"),
    click.option("--boxes", type=PATH, metavar="FILE", help="Regions: .gpkg .shp .geojson .fgb .parquet"),
    click.option("--heatmap", type=PATH, metavar="FILE", help="Scores 0..1 as a GeoTIFF."),
    click.option("--picture", type=PATH, metavar="FILE", help="A PNG to look at."),
    click.option("--threshold", type=Threshold(), metavar="T|auto", help="Lowest score of a region.  [default: auto]"),
    click.option("--top", type=click.IntRange(1), help="At most so many regions per question."),
    click.option("--min-area", type=click.FloatRange(0), default=0.0, metavar="M2", help="Smallest region."),
    click.option("--overwrite", is_flag=True, help="Replace files that are there."),
)
sure = _options(
    click.option(
        "--min-precision", type=click.FloatRange(0, 1), metavar="P",
        help="In place of --threshold: lowest share of right places at a score, of a calibrated model.",
    ),
    click.option(
        "--prior", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
        help="Share of the image that is asked for, which precision depends on.  [default: the calibration's]",
    ),
)  # fmt: skip
"""How sure an answer to words must be."""


def settings_from(options: dict[str, Any]) -> Settings:
    """Return what :data:`looking` says, or :data:`seeing`."""
    from geoalign_core.models.options import EncoderOptions
    from geoalign_core.settings import MAX_WINDOWS, Settings
    from tiling.raster import OpenPolicy

    return Settings(
        model=options["model"], gsd_m=options["gsd"], bands=options["bands"], stretch=options["stretch"],
        device=options["device"], jobs=options["jobs"] or os.cpu_count() or 1,
        max_windows=options.get("max_windows") or MAX_WINDOWS, policy=OpenPolicy(allow_vrt=options["allow_vrt"]),
        encoder=EncoderOptions(
            precision=options["precision"], compile=options["compile_"], dense_mode=options["dense_mode"],
            cls_bias=options["cls_bias"], templates=options.get("templates"),
        ),
    )  # fmt: skip
