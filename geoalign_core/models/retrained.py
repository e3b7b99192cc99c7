"""Models of the embedded kind outside of the package: learnt anew by ``geoalign-train align --out FOLDER``.

Such a folder holds the three files of the packaged model, its description, and the record of their hashes, written
last. What is built from a description decides memory, and a tower's name could even reach for the network, so both are
those of a packaged model; words, questions and resolutions may be others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

from geoalign_core.errors import ModelError
from geoalign_core.models.config import CONFIG_DIR, ModelConfig, WeightFile
from geoalign_core.models.store import CONFIG_NAME, PROVENANCE_NAME, new_model, sha256_of
from tiling.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BUILT = ("embed_dim", "patch_px", "vision_cfg", "text_cfg", "preprocess", "activation")


def built_as_packaged(config: ModelConfig) -> ModelConfig:
    """Return the description with everything that is built from it taken from the packaged model that it is like.

    Raises:
        ValueError: It is like none, or names other files.
    """
    for path in sorted(CONFIG_DIR.glob("*.json")):
        known = ModelConfig.load(path)
        built = {key: getattr(known, key) for key in _BUILT}
        same = all(getattr(config, key) == value for key, value in built.items())
        names = [[item.name for item in one.files] for one in (config, known)]
        if same and names[0] == names[1] and config.dense.mode == known.dense.mode:
            return dataclasses.replace(config, **built)  # equal is not the same: 6.0 layers cannot be built
    raise ValueError("builds another model than the package's embedded one")


def is_retrained(folder: Path) -> bool:
    """Return whether a folder says that it is a model of the embedded kind."""
    try:
        return bool(json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))["family"] == "embedded")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def record_of(config: ModelConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a model, without the hashes of the files beside it.

    Args:
        config: With the hashes of the weights.
        facts: What else is to be remembered, such as the recipe.
    """
    source = hashlib.sha256("".join(item.sha256 for item in config.files).encode()).hexdigest()
    own = {"schema": 1, "family": config.family, "activation": config.activation, "tables": None}
    return {**facts, **own, "source_sha256": source}


def write_description(folder: Path, config: ModelConfig, facts: Mapping[str, Any]) -> ModelConfig:
    """Write description and record for the weights that lie in a folder; the folder is then a model.

    Args:
        folder: With the files that ``config.files`` names.
        config: Their hashes and sizes are taken anew.
        facts: See :func:`record_of`.

    Returns:
        The configuration as written.
    """
    names = [item.name for item in config.files]
    files = tuple(WeightFile(name, sha256_of(folder / name), (folder / name).stat().st_size) for name in names)
    config = dataclasses.replace(config, files=files)
    _write(folder / CONFIG_NAME, dataclasses.asdict(config))
    digests = {CONFIG_NAME: sha256_of(folder / CONFIG_NAME), **{item.name: item.sha256 for item in files}}
    _write(folder / PROVENANCE_NAME, record_of(config, facts) | {"sha256": digests})
    return config


def _write(path: Path, item: dict[str, Any]) -> None:
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(item, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def same_calibration(source: Path, folder: Path) -> bool:
    """Return whether a folder has no calibration, or the one that the model in the store has."""
    from geoalign_core.models.calibration import FILE_NAME

    own, there = source / FILE_NAME, folder / FILE_NAME
    return not own.is_file() or (there.is_file() and own.read_bytes() == there.read_bytes())


def copy_into_store(source: Path, folder: Path, config: ModelConfig, facts: Mapping[str, Any]) -> ModelConfig:
    """Copy a model under the name of ``config``, with its calibration if it has one; all of it or nothing.

    Args:
        source: A model's folder, whose hashes were checked.
        folder: Its place in the store, free and locked.
        config: As it is to be called there.
        facts: Its record.

    Raises:
        ModelError: The files changed meanwhile, or the calibration is damaged.
        OutputWriteError: The store cannot be written.
    """
    from geoalign_core.models.calibration import FILE_NAME, read_calibration

    calibrated = (source / FILE_NAME).is_file()
    if calibrated:
        read_calibration(source / FILE_NAME)
    with new_model(folder) as fresh:
        for name in [item.name for item in config.files] + [FILE_NAME] * calibrated:
            shutil.copyfile(source / name, fresh / name)
        written = write_description(fresh, config, facts)
        if written != config:
            raise ModelError("was changed while it was copied", path=source, remedy="try again")
    return written
