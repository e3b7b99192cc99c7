"""What an installation of the engine consists of, and which of it is done already."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from qgis.PyQt.QtCore import QStorageInfo

from ..settings import Settings
from ..words import tr
from .command import ENGINE_VERSION, SERVE, environment_python, managed_folder
from .pythons import candidates

DOWNLOAD_MB = {False: 600, True: 3300}
"""What is downloaded, without and with CUDA; PyTorch is most of it."""
DISK_MB = {False: 2200, True: 8000}
"""What must be free before an installation starts: the environment and pip's copies while it works."""
OFFLINE_DISK_MB = 100
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu126"
# Ends the module it runs as soon as the standard input ends: with QGIS gone, nothing goes on writing.
GUARDED = (
    "import os, sys, runpy, threading\n"
    "def watch():\n"
    "    while os.read(0, 4096): pass\n"
    "    os._exit(1)\n"
    "threading.Thread(target=watch, daemon=True).start()\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
)


@dataclass(frozen=True)
class Step:
    """One step: `share` is its part of the whole time."""

    key: str
    title: str
    share: float


@dataclass(frozen=True)
class InstallPlan:
    """What would be installed, to be shown before anything happens.

    Attributes:
        folder: The environment that is made.
        size_mb: What is downloaded, about.
        disk_mb: What must be free.
        free_mb: What is free.
        python: The Python it is probably made with; each candidate is tried when it starts.
        cuda: Whether PyTorch comes with CUDA.
        wheels: A folder with all packages, instead of the network; empty for the network.
        source: A wheel or folder of GeoAlign itself, instead of the published version.
        steps: The steps.
    """

    folder: Path
    size_mb: int
    disk_mb: int
    free_mb: int
    python: str
    cuda: bool
    wheels: str
    source: str
    steps: tuple[Step, ...]

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.free_mb >= self.disk_mb


def plan_install(
    settings: Settings,
    cuda: bool | None = None,
    wheels: str | None = None,
    source: str = "",
    folder: Path | None = None,
    python: str = "",
) -> InstallPlan:
    """What an installation with these settings would do; looks only, and starts nothing.

    Args:
        settings: Give `engine_cuda` and `wheels_folder`.
        cuda: Overrides the setting.
        wheels: Overrides the setting.
        source: A wheel or folder of GeoAlign to install instead of the published version.
        folder: Where to; the managed folder when left out.
        python: The Python to use; looked for when left out.
    """
    cuda = (settings.engine_cuda if cuda is None else cuda) and sys.platform != "darwin"
    wheels = settings.wheels_folder if wheels is None else wheels
    folder = folder or managed_folder()
    if not python:
        found = candidates()
        python = " ".join(found[0]) if found else ""
    steps = [
        Step("probe", tr("Looking for Python"), 0.01),
        Step("venv", tr("Making the environment"), 0.06),
        Step("pip", tr("Updating the installer"), 0.03),
        Step("torch", tr("Installing PyTorch"), 0.55),
        Step("geoalign", tr("Installing GeoAlign"), 0.3),
        Step("verify", tr("Checking the packages"), 0.04),
        Step("hello", tr("Starting the engine once"), 0.01),
    ]
    if wheels:
        steps = [step for step in steps if step.key != "pip"]
    return InstallPlan(
        folder=folder,
        size_mb=0 if wheels else DOWNLOAD_MB[cuda],
        disk_mb=OFFLINE_DISK_MB if wheels else DISK_MB[cuda],
        free_mb=free_mb(folder),
        python=python,
        cuda=cuda,
        wheels=wheels,
        source=source,
        steps=tuple(steps),
    )


def free_mb(folder: Path) -> int:
    """Free space where `folder` is or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return int(QStorageInfo(str(folder)).bytesAvailable() // 1_000_000)


def command_of(step: str, plan: InstallPlan, base: list[str], cpu_index: bool) -> list[str]:
    """The command of a step.

    Args:
        step: Its key.
        plan: The plan.
        base: The command of the Python that makes the environment.
        cpu_index: Whether PyTorch's index of CPU packages answers.
    """
    if step == "venv":
        return [*base, "-c", GUARDED, "venv", "--clear", str(plan.folder)]
    python = str(environment_python(plan.folder) or plan.folder / "bin" / "python3")
    pip = [python, "-c", GUARDED, "pip", "install", "--no-input", "--disable-pip-version-check"]
    if plan.wheels:
        pip += ["--no-index", "--find-links", plan.wheels]
    else:
        pip += ["--progress-bar", "raw"] if step != "pip" else []
    if step == "pip":
        return [*pip, "--upgrade", "pip"]
    if step == "torch":
        return [*pip, *_torch(plan, cpu_index)]
    if step == "geoalign":
        return [*pip, plan.source or f"geoalign=={ENGINE_VERSION}"]
    if step == "verify":
        return [python, "-c", "import torch, geoalign_core"]
    return [python, "-m", "geoalign_core", *SERVE]


def _torch(plan: InstallPlan, cpu_index: bool) -> list[str]:
    if plan.wheels:
        return ["torch"]
    # torchvision must come from the same index: each build of it fits one build of torch only
    wanted = ["torch", "torchvision"]
    if not plan.cuda and sys.platform.startswith("linux") and cpu_index:
        return ["--index-url", CPU_INDEX, *wanted]
    if plan.cuda and sys.platform == "win32":
        return ["--index-url", CUDA_INDEX, *wanted]
    return wanted


class Stamps:
    """Which steps of a plan are done, kept beside the environment so that an interrupted installation goes on."""

    def __init__(self, plan: InstallPlan) -> None:
        self.path = plan.folder.with_name(plan.folder.name + ".installing.json")
        self._plan = {"cuda": plan.cuda, "wheels": plan.wheels, "source": plan.source, "version": ENGINE_VERSION}
        self.done = self._read()
        if environment_python(plan.folder) is None:
            self.done = []

    def add(self, step: str) -> None:
        """Mark a step as done."""
        if step not in self.done:
            self.done.append(step)
        self.write()

    def write(self) -> None:
        """Write the marker."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"plan": self._plan, "done": self.done}), encoding="utf-8")
        os.replace(part, self.path)

    def clear(self) -> None:
        """Take the marker away: the installation is complete."""
        self.path.unlink()

    def _read(self) -> list[str]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return [str(step) for step in stored["done"]] if stored["plan"] == self._plan else []
        except (OSError, ValueError, KeyError, TypeError):
            return []
