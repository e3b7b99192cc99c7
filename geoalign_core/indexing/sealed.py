"""JSON files that notice when they are altered: an object with a hash over itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tiling.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

_SEAL = "sha256"


def hash_of(body: dict[str, Any]) -> str:
    """Return the SHA-256 of an object's canonical JSON text."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(body: dict[str, Any]) -> bytes:
    """Return the file's bytes: the object and its hash."""
    return json.dumps({**body, _SEAL: hash_of(body)}, indent=1).encode()


def unseal(data: bytes) -> dict[str, Any]:
    """Return the object without its hash.

    Raises:
        ValueError: The bytes were altered, or are no such file.
    """
    body = json.loads(data)
    if not isinstance(body, dict) or body.pop(_SEAL, None) != hash_of(body):
        raise ValueError("the file was altered")
    return body


def write_sealed(path: Path, body: dict[str, Any]) -> None:
    """Write a sealed file atomically, in place of an older one.

    Raises:
        OutputWriteError: The disk refuses.
    """
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_bytes(seal(body))
