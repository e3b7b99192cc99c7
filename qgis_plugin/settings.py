"""The plugin's own settings, kept in the QGIS profile; what belongs to a map lives in its project instead."""

from __future__ import annotations

from qgis.core import QgsSettings

GROUP = "geoalign/"
MODES = ("auto", "command", "managed", "address")
RECENT_QUESTIONS = 20


class _Text:
    """A text setting as an attribute."""

    def __init__(self, key: str, default: str = "") -> None:
        self.key, self.default = GROUP + key, default

    def __get__(self, owner: object, kind: type | None = None) -> str:
        return str(QgsSettings().value(self.key, self.default) or self.default)

    def __set__(self, owner: object, value: str) -> None:
        QgsSettings().setValue(self.key, str(value).strip())


class _Flag:
    """A yes-or-no setting as an attribute."""

    def __init__(self, key: str) -> None:
        self.key = GROUP + key

    def __get__(self, owner: object, kind: type | None = None) -> bool:
        return str(QgsSettings().value(self.key, "false")).lower() in ("true", "1")

    def __set__(self, owner: object, value: bool) -> None:
        QgsSettings().setValue(self.key, "true" if value else "false")


class Settings:
    """Settings read and written through `QgsSettings`, from any thread; each access sees the newest value."""

    engine_command = _Text("engine_command")
    engine_address = _Text("engine_address")
    authcfg = _Text("authcfg")
    device = _Text("device")
    model = _Text("model")
    wheels_folder = _Text("wheels_folder")
    engine_cuda = _Flag("engine_cuda")
    _mode = _Text("engine_mode", "auto")

    @property
    def engine_mode(self) -> str:
        """Where the engine comes from: "auto", "command", "managed" or "address"."""
        return self._mode if self._mode in MODES else "auto"

    @engine_mode.setter
    def engine_mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"engine_mode is one of {', '.join(MODES)}, not {mode!r}")
        self._mode = mode

    @property
    def recent_questions(self) -> list[str]:
        """The last questions, newest first."""
        stored = QgsSettings().value(GROUP + "recent_questions", [])
        return [stored] if isinstance(stored, str) and stored else [str(text) for text in stored or []]

    @recent_questions.setter
    def recent_questions(self, questions: list[str]) -> None:
        QgsSettings().setValue(GROUP + "recent_questions", list(questions)[:RECENT_QUESTIONS])

    def remember(self, question: str) -> None:
        """Put a question at the top of the recent ones."""
        question = question.strip()
        if question:
            others = [text for text in self.recent_questions if text != question]
            self.recent_questions = [question, *others]
