"""Rasters as windows: safe opening, grids, reading at a model's ground resolution, seam-free joining."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "area": ("parse_area", "raster_outline"),
    "blend": ("Mosaic", "overlap_weights", "window_weights", "write_blended"),
    "canvas": ("Canvas", "pixel_canvas", "plan_canvas"),
    "errors": (
        "AreaError",
        "BandError",
        "CancelledError",
        "GeoAlignError",
        "NotGeoreferencedError",
        "OutputExistsError",
        "OutputWriteError",
        "RasterOpenError",
        "RasterReadError",
        "StretchError",
        "UnsupportedRasterError",
        "UsageError",
    ),
    "geodesy": ("area_m2", "ground_size_m"),
    "grid": ("Length", "TileGrid", "Window"),
    "info": ("RasterInfo",),
    "mosaic": ("open_mosaic",),
    "plan": ("Tiles",),
    "progress": ("CancelToken", "Progress"),
    "radiometry": ("BandChoice", "Stretch", "choose_bands", "plan_stretch"),
    "raster": ("OpenPolicy", "Raster", "open_raster"),
    "reader": ("Tile", "read_raw", "read_windows"),
    "warp": ("warp_raster",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - the table above is the one list of names


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
