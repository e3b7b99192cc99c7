"""Captions of a whole image by rules: from its scene class, the counts and places of its boxes, and its colours.

Human captions come first: the shortest becomes the brief caption, all of them together open the detailed one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from training.builder.appearance import appearance, colours_in_words
from training.builder.describe import describe_regions, noun_of, place
from training.builder.geometry import position_words
from training.builder.steps import Noted, Step, record_rng
from training.builder.wording import RULES, counted, listed, may_write, one, plural, sentence, signed, spoken
from training.data.fingerprints import reduced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.builder.steps import Picture
    from training.data.schema import Record

_OPENINGS = ("an aerial image of {}", "an aerial view of {}", "{} seen from above", "an overhead image of {}")
_LINKS = ("with", "showing", "containing")
_MOST_KINDS = 4
_MANY_CELLS = 5
_SIDES = ("upper", "lower", "left", "right")


def counts_of(record: Record) -> list[tuple[str, int]]:
    """Return what the boxes show and how often, most frequent first."""
    counts = Counter(noun_of(region) for region in record.regions if region.category)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def brief_caption(record: Record, seed: int) -> str | None:
    """Return one sentence, or None when neither a class nor a box says what is there."""
    if record.captions:
        return sentence(min(record.captions, key=lambda text: (len(text.split()), text)))
    rng = record_rng(record, seed, "brief")
    things = listed([counted(count, noun) for noun, count in counts_of(record)[:_MOST_KINDS]])
    scene = one(spoken(record.label)) if record.label else None
    if not scene and not things:
        return None
    opening = _OPENINGS[int(rng.integers(len(_OPENINGS)))].format(scene or things)
    link = _LINKS[int(rng.integers(len(_LINKS)))]
    return sentence(f"{opening} {link} {things}" if scene and things else opening)


def detailed_caption(record: Record, image: NDArray[np.uint8] | None) -> str | None:
    """Return several sentences, or None when there is nothing to say but colours."""
    things = counts_of(record)
    own = record.extra.get("written_by", {}).get("brief_caption") != RULES
    texts = [*([record.brief_caption] if own and record.brief_caption else []), *record.captions]
    parts = list(dict.fromkeys(sentence(text) for text in texts))
    if not parts and record.label:
        parts.append(f"This aerial image shows {one(spoken(record.label))}")
    if things:
        opening = "The image contains" if parts else "This aerial image contains"
        parts.append(f"{opening} {listed([counted(count, noun) for noun, count in things[: 2 * _MOST_KINDS]])}")
    if not parts:
        return None
    parts += [text for noun, _ in things[:_MOST_KINDS] if (text := _spread(record, noun))]
    if len(record.regions) > 1:
        largest = max(record.regions, key=lambda r: (r.bbox[2] - r.bbox[0]) * (r.bbox[3] - r.bbox[1]))
        if largest.category:
            parts.append(f"The largest marked object is {one(noun_of(largest))} {place(largest)}")
    if image is not None and (look := appearance(reduced(image, 256))):
        parts.append(f"The colors of the image are mainly {colours_in_words(look)}" if look.colours else "")
    return " ".join(sentence(part) for part in parts if part)


def _spread(record: Record, noun: str) -> str | None:
    """Say where the boxes of one kind lie, if that can be said of all of them."""
    regions = [region for region in record.regions if region.category and noun_of(region) == noun]
    cells = {position_words(region.bbox) for region in regions}
    if len(regions) == 1:
        return f"The {noun} lies {place(regions[0])}"
    if len(cells) == 1:
        return f"All {plural(noun)} lie {place(regions[0])}"
    for word in _SIDES:
        if all(word in cell for cell in cells):
            return f"All {plural(noun)} lie in the {word} part of the image"
    everywhere = all(any(word in cell for cell in cells) for word in _SIDES)
    return f"The {plural(noun)} are spread over the image" if everywhere and len(cells) >= _MANY_CELLS else None


def write_captions(
    record: Record, image: NDArray[np.uint8] | None, *, seed: int = 0, overwrite: bool = False
) -> Record:  # fmt: skip
    """Return the record with the captions that it lacks.

    Args:
        record: What is known.
        image: Its pixels (H, W, 3); without them nothing is said of colours.
        seed: Of the choice of words.
        overwrite: Whether texts of people and of models are replaced too.
    """
    texts = {"brief_caption": brief_caption(record, seed), "detailed_caption": detailed_caption(record, image)}
    chosen: dict[str, Any] = {
        key: text for key, text in texts.items()
        if text and may_write(record, key, author=RULES, overwrite=overwrite)
    }  # fmt: skip
    return replace(record, **chosen, extra=signed(record, list(chosen), RULES)) if chosen else record


def caption_step(*, seed: int = 0, overwrite: bool = False) -> Step:
    """Return the step that writes captions and region texts by rules."""

    def apply(record: Record, picture: Picture) -> Noted:
        image = picture.pixels
        written = write_captions(record, image, seed=seed, overwrite=overwrite)
        described = describe_regions(written, image, overwrite=overwrite)
        keys = ("phrase", "description")
        pairs = list(zip(record.regions, described.regions, strict=True))
        counts = {f"{key}s written": sum(getattr(a, key) != getattr(b, key) for a, b in pairs) for key in keys}
        for key in ("brief_caption", "detailed_caption"):
            counts[f"{key.replace('_', ' ')}s written"] = int(getattr(record, key) != getattr(described, key))
        counts["images without any caption"] = int(not described.brief_caption)
        return Noted(described, counts)

    return Step(name="caption", settings={"by": RULES, "seed": seed, "overwrite": overwrite}, apply=apply)
