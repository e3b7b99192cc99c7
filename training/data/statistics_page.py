"""The statistics of a data set as one HTML page with pictures; it needs no other file and no network."""

from __future__ import annotations

import base64
import html
import io
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.files import atomic_file, write_error
from tiling.progress import silent
from training.data.errors import DataError
from training.data.plots import bars, density, histogram
from training.data.statistics import TEXTS, Statistics, quartiles, statistics

if TYPE_CHECKING:
    from collections import Counter

    from tiling.progress import Progress
    from training.data.dataset import RsfgDataset
    from training.data.schema import Record, Region

__all__ = ["Statistics", "statistics", "write_report"]

_SIDE_PX = 420
_MOST_BOXES = 40
_COLOURS = ("#ffd23f", "#3bceac", "#ff6f91", "#7aa5ff", "#ff9f43", "#c0f060")
_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
.plots, .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1.2rem; }
figure, .card { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .7rem; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg, .card img { width: 100%; height: auto; display: block; }
.card p { margin: .5rem 0 0; overflow-wrap: anywhere; } .card ul { margin: .4rem 0 0; padding-left: 1.1rem; }
.card li { overflow-wrap: anywhere; } .card small { opacity: .75; overflow-wrap: anywhere; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .35em; }
.no { opacity: .75; } code { background: var(--soft); padding: 0 .25em; border-radius: 4px; }
"""


def write_report(
    stats: Statistics,
    dataset: RsfgDataset,
    path: str | Path,
    *,
    pictures: int = 12,
    seed: int = 0,
    overwrite: bool = True,
    progress: Progress = silent,
) -> Path:
    """Write the page.

    Args:
        stats: Of this data set, from :func:`training.data.statistics.statistics`.
        dataset: Where the pictures come from.
        path: The page's file.
        pictures: Records that are shown with their boxes and texts, drawn at random; those with regions come first.
        seed: Decides which.
        overwrite: Whether a page that is there may be replaced.
        progress: Told after each picture.

    Raises:
        OutputExistsError: The page is there and ``overwrite`` is false.
        OutputWriteError: The disk is full or refuses.
    """
    target = Path(path)
    cards = _cards(dataset, pictures, seed, progress)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Data set: {stats.records:,} records</title><style>{_STYLE}</style>",
        f"<h1>{stats.records:,} images, {stats.texts:,} texts, {stats.regions:,} regions</h1>",
        _summary(stats), "<h2>Distributions</h2><div class=plots>", *_plots(stats), "</div>",
        "<h2>Examples</h2><div class=cards>", *cards, "</div></html>\n",
    ]  # fmt: skip
    with atomic_file(target, overwrite=overwrite) as temporary:
        try:
            temporary.write_text("".join(parts), encoding="utf-8")
        except OSError as error:
            raise write_error(target, error) from error
    return target


def _summary(stats: Statistics) -> str:
    rows = [(f"{kind}s, {stats.unit}", stats.lengths[kind]) for kind in TEXTS if stats.lengths[kind]]
    rows.append(("regions per image", stats.regions_per_image))
    if stats.box_sides:
        rows.append(("box side, % of the image", stats.box_sides))
    if stats.box_sides_px:
        rows.append(("box side, pixels", stats.box_sides_px))
    if stats.rules:
        rows.append(("hard negatives per region", stats.negatives_per_region))
    names = ("count", "mean", "min", "q1", "median", "q3", "max")
    body = "".join(
        f"<tr><td>{html.escape(title)}" + "".join(f"<td>{_number(marks.get(name))}" for name in names)
        for title, marks in ((title, quartiles(counts)) for title, counts in rows)
    )
    notes = [f"{stats.oriented:,} boxes are oriented."] if stats.oriented else []
    notes += [f"{stats.ambiguous:,} phrases are those of several regions of their picture."] if stats.ambiguous else []
    if stats.unreadable:
        notes.append(f"{stats.unreadable:,} records could not be read.")
    notes.append(f"Digest <code>{stats.digest[:16]}</code>.")
    head = "".join(f"<th>{name}" for name in ("", *names))
    return f"<table><tr>{head}{body}</table><p>{' '.join(notes)}</p>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _plots(stats: Statistics) -> list[str]:
    figures: list[tuple[str, str]] = []
    for kind in TEXTS:
        if stats.lengths[kind]:
            figures.append((f"{kind}s".capitalize(), histogram(stats.lengths[kind], stats.unit)))
    if stats.regions:
        figures.append(("Regions per image", histogram(stats.regions_per_image, "regions")))
        figures.append(("Box side (square root of the area)", histogram(stats.box_sides, "% of the image's side")))
        if stats.box_sides_px:
            figures.append(("Box side in pixels", histogram(stats.box_sides_px, "pixels")))
        figures.append(("Where boxes have their centres", density(stats.centres)))
    named: tuple[tuple[str, Counter[str]], ...] = (
        ("Categories", stats.categories), ("Scene classes", stats.labels), ("Hard negatives by rule", stats.rules),
        ("Sources", stats.sources), ("Splits", stats.splits),
    )  # fmt: skip
    figures += [(title, bars(counts)) for title, counts in named if set(counts) - {"not told"}]
    return [f"<figure><figcaption>{html.escape(title)}</figcaption>{drawing}</figure>" for title, drawing in figures]


def _cards(dataset: RsfgDataset, pictures: int, seed: int, progress: Progress) -> list[str]:
    """Return the examples; a picture that cannot be read is told in its card."""
    chosen = _chosen(dataset, pictures, random.Random(seed))
    cards = []
    for done, index in enumerate(chosen, start=1):
        record = dataset[index]
        try:
            drawing = f'<img alt="" src="data:image/jpeg;base64,{_picture(dataset, index, record)}">'
        except DataError as error:
            drawing = f"<p class=no>{html.escape(str(error))}</p>"
        cards.append(f"<div class=card>{drawing}{_texts(record)}</div>")
        progress(done, len(chosen), "drawing examples")
    return cards


def _chosen(dataset: RsfgDataset, pictures: int, draw: random.Random) -> list[int]:
    """Return records at random, those with regions and hard negatives first, then in the order of the data set."""
    rated = []
    for index in draw.sample(range(len(dataset)), min(len(dataset), 20 * pictures)):
        try:
            regions = dataset[index].regions
        except DataError:
            continue
        rated.append((-min(len(regions), 1) - any(region.hard_negatives for region in regions), index))
    return sorted(index for _, index in sorted(rated, key=lambda item: item[0])[:pictures])


def _picture(dataset: RsfgDataset, index: int, record: Record) -> str:
    from PIL import Image, ImageDraw

    image = Image.fromarray(dataset.image(index))
    scale = _SIDE_PX / max(image.size)
    image = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
    draw = ImageDraw.Draw(image)
    for number, region in enumerate(record.regions[:_MOST_BOXES]):
        colour = _COLOURS[number % len(_COLOURS)]
        outline = _corners(region, image.width, image.height)
        draw.line(outline, fill="#000", width=4)  # a dark rim, so that the box shows on bright ground
        draw.line(outline, fill=colour, width=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode()


def _corners(region: Region, width: int, height: int) -> list[tuple[float, float]]:
    left, top, right, bottom = region.bbox
    flat: Any = region.obb or (left, top, right, top, right, bottom, left, bottom)
    ring = [(x * (width - 1), y * (height - 1)) for x, y in zip(flat[::2], flat[1::2], strict=True)]
    return [*ring, ring[0]]


def _texts(record: Record) -> str:
    parts = [f"<p>{html.escape(text)}</p>" for text in (record.brief_caption, record.detailed_caption) if text]
    parts += [f"<p class=no>{html.escape(text)}</p>" for text in record.captions[:4]]
    items = []
    for number, region in enumerate(record.regions[:6]):
        text = region.phrase or region.description or region.category or "no text"
        dot = f'<span class=dot style="background:{_COLOURS[number % len(_COLOURS)]}"></span>'
        negatives = "".join(
            f"<br><span class=no>≠ {html.escape(item.text)} ({item.rule})</span>" for item in region.hard_negatives[:3]
        )
        items.append(f"<li>{dot}{html.escape(text)}{negatives}")
    if len(record.regions) > 6:
        items.append(f"<li class=no>and {len(record.regions) - 6} more")
    facts = " · ".join(html.escape(fact) for fact in (record.image, record.source, record.split, record.label) if fact)
    return "".join(parts) + (f"<ul>{''.join(items)}</ul>" if items else "") + f"<small>{facts}</small>"
