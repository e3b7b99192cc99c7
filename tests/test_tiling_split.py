"""Parts of a split share no ground, come out at their shares, and repeat themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from tiling.chips.manifest import Source, footprint
from tiling.chips.spec import SplitSpec
from tiling.chips.split import assign_parts
from tiling.errors import UsageError
from tiling.geodesy import ground_size_m
from tiling.grid import TileGrid

UTM, NEXT_ZONE, MERCATOR, DEGREES = "EPSG:32631", "EPSG:32632", "EPSG:3857", "EPSG:4326"
WKT = {code: CRS.from_string(code).to_wkt() for code in (UTM, NEXT_ZONE, MERCATOR, DEGREES, "EPSG:3413")}
HALVES = "train=0.5,val=0.5"


def source(
    width=1000, height=1000, tile=100, stride=100, *, edge="shift", crs=UTM, at=(500000.0, 5800000.0), res=1.0,
    turn=0.0, south_up=False, name="raster",
):  # fmt: skip
    transform = Affine.translation(*at) * Affine.rotation(turn) * Affine.scale(res, res if south_up else -res)
    wkt = None if crs is None else WKT[crs]
    size = ground_size_m(wkt, transform, width, height)
    return Source(
        name=name, path=f"{name}.tif", fingerprint={"sha256": name}, width_px=width, height_px=height,
        transform=transform, crs_wkt=wkt, gsd_m=None if size is None else size[0], overview=1,
        grid=TileGrid(width, height, tile, stride, edge), bands=(1,), dtype="uint8", nodata=None, stretch=None,
    )  # fmt: skip


def divide(sources, text=HALVES, **how):
    return assign_parts(sources, [list(each.grid) for each in sources], SplitSpec.parse(text, **how))


def grounds(each, crs):
    """Outlines of a raster's tiles in another CRS, with many points on every side."""
    polygons = [shapely.Polygon(footprint(each, window)) for window in each.grid]
    move = Transformer.from_crs(each.crs_wkt, crs, always_xy=True)
    dense = shapely.segmentize(polygons, shapely.length(polygons[0]) / 100)
    return shapely.transform(dense, lambda xy: np.column_stack(move.transform(xy[:, 0], xy[:, 1])))


def share_ground(sources, assignment, width, crs=UTM):
    """Whether tiles of different parts share a strip of ground at least so wide."""
    outlines = np.concatenate([grounds(each, crs) for each in sources])
    labels = np.array([part or "" for part in itertools.chain(*assignment.parts)])
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    apart = (first < second) & (labels[first] != labels[second]) & (labels[first] != "") & (labels[second] != "")
    shared = shapely.intersection(outlines[first[apart]], outlines[second[apart]])
    return not shapely.is_empty(shapely.buffer(shared, -width / 2)).all()


placed = st.builds(
    source,
    width=st.integers(60, 700),
    height=st.integers(60, 700),
    tile=st.integers(60, 120),
    stride=st.integers(30, 60),
    edge=st.sampled_from(["shift", "pad", "partial", "drop"]),
    at=st.tuples(st.floats(500000, 500600), st.floats(5799400, 5800000)),
    res=st.sampled_from([0.5, 1.0, 1.37]),
    turn=st.sampled_from([0.0, 17.0, 45.0, -90.0]),
    south_up=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(sources=st.lists(placed, min_size=1, max_size=3), seed=st.integers(0, 5))
def test_no_two_parts_share_ground(sources, seed):
    try:
        assignment = divide(sources, seed=seed)
    except UsageError:
        return
    assert not share_ground(sources, assignment, 2e-3 * max(each.gsd_m for each in sources))
    assert {part for parts in assignment.parts for part in parts} - {None} == {"train", "val"}


@pytest.mark.parametrize(("crs", "res"), [(MERCATOR, 1.6), (DEGREES, 1e-5), (NEXT_ZONE, 1.0)])
@pytest.mark.parametrize("turn", [0.0, 30.0])
def test_no_two_parts_share_ground_across_crs(crs, res, turn):
    at = Transformer.from_crs(UTM, crs, always_xy=True).transform(500500, 5799500)
    sources = [
        source(1500, 1500, 64, 48),
        source(900, 900, 64, 64, crs=crs, at=at, res=res, turn=turn),
    ]
    other = shapely.unary_union(grounds(sources[1], UTM))
    assert other.intersects(shapely.unary_union(grounds(sources[0], UTM)))
    assignment = divide(sources, block="200m")
    assert not share_ground(sources, assignment, 2e-3)
    assert min(assignment.counts.values()) > 20
    assert None in assignment.parts[1]


def test_rasters_on_both_sides_of_the_date_line():
    east = source(400, 400, 100, 100, crs=DEGREES, at=(179.99, 10.0), res=1e-4, name="east")
    west = source(400, 400, 100, 100, crs=DEGREES, at=(-180.02, 9.995), res=1e-4, name="west")
    assignment = divide([east, west], block="100px")
    moved = source(400, 400, 100, 100, crs=DEGREES, at=(179.98, 9.995), res=1e-4)
    assert not share_ground([east, moved], assignment, 1e-7, DEGREES)
    assert min(assignment.counts.values()) >= 1
    assert assignment.left_out > 0


def test_a_map_of_the_whole_globe():
    globe = source(3600, 1800, 200, 200, crs=DEGREES, at=(-180.0, 90.0), res=0.1, name="globe")
    place = source(900, 900, 100, 100, at=(500000, 5800000), res=1000, name="place")
    assignment = divide([globe, place])
    assert not share_ground([globe, place], assignment, 1e-3, DEGREES)
    assert min(assignment.counts.values()) > 10


def test_the_pole():
    cap = source(600, 600, 100, 100, crs="EPSG:3413", at=(-30000, 30000), res=100, name="cap")
    same = source(500, 500, 100, 100, crs="EPSG:3413", at=(-20050, 20050), res=80, name="same")
    assignment = divide([cap, same], block="100px")
    assert not share_ground([cap, same], assignment, 0.2, "EPSG:3413")
    assert assignment.left_out > 0


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), tile=st.integers(32, 300),
    edge=st.sampled_from(["shift", "pad", "partial", "drop"]), block=st.sampled_from([None, "500px", "777m", "300%"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_without_overlap(width, height, tile, edge, block):
    each = source(width, height, tile, tile, edge=edge)
    try:
        assignment = divide([each], "train=0.7,val=0.3", block=block)
    except UsageError as error:
        assert "nothing would be left for" in str(error)
        return
    assert assignment.left_out == 0
    assert sum(assignment.counts.values()) == len(each.grid)


def test_another_planet_is_apart():
    mars = "+proj=eqc +lat_ts=0 +lon_0=0 +R=3396190 +units=m"
    WKT[mars] = CRS.from_string(mars).to_wkt().replace('"unknown"', '"Mars"')
    sources = [source(), source(crs=mars, at=(177850, 3102430), name="mars")]
    assignment = divide(sources)
    assert assignment.left_out == 0
    assert {part for parts in assignment.parts for part in parts} == {"train", "val"}


def test_a_disc_that_reaches_beyond_the_earth():
    disc = "+proj=geos +h=35785831 +lon_0=0 +sweep=y"
    WKT[disc] = CRS.from_string(disc).to_wkt()
    whole = source(1000, 1000, 100, 100, crs=disc, at=(-5500000, 5500000), res=11000, name="disc")
    assert divide([whole]).left_out == 0
    place = source(2000, 2000, 50, 50, at=(400000, 5900000), res=100, name="place")
    try:
        assignment = divide([whole, place])
    except UsageError:
        return
    assert not share_ground([whole, place], assignment, 1.0, disc)


def test_neighbouring_sheets_are_planned_apart_and_lose_nothing():
    sheets = [source(1000, 1000, 256, 256, at=(500000 + 1000 * x, 5800000 - 1000 * y), name=f"{x}{y}")
              for x in range(5) for y in range(5)]  # fmt: skip
    assignment = divide(sheets, "train=0.8,val=0.1,test=0.1")
    assert assignment.left_out == 0
    assert not share_ground(sheets, assignment, 1e-3)


def test_two_dates_of_one_place_go_the_same_way():
    dates = [source(2000, 2000, 100, 100, name=name) for name in ("may", "june")]
    first, second = divide(dates).parts
    assert first == second
    assert None not in first


def test_rasters_without_a_crs_are_apart():
    pictures = [source(200, 200, 100, 100, crs=None, name=str(number)) for number in range(120)]
    assignment = divide(pictures, "train=0.8,val=0.1,test=0.1")
    assert assignment.left_out == 0
    assert all(len(set(parts)) == 1 for parts in assignment.parts)
    assert assignment.counts == {"train": 384, "val": 48, "test": 48}
    with pytest.raises(UsageError, match="metres are unknown"):
        divide(pictures, block="100m")


@pytest.mark.parametrize("overlap", [0, 20, 50])
@pytest.mark.parametrize("text", ["train=0.8,val=0.1,test=0.1", "a=0.6,b=0.4", "one=1,two=1,three=1,four=1,five=1"])
def test_shares_are_met_on_a_large_grid(overlap, text):
    each = source(20000, 20000, 100, 100 - overlap)
    assignment = divide([each], text)
    kept = sum(assignment.counts.values())
    for name, share in SplitSpec.parse(text).shares:
        assert abs(assignment.counts[name] / kept - share) < 0.01
    assert kept > 0.85 * len(each.grid)
    assert assignment.blocks >= 30
    assert len(assignment.notes) == 1


def test_the_seed_decides_and_nothing_else_does():
    each = source(4000, 4000, 100, 80)
    first = divide([each], seed=3)
    assert divide([each], seed=3) == first
    assert divide([each], seed=4).parts != first.parts


def test_a_block_goes_to_one_part():
    each = source(4000, 4000, 100, 100)
    assignment = divide([each], block="800m", seed=1)
    parts = dict(zip([(window.row // 8, window.col // 8, window.row, window.col) for window in each.grid],
                     assignment.parts[0], strict=True))  # fmt: skip
    blocks = {}
    for (row, col, *_), part in parts.items():
        blocks.setdefault((row, col), set()).add(part)
    assert len(blocks) == assignment.blocks == 25
    assert all(len(found) == 1 for found in blocks.values())
    assert assignment.block == "800 px (800 m)"


def test_a_block_smaller_than_a_tile_grows():
    assignment = divide([source(1000, 1000, 100, 60)], block="10px")
    assert assignment.block == "120 px (120 m)"
    assert any("instead of 10px" in text for text in assignment.notes)


def test_every_part_gets_a_tile_when_that_is_possible():
    assignment = divide([source(1100, 1100, 512, 410)], "train=0.8,val=0.1,test=0.1")
    assert min(assignment.counts.values()) >= 1
    assert any("come out as" in text for text in assignment.notes)


@pytest.mark.parametrize(("size", "stride"), [(100, 100), (150, 50)])
def test_too_few_blocks_are_an_error(size, stride):
    with pytest.raises(UsageError, match="nothing would be left for val") as caught:
        divide([source(size, size, 100, stride)])
    assert caught.value.remedy


def test_no_tiles_at_all():
    each = source()
    assignment = assign_parts([each, each], [[], []], SplitSpec.parse(HALVES))
    assert assignment.parts == ((), ())
    assert assignment.counts == {"train": 0, "val": 0}


def test_a_raster_without_tiles_does_not_disturb():
    full, empty = source(), source(at=(500500.3, 5800000.7), name="empty")
    assignment = assign_parts([empty, full], [[], list(full.grid)], SplitSpec.parse(HALVES))
    assert assignment.parts[0] == ()
    assert assignment.left_out == 0


def test_an_area_that_begins_anywhere_loses_nothing():
    each = source(4000, 4000, 100, 100)
    windows = [window for window in each.grid if window.row >= 7 and window.col >= 5]
    assert assign_parts([each], [windows], SplitSpec.parse(HALVES)).left_out == 0
