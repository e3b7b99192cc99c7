"""Which models there are, where their files lie, whether they are whole, and how to get them.

The embedded model ships in the package. A model of the hub is fetched only when the user says ``models pull``;
asking never touches the network. A folder in open_clip's layout can be given by path instead of a name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoalign_core.errors import DeviceError, ModelError
from geoalign_core.models.config import CONFIG_DIR, ModelConfig
from tiling.files import atomic_file, atomic_folder, write_error

if TYPE_CHECKING:
    from geoalign_core.models.encoder import Encoder

DEFAULT_MODEL = "geoalign-s"
WEIGHTS_DIR = Path(__file__).parent / "weights"
_HUB_FILE = Path(__file__).parent / "hub.json"
_PROVENANCE = "provenance.json"
_HUB_FILES = ("open_clip_config.json", "open_clip_model.safetensors")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of ``geoalign models list``."""

    name: str
    title: str
    installed: bool
    size_bytes: int
    source: str
    licence: str


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


def models_dir() -> Path:
    """Return the folder of pulled models (``GEOALIGN_MODELS`` overrides the user data folder)."""
    import platformdirs

    override = os.environ.get("GEOALIGN_MODELS")
    return Path(override) if override else Path(platformdirs.user_data_dir("geoalign")) / "models"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _hub_entries() -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads(_HUB_FILE.read_text(encoding="utf-8"))
    return entries


def list_models() -> list[ModelEntry]:
    """Return the embedded models first, then those that can be pulled."""
    entries = []
    for path in sorted(CONFIG_DIR.glob("*.json")):
        config = ModelConfig.load(path)
        size = sum(item.size_bytes for item in config.files)
        there = all((WEIGHTS_DIR / item.name).exists() for item in config.files)
        entries.append(ModelEntry(config.name, config.title, there, size, config.source, config.licence))
    for hub in _hub_entries():
        there = (models_dir() / hub["name"] / _PROVENANCE).exists()
        size = int(float(hub["size_mb"]) * 1e6)
        entries.append(ModelEntry(hub["name"], hub["title"], there, size, f"hub: {hub['repo']}", hub["licence"]))
    return entries


def _locate(spec: str) -> tuple[ModelConfig, Path]:
    packaged = CONFIG_DIR / f"{spec}.json"
    if "/" not in spec and packaged.exists():
        return ModelConfig.load(packaged), WEIGHTS_DIR
    from geoalign_core.models.openclip import config_from_folder

    pulled = models_dir() / spec
    if "/" not in spec and (pulled / _PROVENANCE).exists():
        return config_from_folder(pulled), pulled
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return config_from_folder(folder), folder
    if folder.is_file():
        raise ModelError(
            "is a file, not a model folder", path=folder,
            remedy="give the folder that holds open_clip_config.json and open_clip_model.safetensors",
        )  # fmt: skip
    if any(hub["name"] == spec for hub in _hub_entries()):
        raise ModelError(f"model {spec} is not on this machine", remedy=f"run: geoalign models pull {spec}")
    names = ", ".join(entry.name for entry in list_models())
    raise ModelError(f"no model is called {spec!r}", remedy=f"choose one of {names}, or give a model folder")


def find_config(spec: str) -> ModelConfig:
    """Return a model's configuration by name or folder.

    Raises:
        ModelError: Nothing is known by that name.
    """
    return _locate(spec)[0]


def verify_model(spec: str) -> list[FileCheck]:
    """Hash each of a model's files and lay the result beside what it should be.

    Raises:
        ModelError: The model is unknown, or is a folder with no recorded hashes.
    """
    config, folder = _locate(spec)
    if config.files:
        expected = {item.name: item.sha256 for item in config.files}
    else:
        try:
            expected = json.loads((folder / _PROVENANCE).read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                "has no record of what its files should be", path=folder,
                remedy=f"bring it in with: geoalign models pull NAME --from {folder}",
            ) from error  # fmt: skip
    checks = []
    for name, digest in expected.items():
        path = folder / name
        checks.append(FileCheck(path, digest, sha256_of(path) if path.exists() else None))
    return checks


def pull_model(name: str, *, from_folder: str | Path | None = None) -> Path:
    """Bring a hub model onto this machine; the one call of the package that uses the network.

    Args:
        name: A name of ``models list``.
        from_folder: Take the files from this folder instead of the hub (for machines without a network).

    Returns:
        The model's folder.

    Raises:
        ModelError: The name is unknown, the hub cannot be reached, or the files are not a model.
    """
    hub = next((entry for entry in _hub_entries() if entry["name"] == name), None)
    if hub is None:
        if (CONFIG_DIR / f"{name}.json").exists():
            return WEIGHTS_DIR
        known = ", ".join(entry["name"] for entry in _hub_entries())
        raise ModelError(f"no model is called {name!r}", remedy=f"choose one of {known}")
    target = models_dir() / name
    if (target / _PROVENANCE).exists():
        return target
    with atomic_folder(models_dir(), prefix=f".{name}.") as folder:
        _collect(hub["repo"], folder, from_folder)
        from geoalign_core.models.openclip import config_from_folder

        config_from_folder(folder)
        hashes = {item: sha256_of(folder / item) for item in _HUB_FILES}
        record = {"source": str(from_folder or hub["repo"]), "licence": hub["licence"], "sha256": hashes}
        with atomic_file(folder / _PROVENANCE) as path:
            path.write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return target


def _collect(repo: str, folder: Path, from_folder: str | Path | None) -> None:
    for item in _HUB_FILES:
        if from_folder is not None:
            source = Path(from_folder) / item
            if not source.is_file():
                raise ModelError("is missing", path=source, remedy="give a folder that holds both files of the model")
            try:
                shutil.copyfile(source, folder / item)
            except OSError as error:
                raise write_error(folder / item, error) from error
            continue
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            hf_hub_download(repo, item, local_dir=folder)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ModelError(
                f"cannot fetch {item} of {repo}", measured=str(error).splitlines()[0],
                remedy="check the network, or download both files elsewhere and use --from FOLDER",
            ) from error  # fmt: skip


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


def load_encoder(spec: str = DEFAULT_MODEL, *, device: str = "auto") -> Encoder:
    """Load a model by name or folder, after checking its files.

    Args:
        spec: A name of ``models list`` or a folder in open_clip's layout.
        device: ``auto``, ``cpu`` or ``cuda:N``.

    Raises:
        ModelError: The model is unknown, incomplete or damaged.
        DeviceError: The device is not there.
    """
    config, folder = _locate(spec)
    torch_device = resolve_device(device)
    if config.files or (folder / _PROVENANCE).exists():
        for check in verify_model(spec):
            if not check.ok:
                state = "missing" if check.found_sha256 is None else f"SHA-256 {check.found_sha256[:12]}…"
                raise ModelError(
                    "is not the file that the model was published with", path=check.path, measured=state,
                    remedy="install the package again, or pull the model again",
                )  # fmt: skip
    if config.family == "embedded":
        from geoalign_core.models.embedded import EmbeddedEncoder

        return EmbeddedEncoder(config, folder, device=torch_device)
    from geoalign_core.models.openclip import WEIGHTS_NAME, OpenClipEncoder

    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ModelError(
            "has no weights", path=folder, measured=f"{WEIGHTS_NAME} is missing", remedy="complete the folder"
        )
    key = hashlib.sha256((repr(config) + sha256_of(weights)).encode()).hexdigest()
    return OpenClipEncoder(config, folder, key=key, device=torch_device)
