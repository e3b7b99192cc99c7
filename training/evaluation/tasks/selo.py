"""Semantic localisation on AIR-SLT: does the map of a sentence's matches lie on the regions that it is about?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.layouts.airslt import Pictures, read_airslt
from training.evaluation.metrics import selo_map
from training.evaluation.metrics.selo import localisation
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.result import Dataset, Metric, Result
from training.evaluation.tasks import groundwork as gw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from training.evaluation.bank import Bank, Item
    from training.evaluation.layouts.airslt import AirSlt, Sentence
    from training.evaluation.metrics.selo_map import SquareTile
    from training.evaluation.task import Job

PUBLISHED, PLAIN = "selo-airslt", "selo-airslt-plain"
_FIGURES = (("Rsu", "rsu", "higher"), ("Rda", "rda", "higher"), ("Ras", "ras", "lower"), ("Rmi", "rmi", "higher"))


@dataclass(frozen=True, slots=True)
class _Tiled:
    """An image's tiles and where their vectors lie in the bank."""

    tiles: list[SquareTile]
    start: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + len(self.tiles))


class SeloTask:
    """See the module."""

    name = "selo"
    title = "Semantic localisation on large images: Rsu, Ras, Rda, Rmi."
    protocols = (PUBLISHED, PLAIN)
    files: ClassVar[frozenset[str]] = frozenset({"templates"})
    settings: ClassVar[Mapping[str, str]] = {
        "templates": "model, a template set, a file or a sentence with {} around the caption; default: the caption",
    }
    place: ClassVar[frozenset[str]] = frozenset()

    def run(self, job: Job) -> Result:
        """Measure; tiles are embedded once for all sentences of an image, and for every later run.

        Memory: 18 bytes per pixel of the largest image beside two decoded ones.

        Raises:
            GeoAlignError: The data is missing, damaged or of another layout.
        """
        from training.evaluation.bank import image_bank, text_bank

        gw.check_settings(job, self.settings)
        published = gw.known_protocol(job, self.protocols) == PUBLISHED
        if job.split is not None:
            raise UsageError("AIR-SLT has no parts", measured=f"split {job.split}", remedy="leave --split out")
        seconds: dict[str, float] = {}
        data = read_airslt(job.data)
        chosen = [data.sentences[place] for place in gw.spread(len(data.sentences), job.limit)]
        tiled, items = _tiles(data, chosen, through_jpeg=published)
        encoder = job.encoder()
        templates = gw.templates_of(job, PROTOCOLS[job.protocol].numbers["templates"], encoder)
        with gw.stage(seconds, "images"):
            bank = image_bank(
                encoder, items, job.cache, batch=gw.batch_of(encoder), progress=job.progress, cancel=job.cancel
            )
        _refuse_damaged(data, bank)
        with gw.stage(seconds, "texts"):
            texts = text_bank(
                encoder, [item.caption for item in chosen], job.cache, templates=templates, cancel=job.cancel
            )
        with gw.stage(seconds, "maps"):
            rows = _measure(job, chosen, tiled, bank, np.asarray(texts), published=published)
        with gw.stage(seconds, "pictures"):
            pictures = _pictures(job, data, chosen, tiled, bank, np.asarray(texts), rows, published=published)
        cut, lost = gw.lost_words(encoder, [item.caption for item in chosen])
        return Result(
            task=self.name,
            protocol=job.protocol,
            dataset=_dataset(data, chosen, len(items)),
            model=gw.measured(encoder, templates),
            metrics=_metrics(rows),
            seconds=seconds,
            settings={**job.settings, "limit": job.limit},
            notes=_notes(data, chosen, cut, lost),
            details={"sentences": rows, "pictures": pictures},
        )


def _tiles(data: AirSlt, chosen: Sequence[Sentence], *, through_jpeg: bool) -> tuple[dict[str, _Tiled], list[Item]]:
    """Lay the tiles of every image that a sentence is about."""
    from training.evaluation.bank import Item, file_version

    pictures, tiled = Pictures(data.folder), dict[str, _Tiled]()
    items: list[Item] = []
    for name in dict.fromkeys(item.image for item in chosen):
        tiled[name] = _Tiled(selo_map.tiles_of(*data.sizes_px[name]), len(items))
        version = f"{file_version(data.folder / name)}{' jpeg' if through_jpeg else ''}"
        items += [
            Item(
                f"{name}@{tile.col},{tile.row},{tile.width_px},{tile.height_px}",
                _loader(pictures, name, tile, through_jpeg=through_jpeg), version,
            )
            for tile in tiled[name].tiles
        ]  # fmt: skip
    return tiled, items


def _loader(pictures: Pictures, name: str, tile: SquareTile, *, through_jpeg: bool) -> Callable[[], NDArray[np.uint8]]:
    def load() -> NDArray[np.uint8]:
        image = pictures.get(name)
        part = image[tile.row : tile.row + tile.height_px, tile.col : tile.col + tile.width_px]
        square = selo_map.resize_cubic(part)
        return selo_map.through_jpeg(square) if through_jpeg else square

    return load


def _refuse_damaged(data: AirSlt, bank: Bank) -> None:
    if bank.skipped:
        first = bank.skipped[0]
        raise DataError(
            "is damaged", path=data.folder / first.key.partition("@")[0],
            measured=f"{first.reason}; {len(bank.skipped)} tiles", remedy="fetch it again: a map needs all its tiles",
        )  # fmt: skip


def probability_map(
    tiles: Sequence[SquareTile], matches: NDArray[np.float32], job: Job, *, published: bool
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the map (H, W) of an image whose tiles match a sentence so well: uint8 as published, or float 0..1."""
    cells = selo_map.cells_of(tiles, matches)
    if not published:
        return selo_map.plain_map(cells)
    return selo_map.through_jpeg(selo_map.median_grey(cells, cancel=job.cancel))


def _measure(
    job: Job, chosen: Sequence[Sentence], tiled: Mapping[str, _Tiled], bank: Bank,
    texts: NDArray[np.float32], *, published: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    for number, sentence in enumerate(chosen):
        job.cancel.check()
        place = tiled[sentence.image]
        matches = bank[place.rows] @ texts[number]
        found = localisation(probability_map(place.tiles, matches, job, published=published), sentence.regions)
        figures = {name: getattr(found, key) for name, key, _ in _FIGURES}
        rows.append({"image": sentence.image, "caption": sentence.caption, **figures})
        job.progress(number + 1, len(chosen), "measuring maps")
    return rows


def _pictures(
    job: Job, data: AirSlt, chosen: Sequence[Sentence], tiled: Mapping[str, _Tiled], bank: Bank,
    texts: NDArray[np.float32], rows: Sequence[Mapping[str, Any]], *, published: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the best and the worst maps over their images."""
    from training.evaluation.layouts.airslt import read_picture
    from training.evaluation.overlay import best_and_worst, overlaid

    pictures = []
    for name, number in best_and_worst([row["Rmi"] for row in rows]):
        sentence, place = chosen[number], tiled[chosen[number].image]
        prob = probability_map(place.tiles, bank[place.rows] @ texts[number], job, published=published)
        scores = prob.astype(np.float32) / np.float32(255 if prob.dtype == np.uint8 else 1)
        pictures.append({
            "title": sentence.image,
            "caption": f"{name}: Rmi {rows[number]['Rmi']:.3f}. {sentence.caption}",
            **overlaid(read_picture(data.folder / sentence.image), scores, sentence.regions),
        })  # fmt: skip
    return pictures


def _dataset(data: AirSlt, chosen: Sequence[Sentence], tiles: int) -> Dataset:
    images = list(dict.fromkeys(item.image for item in chosen))
    parts = [(item.caption, item.image, [region.tolist() for region in item.regions]) for item in chosen]
    digest = gw.digest_of([*parts, *((name, gw.size_of(data.folder, name)) for name in images)])
    regions = sum(len(item.regions) for item in chosen)
    return Dataset(
        "AIR-SLT", digest, {"images": len(images), "sentences": len(chosen), "regions": regions, "tiles": tiles}
    )


def _metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """Average over sentences; whole images are drawn for the intervals, since their sentences hang together."""
    from training.evaluation.intervals import bootstrap

    groups = [row["image"] for row in rows]
    metrics = {}
    for name, _, better in _FIGURES:
        values = np.array([row[name] for row in rows])
        low, high = bootstrap(values, groups=groups) if len(set(groups)) > 1 else (None, None)
        metrics[name] = Metric(float(values.mean()), low, high, unit="", better=better)
    return metrics


def _notes(data: AirSlt, chosen: Sequence[Sentence], cut: int, lost: int) -> tuple[str, ...]:
    notes = []
    small = sum(min(data.sizes_px[item.image]) < max(selo_map.SIDES_PX) for item in chosen)
    if small:
        notes.append(f"{small} sentences are about images narrower than the largest tile, which are cut to the image.")
    if len(chosen) < len(data.sentences):
        notes.append(f"{len(chosen)} of {len(data.sentences)} sentences were looked at.")
    if cut:
        notes.append(f"{cut} sentences are longer than the model reads: {lost} words are lost.")
    return tuple(notes)


TASK = SeloTask()
