"""What the engine knows without working: itself, its models, and what a question would cost."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoalign_core.engine.arguments import Target
    from geoalign_core.engine.session import Opened

_PACKAGES = ("numpy", "torch", "timm", "open_clip_torch", "rasterio", "pyogrio", "shapely", "scikit-learn", "pyarrow")
_ROW_BYTES = 9
"""Of an index's row besides its channels."""


def models() -> list[dict[str, Any]]:
    """List the models; loads no torch."""
    from geoalign_core.models.registry import list_models

    return [
        {
            "name": entry.name, "title": entry.title, "licence": entry.licence, "installed": entry.installed,
            "size_bytes": entry.size_bytes,
        }
        for entry in list_models()
    ]  # fmt: skip


def hello(*, max_windows: int, memory_bytes: int | None) -> dict[str, Any]:
    """Return the first message's fields."""
    from geoalign_core import __version__
    from geoalign_core.engine.protocol import LINE_BYTES, PROTOCOL

    return {
        "protocol": [PROTOCOL, PROTOCOL], "engine": __version__, "python": platform.python_version(),
        "pid": os.getpid(), "models": models(),
        "limits": {"line_bytes": LINE_BYTES, "max_windows": max_windows, "memory_bytes": memory_bytes},
    }  # fmt: skip


def status() -> dict[str, Any]:
    """Return versions, devices and folders; imports torch."""
    from geoalign_core import __version__
    from geoalign_core.engine.session import import_torch
    from geoalign_core.models.registry import models_dir

    torch = import_torch()
    devices = [{"name": "cpu", "title": "CPU"}]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        devices += [{"name": f"cuda:{n}", "title": torch.cuda.get_device_name(n)} for n in range(count)]
    return {
        "engine": __version__, "python": platform.python_version(), "platform": platform.platform(),
        "torch": str(torch.__version__), "devices": devices, "models": models(), "cache": str(models_dir()),
        "packages": _versions(),
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(opened: Opened, target: Target) -> dict[str, Any]:
    """Return what asking would do, without doing it."""
    import numpy as np

    from geoalign_core.answer import resolution_notes
    from geoalign_core.engine.build import missing_shards, window_count
    from geoalign_core.indexing.areas import shards_in_area

    info, spec = opened.raster.info, opened.spec
    wanted, missing = shards_in_area(spec, target.area), missing_shards(opened, target.area)
    windows, to_do = window_count(spec, wanted), window_count(spec, missing)
    per_window = [int(np.prod(level.window_cells)) for level in spec.levels]
    patches = sum(window_count(spec, [at]) * per_window[at.level] for at in wanted)
    first = spec.levels[0].grid.window(0, 0)
    speed = opened.encoder.window_seconds(first.height_px, first.width_px) if to_do else 0.0
    reason = info.why_no_metres()
    notes = [f"works in pixels: {reason}"] if reason else []
    notes += [spec.bands.note] if spec.bands.note else []
    return {
        "raster": target.source.path, "crs": "" if info.crs is None else info.crs.to_wkt(),
        "width_px": info.width_px, "height_px": info.height_px,
        "gsd_m": [level.canvas.gsd_m for level in spec.levels], "native_gsd_m": info.gsd_m,
        "windows": windows, "windows_missing": to_do, "patches": patches, "seconds": round(to_do * speed, 1),
        "bytes": patches * (spec.channels + _ROW_BYTES), "memory_bytes": _memory(opened, per_window[0]),
        "indexed": not missing, "bands": list(spec.bands.names),
        "notes": [*notes, *_look_notes(opened, resolution_notes)],
    }  # fmt: skip


def _look_notes(opened: Opened, resolution_notes: Any) -> tuple[str, ...]:  # noqa: ANN401 - a function
    from geoalign_core.answer import Prepared
    from geoalign_core.indexing import Index

    index = Index(opened.raster.path, opened.spec, opened.source, [])
    notes: tuple[str, ...] = resolution_notes(Prepared(opened.raster, opened.encoder, index, None, opened.settings))
    return notes


def _memory(opened: Opened, tokens: int) -> int:
    """Return what indexing takes at most: this process as it is, the reader, the model's batch, some shards."""
    import psutil

    from geoalign_core.indexing.shard import SHARD_WINDOWS
    from tiling.reader import CACHE_BYTES

    channels = opened.spec.channels
    batch = opened.encoder.batch * tokens * channels * 4 * 24
    shards = 3 * SHARD_WINDOWS**2 * tokens * channels * 5
    return int(psutil.Process().memory_info().rss + CACHE_BYTES + batch + shards)
