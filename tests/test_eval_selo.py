"""Semantic localisation: closed forms of its figures, the map by other means, and the task on a tiny AIR-SLT."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tiling.progress import CancelToken, silent
from training.data.errors import DataError
from training.evaluation.layouts.airslt import read_airslt
from training.evaluation.metrics import selo, selo_map, selo_peaks

SQUARE = [[100, 100], [200, 100], [200, 200], [100, 200]]


def peaks(*places):
    return np.array(places, np.int64).reshape(-1, 2)


# The figures on maps and peaks that can be worked by hand.


def test_circle_is_cut_to_whole_pixels():
    assert selo.circle_of(SQUARE) == selo.Circle(150, 150, int(50 * math.sqrt(2) * 1.5))
    assert selo.circle_of([[0.9, 0], [10.9, 0], [10.9, 10], [0.9, 10]]).x_px == 5
    # A repeated corner pulls the centre, as in the published annotations.
    assert selo.circle_of([*SQUARE, [200, 200], [200, 200], [200, 200]]).x_px == int(1200 / 7)
    with pytest.raises(DataError, match="only a point"):
        selo.circle_of([[5, 5], [5, 5], [5, 5]])


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_rsu_of_uniform_half_and_empty_maps(kind):
    one = 1 if kind is np.float32 else 255
    mask = np.zeros((40, 50), bool)
    mask[:10, :20] = True  # a tenth
    assert selo.rsu(np.full((40, 50), one, kind), mask) == pytest.approx(1 - math.exp(-0.707), abs=1e-6)
    inside = (mask * one).astype(kind)
    assert selo.rsu(inside, mask) == pytest.approx(1.0)
    assert selo.rsu((~mask * one).astype(kind), mask) == 0
    assert selo.rsu(np.zeros((40, 50), kind), mask) == 0
    doubled = np.where(mask, one, one // 2 if one > 1 else 0.5).astype(kind)
    ratio = 200 * 1.0 / (1800 * (127 / 255 if one > 1 else 0.5)) * 9
    assert selo.rsu(doubled, mask) == pytest.approx(1 - math.exp(-0.707 * ratio), abs=1e-6)
    with pytest.raises(DataError, match="no pixel"):
        selo.rsu(inside, np.zeros_like(mask))


def test_ras_and_rda_by_hand():
    one = selo.Circle(100, 100, 50)
    two = selo.Circle(300, 300, 20)
    grow = lambda m: (math.exp(3 * m) - 1) / (math.exp(3) - 1)  # noqa: E731
    assert selo.ras([one], peaks()) == 1  # no peak: m = 1
    assert selo.ras([one, two], peaks()) == 1
    assert selo.ras([one], peaks((100, 100))) == 0
    assert selo.ras([one], peaks((130, 140))) == 1  # on the circle: inside it, as far as can be
    assert selo.ras([one], peaks((100, 125))) == pytest.approx(grow(0.5))
    assert selo.ras([one], peaks((100, 125), (100, 100), (900, 900))) == pytest.approx(grow(0.25))
    assert selo.ras([one, two], peaks((100, 100))) == pytest.approx(grow(0.5))
    assert selo.rda([one], peaks()) == 0
    assert selo.rda([one], peaks((130, 140))) == 1
    assert selo.rda([one], peaks((131, 140))) == 0
    pair = peaks((90, 100), (110, 100))
    assert selo.rda([one], pair) == pytest.approx(0.5 * (1 - 10 / 50) + math.exp(-2))
    assert selo.rda([one, two], pair) == pytest.approx((0.5 * 0.8 + math.exp(-2)) / 2)
    assert selo.Selo(0.7, 0.2, 0.6).rmi == pytest.approx(0.4 * 0.7 + 0.35 * 0.8 + 0.25 * 0.6)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=6), st.randoms())
@settings(max_examples=40, deadline=None)
def test_figures_do_not_depend_on_the_order_of_peaks_and_regions(places, rng):
    circles = [selo.Circle(100, 100, 50), selo.Circle(300, 250, 120)]
    shuffled = list(places)
    rng.shuffle(shuffled)
    assert selo.ras(circles, peaks(*places)) == pytest.approx(selo.ras(circles[::-1], peaks(*shuffled)))
    assert selo.rda(circles, peaks(*places)) == pytest.approx(selo.rda(circles[::-1], peaks(*shuffled)))
    assert 0 <= selo.ras(circles, peaks(*places)) <= 1
    assert 0 <= selo.rda(circles, peaks(*places)) <= 0.5 + math.exp(-2) + 1


def test_mask_is_a_union():
    mask = selo.mask_of([SQUARE, [[150, 150], [250, 150], [250, 250], [150, 250]]], 300, 300)
    assert mask.sum() == 101 * 101 * 2 - 51 * 51
    assert selo.mask_of([[[-50, -50], [9, -50], [9, 9], [-50, 9]]], 300, 300).sum() == 100


def blob(shape, *centres, width=150.0, height=1.0):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    parts = [np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * width**2)) for x, y in centres]
    return (np.max(parts, axis=0) * height).astype(np.float32)


def test_peaks_of_one_blob_two_blobs_and_faint_ones():
    found = selo_peaks.find_peaks(blob((700, 900), (420, 310)))
    assert np.abs(found - [420, 310]).max() <= 4 and len(found) == 1  # five means of even size shift by half a pixel
    far = selo_peaks.find_peaks(blob((600, 2200), (300, 300), (1900, 300)))
    assert sorted(far[:, 0].tolist()) == pytest.approx([300, 1900], abs=4)
    # Nearer than half of the maximum filter's window, the fainter blob is no peak.
    near = np.maximum(blob((600, 1300), (400, 300), width=60), blob((600, 1300), (800, 300), width=60, height=0.9))
    assert len(selo_peaks.find_peaks(near)) == 1
    assert len(selo_peaks.find_peaks(blob((600, 600), (300, 300), height=0.49))) == 0
    assert len(selo_peaks.find_peaks(np.zeros((300, 300), np.float32))) == 0


def test_a_plateau_is_one_peak_at_its_middle_and_level_zero_none():
    assert selo_peaks.find_peaks(np.ones((300, 500), np.float32)).tolist() == [[249, 149]]
    assert selo_peaks.find_peaks(np.full((300, 500), 255, np.uint8)).tolist() == [[249, 149]]
    at_half = np.full((20, 20), 128, np.uint8)
    assert len(selo_peaks.find_peaks(at_half)) == 1
    assert len(selo_peaks.find_peaks(at_half - 1)) == 0


# Constants. What is written out is the published program's, SemanticLocalizationMetrics at 1e9596d (Yuan et al. 2022):
# evaluations/SLM.py for figures and peaks, predict/generate_selo.py for the map. None comes from the code under test.


def test_figures_have_the_published_constants():
    """Rsu's 0.707, the circle's 1.5, Ras's 3, Rda's 0.5 and the weights 0.4, 0.35, 0.25."""
    mask = np.zeros((30, 40), bool)
    mask[:15, :20] = True  # a quarter: three unmarked pixels to each marked one
    prob = np.where(mask, 0.8, 0.2).astype(np.float32)
    assert selo.rsu(prob, mask) == pytest.approx(1 - math.exp(-0.707 * (0.8 * 300) / (0.2 * 900) * 3), abs=1e-6)
    circle = selo.circle_of([[60, 80], [140, 80], [140, 120], [60, 120]])
    assert circle == selo.Circle(100, 100, int(1.5 * math.hypot(40, 20)))
    assert selo.ras([circle], peaks((100 + 67 // 2, 100))) == pytest.approx(
        (math.exp(3 * 33 / 67) - 1) / (math.exp(3) - 1)
    )
    for count in (2, 3, 5):
        assert selo.rda([circle], peaks(*[(100, 100)] * count)) == pytest.approx(0.5 + math.exp(-0.5 * (count + 2)))
    assert [selo.Selo(*three).rmi for three in ((1, 1, 0), (0, 0, 0), (0, 1, 1))] == pytest.approx([0.4, 0.35, 0.25])


def slow_smooth(values):
    """Smooth rows of 8-bit levels five times by a mean of 50, mirrored, as OpenCV's ``boxFilter`` does."""
    for _ in range(5):
        padded = np.pad(values.astype(np.int64), ((0, 0), (25, 24)), mode="reflect")
        values = np.rint(np.lib.stride_tricks.sliding_window_view(padded, 50, axis=1).mean(axis=-1)).astype(np.uint8)
    return values


def slow_peaks(row):
    """Return the peaks' columns in a map whose rows are all like this one, 8-bit levels."""
    smooth = slow_smooth(row[None])[0]
    top = np.array([0 < value == smooth[max(0, x - 500) : x + 500].max() for x, value in enumerate(smooth)])
    ends = np.flatnonzero(np.diff(np.concatenate([[False], top, [False]]).astype(int)))
    middles = [int((first + last - 1) / 2) for first, last in zip(ends[::2], ends[1::2], strict=True)]
    return [x for x in middles if row[x] / 255 >= 0.5]


def test_smoothing_is_five_means_over_fifty():
    grey = np.random.default_rng(5).integers(0, 256, (3, 400)).astype(np.uint8)
    grey[2, 200:] = 255
    for row in grey:
        found = selo_peaks.smoothed(np.repeat(row[None], 60, axis=0))
        assert np.array_equal(found, np.repeat(slow_smooth(row[None]), 60, axis=0))
    step = np.repeat(np.where(np.arange(600) < 300, 0, 255)[None].astype(np.uint8), 300, axis=0)
    found = np.flatnonzero((selo_peaks.smoothed(step)[0] > 0) & (selo_peaks.smoothed(step)[0] < 255))
    assert found[0] >= 300 - 5 * 25 and found[-1] < 300 + 5 * 25  # so far a pixel reaches, not farther


@pytest.mark.parametrize("fainter", ["left", "right"])
def test_a_peak_hides_fainter_ones_within_a_thousand_pixels(fainter):
    """Two bars, ever farther apart: the fainter becomes a peak at one distance, to the pixel."""
    seen = []
    for apart in range(255, 275):
        row = np.zeros(1500, np.uint8)
        row[200:500] = 255
        row[500 + apart : 800 + apart] = 180
        row = row if fainter == "right" else row[::-1].copy()
        expected = slow_peaks(row)
        assert selo_peaks.find_peaks(np.repeat(row[None], 4, axis=0))[:, 0].tolist() == expected
        seen.append(len(expected))
    assert seen == sorted(seen) and set(seen) == {1, 2}


def test_peaks_are_at_least_a_half():
    for level, count in ((127, 0), (128, 1)):
        row = np.zeros(900, np.uint8)
        row[300:600] = level
        assert len(slow_peaks(row)) == len(selo_peaks.find_peaks(np.repeat(row[None], 5, axis=0))) == count
    for level, count in ((0.4999, 0), (0.5, 1)):
        assert len(selo_peaks.find_peaks(np.full((40, 40), level, np.float32))) == count


def slow_map(height, width, match):
    """Make the map of an image from a function that matches a tile (row, col, side)."""
    from io import BytesIO

    total, count = np.zeros((height, width)), np.zeros((height, width))
    placed = set()
    for side in (256, 512, 768):
        for offset in (0, side // 2):
            for row in range(offset, height, side):
                for col in range(offset, width, side):
                    placed.add((min(row, height - side), min(col, width - side), side))
    for row, col, side in placed:  # a tile that two grids have is one file, which is written over
        total[row : row + side, col : col + side] += match(row, col, side)
        count[row : row + side, col : col + side] += 1
    mean = total / count
    grey = (255 * ((mean - mean.min()) / (mean.max() - mean.min()))).astype(np.uint8)
    padded = np.pad(grey, 125, mode="edge")
    median = np.zeros_like(grey)
    for level in np.unique(grey)[::-1]:  # the lowest level that more than half of 251 × 251 pixels do not exceed
        sums = np.pad((padded <= level).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        inside = sums[251:, 251:] - sums[:-251, 251:] - sums[251:, :-251] + sums[:-251, :-251]
        median[2 * inside > 251 * 251] = level
    with BytesIO() as file:
        Image.fromarray(median).save(file, "JPEG", quality=95)
        return np.asarray(Image.open(file))


def test_the_whole_map_is_that_of_the_published_program(tmp_path):
    from training.evaluation.task import Job
    from training.evaluation.tasks.selo import probability_map

    def match(row, col, side):
        return 0.2 + 0.1 * math.sin(row / 97 + col / 71) + side / 9000

    height, width = 800, 1010
    tiles = selo_map.tiles_of(height, width)
    assert {tile.height_px for tile in tiles} == {tile.width_px for tile in tiles} == {256, 512, 768}
    matches = np.array([match(tile.row, tile.col, tile.height_px) for tile in tiles], np.float64)
    job = Job(tmp_path, "selo-airslt", lambda: None, tmp_path, silent, CancelToken())
    found = probability_map(tiles, matches, job, published=True)
    assert np.array_equal(found, slow_map(height, width, match))


def test_a_tile_is_made_256_px_and_a_jpeg_of_quality_95():
    square = selo_map.resize_cubic(np.random.default_rng(6).integers(0, 256, (512, 512, 3)).astype(np.uint8))
    assert square.shape == (256, 256, 3)
    from io import BytesIO

    with BytesIO() as file:
        Image.fromarray(square).save(file, "JPEG", quality=95)
        assert np.array_equal(selo_map.through_jpeg(square), np.asarray(Image.open(file)))


@pytest.mark.parametrize("shape", [(120, 90), (30, 70), (1, 5)])
def test_box_mean_against_a_slow_one(shape):
    grey = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    padded = np.pad(grey, ((25, 24), (25, 24)), mode="reflect") if min(shape) > 1 else np.pad(
        np.pad(grey, ((0, 0), (25, 24)), mode="reflect"), ((25, 24), (0, 0)), mode="edge"
    )  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(padded.astype(np.int64), (50, 50))
    assert np.array_equal(selo_peaks.box_mean(grey, 50), np.rint(windows.sum(axis=(2, 3)) / 2500).astype(np.uint8))


# The map.


def test_tiles_as_published():
    tiles = selo_map.tiles_of(1024, 1024, (256,))
    corner = [(tile.row, tile.col) for tile in tiles]
    assert len(corner) == len(set(corner))
    starts = sorted({row for row, _ in corner})
    assert starts == [0, 128, 256, 384, 512, 640, 768]  # 896 is moved to 768, which the first grid has as well
    assert (768, 768) in corner and corner.count((768, 768)) == 1
    assert (128, 256) not in corner  # both axes are shifted together …
    assert (128, 768) in corner  # … and the tile that was moved inwards is there
    big = selo_map.tiles_of(1000, 1300)
    cover = np.zeros((1000, 1300), int)
    for tile in big:
        assert tile.row + tile.height_px <= 1000 and tile.col + tile.width_px <= 1300
        cover[tile.row : tile.row + tile.height_px, tile.col : tile.col + tile.width_px] += 1
    assert cover.min() >= 3


def test_small_images_have_tiles_as_large_as_themselves():
    tiles = selo_map.tiles_of(300, 200)
    assert {(tile.height_px, tile.width_px) for tile in tiles} == {(256, 200), (300, 200)}


def test_cells_average_the_tiles_over_each_pixel():
    tiles = selo_map.tiles_of(300, 450, (64, 128))
    matches = np.random.default_rng(2).normal(size=len(tiles)).astype(np.float32)
    total, count = np.zeros((300, 450)), np.zeros((300, 450))
    for tile, match in zip(tiles, matches, strict=True):
        place = np.s_[tile.row : tile.row + tile.height_px, tile.col : tile.col + tile.width_px]
        total[place] += match
        count[place] += 1
    mean = total / count
    expected = (mean - mean.min()) / (mean.max() - mean.min())
    assert selo_map.plain_map(selo_map.cells_of(tiles, matches)) == pytest.approx(expected, abs=1e-6)


def test_a_map_of_one_value_is_empty():
    tiles = selo_map.tiles_of(300, 300)
    cells = selo_map.cells_of(tiles, np.full(len(tiles), 0.25, np.float32))
    assert not selo_map.median_grey(cells).any()
    found = selo.localisation(selo_map.median_grey(cells), [SQUARE])
    assert (found.rsu, found.ras, found.rda, found.rmi) == (0, 1, 0, 0)


@given(st.integers(0, 2**31), st.sampled_from([3, 7, 15, 31]))
@settings(max_examples=20, deadline=None)
def test_median_on_cells_is_the_median_of_pixels(seed, size):
    rng = np.random.default_rng(seed)
    edges = [np.unique([0, *rng.integers(1, 60, 4), 60]), np.unique([0, *rng.integers(1, 45, 5), 45])]
    values = rng.random((len(edges[0]) - 1, len(edges[1]) - 1))
    cells = selo_map.Cells(*edges, values)
    grey = (255 * cells.expand(values)).astype(np.uint8)
    assert np.array_equal(selo_map.median_grey(cells, size), ndimage.median_filter(grey, size, mode="nearest"))


def test_cubic_resize_knows_its_coefficients():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 256, 0)[..., None].repeat(3, -1)
    assert np.array_equal(selo_map.resize_cubic(ramp), ramp)
    odd = np.zeros((512, 4, 3), np.uint8)
    odd[200] = 64  # halving: weights −3, 19, 19, −3 of 32
    assert selo_map.resize_cubic(odd)[98:103, 0, 0].tolist() == [0, 0, 38, 0, 0]
    triple = np.random.default_rng(3).integers(0, 256, (768, 768, 3)).astype(np.uint8)
    assert np.array_equal(selo_map.resize_cubic(triple), triple[1::3, 1::3])


# AIR-SLT.


@pytest.fixture
def airslt(tmp_path):
    """A tiny AIR-SLT, and a function that writes its entries."""
    rng = np.random.default_rng(4)
    folder = tmp_path / "slt"
    (folder / "annotations").mkdir(parents=True)
    (folder / "imgs").mkdir()
    Image.fromarray(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)).save(folder / "imgs" / "0.jpg")
    Image.fromarray(rng.integers(0, 256, (280, 270)).astype(np.uint8)).save(folder / "imgs" / "1.png")

    def write(*entries):
        (folder / "annotations" / "anno.json").write_text(json.dumps(entries))
        return folder

    write(
        {"caption": "a green pond.\n", "jpg_name": "0.jpg", "points": [SQUARE]},
        {"caption": "two  planes", "jpg_name": "1.png", "points": [SQUARE, [[0, 0], [40, 0], [40, 30]]]},
        {"caption": "a road", "jpg_name": "0.jpg", "points": [[[300, 10], [390, 20], [380, 90]]]},
    )
    return folder, write


def test_layout_is_read(airslt):
    data = read_airslt(airslt[0])
    assert [item.caption for item in data.sentences] == ["a green pond.", "two planes", "a road"]
    assert data.sizes_px == {"0.jpg": (300, 400), "1.png": (280, 270)}
    by_file = read_airslt(airslt[0] / "annotations" / "anno.json")
    assert (by_file.folder, by_file.sizes_px) == (data.folder, data.sizes_px)
    assert [len(item.regions) for item in data.sentences] == [1, 2, 1]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"caption": " ", "jpg_name": "0.jpg", "points": [SQUARE]}, r"\[0\]: has no words"),
        ({"caption": "a", "jpg_name": "../0.jpg", "points": [SQUARE]}, "name of a picture"),
        ({"caption": "a", "jpg_name": "7.jpg", "points": [SQUARE]}, "7.jpg: is missing"),
        ({"caption": "a", "jpg_name": "0.jpg", "points": []}, "no regions"),
        ({"caption": "a", "jpg_name": "0.jpg", "points": [[[1, 2], [3, 4]]]}, r"points\[0\]: is not a polygon"),
        ({"caption": "a", "jpg_name": "0.jpg", "points": [[[1, 2], [3, "x"], [5, 6]]]}, "is not a polygon"),
        ({"caption": "a", "jpg_name": "0.jpg", "points": [[[1, 1], [1, 1], [1, 1]]]}, "only a point"),
        ({"caption": "a", "jpg_name": "0.jpg", "points": [[[900, 1], [950, 1], [950, 60]]]}, "outside of its image"),
        ([1], "is not a sentence"),
    ],
)
def test_wrong_entries_are_named(airslt, entry, said):
    with pytest.raises(DataError, match=said):
        read_airslt(airslt[1](entry))


def test_folders_that_are_no_airslt(tmp_path, airslt):
    with pytest.raises(DataError, match="is not AIR-SLT"):
        read_airslt(tmp_path)
    (airslt[0] / "annotations" / "anno.json").write_text("{}")
    with pytest.raises(DataError, match="not a list of sentences"):
        read_airslt(airslt[0])


def run(model, folder, cache, protocol="selo-airslt", **settings):
    import functools

    from geoalign_core.models.registry import load_encoder
    from training.evaluation.task import Job
    from training.evaluation.tasks.selo import TASK

    load = functools.cache(lambda: load_encoder(str(model), device="cpu"))
    return TASK.run(Job(folder, protocol, load, cache, silent, CancelToken(), settings=settings))


def test_the_task_end_to_end(airslt, tiny_model, tmp_path):
    result = run(tiny_model, airslt[0], tmp_path / "cache")
    assert dict(result.dataset.counts) == {"images": 2, "sentences": 3, "regions": 4, "tiles": 11}
    rows = result.details["sentences"]
    for name in ("Rsu", "Rda", "Ras", "Rmi"):
        assert result.metrics[name].value == pytest.approx(np.mean([row[name] for row in rows]))
    assert result.metrics["Ras"].better == "lower"
    assert result.metrics["Rmi"].low <= result.metrics["Rmi"].value <= result.metrics["Rmi"].high
    assert "narrower than the largest tile" in result.notes[0]
    pictures = result.details["pictures"]
    assert [shown["caption"].partition(":")[0] for shown in pictures] == ["best 1", "best 2", "best 3"]
    assert sum(len(shown["boxes"]) for shown in pictures) == 4 and all(shown["heat"] for shown in pictures)
    again = run(tiny_model, airslt[0], tmp_path / "cache")
    assert again.metrics == result.metrics and again.dataset == result.dataset
    plain = run(tiny_model, airslt[0], tmp_path / "cache", "selo-airslt-plain")
    assert plain.metrics["Rsu"].value != result.metrics["Rsu"].value


def test_damaged_pictures_and_unknown_settings_are_refused(airslt, tiny_model, tmp_path):
    from tiling.errors import GeoAlignError, UsageError

    with pytest.raises(UsageError, match="colour"):
        run(tiny_model, airslt[0], tmp_path / "cache", colour="red")
    path = airslt[0] / "imgs" / "0.jpg"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(GeoAlignError, match=r"0\.jpg"):
        run(tiny_model, airslt[0], tmp_path / "cache")
