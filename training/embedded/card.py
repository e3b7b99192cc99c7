"""The tables of the model card, written from figures between two marks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tiling.errors import GeoAlignError
from tiling.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- figures: written by geoalign-train card -->", "<!-- end of figures -->"
SCENES = {
    "scene_name_top1": "scene name among 30, top 1 (%)",
    "seven_other_words_top1": "seven kinds of scene in other words, top 1 (%)",
    "twenty_other_words_top1": "twenty scenes in other words, top 1 (%)",
}
"""Figures of whole scenes; a card that was written before one of them was measured has it not."""
_DENSE_COLUMNS = (
    "patches", "word", "average precision", "without rims", "base rate", "ROC AUC", "pointing", "F1 at 0.5",
    "best F1 (at)",
)  # fmt: skip
_JSON_OPEN, _JSON_CLOSE = "```json\n", "\n```"


class CardError(GeoAlignError):
    """The model card has no place for the figures."""


def render_figures(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown tables."""
    captions = figures["captions"]
    lines = [
        f"Protocol `{figures['protocol']}`, model key `{figures['key'][:16]}…`.", "",
        f"| captions and scenes, {captions['images']} held-out images | |", "|---|---|",
        f"| image → text, recall at 1 / 5 / 10 (%) | {_three(captions['image_to_text_recall_1_5_10'])} |",
        f"| text → image, recall at 1 / 5 / 10 (%) | {_three(captions['text_to_image_recall_1_5_10'])} |",
        *(f"| {title} | {captions[key]:.1f} |" for key, title in SCENES.items() if key in captions), "",
        f"| {' | '.join(_DENSE_COLUMNS)} |", "|" + "---|" * len(_DENSE_COLUMNS),
    ]  # fmt: skip
    for name, words in figures.items():
        if name in ("captions", "scenes") or not isinstance(words, dict):
            continue
        for word, item in words.items():
            lines.append(
                f"| {name} | {word} | {item['average_precision']:.3f} | "
                f"{item['average_precision_without_rims']:.3f} | {item['base_rate']:.3f} | "
                f"{item['roc_auc']:.3f} | {item['pointing_hits']} of {item['pointing_scenes']} | "
                f"{item['f1_at_half']:.2f} | {item['f1_best']:.2f} ({item['best_threshold']:.2f}) |"
            )
    lines += ["", "| question to whole scenes | ROC AUC | F1 at 0.5 | best F1 (at) | images |", "|---|---|---|---|---|"]
    for word, item in figures["scenes"].items():
        lines.append(
            f"| {word} | {item['roc_auc']:.3f} | {item['f1_at_half']:.2f} | "
            f"{item['f1_best']:.2f} ({item['best_threshold']:.2f}) | {item['positives']} |"
        )
    return "\n".join(lines)


def _three(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def update_card(card: Path, figures: dict[str, Any]) -> None:
    """Replace what stands between the marks by tables and the figures in JSON.

    Raises:
        CardError: The card is missing or has no marks.
    """
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    head, found, rest = text.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not found or not closed:
        raise CardError("has no place for figures", path=card, remedy=f"add the lines {BEGIN} and {END}")
    block = f"{render_figures(figures)}\n\n<details><summary>As JSON</summary>\n\n{_JSON_OPEN}"
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in _rounded(figures).items()]
    block += "{\n" + ",\n".join(lines) + "\n}" + _JSON_CLOSE + "\n\n</details>"
    with atomic_file(card, overwrite=True) as path:
        path.write_text(f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}", encoding="utf-8")


def read_card(card: Path) -> dict[str, Any]:
    """Return the figures that a card carries.

    Raises:
        CardError: It carries none.
    """
    _, found, rest = card.read_text(encoding="utf-8").partition(_JSON_OPEN)
    if not found:
        raise CardError("carries no figures", path=card, remedy="run geoalign-train card")
    figures: dict[str, Any] = json.loads(rest.partition(_JSON_CLOSE)[0])
    return figures


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
