"""What tells results apart: settings that are not the protocol's, and those in which results of one name differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from geoalign_core.models.families import find_published
from training.evaluation.catalogue import dataset_id
from training.evaluation.layouts.captions import MULTI, TITLE, of_satellites
from training.evaluation.layouts.regions import plain
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.registry import TITLES, find_task
from training.evaluation.segment_plan import of_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.evaluation.result import Result

DIGITS = 8
"""Of a key or checksum that stand in a name."""
_UNSAID = object()
"""What a protocol says of a setting that it does not name: any value departs."""


def departures(result: Result) -> tuple[str, ...]:
    """Return by name what of a result is not as its protocol says, in alphabetical order.

    Every setting counts that the task does not declare to be of the place (``Task.place``): a value that is not the
    protocol's own departs, and so does any value of a setting that the protocol does not name. So do a limit,
    templates, and the way in which the model makes patches, where the protocol or else the model's family fixes it.
    """
    own, given, model = _own(result), dict(result.settings), result.model
    place = find_task(result.task).place if result.task in TITLES else frozenset()
    if model is not None and model.dense_mode and "dense_mode" in own:
        given["dense_mode"] = model.dense_mode
    found = {
        name for name, value in given.items()
        if value is not None and name not in {"split", "templates", *place} and not _same(value, own.get(name, _UNSAID))
    }  # fmt: skip
    if model is not None and model.templates and "templates" in own:
        found |= {"templates"} if model.templates != _sentences(own["templates"]) else set()
    return tuple(sorted(found))


def _own(result: Result) -> dict[str, Any]:
    """Return the protocol's value of every setting that it names, for the data set and the model of a result."""
    protocol = PROTOCOLS.get(result.protocol)
    if protocol is None:
        return {}
    own, dataset = dict(protocol.numbers), dataset_id(result.dataset.known_as)
    published = None if result.model is None else find_published(result.model.name)
    if published is not None:
        own.setdefault("dense_mode", published[0].dense_mode)
    if protocol.task == "segment":
        own |= of_set(protocol.id, dataset)
    elif protocol.task == "retrieval":
        own |= {"column": TITLE} if of_satellites(dataset) else {"column": MULTI, "prefix": ""}
    elif protocol.task == "detect":
        own["novel"] = _novel(own["novel"]["dior"] if dataset == "dior-ovd" else None, result.settings.get("novel"))
    return own


def _novel(known: Sequence[str] | None, given: object) -> object:
    """Return the novel classes as they were given where they are right; where none are printed any are."""
    named = {plain(str(name)) for name in given} if isinstance(given, (list, tuple)) else set[str]()
    return given if known is None or named == {plain(name) for name in known} else known


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
    mode = None if result.model is None else result.model.dense_mode
    return result.subject + (f" ({mode})" if mode else "")


def _traits(result: Result) -> dict[str, str]:
    """Return what decides figures, as short texts."""
    traits = {str(key): _short(value) for key, value in sorted(result.settings.items())}
    if result.model is not None:
        traits |= {
            "templates": _short(result.model.templates), "precision": result.model.precision,
            "model": result.model.key[:DIGITS],
        }  # fmt: skip
    traits |= {f"{name} file": digest[:DIGITS] for name, digest in result.files.items()}
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
