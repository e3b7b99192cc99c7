"""``geoalign-tile``: cut rasters into georeferenced tiles, and stitch what a model made of them back together."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tiling.clikit import EXIT_PARTIAL, note, run_cli, tqdm_progress
from tiling.errors import CancelledError, GeoAlignError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiling.chips.cut import Cut
    from tiling.chips.job import Job
    from tiling.chips.spec import ChipSpec, LabelSpec, SplitSpec
    from tiling.raster import Raster

_EDGES = ("shift", "pad", "partial", "drop")
_FORMATS = ("tif", "cog", "png", "jpg", "webp", "npy")
_LABELS = ("coco", "yolo", "yolo-obb", "geojson", "geoparquet", "mask")
_OF_STITCHING = {"stitch", "output", "how", "manifest", "overwrite", "as_json", "debug"}
_SHOWN_FAILURES = 20
_JOBS = min(8, os.cpu_count() or 2)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("rasters", metavar="[RASTER]...", nargs=-1)
@click.option("-o", "--output", metavar="DIR", required=True, help="Folder for the tiles; with --stitch also a .tif.")
@click.option("--stitch", metavar="DIR", help="Join the tiles, or what a model made of them, back into one COG.")
@click.option("--how", type=click.Choice(["hann", "nearest"]), default="hann", show_default=True,
              help="With --stitch: blend the overlaps, or take each pixel from one tile (class maps).")  # fmt: skip
@click.option("--manifest", metavar="FILE", help="Where the manifest goes, or for --stitch where it lies.")
@click.option("--tile", default="512px", show_default=True, metavar="LENGTH", help="Side of a tile: 512px or 100m.")
@click.option("--overlap", default="0px", show_default=True, metavar="LENGTH", help="64px, 10m, or 20% of the tile.")
@click.option("--edge", type=click.Choice(_EDGES), default="shift", show_default=True, help="What the last tile does.")
@click.option("--gsd", metavar="METRES", help="Resample to this ground resolution, such as 0.3m.")
@click.option("--crs", metavar="CRS", help="Warp to this CRS, such as EPSG:3857; never done unasked.")
@click.option("--mosaic", is_flag=True, help="Cut the rasters as if they were one.")
@click.option("--bands", metavar="N,N,N", help="Bands to keep, such as 4,1,2; all by default.")
@click.option("--stretch", metavar="HOW", help="Make 8-bit samples: auto, p2-98, min-max, LOW,HIGH, none, FILE.json.")
@click.option("--stretch-over", type=click.Choice(["raster", "collection"]), default="raster", show_default=True,
              help="One stretch for each raster, or one for all.")  # fmt: skip
@click.option("--dtype", metavar="TYPE", help="Type of the samples written, such as float32; rounded and clipped.")
@click.option("--aoi", metavar="AREA", help="xmin,ymin,xmax,ymax[@CRS] or a vector file; only tiles that touch it.")
@click.option("--min-valid", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Leave out tiles with a smaller share of valid pixels.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(_FORMATS), default="tif", show_default=True)
@click.option("--labels", metavar="FILE", help="Vector file whose shapes are cut along with the tiles.")
@click.option("--labels-format", type=click.Choice(_LABELS), default="coco", show_default=True)
@click.option("--label-field", metavar="NAME", help="Column with the class; found when its name says so.")
@click.option("--min-visible", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Leave out labels of which a smaller share lies in the tile; keep 0 for land cover.")  # fmt: skip
@click.option("--only-labelled", is_flag=True, help="Leave out tiles without a label.")
@click.option("--split", metavar="SHARES", help="Parts that share no ground, such as train=0.8,val=0.1,test=0.1.")
@click.option("--split-block", metavar="LENGTH", help="Side of the blocks that go to one part, such as 1000m.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed deals the blocks differently."
)
@click.option("--stac", is_flag=True, help="Also write a STAC collection with an item per tile.")
@click.option("--datetime", "when", type=click.DateTime(), metavar="WHEN",
              help="When the images were taken, for STAC: 2026-05-31T10:20:00, in UTC.")  # fmt: skip
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=_JOBS,
    help="Threads that read; as many as there are processors, up to 8.",
)
@click.option("--resume", is_flag=True, help="Complete what is there; a stopped job goes on without it too.")
@click.option("--overwrite", is_flag=True, help="Replace the tiles of an earlier job.")
@click.option("--max-tiles", type=click.IntRange(1), default=500_000, show_default=True, help="Refuse more.")
@click.option("--dry-run", is_flag=True, help="Say what would be done: windows, reads, memory, bytes, time.")
@click.option("--picture", metavar="FILE.png", help="Draw the tiles over a preview of the raster.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on stdout.")
@click.option("--allow-vrt", is_flag=True, help="Open virtual rasters, which may read any file they name.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="geoalign", prog_name="geoalign-tile")
def command(rasters: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401 - click's own names
    """Cut RASTERs into tiles named STEM_r0003_c0012.tif, with a manifest tiles.parquet.

    \b
    geoalign-tile site.tif -o tiles --tile 512px --overlap 20%
    geoalign-tile *.tif -o set --gsd 0.3m --labels roofs.gpkg --labels-format yolo --split train=0.8,val=0.2
    geoalign-tile --stitch predictions --manifest tiles/tiles.parquet -o map.tif

    Tiles keep the raster's samples, bands and exact place unless --gsd, --crs, --bands, --stretch or --dtype say
    otherwise. A stopped job goes on when the same command is run again.
    """  # noqa: D301 - \b keeps click from joining the lines
    if not options["output"]:
        raise UsageError("-o needs a name", remedy="give -o DIR")
    if options["stitch"] is not None:
        _refuse_tiling_options(rasters)
        return _stitch(options)
    if not rasters:
        raise click.UsageError("Missing argument 'RASTER...'.")
    if options["resume"] and options["overwrite"]:
        raise UsageError("--resume keeps what is there and --overwrite removes it", remedy="leave one of them away")
    return _tile(rasters, options)


def _refuse_tiling_options(rasters: tuple[str, ...]) -> None:
    """Say so where an option of cutting is given to stitching, which would ignore it."""
    if rasters:
        raise UsageError("--stitch takes no raster", measured=rasters[0], remedy="give --stitch DIR -o OUT.tif")
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
        if given and parameter.name not in _OF_STITCHING:
            raise UsageError(f"{parameter.opts[0]} has no meaning with --stitch", remedy="leave it away")


def _tile(names: tuple[str, ...], options: dict[str, Any]) -> int:
    from tiling.chips.job import plan_job

    begun = time.monotonic()
    spec, labels, split = _spec(options), _labels(options), _split(options)
    with ExitStack() as stack:
        rasters, unopened = _open_all(names, spec, options, stack)
        job = plan_job(
            rasters, spec, labels=labels, split=split, jobs=options["jobs"], max_tiles=options["max_tiles"],
            needs_crs=options["stac"],
        )  # fmt: skip
        job = replace(job, failures=(*unopened, *job.failures))
        _tell(job)
        if options["picture"] is not None:
            _draw(job, Path(options["picture"]), overwrite=options["overwrite"])
        if options["dry_run"]:
            _explain(job, options)
            return EXIT_PARTIAL if job.failures else 0
        try:
            cut = _cut(job, options)
        except KeyboardInterrupt:
            remedy = "run it again with --resume, and without --overwrite, to go on where it stopped"
            raise CancelledError("stopped", remedy=remedy) from None
    _report(job, cut, time.monotonic() - begun, options)
    _tell_failures(cut.manifest.failures[len(job.failures) :])
    return EXIT_PARTIAL if cut.manifest.failures else 0


def _cut(job: Job, options: dict[str, Any]) -> Cut:
    from tiling.chips.cut import run_job

    folder = Path(options["output"])
    with tqdm_progress() as progress:
        cut = run_job(
            job, folder, jobs=options["jobs"], resume=options["resume"], overwrite=options["overwrite"],
            table=None if options["manifest"] is None else Path(options["manifest"]), progress=progress,
        )  # fmt: skip
        if options["stac"]:
            from tiling.chips.stac import raster_datetime, write_stac

            times = {}
            for work in job.works:
                times[work.source.name] = options["when"] or raster_datetime(work.raster)
                work.raster.rest()
            write_stac(cut.manifest, folder, datetime_utc=times, progress=progress)
    return cut


def _open_all(
    names: tuple[str, ...], spec: ChipSpec, options: dict[str, Any], stack: ExitStack
) -> tuple[list[Raster], list[dict[str, str]]]:
    """Open what can be opened, and say what cannot; of one raster, or of a mosaic's, every error ends the job."""
    from tiling.raster import OpenPolicy, open_raster

    policy = OpenPolicy(allow_vrt=options["allow_vrt"])
    if options["mosaic"]:
        from tiling.mosaic import open_mosaic

        return [_warped(stack.enter_context(open_mosaic(names, policy=policy)), spec, stack)], []
    rasters: list[Raster] = []
    failures: list[dict[str, str]] = []
    first: GeoAlignError | None = None
    for name in names:
        try:
            raster = _warped(stack.enter_context(open_raster(name, policy=policy)), spec, stack)
        except GeoAlignError as error:
            failures.append({"path": name, "error": str(error)})
            first = first or error
        else:
            raster.rest()
            rasters.append(raster)
    if not rasters and first is not None:
        _tell_failures(failures[1:])
        raise first
    return rasters, failures


def _warped(raster: Raster, spec: ChipSpec, stack: ExitStack) -> Raster:
    if spec.crs is None:
        return raster
    from tiling.warp import warp_raster

    return stack.enter_context(warp_raster(raster, spec.crs, gsd_m=spec.gsd_m))


def _spec(options: dict[str, Any]) -> ChipSpec:
    from tiling.chips.spec import ChipSpec
    from tiling.grid import Length

    gsd = None if options["gsd"] is None else Length.parse(options["gsd"].removesuffix("m") + "m").value
    if gsd == 0:
        raise UsageError("the ground resolution must be a positive number of metres", measured="0")
    tile = Length.parse(options["tile"])
    if tile.value <= 0 or tile.unit == "%":
        raise UsageError("is not the size of a tile", measured=options["tile"], remedy="write it like 512px or 100m")
    return ChipSpec(
        tile=tile,
        overlap=Length.parse(options["overlap"]),
        edge=options["edge"],
        gsd_m=gsd,
        crs=options["crs"],
        bands=options["bands"],
        stretch=options["stretch"],
        stretch_over=options["stretch_over"],
        dtype=options["dtype"],
        area=options["aoi"],
        min_valid=options["min_valid"],
        format=options["form"],
    )


def _labels(options: dict[str, Any]) -> LabelSpec | None:
    if options["labels"] is None:
        if options["only_labelled"]:
            raise UsageError("--only-labelled needs labels", remedy="add --labels FILE")
        return None
    from tiling.chips.spec import LabelSpec

    return LabelSpec(
        path=Path(options["labels"]),
        format=options["labels_format"],
        field=options["label_field"],
        min_visible=options["min_visible"],
        only_labelled=options["only_labelled"],
    )


def _split(options: dict[str, Any]) -> SplitSpec | None:
    if options["split"] is None:
        return None
    from tiling.chips.spec import SplitSpec

    return SplitSpec.parse(options["split"], block=options["split_block"], seed=options["seed"])


def _tell_failures(failures: Sequence[dict[str, str]]) -> None:
    for failure in failures[:_SHOWN_FAILURES]:
        click.echo(f"error: {failure['error']}", err=True)
    if len(failures) > _SHOWN_FAILURES:
        note(f"{len(failures) - _SHOWN_FAILURES:,} more rasters failed")


def _tell(job: Job) -> None:
    _tell_failures(job.failures)
    for line in job.notes:
        note(line)
    for work in job.works:
        raster, canvas, pixels = work.raster, work.tiles.canvas, work.tiles.pixels
        reason = raster.info.why_no_metres()
        if reason:
            note(f"{raster.path}: works in pixels, for {reason}")
        if canvas.is_clamped:
            note(f"{raster.path}: is too coarse for {canvas.requested_gsd_m:g} m; tiles have {canvas.gsd_m:g} m")
        overview = raster.source_overview(canvas.overview)
        if overview > 1:
            note(f"{raster.path}: tiles are read from the overview 1:{overview}")
        if pixels.picture is not None and pixels.picture.note:
            note(f"{raster.path}: {pixels.picture.note}")


def _draw(job: Job, path: Path, *, overwrite: bool) -> None:
    from tiling.chips.picture import draw_plan

    if path.suffix.lower() != ".png":
        raise UsageError("is not the name of a picture", path=path, remedy="let it end in .png")
    for work in job.works:
        target = path if len(job.works) == 1 else path.with_name(f"{path.stem}_{work.source.name}{path.suffix}")
        if target.resolve() in job.inputs():
            raise UsageError("is an input of this job", path=target, remedy="give another name")
        layout, labels = work.tiles.layout, work.labels
        draw_plan(
            work.raster, layout.canvas, layout.grid, layout.windows, path=target, left_out=work.dropped,
            parts=None if job.split is None else work.parts, area=layout.area,
            labels=None if labels is None else [len(labels.cut(window)) for window in layout.windows],
            overwrite=overwrite,
        )  # fmt: skip
        work.raster.rest()
        note(f"{target}: shows the plan")


def _explain(job: Job, options: dict[str, Any]) -> None:
    from tiling.chips.explain import forecast

    forecasts = forecast(job, jobs=options["jobs"])
    if options["as_json"]:
        click.echo(json.dumps({"rasters": [item.to_dict() for item in forecasts], "left_out": dict(job.left_out)}))
        return
    for item in forecasts:
        click.echo(str(item))
    _tell_left_out(dict(job.left_out))


def _report(job: Job, cut: Cut, seconds: float, options: dict[str, Any]) -> None:
    manifest = cut.manifest
    if options["as_json"]:
        counts = [0] * len(manifest.sources)
        for chip in manifest.chips:
            counts[chip.source] += 1
        rasters = [
            {"raster": source.path, "tiles": count, "gsd_m": source.gsd_m, "tile_px": source.grid.tile_px}
            for source, count in zip(manifest.sources, counts, strict=True)
        ]
        facts = {
            "rasters": rasters,
            "tiles": len(manifest.chips),
            "written": cut.written,
            "left_out": manifest.left_out,
            "labels": [str(path) for path in cut.labels],
            "manifest": str(cut.table),
            "failures": list(manifest.failures),
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(facts))
        return
    there = len(manifest.chips) - cut.written
    already = f", {there:,} were there" if there else ""
    what = f"{len(job.works)} rasters" if len(job.works) > 1 else str(job.works[0].raster.path)
    click.echo(f"{what}: {len(manifest.chips):,} tiles in {seconds:.1f} s{already}; {cut.table}", err=True)
    _tell_left_out(manifest.left_out)


def _tell_left_out(left_out: dict[str, int]) -> None:
    for reason, count in left_out.items():
        if count:
            note(f"{count:,} windows left out: {reason}")


def _stitch(options: dict[str, Any]) -> int:
    from tiling.chips.stitch import stitch

    manifest = None if options["manifest"] is None else Path(options["manifest"])
    begun = time.monotonic()
    with tqdm_progress() as progress:
        paths = stitch(
            Path(options["stitch"]), Path(options["output"]), manifest=manifest, how=options["how"],
            overwrite=options["overwrite"], note=note, progress=progress,
        )  # fmt: skip
    seconds = time.monotonic() - begun
    if options["as_json"]:
        click.echo(json.dumps({"rasters": [str(path) for path in paths], "seconds": round(seconds, 3)}))
        return 0
    for path in paths:
        click.echo(f"{path}: stitched in {seconds:.1f} s", err=True)
    return 0


def main() -> None:
    """Run the command and leave with its exit code."""
    sys.exit(run_cli(command))


if __name__ == "__main__":
    main()
