"""What a segmentation is asked to do: the classes, how masks are read and every number, from settings and protocol."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation import classlists as lists
from training.evaluation.catalogue import check_id, placed_id
from training.evaluation.classlists import SETS, ClassList, KnownSet
from training.evaluation.layouts.masks import MaskReader
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks import groundwork as ground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.evaluation.sliding import Sliding
    from training.evaluation.task import Job

_ANSWERS = ("no", "yes")
_PLAIN = KnownSet("", background=0, zero_is_unlabelled=False, mask_ending="", split="val")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is looked for and how."""

    known: KnownSet
    classes: ClassList
    reader: MaskReader
    how: Sliding


def plan_of(job: Job, protocol: str) -> Plan:
    """Return what a job asks for.

    Raises:
        DataError: The classes are not known, or a file of classes or colours is damaged.
        UsageError: A setting is out of range.
    """
    known = _set_of(job)
    own = job.settings.get("classes")
    if own is None and not known.id:
        raise DataError(
            "is no set with known classes", path=job.data, remedy="add -s set=NAME of a known set, or -s classes=FILE"
        )
    classes = lists.read_class_list(Path(own) if own else lists.list_file(known.id))
    numbers = PROTOCOLS[protocol].numbers
    table = Path(job.settings["colours"]) if "colours" in job.settings else None
    if table is None and not own:
        table = lists.colour_file(known.id)
    return Plan(
        known,
        classes,
        MaskReader(
            len(classes.names),
            int(_number(job, "ignore", numbers["ignore"], 0, 65535)),
            _yes(job, "zero_is_unlabelled", known.zero_is_unlabelled),
            None if table is None else lists.read_colours(table, classes),
            ground.choice(job, "unknown", ("refuse", "ignore")),
        ),
        _sliding(job, numbers, known, classes),
    )


def _set_of(job: Job) -> KnownSet:
    """Return the published set that the data is, or one without a name."""
    given = job.settings.get("set")
    if given is not None and given not in SETS:
        raise UsageError(f"no set is called {given!r}", remedy=f"use one of {', '.join(SETS)}")
    if given is None and "classes" in job.settings:
        return _PLAIN
    told = None if job.dataset is None else check_id(job.dataset, "segment")
    # Masks of one's own in a folder below a set's must not be read with its classes.
    return SETS.get(given or told or placed_id(job.data, "segment", above=0), _PLAIN)


def _sliding(job: Job, numbers: Mapping[str, Any], known: KnownSet, classes: ClassList) -> Sliding:
    from training.evaluation.sliding import UPSAMPLE, Sliding

    def whole(name: str, low: int) -> int:
        return int(_number(job, name, numbers[name], low, 1 << 15))

    window, stride = whole("window_px", 1), whole("stride_px", 1)
    if stride > window:
        raise UsageError(
            "windows leave gaps", measured=f"{window} px every {stride}", remedy="give a smaller stride_px"
        )
    return Sliding(
        side_px=whole("side_px", 0),
        antialias=_yes(job, "antialias", bool(numbers["antialias"])),
        window_px=window,
        stride_px=stride,
        scale=_number(job, "scale", numbers["scale"], 1e-6, 1e6),
        cls_bias=_number(job, "cls_bias", numbers["cls_bias"], -10, 10),
        threshold=_number(job, "threshold", numbers["thresholds"].get(known.id, 0.0), 0, 1),
        background=_background(job, known, classes),
        upsample=ground.choice(job, "upsample", UPSAMPLE, numbers["upsample"]),
        guided_radius_px=whole("guided_radius_px", 1),
        guided_epsilon=_number(job, "guided_epsilon", numbers["guided_epsilon"], 1e-8, 1e3),
    )


def _background(job: Job, known: KnownSet, classes: ClassList) -> int:
    given = job.settings.get("background")
    if given is None:
        return min(known.background, len(classes.names) - 1)
    if given in classes.names:
        return classes.names.index(given)
    if given.isascii() and given.isdigit() and int(given) < len(classes.names):
        return int(given)
    raise UsageError("background is no class", measured=given[:40], remedy="give its name or its place from 0")


def _number(job: Job, name: str, default: float, low: float, high: float) -> float:
    """Return a setting that is a number between two others.

    Raises:
        UsageError: It is not.
    """
    text = job.settings.get(name)
    try:
        value = float(default if text is None else text)
    except ValueError:
        value = math.nan
    whole = isinstance(low, int) and isinstance(default, int) and name.endswith(("_px", "ignore"))
    if not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{name} is {kind} from {low:g} to {high:g}", measured=str(text)[:40])
    return value


def _yes(job: Job, name: str, default: bool) -> bool:
    return default if name not in job.settings else ground.choice(job, name, _ANSWERS) == "yes"


def of_set(protocol: str, name: str) -> dict[str, Any]:
    """Return what a protocol says of a set's own numbers; of no known set what it says of any."""
    known = SETS.get(name, _PLAIN)
    return {
        "threshold": PROTOCOLS[protocol].numbers["thresholds"].get(name, 0.0), "background": known.background,
        "zero_is_unlabelled": known.zero_is_unlabelled,
    }  # fmt: skip


def not_published(plan: Plan, protocol: str) -> list[str]:
    """Return the names of the numbers that are not the protocol's."""
    own = {**asdict(plan.how), "zero_is_unlabelled": plan.reader.zero_is_unlabelled, "ignore": plan.reader.ignore}
    published = {**PROTOCOLS[protocol].numbers, **of_set(protocol, plan.known.id)}
    return sorted(name for name, value in own.items() if name in published and published[name] != value)
