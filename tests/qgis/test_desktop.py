"""A whole QGIS under Xvfb: the plugin is installed and enabled, a question is typed, its layers are on the map."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from qgis.PyQt.QtGui import QImage

from tests.qgis.conftest import REPO


@pytest.mark.desktop
@pytest.mark.engine
@pytest.mark.parametrize("look", [[], ["--dark"]], ids=["light", "dark"])
def test_a_question_in_a_whole_qgis(tmp_path, engine_python, look):
    if not (shutil.which("xvfb-run") and shutil.which("qgis")):
        pytest.skip("needs xvfb-run and the qgis program")
    picture = tmp_path / "desktop.png"
    log = tmp_path / "log.txt"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("QT_QPA", "XDG_"))}
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, str(REPO / "docs" / "desktop.py"), str(picture), *look],
            env={**environment, "GEOALIGN_PYTHON": engine_python}, stdout=output, stderr=output, timeout=240,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-2000:]
    image = QImage(str(picture))
    assert (image.width(), image.height()) == (1440, 900)
    assert len({image.pixel(x, y) for x in range(300, 1040, 7) for y in range(150, 850, 7)}) > 500
