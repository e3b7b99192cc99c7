"""What the engine is doing, in words for the user: one table for the panel and for Processing."""

from __future__ import annotations

from .words import tr


def stage_text(stage: str) -> str:
    """Return the engine's stage in words for the user; one that is not known as it is, with a capital."""
    known = {
        "starting": tr("Starting the search engine"),
        "loading the model": tr("Loading the model"),
        "looking around": tr("Looking around"),
        "checking": tr("Checking what is known already"),
        "reading the image": tr("Reading the image"),
        "embedding": tr("Reading the image"),
        "rendering": tr("Drawing the layer"),
        "reading boxes": tr("Looking at the examples"),
        "reading the heatmap": tr("Reading the heatmap"),
        "scoring": tr("Comparing"),
        "finding regions": tr("Finding the matches"),
        "planning tiles": tr("Planning the tiles"),
        "writing": tr("Writing the result"),
        "uploading": tr("Sending the image to the engine"),
        "downloading": tr("Fetching the result"),
    }
    if stage.startswith("tiling "):
        return tr("Cutting {name}").format(name=stage[len("tiling ") :])
    return known.get(stage, stage[:1].upper() + stage[1:])
