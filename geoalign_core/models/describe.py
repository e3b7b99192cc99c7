"""What a model is made of, told without loading it: agreement of its files, and parameters per part."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoalign_core.errors import ModelError
from geoalign_core.models import registry
from geoalign_core.models.families import find_published
from geoalign_core.models.store import CONFIG_NAME, HEADER_KEY, PROVENANCE_NAME, WEIGHTS_NAME, is_installed
from geoalign_core.models.vocabulary import LONG, SHORT, STATISTICS, TABLE_KEYS, dense_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geoalign_core.models.config import ModelConfig
    from geoalign_core.models.families import Family, Published
    from geoalign_core.models.registry import Located

PARTS = ("image tower", "text tower", "text tables", "projections", "scales")
_PROJECTIONS = ("text_projection", "long_text_projection", "visual.proj")


@dataclass(frozen=True, slots=True)
class Description:
    """What ``models info`` tells."""

    name: str
    title: str
    family: str
    installed: bool
    architecture: str
    parameters: dict[str, int]
    """By part of :data:`PARTS`, and ``total``; empty when unknown."""
    context: str
    tables: str
    activation: str
    dense_mode: str
    preprocessing: str
    gsd: str
    licence: str
    terms: str
    source: str
    provenance: dict[str, Any] | None
    config: dict[str, Any] | None
    """The whole configuration, when installed."""


def describe(spec: str) -> Description:
    """Describe a model that is on this machine or published.

    Raises:
        ModelError: Nothing is known by that name, or its files are damaged.
    """
    published = find_published(spec)
    if published and not is_installed(spec):
        return _describe_published(*published)
    return _describe_installed(registry.locate(spec))


def _describe_installed(found: Located) -> Description:
    from dataclasses import asdict

    config, family = found.config, None
    if config.family != "embedded":
        from geoalign_core.models.families import find_family

        family = find_family(config.family)
    provenance = registry.read_provenance(found)
    if found.weights:
        check_weights(found, provenance)
    if not found.packaged:
        registry.refuse_changed(found, CONFIG_NAME)
    counts = count_parts(shapes_of(found)) if found.weights else _embedded_parts(found)
    pixels, tables = config.preprocess, str(config.text_cfg.get("tables", "-"))
    context = int(config.text_cfg.get("context_length", SHORT))
    return Description(
        name=config.name, title=config.title, family=config.family, installed=True, architecture=_shape_name(config),
        parameters=counts, context=_context(tables, context), tables=tables, activation=config.activation,
        dense_mode=config.dense.mode + (f", CLS bias {config.dense.cls_bias:g}" if config.dense.cls_bias else ""),
        preprocessing=f"{pixels.image_px} px, {pixels.mode}, {pixels.interpolation}",
        gsd=_gsd(config.gsd.default_m, config.gsd.min_m, config.gsd.max_m, family.advice if family else ""),
        licence=config.licence, terms=config.terms, source=config.source, provenance=provenance,
        config=asdict(config),
    )  # fmt: skip


def _describe_published(family: Family, model: Published) -> Description:
    gsd, pixels = family.gsd, family.preprocess
    source = "no public weights: import your own" if model.source == "none" else model.source
    source += ", a pickle: pull it with --trust-pickle" if model.pickle else ""
    return Description(
        name=model.name, title=model.title, family=family.name, installed=False, architecture=model.architecture,
        parameters=published_parts(model), context=" or ".join(dict.fromkeys(_context(t) for t in model.tables)),
        tables=" or ".join(model.tables), activation=model.activation,
        dense_mode=dense_mode(family.dense_mode, resnet=model.architecture.startswith("RN")),
        preprocessing=f"{model.image_px} px, {pixels.mode}, {pixels.interpolation}",
        gsd=_gsd(gsd.default_m, gsd.min_m, gsd.max_m, family.advice), licence=family.licence, terms=family.terms,
        source=source, provenance=None, config=None,
    )  # fmt: skip


def _shape_name(config: ModelConfig) -> str:
    if config.family == "embedded":
        return str(config.vision_cfg["timm_model_name"])
    layers, width = config.vision_cfg["layers"], config.vision_cfg["width"]
    if isinstance(layers, list | tuple):
        return f"ResNet {'-'.join(map(str, layers))}, width {width}"
    return f"ViT, {layers} layers, width {width}, patch {config.patch_px} px"


def _context(tables: str, length: int = SHORT) -> str:
    known = {"77+248": "77 and 248 tokens", "248": "248 tokens", "248-single": "248 tokens", "none": "no text"}
    return known.get(tables, f"{length} tokens")


def _gsd(default: float, least: float, most: float, advice: str) -> str:
    return f"{default:g} m, from {least:g} to {most:g} m. {advice}".strip()


def check_weights(found: Located, provenance: dict[str, Any] | None) -> None:
    """Compare a weights file's header with its size, and what it says about itself with the files beside it.

    A file of the store carries its family, activation and text tables: another ``model.json`` beside it is refused.

    Raises:
        ModelError: The file is missing, incomplete, no safetensors file, or belongs to another description.
    """
    path = found.folder / found.weights
    if not path.is_file():
        raise ModelError(
            "has no weights", path=found.folder, measured=f"{path.name} is missing", remedy="complete the folder"
        )
    metadata = _header(path)["__metadata__"]
    if found.weights != WEIGHTS_NAME:
        _refuse_other_shapes(found)
        return
    try:
        said = json.loads(metadata[HEADER_KEY])
        claims = {key: said[key] for key in ("family", "activation", "tables")}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "does not say which family it is of", path=path, measured=f"no {HEADER_KEY!r} in its header",
            remedy=f"bring it in with: geoalign models import {path} --family NAME",
        ) from error  # fmt: skip
    config = found.config
    own = {"family": config.family, "activation": config.activation, "tables": config.text_cfg.get("tables")}
    _refuse_other(found.folder / CONFIG_NAME, own, claims, path)
    if provenance and "source_sha256" in said:
        source = {"source_sha256": provenance.get("source_sha256")}
        _refuse_other(found.folder / PROVENANCE_NAME, source, {"source_sha256": said["source_sha256"]}, path)
    _refuse_other_shapes(found)


@dataclass(frozen=True, slots=True)
class _Sized:
    """A tensor as the header describes it."""

    shape: tuple[int, ...]


def _refuse_other_shapes(found: Located) -> None:
    """Compare the description with the shapes of the weights, before a model of its sizes is built."""
    from geoalign_core.models.architecture import deduce
    from geoalign_core.models.hubfolder import HUB_CONFIG

    config, path = found.config, found.folder / found.weights
    sized = {key: _Sized(shape) for key, shape in shapes_of(found).items()}
    heads = {"head_width": config.vision_cfg.get("head_width"), "text_heads": config.text_cfg.get("heads")}
    try:
        there = deduce(sized, **heads)
    except (TypeError, ValueError) as error:
        raise ModelError("describes no heads", path=found.folder, measured=str(heads)) from error
    except ModelError as error:
        raise ModelError(error.what, path=path, measured=error.measured, remedy=error.remedy) from error
    own = {"embed_dim": config.embed_dim, "patch_px": config.patch_px, **config.vision_cfg}
    claims = {"embed_dim": there.embed_dim, "patch_px": there.patch_px, **there.vision_cfg}
    own |= {f"text {key}": value for key, value in config.text_cfg.items()}
    claims |= {f"text {key}": value for key, value in there.text_cfg.items()}
    # What a configuration leaves out is as good as empty or none: open_clip's has no list of scales.
    plain = {key: value for key, value in claims.items() if (own.get(key) or None) != (value or None)}
    beside = found.folder / (CONFIG_NAME if found.weights == WEIGHTS_NAME else HUB_CONFIG)
    _refuse_other(beside, {key: own.get(key) for key in plain}, plain, path)


def _refuse_other(beside: Path, own: Mapping[str, Any], claims: Mapping[str, Any], weights: Path) -> None:
    for key, value in claims.items():
        if own[key] != value:
            raise ModelError(
                f"does not belong to {weights.name}", path=beside, measured=f"{key} {own[key]} here, {value} there",
                remedy="import or pull the model again",
            )  # fmt: skip


def _header(path: Path) -> dict[str, Any]:
    from geoalign_core.models.checkpoint import read_header

    try:
        return read_header(path)
    except ModelError as error:
        raise ModelError(
            "is not the weights file of this model", path=path,
            measured=f"{error.what}{f': {error.measured}' if error.measured else ''}",
            remedy="import or pull the model again",
        ) from error  # fmt: skip


def shapes_of(found: Located) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a weights file from its header."""
    header = _header(found.folder / found.weights)
    return {key: tuple(item["shape"]) for key, item in header.items() if key != "__metadata__"}


def count_parts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Count parameters by part from shapes in the internal layout; statistics of batch norms are none.

    Args:
        shapes: By key of the internal layout.

    Returns:
        By part of :data:`PARTS`, and their sum as ``total``.
    """
    counts = dict.fromkeys(PARTS, 0)
    for key, shape in shapes.items():
        if key.rpartition(".")[2] not in STATISTICS:
            counts[_part(key)] += math.prod(shape)
    return counts | {"total": sum(counts.values())}


def _embedded_parts(found: Located) -> dict[str, int]:
    """Count the embedded model's parameters; the scales of its int8 matrices are part of their format."""
    counts = dict.fromkeys(PARTS, 0)
    for item in found.config.files:
        if not item.name.endswith(".safetensors"):
            continue
        part = "projections" if item.name.endswith("-head.safetensors") else ""
        header = _header(found.folder / item.name)
        for key, value in header.items():
            if key != "__metadata__" and not (key.endswith(".scale") and key.removesuffix(".scale") in header):
                counts[part or f"{key.partition('.')[0]} tower"] += math.prod(value["shape"])
    return counts | {"total": sum(counts.values())}


def _part(key: str) -> str:
    if key in _PROJECTIONS:
        return "projections"
    if key in TABLE_KEYS:
        return "text tables"
    if key.startswith("logit_scale"):
        return "scales"
    return "image tower" if key.startswith("visual.") else "text tower"


def published_parts(model: Published) -> dict[str, int]:
    """Count a published model's parameters by part, by arithmetic on its architecture.

    A pre-norm block of width W with a fourfold MLP has 12 W² + 13 W; the text tower is its blocks, the tokens' table
    and the last norm. What is left of the total is the image tower.

    Returns:
        As :func:`count_parts`; empty when the total or the architecture is unknown.
    """
    path = _architecture_file(model.architecture)
    if not model.parameters or path is None:
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    text, vision, embed = data["text_cfg"], data["vision_cfg"], data["embed_dim"]
    width, tables = text["width"], model.tables[0]
    rows = {"248": 2 * LONG, "77+248": text["context_length"] + 2 * LONG}.get(tables, text["context_length"])
    long = tables == "77+248"
    counts = {
        "image tower": 0,
        "text tower": text["layers"] * (12 * width**2 + 13 * width) + text["vocab_size"] * width + 2 * width,
        "text tables": rows * width,
        "projections": width * embed * (2 if long else 1) + _vision_projection(vision, embed),
        "scales": 3 if long else 1,
    }
    counts["image tower"] = model.parameters - sum(counts.values())
    return counts | {"total": model.parameters}


def _vision_projection(vision: dict[str, Any], embed: int) -> int:
    # A ResNet's projection is the last layer of its attention pool, which belongs to the tower.
    return 0 if isinstance(vision["layers"], list) else int(vision["width"]) * embed


def _architecture_file(architecture: str) -> Path | None:
    """Return open_clip's own description of an architecture, found without importing open_clip (and torch)."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "model_configs" / f"{architecture}.json"
    return path if path.is_file() else None
