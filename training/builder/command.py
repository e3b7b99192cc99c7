"""``geoalign-data``: from any source to records with captions, hard negatives, checks and reports."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiling.clikit import run_cli, tqdm_progress
from tiling.errors import CancelledError, OutputExistsError, UsageError
from training.builder.model_options import asking, model_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiling.progress import CancelToken, Progress
    from training.builder.negatives import Similarity
    from training.builder.steps import Step, StepReport
    from training.data.dataset import RsfgDataset

_FOLDER = click.Path(file_okay=False, path_type=Path)
_PATH = click.Path(path_type=Path)
_OUT = click.option("-o", "--out", type=_FOLDER, required=True, help="Folder of the result.")
_WORKERS = click.option(
    "--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Threads that work at the same time."
)
_SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is random.")
_REPORT = click.option("--report", type=_PATH, default=None, help="Also write the step's report here, as JSON.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace records that another program wrote.")
_COUNT = click.IntRange(min=0)
_LINE = click.FloatRange(-1, 1)
_DATA = click.argument("data", nargs=-1, required=True, type=_PATH)
_ANEW = "the next run begins anew"


@contextlib.contextmanager
def _working(again: str | None = None) -> Iterator[tuple[Progress, CancelToken]]:
    """Give a progress bar and a token that Ctrl-C sets.

    Args:
        again: What a stopped command says of its next run; None where that goes on where this one stopped.
    """
    from tiling.progress import CancelToken

    cancel = CancelToken()
    with tqdm_progress() as progress:
        try:
            yield progress, cancel
        except KeyboardInterrupt:
            cancel.cancel()
            if again is None:
                raise
            raise CancelledError("stopped", remedy=again) from None


def _tell(reports: list[StepReport], report: Path | None) -> None:
    from training.builder.steps import write_json

    for item in reports:
        click.echo(f"{item.step}: {item.written} of {item.read} records")
        for title, counts in (("dropped", item.rejected), ("counted", item.counts)):
            for name, number in counts.items():
                click.echo(f"  {number:>8}  {title}: {name}" if title == "dropped" else f"  {number:>8}  {name}")
    if report is not None:
        items = [item.to_json() for item in reports]
        write_json(report, items[0] if len(items) == 1 else {"steps": items})


def _run(step: Step, data: tuple[Path, ...], out: Path, workers: int, progress: Progress, cancel: CancelToken,
         *, overwrite: bool) -> StepReport:  # fmt: skip
    from training.builder.steps import run_step

    return run_step(
        step, _filled(data), out, workers=workers, progress=progress, cancel=cancel, overwrite=overwrite
    )  # fmt: skip


def _filled(data: tuple[Path, ...]) -> RsfgDataset:
    """Open records; none at all is the sign of a wrong path or of a step before that dropped everything."""
    from training.data.dataset import RsfgDataset
    from training.data.errors import DataError

    dataset = RsfgDataset(data)
    if not len(dataset):
        raise DataError(
            "holds no records", path=", ".join(map(str, data)), remedy="make some with geoalign-data import"
        )
    return dataset


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Make, mend and judge training data.

    Every step reads records, writes a folder of its own, and goes on where it was stopped.
    """


@cli.command("import")
@click.argument("sources", nargs=-1, required=True, type=_PATH)
@_OUT
@click.option("--format", "layout", default=None, help="Layout of the sources; recognised by content when left out.")
@click.option("--images", type=_FOLDER, default=None, help="Folder of the pictures, where the layout does not say.")
@click.option("--copy", "place", flag_value="copy", help="Copy the pictures into the folder.")
@click.option("--link", "place", flag_value="link", help="Hard-link the pictures into the folder.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Records per source, evenly spread.")
@_WORKERS
@_REPORT
@_OVERWRITE
def import_(
    sources: tuple[Path, ...], out: Path, layout: str | None, images: Path | None, place: str | None,
    limit: int | None, workers: int, report: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Bring SOURCES (any layout that is known) into records."""
    from training.builder.harmonise import harmonise
    from training.data.readers import open_source

    with _working() as (progress, cancel):
        done = harmonise(
            [open_source(path, layout, images=images) for path in sources], out, place=place or "stay", limit=limit,
            workers=workers, progress=progress, cancel=cancel, overwrite=overwrite,
        )  # fmt: skip
    _tell([done], report)


@cli.command()
@_DATA
@_OUT
@click.option("--brightness", type=float, default=None, help="Least variance of the luma.")
@click.option("--texture", type=float, default=None, help="Least variance of its Laplacian.")
@click.option("--mask-share", type=click.FloatRange(0, 1), default=None, help="Largest share under the regions.")
@click.option("--hash-distance", type=click.IntRange(-1, 16), default=None, help="Bits of 64; -1: digests only.")
@_WORKERS
@_REPORT
@_OVERWRITE
def quality(data: tuple[Path, ...], out: Path, workers: int, report: Path | None, overwrite: bool,
            **limits: float | int | None) -> None:  # fmt: skip
    """Drop images that are flat, plain, covered by boxes, or there twice."""
    from training.builder.quality import QualityOptions, picture_sheet, quality_step

    names = {"brightness": "brightness_variance", "texture": "texture_variance"}
    given: dict[str, Any] = {names.get(key, key): value for key, value in limits.items() if value is not None}
    with _working() as (progress, cancel):
        done = _run(quality_step(QualityOptions(**given)), data, out, workers, progress, cancel, overwrite=overwrite)
        picture_sheet(out, out / "dropped.jpg")
    _tell([done], report)


@cli.command()
@_DATA
@_OUT
@_SEED
@click.option("--overwrite-texts", is_flag=True, help="Also replace texts that people wrote.")
@model_options
@_WORKERS
@_REPORT
@_OVERWRITE
def caption(data: tuple[Path, ...], out: Path, seed: int, overwrite_texts: bool, workers: int, report: Path | None,
            overwrite: bool, **options: Any) -> None:  # noqa: ANN401  # fmt: skip
    """Write the captions and region texts that are missing, by rules or by a model."""
    with _working() as (progress, cancel), asking(out, cancel, options) as model:
        if model is None:
            from training.builder.captions import caption_step

            step = caption_step(seed=seed, overwrite=overwrite_texts)
        else:
            from training.builder.vlm_steps import model_caption_step

            step = model_caption_step(*model, overwrite=overwrite_texts)
        done = _run(step, data, out, workers, progress, cancel, overwrite=overwrite)
    _tell([done], report)


def _similarity(name: str | None) -> Similarity | None:
    if name is None:
        return None
    from training.builder.negatives import text_similarity

    return text_similarity(name)


@cli.command()
@_DATA
@_OUT
@_SEED
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="Most per region.")
@click.option("--encoder", default=None, help="Reject what this stored model's text tower cannot tell apart.")
@model_options
@_WORKERS
@_REPORT
@_OVERWRITE
def negatives(data: tuple[Path, ...], out: Path, seed: int, limit: int, encoder: str | None, workers: int,
              report: Path | None, overwrite: bool, **options: Any) -> None:  # noqa: ANN401  # fmt: skip
    """Write texts that are nearly true of each region, and false."""
    from training.builder.build import negatives_step

    with _working() as (progress, cancel), asking(out, cancel, options) as model:
        step = negatives_step(seed=seed, limit=limit, similarity=_similarity(encoder), model=model)
        done = _run(step, data, out, workers, progress, cancel, overwrite=overwrite)
    _tell([done], report)


@cli.command()
@_DATA
@_OUT
@click.option("--drop", is_flag=True, help="Drop texts that the boxes contradict.")
@_WORKERS
@_REPORT
@_OVERWRITE
def check(data: tuple[Path, ...], out: Path, drop: bool, workers: int, report: Path | None, overwrite: bool) -> None:
    """Lay every text against the boxes; write findings.csv."""
    from training.builder.build import check_step, write_findings

    with _working() as (progress, cancel):
        done = _run(check_step(drop=drop), data, out, workers, progress, cancel, overwrite=overwrite)
        write_findings(out)
    _tell([done], report)


@cli.command()
@click.argument("sources", nargs=-1, type=_PATH)
@click.option("--plan", type=_PATH, default=None, help="YAML file that says everything; instead of SOURCES.")
@_OUT
@_SEED
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Records per source, evenly spread.")
@click.option("--encoder", default=None, help="Reject negatives that this stored model cannot tell apart.")
@model_options
@_WORKERS
@_REPORT
def build(sources: tuple[Path, ...], plan: Path | None, out: Path, seed: int, limit: int | None, encoder: str | None,
          workers: int, report: Path | None, **options: Any) -> None:  # noqa: ANN401  # fmt: skip
    """Run all steps: import, quality, captions, negatives, check."""
    from training.builder.build import Plan
    from training.builder.build import build as build_all

    if (plan is None) == (not sources):
        raise UsageError("what shall be built?", remedy="give either SOURCES or --plan FILE.yaml")
    chosen = Plan.load(plan) if plan else Plan(
        sources=tuple({"path": str(path)} for path in sources), seed=seed, limit=limit
    )  # fmt: skip
    if (out / "records.jsonl").exists() and not (out / "report.json").exists():
        raise OutputExistsError("already holds records", path=out, remedy="give another folder")
    with _working() as (progress, cancel), asking(out / "1-import", cancel, options) as model:
        done = build_all(
            chosen, out, model=model, similarity=_similarity(encoder), workers=workers, progress=progress, cancel=cancel
        )  # fmt: skip
    _tell(done, report)


@cli.command()
@click.argument("train", type=_PATH)
@click.argument("test", nargs=-1, required=True, type=_PATH)
@_OUT
@click.option("--model", default="geoalign-s", show_default=True, help="Stored model that judges meaning.")
@click.option("--no-model", is_flag=True, help="Compare words, structure and digests alone.")
@click.option("--device", default="auto", show_default=True, help="Where the model runs.")
@click.option("--no-pictures", is_flag=True, help="Read no picture: texts and scenes alone.")
@click.option("--lexical", type=_LINE, default=0.9, show_default=True, help="Danger line of texts' words.")
@click.option("--semantic-text", type=_LINE, default=0.95, show_default=True, help="Danger line of texts' meaning.")
@click.option("--structural", type=_LINE, default=0.9, show_default=True, help="Danger line of pictures' structure.")
@click.option("--semantic-image", type=_LINE, default=0.95, show_default=True, help="Danger line of their meaning.")
def leakage(train: Path, test: tuple[Path, ...], out: Path, model: str, device: str, *, no_model: bool,
            no_pictures: bool, **lines: float) -> None:  # fmt: skip
    """Find what TEST shares with TRAIN: texts, pictures, scenes."""
    from training.builder import leakage as analysis
    from training.data.dataset import RsfgDataset

    with _working(_ANEW) as (progress, _):
        options = analysis.LeakageOptions(
            model=None if no_model else model, device=device, pictures=not no_pictures, **lines
        )  # fmt: skip
        report = analysis.analyse(RsfgDataset([train]), RsfgDataset(test), out, options, progress=progress)
    click.echo(report.text(), nl=False)


@cli.group()
def review() -> None:
    """Have people judge a sample, and count what they say."""


@review.command("sample")
@_DATA
@_OUT
@_SEED
@_OVERWRITE
@click.option("--global", "captions", type=_COUNT, default=None, help="Texts of whole images.")
@click.option("--region", type=_COUNT, default=None, help="Texts of regions.")
@click.option("--negative", type=_COUNT, default=None, help="Hard negatives.")
@click.option("--box", type=_COUNT, default=None, help="Boxes.")
@click.option("--reviewers", default="reviewer-1,reviewer-2", show_default=True, help="Names, with commas.")
def review_sample(data: tuple[Path, ...], out: Path, seed: int, overwrite: bool, captions: int | None,
                  region: int | None, negative: int | None, box: int | None, reviewers: str) -> None:  # fmt: skip
    """Draw a sample of DATA with a page and a CSV file per reviewer.

    Without sizes, a tenth of each kind is drawn: at least 100 items, at most the paper's 2,000 to 8,000.
    """
    from training.builder.review import draw_sample
    from training.data.dataset import RsfgDataset

    given = {"global": captions, "region": region, "negative": negative, "box": box}
    sizes = {kind: size for kind, size in given.items() if size is not None}
    names = [name.strip() for name in reviewers.split(",")]
    with _working(_ANEW) as (progress, _):
        drawn = draw_sample(
            RsfgDataset(data), out, sizes=sizes or None, reviewers=names, seed=seed, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    for kind, (taken, there) in drawn.items():
        click.echo(f"{kind}: {taken:,} of {there:,}")
    click.echo(str(out / "review.html"))


@review.command("score")
@click.argument("folder", type=_FOLDER)
def review_score(folder: Path) -> None:
    """Count the reviewers' verdicts and their agreement; write table1.md and table1.json."""
    from training.builder.review import score, write_table

    table = score(folder)
    write_table(table, folder)
    click.echo(table.text(), nl=False)


@cli.command()
@_DATA
@click.option("--images", is_flag=True, help="Also decode every picture.")
@_REPORT
def validate(data: tuple[Path, ...], images: bool, report: Path | None) -> int:
    """List everything that is wrong with DATA, by file and line."""
    from training.builder.steps import write_json
    from training.data.validate import validate as validate_path

    worst = 0
    with _working(_ANEW) as (progress, _):
        found = [validate_path(path, check_images=images, progress=progress) for path in data]
    for item in found:
        click.echo(str(item))
        worst = worst or int(not item.ok)
    if report is not None:
        write_json(report, {"files": [item.to_json() for item in found]})
    return worst


@cli.command()
@_DATA
@click.option("-o", "--out", type=_PATH, required=True, help="HTML file to write.")
def stats(data: tuple[Path, ...], out: Path) -> None:
    """Write one HTML page on what DATA holds, with pictures."""
    from training.data.statistics_page import statistics, write_report

    dataset = _filled(data)
    with _working(_ANEW) as (progress, _):
        write_report(statistics(dataset, progress=progress), dataset, out)
    click.echo(str(out))


@cli.command()
@_DATA
@_OUT
@click.option("--samples", type=click.IntRange(min=1), default=1000, show_default=True, help="Records per archive.")
@click.option("--overwrite", is_flag=True, help="Replace archives that are there.")
def export(data: tuple[Path, ...], out: Path, samples: int, overwrite: bool) -> None:
    """Write DATA as tar shards, pictures included."""
    from training.data.stream import write_shards

    with _working("add --overwrite to begin anew") as (progress, _):
        files = write_shards(out, _filled(data), samples=samples, progress=progress, overwrite=overwrite)
    click.echo(f"{len(files)} archives in {out}")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a record."""
    import training.data

    path = Path(training.data.__file__).parent / "rsfg.schema.json"
    click.echo(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2))


def main() -> None:
    """Run the command line."""
    sys.exit(run_cli(cli, name="geoalign-data"))


if __name__ == "__main__":
    main()
