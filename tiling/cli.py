"""``geoalign-tile``: cut rasters into georeferenced tiles."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiling.clikit import EXIT_PARTIAL, explain, note, run_cli, tqdm_progress
from tiling.errors import CancelledError, GeoAlignError

if TYPE_CHECKING:
    from tiling.chips import ChipPlan, ChipSpec
    from tiling.raster import OpenPolicy, Raster

_EDGES = ("shift", "pad", "partial", "drop")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("rasters", metavar="RASTER...", nargs=-1, required=True)
@click.option("-o", "--output", "folder", metavar="DIR", required=True, help="Folder for the tiles.")
@click.option("--tile", default="512px", show_default=True, metavar="LENGTH", help="Side of a tile: 512px or 100m.")
@click.option("--overlap", default="0px", show_default=True, metavar="LENGTH", help="64px, 10m, or 20% of the tile.")
@click.option("--edge", type=click.Choice(_EDGES), default="shift", show_default=True, help="What the last tile does.")
@click.option("--gsd", metavar="METRES", help="Resample to this ground resolution, such as 0.3m.")
@click.option("--bands", metavar="N,N,N", help="Bands to keep, such as 4,1,2; all by default.")
@click.option("--stretch", metavar="HOW", help="Make 8-bit pictures: auto, p2-98, min-max, LOW,HIGH, none, FILE.json.")
@click.option("--aoi", metavar="AREA", help="xmin,ymin,xmax,ymax[@CRS] or a vector file; only tiles that touch it.")
@click.option("--min-valid", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Least valid share.")
@click.option("--format", "suffix", type=click.Choice(["tif", "png"]), default="tif", show_default=True)
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads.")
@click.option("--overwrite", is_flag=True, help="Replace tiles that are already there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on stdout.")
@click.option("--allow-vrt", is_flag=True, help="Open virtual rasters, which may read any file they name.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="geoalign", prog_name="geoalign-tile")
def command(rasters: tuple[str, ...], folder: str, **options: Any) -> int:  # noqa: ANN401 - click's own names
    """Cut RASTERs into tiles named STEM_r0003_c0012.tif, with a manifest STEM_tiles.parquet.

    Tiles keep the raster's samples, bands and exact place unless --gsd, --bands or --stretch say otherwise.
    A stopped job goes on when the same command is run again.
    """
    from tiling.chips import check_stems
    from tiling.raster import OpenPolicy

    spec = _spec(options)
    check_stems([Path(raster) for raster in rasters])
    policy = OpenPolicy(allow_vrt=options["allow_vrt"])
    done: list[dict[str, Any]] = []
    failed: list[int] = []
    for raster in rasters:
        try:
            done.append(_cut_one(raster, spec, Path(folder), policy, options))
        except CancelledError:
            raise
        except GeoAlignError as error:
            if options["debug"] or len(rasters) == 1:
                raise
            failed.append(explain(error))
    _report(done, options)
    if not failed:
        return 0
    return EXIT_PARTIAL if done else failed[0]


def _spec(options: dict[str, Any]) -> ChipSpec:
    from tiling.chips import ChipSpec
    from tiling.errors import UsageError
    from tiling.grid import Length

    gsd = None if options["gsd"] is None else Length.parse(options["gsd"].removesuffix("m") + "m").value
    if gsd == 0:
        raise UsageError("the ground resolution must be a positive number of metres", measured="0")
    tile = Length.parse(options["tile"])
    if tile.value <= 0:
        raise UsageError("a tile must have a size", measured=options["tile"], remedy="write it like 512px or 100m")
    return ChipSpec(
        tile=tile,
        overlap=Length.parse(options["overlap"]),
        edge=options["edge"],
        gsd_m=gsd,
        bands=options["bands"],
        stretch=options["stretch"],
        area=options["aoi"],
        min_valid=options["min_valid"],
        suffix=options["suffix"],
    )


def _cut_one(path: str, spec: ChipSpec, folder: Path, policy: OpenPolicy, options: dict[str, Any]) -> dict[str, Any]:
    from tiling.chips import cut_chips, plan_chips
    from tiling.raster import open_raster

    begun = time.monotonic()
    with open_raster(path, policy=policy) as raster:
        plan = plan_chips(raster, spec)
        _tell_notes(raster, plan)
        facts = {"raster": str(raster.path), "gsd_m": plan.canvas.gsd_m, "tile_px": plan.grid.tile_px}
        if options["dry_run"]:
            return {**facts, "windows": plan.count()}
        with tqdm_progress() as progress:
            chips = cut_chips(
                raster, plan, folder, jobs=options["jobs"], overwrite=options["overwrite"], progress=progress
            )
    written = sum(bool(chip.path) for chip in chips)
    return {
        **facts,
        "tiles": written,
        "left_out": len(chips) - written,
        "manifest": str(folder / f"{plan.stem}_tiles.parquet"),
        "seconds": round(time.monotonic() - begun, 3),
    }


def _tell_notes(raster: Raster, plan: ChipPlan) -> None:
    reason = raster.info.why_no_metres()
    if reason:
        note(f"{raster.path}: works in pixels, for {reason}")
    if plan.canvas.is_clamped:
        note(f"{raster.path}: is too coarse for {plan.canvas.requested_gsd_m:g} m; tiles have {plan.canvas.gsd_m:g} m")
    if plan.picture is not None and plan.picture[0].note:
        note(f"{raster.path}: {plan.picture[0].note}")


def _report(done: list[dict[str, Any]], options: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps({"rasters": done}))
        return
    for facts in done:
        if options["dry_run"]:
            click.echo(f"{facts['raster']}: {facts['windows']} windows of {facts['tile_px']} px", err=True)
        else:
            click.echo(f"{facts['raster']}: {facts['tiles']} tiles, {facts['left_out']} left out", err=True)


def main() -> None:
    """Run the command and leave with its exit code."""
    sys.exit(run_cli(command))


if __name__ == "__main__":
    main()
