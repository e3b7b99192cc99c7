"""Frees the folder of the installed engine: Windows does not replace the files of a program that runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable

from qgis.PyQt.QtCore import QTimer

from .client import EngineClient
from .command import managed_folder
from .shared import shared

LOOK_MS = 50


def release(client: EngineClient, then: Callable[[], object]) -> None:
    """Stop the engines of the panel and of Processing, without waiting for them, and call `then` when they are gone.

    An engine of the panel that comes from elsewhere goes on.
    """
    choice = client.choice
    if choice is not None and managed_folder() in Path(choice.program).parents:
        client.dismiss(lambda: _release_shared(then))
    else:
        _release_shared(then)


def _release_shared(then: Callable[[], object]) -> None:
    if not shared.awake():
        then()
        return
    # to stop it means to wait for its thread, which is not for the thread of the windows
    stopping = threading.Thread(target=shared.stop)
    stopping.start()

    def look() -> None:
        if stopping.is_alive():
            QTimer.singleShot(LOOK_MS, look)
        else:
            then()

    look()
