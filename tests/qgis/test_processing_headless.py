"""The plugin as it is installed, in ``qgis_process``: enabled, listed, explained, and run on the sample."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from qgis.core import QgsVectorLayer

REPO = Path(__file__).resolve().parents[2]

# Debian's wrapper passes an option that the program does not know.
PROGRAM = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="qgis_process is not installed")


@pytest.fixture(scope="module")
def qgis_process(tmp_path_factory, engine_python):
    """Run ``qgis_process`` with a profile of its own that has the plugin."""
    folder = tmp_path_factory.mktemp("headless")
    plugins = folder / "profile"
    build = [sys.executable, str(REPO / ".ci" / "plugin"), "--out", str(folder / "dist"), "install", str(plugins)]
    subprocess.run(build, check=True, capture_output=True)
    environment = {
        **os.environ,
        "QGIS_CUSTOM_CONFIG_PATH": str(folder / "config"),
        "QGIS_PLUGINPATH": str(plugins / "python" / "plugins"),
        "QT_QPA_PLATFORM": "offscreen",
        "GEOALIGN_PYTHON": engine_python,
    }

    def run(*arguments: str, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
        command = [str(PROGRAM), *arguments]
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=180, check=False
        )

    enabled = run("plugins", "enable", "geoalign")
    assert enabled.returncode == 0, enabled.stdout + enabled.stderr
    return run


def test_it_lists_and_explains(qgis_process):
    listed = qgis_process("list")
    assert "geoalign:asklayer" in listed.stdout
    explained = qgis_process("help", "geoalign:asklayer")
    assert explained.returncode == 0
    assert "What to look for, in English" in explained.stdout


def test_it_asks(qgis_process, indexed_sample, tmp_path):
    target = tmp_path / "water.gpkg"
    done = qgis_process(
        "--json", "run", "geoalign:asklayer", "--", f"INPUT={indexed_sample}", "QUERY=water", "THRESHOLD=0.4",
        f"OUTPUT={target}", f"HEATMAP={tmp_path / 'water.tif'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)["results"]
    assert results["COUNT"] == QgsVectorLayer(str(target)).featureCount() > 0
    assert (tmp_path / "water.tif").is_file()


def test_it_refuses_an_empty_question(qgis_process, indexed_sample, tmp_path):
    done = qgis_process(
        "run", "geoalign:asklayer", "--", f"INPUT={indexed_sample}", "QUERY=;", f"OUTPUT={tmp_path / 'none.gpkg'}"
    )
    assert done.returncode != 0
    assert "Type what to look for" in done.stdout + done.stderr


def test_relative_names_an_index_and_no_orphan(qgis_process, sample):
    begun = time.monotonic()
    done = qgis_process(
        "--json", "run", "geoalign:asklayer", "--", "INPUT=canal.tif", "QUERY=water", "SHAPE=1",
        "OUTPUT=found.gpkg", "HEATMAP=heat.tif", cwd=sample.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - begun < 120
    assert Path(f"{sample}.geoalign").is_dir()
    assert (sample.parent / "heat.tif").is_file()
    assert "killTimer" not in done.stderr
    time.sleep(1)
    assert not engines(), "the engine outlives QGIS"


def engines() -> list[str]:
    """The ids of the engines that this test run has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"geoalign_core" in command and os.environ["GEOALIGN_CACHE"].encode() in environment:
            found.append(folder.name)
    return found
