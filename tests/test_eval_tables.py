"""Printed figures as data, and tables that lay ours beside them."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest

from training.data.errors import DataError
from training.evaluation.printed import _read, printed_tables
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.result import Dataset, Measured, Metric, Result
from training.evaluation.table_text import latex, markdown
from training.evaluation.tables import beside, spelling

TABLES = printed_tables()
BY_ID = {table.id: table for table in TABLES}
RSITMD = {"images": 452, "texts": 2260}
TEMPLATES = tuple(PROTOCOLS["zsc-folders"].numbers["templates"])


def possible(value, n):
    """Whether a percentage with two decimals is a multiple of 1/n."""
    return any(
        abs(round(100 * k / n, 2) - value) < 0.0051 for k in range(int(value * n / 100) - 1, int(value * n / 100) + 3)
    )


def result(protocol="retrieval-5cap", dataset="RSITMD", counts=None, name="ours", *, task="retrieval", **metrics):
    model = Measured(name, "k" * 64, None, (), "float32", "cpu")
    metrics = {key.replace("__", "@"): value for key, value in metrics.items()}
    return Result(task, protocol, Dataset(dataset, "d" * 64, counts or RSITMD), model, metrics, {})


def test_percentages_are_possible_with_the_sample_size_unless_flagged():
    """Independent of the flags: exactly those that cannot be are flagged as such."""
    seen = 0
    for table in TABLES:
        for column in table.columns:
            n = column.n.get("items") or column.n.get("texts" if column.metric.startswith("t2i") else "images")
            if n is None or column.unit != "%" or not column.metric.startswith(("acc", "i2t_r", "t2i_r", "top1")):
                continue
            for row in table.rows:
                value, doubt = table.value(row, column.key), table.doubt(row, column)
                if value is None:
                    continue
                seen += 1
                impossible = doubt is not None and ("no multiple" in doubt or "does not fit" in doubt)
                assert possible(value, n) is not impossible, (table.id, row.name, column.key)
    assert seen > 288


@pytest.mark.parametrize("name", ["farslip-segmentation", "farslip-classification"])
def test_printed_means_are_the_means_of_their_rows(name):
    rows = [row for row in BY_ID[name].rows if None not in row.values]
    assert len(rows) > 4
    for row in rows:
        assert statistics.mean(row.values[:-1]) == pytest.approx(row.values[-1], abs=0.0055)


def test_detection_means_agree_with_their_classes_unless_flagged():
    table = BY_ID["geoalignclip-table3"]
    for row in table.rows:
        for novel, base, both, n, b in ((0, 1, 2, 4, 16), (3, 4, 5, 2, 13)):
            mean = (n * row.values[novel] + b * row.values[base]) / (n + b)
            fits = abs(mean - row.values[both]) <= 0.08
            assert fits is (table.doubt(row, table.columns[both]) is None), row.name


def test_rows_that_two_tables_share_agree_or_are_flagged():
    two, six = BY_ID["geoalignclip-table2"], BY_ID["geoalignclip-table6"]
    five, full = BY_ID["geoalignclip-table5"], six.rows[-1]
    large = next(row for row in five.rows if row.name == "GeoAlignCLIP ViT-L/14")
    for key in ("ucm-captions-i2t-r1", "ucm-captions-t2i-r1"):
        assert five.value(large, key) == six.value(full, key)
    region = next(row for row in two.rows if row.name == "GeoAlignCLIP ViT-L/14")
    assert (two.value(region, "rrsis-hr-acc1"), six.value(full, "rrsis-hr-acc1")) == (33.45, 42.28)
    assert two.doubt(region, two.columns[0])
    assert six.doubt(full, six.columns[0])


def test_sizes_and_a_few_figures():
    shapes = {table.id: (len(table.rows), len(table.columns)) for table in TABLES}
    assert shapes["geoalignclip-table2"] == (21, 9)
    assert shapes["geoalignclip-table5"] == (16, 18)
    table = BY_ID["geoalignclip-table5"]
    row = next(row for row in table.rows if row.name == "LRSCLIP ViT-L/14")
    assert table.value(row, "rsitmd-i2t-r1") == 20.35


@pytest.mark.parametrize("broken", ['{"format": 1}', "[]", "nonsense", '{"format": 2, "printed": true, "id": "x"}'])
def test_a_broken_file_is_named(tmp_path, broken):
    path = tmp_path / "x.json"
    path.write_text(broken)
    with pytest.raises(DataError, match=r"x\.json"):
        _read(path)


def test_ours_stands_beside_the_printed_rows_of_the_same_protocol():
    (table,) = beside([result(i2t_r__1=Metric(21.02, 19.0, 23.0), mr=Metric(30.0))])
    assert "retrieval-5cap" in table.title
    assert [row.origin for row in table.rows] == ["printed"] * 16 + ["measured"]
    assert all(row.protocol == "retrieval-5cap" for row in table.rows)
    assert [head.title for head in table.heads][:2] == ["i2t_r@1", "i2t_r@5"]
    assert [row.name for row in table.rows if row.cells[0].best] == ["GeoAlignCLIP ViT-L/14", "ours"]
    assert any("retrieval-unique are of another protocol" in note for note in table.notes)


def test_another_sample_is_never_compared():
    (table,) = beside([result(counts={"images": 40, "texts": 200, "cut_texts": 0}, i2t_r__1=Metric(99.0))])
    ours = table.rows[-1]
    assert not ours.cells[0].best
    said = table.notes[ours.notes[0] - 1]
    assert "Measured on 40 images, 200 texts; the printed figures are of 452 and 2,260" in said
    assert [row.name for row in table.rows if row.cells[0].best] == ["GeoAlignCLIP ViT-L/14"]


@pytest.mark.parametrize(
    ("protocol", "settings", "said"),
    [
        ("retrieval-5cap", {"prefix": "", "ties": "pessimistic", "limit": None}, None),
        ("retrieval-5cap", {"prefix": "a photo. ", "ties": "optimistic"}, "prefix and ties"),
        ("retrieval-5cap", {"limit": 452}, "limit"),
        ("retrieval-unique", {"prefix": ""}, "prefix"),
    ],
)
def test_what_departs_from_its_protocol_is_never_compared(protocol, settings, said):
    counts = {"images": 210, "texts": 377 if protocol == "retrieval-unique" else 1050}
    best = {"i2t_r__1": Metric(99.0), "i2t_mean": Metric(99.0)}
    (table,) = beside([replace(result(protocol, "ucm-captions", counts, **best), settings=settings)])
    ours = table.rows[-1]
    assert any(cell.best for cell in ours.cells) is (said is None)
    assert [table.notes[mark - 1] for mark in ours.notes] == (
        [f"Not as the protocol says ({said}), so the figures are not compared."] if said else []
    )


@pytest.mark.parametrize(("templates", "compared"), [(("a {}.",), False), (TEMPLATES, True)])
def test_templates_other_than_the_protocols_are_never_compared(templates, compared):
    ours = result("zsc-folders", "siri-whu", {"images": 2400}, task="classify", top1=Metric(99.0))
    (table,) = beside([replace(ours, model=replace(ours.model, templates=templates))])
    assert table.rows[-1].cells[0].best is compared


def test_results_of_one_model_tell_what_they_differ_in():
    one = replace(result(i2t_r__1=Metric(1.0)), settings={"ties": "pessimistic", "prefix": ""}, notes=("First.",))
    two = replace(one, settings={"ties": "optimistic", "prefix": ""}, notes=("Second.",))
    (table,) = beside([one, two, result(name="another", i2t_r__1=Metric(2.0))])
    assert [row.name for row in table.rows[-3:]] == ["ours, ties pessimistic", "ours, ties optimistic", "another"]
    first, second = ([table.notes[mark - 1] for mark in row.notes] for row in table.rows[-3:-1])
    assert first == ["First."] and second[-1] == "Second." and "ties" in second[0]
    assert f"ours, ties optimistic <sup>{','.join(map(str, table.rows[-2].notes))}</sup>" in markdown([table])


@pytest.mark.parametrize("dataset", ["RSITMD", "mine"])
def test_rows_of_different_data_are_marked_though_names_and_counts_agree(dataset):
    one = result(dataset=dataset, i2t_r__1=Metric(1.0))
    two = result(dataset=dataset, name="another", i2t_r__1=Metric(2.0))
    other = replace(two, dataset=replace(two.dataset, digest="e" * 64))

    def marked(*results):
        (table,) = beside(results)
        return [[table.notes[mark - 1] for mark in row.notes if "checksum" in table.notes[mark - 1]]
                for row in table.rows if row.origin == "measured"]  # fmt: skip

    assert marked(one, two) == [[], []]
    (first,), (second,) = marked(one, other)
    assert "d" * 8 in first and "e" * 8 in second


def test_an_unknown_sample_is_never_compared():
    (table,) = beside([result("region-roi", "rrsis-d", {"boxes": 3481}, task="regions", acc__1=Metric(99.0))])
    assert not table.rows[-1].cells[0].best
    assert any("the printed sample is not known" in note for note in table.notes)


def test_doubtful_figures_are_never_the_best():
    (table,) = beside([result("fgovd", "RRSIS-HR", {"items": 577}, task="negatives", acc__1=Metric(10.0))])
    best = [row for row in table.rows if row.cells[0].best]
    assert [row.cells[0].value for row in best] == [33.28]  # 33.45, 34.66, 35.01, 35.36 and 42.28 contradict each other
    doubtful = [row for row in table.rows if row.cells[0].note is not None]
    assert len(doubtful) == 5
    assert "42.28" in table.notes[doubtful[0].cells[0].note - 1]


def test_results_of_one_data_set_without_printed_figures_are_compared_among_themselves():
    few = {"boxes": 9}
    first = result(
        "point",
        "mine",
        few,
        "one",
        task="point",
        ap=Metric(0.4, unit="share"),
        miss=Metric(3.0, unit="m", better="lower"),
    )
    second = result(
        "point",
        "mine",
        few,
        "two",
        task="point",
        ap=Metric(0.5, unit="share"),
        miss=Metric(4.0, unit="m", better="lower"),
    )
    (table,) = beside([first, second])
    assert [[cell.best for cell in row.cells] for row in table.rows] == [[False, True], [True, False]]


def test_protocols_share_a_table_only_when_asked_and_then_say_so():
    pair = [result(i2t_r__1=Metric(21.0)), result("retrieval-unique", i2t_mean=Metric(50.0))]
    assert len(beside(pair)) == 2
    (table,) = beside(pair, mixed=True)
    assert table.several_protocols
    assert any("retrieval-5cap and retrieval-unique are of different protocols" in note for note in table.notes)
    assert {row.protocol for row in table.rows} == {"retrieval-5cap", "retrieval-unique"}
    assert "| Method | Figures | Protocol |" in markdown([table])


def test_shares_and_per_cent_meet_in_the_printed_unit():
    share = Metric(0.3461, 0.3, 0.4, unit="share")
    table, _ = beside([result("ovss-farslip", "LoveDA", {"images": 1669}, task="segment", mIoU=share)])
    cell = table.rows[-1].cells[0]
    assert (cell.value, cell.low, cell.high) == (pytest.approx(34.61), pytest.approx(30), pytest.approx(40))
    assert len(table.heads) == 1


def test_a_figure_that_is_nan_is_a_dash():
    (table,) = beside([result(dataset="mine", acc=Metric(math.nan))])
    assert table.rows[0].cells[0].value is None
    assert "| – |" in markdown([table])
    assert "& -- \\\\" in latex([table])


def test_signs_of_markdown_and_html_come_out_as_they_are():
    (table,) = beside([result(dataset="a|b <i>x</i>\n# c", name="*m* | `x`_[y](z)", r__1=Metric(1.0))])
    text = markdown([table])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}
    assert "<i>" not in text
    assert r"\*m\* \| \`x\`\_\[y\](z)" in text


def test_latex_is_escaped_and_balanced():
    (table,) = beside([result(dataset=r"50% & {x}_\y~^#$", name="[m] \\\\ <a>", r__1=Metric(1.5, 1.0, 2.0))])
    text = latex([table])
    assert r"50\% \& \{x\}\_\textbackslash{}y\textasciitilde{}\textasciicircum{}\#\$" in text
    assert "{[}m{]}" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert r"\toprule" in text
    body = next(line for line in text.splitlines() if line.startswith("{[}m"))
    assert body.count(" & ") == 2
    assert body.endswith(r" \\")
    assert r"1.50 {\scriptsize 1.00--2.00}" in body


def test_notes_are_numbered_only_where_something_refers_to_them():
    (table,) = beside([result(counts={"images": 40, "texts": 200}, i2t_r__1=Metric(99.0))])
    text, tex = markdown([table]), latex([table])
    marks = {mark for row in table.rows for mark in row.notes} | {
        cell.note for row in table.rows for cell in row.cells if cell.note
    }
    for number, note in enumerate(table.notes, start=1):
        start = note.split("_")[0].split("@")[0][:12]
        assert (f"\n{number}. {start}" in text) is (number in marks)
        assert (f"\n- {start}" in text) is (number not in marks)
        assert (rf"\textsuperscript{{{number}}}\," in tex) is (number in marks)
    assert len(table.notes) > len(marks) > 0


def of_sets(table, values, name="ours", **changes):
    """Results of the sets of a published table's mean, one value each."""
    column = BY_ID[table].columns[-1]
    counts = {key: dict(other.n) or {"images": 10} for other in BY_ID[table].columns for key in (other.dataset,)}
    results = [
        result(column.protocol, key, counts[key], name, task=column.task, **{column.metric: Metric(value)})
        for key, value in zip(column.sets, values, strict=False)
    ]
    return [replace(item, **changes) for item in results]


@pytest.mark.parametrize("name", ["farslip-segmentation", "farslip-classification"])
def test_means_stand_beside_the_printed_ones(name):
    """Also those of models of which nothing else is printed."""
    *_, table = beside(of_sets(name, range(8)))
    column = BY_ID[name].columns[-1]
    assert table.title == f"Mean of 8 data sets, protocol {column.protocol}"
    shown = {row.name: row.cells[0].value for row in table.rows if row.origin == "printed"}
    known = {row.name: row.values[-1] for row in BY_ID[name].rows}
    assert shown.items() >= known.items() and len(known) > 10
    assert (table.rows[-1].name, table.rows[-1].cells[0].value) == ("ours", 3.5)
    assert not table.rows[-1].cells[0].best
    assert "Not compared with printed means, as its figures of" in table.notes[table.rows[-1].notes[0] - 1]
    assert table.title in markdown(beside(of_sets(name, range(8)), mixed=True))


def test_page_and_command_have_the_means(tmp_path, capsys):
    from training.evaluation.command import main
    from training.evaluation.report.page import write_report

    paths = [tmp_path / f"{item.dataset.name}.json" for item in of_sets("farslip-segmentation", range(8))]
    for path, item in zip(paths, of_sets("farslip-segmentation", range(8)), strict=True):
        item.write(path)
    page = write_report(paths, tmp_path / "page.html").read_text(encoding="utf-8")
    main(["table", *map(str, paths)], standalone_mode=False)
    for text in (page, capsys.readouterr().out):
        assert "Mean of 8 data sets, protocol ovss-farslip" in text and "FineCLIP" in text and "3.50" in text


def test_doubtful_means_say_why():
    *_, table = beside(of_sets("farslip-classification", range(8)))
    doubts = {row.name: table.notes[row.cells[0].note - 1] for row in table.rows if row.cells[0].note}
    assert set(doubts) == {"SkyCLIP ViT-B/32", "LRSCLIP best"} and "neither the sets" in doubts["LRSCLIP best"]
    assert [row.cells[0].value for row in table.rows if row.cells[0].best] == [62.24]  # not LRSCLIP's 75.75


def test_a_mean_lacks_no_set_and_takes_none_twice():
    seven = of_sets("farslip-segmentation", range(7))
    *_, table = beside(seven)
    assert {row.origin for row in table.rows} == {"printed"}
    assert "No mean of ours: there is no result of iSAID." in table.notes
    *_, table = beside([*of_sets("farslip-segmentation", range(8)), seven[1]])
    assert {row.origin for row in table.rows} == {"printed"}
    assert "No mean of ours: there are several results of LoveDA." in table.notes
    *_, table = beside([*seven, *of_sets("farslip-segmentation", range(1, 9), "another")])
    assert [(row.name, row.cells[0].value) for row in table.rows if row.origin == "measured"] == [("another", 4.5)]
    assert "\n- No mean of ours" in markdown([table])  # no row refers to it by number


def test_a_mean_is_of_results_that_were_measured_alike():
    all_eight = of_sets("farslip-segmentation", range(8))
    odd = [replace(item, settings={"limit": 5}) for item in all_eight[:2]]
    *_, table = beside([*odd, *all_eight[2:]])
    assert {row.origin for row in table.rows} == {"printed"}
    told = [note for note in table.notes if note.startswith("No mean of")]
    assert told == ["No mean of ours: its results differ in settings from set to set."]
    *_, table = beside([*odd, *all_eight])  # two further results take nothing away
    assert [row.cells[0].value for row in table.rows if row.origin == "measured"] == [3.5]
    assert not [note for note in table.notes if note.startswith("No mean of")]
    limits = [replace(item, settings={"limit": 5 + place}) for place, item in enumerate(all_eight)]
    *_, table = beside(limits)
    assert {row.origin for row in table.rows} == {"printed"}
    assert any("differ in settings" in note for note in table.notes)


def test_a_model_without_a_mean_is_told_from_its_namesake():
    whole = of_sets("farslip-segmentation", range(8))
    other = [replace(item, model=replace(item.model, precision="bfloat16")) for item in whole[:6]]
    *_, table = beside([*whole, *other])
    assert [row.name for row in table.rows if row.origin == "measured"] == ["ours, precision float32"]
    assert any(note.startswith("No mean of ours, precision bfloat16: there is no result of") for note in table.notes)


def test_means_of_settings_are_not_mixed():
    """Each threshold has a mean of its own, and the one that is not the protocol's is not compared."""
    plain = of_sets("farslip-segmentation", range(8))
    sure = of_sets("farslip-segmentation", range(1, 9), settings={"threshold": 0.9})
    *_, table = beside([*plain, *sure])
    ours = [row for row in table.rows if row.origin == "measured"]
    assert [row.cells[0].value for row in ours] == [3.5, 4.5] and ours[1].name == "ours, threshold 0.9"
    assert "Potsdam" not in table.notes[ours[0].notes[0] - 1] and "Potsdam" in table.notes[ours[1].notes[0] - 1]


def test_a_mean_over_comparable_results_is_compared(monkeypatch):
    """No printed mean is over samples that are all known; if they were, ours could be the best."""
    known = [
        replace(table, columns=tuple(replace(column, n=column.n or {"images": 10}) for column in table.columns))
        for table in TABLES
    ]
    monkeypatch.setattr("training.evaluation.tables.printed_tables", lambda: known)
    *_, table = beside(of_sets("farslip-segmentation", [99] * 8))
    assert [row.name for row in table.rows if row.cells[0].best] == ["ours"] and not table.rows[-1].notes


def test_the_sets_of_a_mean_are_those_of_its_table():
    for table in TABLES:
        for column in table.columns:
            others = tuple(other.dataset for other in table.columns if other.dataset)
            assert column.sets == (others if not column.dataset else ()), table.id


def test_a_doubtful_figure_is_printed_with_its_reason():
    text = markdown(beside([result("choice", "choice-img", {"questions": 200}, task="choice", accuracy=Metric(50.0))]))
    assert "20.20 <sup>" in text
    assert "no multiple of 1/200" in text
    assert "arXiv 2603.09566v1, Table 2" in text


@pytest.mark.parametrize(
    ("one", "other"), [("i2t_r@1", "I2T R@1"), ("mIoU", "miou"), ("map_novel", "mAP_n"), ("acc@1", "acc_1")]
)
def test_spellings_of_one_metric_meet(one, other):
    assert spelling(one) == spelling(other)
