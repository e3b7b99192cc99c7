"""Tiles cut and stitched back are the raster again; hostile folders are told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from tiling import (
    CancelledError,
    CancelToken,
    GeoAlignError,
    OutputExistsError,
    OutputWriteError,
    TileGrid,
    UsageError,
    open_raster,
    pixel_canvas,
    read_raw,
)
from tiling.chips.manifest import Chip, Manifest, ManifestError, Source, write_manifest
from tiling.chips.stitch import TileError, stitch
from tiling.source import SourceRect, read_source

REPO = Path(__file__).resolve().parents[1]


def write_tile(path, array, *, nodata=None, valid=None, colorinterp=(), colormap=None):
    """Write samples as a model would: without a place on the ground."""
    profile = {"driver": "PNG" if path.suffix == ".png" else "GTiff", "nodata": nodata, "dtype": array.dtype.name}
    count, height, width = array.shape
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", count=count, height=height, width=width, **profile
    ) as out:  # fmt: skip
        if colormap:
            out.write_colormap(1, colormap)
        elif colorinterp:
            out.colorinterp = [ColorInterp[name] for name in colorinterp]
        out.write(array)
        if valid is not None and not valid.all():
            out.write_mask(valid)


def cut(raster_path, folder, *, tile=64, stride=48, edge="shift", write=write_tile, suffix="tif", name=None):
    """Cut a raster pixel by pixel into ``folder`` and give the manifest."""
    folder.mkdir(exist_ok=True)
    with open_raster(raster_path) as raster:
        info = raster.info
        canvas = pixel_canvas(info)
        grid = TileGrid(canvas.width_px, canvas.height_px, tile, stride, edge)
        name = name or raster_path.stem
        source = Source(
            name, str(raster_path), {"sha256": "0"}, canvas.width_px, canvas.height_px, canvas.transform,
            None if canvas.crs is None else canvas.crs.to_wkt(), canvas.gsd_m, 1, grid,
            tuple(range(1, info.count + 1)), info.dtype, info.nodata, None,
        )  # fmt: skip
        colormap = None if raster.palette is None else {k: tuple(map(int, c)) for k, c in enumerate(raster.palette)}
        chips = []
        for piece in read_raw(raster, canvas, grid, indexes=source.bands):
            path = f"{name}_r{piece.window.row:04d}_c{piece.window.col:04d}.{suffix}"
            array, masked = piece.array, info.nodata is None and info.alpha_band is None
            if not piece.valid.all() and edge == "pad":
                array = np.where(beyond(piece.window, grid), np.asarray(info.nodata or 0).astype(array.dtype), array)
            extra = {"nodata": info.nodata, "valid": piece.valid if masked else None}
            if write is write_tile:
                extra |= {"colorinterp": info.colorinterp, "colormap": colormap}
            write(folder / path, array, **extra)
            chips.append(Chip(path, 0, piece.window, float(piece.valid.mean())))
    manifest = Manifest(folder, (source,), tuple(chips))
    write_manifest(manifest)
    return manifest


def beyond(window, grid):
    rows = np.arange(window.row_off_px, window.row_end_px) >= grid.height_px
    cols = np.arange(window.col_off_px, window.col_end_px) >= grid.width_px
    return rows[:, None] | cols


def look(path):
    """Everything that must survive: facts, validity and the valid samples."""
    with open_raster(path) as raster:
        info = raster.info
        rect = SourceRect(0, 0, info.width_px, info.height_px)
        array, valid = read_source(raster, range(1, info.count + 1), rect)
        valid = np.ones(array.shape[1:], bool) if valid is None else valid
        facts = info.dtype, info.transform, info.crs, info.is_georeferenced
        palette = None if raster.palette is None else raster.palette.tolist()
        return facts, valid, np.where(valid, array, 0), (info.nodata, info.alpha_band, palette)


def same(found, wanted, *, covered=None):
    (facts, valid, array, extra), (facts0, valid0, array0, extra0) = look(found), look(wanted)
    if covered is not None:
        valid0, array0 = valid0 & covered, np.where(covered, array0, 0)
    assert facts == facts0
    np.testing.assert_array_equal(valid, valid0)
    np.testing.assert_array_equal(array, array0)
    assert extra[1:] == extra0[1:]
    if extra0[0] is not None:
        np.testing.assert_equal(extra[0], extra0[0])
    return extra[0]


def sample(kind, bands=3, shape=(157, 211), seed=0):
    random = np.random.default_rng(seed)
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        return random.integers(limits.min, limits.max, (bands, *shape), dtype=kind, endpoint=True)
    return (random.normal(size=(bands, *shape)) * 10.0 ** random.integers(-20, 20, (bands, *shape))).astype(kind)


EDGES = ["shift", "pad", "partial", "drop"]
PLACES = {
    "north-up": None,
    "south-up": Affine(0.5, 0, 500000, 0, 0.5, 5800000),
    "rotated": Affine.translation(500000, 5800000) * Affine.rotation(30) * Affine.scale(0.5, -0.25),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "int32", "uint32"])
def test_cut_and_stitched_is_the_raster_again(make_raster, tmp_path, kind, edge):
    array = sample(kind)
    nodata = {"int16": -9999, "float32": -3.4028234663852886e38, "uint16": 0}.get(kind)
    if nodata is not None:
        array[:, 30:70, 50:130] = nodata
    place = list(PLACES.values())[len(kind + edge) % 3]
    path = make_raster(array, nodata=nodata, transform=place)
    for stride in (64, 27):
        manifest = cut(path, tmp_path / f"tiles{stride}", stride=stride, edge=edge)
        out = tmp_path / f"out{stride}.tif"
        assert stitch(manifest.folder, out) == [out]
        covered = np.zeros(array.shape[1:], bool)
        for chip in manifest.chips:
            w = chip.window
            covered[w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px] = True
        same(out, path, covered=covered)
        with rasterio.open(out) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            has_mask = "per_dataset" in {flag.name for flag in raster.mask_flag_enums[0]}
            assert has_mask == (nodata is None and kind != "float32" and not covered.all())


@pytest.mark.parametrize("how", ["hann", "nearest"])
def test_masks_alpha_palettes_and_plain_pixels_survive(make_raster, tmp_path, how):
    masked = make_raster(sample("uint8"), "masked.tif")
    holes = np.ones((157, 211), bool)
    holes[20:90, 100:160] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as out:
        out.write_mask(holes)
    alpha = sample("uint8", 4)
    alpha[3] = np.where(holes, np.maximum(alpha[3], 1), 0)
    clear = make_raster(alpha, "alpha.tif", photometric="RGB", alpha="yes")
    plain = make_raster(sample("uint8", 1), "plain.tif", crs=None, transform=Affine.identity())
    indexed = make_raster(sample("uint8", 1) % 7, "indexed.tif", photometric="palette")
    with rasterio.open(indexed, "r+") as out:
        out.write_colormap(1, {k: (k * 30, 255 - k, k, 255) for k in range(7)})
    nans = sample("float32", 1)
    nans[0, ~holes] = np.nan
    nans[0, 0, 0] = np.inf
    gaps = make_raster(nans, "gaps.tif", nodata=np.nan)
    for path in (masked, clear, plain, indexed, gaps):
        manifest = cut(path, tmp_path / path.stem)
        same(stitch(manifest.folder, tmp_path / "out" / path.name, how=how)[0], path)


def test_one_tile_one_pixel_and_png(make_raster, tmp_path):
    for name, shape, suffix in (("pixel", (1, 1), "tif"), ("small", (40, 30), "png"), ("row", (1, 131), "png")):
        path = make_raster(sample("uint16", 1, shape), f"{name}.tif")
        same(stitch(cut(path, tmp_path / name, suffix=suffix).folder, tmp_path / f"{name}_out.tif")[0], path)


def save_array(axis):
    def write(path, array, **_):
        np.save(path, array[0] if axis is None else np.moveaxis(array, 0, axis))

    return write


@pytest.mark.parametrize("axis", [0, 2, None])
@pytest.mark.parametrize("kind", ["uint8", "float32", ">f4", "float16", "float64", "bool"])
def test_arrays_in_any_layout(make_raster, tmp_path, axis, kind):
    values = sample("uint8", 1 if axis is None else 3)
    path = make_raster(values)

    def write(path, array, **extra):
        save_array(axis)(path, (array % 2 if kind == "bool" else array).astype(kind), **extra)

    out = stitch(cut(path, tmp_path / "arrays", write=write, suffix="npy").folder, tmp_path / "out.tif")[0]
    with rasterio.open(out) as raster:
        np.testing.assert_array_equal(raster.read(), values % 2 if kind == "bool" else values)
        assert raster.dtypes[0] == ("uint8" if kind in {"uint8", "bool"} else "float32")


def test_cut_arrays_keep_the_nodata_of_their_raster(make_raster, tmp_path):
    values = sample("int16", 1)
    values[:, 30:70, 50:130] = -9999
    path = make_raster(values, nodata=-9999)
    manifest = cut(path, tmp_path / "tiles", write=save_array(0), suffix="npy")
    assert same(stitch(manifest.folder, tmp_path / "out.tif")[0], path) == -9999
    out = stitch(manifest.folder, tmp_path / "outputs.tif", manifest=manifest.folder)[0]
    with rasterio.open(out) as raster:
        assert raster.nodata is None
        np.testing.assert_array_equal(raster.read(), values)


def test_class_numbers_are_never_mixed(make_raster, tmp_path):
    path = make_raster(np.zeros((1, 100, 100), np.uint8))
    manifest = cut(path, tmp_path / "tiles", tile=64, stride=36)
    for chip in manifest.chips:
        number = 10 * (1 + chip.window.row * 2 + chip.window.col)
        np.save(tmp_path / "tiles" / chip.path.replace(".tif", ".npy"), np.full((64, 64), number, np.int64))
        (tmp_path / "tiles" / chip.path).unlink()
    with pytest.raises(UsageError, match="nearest"):
        stitch(tmp_path / "tiles", tmp_path / "out.tif")
    stitch(tmp_path / "tiles", tmp_path / "out.tif", how="nearest")
    with rasterio.open(tmp_path / "out.tif") as raster:
        found = raster.read(1)
    wanted = np.repeat(np.repeat([[10, 20], [30, 40]], 50, 0), 50, 1)
    np.testing.assert_array_equal(found, wanted)


def test_outputs_smaller_than_their_tiles_by_a_whole_number(make_raster, tmp_path):
    path = make_raster(np.zeros((1, 256, 320), np.uint8))
    values = np.random.default_rng(0).random((2, 64, 80), dtype=np.float32)
    manifest = cut(path, tmp_path / "tiles", tile=96, stride=64)
    heat = tmp_path / "heat"
    heat.mkdir()
    for chip in manifest.chips:
        w = chip.window.scaled(4)
        np.save(heat / f"{Path(chip.path).stem}.npy",
                values[:, w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px])  # fmt: skip
    out = stitch(heat, tmp_path / "out", manifest=tmp_path / "tiles")
    assert out == [tmp_path / "out" / "image.tif"]
    with rasterio.open(out[0]) as raster, rasterio.open(path) as source:
        np.testing.assert_array_equal(raster.read(), values)
        assert raster.transform == source.transform * Affine.scale(4)
        assert raster.bounds == source.bounds
    odd = cut(make_raster(np.zeros((1, 255, 320), np.uint8)), tmp_path / "odd", tile=96, stride=64, edge="pad")
    for chip in odd.chips:
        np.save(heat / f"{Path(chip.path).stem}.npy", np.full((24, 24), 0.1, np.float32))
    # Pixels four times as large do not fit 255 rows: the map has those of the tiles.
    stitch(heat, tmp_path / "odd.tif", manifest=tmp_path / "odd")
    with rasterio.open(tmp_path / "odd.tif") as raster:
        assert raster.shape == (255, 320)
        assert set(np.unique(raster.read())) == {np.float32(0.1)}
    np.save(heat / f"{Path(odd.chips[-1].path).stem}.npy", np.zeros((25, 24), np.float32))
    with pytest.raises(TileError, match="24 × 25"):
        stitch(heat, tmp_path / "no.tif", manifest=tmp_path / "odd")


def test_several_rasters_and_tiles_in_folders(make_raster, tmp_path):
    paths = [make_raster(sample("uint8", 1, seed=k), f"{name}.tif") for k, name in enumerate("ab")]
    parts = [cut(path, tmp_path / "tiles") for path in paths]
    chips = []
    for number, (part, folder) in enumerate(zip(parts, ("train", "val"), strict=True)):
        (tmp_path / "tiles" / folder).mkdir()
        for chip in part.chips:
            (tmp_path / "tiles" / chip.path).rename(tmp_path / "tiles" / folder / chip.path)
            chips.append(replace(chip, path=f"{folder}/{chip.path}", source=number))
    both = Manifest(tmp_path / "tiles", (parts[0].sources[0], parts[1].sources[0]), tuple(chips[::-1]))
    write_manifest(both)
    with pytest.raises(UsageError, match="folder"):
        stitch(tmp_path / "tiles", tmp_path / "out.tif")
    seen = []
    outs = stitch(tmp_path / "tiles", tmp_path / "out", progress=lambda *state: seen.append(state))
    assert [out.name for out in outs] == ["a.tif", "b.tif"]
    for out, path in zip(outs, paths, strict=True):
        same(out, path)
    assert seen == [(k + 1, len(chips), "joining tiles") for k in range(len(chips))]
    notes = []
    for chip in parts[1].chips:
        (tmp_path / "tiles" / "val" / chip.path).unlink()
    (tmp_path / "tiles" / "train" / parts[0].chips[0].path).unlink()
    stitch(tmp_path / "tiles", tmp_path / "out", overwrite=True, note=notes.append)
    assert notes == [
        f"a: 1 of {len(parts[0].chips)} tiles are missing; they stay empty",
        f"b: {len(parts[1].chips)} of {len(parts[1].chips)} tiles are missing; it is left out",
    ]
    with rasterio.open(tmp_path / "out" / "a.tif") as raster:
        assert (raster.read_masks(1)[:48, :48] == 0).all()
        assert (raster.read_masks(1)[64:, 64:] == 255).all()


@pytest.fixture
def tiles(make_raster, tmp_path):
    return cut(make_raster(sample("uint8", 1)), tmp_path / "tiles")


@pytest.mark.parametrize(
    "name",
    ["../secret.tif", "/etc/secret.tif", "a/../../secret.tif", "C:\\secret.tif", "..\\secret.tif", "\\\\h\\s.tif"],
)
def test_manifests_that_lead_out_of_the_folder_are_refused(tiles, tmp_path, name):
    (tmp_path / "secret.tif").write_bytes((tiles.folder / tiles.chips[0].path).read_bytes())
    write_manifest(replace(tiles, chips=(replace(tiles.chips[0], path=name), *tiles.chips[1:])))
    with pytest.raises(ManifestError, match="outside of its folder"):
        stitch(tiles.folder, tmp_path / "out.tif")


def test_links_out_of_the_folder_are_refused(tiles, tmp_path):
    tile = tiles.folder / tiles.chips[0].path
    tile.rename(tmp_path / "secret.tif")
    tile.symlink_to(tmp_path / "secret.tif")
    with pytest.raises(TileError, match="link"):
        stitch(tiles.folder, tmp_path / "out.tif")
    (tiles.folder / "within.dat").write_bytes((tmp_path / "secret.tif").read_bytes())
    tile.unlink()
    tile.symlink_to(tiles.folder / "within.dat")
    stitch(tiles.folder, tmp_path / "out.tif")


@pytest.mark.parametrize("name", ["../up", "a/b", "", "c:d", "a\\b"])
def test_names_of_rasters_that_are_no_file_names_are_refused(tiles, tmp_path, name):
    write_manifest(replace(tiles, sources=(replace(tiles.sources[0], name=name),)))
    with pytest.raises(ManifestError, match="no file name"):
        stitch(tiles.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_windows_off_the_grid_are_refused(tiles, tmp_path):
    for change in ({"row": 99}, {"col_off_px": -5}, {"width_px": 10**6}):
        wrong = replace(tiles.chips[0], window=replace(tiles.chips[0].window, **change))
        write_manifest(replace(tiles, chips=(wrong, *tiles.chips[1:])))
        with pytest.raises(ManifestError, match="not on its grid"):
            stitch(tiles.folder, tmp_path / "out.tif")


def spoil(tile, how):
    """Damage a tile."""
    if how == "cut off":
        tile.write_bytes(tile.read_bytes()[:-2000])
    elif how == "empty":
        tile.write_bytes(b"")
    elif how == "text":
        tile.write_text("not a raster")
    elif how == "size":
        write_tile(tile, np.zeros((1, 60, 64), np.uint8))
    elif how == "channels":
        write_tile(tile, np.zeros((2, 64, 64), np.uint8))
    elif how == "type":
        write_tile(tile, np.zeros((1, 64, 64), np.float32))
    elif how == "complex":
        write_tile(tile, np.zeros((1, 64, 64), np.complex64))
    elif how == "twice":
        np.save(tile.with_suffix(".npy"), np.zeros((64, 64)))


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("how", ["cut off", "empty", "text", "size", "channels", "type", "complex", "twice"])
def test_a_damaged_tile_is_named_in_one_line(tiles, tmp_path, how, which):
    tile = tiles.folder / tiles.chips[which].path
    spoil(tile, how)
    with pytest.raises(GeoAlignError) as caught:
        stitch(tiles.folder, tmp_path / "out.tif")
    assert "\n" not in str(caught.value)
    if not (which == 0 and how in {"channels", "type"}):
        assert tile.stem in str(caught.value)
    if how == "size":
        assert "64 × 60 px, the tile has 64 × 64" in str(caught.value)
    assert [item.name for item in tmp_path.iterdir() if "out" in item.name] == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x93NUMPY", b"PK\x03\x04x", np.array({"a": 1}, dtype=object), np.zeros((64, 64), "c8"), np.zeros(4096),
        np.zeros((64, 64), [("a", "u1")]), np.zeros((64, 64), "M8[s]"), np.zeros((64, 64, 64)), np.zeros((3, 60, 60)),
        b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999999), }" + b" " * 40,
    ],
    ids=range(11),
)  # fmt: skip
def test_hostile_arrays_are_told_in_one_line(tiles, tmp_path, content):
    for chip in tiles.chips:
        path = (tiles.folder / chip.path).with_suffix(".npy")
        (tiles.folder / chip.path).unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content, allow_pickle=True)
    with pytest.raises(TileError, match=r"c0000\.npy") as caught:
        stitch(tiles.folder, tmp_path / "out.tif")
    assert "\n" not in str(caught.value)


def test_nothing_to_stitch(tiles, tmp_path):
    with pytest.raises(ManifestError, match="manifest"):
        stitch(tmp_path, tmp_path / "out.tif")
    (tmp_path / "outputs").mkdir()
    with pytest.raises(TileError, match="no tile"):
        stitch(tmp_path / "outputs", tmp_path / "out.tif", manifest=tiles.folder / "tiles.parquet")
    with pytest.raises(UsageError, match="nearest"):
        stitch(tiles.folder, tmp_path / "out.tif", how="mean")
    (tmp_path / "out.tif").write_text("mine")
    with pytest.raises(OutputExistsError):
        stitch(tiles.folder, tmp_path / "out.tif")
    assert (tmp_path / "out.tif").read_text() == "mine"
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        stitch(tiles.folder, tmp_path / "out.tif", overwrite=True, cancel=token)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["image.tif", "out.tif", "outputs", "tiles"]


def run(code, *args):
    paths = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


FULL = """
import resource, signal, sys
from tiling.chips.stitch import stitch
from tiling.errors import OutputWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    stitch(sys.argv[1], sys.argv[2])
except OutputWriteError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on file sizes")
@pytest.mark.parametrize("limit", [1000, 20_000, 33_500])
def test_a_full_disk_is_told_and_leaves_nothing(tiles, tmp_path, limit):
    process = run(FULL, tiles.folder, tmp_path / "out.tif", limit)
    out, err = process.communicate(timeout=60)
    assert out.startswith(f"{tmp_path / 'out.tif'}: cannot be written"), err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["image.tif", "tiles"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a small disk")
@pytest.mark.parametrize("size", ["300k", "900k", "1200k"])
def test_a_small_disk_is_told_and_left_empty(tmp_path, make_raster, size):
    """The sizes are too small for the plain file, for its rearranged copy, and for the overviews."""
    manifest = cut(make_raster(sample("uint8", 1, (900, 900))), tmp_path / "tiles", tile=512, stride=400)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with pytest.raises(OutputWriteError, match="free some space"):
            stitch(manifest.folder, disk / "out.tif")
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_killed_stitch_leaves_no_half_file(make_raster, tmp_path):
    random = np.random.default_rng(0)
    manifest = cut(make_raster(sample("uint8", 3, (1500, 1500))), tmp_path / "tiles", tile=512, stride=400)
    target = tmp_path / "out.tif"
    code = """
        import sys
        from tiling.chips.stitch import stitch
        print("ready", flush=True)
        while True:
            stitch(sys.argv[1], sys.argv[2], overwrite=True)
    """
    for _ in range(4):
        with run(code, manifest.folder, target) as process:
            process.stdout.readline()
            time.sleep(random.uniform(0.05, 1.2))
            process.kill()
        if target.exists():
            same(target, tmp_path / "image.tif")
            target.unlink()


@pytest.mark.data
def test_real_imagery_comes_back(data_dir, tmp_path):
    found = 0
    for path in sorted((data_dir / "rasters").rglob("*.tif")):
        try:
            with open_raster(path) as raster:
                info = raster.info
        except GeoAlignError:
            continue
        kept = info.dtype in {"uint8", "uint16", "int16", "float32"} and not (info.has_mask and info.nodata is not None)
        if kept and 100_000 < info.width_px * info.height_px * info.count < 400_000 and not info.has_palette:
            found += 1
            tile = max(info.width_px, info.height_px) // 3 + 7
            manifest = cut(path, tmp_path / f"tiles{found}", tile=tile, stride=tile * 3 // 4, edge=EDGES[found % 3])
            same(stitch(manifest.folder, tmp_path / f"{found}.tif", how=("hann", "nearest")[found % 2])[0], path)
    assert found >= 20
