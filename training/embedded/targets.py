"""What was asked of ``geoalign-s`` before it was trained, and whether its held-out figures reach that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_AIRCRAFT = "aircraft 0.5 m"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of the model card and the least that it should be."""

    title: str
    least: float
    find: Callable[[Mapping[str, Any]], float]
    decimals: int = 1


TARGETS = (
    Target("image → text, recall at 1 (%)", 14, lambda card: card["captions"]["image_to_text_recall_1_5_10"][0]),
    Target("text → image, recall at 1 (%)", 11, lambda card: card["captions"]["text_to_image_recall_1_5_10"][0]),
    Target("scene name among 30, top 1 (%)", 85, lambda card: card["captions"]["scene_name_top1"]),
    Target(
        "seven kinds of scene in other words, top 1 (%)", 70, lambda card: card["captions"]["seven_other_words_top1"]
    ),
    Target(
        "aircraft by *plane* as the program answers, average precision", 0.8,
        lambda card: card[f"{_AIRCRAFT}, as asked"]["plane"]["average_precision"], 3,
    ),
    Target(
        "aircraft by *plane* in single windows, average precision", 0.8,
        lambda card: card[_AIRCRAFT]["plane"]["average_precision"], 3,
    ),
    Target(
        "aircraft by *plane* in single windows, scenes whose best patch is on one (%)", 90,
        lambda card: 100 * card[_AIRCRAFT]["plane"]["pointing_hits"] / card[_AIRCRAFT]["plane"]["pointing_scenes"],
    ),
)  # fmt: skip


def measured(figures: Mapping[str, Any]) -> Iterator[tuple[Target, float]]:
    """Yield the targets with their figures; a card that was written before one was measured has it not."""
    for target in TARGETS:
        try:
            yield target, target.find(figures)
        except KeyError:
            continue


def render_targets(figures: Mapping[str, Any]) -> list[str]:
    """Return lines of Markdown: the targets that were missed in a sentence, then all of them as a table."""
    rows = [(target, value, value >= target.least) for target, value in measured(figures)]
    missed = [
        f"{target.title}: {value:.{target.decimals}f}, wanted {target.least:g}"
        for target, value, met in rows if not met
    ]  # fmt: skip
    told = f"Missed: {'; '.join(missed)}." if missed else "None was missed."
    lines = [f"Targets were set before the training. **{told}**", ""]
    lines += ["| target | wanted | measured | |", "|---|---|---|---|"]
    return lines + [
        f"| {target.title} | ≥ {target.least:g} | {value:.{target.decimals}f} | {'met' if met else '**missed**'} |"
        for target, value, met in rows
    ]
