"""``geoalign-eval suite``: many measurements in one command."""

from __future__ import annotations

from pathlib import Path

import click

from training.evaluation.opening import CACHE, DEVICE, MODEL, PRECISION, cache_folder, model_loader


@click.command(short_help="Many measurements of one model, from a JSON file.")
@click.argument("path", metavar="SUITE", type=click.Path(dir_okay=False, path_type=Path))
@MODEL
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of results.")
@click.option("--again", is_flag=True, help="Measure also what has a result of this model on this data.")
@DEVICE
@PRECISION
@CACHE
@click.option("--trust-pickle", is_flag=True, help="Read data sets that come as Python pickles.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def suite(
    path: Path, model: str, out: Path, again: bool, device: str, precision: str, cache: Path | None, trust_pickle: bool
) -> int:
    """Run the measurements of SUITE, one result file each; those that are there are kept.

    One that fails stops no other; the command then ends with 1 and a line for each.
    """
    from tiling.clikit import tqdm_progress
    from tiling.progress import CancelToken
    from training.evaluation.suite import Outcome, read_suite, run_suite

    measurements = read_suite(path)
    failed: list[Outcome] = []
    try:
        with tqdm_progress() as progress:
            encoder = model_loader({"model": model, "device": device, "precision": precision}, {}, progress)
            for number, item in enumerate(
                run_suite(
                    measurements, encoder, out, cache=cache or cache_folder(), progress=progress, cancel=CancelToken(),
                    again=again, trust_pickle=trust_pickle, model=model,
                ), start=1,
            ):  # fmt: skip
                said = "failed" if item.error else "there already" if item.kept else "measured"
                click.echo(f"{number}/{len(measurements)} {item.measurement.name}: {said}")
                failed += [item] if item.error else []
    finally:  # also of a run that is stopped: it does not tell again what it has measured
        for item in failed:
            click.echo(f"failed: {item.measurement.name}: {item.error}", err=True)
    return 1 if failed else 0
