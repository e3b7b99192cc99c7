"""Model configurations are data: one JSON file per model, read into frozen dataclasses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

MAX_CLS_BIAS = 10.0
"""Of the CLS bias: both vectors have length 1, so that beyond it nothing of the patch is left."""
CONFIG_DIR = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a model's weights."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How pixels become the tower's input: ``(x / 255 − mean) / std`` per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_px: int
    """Side of the square that the model was trained on; whole-image views are resized to it."""
    mode: str = "squash"
    """How an image becomes that square: ``squash`` (both sides resized) or ``crop`` (short side, then the centre)."""
    interpolation: str = "bilinear"
    """``bilinear`` or ``bicubic``, with antialiasing."""

    def __post_init__(self) -> None:
        if not all(_is_number(value, 1e6) for value in (*self.mean, *self.std)) or len(self.mean + self.std) != 6:
            raise ValueError("preprocess must have a mean and a std of three numbers")
        if min(self.std) < 1e-6:
            raise ValueError("preprocess must have a std above 0")


@dataclass(frozen=True, slots=True)
class GroundResolution:
    """Metres per pixel that the model works at."""

    default_m: float
    """The finest level that the index is built at when the raster allows it."""
    min_m: float
    max_m: float
    levels: tuple[float, ...] = (1.0,)
    """Factors on the chosen GSD at which the index is built, finest first: (1, 2) adds one coarser level."""

    def __post_init__(self) -> None:
        if not all(_is_number(value, 1e6) and value > 0 for value in (self.default_m, self.min_m, self.max_m)):
            raise ValueError("gsd must have default_m, min_m and max_m above 0")
        if not self.levels or not all(_is_number(value, 1e3) and value >= 1 for value in self.levels):
            raise ValueError("gsd must have levels from 1")


@dataclass(frozen=True, slots=True)
class Dense:
    """How patch vectors are read and windows are laid."""

    mode: str
    """``tokens`` (the embedded model's) or a last-block variant of :mod:`geoalign_core.models.dense`."""
    window_px: int
    overlap_px: int
    window_weight: float
    """Weight of the window vector in a patch's joint vector."""
    cls_bias: float = 0.0
    """λ in ``patch + λ · cls``, both L2-normalised: SegEarth-OV's relief of the global bias (it takes −0.3)."""

    def __post_init__(self) -> None:
        if not (_is_number(self.cls_bias, MAX_CLS_BIAS) and _is_number(self.window_weight, 1e6)):
            raise ValueError(f"cls_bias and window_weight must be numbers, cls_bias within ±{MAX_CLS_BIAS:g}")
        sizes = (self.window_px, self.overlap_px)
        if not all(isinstance(value, int) for value in sizes) or not 0 <= self.overlap_px < self.window_px <= 1 << 14:
            raise ValueError("window_px and overlap_px must be whole numbers, the overlap below the window")


@dataclass(frozen=True, slots=True)
class Prompts:
    """How a question becomes vectors and a cosine becomes a score."""

    templates: tuple[str, ...]
    """Sentences with one ``{}``; the query's vector is the normalised mean over them."""
    contrast: tuple[str, ...]
    """Generic overhead prompts that the query competes with in the softmax."""
    logit_scale: float
    """Factor on cosines before the softmax (1 / temperature)."""

    def __post_init__(self) -> None:
        plain = [text.count("{}") == 1 and not set("{}") & set(text.replace("{}", "")) for text in self.templates]
        if not plain or not all(plain):
            raise ValueError("templates must be sentences with one {} each")
        if not self.contrast or not all(isinstance(text, str) for text in self.contrast):
            raise ValueError("contrast must be sentences")
        if not _is_number(self.logit_scale, 1e6) or self.logit_scale <= 0:
            raise ValueError("logit_scale must be a number above 0")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything about a model that is not a weight."""

    name: str
    title: str
    family: str
    """``embedded``, or a family of :mod:`geoalign_core.models.families`; all but the first are CLIP models."""
    embed_dim: int
    patch_px: int
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    preprocess: Preprocess
    gsd: GroundResolution
    dense: Dense
    prompts: Prompts
    files: tuple[WeightFile, ...]
    source: str
    """Where the weights come from: ``package``, or a hub repository."""
    licence: str
    terms: str
    activation: str = "gelu"
    """``gelu`` or ``quick_gelu`` (x · sigmoid(1.702 x)), in both towers; weights do not tell which."""

    def __post_init__(self) -> None:
        texts = (self.name, self.title, self.family, self.source, self.licence, self.terms, self.activation)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("name, title, family, source, licence, terms and activation must be texts")
        if not (isinstance(self.vision_cfg, dict) and isinstance(self.text_cfg, dict)):
            raise ValueError("vision_cfg and text_cfg must be objects")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Build from the parsed JSON.

        Raises:
            ValueError: A key is missing or unknown.
        """
        parts = {"preprocess": Preprocess, "gsd": GroundResolution, "dense": Dense, "prompts": Prompts}
        values = dict(data)
        for key, part in parts.items():
            values[key] = _build(part, values.get(key, {}))
        values["files"] = tuple(_build(WeightFile, item) for item in values.get("files", ()))
        return _build(cls, values)

    @classmethod
    def load(cls, path: str | Path) -> ModelConfig:
        """Read one configuration file."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _is_number(value: object, most: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= most


def _build(kind: type, values: dict[str, Any]) -> Any:  # noqa: ANN401 - one builder for all the parts
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown keys {', '.join(unknown)}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error
