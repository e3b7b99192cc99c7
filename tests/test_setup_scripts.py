"""The set-up scripts on machines that lack something: they say so, loudly, and with the right code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
NEEDED = ("sh", "dirname", "cat", "cksum", "id")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for a POSIX shell")


def run(tmp_path: Path, script: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of a script with a search path that has only the basics and the given programs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        if found and name not in programs:
            (tools / name).symlink_to(found)
    for name, text in programs.items():
        path = tools / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
    folder = tmp_path / "repo" / ".ci"
    folder.mkdir(parents=True)
    # The script also looks for the system's Python by its full name.
    text = (REPO / ".ci" / script).read_text(encoding="utf-8").replace("/usr/bin/python3", "/nowhere/python3")
    (folder / script).write_text(text, encoding="utf-8")
    (tmp_path / "repo" / "pyproject.toml").touch()
    return subprocess.run(
        ["sh", str(folder / script)],
        env={"PATH": str(tools), "HOME": os.environ.get("HOME", "/")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_without_qgis_it_says_so_and_ends_with_3(tmp_path: Path) -> None:
    done = run(tmp_path, "setup-qgis", id="echo 1000")
    assert done.returncode == 3
    assert "QGIS IS NOT HERE" in done.stderr


def test_as_root_qgis_is_installed_first(tmp_path: Path) -> None:
    done = run(tmp_path, "setup-qgis", id="echo 0", apt_get='echo "$@" >&2', python3="exit 1")
    assert "install -y -qq --no-install-recommends qgis" in done.stderr
    assert done.returncode == 3
    assert "QGIS IS NOT HERE" in done.stderr


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path, "setup", id="echo 1000", python3="exit 1")
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def test_as_root_python_is_installed_first(tmp_path: Path) -> None:
    done = run(tmp_path, "setup", id="echo 0", apt_get='echo "$@" >&2')
    assert "install -y -qq python3" in done.stderr
    assert done.returncode == 1
