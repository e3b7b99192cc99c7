"""The engine's errors as sentences for QGIS, where its remedies name options of the command line."""

from __future__ import annotations

import re

from .words import tr

FIRST_WORD = re.compile(r"[^\W\d_]+(?=[\s,;.?!]|$)")
"""A plain word; paths, devices and names of files are left as they are."""


def remedy_text(remedy: str) -> str:
    """Return what to do in QGIS where a remedy speaks of the command line, else the remedy."""
    ways = {
        "--device": tr("Choose the device cpu."),
        "--overwrite": tr("Replace what is there, or choose another name or folder."),
        "--max-memory": tr("Choose a smaller area or a coarser ground resolution."),
        "--gsd": tr("Choose a smaller area or a coarser ground resolution."),
        "--max-tiles": tr("Choose a smaller area or larger tiles."),
        "--area": tr("Check its nodata value, or choose another area."),
        "--bands": tr("Choose other bands."),
        "--allow-vrt": tr("Save it as a GeoTIFF first."),
        "--crs": tr("Set the coordinate system of the layer."),
        "--format": tr("Choose the file format tif."),
        "--stretch": tr("Choose the file format tif."),
        "--box": tr("Mark what you mean on the image."),
    }
    return next((text for option, text in ways.items() if re.search(rf"{option}\b", remedy)), remedy)


def sentences(*texts: str) -> str:
    """Texts as sentences: with a full stop, and a capital unless they begin with a path or a name."""
    return " ".join(_sentence(text.strip()) for text in texts if text.strip())


def _sentence(text: str) -> str:
    full = text if text.endswith((".", "?", "!", "…")) else f"{text}."
    return full[0].upper() + full[1:] if FIRST_WORD.match(full) else full
