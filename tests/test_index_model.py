"""The index with real towers: what is stored answers texts as the model itself does."""

from __future__ import annotations

import numpy as np
import pytest

from geoalign_core.indexing import LinearQuery, build_index, plan_index, score_maps
from geoalign_core.models import DEFAULT_MODEL, load_encoder
from tests.index_tools import picture, save
from tiling.raster import open_raster
from tiling.reader import read_windows

QUERIES = ["a canal", "trees", "a car park", "roofs of houses"]


def check_against_dense(raster_path, encoder, *, tolerance):
    """Compare the scores of the index with cosines of the dense map where one window alone decides."""
    texts = encoder.encode_text(QUERIES)
    with open_raster(raster_path) as raster:
        spec = plan_index(raster, encoder)
        index = build_index(raster, encoder, spec)
        found = score_maps(index, LinearQuery.from_text(texts, encoder.readout))[0].scores
        level = spec.levels[0]
        tile = next(
            read_windows(raster, level.canvas, [level.grid.window(0, 0)], bands=spec.bands, stretch=spec.stretch)
        )
    expected = np.einsum("qd,dhw->qhw", texts, encoder.encode_dense(tile.array[None])[0])
    right, below = level.grid.overlaps_px(0, 0)[1], level.grid.overlaps_px(0, 0)[3]
    rows, cols = level.window_cells
    own = slice(0, rows - below // level.patch_px), slice(0, cols - right // level.patch_px)
    difference = (found[:, : own[0].stop, : own[1].stop] - expected[:, *own])[
        :, ~np.isnan(found[0, : own[0].stop, : own[1].stop])
    ]
    assert difference.size
    assert np.abs(difference).max() < tolerance
    return index


def test_a_clip_tower_in_the_index_answers_like_its_dense_map(tmp_path, tiny_model):
    encoder = load_encoder(str(tiny_model), device="cpu")
    index = check_against_dense(save(tmp_path / "town.tif", picture(300, 420)), encoder, tolerance=0.02)
    assert index.spec.channels == encoder.readout.patch.shape[1]


@pytest.mark.model
def test_the_embedded_model_answers_from_the_index_like_its_dense_map(tmp_path, sample_path):
    encoder = load_encoder(DEFAULT_MODEL, device="cpu")
    copy = tmp_path / sample_path.name
    copy.write_bytes(sample_path.read_bytes())
    index = check_against_dense(copy, encoder, tolerance=4e-3)
    assert index.complete
    with open_raster(copy) as raster:
        assert build_index(raster, encoder, index.spec, verify=True).reused
