"""Shared fixtures: where the optional development data lies, and small rasters made on the spot."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

REPO = Path(__file__).resolve().parents[1]
os.environ.setdefault("GEOALIGN_PRECISION", "float32")  # figures must not depend on what this CPU is fast at

# A shell's background jobs ignore SIGINT, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The development data, or skip."""
    folder = Path(os.environ.get("GEOALIGN_DATA", REPO.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip("development data is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def sample_path() -> Path:
    """The sample image that the repository carries."""
    return REPO / "samples" / "canal.tif"


@pytest.fixture
def make_raster(tmp_path):
    """Write a GeoTIFF from an array (bands, height, width) and give its path."""

    def write(
        array, name="image.tif", *, crs="EPSG:32631", res=0.5, origin=(500000.0, 5800000.0), transform=None, **profile
    ):
        array = np.asarray(array)
        path = tmp_path / name
        transform = transform or from_origin(*origin, res, res)
        profile = {
            "driver": "GTiff",
            "count": array.shape[0],
            "height": array.shape[1],
            "width": array.shape[2],
            "dtype": array.dtype,
            "crs": crs,
            "transform": transform,
            **profile,
        }
        with rasterio.open(path, "w", **profile) as out:
            out.write(array)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A CLIP with random weights in open_clip's hub layout: quick, and blind, so for plumbing only."""
    from tests.tiny_model import write_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_model(folder)
    return folder


@pytest.fixture
def geoalign(capsys):
    """Run the command line in this process: ``geoalign("ask", path, …)`` gives (exit code, stdout, stderr)."""
    from geoalign_core.cli import cli
    from tiling.clikit import run_cli

    def run(*args):
        code = run_cli(cli, [str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run
