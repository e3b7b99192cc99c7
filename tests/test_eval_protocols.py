"""Protocols as data: tasks, catalogue and published tables speak of the same ones."""

from __future__ import annotations

import pytest

from tiling.errors import UsageError
from training.evaluation.catalogue import catalogue
from training.evaluation.printed import printed_tables
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.registry import TITLES, UNTEMPLATED, WHOLE, find_task


@pytest.mark.parametrize("name", TITLES)
def test_a_task_has_the_entries_of_its_protocols_and_no_others(name):
    task = find_task(name)
    assert task.name == name
    assert sorted(task.protocols) == sorted(key for key, item in PROTOCOLS.items() if item.task == name)


def test_every_protocol_belongs_to_a_task():
    assert {item.task for item in PROTOCOLS.values()} == set(TITLES)
    assert set(TITLES) >= WHOLE | UNTEMPLATED


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda item: item.id)
def test_titles_are_one_line_with_a_source(protocol):
    for text in (protocol.title, protocol.source):
        assert text == " ".join(text.split()) and 10 < len(text) < 180
    assert protocol.title.endswith(".") and isinstance(protocol.numbers, dict)


def test_protocols_of_one_measure_share_its_numbers():
    """Both ways of the map are measured with the constants that stand in the first, likewise for the others."""
    for part, whole in (("selo-airslt-plain", "selo-airslt"), ("point-program", "point-windows"),
                        ("calibration-program", "calibration-windows")):  # fmt: skip
        assert PROTOCOLS[part].numbers.items() <= PROTOCOLS[whole].numbers.items()


@pytest.mark.parametrize("name", TITLES)
def test_titles_and_settings_are_one_line(name):
    for text in (TITLES[name], find_task(name).title, *find_task(name).settings.values()):
        assert text and "\n" not in text and len(text) < 130


def test_the_catalogue_and_the_published_tables_name_protocols_that_there_are():
    used = {(use.task, key) for entry in catalogue() for use in entry.uses for key in use.protocols}
    used |= {(column.task, column.protocol) for table in printed_tables() for column in table.columns}
    assert used and all(PROTOCOLS[key].task == task for task, key in used)


def test_an_unknown_task_is_offered_near_ones():
    with pytest.raises(UsageError, match=r"no task is called 'retreival'.*choose one of retrieval"):
        find_task("retreival")
