"""Manifests and journals come from disks: whatever they hold, they are sound or refused in one line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from tiling.chips.journal import JOURNAL, Entry, Journal, read_journal
from tiling.chips.manifest import Chip, Manifest, ManifestError, Source, check_table, read_manifest, write_manifest
from tiling.chips.stitch import TileError, stitch
from tiling.cli import command
from tiling.clikit import run_cli
from tiling.errors import OutputExistsError, OutputWriteError, UsageError
from tiling.grid import TileGrid

DEEP = "[" * 100_000
GONE = object()


@pytest.fixture
def folder(tmp_path):
    grid = TileGrid(100, 70, 64, 48)
    source = Source(
        "a", "/data/a.tif", {"sha256": "0"}, 100, 70, Affine(0.5, 0, 5e5, 0, -0.5, 58e5),
        CRS.from_epsg(32631).to_wkt(), 0.5, 1, grid, (1,), "uint8", None, None,
    )  # fmt: skip
    chips = [Chip(f"a_r{w.row:04d}_c{w.col:04d}.npy", 0, w, 1.0, None, {"boat": 2}) for w in grid]
    (tmp_path / "o").mkdir()
    for chip in chips:
        np.save(tmp_path / "o" / chip.path, np.zeros((64, 64), np.uint8))
    write_manifest(Manifest(tmp_path / "o", (source,), tuple(chips), ("boat",), {"spec": {}}))
    return tmp_path / "o"


def change_header(folder, *path, value):
    header = folder / "tiles.json"
    data = json.loads(header.read_text())
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    header.write_text(json.dumps(data))


def change_table(folder, column, value):
    table = pyarrow.parquet.read_table(folder / "tiles.parquet")
    values = table.column(column).to_pylist()
    changed = pyarrow.array([value, *values[1:]] if value is None else [value] * len(values))
    number = table.schema.get_field_index(column)
    pyarrow.parquet.write_table(table.set_column(number, column, changed), folder / "tiles.parquet")


def refused(folder):
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(folder, tmp_path):
    before = read_manifest(folder)
    assert before.chips[3].labels == {"boat": 2}
    assert before.chips[3].split is None
    elsewhere = write_manifest(before, table=tmp_path / "new.parquet")
    after = read_manifest(elsewhere)
    assert (after.sources, after.chips, after.folder.resolve()) == (before.sources, before.chips, folder.resolve())
    for value in (-math.inf, -1.7976931348623157e308, 2**64 - 1):
        change_header(folder, "sources", 0, "nodata", value=value)
        assert read_manifest(folder).sources[0].nodata == value


@pytest.mark.parametrize("text", ["", "{", "5", "null", "[]", "{}", '"x"', DEEP, '{"schema":' + DEEP, "\0", "9" * 5000])
def test_a_header_that_is_none(folder, text):
    (folder / "tiles.json").write_text(text)
    refused(folder)
    if text != "{}":
        check_table(folder / "tiles.parquet")


SOURCE = [
    *(("grid", key, value) for key in ("width_px", "height_px", "tile_px", "stride_px", "snap_px")
      for value in (math.nan, 0, -1, 1.5, True, None, "5", 10**400, [], GONE)),
    ("grid", "edge", 5), ("grid", "edge", []), ("grid", "stride_px", 65), ("grid", 5), ("grid", None),
    ("grid", "new", 5),
    *(("crs_wkt", value) for value in ("x", 'GEOGCS["x"', "", 5, [], "\0", GONE)),
    *(("path", value) for value in (None, 5, "a\0", GONE)), ("name", None), ("name", 5), ("name", []),
    ("fingerprint", None), ("fingerprint", {}), ("fingerprint", {"sha256": 5}),
    ("transform", [1, 0, 0, 0, 1]), ("transform", [0] * 6), ("transform", [math.nan, 0, 0, 0, 1, 0]),
    ("transform", "abcdef"), ("transform", [10**400, 0, 0, 0, 1, 0]), ("gsd_m", 0), ("gsd_m", math.inf),
    ("gsd_m", "1"), ("overview", 0), ("overview", None), ("bands", []), ("bands", [0]), ("bands", ["1"]), ("bands", 1),
    ("dtype", None), ("nodata", "0"), ("nodata", 10**400), ("stretch", 5), ("others", None), ("others", [5]),
]  # fmt: skip


@pytest.mark.parametrize("change", SOURCE, ids=range(len(SOURCE)))
def test_a_source_of_wrong_values(folder, change, capfd):
    change_header(folder, "sources", 0, *change[:-1], value=change[-1])
    refused(folder)
    check_table(folder / "tiles.parquet")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "change",
    [
        ("job", 5), ("job", "spec", 5), ("sources", 5), ("sources", [5]), ("sources", None), ("folder", None),
        ("folder", "\0"), ("classes", 5), ("classes", [5]), ("left_out", {"x": -1}), ("left_out", []),
        ("failures", [5]), ("failures", [{"path": 5}]), ("schema", 1), ("schema", [DEEP]), ("schema", GONE),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_header_of_wrong_values(folder, change):
    change_header(folder, *change[:-1], value=change[-1])
    refused(folder)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, None) for name in ("path", "source", "row", "col_off_px", "size_bytes", "valid_fraction", "crc32")),
        *(("path", value) for value in (5, "", "../x", "/x", "C:x", "a\0b", "a\nb", b"x", ["x"])),
        ("source", "b"), ("source", 0), ("split", 5), ("row", -1), ("row", 0.0), ("row", 9), ("col", "0"),
        ("width_px", 63), ("width_px", 2**40), ("row_off_px", True), ("valid_fraction", math.nan),
        ("valid_fraction", 1.5), ("valid_fraction", "1"), ("label_counts", None), ("label_counts", "5"),
        ("label_counts", '{"a": "b"}'), ("label_counts", DEEP), ("size_bytes", -1), ("crc32", 0.5),
    ],
)  # fmt: skip
def test_a_table_of_wrong_values(folder, column, value):
    change_table(folder, column, value)
    message = refused(folder)
    assert len(message) < 400
    check_table(folder / "tiles.parquet")


def test_a_table_that_is_none(folder):
    table = folder / "tiles.parquet"
    whole = table.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-4], b"\0" * 5000):
        table.write_bytes(content)
        refused(folder)
        check_table(table)
    frame = geopandas.GeoDataFrame({"path": ["x"]}, geometry=geopandas.points_from_xy([0], [0]))
    frame.to_parquet(table)
    assert "source" in refused(folder)


def test_two_sources_of_one_name(folder):
    sources = json.loads((folder / "tiles.json").read_text())["sources"]
    change_header(folder, "sources", value=sources * 2)
    assert "one name" in refused(folder)


def test_a_manifest_replaces_nothing_but_a_manifest(folder, tmp_path):
    manifest = read_manifest(folder)
    for name in ("new.json", "new", "new.csv"):
        with pytest.raises(UsageError, match=r"end in \.parquet"):
            write_manifest(manifest, table=tmp_path / name)
    cases = {"labels.json": '{"images": []}', "data.parquet": "mine", "notes.json": "mine", "link.parquet": None}
    for name, text in cases.items():
        path = tmp_path / name
        if text is None:
            path.symlink_to(folder / "tiles.parquet")
        else:
            path.write_text(text)
        with pytest.raises(OutputExistsError, match=name):
            write_manifest(manifest, table=path.with_suffix(".parquet"))
        assert path.is_symlink() or path.read_text() == text
        assert not path.with_suffix({".json": ".parquet", ".parquet": ".json"}[path.suffix]).exists()
    geopandas.GeoDataFrame({"path": ["x"]}, geometry=[None]).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "here.json").mkdir()
    for name in ("other", "here"):
        with pytest.raises(OutputExistsError, match=name):
            check_table(tmp_path / f"{name}.parquet")
    (folder / "tiles.json").write_text('{"type": "FeatureCollection"}')
    with pytest.raises(OutputExistsError, match=r"tiles\.json"):
        check_table(folder / "tiles.parquet")
    (folder / "tiles.json").unlink()
    write_manifest(manifest)
    write_manifest(manifest)


GOOD = [0, 0, 0, 1.0, "a.tif", 3, 4]
LINES = [
    "5", "null", '"abcdefg"', "[]", "[0,0,0,1.0,5,3,4]", '[[0],0,0,1.0,"x",3,4]', '[0,0,0,1.0,"a\\u0000b",3,4]',
    '[0,0,0,"1","x",3,4]', '[0,0,0,NaN,"x",3,4]', '[0,0,0,2,"x",3,4]', '[0,0,0,true,"x",3,4]', '[-1,0,0,1,"x",3,4]',
    '[0,0.0,0,1,"x",3,4]', '[0,0,0,1,"../x",3,4]', '[0,0,0,1,"/x",3,4]', '[0,0,0,1,"C:\\\\x",3,4]', '[0,0,0,1,"x",3]',
    '[0,0,0,1,"x",null,4]', '[0,0,0,1,"\\ud800",3,4]', '{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1}', DEEP, "9" * 5000,
    '[0,0,0,1.0,"a.ti', "\0" * 100, '[0,0,0,[],"x",3,4]',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_bad_line_ends_the_journal(tmp_path, line):
    (tmp_path / JOURNAL).write_text("\n".join(['{"spec": {}}', json.dumps(GOOD), line, json.dumps([7, *GOOD[1:]])]))
    facts, done = read_journal(tmp_path)
    assert (facts, done) == ({"spec": {}}, {(0, 0, 0): Entry(1.0, "a.tif", 3, 4)})
    assert not done[0, 0, 0].is_there(tmp_path)


FIRST = ["", "5", "null", "[]", "{}", '{"spec":5}', '{"spec":null}', DEEP, '{"spec":' + DEEP, "9" * 5000, "\0"]


@pytest.mark.parametrize("line", FIRST, ids=range(len(FIRST)))
def test_a_first_line_that_is_no_job(tmp_path, line):
    (tmp_path / JOURNAL).write_text(line + "\n" + json.dumps(GOOD) + "\n")
    with pytest.raises(OutputWriteError, match="is not a journal of tiles; move it away") as caught:
        read_journal(tmp_path)
    assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_a_journal_damaged_anywhere(tmp_path, data):
    done = {(0, row, 0): Entry(1.0, f"a_{row}.tif", row, row) for row in range(5)}
    Journal.begin(tmp_path, {"spec": {}}, done).close()
    path = tmp_path / JOURNAL
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_journal(tmp_path)
    except OutputWriteError as error:
        assert "\n" not in str(error)


def test_a_link_does_not_lead_the_journal_elsewhere(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".{JOURNAL}.tmp").symlink_to(tmp_path / "mine")
    Journal.begin(tmp_path, {"spec": {}}, {}).close()
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_command_tells_a_bad_manifest_in_one_line(folder, tmp_path):
    change_header(folder, "sources", 0, "crs_wkt", value='GEOGCS["x"')
    code = "import sys; from tiling.cli import main; main()"
    made = subprocess.run(
        [sys.executable, "-c", code, "--stitch", folder, "-o", tmp_path / "x.tif"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert made.returncode == 1
    assert made.stderr.count("\n") == 1
    assert made.stderr.startswith("error: ")


def test_an_output_that_is_an_input_is_refused(folder, tmp_path, capsys):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "alias").symlink_to(folder)
    # Beside the tile a_r0000_c0000.npy it would be taken for that tile the next time.
    names = [folder / "a_r0000_c0000.tif", tmp_path / "alias" / "a_r0000_c0001.tif", folder / "x/../a_r0000_c0000.tif"]
    (folder / "x").mkdir()
    for name in names:
        code = run_cli(command, ["--stitch", str(folder), "-o", str(name), "--overwrite"])
        assert (code, "is an input" in capsys.readouterr().err) == (1, True)
    (folder / "x").rmdir()
    hard = tmp_path / "hard.tif"
    hard.hardlink_to(folder / "a_r0000_c0000.npy")
    with pytest.raises(OutputExistsError, match="is an input"):
        stitch(folder, hard, overwrite=True)
    (tmp_path / "outputs").mkdir()
    for path in folder.glob("*.npy"):
        (tmp_path / "outputs" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(OutputExistsError, match="is an input"):
        stitch(tmp_path / "outputs", folder / "a_r0000_c0000.tif", manifest=folder, overwrite=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    stitch(folder, folder / "joined.tif")
    stitch(folder, folder / "joined.tif", overwrite=True)


def huge(folder, side):
    for key in ("width_px", "height_px"):
        change_header(folder, "sources", 0, key, value=side)
        change_header(folder, "sources", 0, "grid", key, value=side)
    for column, value in (("width_px", 64), ("height_px", 64)):
        change_table(folder, column, value)
    table = pyarrow.parquet.read_table(folder / "tiles.parquet")
    for column in ("col_off_px", "row_off_px"):
        short = column.removesuffix("_off_px")
        places = pyarrow.array([48 * place for place in table.column(short).to_pylist()])
        table = table.set_column(table.schema.get_field_index(column), column, places)
    pyarrow.parquet.write_table(table, folder / "tiles.parquet")


def test_a_huge_canvas_with_few_tiles_is_not_written(folder, tmp_path):
    huge(folder, 200_000)
    with pytest.raises(TileError, match=r"almost empty \(.* tiles on 200000 × 200000 px, 37 GB\)"):
        stitch(folder, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_what_does_not_fit_on_the_disk_is_told_before_it_is_full(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tiling.cog.shutil.disk_usage", lambda _: SimpleNamespace(free=6_999))
    with pytest.raises(OutputWriteError, match=r"does not fit on the disk .*; free some space"):
        stitch(folder, tmp_path / "out.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
