"""Translations: German is complete and keeps its placeholders; anything unreadable leaves English."""

from __future__ import annotations

import re

import pytest

from qgis_plugin import words

GERMAN = words.FOLDER / "geoalign_de.ts"


@pytest.fixture(autouse=True)
def _english_again():
    yield
    words.install_translator("en")


def test_german_is_read_for_every_german_locale():
    for language in ("de", "de_AT", "de-CH"):
        assert words.install_translator(language)
        assert words.tr("Question") == "Frage"
    assert words.tr("no such string") == "no such string"


def test_other_languages_are_english():
    assert words.install_translator("xx") == {}
    assert words.tr("Question") == "Question"


def test_placeholders_survive_translation():
    placeholders = re.compile(r"\{[^}]*\}")
    for source, translation in words.read_translations(GERMAN).items():
        assert sorted(placeholders.findall(source)) == sorted(placeholders.findall(translation)), source
        assert source.endswith("…") == translation.endswith("…"), source
        assert source.count(" &") == translation.count(" &"), source


def test_unreadable_files_are_english(tmp_path):
    broken = tmp_path / "broken.ts"
    broken.write_text("<TS><context><message><source>Question</source><transl", encoding="utf-8")
    assert words.read_translations(broken) == {}
    assert words.read_translations(tmp_path / "missing.ts") == {}


def test_unfinished_messages_are_english(tmp_path):
    file = tmp_path / "half.ts"
    message = "<message><source>{}</source><translation{}>{}</translation></message>"
    body = message.format("One", ' type="unfinished"', "Eins") + message.format("A &amp; B", "", "A &lt; B")
    file.write_text(f"<TS><context>{body}</context></TS>", encoding="utf-8")
    assert words.read_translations(file) == {"A & B": "A < B"}
