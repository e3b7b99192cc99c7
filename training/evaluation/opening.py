"""What every measuring command opens: the model, when it is first needed, and the folder of embeddings."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from geoalign_core.models.encoder import TorchEncoder
    from tiling.progress import Progress

READING = "reading the data set"
MODEL = click.option(
    "--model", default="geoalign-s", show_default=True, metavar="NAME|PATH", help="Model name or folder."
)
DEVICE = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where to compute."
)
PRECISION = click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16", "int8"]), default="float32", show_default=True,
    help="How the model computes.",
)  # fmt: skip
CACHE = click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of embeddings.  [default: the user's cache]",
)  # fmt: skip


def model_loader(
    options: Mapping[str, Any], of_model: Mapping[str, Any], progress: Progress
) -> Callable[[], TorchEncoder]:
    """Return what loads the model when it is first called.

    Args:
        options: ``model``, ``device`` and ``precision`` of the command line.
        of_model: Further options of :class:`~geoalign_core.models.options.EncoderOptions`.
        progress: Told that the data is read and the model is loading.
    """

    @functools.cache
    def load() -> TorchEncoder:
        progress(1, 1, READING)
        progress(0, 1, "loading the model")  # torch alone takes a while
        from geoalign_core.models.options import EncoderOptions
        from geoalign_core.models.registry import load_encoder

        chosen = EncoderOptions(precision=options["precision"], **of_model)
        encoder = load_encoder(options["model"], device=options["device"], options=chosen)
        progress(1, 1, "loading the model")
        return encoder  # type: ignore[return-value]

    return load


def cache_folder() -> Path:
    """Return the user's folder of embeddings."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("geoalign")) / "evaluation"
