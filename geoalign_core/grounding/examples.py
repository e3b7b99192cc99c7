"""Search by example: one example by cosine, several by a small classifier fitted on the index's raw features.

A frozen tower knows far more than its text space shows: a logistic regression on raw patch features finds things
that no text query reaches, and fits in milliseconds. Its negatives are the places that the user excludes and a random
draw of the rest of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logit

from geoalign_core.errors import ExamplesError
from geoalign_core.indexing import LinearQuery, cells_of_place, rows_in_boxes, sample_rows
from geoalign_core.indexing.cores import single_threaded_blas

if TYPE_CHECKING:
    from collections.abc import Sequence

    import shapely
    from numpy.typing import NDArray

    from geoalign_core.answer import Prepared
    from geoalign_core.indexing.search import ScoreMap
    from geoalign_core.indexing.store import Index
    from tiling.info import RasterInfo

BACKGROUND_ROWS = 4000
_EXAMPLE_MAX_PX = 1024
_SEED = 0
_REGULARISATION = 10.0
_SAME = 0.9999
"""Rows with this cosine are one and the same."""


@dataclass(frozen=True, slots=True)
class ExampleModel:
    """A linear function of raw patch features whose value becomes log-odds."""

    query: LinearQuery
    kind: str
    """``cosine`` or ``classifier``."""
    typical: float
    """For ``cosine``: the median cosine of the map with the example, which gets a score near 0."""
    places: tuple[shapely.Geometry, ...] = ()
    """Where the examples lie on the map."""

    def log_odds(self, index: Index, cells: ScoreMap, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn the scanned values into log-odds of the score.

        A classifier's value is its log-odds. A cosine c becomes the score (c − m) / (s − m) with m the typical
        cosine and s that of the example's own place on the joined map (1 for an example from elsewhere), so that 0.5
        is half-way between ordinary ground and the example itself.

        Args:
            index: The index.
            cells: The finest level's map, for its place on the lattice.
            values: (rows, cols) joined values on that map.
        """
        if self.kind == "classifier":
            return values
        own = [value for place in self.places if (value := _at_place(index, cells, values, place)) > self.typical]
        itself = sum(own) / len(own) if own else 1.0
        share = (values - self.typical) / max(itself - self.typical, 1e-6)
        return logit(np.clip(share, 1e-4, 1 - 1e-4)).astype(np.float32)


def fit_examples(
    index: Index,
    include: Sequence[shapely.Geometry],
    exclude: Sequence[shapely.Geometry] = (),
    *,
    images: Sequence[NDArray[np.float32]] = (),
    area: shapely.Geometry | None = None,
    background: NDArray[np.float32] | None = None,
) -> ExampleModel:
    """Fit what the examples have in common.

    Args:
        index: The index of the raster.
        include: Places that show what is looked for, in the raster's CRS.
        exclude: Places that must not be found.
        images: Raw patch vectors (n, C) of examples from elsewhere, one array each (:func:`example_image`).
        area: Where the background is drawn from; the whole map by default.
        background: Rows drawn from the whole map, when they are at hand; ``area`` does not count then. A few of
            them may lie in the examples.

    Raises:
        ExamplesError: No example, or one that misses every indexed patch.
    """
    if not include and not images:
        raise ExamplesError("no example was given", remedy="draw at least one box around what you look for")
    shown = [_rows(index, include, "example")] if include else []
    wanted = np.concatenate([*shown, *images])
    unwanted = _rows(index, exclude, "excluded example") if exclude else np.empty((0, wanted.shape[1]), np.float32)
    if background is None:
        background = sample_rows(index, BACKGROUND_ROWS, seed=_SEED, area=area, exclude=[*include, *exclude])
    else:
        background = _apart_from(background, wanted, unwanted)
    if len(include) + len(images) == 1 and not exclude:
        example = wanted.mean(axis=0)
        example /= max(float(np.linalg.norm(example)), 1e-12)
        typical = float(np.median(background @ example)) if len(background) else 0.0
        query = LinearQuery.from_raw(example[None], np.zeros(1, np.float32))
        return ExampleModel(query, "cosine", typical, tuple(include))
    negatives = np.concatenate([unwanted, background])
    if not negatives.size:
        raise ExamplesError(
            "the examples cover the whole map",
            remedy="mark smaller examples, or exclude a place that is different",
        )
    return _classifier(wanted, unwanted, background)


def _at_place(index: Index, cells: ScoreMap, values: NDArray[np.float32], place: shapely.Geometry) -> float:
    """Return the mean value of the map's cells in a place; NaN when it has none there."""
    row, col = (cells_of_place(index, place) - (cells.row_off, cells.col_off)).T
    on = (row >= 0) & (col >= 0) & (row < values.shape[0]) & (col < values.shape[1])
    found = values[row[on], col[on]]
    found = found[np.isfinite(found)]
    return float(found.mean()) if found.size else float("nan")


def _apart_from(background: NDArray[np.float32], *marked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leave out the rows that the user marked: those that equal one of them."""
    kept = np.ones(len(background), bool)
    for rows in marked:
        for start in range(0, len(rows), BACKGROUND_ROWS):
            kept &= (background @ rows[start : start + BACKGROUND_ROWS].T).max(axis=1, initial=-1.0) < _SAME
    return background[kept]


def _classifier(
    wanted: NDArray[np.float32], unwanted: NDArray[np.float32], background: NDArray[np.float32]
) -> ExampleModel:
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([wanted, unwanted, background])
    labels = np.r_[np.ones(len(wanted)), np.zeros(len(unwanted) + len(background))]
    # Each of the three groups counts as much as the others, however many patches it has: a few clicks must not
    # drown in the background.
    groups = [part for part in (wanted, unwanted, background) if len(part)]
    weights = np.concatenate([np.full(len(part), len(rows) / len(groups) / len(part)) for part in groups])
    with single_threaded_blas():
        model = LogisticRegression(C=_REGULARISATION, max_iter=500).fit(rows, labels, sample_weight=weights)
    query = LinearQuery.from_raw(model.coef_.astype(np.float32), model.intercept_.astype(np.float32))
    return ExampleModel(query, "classifier", 0.0)


def _rows(index: Index, places: Sequence[shapely.Geometry], what: str) -> NDArray[np.float32]:
    rows, which = rows_in_boxes(index, places)
    missing = sorted(set(range(len(places))) - set(which.tolist()))
    if missing:
        bounds = ", ".join(f"{value:g}" for value in places[missing[0]].bounds)
        raise ExamplesError(
            f"{what} {missing[0] + 1} touches no image", measured=f"bounds {bounds}",
            remedy="give boxes in the raster's CRS that lie on the image",
        )  # fmt: skip
    return rows


def read_places(items: Sequence[str | Path | Sequence[float]], info: RasterInfo) -> list[shapely.Geometry]:
    """Read examples: ``xmin,ymin,xmax,ymax`` in the raster's CRS, or every feature of a vector file in any CRS.

    Raises:
        ExamplesError: An item is neither, or the file holds nothing.
    """
    import shapely as shp

    result: list[shapely.Geometry] = []
    for item in items:
        numbers = _numbers(str(item)) if isinstance(item, str | Path) else tuple(item)
        if numbers is None:
            result += _features(Path(str(item)), info)
        elif len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
            result.append(shp.box(*numbers))
        else:
            raise ExamplesError("an example is xmin,ymin,xmax,ymax", measured=str(item), remedy="put min before max")
    return result


def _numbers(text: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return None


def _features(path: Path, info: RasterInfo) -> list[shapely.Geometry]:
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    remedy = "give xmin,ymin,xmax,ymax or a vector file such as .gpkg or .geojson"
    if path.suffix.lower() == ".vrt" or not path.is_file():
        raise ExamplesError("is not a vector file that can be read", path=path, remedy=remedy)
    try:
        frame = geopandas.read_file(path, columns=[])
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise ExamplesError(
            "is not a vector file that can be read", path=path, measured=str(error)[:120], remedy=remedy
        ) from error
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if frame.empty:
        raise ExamplesError("holds no feature", path=path, remedy="draw at least one box in it")
    return list(frame.to_crs(info.crs).geometry if frame.crs is not None and info.crs is not None else frame.geometry)


def example_image(path: str | Path, prepared: Prepared) -> NDArray[np.float32]:
    """Read an image that shows an example, at the index's ground resolution when it has one of its own.

    Args:
        path: A raster of at most 1024 pixels a side on the canvas.
        prepared: The raster that will be searched.

    Returns:
        (n, C) raw patch vectors of its valid patches.

    Raises:
        ExamplesError: It is too large, or nothing of it is valid.
    """
    from tiling.canvas import plan_canvas
    from tiling.grid import Window
    from tiling.radiometry import choose_bands, plan_stretch
    from tiling.raster import open_raster
    from tiling.reader import read_windows

    patch = prepared.encoder.config.patch_px
    with open_raster(path, policy=prepared.settings.policy) as raster:
        gsd_m = prepared.gsd_m if raster.info.gsd_m is not None else None
        canvas = plan_canvas(raster.info, gsd_m, snap_px=patch)
        if max(canvas.width_px, canvas.height_px) > _EXAMPLE_MAX_PX:
            raise ExamplesError(
                "is too large for an example", path=path, measured=f"{canvas.width_px} × {canvas.height_px} px",
                remedy="cut out what you mean, or give a --box on it",
            )  # fmt: skip
        bands = choose_bands(raster.info)
        window = Window(0, 0, canvas.width_px, canvas.height_px, 0, 0)
        tile = next(read_windows(raster, canvas, [window], bands=bands, stretch=plan_stretch(raster, bands), jobs=1))
    rows = prepared.encoder.encode_raw(tile.array[None]).patches[0]
    height, width = rows.shape[1:]
    valid = tile.valid.reshape(height, patch, width, patch).mean(axis=(1, 3)) >= 0.5
    if not valid.any():
        raise ExamplesError("shows nothing", path=path, measured="no valid patch", remedy="give a larger image")
    return np.ascontiguousarray(rows[:, valid].T)
