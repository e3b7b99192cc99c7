"""What tells results apart: settings that are not the protocol's, and those in which results of one name differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from training.evaluation.protocols import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.evaluation.result import Result

DIGITS = 8
"""Of a key or checksum that stand in a name."""


def departures(result: Result) -> tuple[str, ...]:
    """Return by name what of a result is not as its protocol says: its numbers, templates, ties, or a limit."""
    protocol = PROTOCOLS.get(result.protocol)
    numbers = {} if protocol is None else protocol.numbers
    given = result.settings
    found = [
        name for name, value in numbers.items()
        if isinstance(value, (bool, int, float, str)) and name != "templates"
        and given.get(name) is not None and not _same(given[name], value)
    ]  # fmt: skip
    if "templates" in numbers and result.model is not None and result.model.templates:
        found += [] if result.model.templates == _sentences(numbers["templates"]) else ["templates"]
    found += ["ties"] if given.get("ties", "pessimistic") != "pessimistic" else []
    return (*found, "limit") if given.get("limit") is not None else tuple(found)


def told_apart(results: Sequence[Result]) -> list[str]:
    """Return each result's model and dense mode; where several share them, with all in which those differ."""
    names = [_name(result) for result in results]
    counts = Counter(names)
    told = []
    for name, result in zip(names, results, strict=True):
        traits = [_traits(other) for other, same in zip(results, names, strict=True) if same == name]
        mine = _traits(result)
        differing = [key for key in mine if len({trait.get(key) for trait in traits}) > 1]
        apart = [f"{key} {mine[key]}" for key in differing if mine[key]] if counts[name] > 1 else []
        told.append(", ".join([name, *apart]))
    return told


def _name(result: Result) -> str:
    if result.model is None:
        return "detections file"
    return result.model.name + (f" ({result.model.dense_mode})" if result.model.dense_mode else "")


def _traits(result: Result) -> dict[str, str]:
    """Return what decides figures, as short texts."""
    traits = {str(key): _short(value) for key, value in sorted(result.settings.items())}
    if result.model is not None:
        traits |= {
            "templates": _short(result.model.templates), "precision": result.model.precision,
            "model": result.model.key[:DIGITS],
        }  # fmt: skip
    return traits | {"data": result.dataset.digest[:DIGITS]}


def _short(value: Any) -> str:  # noqa: ANN401 - a value of JSON
    if isinstance(value, (list, tuple)):
        text, more = ", ".join(map(str, value[:2])), len(value) - 2
        return f"{text} and {more} more" if more > 0 else text
    return "" if value is None else str(value)[:60]


def _sentences(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a list, or the name of a set
    from geoalign_core.models.prompts import template_set

    return template_set(value) if isinstance(value, str) else tuple(value)


def _same(given: Any, value: Any) -> bool:  # noqa: ANN401 - values of JSON, or as typed on the command line
    try:
        return float(given) == float(value)
    except (TypeError, ValueError):
        return str(given) == str(value)
