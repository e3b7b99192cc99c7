"""Importing: from a checkpoint as somebody published it to a folder of the store, once and for good.

What is read is mapped, measured, identified and checked against the model that will run it, then written as
safetensors in the internal layout with a record of where it came from. Numbers stay as they were published, to the
bit. Memory holds about one copy of the weights; the source is mapped, not read, where its container allows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoalign_core.errors import ModelError
from geoalign_core.models.architecture import Architecture, deduce, model_config
from geoalign_core.models.checkpoint import Checkpoint, read_checkpoint
from geoalign_core.models.config import CONFIG_DIR, ModelConfig
from geoalign_core.models.context import with_context
from geoalign_core.models.describe import count_parts
from geoalign_core.models.families import families, find_published
from geoalign_core.models.identify import Clues, Identity, identify, name_architecture
from geoalign_core.models.layout import Weights, internal, some, unexpected
from geoalign_core.models.retrained import copy_into_store, is_retrained, record_of, same_calibration
from geoalign_core.models.source import Source, find_weights, of_one_part
from geoalign_core.models.store import (
    CONFIG_NAME,
    HEADER_KEY,
    NAME,
    PROVENANCE_NAME,
    WEIGHTS_NAME,
    import_lock,
    locked,
    models_dir,
    new_model,
    sha256_of,
)
from tiling.files import write_error
from tiling.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from geoalign_core.models.config import Preprocess
    from geoalign_core.models.families import Published
    from tiling.progress import Progress

_GENERIC = re.compile(r"(open_clip_)?(pytorch_)?(model|weights|checkpoint|epoch_?\d*|latest|last|best)", re.IGNORECASE)
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_STEPS = 4


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import found and where it put it."""

    folder: Path
    config: ModelConfig
    layout: str
    """``openai``, ``custom-text`` (open_clip's ``text.*``), ``hf``, or ``embedded`` for the package's own kind."""
    activation_from: str
    """Who decided the activation: ``family``, ``config`` or ``asked``."""
    dropped: tuple[str, ...]
    """Keys that were left out, as nothing reads them: masks, position numbers."""
    change: str
    """What a change of the context did, in words; "" for nothing."""
    already_there: bool
    """Whether the store had this very import."""
    parameters: int
    """All of them, logit scales included, running statistics not."""


def import_checkpoint(
    source: Path,
    *,
    family: str | None = None,
    activation: str | None = None,
    name: str | None = None,
    trust_pickle: bool = False,
    context: int | None = None,
    expected: Published | None = None,
    store: Path | None = None,
    origin: str | None = None,
    progress: Progress = silent,
) -> ImportReport:
    """Bring a checkpoint into the store. The same one again, with the same choices, costs a hash of the file.

    Args:
        source: A file (safetensors, torch.save) or a folder (open_clip's hub layout, Hugging Face's, the store's, or
            that of ``geoalign-train align``). Its content decides what it is, never its name.
        family: One of :func:`geoalign_core.models.families.families`; needed where the weights do not tell.
        activation: ``gelu`` or ``quick_gelu``; alone, it makes the model one of the family ``openclip``.
        name: The name in the store; else a label made of the file's name. A published model's name says that this is
            that model, which is then checked.
        trust_pickle: Whether a pickle may be interpreted, by PyTorch's restricted reader.
        context: 77 cuts long text tables, 248 stretches short ones; see :mod:`geoalign_core.models.text_tables`.
        expected: The published model that this has to be.
        store: The folder of models; else :func:`geoalign_core.models.store.models_dir`.
        origin: Where the weights come from, for the record; else the source's path.
        progress: Called with stages ``reading``, ``hashing``, ``checking``, ``writing``.

    Raises:
        ModelError: The file is damaged, no CLIP, a pickle without consent, of unknown activation, against its
            family's rules, not the expected model, or its name is taken by something else.
        OutputWriteError: The store cannot be written; nothing is left behind.
    """
    if is_retrained(source.expanduser()):
        if family not in (None, "embedded") or activation or context or expected:
            raise ModelError(
                "is a model like the packaged one, whose kind is known", path=source,
                remedy="leave --family, --activation and --context out",
            )  # fmt: skip
        return _bring_in(source.expanduser(), name, store or models_dir())
    found = find_weights(source)
    if expected is None and name is not None and (published := find_published(name)) is not None:
        expected = published[1]
    name = _choose_name(name, expected, found)
    progress(0, _STEPS, "reading")
    with _about(found.weights):
        checkpoint = read_checkpoint(found.weights, trust_pickle=trust_pickle)
        model = _understand(checkpoint, found, family, activation, expected, context)
        _refuse_other_family(name, model.identity.family.name)
        config, provenance = _configure(model, name, origin or found.weights.name, expected, found.preprocess)
        progress(1, _STEPS, "hashing")
        provenance |= {
            "source": origin or str(found.weights.resolve()), "source_sha256": sha256_of(found.weights),
            "container": checkpoint.kind, "unwrapped": checkpoint.wrapped,
        }  # fmt: skip
        folder = (store or models_dir()) / name
        there = _already_there(folder, config, provenance)
        if there is None:
            progress(2, _STEPS, "checking")
            tensors = _checked(model.tensors, config)
            progress(3, _STEPS, "writing")
            with locked(import_lock(folder.parent, name)):
                there = _already_there(folder, config, provenance)  # another process may have been faster
                written = None if there else _write(folder, config, tensors, provenance)
        config = there or written or config
    progress(_STEPS, _STEPS, "writing")
    return ImportReport(
        folder, config, model.weights.layout, model.identity.activation_from, model.weights.dropped, model.change,
        there is not None, count_parts({key: tuple(value.shape) for key, value in model.tensors.items()})["total"],
    )  # fmt: skip


def _bring_in(source: Path, name: str | None, store: Path) -> ImportReport:
    """Copy what ``geoalign-train align`` wrote into the store, after it was seen to load."""
    from geoalign_core.models.describe import describe
    from geoalign_core.models.registry import load_encoder, locate, read_provenance

    spec = str(source.absolute())
    load_encoder(spec, device="cpu")
    given, parameters = locate(spec), describe(spec).parameters["total"]
    facts = read_provenance(given) or {}
    name = _choose_name(name, None, Source(given.folder / CONFIG_NAME, folder=True))
    if find_published(name) is not None:
        raise ModelError(f"{name} is the name of a published model", remedy="choose another --name")
    _refuse_other_family(name, "embedded")
    config, folder = dataclasses.replace(given.config, name=name), store / name
    with locked(import_lock(store, name)):
        there = _already_there(folder, config, record_of(config, facts))
        if there is not None and (there != config or not same_calibration(given.folder, folder)):
            raise _taken(folder, "other questions, resolutions or another calibration")
        config = there or copy_into_store(given.folder, folder, config, facts)
    return ImportReport(folder, config, "embedded", "family", (), "", there is not None, parameters)


@dataclass(frozen=True, slots=True)
class _Understood:
    """A checkpoint that is known to be some family's model."""

    weights: Weights
    tensors: dict[str, torch.Tensor]
    """The weights to write, after a change of the context."""
    architecture: Architecture
    identity: Identity
    change: str


def _understand(
    checkpoint: Checkpoint,
    found: Source,
    family: str | None,
    activation: str | None,
    expected: Published | None,
    context: int | None,
) -> _Understood:
    """Map, measure and identify the weights, then change the context if that is wanted."""
    weights = internal(checkpoint.tensors)
    heads = {"head_width": found.head_width, "text_heads": found.text_heads}
    architecture = deduce(weights.tensors, **heads)
    found.compare(architecture)
    recorded = _recorded(checkpoint)
    told = found.activation or (None if family or expected or recorded else found.usual_activation)
    identity = identify(
        architecture, Clues(weights.layout, frozenset(weights.tensors), family, activation, told, recorded, expected)
    )
    tensors, change = with_context(weights.tensors, architecture, context)
    if change:
        architecture = deduce(tensors, **heads)
    return _Understood(weights, tensors, architecture, identity, change)


def _configure(
    model: _Understood, name: str, source: str, expected: Published | None, preprocess: Preprocess | None
) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the configuration, and the record of how it came to be."""
    family, activation = model.identity.family, model.identity.activation
    title = (
        expected.title if expected else f"{family.title} ({name_architecture(model.architecture).partition(',')[0]})"
    )
    config = model_config(model.architecture, family, activation, name=name, title=title, source=source)
    if preprocess is not None:
        config = dataclasses.replace(config, preprocess=preprocess)
    return config, {
        "schema": 1, "layout": model.weights.layout, "prefix": model.weights.prefix, "family": family.name,
        "activation": activation, "activation_from": model.identity.activation_from,
        "tables": model.architecture.tables, "change": model.change, "dropped": list(model.weights.dropped),
        "licence": family.licence,
    }  # fmt: skip


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Say of which file an error is, where the error does not."""
    try:
        yield
    except ModelError as caught:
        error = of_one_part(caught, path)
        if error.path is not None:
            raise error from caught.__cause__
        raise ModelError(error.what, path=path, measured=error.measured, remedy=error.remedy) from error


def _refuse_other_family(name: str, family: str) -> None:
    if name != family and name in {item.name for item in families()}:
        raise ModelError(
            f"is of the family {family}, and {name} is the name of another", remedy="check --family, or give a --name"
        )


def label(text: str) -> str:
    """Return a model's name made of any text, other than that of a published or packaged model."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:90] or "model"
    if find_published(name) is not None or (CONFIG_DIR / f"{name}.json").exists():
        name += "-own"  # only who gives a published name on purpose says that this is that model
    return name


def _choose_name(name: str | None, expected: Published | None, found: Source) -> str:
    """Return the name in the store. A file's name serves as a label only; nothing is concluded from it."""
    if name is None and expected is not None:
        name = expected.name
    if name is None:
        stem = found.weights.stem
        name = label(found.weights.resolve().parent.name if found.folder or _GENERIC.fullmatch(stem) else stem)
    if not NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be a model's name", remedy="use letters, digits, dots, dashes and underscores: --name"
        )
    if (CONFIG_DIR / f"{name}.json").exists():
        raise ModelError(f"{name} is the model that comes with the package", remedy="choose another --name")
    return name


def _recorded(checkpoint: Checkpoint) -> dict[str, str] | None:
    text = checkpoint.metadata.get(HEADER_KEY)
    if text is None:
        return None
    try:
        record = {str(key): str(value) for key, value in json.loads(text).items()}
        return {key: record[key] for key in ("family", "activation", "tables")}
    except (ValueError, AttributeError, KeyError) as error:
        raise ModelError(
            "has a damaged record in its header", measured=text[:80], remedy="export or import the model again"
        ) from error


def _checked(tensors: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Return the weights if they are, key for key and shape for shape, those of the model that will run them.

    Raises:
        ModelError: Missing or unexpected keys, other shapes, values that are no numbers, or weights that are not
            floating point.
    """
    import torch

    from geoalign_core.models.clip import ClipModel

    with torch.device("meta"):
        wanted = ClipModel(config).state_dict()
    missing = sorted(set(wanted) - set(tensors))
    counters = [key for key in missing if key.endswith("num_batches_tracked")]
    tensors = tensors | {key: torch.zeros((), dtype=torch.int64) for key in counters}  # torch < 0.4 did not save them
    if missing := [key for key in missing if key not in counters]:
        raise ModelError("lacks weights", measured=some(missing), remedy="fetch the file again, or check --family")
    if strange := set(tensors) - set(wanted):
        raise unexpected(strange)
    for key, value in tensors.items():
        if value.shape != wanted[key].shape:
            raise ModelError(
                "has a weight of the wrong shape",
                measured=f"{key} is {tuple(value.shape)}, not {tuple(wanted[key].shape)}",
                remedy="fetch the file again, or check --family",
            )
        if key.endswith("num_batches_tracked"):
            continue
        if str(value.dtype).removeprefix("torch.") not in _FLOATS:
            raise ModelError(
                "has weights that are not floating point", measured=f"{key}: {value.dtype}",
                remedy="give the model before it was quantised",
            )  # fmt: skip
        if not bool(torch.isfinite(value.float()).all()):  # as they are computed with: float64 reaches further
            raise ModelError(
                "has weights that are no numbers", measured=f"NaN or infinity in {key}, as float32",
                remedy="the training diverged or the file is damaged: take another checkpoint",
            )  # fmt: skip
    return tensors


def _already_there(folder: Path, config: ModelConfig, provenance: dict[str, Any]) -> ModelConfig | None:
    """Return the configuration of this very import if the store has it.

    Raises:
        ModelError: The name belongs to something else.
    """
    if not folder.exists():
        return None
    try:
        there = json.loads((folder / PROVENANCE_NAME).read_text(encoding="utf-8"))
        same = all(
            there.get(key) == provenance[key] for key in ("schema", "source_sha256", "family", "activation", "tables")
        )
        whole = same and all(sha256_of(folder / item) == digest for item, digest in there["sha256"].items())
        own = ModelConfig.load(folder / CONFIG_NAME)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        same = whole = False
    if whole:
        # The configuration beside the same weights may have been another one.
        same = (own.vision_cfg, own.text_cfg, own.preprocess) == (config.vision_cfg, config.text_cfg, config.preprocess)
        if same:
            return own
    raise _taken(folder, "the same import, but damaged" if same else "other weights or other choices")


def _taken(folder: Path, how: str) -> ModelError:
    return ModelError(
        f"a model called {folder.name} is already there", path=folder, measured=how,
        remedy=f"give another --name, or first run: geoalign models remove {folder.name}",
    )  # fmt: skip


def _write(
    folder: Path, config: ModelConfig, tensors: dict[str, torch.Tensor], provenance: dict[str, Any]
) -> ModelConfig:
    """Write the three files beside the target, the record last, then rename the folder."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    header = {key: provenance[key] for key in ("family", "activation", "tables", "source_sha256")}
    with new_model(folder) as fresh:
        own = {key: value.contiguous() for key, value in sorted(tensors.items())}
        try:
            save_file(own, fresh / WEIGHTS_NAME, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:
            raise write_error(folder, error) from error
        (fresh / CONFIG_NAME).write_text(json.dumps(dataclasses.asdict(config), indent=1), encoding="utf-8")
        (fresh / WEIGHTS_NAME).chmod((fresh / CONFIG_NAME).stat().st_mode)  # safetensors' are the owner's alone
        digests = {item: sha256_of(fresh / item) for item in (CONFIG_NAME, WEIGHTS_NAME)}
        record = json.dumps(provenance | {"sha256": digests}, indent=1)
        (fresh / PROVENANCE_NAME).write_text(record, encoding="utf-8")
    return ModelConfig.load(folder / CONFIG_NAME)
