"""``geoalign``: ask, index, similar, features, info, models, engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoalign_core.engine.command import engine
from geoalign_core.features.command import features
from geoalign_core.models.command import models
from geoalign_core.options import PATH, Box, area, finding, looking, settings_from, sure
from tiling.clikit import EXIT_PARTIAL, note, run_cli, tqdm_progress

if TYPE_CHECKING:
    from geoalign_core.answer import Filter


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="geoalign")
def cli() -> None:
    """Ask the map: type what you are looking for and see where it is."""


def _filter(options: dict[str, Any]) -> Filter:
    from geoalign_core.answer import Filter

    return Filter(
        options["threshold"], options["min_area"], options["top"], options.get("min_precision"), options.get("prior")
    )


def _plan(options: dict[str, Any], raster: Path, names: list[str], *, classes: bool = False) -> Any:  # noqa: ANN401
    from geoalign_core.outputs import CLASSES, plan_outputs

    chosen = [options[key] for key in ("boxes", "heatmap", "picture")]
    folder = options["out"]
    if folder is None and not any(chosen):
        folder = Path(f"{raster.stem}-geoalign")
    class_file = (folder or next(path for path in chosen if path).parent) / f"{CLASSES}.tif" if classes else None
    plan = plan_outputs(
        names, folder=folder, boxes=options["boxes"], heatmap=options["heatmap"], picture=options["picture"],
        classes=class_file, overwrite=options["overwrite"],
    )  # fmt: skip
    inputs = [raster, *options.get("example", ()), *(options.get(key) for key in ("boxes_of", "area", "stretch"))]
    inputs += options.get("exclude", ())
    plan.check([Path(path) for path in inputs if path])
    return plan


def _look_first(raster: Path, options: dict[str, Any], plan: Any) -> Any:  # noqa: ANN401 - OutputPlan, RasterInfo
    """Open the raster for a moment, so that what cannot end well does not begin."""
    from tiling.area import parse_area
    from tiling.raster import OpenPolicy, open_raster

    with open_raster(raster, policy=OpenPolicy(allow_vrt=options["allow_vrt"])) as opened:
        plan.check_place(opened.info)
        if options["area"] is not None:
            parse_area(options["area"], opened.info)
        return opened.info


def _finish(report: dict[str, Any], *, as_json: bool) -> None:
    from geoalign_core.models.encoder import shorten

    for line in report["notes"]:
        note(line)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    for item in report["queries"]:
        best = "nothing to see" if item["best_score"] is None else f"best {item['best_score']:.2f}"
        count = f"{item['count']} place{'' if item['count'] == 1 else 's'}"
        right = item["precision"] and f"{item['precision']['above']:.0%}"
        known = f" (about {right} of places at that limit are right)" if right else ""
        click.echo(f'"{shorten(item["query"], 80)}": {count} above {item["above"]:.2f}{known}, {best}')
        for kind in ("boxes", "heatmap", "picture"):
            if item[kind]:
                click.echo(f"  {kind:<8} {item[kind]}")
    if "classes" in report:
        click.echo(f"classes: {', '.join(report['classes']['names'])}\n  map      {report['classes']['path']}")
        click.echo(f"  picture  {report['classes']['picture']}")


@cli.command()
@click.argument("raster", type=PATH)
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...")
@finding
@sure
@click.option("--classes", is_flag=True, help="Also map each place to the question that fits it best.")
@click.option("--avoid", multiple=True, metavar="WORDS", help="What the answers should not be; may be repeated.")
@area
@looking
def ask(raster: Path, queries: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
    """Find what each QUERY names in RASTER.

    Writes regions (GeoPackage), a heatmap (GeoTIFF) and a picture (PNG) for each question.
    """
    from geoalign_core.answer import ask_texts, prepare
    from geoalign_core.grounding.text import clean_query
    from geoalign_core.outputs import summary, write_outputs

    names = [clean_query(query) for query in (*queries, *options["avoid"])][: len(queries)]
    choice = _filter(options)
    plan = _plan(options, raster, names, classes=options["classes"])
    _look_first(raster, options, plan)
    with (
        tqdm_progress() as progress,
        prepare(raster, settings_from(options), area=options["area"], progress=progress, words=True) as ready,
    ):
        _tell_pixel_mode(ready)
        answers, class_map, notes = ask_texts(
            ready, names, avoid=options["avoid"], choice=choice, classes=options["classes"], progress=progress
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
@click.argument("raster", type=PATH)
@click.option(
    "--box", "boxes_in", type=Box(), multiple=True, metavar="XMIN,YMIN,XMAX,YMAX", help="An example; may be repeated."
)
@click.option("--boxes-of", type=PATH, metavar="FILE", help="Take examples from a vector file.")
@click.option("--example", type=PATH, multiple=True, metavar="FILE", help="An image that shows an example.")
@click.option("--exclude", multiple=True, metavar="XMIN,YMIN,XMAX,YMAX|FILE", help="Not this; may be repeated.")
@click.option("--text", metavar="QUERY", help="A question that the finds should answer too.")
@finding
@area
@looking
def similar(raster: Path, **options: Any) -> None:  # noqa: ANN401
    """Find what looks like the examples in RASTER.

    One example is compared by cosine; several, or any excluded, train a small classifier on the index.
    """
    from geoalign_core.answer import ask_examples, prepare
    from geoalign_core.grounding.examples import example_image, read_places
    from geoalign_core.grounding.text import clean_query
    from geoalign_core.outputs import summary, write_outputs
    from tiling.errors import UsageError

    if not (options["boxes_in"] or options["boxes_of"] or options["example"]):
        raise UsageError("no example was given", remedy="use --box, --boxes-of or --example")
    name = clean_query(options["text"]) if options["text"] is not None else None
    choice = _filter(options)
    plan = _plan(options, raster, [name or "similar"])
    info = _look_first(raster, options, plan)
    include = read_places([*options["boxes_in"], *filter(None, [options["boxes_of"]])], info)
    exclude = read_places(options["exclude"], info)
    with (
        tqdm_progress() as progress,
        prepare(
            raster, settings_from(options), area=options["area"], progress=progress, words=name is not None
        ) as ready,
    ):
        _tell_pixel_mode(ready)
        images = [example_image(path, ready) for path in options["example"]]
        answer, notes = ask_examples(
            ready, include, exclude, images=images, text=name, choice=choice, progress=progress
        )
        with ready.timed("write"):
            write_outputs(plan, ready, [answer])
        report = summary(plan, ready, [answer], notes=notes)
    _finish(report, as_json=options["as_json"])


@cli.command()
@click.argument("rasters", nargs=-1, required=True, type=PATH, metavar="RASTER...")
@click.option("--verify", is_flag=True, help="Hash every file of an index that is already there.")
@area
@looking
def index(rasters: tuple[Path, ...], **options: Any) -> int:  # noqa: ANN401
    """Build the index of each RASTER, or bring it up to date."""
    from geoalign_core.answer import prepare
    from geoalign_core.models.registry import load_encoder
    from tiling.errors import CancelledError, GeoAlignError

    settings = settings_from(options)
    encoder = load_encoder(settings.model, device=settings.device, options=settings.encoder)
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
@click.argument("raster", type=PATH)
@area
@looking
def info(raster: Path, **options: Any) -> None:  # noqa: ANN401
    """Explain what asking RASTER would do."""
    from geoalign_core.explain import explain

    facts = explain(raster, settings_from(options), area=options["area"])
    if options["as_json"]:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        shown = "; ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{key.replace('_', ' '):<{width}}  {'-' if shown is None else shown}")


cli.add_command(features)
cli.add_command(models)
cli.add_command(engine)


def main() -> None:
    """Run the command line."""
    sys.exit(run_cli(cli))
