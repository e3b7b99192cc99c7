"""A whole QGIS under Xvfb: the plugin is installed and enabled, a question is typed, its layers are on the map."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QImage, qGray

from tests.qgis.conftest import REPO


def bare_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("QT_QPA", "XDG_"))}


def difference(first: QImage, second: QImage) -> float:
    """Mean difference of two pictures in grey levels of 255, on a coarse grid that forgives a pixel here and there."""
    size = QSize(120, 80)
    small = [
        picture.scaled(size, Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation)
        for picture in (first, second)
    ]
    places = [(x, y) for x in range(size.width()) for y in range(size.height())]
    return sum(abs(qGray(small[0].pixel(x, y)) - qGray(small[1].pixel(x, y))) for x, y in places) / len(places)


@pytest.mark.desktop
def test_the_ten_states_look_as_in_the_docs(tmp_path):
    if not shutil.which("xvfb-run"):
        pytest.skip("needs xvfb-run")
    command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24", sys.executable, "docs/panel_states.py", str(tmp_path)]
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=REPO, env=bare_environment(), stdout=output, stderr=output, timeout=120, check=False
        )
    assert done.returncode == 0, log.read_text()[-2000:]
    pictures = {}
    for name in ("panel-states.png", "panel-states-dark.png"):
        pictures[name] = QImage(str(tmp_path / name))
        assert difference(pictures[name], QImage(str(REPO / "docs" / "images" / name))) < 6
    assert difference(*pictures.values()) > 60  # the measure tells light from dark


@pytest.mark.desktop
@pytest.mark.engine
@pytest.mark.parametrize("look", [[], ["--dark"]], ids=["light", "dark"])
def test_a_question_in_a_whole_qgis(tmp_path, engine_python, look):
    if not (shutil.which("xvfb-run") and shutil.which("qgis")):
        pytest.skip("needs xvfb-run and the qgis program")
    picture = tmp_path / "desktop.png"
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, str(REPO / "docs" / "desktop.py"), str(picture), *look],
            env={**bare_environment(), "GEOALIGN_PYTHON": engine_python}, stdout=output, stderr=output, timeout=240,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-2000:]
    image = QImage(str(picture))
    assert (image.width(), image.height()) == (1440, 900)
    assert len({image.pixel(x, y) for x in range(300, 1040, 7) for y in range(150, 850, 7)}) > 500
