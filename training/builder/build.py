"""The remaining steps, and all of them in a row from one plan."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.errors import UsageError
from tiling.files import atomic_file
from tiling.progress import CancelToken, Progress, silent
from training.builder.captions import caption_step
from training.builder.consistency import check, unjudged_colours
from training.builder.harmonise import PLACES, harmonise
from training.builder.negatives import has_colour, make
from training.builder.quality import QualityOptions, picture_sheet, quality_step
from training.builder.steps import Noted, Step, StepReport, record_rng, run_step, write_json
from training.data.dataset import RsfgDataset, write_records
from training.data.images import rebase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from training.builder.negatives import Similarity
    from training.builder.steps import Picture
    from training.builder.vlm import Client
    from training.builder.vlm_steps import Prompts
    from training.data.schema import Record

_NEGATIVE = re.compile(r"regions\[(\d+)\]\.hard_negatives\[(\d+)\]")
_REGION_TEXT = re.compile(r"regions\[(\d+)\]\.(phrase|description)")


def negatives_step(
    *, seed: int = 0, limit: int = 10, similarity: Similarity | None = None, model: tuple[Client, Prompts] | None = None
) -> Step:
    """Return the step that gives regions their hard negatives: a model's first when there is one, then the rules'."""

    def apply(record: Record, picture: Picture) -> Noted:
        counts: Counter[str] = Counter()
        before = sum(len(region.hard_negatives) for region in record.regions)
        done = record
        if model and record.regions:
            from training.builder.vlm_steps import model_negatives

            noted = model_negatives(done, picture.pixels, *model, limit=limit)
            done = noted.record
            counts.update(noted.counts)
        coloured = any(has_colour(region.phrase or region.description or "") for region in done.regions)
        image = picture.pixels if coloured else None
        done = make(done, record_rng(record, seed, "negatives"), limit=limit, similarity=similarity, image=image)
        rules = Counter(negative.rule for region in done.regions for negative in region.hard_negatives)
        counts.update({f"negatives: {rule}": number for rule, number in rules.items()})
        counts["negatives written"] += sum(len(region.hard_negatives) for region in done.regions) - before
        counts["regions without negatives"] += sum(not region.hard_negatives for region in done.regions)
        return Noted(done, counts)

    by = {"model": model[0].endpoint.parameters(), "prompts": model[1].digest("negatives", "repair")} if model else None
    settings = {"seed": seed, "limit": limit, "similarity": similarity is not None, "by": by}
    return Step(name="negatives", settings=settings, apply=apply, needs_content=True)


def check_step(*, drop: bool = False) -> Step:
    """Return the step that notes every finding in ``extra["findings"]``, and can drop the texts that are at fault.

    A human caption is never dropped, only noted.
    """

    def apply(record: Record, picture: Picture) -> Noted:
        bare = replace(record, extra={key: value for key, value in record.extra.items() if key != "findings"})
        findings = check(bare, picture.pixels)
        counts = Counter(f"{item.severity}: {item.kind}" for item in findings)
        counts["colour words that the pixels cannot judge"] += unjudged_colours(bare, picture.pixels)
        counts["records with errors"] += any(item.severity == "error" for item in findings)
        if drop:
            bare, dropped = drop_errors(bare, [item.where for item in findings if item.severity == "error"])
            counts["texts dropped"] += dropped
        if not findings:
            return Noted(bare, counts)
        return Noted(replace(bare, extra={**bare.extra, "findings": [asdict(item) for item in findings]}), counts)

    return Step(name="check", settings={"drop": drop}, apply=apply)


def drop_errors(record: Record, places: list[str]) -> tuple[Record, int]:
    """Return a record without the texts at the given places, and how many there were."""
    gone: set[tuple[int, int]] = set()
    texts: set[tuple[int, str]] = set()
    own = {place for place in places if place in {"brief_caption", "detailed_caption"} and getattr(record, place)}
    for place in places:
        if match := _NEGATIVE.fullmatch(place):
            gone.add((int(match[1]), int(match[2])))
        elif match := _REGION_TEXT.fullmatch(place):
            texts.add((int(match[1]), match[2]))
    regions = [
        replace(
            region,
            phrase=None if (i, "phrase") in texts else region.phrase,
            description=None if (i, "description") in texts else region.description,
            hard_negatives=tuple(n for k, n in enumerate(region.hard_negatives) if (i, k) not in gone),
        )
        for i, region in enumerate(record.regions)
    ]
    captions: dict[str, Any] = dict.fromkeys(own)
    return replace(record, regions=tuple(regions), **captions), len(gone) + len(texts) + len(own)


def write_findings(folder: Path) -> Path:
    """Write ``findings.csv`` from the records of a checked folder."""
    target = folder / "findings.csv"
    with (
        atomic_file(target, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as handle,
    ):
        rows = csv.writer(handle)
        rows.writerow(["image", "where", "kind", "text", "why"])
        for record in RsfgDataset([folder]):
            for item in record.extra.get("findings", ()):
                rows.writerow([record.image, *(item[key] for key in ("where", "kind", "text", "why"))])
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a whole build is made from; the keys of its YAML file."""

    sources: tuple[Mapping[str, Any], ...]
    """Each ``path``, and if wanted ``format`` and ``images`` (folder of the pictures)."""
    limit: int | None = None
    """Records per source."""
    place: str = "stay"
    seed: int = 0
    quality: QualityOptions = field(default_factory=QualityOptions)
    negatives: int = 10
    """Most hard negatives per region."""
    drop: bool = True
    """Whether texts that the boxes contradict are dropped at the end."""

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan; paths are relative to its file.

        Raises:
            UsageError: It is no YAML, or has unknown keys or wrong values.
        """
        import yaml

        try:
            item = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UsageError("is not a build plan", path=path, measured=str(error).splitlines()[0]) from error
        if not isinstance(item, dict) or not isinstance(item.get("sources"), list) or not item["sources"]:
            raise UsageError("is not a build plan", path=path, remedy='give it a list "sources" with "path" in each')
        _known(item, {field.name for field in dataclasses.fields(cls)}, path)
        sources = []
        for source in item["sources"]:
            source = {"path": source} if isinstance(source, str) else source  # noqa: PLW2901
            if not isinstance(source, dict) or not isinstance(source.get("path"), str):
                raise UsageError("a source has no path", path=path, measured=repr(source)[:60])
            _known(source, {"path", "format", "images"}, path)
            places = {key: str(path.parent / source[key]) for key in ("path", "images") if source.get(key)}
            sources.append({**source, **places})
        quality = item.pop("quality", None) or {}
        _known(quality, {field.name for field in dataclasses.fields(QualityOptions)}, path)
        plan = cls(**{**item, "sources": tuple(sources), "quality": QualityOptions(**quality)})
        plan.verify(path)
        return plan

    def verify(self, path: Path) -> None:
        """Raise unless every value has its type."""
        whole = {"seed": self.seed, "negatives": self.negatives, "quality.hash_distance": self.quality.hash_distance}
        whole |= {"limit": self.limit} if self.limit is not None else {}
        for key, value in whole.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise UsageError(f"{key} is not a whole number", path=path, measured=repr(value))
        for key, value in asdict(self.quality).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"quality.{key} is not a number", path=path, measured=repr(value))
        if self.place not in PLACES:
            raise UsageError("place is unknown", path=path, measured=str(self.place), remedy=f"use {', '.join(PLACES)}")


def _known(item: Mapping[str, Any], keys: set[str], path: Path) -> None:
    if not isinstance(item, dict):
        raise UsageError("is not a build plan", path=path, measured=repr(item)[:60])
    if unknown := sorted(map(str, item.keys() - keys)):
        raise UsageError("has unknown keys", path=path, measured=", ".join(unknown), remedy=f"use {', '.join(sorted(keys))}")  # fmt: skip  # noqa: E501


def build(
    plan: Plan, out: Path, *, model: tuple[Client, Prompts] | None = None, similarity: Similarity | None = None,
    workers: int = 2, progress: Progress = silent, cancel: CancelToken | None = None,
) -> list[StepReport]:  # fmt: skip
    """Run all steps, each into a folder of its own under ``out``; ``out/records.jsonl`` is the result.

    A step whose input and settings have not changed since the last run is left as it is.

    Raises:
        DataError: A source is not what it claims to be.
    """
    from training.data.readers import open_source

    cancel = cancel or CancelToken()
    sources = [
        open_source(Path(item["path"]), item.get("format"), images=Path(item["images"]) if item.get("images") else None)
        for item in plan.sources
    ]
    folder = out / "1-import"
    reports = [
        harmonise(
            sources,
            folder,
            place=plan.place,
            limit=plan.limit,
            workers=workers,
            progress=progress,
            cancel=cancel,
        )
    ]
    steps = [quality_step(plan.quality), caption_step(seed=plan.seed)]
    if model:
        from training.builder.vlm_steps import model_caption_step

        # The rules fill what the model leaves open, and give way to it where they came first.
        steps.insert(1, model_caption_step(*model))
    steps += [
        negatives_step(seed=plan.seed, limit=plan.negatives, similarity=similarity, model=model),
        check_step(drop=plan.drop),
    ]
    for number, step in enumerate(steps, start=2):
        source, folder = folder, out / f"{number}-{step.name}"
        reports.append(
            run_step(step, RsfgDataset([source]), folder, workers=workers, progress=progress, cancel=cancel)
        )  # fmt: skip
        if step.name == "quality":
            picture_sheet(folder, folder / "dropped.jpg")
    write_findings(folder)
    result = RsfgDataset([folder])
    write_records(out, _moved(result, out), overwrite=True)
    write_json(out / "report.json", {"steps": [report.to_json() for report in reports]})
    return reports


def _moved(dataset: RsfgDataset, out: Path) -> Iterator[Record]:
    for index, record in enumerate(dataset):
        yield rebase(record, dataset.root(index), out)
