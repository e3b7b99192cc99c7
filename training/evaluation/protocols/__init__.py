"""Protocols as data: one JSON file per task, one entry per protocol, every number of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to measure a task."""

    id: str
    task: str
    title: str
    """One line for a person."""
    source: str
    """Paper and section, or code, that it follows."""
    numbers: Mapping[str, Any]
    """What a task reads: templates, sizes, thresholds."""


def _load() -> dict[str, Protocol]:
    found: dict[str, Protocol] = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        for key, item in json.loads(path.read_text(encoding="utf-8")).items():
            if key in found:
                raise ValueError(f"{path.name}: the protocol {key} is one of {found[key].task} already")
            found[key] = Protocol(key, path.stem, **item)
    return found


PROTOCOLS: dict[str, Protocol] = _load()
"""By id."""
