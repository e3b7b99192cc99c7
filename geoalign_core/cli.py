"""``geoalign``: ask, index, similar, info, models."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiling.clikit import EXIT_PARTIAL, note, run_cli, tqdm_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoalign_core.answer import Filter
    from geoalign_core.settings import Settings

_PATH = click.Path(path_type=Path)
_MODEL = "geoalign-s"
_EXTENT = "XMIN,YMIN,XMAX,YMAX"


class Metres(click.ParamType):
    """A length on the ground: ``0.5m``, ``50cm`` or plain ``0.5``."""

    name = "metres"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Return metres."""
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        factor = 0.01 if text.endswith("cm") else 1.0
        try:
            metres = float(text.removesuffix("cm").removesuffix("m")) * factor
        except ValueError:
            self.fail(f"{value!r} is not a length; write it like 0.5m", param, ctx)
        if not 0 < metres < 1e6:
            self.fail(f"{value!r} is not a ground resolution; write it like 0.5m", param, ctx)
        return metres


class Threshold(click.ParamType):
    """``auto`` or a number from 0 to 1."""

    name = "threshold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:  # noqa: ANN401
        """Return the number, or None for ``auto``."""
        if value is None or value == "auto":
            return None
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a number", param, ctx)
        if not 0 <= number <= 1:
            self.fail(f"{value} is not between 0 and 1", param, ctx)
        return number


class Box(click.ParamType):
    """``xmin,ymin,xmax,ymax``."""

    name = "box"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:  # noqa: ANN401
        """Return the four numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            self.fail(f"{value!r} is not xmin,ymin,xmax,ymax", param, ctx)
        return numbers


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


_looking = _options(
    click.option("--model", default=_MODEL, show_default=True, metavar="NAME|PATH", help="Model name or folder."),
    click.option("--gsd", type=Metres(), metavar="0.5m", help="Ground resolution to look at.  [default: the model's]"),
    click.option("--bands", metavar="R,G,B", help="Band numbers.  [default: by colour]"),
    click.option(
        "--stretch", default="auto", show_default=True, metavar="auto|none|p2-98|min-max|LO,HI|FILE.json",
        help="How values become 8-bit, once for the whole raster.",
    ),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help="Where to compute."),
    click.option("-j", "--jobs", type=click.IntRange(1), default=None, help="Reading threads.  [default: all cores]"),
    click.option("--max-windows", type=click.IntRange(1), help="Refuse larger rasters.  [default: 200000]"),
    click.option("--allow-vrt", is_flag=True, help="Open virtual rasters, which may read any file they name."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)  # fmt: skip
_area = click.option("--area", metavar="XMIN,YMIN,XMAX,YMAX|FILE", help="Only this part of the raster.")
_finding = _options(
    click.option("--out", type=_PATH, metavar="DIR", help="Folder for all files.  [default: RASTER-geoalign]"),
    click.option("--boxes", type=_PATH, metavar="FILE", help="Regions: .gpkg .shp .geojson .fgb .parquet"),
    click.option("--heatmap", type=_PATH, metavar="FILE", help="Scores 0..1 as a GeoTIFF."),
    click.option("--picture", type=_PATH, metavar="FILE", help="A PNG to look at."),
    click.option("--threshold", type=Threshold(), metavar="T|auto", help="Lowest score of a region.  [default: auto]"),
    click.option("--top", type=click.IntRange(1), help="At most so many regions per question."),
    click.option("--min-area", type=click.FloatRange(0), default=0.0, metavar="M2", help="Smallest region."),
    click.option("--overwrite", is_flag=True, help="Replace files that are there."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="geoalign")
def cli() -> None:
    """Ask the map: type what you are looking for and see where it is."""


def _settings(options: dict[str, Any]) -> Settings:
    from geoalign_core.settings import MAX_WINDOWS, Settings
    from tiling.raster import OpenPolicy

    return Settings(
        model=options["model"], gsd_m=options["gsd"], bands=options["bands"], stretch=options["stretch"],
        device=options["device"], jobs=options["jobs"] or os.cpu_count() or 1,
        max_windows=options["max_windows"] or MAX_WINDOWS, policy=OpenPolicy(allow_vrt=options["allow_vrt"]),
    )  # fmt: skip


def _filter(options: dict[str, Any]) -> Filter:
    from geoalign_core.answer import Filter

    return Filter(options["threshold"], options["min_area"], options["top"])


def _plan(options: dict[str, Any], raster: Path, names: list[str], *, classes: bool = False) -> Any:  # noqa: ANN401
    from geoalign_core.outputs import plan_outputs

    chosen = [options[key] for key in ("boxes", "heatmap", "picture")]
    folder = options["out"]
    if folder is None and not any(chosen):
        folder = Path(f"{raster.stem}-geoalign")
    class_file = (folder or next(path for path in chosen if path).parent) / "classes.tif" if classes else None
    plan = plan_outputs(
        names, folder=folder, boxes=options["boxes"], heatmap=options["heatmap"], picture=options["picture"],
        classes=class_file, overwrite=options["overwrite"],
    )  # fmt: skip
    plan.check()
    return plan


def _finish(report: dict[str, Any], *, as_json: bool) -> None:
    for line in report["notes"]:
        note(line)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    for item in report["queries"]:
        best = "nothing to see" if item["best_score"] is None else f"best {item['best_score']:.2f}"
        count = f"{item['count']} place{'' if item['count'] == 1 else 's'}"
        click.echo(f'"{item["query"]}": {count} above {item["threshold"]:.2f}, {best}')
        for kind in ("boxes", "heatmap", "picture"):
            if item[kind]:
                click.echo(f"  {kind:<8} {item[kind]}")
    if "classes" in report:
        click.echo(f"classes: {', '.join(report['classes']['names'])}\n  map      {report['classes']['path']}")
        click.echo(f"  picture  {report['classes']['picture']}")


@cli.command()
@click.argument("raster", type=_PATH)
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...")
@_finding
@click.option("--classes", is_flag=True, help="Also map each place to the question that fits it best.")
@click.option("--avoid", multiple=True, metavar="WORDS", help="What the answers should not be; may be repeated.")
@_area
@_looking
def ask(raster: Path, queries: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
    """Find what each QUERY names in RASTER.

    Writes regions (GeoPackage), a heatmap (GeoTIFF) and a picture (PNG) for each question.
    """
    from geoalign_core.answer import ask_texts, prepare
    from geoalign_core.grounding.text import clean_query
    from geoalign_core.outputs import summary, write_outputs

    names = [clean_query(query) for query in queries]
    plan = _plan(options, raster, names, classes=options["classes"])
    with (
        tqdm_progress() as progress,
        prepare(raster, _settings(options), area=options["area"], progress=progress) as ready,
    ):
        _tell_pixel_mode(ready)
        answers, class_map, notes = ask_texts(
            ready, names, avoid=options["avoid"], choice=_filter(options), classes=options["classes"], progress=progress
        )
        with ready.timed("write"):
            write_outputs(plan, ready, answers, class_map)
        report = summary(plan, ready, answers, class_map=class_map, notes=notes)
    _finish(report, as_json=options["as_json"])


def _tell_pixel_mode(ready: Any) -> None:  # noqa: ANN401 - Prepared
    why = ready.raster.info.why_no_metres()
    if why:
        note(f"{ready.raster.path}: {why}; working in pixels, so areas have no unit and files no place on the map")
    if ready.index.spec.bands.note:
        note(f"{ready.raster.path}: {ready.index.spec.bands.note}")


@cli.command()
@click.argument("raster", type=_PATH)
@click.option(
    "--box", "boxes_in", type=Box(), multiple=True, metavar="XMIN,YMIN,XMAX,YMAX", help="An example; may be repeated."
)
@click.option("--boxes-of", type=_PATH, metavar="FILE", help="Take examples from a vector file.")
@click.option("--example", type=_PATH, multiple=True, metavar="FILE", help="An image that shows an example.")
@click.option("--exclude", multiple=True, metavar="XMIN,YMIN,XMAX,YMAX|FILE", help="Not this; may be repeated.")
@click.option("--text", metavar="QUERY", help="A question that the finds should answer too.")
@_finding
@_area
@_looking
def similar(raster: Path, **options: Any) -> None:  # noqa: ANN401
    """Find what looks like the examples in RASTER.

    One example is compared by cosine; several, or any excluded, train a small classifier on the index.
    """
    from geoalign_core.answer import ask_examples, prepare
    from geoalign_core.grounding.examples import example_image, read_places
    from geoalign_core.outputs import summary, write_outputs
    from tiling.errors import UsageError

    if not (options["boxes_in"] or options["boxes_of"] or options["example"]):
        raise UsageError("no example was given", remedy="use --box, --boxes-of or --example")
    plan = _plan(options, raster, [options["text"] or "similar"])
    with (
        tqdm_progress() as progress,
        prepare(raster, _settings(options), area=options["area"], progress=progress) as ready,
    ):
        _tell_pixel_mode(ready)
        include = read_places(
            [*map(list, options["boxes_in"]), *filter(None, [options["boxes_of"]])], ready.raster.info
        )
        exclude = read_places(options["exclude"], ready.raster.info)
        images = [example_image(path, ready) for path in options["example"]]
        answer, notes = ask_examples(
            ready, include, exclude, images=images, text=options["text"], choice=_filter(options), progress=progress
        )
        with ready.timed("write"):
            write_outputs(plan, ready, [answer])
        report = summary(plan, ready, [answer], notes=notes)
    _finish(report, as_json=options["as_json"])


@cli.command()
@click.argument("rasters", nargs=-1, required=True, type=_PATH, metavar="RASTER...")
@click.option("--verify", is_flag=True, help="Hash every file of an index that is already there.")
@_area
@_looking
def index(rasters: tuple[Path, ...], **options: Any) -> int:  # noqa: ANN401
    """Build the index of each RASTER, or bring it up to date."""
    from geoalign_core.answer import prepare
    from geoalign_core.models.registry import load_encoder
    from tiling.errors import CancelledError, GeoAlignError

    settings = _settings(options)
    encoder = load_encoder(settings.model, device=settings.device)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    with tqdm_progress() as progress:
        for path in rasters:
            try:
                with prepare(
                    path, settings, area=options["area"], encoder=encoder, verify=options["verify"], progress=progress
                ) as ready:
                    _tell_pixel_mode(ready)
                    report = ready.index.report
                    done.append({
                        "raster": str(path), "index": str(ready.index.root), "rows": ready.index.rows,
                        "built_shards": report.built_shards, "kept_shards": report.kept_shards,
                        "bytes": ready.index.size_bytes, "seconds": ready.seconds,
                    })  # fmt: skip
            except CancelledError:
                raise
            except GeoAlignError as error:
                if len(rasters) == 1:
                    raise
                failed.append({"raster": str(path), "error": str(error)})
                click.echo(f"error: {error}", err=True)
    if options["as_json"]:
        click.echo(json.dumps({"indexed": done, "failed": failed}, ensure_ascii=False))
    else:
        for item in done:
            built = f"{item['built_shards']} shards built, {item['kept_shards']} kept"
            click.echo(
                f"{item['raster']}: {item['rows']} patches, {built}, {item['bytes'] / 1e6:.1f} MB in {item['index']}"
            )
    if failed:
        return EXIT_PARTIAL if done else 1
    return 0


@cli.command()
@click.argument("raster", type=_PATH)
@_area
@_looking
def info(raster: Path, **options: Any) -> None:  # noqa: ANN401
    """Explain what asking RASTER would do."""
    from geoalign_core.explain import explain

    facts = explain(raster, _settings(options), area=options["area"])
    if options["as_json"]:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        shown = "; ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{key.replace('_', ' '):<{width}}  {'-' if shown is None else shown}")


@cli.group()
def models() -> None:
    """List, describe, fetch and check models."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True)
def models_list(*, as_json: bool) -> None:
    """List the models that can be used."""
    from dataclasses import asdict

    from geoalign_core.models.registry import list_models

    entries = list_models()
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries]))
        return
    for entry in entries:
        state = "ready" if entry.installed else "to pull"
        click.echo(f"{entry.name:<22} {state:<8} {entry.size_bytes / 1e6:6.0f} MB  {entry.licence:<12} {entry.title}")


@models.command("info")
@click.argument("name", default=_MODEL)
def models_info(name: str) -> None:
    """Print a model's configuration as JSON."""
    from dataclasses import asdict

    from geoalign_core.models.registry import find_config

    click.echo(json.dumps(asdict(find_config(name)), indent=1, ensure_ascii=False))


@models.command("pull")
@click.argument("name")
@click.option("--from", "folder", type=_PATH, help="Take the files from this folder instead of the hub.")
def models_pull(name: str, folder: Path | None) -> None:
    """Fetch a model from its hub: the one command that uses the network."""
    from geoalign_core.models.registry import pull_model

    click.echo(str(pull_model(name, from_folder=folder)))


@models.command("verify")
@click.argument("name", default=_MODEL)
def models_verify(name: str) -> int:
    """Check a model's files against their published SHA-256."""
    from geoalign_core.models.registry import verify_model

    checks = verify_model(name)
    for check in checks:
        state = "ok" if check.ok else "missing" if check.found_sha256 is None else "CHANGED"
        click.echo(f"{state:<8} {check.path.name}  {check.found_sha256 or ''}")
    return 0 if all(check.ok for check in checks) else 1


def main() -> None:
    """Run the command line."""
    sys.exit(run_cli(cli))
