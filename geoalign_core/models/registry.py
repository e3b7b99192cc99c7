"""Which models there are, where their files lie, whether they are whole, and how they are loaded.

The embedded model ships in the package. Others lie in the user's store, one folder each, brought there by
``models import`` or ``models pull``; a folder in the store's layout, in that of ``geoalign-train align`` or in
open_clip's hub layout can also be given by path instead of a name. Nothing here touches the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoalign_core.errors import DeviceError, ModelError
from geoalign_core.models.config import CONFIG_DIR, MAX_CLS_BIAS, ModelConfig
from geoalign_core.models.families import families, find_published, not_published
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.retrained import built_as_packaged
from geoalign_core.models.store import (
    CONFIG_NAME,
    NAME,
    PROVENANCE_NAME,
    WEIGHTS_NAME,
    is_installed,
    models_dir,
    remove_model,
    sha256_of,
    size_of,
    stored_size,
)

if TYPE_CHECKING:
    from geoalign_core.models.encoder import Encoder

DEFAULT_MODEL = "geoalign-s"
WEIGHTS_DIR = Path(__file__).parent / "weights"

__all__ = [
    "DEFAULT_MODEL", "WEIGHTS_DIR", "FileCheck", "Located", "ModelEntry", "find_config", "is_installed", "list_models",
    "load_encoder", "locate", "models_dir", "pull_model", "read_provenance", "refuse_changed",
    "remove_model", "resolve_device", "sha256_of", "stored_size", "verify_model",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of ``geoalign models list``."""

    name: str
    title: str
    installed: bool
    size_bytes: int
    """On the disk when installed, else of the download, about."""
    source: str
    licence: str
    family: str


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Result of checking one weights file."""

    path: Path
    expected_sha256: str
    found_sha256: str | None
    """None when the file is missing."""

    @property
    def ok(self) -> bool:
        """Whether the file is there and is the one expected."""
        return self.found_sha256 == self.expected_sha256


@dataclass(frozen=True, slots=True)
class Located:
    """A model that is on this machine."""

    config: ModelConfig
    folder: Path
    weights: str
    """Name of the weights file in the folder; empty for models of the embedded kind, which have several."""

    @property
    def packaged(self) -> bool:
        """Whether it is part of the package, whose description vouches for the weights."""
        return self.folder == WEIGHTS_DIR


def list_models() -> list[ModelEntry]:
    """Return the embedded models, then every published one by family, then others that were imported."""
    entries = []
    for path in sorted(CONFIG_DIR.glob("*.json")):
        config = ModelConfig.load(path)
        size = sum(item.size_bytes for item in config.files)
        there = all((WEIGHTS_DIR / item.name).exists() for item in config.files)
        entries.append(ModelEntry(config.name, config.title, there, size, config.source, config.licence, config.family))
    for family in families():
        for model in family.models:
            folder = models_dir() / model.name
            there = is_installed(model.name)
            size = size_of(folder) if there else model.size_mb * 1_000_000
            entries.append(ModelEntry(model.name, model.title, there, size, model.source, family.licence, family.name))
    return entries + _others({entry.name for entry in entries})


def _others(known: set[str]) -> list[ModelEntry]:
    """Return the models of the store that no family publishes."""
    found = []
    for path in sorted(models_dir().glob(f"*/{CONFIG_NAME}")):
        folder = path.parent
        if folder.name in known or not NAME.fullmatch(folder.name):
            continue
        try:
            config = ModelConfig.load(path)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            entry = ModelEntry(
                folder.name, f"damaged: {CONFIG_NAME} cannot be read", False, size_of(folder), "", "", ""
            )
        else:
            entry = ModelEntry(
                folder.name, config.title, is_installed(folder.name), size_of(folder), config.source, config.licence,
                config.family,
            )  # fmt: skip
        found.append(entry)
    return found


def locate(spec: str) -> Located:
    """Find a model that is on this machine by its name or its folder.

    Raises:
        ModelError: Nothing is known by that name, it is not on this machine, or the folder holds no model.
    """
    if NAME.fullmatch(spec):
        packaged = CONFIG_DIR / f"{spec}.json"
        if packaged.exists():
            return Located(ModelConfig.load(packaged), WEIGHTS_DIR, "")
        if (models_dir() / spec).is_dir():
            return _open_folder(models_dir() / spec)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return _open_folder(folder)
    if folder.is_file():
        raise ModelError("is a file, not a model folder", path=folder, remedy=f"run: geoalign models import {folder}")
    published = find_published(spec)
    if published and published[1].source == "none":
        raise not_published(*published)
    if published:
        pull = f"geoalign models pull {spec}{' --trust-pickle' if published[1].pickle else ''}"
        raise ModelError(f"model {spec} is not on this machine", remedy=f"run: {pull}")
    names = ", ".join(entry.name for entry in list_models() if entry.installed)
    raise ModelError(
        f"no model is called {spec!r}",
        remedy=f"choose one of {names}, see geoalign models list, or give a model folder",
    )


def _open_folder(folder: Path) -> Located:
    from geoalign_core.models.hubfolder import HUB_CONFIG, HUB_WEIGHTS, config_from_hub_folder

    path = folder / CONFIG_NAME
    if not path.is_file():
        if (folder / HUB_CONFIG).is_file():
            return Located(config_from_hub_folder(folder), folder, HUB_WEIGHTS)
        raise ModelError(
            "is neither a model folder of GeoAlign nor an open_clip model folder", path=folder,
            measured=f"{CONFIG_NAME} is missing, and {HUB_CONFIG} too", remedy="import or pull the model again",
        )  # fmt: skip
    try:
        config = ModelConfig.load(path)
        if config.family == "embedded":
            return Located(built_as_packaged(config), folder, "")
        if config.files:
            raise ValueError("only models of the embedded kind list their files")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            "is not a model's description", path=path, measured=str(error), remedy="import or pull the model again"
        ) from error
    return Located(config, folder, WEIGHTS_NAME)


def find_config(spec: str) -> ModelConfig:
    """Return a model's configuration by name or folder.

    Raises:
        ModelError: Nothing is known by that name.
    """
    return locate(spec).config


def read_provenance(found: Located) -> dict[str, Any] | None:
    """Return the record of where a model's files come from; None for the package, and for open_clip's layout.

    Raises:
        ModelError: There should be one, and it is missing or cannot be read.
    """
    if found.packaged or found.weights not in ("", WEIGHTS_NAME):
        return None
    path = found.folder / PROVENANCE_NAME
    if not path.is_file():
        raise _no_record(found)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not all(NAME.fullmatch(name) and isinstance(digest, str) for name, digest in record["sha256"].items()):
            raise ValueError("not a record of file names and hashes")
        own = {item.name: item.sha256 for item in found.config.files}
        if not {CONFIG_NAME, *([WEIGHTS_NAME] if found.weights else own)} <= set(record["sha256"]):
            raise ValueError(f"no hashes of {CONFIG_NAME} and the weights")
        if any(record["sha256"][name] != digest for name, digest in own.items()):
            raise ValueError(f"other hashes than in {CONFIG_NAME}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            "cannot be read", path=path, measured=str(error), remedy="import or pull the model again"
        ) from error
    return record


def verify_model(spec: str) -> list[FileCheck]:
    """Hash each of a model's files and lay the result beside what it should be.

    Raises:
        ModelError: The model is unknown, or is a folder with no recorded hashes.
    """
    found = locate(spec)
    checks = _checks(found)
    if not checks:
        raise _no_record(found)
    return checks


def _no_record(found: Located) -> ModelError:
    again = f"bring it in with: geoalign models import {found.folder}"
    if found.config.family == "embedded":
        again = f"copy the whole folder, or finish it with: geoalign-train align --out {found.folder}"
    return ModelError("has no record of what its files should be", path=found.folder, remedy=again)


def _checks(found: Located, *names: str) -> list[FileCheck]:
    """Hash those files, all that there are by default. A folder outside of the package cannot vouch for itself."""
    if not found.packaged:
        expected = (read_provenance(found) or {"sha256": {}})["sha256"]
    else:
        expected = {item.name: item.sha256 for item in found.config.files}
    paths = [(found.folder / name, digest) for name, digest in expected.items() if not names or name in names]
    return [FileCheck(path, digest, sha256_of(path) if path.is_file() else None) for path, digest in paths]


def resolve_device(device: str) -> str:
    """Turn ``auto``, ``cpu`` or ``cuda[:N]`` into a torch device that is there.

    Raises:
        DeviceError: The device is unknown or missing.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise DeviceError(f"no device is called {device!r}", remedy="use auto, cpu or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= count:
        raise DeviceError(f"{device} is not there", measured=f"{count} CUDA devices", remedy="use --device cpu")
    return device


def load_encoder(spec: str = DEFAULT_MODEL, *, device: str = "auto", options: EncoderOptions | None = None) -> Encoder:
    """Load a model by name or folder, after checking its files.

    Args:
        spec: A name of ``models list``, or a folder in the store's layout or open_clip's.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        options: How it is run; None takes the model's own choices.

    Raises:
        ModelError: The model is unknown, incomplete, damaged, or does not have what the options ask for.
        DeviceError: The device is not there.
    """
    options = options or EncoderOptions()
    found = locate(spec)
    torch_device = resolve_device(device)
    digest = _refuse_damaged(found)
    config = _with_options(found.config, options)
    if config.family == "embedded":
        from geoalign_core.models.embedded import EmbeddedEncoder

        return EmbeddedEncoder(config, found.folder, device=torch_device, options=options)
    from geoalign_core.models.clip_encoder import ClipEncoder

    return ClipEncoder(config, found.folder / found.weights, digest=digest, device=torch_device, options=options)


def _refuse_damaged(found: Located) -> str:
    """Check a model's files before anything of them is loaded; return the SHA-256 of the weights ("" embedded)."""
    weights = found.folder / found.weights
    if found.weights:
        from geoalign_core.models.describe import check_weights

        check_weights(found, read_provenance(found))
    hashed = refuse_changed(found)
    if not found.weights:
        return ""
    return hashed.get(weights) or sha256_of(weights)


def refuse_changed(found: Located, *names: str) -> dict[Path, str]:
    """Hash a model's files, or those that are named, and return the SHA-256 of each.

    Raises:
        ModelError: One is missing or is another one than was recorded.
    """
    checks = _checks(found, *names)
    for check in checks:
        if not check.ok:
            state = "missing" if check.found_sha256 is None else f"SHA-256 {check.found_sha256[:12]}…"
            raise ModelError(
                "is not the file that the model was published with", path=check.path, measured=state,
                remedy="install the package again, or import or pull the model again",
            )  # fmt: skip
    return {check.path: check.expected_sha256 for check in checks}


def _with_options(config: ModelConfig, options: EncoderOptions) -> ModelConfig:
    """Return the configuration with the user's dense mode, CLS bias and templates in it."""
    dense, prompts = config.dense, config.prompts
    if options.dense_mode is not None or options.cls_bias is not None:
        if config.family == "embedded":
            raise ModelError(
                f"{config.name} has one way to read patches", measured=f"dense mode {dense.mode}, no CLS bias",
                remedy="leave the dense mode and the CLS bias out, or choose a CLIP model",
            )  # fmt: skip
        from geoalign_core.models.dense import MODES

        mode = options.dense_mode or dense.mode
        if mode not in MODES:
            raise ModelError(f"no dense mode is called {mode!r}", remedy=f"choose one of {', '.join(MODES)}")
        bias = dense.cls_bias if options.cls_bias is None else options.cls_bias
        if not abs(bias) <= MAX_CLS_BIAS:  # nan is refused too
            raise ModelError(
                "the CLS bias is out of range", measured=f"{bias:g}",
                remedy=f"give a number from -{MAX_CLS_BIAS:g} to {MAX_CLS_BIAS:g}; SegEarth-OV takes -0.3",
            )  # fmt: skip
        dense = replace(dense, mode=mode, cls_bias=bias)
    if options.templates is not None:
        from geoalign_core.models.prompts import template_set

        prompts = replace(prompts, templates=template_set(options.templates))
    return replace(config, dense=dense, prompts=prompts)


def pull_model(name: str, *, from_folder: str | Path | None = None, trust_pickle: bool = False) -> Path:
    """Bring a published model onto this machine; calling it is the consent to the download.

    Args:
        name: A name of ``models list``.
        from_folder: Take the files from this folder instead of the hub (for machines without a network).
        trust_pickle: Whether a model published as a pickle may be read.

    Raises:
        ModelError: See :func:`geoalign_core.models.pull.pull`.
    """
    from geoalign_core.models.pull import pull

    return pull(name, from_folder=from_folder, trust_pickle=trust_pickle, consent=lambda _plan: True)
