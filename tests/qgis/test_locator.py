"""The locator filter: what it offers, from a thread, and what choosing does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from qgis.core import QgsFeedback, QgsLocator, QgsLocatorContext, QgsLocatorResult

from qgis_plugin.locator import AskLocatorFilter
from qgis_plugin.settings import Settings


@pytest.fixture
def asked():
    return []


@pytest.fixture
def offered(asked, monkeypatch):
    """Search with a clone, as QGIS does, with a given active layer."""

    def search(text, layer=None, recent=()):
        monkeypatch.setattr("qgis.utils.iface", SimpleNamespace(activeLayer=lambda: layer))
        clone = AskLocatorFilter(asked.append, lambda: list(recent)).clone()
        results = []
        clone.resultFetched.connect(results.append)
        clone.prepare(text, QgsLocatorContext())
        clone.fetchResults(text, QgsLocatorContext(), QgsFeedback())
        return results

    return search


def test_it_offers_the_question_and_recent_ones(offered, sample_layer):
    results = offered(" parking ", sample_layer, ["trees", "parking lots", "parking"])
    assert [result.displayString for result in results] == [
        "Search aerial_2023 for “parking”",
        "Search aerial_2023 for “parking lots”",
    ]
    assert results[0].score > results[1].score
    assert not results[0].icon.isNull()


def test_without_a_layer_or_a_text(offered):
    assert [result.displayString for result in offered("cars")] == ["Search the map for “cars”"]
    assert [result.displayString for result in offered("", None, ["trees"])] == ["Search the map for “trees”"]
    assert offered("") == []


def test_at_most_five_recent_questions(offered):
    assert len(offered("", None, [f"question {number}" for number in range(9)])) == 5


def test_choosing_asks(offered, asked):
    (result,) = offered("cars")
    AskLocatorFilter(asked.append).triggerResult(result)
    assert asked == ["cars"]


def test_in_the_locator_bar_of_qgis(qgis_app, qtbot, asked):
    """The real locator: prefix, its own thread, and the filter that was registered gets the choice."""
    Settings().remember("storage tanks")
    locator = QgsLocator()
    filter_ = AskLocatorFilter(asked.append)
    locator.registerFilter(filter_)
    assert not filter_.useWithoutPrefix()
    found = []
    locator.foundResult.connect(lambda result: found.append(QgsLocatorResult(result)))
    with qtbot.waitSignal(locator.finished, timeout=5000):
        locator.fetchResults("ask tanks", QgsLocatorContext())
    qtbot.waitUntil(lambda: len(found) == 2, timeout=2000)
    assert [result.displayString.split("“")[1] for result in found] == ["tanks”", "storage tanks”"]
    found[1].filter.triggerResult(found[1])
    assert asked == ["storage tanks"]
    locator.cancel()
    locator.deregisterFilter(filter_)
