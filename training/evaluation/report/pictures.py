"""Pictures of the page: retrievals as cards, and scenes with their heatmap and boxes."""

from __future__ import annotations

import base64
import binascii
import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import GeoAlignError
from training.evaluation.report.marks import KINDS, marks
from training.evaluation.report.thumbs import thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MOST_CARDS = 16
MOST_PICTURES = 24
_SCENE_PX = 480
_MOST_BYTES = 4 << 20
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_SIGNS = re.compile(r"[A-Za-z0-9+/]*={0,2}")


@dataclass(frozen=True, slots=True)
class Album:
    """Where pictures that a result only names are found."""

    folder: Path
    """Of the result's file."""

    def image(self, picture: Mapping[str, Any], side: int) -> tuple[str, float, float]:
        """Return a picture as an address inside the page, and the original's width and height.

        Raises:
            GeoAlignError: A named file is missing or no picture.
        """
        if "path" in picture:
            picture = self._read(str(picture["path"]), side)
        width, height = float(picture["width"]), float(picture["height"])
        if not (0 < width < 1e7 and 0 < height < 1e7):
            raise ValueError("a picture's size")
        return f"data:image/jpeg;base64,{_checked(picture['jpeg'])}", width, height

    def _read(self, name: str, side: int) -> dict[str, Any]:
        from training.data.images import decode, read_bytes

        path = self.folder / name
        return thumbnail(decode(read_bytes(path.parent, path.name), name), side)

    def shown(self, picture: Mapping[str, Any], name: str, side: int = 240) -> str:
        """Return a picture's element, its name for those who cannot see it, or why it cannot be shown."""
        try:
            address, _, _ = self.image(picture, side)
        except GeoAlignError as error:
            return f"<span class=no>{html.escape(str(error))}</span>"
        return f'<img alt="{html.escape(name)}" src="{address}">'


def retrievals(items: Sequence[Mapping[str, Any]], album: Album) -> str:
    """Draw queries with what they found: what is right has a green rim."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in items:
        cards = groups.setdefault((str(item["group"]), str(item["direction"])), [])
        if len(cards) < MOST_CARDS:
            cards.append(_card(item, album))
    arrows = {"I2T": "image → text", "T2I": "text → image"}
    said = "A rank is 1 more than there are wrong candidates before the first right one; of equal texts one is shown."
    return f"<p class=no>{said}</p>" + "".join(
        f"<h4>{html.escape(group.capitalize())}, {html.escape(arrows.get(direction, direction))}</h4>"
        f"<div class=cards>{''.join(cards)}</div>"
        for (group, direction), cards in groups.items()
    )


def _card(item: Mapping[str, Any], album: Album) -> str:
    answers = "".join(
        f'<li class="{"right" if answer["right"] else "wrong"}">{_entry(answer, album)}'
        f"<small>{float(answer['score']):.3f}</small>"
        for answer in item["answers"]
    )
    rank, tied = int(item["rank"]), int(item.get("tied", 0))
    without = f" ({rank - tied:,} without the {tied:,} equal scores, which count against the model)" if tied else ""
    right = ""
    if item["right"] and not any(answer["right"] for answer in item["answers"]):
        found = "".join(f"<li class=right>{_entry(entry, album)}" for entry in item["right"][:2])
        right = f"<p class=no>right, at rank {rank:,}</p><ul class=answers>{found}</ul>"
    return (
        f"<div class=card><div class=query>{_entry(item['query'], album)}</div>"
        f"<p class=no>rank {rank:,}{without}; answers, the best first</p>"
        f"<ol class=answers>{answers}</ol>{right}</div>"
    )


def _entry(entry: Mapping[str, Any], album: Album) -> str:
    name = str(entry.get("name") or entry.get("text") or "a picture")
    picture = album.shown(entry["picture"], name) if "picture" in entry else ""
    return picture + (f"<span>{html.escape(str(entry['text']))}</span>" if entry.get("text") else "")


def scenes(items: Sequence[Mapping[str, Any]], album: Album) -> str:
    """Draw pictures with heatmap, boxes and points; pointing at one takes the heatmap away."""
    shown = "".join(_scene(item, album) for item in items[:MOST_PICTURES])
    more = f"<p class=no>{len(items) - MOST_PICTURES:,} more</p>" if len(items) > MOST_PICTURES else ""
    kinds = {str(mark["kind"]) for item in items for key in ("boxes", "points") for mark in item.get(key, ())}
    names = "".join(f"<span><i class={kind}></i>{name}</span>" for kind, name in KINDS.items() if kind in kinds)
    legend = f"<p class=legend>{names}</p>" if names else ""
    return f"{legend}<div class=scenes>{shown}</div>{more}"


def _scene(item: Mapping[str, Any], album: Album) -> str:
    title = html.escape(str(item["title"]))
    try:
        address, width, height = album.image(item["picture"], _SCENE_PX)
    except GeoAlignError as error:
        return f"<figure><figcaption>{title}</figcaption><p class=no>{html.escape(str(error))}</p></figure>"
    heat = f'<img class=heat alt="heatmap of {title}" src="{_heat(item["heat"])}">' if item.get("heat") else ""
    legend = "".join(
        f'<span><i style="background:{_colour(entry["colour"])}"></i>{html.escape(str(entry["name"]))}</span>'
        for entry in item.get("legend", ())
    )
    others = "".join(
        f"<figure><figcaption>{html.escape(str(other['title']))}</figcaption>"
        f"{album.shown(other['picture'], str(other['title']) + ' of ' + str(item['title']), _SCENE_PX)}</figure>"
        for other in item.get("others", ())
    )
    caption = f"<p>{html.escape(str(item['caption']))}</p>" if item.get("caption") else ""
    picture = f'<div class=scene><img alt="{title}" src="{address}">{heat}{marks(item, width, height)}</div>'
    body = f"<figure><figcaption>{title}</figcaption>{picture}</figure>{others}" if others else picture
    head = "" if others else f"<figcaption>{title}</figcaption>"
    wide = " class=wide" if others else ""
    group = f"<div class=others>{body}</div>" if others else body
    return f"<figure{wide}>{head}{group}{caption}" + (f"<p class=legend>{legend}</p>" if legend else "") + "</figure>"


def _colour(text: object) -> str:
    if not isinstance(text, str) or not _COLOUR.fullmatch(text):
        raise ValueError("a colour")
    return text


def _checked(text: object) -> str:
    """Return base64 that can be nothing else."""
    if not isinstance(text, str) or len(text) > _MOST_BYTES or not _SIGNS.fullmatch(text):
        raise ValueError("a picture that is not base64")
    return text


def _heat(text: object) -> str:
    """Return scores in the house's colours, transparent where there is no match."""
    from PIL import Image

    from geoalign_core.export.colors import heat_alpha, heat_rgb

    try:
        with Image.open(io.BytesIO(base64.b64decode(_checked(text), validate=True))) as image:
            if image.format != "PNG" or image.width * image.height > 1 << 22:
                raise ValueError("a heatmap of patches")
            scores = np.asarray(image.convert("L"), np.float32) / 255
    except (OSError, binascii.Error, SyntaxError) as error:
        raise ValueError("a heatmap that is no PNG") from error
    alpha = np.rint(np.asarray(heat_alpha(scores, 0.5), np.float32) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([heat_rgb(scores, 0.5), alpha])).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
