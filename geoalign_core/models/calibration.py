"""From scores to precision: how often a place of a score is what was asked for, counted on labelled images.

A map belongs to one model and one wording of questions. It is kept as knots, straight lines between them, so that
whoever reads it needs nothing but JSON. ``geoalign-eval calibrate`` fits it.

It holds where the share π of all places that is what was asked for, the prior, is that of the images it was fitted
on. Where it is π′, and only how often there is something to find has changed, the odds of every precision change by
the same factor (Elkan 2001, The foundations of cost-sensitive learning, theorem 2; Saerens et al. 2002):

    p′ / (1 − p′) = p / (1 − p) · π′ / (1 − π′) · (1 − π) / π
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign_core.errors import ModelError
from geoalign_core.models.registry import locate
from geoalign_core.settings import SCORE_PROTOCOL
from tiling.errors import UsageError
from tiling.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from geoalign_core.answer import Filter
    from geoalign_core.models.encoder import Encoder
    from geoalign_core.models.registry import Located

FORMAT = 1
FILE_NAME = "calibration.json"
"""In a model's folder."""
PACKAGED = Path(__file__).parent / "calibrations"
"""Of embedded models, ``NAME.json``."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """The map of one model.

    Raises:
        ValueError: The knots are not a map that never falls, or the prior is no share.
    """

    model: str
    key: str
    """The model's ``score_key`` (:func:`geoalign_core.models.key.score_key`)."""
    prior: float
    """Share of the places that is what was asked for, between 0 and 1."""
    scores: tuple[float, ...]
    """Knots, ascending, 0..1."""
    precisions: tuple[float, ...]
    """Of the knots, never falling, 0..1."""
    method: str = "isotonic"
    """``isotonic``, ``platt`` or ``beta``."""
    score: str = SCORE_PROTOCOL
    """Name of the score's definition."""
    protocol: str = ""
    """Id of the protocol of ``geoalign-eval`` that it was fitted by."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, digest and counts of the images."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """How far precisions were off on images held out."""

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.model, self.key, self.method, self.score, self.protocol)):
            raise ValueError("model, key, method, score and protocol are texts")
        knots = np.array([self.scores, self.precisions], np.float64)
        if knots.ndim != 2 or knots.shape[1] < 2 or not ((knots >= 0) & (knots <= 1)).all():
            raise ValueError("knots are two or more scores and precisions from 0 to 1")
        if not (np.diff(knots[0]) > 0).all() or not (np.diff(knots[1]) >= 0).all():
            raise ValueError("scores must rise and precisions may not fall")
        if not 0 < self.prior < 1:
            raise ValueError("the prior is a share between 0 and 1")

    @property
    def most(self) -> float:
        """The highest precision that a place can have."""
        return self.precisions[-1]

    def precision(self, scores: ArrayLike) -> NDArray[np.float32]:
        """Return the precision, 0..1, of places with those scores; NaN stays NaN."""
        return np.interp(np.asarray(scores), self.scores, self.precisions).astype(np.float32)

    def score_for(self, precision: float) -> float:
        """Return the lowest score whose precision is at least that.

        Raises:
            UsageError: No score's is.
        """
        if precision > self.most:
            raise UsageError(
                f"{self.model} is never so sure of a place", measured=f"{precision:.3g}, at most {self.most:.3g}",
                remedy="ask for less precision, or give the prior of this image if it holds more of it",
            )  # fmt: skip
        place = int(np.searchsorted(self.precisions, precision))
        if place == 0:
            return self.scores[0]
        (low, high), (left, right) = self.precisions[place - 1 : place + 1], self.scores[place - 1 : place + 1]
        return left + (right - left) * (precision - low) / (high - low)

    def shifted(self, prior: float) -> Calibration:
        """Return the map for images where another share of the places is what was asked for.

        Raises:
            UsageError: It is no share between 0 and 1.
        """
        if not 0 < prior < 1:
            raise UsageError("the prior is not a share between 0 and 1", measured=f"{prior:g}")
        factor = prior / (1 - prior) * (1 - self.prior) / self.prior
        moved = [factor * p / (1 - p + factor * p) for p in self.precisions]
        return replace(self, prior=prior, precisions=tuple(np.maximum.accumulate(np.clip(moved, 0, 1)).tolist()))

    def curve(self) -> dict[str, Any]:
        """Return what a client needs to draw it: the knots, the prior and what it was counted on."""
        return {
            "scores": list(self.scores), "precisions": list(self.precisions), "prior": self.prior,
            "protocol": self.protocol, "data": self.data.get("name", ""),
        }  # fmt: skip

    def check(self, encoder: Encoder) -> None:
        """Make sure that the map is that of a model.

        Raises:
            ModelError: It was fitted for other weights, another wording of questions or another score.
        """
        if not self.fits(encoder):
            raise ModelError(
                f"the calibration of {self.model} does not hold for {encoder.config.name} as it is run here",
                measured=f"{self.key[:12]}…, not {score_key_of(encoder)[:12] or 'a known model'}…",
                remedy="calibrate again, with the same templates and dense mode: geoalign-eval calibrate",
            )

    def fits(self, encoder: Encoder) -> bool:
        """Say whether the map is that of a model."""
        return bool(self.key) and self.key == score_key_of(encoder) and self.score == SCORE_PROTOCOL


def score_key_of(encoder: Encoder) -> str:
    """Return what a model's scores depend on; "" for an encoder that does not say."""
    return str(getattr(encoder, "score_key", ""))


def read_calibration(path: Path) -> Calibration:
    """Read a map.

    Raises:
        ModelError: The file is missing, damaged or of another format.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than any map")
        item = json.loads(path.read_text(encoding="utf-8"))
        if item.pop("format") != FORMAT:
            raise ValueError("it was written in another format")
        scores, precisions = (tuple(float(value) for value in item.pop(name)) for name in ("scores", "precisions"))
        prior = float(item.pop("prior"))
        if not all(isinstance(item.get(name, {}), dict) for name in ("data", "figures")):
            raise TypeError("data and figures are objects")
        return Calibration(**item, prior=prior, scores=scores, precisions=precisions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            "is not a calibration", path=path, measured=" ".join(str(error).split())[:80],
            remedy="delete it, or calibrate again: geoalign-eval calibrate",
        ) from error  # fmt: skip


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a map as JSON.

    Raises:
        OutputWriteError: The file cannot be written.
    """
    text = json.dumps({"format": FORMAT, **asdict(calibration)}, indent=1, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def place_of(found: Located) -> Path:
    """Return where the map of a model lies, whether it is there or not."""
    return PACKAGED / f"{found.config.name}.json" if found.packaged else found.folder / FILE_NAME


def find_calibration(encoder: Encoder, spec: str) -> Calibration | None:
    """Return the map of a model; None where it has none, or one for another wording of questions.

    Args:
        encoder: The model as it is run.
        spec: Its name or folder.

    Raises:
        ModelError: There is a file, and it is damaged.
    """
    try:
        path = place_of(locate(spec))
    except ModelError:
        return None
    found = read_calibration(path) if path.is_file() else None
    return found if found is not None and found.fits(encoder) else None


def require_calibration(encoder: Encoder, spec: str) -> Calibration:
    """Return the map of a model.

    Raises:
        ModelError: It has none, a damaged one, or one that does not hold for how it is run.
    """
    path = place_of(locate(spec))
    if not path.is_file():
        raise ModelError(
            f"{encoder.config.name} has no calibration, so nothing is known of its precision",
            remedy="give a --threshold, or make one: geoalign-eval calibrate -s store=yes",
        )
    found = read_calibration(path)
    found.check(encoder)
    return found


def calibrated(encoder: Encoder, spec: str, choice: Filter) -> tuple[Filter, Calibration | None]:
    """Return a filter with a score for its precision, and the model's map for the prior that was given.

    Raises:
        ModelError: A precision or a prior was given and the model has no map, or the map is damaged.
        UsageError: No score has that precision.
    """
    if choice.precision is None and choice.prior is None:
        return choice, find_calibration(encoder, spec)
    found = require_calibration(encoder, spec)
    found = found if choice.prior is None else found.shifted(choice.prior)
    if choice.precision is None:
        return choice, found
    return replace(choice, threshold=found.score_for(choice.precision), precision=None), found


def is_share(value: float | None) -> bool:
    """Say whether a value is None or lies between 0 and 1, both excluded."""
    return value is None or (math.isfinite(value) and 0 < value < 1)
