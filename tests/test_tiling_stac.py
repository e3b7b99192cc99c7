"""The STAC collection: valid, in the right place, equal every time, and never half there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pystac.extensions.projection import ProjectionExtension
from pystac.validation import validate_dict
from rasterio.crs import CRS
from rasterio.warp import transform_geom

from tiling.chips import stac
from tiling.chips.manifest import Chip, Manifest, ManifestError, Source, footprint
from tiling.chips.stac import check_stac, raster_datetime, write_stac
from tiling.errors import CancelledError, NotGeoreferencedError, OutputExistsError, OutputWriteError
from tiling.grid import TileGrid
from tiling.progress import CancelToken
from tiling.raster import open_raster

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
NORTH_UP = Affine(0.5, 0, 500000, 0, -0.5, 5800000)


def source(name="canal", *, crs="EPSG:32631", transform=NORTH_UP, size=512, **changes):
    facts = {
        "name": name, "path": f"/data/{name}.tif", "fingerprint": {"mtime_ns": 10**18, "sha256": "0"},
        "width_px": size, "height_px": size, "transform": transform,
        "crs_wkt": None if crs is None else CRS.from_user_input(crs).to_wkt(), "gsd_m": None if crs is None else 0.5,
        "overview": 1, "grid": TileGrid(size, size, 256, 256), "bands": (1, 2, 3), "dtype": "uint8", "nodata": None,
        "stretch": None,
    }  # fmt: skip
    return Source(**{**facts, **changes})


def tiles(folder, *sources, suffix="tif", split=None, labels=None, **changes):
    chips = [
        Chip(f"{each.name}_r{window.row:04d}_c{window.col:04d}.{suffix}", index, window, 1.0, split, labels or {})
        for index, each in enumerate(sources)
        for window in each.grid
    ]
    return Manifest(folder, sources, tuple(chips), **changes)


def items(collection):
    return list(pystac.Collection.from_file(str(collection)).get_items())


def test_collection_and_items_are_valid_and_can_be_read(tmp_path):
    manifest = tiles(tmp_path, source(), source("lake"), split="train", labels={"boat": 2}, classes=("boat",))
    path = write_stac(manifest, tmp_path, datetime_utc=NOON)
    assert path == tmp_path / "stac" / "collection.json"
    for file in (tmp_path / "stac").rglob("*.json"):
        validate_dict(json.loads(file.read_text()), extensions=[])
    collection = pystac.Collection.from_file(str(path))
    found = items(path)
    assert len(found) == len(manifest.chips) == 8
    assert {item.get_collection().id for item in found} == {collection.id}
    assert {item.get_root().id for item in found} == {collection.id}
    assert collection.extent.temporal.intervals == [[NOON, NOON]]
    assert collection.summaries.get_list("geoalign:split") == ["train"]
    item = found[0]
    assert item.datetime == NOON
    assert item.properties["gsd"] == 0.5
    assert item.properties["geoalign:split"] == "train"
    assert item.properties["geoalign:labels"] == {"boat": 2}
    via = item.get_single_link("via")
    assert via.href == "file:///data/canal.tif"
    assert Path(item.assets["tile"].get_absolute_href()) == tmp_path / manifest.chips[0].path
    assert [band["name"] for band in item.to_dict()["assets"]["tile"]["bands"]] == ["b1", "b2", "b3"]


@pytest.mark.parametrize(
    "transform",
    [NORTH_UP, NORTH_UP * Affine.rotation(30), Affine(0.5, 0, 500000, 0, 0.5, 5800000)],
    ids=["north-up", "rotated", "south-up"],
)
def test_items_lie_where_the_tiles_lie(tmp_path, transform):
    manifest = tiles(tmp_path, source(transform=transform))
    for item, chip in zip(items(write_stac(manifest, tmp_path)), manifest.chips, strict=True):
        outline = {"type": "Polygon", "coordinates": [footprint(manifest.sources[0], chip.window)]}
        expected = shapely.geometry.shape(transform_geom("EPSG:32631", "OGC:CRS84", outline))
        shape = shapely.geometry.shape(item.geometry)
        assert shape.exterior.is_ccw
        assert shape.symmetric_difference(expected).area < 1e-4 * expected.area
        assert item.bbox == pytest.approx(expected.bounds, abs=1e-8)
        projection = ProjectionExtension.ext(item)
        assert projection.code == "EPSG:32631"
        assert projection.shape == [256, 256]
        assert Affine(*projection.transform[:6]) == manifest.sources[0].place(chip.window)


def test_a_crs_without_a_code_is_written_out(tmp_path):
    crs = "+proj=laea +lat_0=52 +lon_0=5 +ellps=WGS84"
    item = items(write_stac(tiles(tmp_path, source(crs=crs, transform=Affine(1, 0, 0, 0, -1, 0))), tmp_path))[0]
    projection = ProjectionExtension.ext(item)
    assert projection.code is None
    assert "Lambert Azimuthal" in projection.wkt2
    validate_dict(item.to_dict(), extensions=[])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(0.001, 0, 179.9, 0, -0.001, 10)),
        ("EPSG:32660", Affine(200, 0, 800000, 0, -200, 1100000)),
        ("EPSG:3832", Affine(400, 0, 3200000, 0, -400, 1100000)),
    ],
)
def test_the_antimeridian_splits_tiles(tmp_path, crs, transform):
    path = write_stac(tiles(tmp_path, source(crs=crs, transform=transform)), tmp_path)
    kinds = [item.geometry["type"] for item in items(path)]
    assert "MultiPolygon" in kinds
    for item in items(path):
        shape = shapely.geometry.shape(item.geometry)
        assert shape.is_valid
        assert -180 <= shape.bounds[0] <= shape.bounds[2] <= 180
        assert shape.area < 2
        assert (item.bbox[0] > item.bbox[2]) == (item.geometry["type"] == "MultiPolygon")
    west, _, east, _ = pystac.Collection.from_file(str(path)).extent.spatial.bboxes[0]
    assert west > 170
    assert east < -170


longitudes = st.tuples(st.integers(-180, 179), st.integers(1, 359))


@given(st.lists(longitudes, min_size=1, max_size=6))
def test_the_box_around_all_holds_all_and_is_the_smallest(spans):
    boxes = [[float(west), 0.0, float((west + width + 180) % 360 - 180), 1.0] for west, width in spans]
    covered = {(west + step) % 360 for west, width in spans for step in range(width)}
    west, _, east, _ = stac._union(boxes)
    width = (east - west) % 360 or 360
    assert covered <= {(west + step) % 360 for step in range(int(width))}
    taken = [(degree + 180) % 360 in covered for degree in range(360)]
    widest = max(len(run) for run in "".join("x" if there else " " for there in taken * 2).split("x"))
    assert width == 360 - min(widest, 360)


@pytest.mark.parametrize(
    ("suffix", "fmt", "media"),
    [
        ("tif", "tif", pystac.MediaType.GEOTIFF),
        ("tif", "cog", pystac.MediaType.COG),
        ("png", "png", pystac.MediaType.PNG),
        ("jpg", "jpg", pystac.MediaType.JPEG),
        ("webp", "webp", "image/webp"),
        ("npy", "npy", "application/octet-stream"),
    ],
)
def test_media_types(tmp_path, suffix, fmt, media):
    manifest = tiles(tmp_path, source(nodata=float("nan")), suffix=suffix, job={"spec": {"format": fmt}})
    asset = items(write_stac(manifest, tmp_path))[0].assets["tile"]
    assert asset.media_type == media
    assert asset.roles == ["data"]
    assert asset.to_dict()["bands"][0] == {"name": "b1", "data_type": "uint8", "nodata": "nan"}


def test_equal_manifests_give_equal_files_and_replace_the_old(tmp_path):
    manifest = tiles(tmp_path, source())

    def content():
        write_stac(manifest, tmp_path)
        return {path: path.read_bytes() for path in sorted((tmp_path / "stac").rglob("*")) if path.is_file()}

    first = content()
    (tmp_path / "stac" / "items" / "old.json").write_text("{}")
    assert content() == first
    assert [path.name for path in tmp_path.iterdir()] == ["stac"]


def test_the_time_is_given_or_that_of_the_file(tmp_path):
    manifest = tiles(tmp_path, source(), source("lake"), source("sea"))
    early = datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    path = write_stac(manifest, tmp_path, datetime_utc={"canal": NOON, "lake": early, "sea": None})
    times = {item.properties["geoalign:source"]: item.datetime for item in items(path)}
    changed = datetime.fromtimestamp(10**9, UTC)
    assert times == {"canal": NOON, "lake": early, "sea": changed}
    interval = pystac.Collection.from_file(str(path)).extent.temporal.intervals[0]
    assert interval == [changed, NOON]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"TIFFTAG_DATETIME": "2024:05:31 12:00:00"}, NOON),
        ({"ACQUISITIONDATETIME": "2024-05-31T14:00:00+02:00", "TIFFTAG_DATETIME": "2025:01:01 00:00:00"}, NOON),
        ({"TIFFTAG_DATETIME": "last week"}, None),
        ({}, None),
    ],
)
def test_the_time_a_raster_tells(make_raster, tags, expected):
    path = make_raster(np.zeros((1, 4, 4), np.uint8))
    with rasterio.open(path, "r+") as out:
        out.update_tags(**tags)
    with open_raster(path) as raster:
        assert raster_datetime(raster) == expected


def test_a_raster_without_a_crs_is_refused(tmp_path):
    lost = source("lost", crs=None)
    with pytest.raises(NotGeoreferencedError, match=r"lost\.tif: has no CRS"):
        check_stac([source(), lost])
    with pytest.raises(NotGeoreferencedError):
        write_stac(tiles(tmp_path, source(), lost), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["../out.tif", "/etc/passwd.tif", "a/../../b.tif", "a\\b.tif"])
def test_paths_that_lead_out_are_refused(tmp_path, path):
    manifest = tiles(tmp_path, source())
    chips = (Chip(path, 0, manifest.chips[0].window, 1.0), *manifest.chips)
    with pytest.raises(ManifestError, match="outside its folder"):
        write_stac(Manifest(tmp_path, manifest.sources, chips), tmp_path)


def test_two_tiles_of_one_name_are_refused(tmp_path):
    manifest = tiles(tmp_path, source())
    with pytest.raises(ManifestError, match="alike"):
        write_stac(Manifest(tmp_path, manifest.sources, manifest.chips * 2), tmp_path)


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "stac").mkdir()
    (tmp_path / "stac" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_stac(tiles(tmp_path, source()), tmp_path)
    assert (tmp_path / "stac" / "notes.txt").read_text() == "mine"


def test_a_stop_or_a_failure_leaves_the_old_collection(tmp_path, monkeypatch):
    manifest = tiles(tmp_path, source())
    path = write_stac(manifest, tmp_path)
    before = path.read_bytes()
    token = CancelToken()
    with pytest.raises(CancelledError):
        write_stac(manifest, tmp_path, progress=lambda *_: token.cancel(), cancel=token)
    write = Path.write_text

    def full(self, *args, **kwargs):
        if self.name == "collection.json":
            raise OSError(28, "No space left on device")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputWriteError, match="No space left"):
        write_stac(manifest, tmp_path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["stac"]
