"""Peers in environments of their own, made once under the user's cache folder; what cannot be had is left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = user_cache_path("geoalign") / "benchmarks"
_DEBIAN_PYTHON = "/usr/bin/python3"
_GDAL = ("gdal-bin", "python3-gdal")
_VERSIONS = "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"


@dataclass(frozen=True)
class Peer:
    """How to start a peer."""

    command: list[str]
    version: str
    environ: dict[str, str] = field(default_factory=dict)


def run(
    command: list[str], environ: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever it returns."""
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env=os.environ | (environ or {})
    )


def python_peer(name: str, *packages: str) -> Peer | None:
    """Return an interpreter that has some packages of the package index, or None after telling why not."""
    folder = FOLDER / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"installing {', '.join(packages)} in {folder} …", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        done = run([str(python), "-m", "pip", "install", "-q", *packages])
        if done.returncode:
            print(f"left out: {name} cannot be installed: {last_line(done.stderr)}")
            return None
        ready.touch()
    told = run([str(python), "-c", _VERSIONS, *packages])
    return Peer([str(python)], told.stdout.strip())


def gdal_retile() -> Peer | None:
    """Return gdal_retile.py: the installed one, else Debian's unpacked in the cache folder. No wheel carries it."""
    environ: dict[str, str] = {}
    command = [shutil.which("gdal_retile.py") or ""]
    if not command[0]:
        root = FOLDER / "gdal"
        if not (root / "ready").exists() and not _unpack(root):
            return None
        machine = sorted(root.glob("usr/lib/*-linux-gnu"))[:1]
        libraries = [root / "usr" / "lib", *machine, *(path / name for path in machine for name in ("blas", "lapack"))]
        environ = {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "PYTHONPATH": str(root / "usr" / "lib" / "python3" / "dist-packages"),
            "GDAL_DATA": str(root / "usr" / "share" / "gdal"),
            "PROJ_LIB": str(root / "usr" / "share" / "proj"),
        }
        command = [_DEBIAN_PYTHON, str(root / "usr" / "bin" / "gdal_retile.py")]
    told = run([_DEBIAN_PYTHON, "-c", "from osgeo import gdal; print('GDAL', gdal.__version__)"], environ)
    if told.returncode:
        print(f"left out: gdal_retile.py does not start: {last_line(told.stderr)}")
        return None
    return Peer(command, told.stdout.strip(), environ)


def _unpack(root: Path) -> bool:
    """Download Debian's packages and what they need beyond this machine, without installing them."""
    if not shutil.which("apt-get"):
        print("left out: gdal_retile.py is not installed, and this is no Debian to take it from")
        return False
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    print(f"unpacking {' and '.join(_GDAL)} in {root} …", flush=True)
    plan = run(["apt-get", "install", "-s", "--no-install-recommends", *_GDAL])
    wanted = [line.split()[1] for line in plan.stdout.splitlines() if line.startswith("Inst ")]
    got = run(["apt-get", "download", "-q", *wanted], cwd=root)
    if not wanted or got.returncode:
        print(f"left out: gdal_retile.py cannot be downloaded: {last_line(plan.stderr + got.stderr)}")
        return False
    for package in root.glob("*.deb"):
        run(["dpkg", "-x", str(package), str(root)])
        package.unlink()
    (root / "ready").touch()
    return True


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
