"""The tables of the model card, made of results of ``geoalign-eval`` and written between two marks."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from tiling.errors import GeoAlignError
from tiling.files import atomic_file
from training.embedded.data import PROTOCOL
from training.embedded.held_out import CALIBRATION, CAPTIONS, NAMES, OTHER_WORDS, PATCHES, QUESTIONS, suite
from training.embedded.targets import render_targets
from training.evaluation.result import read_result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from training.evaluation.result import Result

BEGIN, END = "<!-- figures: written by geoalign-train card -->", "<!-- end of figures -->"
SCENES = {
    "scene_name_top1": "scene name among 30, top 1 (%)",
    "seven_other_words_top1": "seven kinds of scene in other words, top 1 (%)",
    "twenty_other_words_top1": "twenty scenes in other words, top 1 (%)",
}
"""Figures of whole scenes; a card that was written before one of them was measured has it not."""
_MEASURED = {"scene_name_top1": NAMES, **dict(zip(list(SCENES)[1:], OTHER_WORDS, strict=True))}
_HERE = "HELD_OUT"
_DENSE_COLUMNS = (
    "patches", "word", "average precision", "without rims", "base rate", "ROC AUC", "pointing", "F1 at 0.5",
    "best F1 (at)", "measured by",
)  # fmt: skip
_DENSE_KEYS = ("average_precision", "average_precision_without_rims", "base_rate", "roc_auc")
_SCENE_COLUMNS = ("question to whole scenes", "ROC AUC", "F1 at 0.5", "best F1 (at)", "images", "measured by")
_KEPT = (
    "average_precision", "average_precision_without_rims", "roc_auc", "base_rate", "pointing_hits", "pointing_scenes",
    "f1_at_half", "f1_best", "best_threshold", "precision_at_half", "recall_at_half",
)  # fmt: skip
_ERRORS = {
    "ECE": "expected calibration error, 15 bins of equal mass",
    "ECE of what is shown": "the same of places from 0.35 on",
    "Brier": "Brier score",
}  # fmt: skip
"""Metrics of ``calibrate`` that have a before and an after."""
_JSON_OPEN, _JSON_CLOSE = "```json\n", "\n```"


class CardError(GeoAlignError):
    """The model card has no place for the figures."""


def read_figures(folder: Path) -> dict[str, Any]:
    """Return the card's figures from the results of its suite in a folder.

    Raises:
        DataError: A result is missing or damaged.
        CardError: They are of several models.
    """
    results = {item["name"]: read_result(folder / f"{item['name']}.json") for item in suite()["measurements"]}
    models = {(item.model.name, item.model.key) for item in results.values() if item.model is not None}
    if len(models) != 1:
        raise CardError("holds results of several models", path=folder, remedy="measure again")
    (name, key), rows = models.pop(), {}
    for measurement, title in PATCHES.items():
        rows[title] = {item["word"]: {name: item[name] for name in _KEPT} for item in _questions(results[measurement])}
    scenes = {item.pop("word"): item for item in map(dict, _questions(results[QUESTIONS]))}
    reliability = results[CALIBRATION]
    return {
        "protocol": PROTOCOL, "model": name, "key": key, "captions": _captions(results), "scenes": scenes, **rows,
        CALIBRATION: {
            "images": reliability.dataset.counts["images"],
            "method": reliability.details["calibration"]["method"],
            **{name: metric.value for name, metric in reliability.metrics.items()},
        },
    }  # fmt: skip


def _questions(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result.details["questions"]
    return found


def _captions(results: Mapping[str, Result]) -> dict[str, Any]:
    found = results[CAPTIONS]
    figures = {
        f"{way}_recall_1_5_10": [found.metrics[f"{short}_r@{k}"].value for k in (1, 5, 10)]
        for way, short in (("image_to_text", "i2t"), ("text_to_image", "t2i"))
    }
    counts = found.dataset.counts
    return {
        "images": counts["images"], "distinct_captions": counts["unique_texts"], **figures,
        "scene_classes": results[NAMES].dataset.counts["classes"],
        **{key: results[name].metrics["top1"].value for key, name in _MEASURED.items()},
    }  # fmt: skip


def render_figures(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown tables; every row names the task and protocol that measured it."""
    captions, by = figures["captions"], _measured_by()
    both = ("image → text", "image_to_text"), ("text → image", "text_to_image")
    lines = [
        f"Protocol `{figures['protocol']}`, model key `{figures['key'][:16]}…`.", "",
        *render_targets(figures), "",
        f"| captions and scenes, {captions['images']} held-out images | | measured by |", "|---|---|---|",
    ]  # fmt: skip
    for title, way in both:
        shares = " / ".join(_fixed(value, 1) for value in captions[f"{way}_recall_1_5_10"])
        lines.append(f"| {title}, recall at 1 / 5 / 10 (%) | {shares} | {by[CAPTIONS]} |")
    for key, title in SCENES.items():
        if key in captions:
            lines.append(f"| {title} | {_fixed(captions[key], 1)} | {by[_MEASURED[key]]} |")
    lines += ["", f"| {' | '.join(_DENSE_COLUMNS)} |", "|" + "---|" * len(_DENSE_COLUMNS)]
    for name, title in PATCHES.items():
        for word, item in figures.get(title, {}).items():
            cells = [
                title, word, *(_fixed(item[key], 3) for key in _DENSE_KEYS),
                f"{item['pointing_hits']} of {item['pointing_scenes']}", *_f1(item), by[name],
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| {' | '.join(_SCENE_COLUMNS)} |", "|" + "---|" * len(_SCENE_COLUMNS)]
    for word, item in figures["scenes"].items():
        cells = [word, _fixed(item["roc_auc"], 3), *_f1(item), str(item["positives"]), by[QUESTIONS]]
        lines.append(f"| {' | '.join(cells)} |")
    known = figures[CALIBRATION]
    title = f"score read as precision, {known['images']} pictures, {known['base rate']:.1%} of the places right"
    lines += ["", f"| {title} | score | calibrated ({known['method']}) | measured by |", "|---|---|---|---|"]
    for name, text in _ERRORS.items():
        pair = (_fixed(known[f"{name} {when}"], 3) for when in ("before", "after"))
        lines.append(f"| {text} | {' | '.join(pair)} | {by[CALIBRATION]} |")
    return "\n".join([*lines, "", *_repeat(figures["model"])])


def _measured_by() -> dict[str, str]:
    """Return task and protocol by measurement."""
    return {item["name"]: f"{item['task']}, {item['protocol']}" for item in suite()["measurements"]}


def _repeat(model: str) -> Iterator[str]:
    """Yield the commands behind the tables: all rows at once, and each measurement for itself."""
    yield from ("All rows, and below each measurement for itself:", "", "```")
    yield f"geoalign-train held-out --data FOLDER -o {_HERE}"
    yield f"geoalign-eval suite {_HERE}/suite.json --model {model} -o RESULTS"
    for item in suite()["measurements"]:
        words = ["geoalign-eval", item["task"], "--model", model, "--data", f"{_HERE}/{item['data']}"]
        words += ["--protocol", item["protocol"]]
        for name, value in item.get("settings", {}).items():
            words += ["-s", f"{name}={_HERE}/{value['file']}" if isinstance(value, dict) else f"{name}={value}"]
        yield shlex.join(words)
    yield "```"


def _fixed(value: float | None, decimals: int) -> str:
    """Return a figure; one that the data has nothing for is a dash."""
    return "–" if value is None else f"{value:.{decimals}f}"


def _f1(item: Mapping[str, Any]) -> tuple[str, str]:
    return _fixed(item["f1_at_half"], 2), f"{_fixed(item['f1_best'], 2)} ({_fixed(item['best_threshold'], 2)})"


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
