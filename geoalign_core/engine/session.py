"""What stays warm between requests: models, text vectors, opened rasters and their indexes."""

from __future__ import annotations

import collections
import gc
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geoalign_core.engine.protocol import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geoalign_core.engine.arguments import Target
    from geoalign_core.indexing import Index, IndexSpec
    from geoalign_core.models.config import ModelConfig
    from geoalign_core.models.encoder import Encoder, RawFeatures, Readout
    from geoalign_core.settings import Settings
    from tiling.fingerprint import SourceFingerprint
    from tiling.raster import Raster

K = TypeVar("K")
V = TypeVar("V")
_MODELS, _RASTERS, _TEXTS, _ANSWERS = 2, 8, 4096, 6


class Kept(collections.OrderedDict[K, V]):
    """The most recently used items, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def recall(self, key: K) -> V | None:
        """Return an item and mark it as used."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def keep(self, key: K, value: V) -> V:
        """Add an item and drop what was not used for longest."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._limit:
            self.popitem(last=False)
        return value


class WarmEncoder:
    """An encoder that remembers the vectors of texts: the templates' prompts come again with every question."""

    def __init__(self, encoder: Encoder, *, on_gpu: bool) -> None:
        from geoalign_core.models.calibration import score_key_of

        self._encoder = encoder
        self._texts: Kept[str, NDArray[np.float32]] = Kept(_TEXTS)
        self.config: ModelConfig = encoder.config
        self.key: str = encoder.key
        self.score_key: str = score_key_of(encoder)
        self.precision: str = encoder.precision
        self.readout: Readout = encoder.readout
        self.has_text: bool = encoder.has_text
        self.batch = 16 if on_gpu else 1
        """Windows per call: on a processor one, so that a stopped job ends soon."""
        self.seconds_per_window: dict[tuple[int, int], float] = {}

    @property
    def max_tokens(self) -> int:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self._encoder.max_tokens

    def count_tokens(self, text: str) -> int:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self._encoder.count_tokens(text)

    def encode_text(self, texts: list[str]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        fresh = dict(zip(new, self._encoder.encode_text(new), strict=True)) if new else {}
        rows = [fresh[text] if text in fresh else self._texts[text] for text in texts]
        for text, row in fresh.items():
            self._texts.keep(text, row)
        return np.stack(rows) if rows else self._encoder.encode_text([])

    def encode_raw(self, images: NDArray[np.uint8]) -> RawFeatures:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self._encoder.encode_raw(images)

    def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self._encoder.encode_image(images)

    def encode_dense(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`~geoalign_core.models.encoder.Encoder`."""
        return self._encoder.encode_dense(images)

    def window_seconds(self, height_px: int, width_px: int) -> float:
        """Return what one window of this size takes, measured once."""
        size = height_px, width_px
        if size not in self.seconds_per_window:
            image = np.random.default_rng(0).integers(0, 255, (1, 3, *size), dtype=np.uint8)
            self.encode_raw(image)
            start = time.perf_counter()
            self.encode_raw(image)
            self.seconds_per_window[size] = time.perf_counter() - start
        return self.seconds_per_window[size]


@dataclass(slots=True)
class Opened:
    """A raster with its model and the plan of its index."""

    raster: Raster
    encoder: WarmEncoder
    spec: IndexSpec
    settings: Settings
    source: SourceFingerprint
    """The state of the file that all this belongs to."""
    index: Index | None = None
    """The index as it was last seen."""
    answers: Kept[Any, Any] = field(default_factory=lambda: Kept(_ANSWERS))
    """What was computed on exactly that index, by question."""

    def hold(self, index: Index) -> Index:
        """Take an index just opened, or stay with the one at hand when it has the same shards, mapped already."""
        if self.index is not None and self.index.source == index.source and self.index.shards == index.shards:
            self.index.report = index.report
            return self.index
        self.index = index
        self.answers.clear()
        return index


class Session:
    """Everything warm. One worker thread uses it.

    Args:
        max_windows: Larger indexes are refused.
    """

    def __init__(self, max_windows: int) -> None:
        self.max_windows = max_windows
        self._encoders: Kept[tuple[str, str], WarmEncoder] = Kept(_MODELS)
        self._rasters: Kept[Any, Opened] = Kept(_RASTERS)

    def encoder(self, model: str | None, device: str, tell: Callable[[str], None]) -> WarmEncoder:
        """Return a loaded model.

        Args:
            model: A name or folder; None is the default model.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            tell: Called when there is something to wait for.

        Raises:
            Failure: ``torch_load_failed``.
            ModelError, DeviceError: The model or the device is not there.
        """
        from geoalign_core.models.registry import DEFAULT_MODEL, load_encoder, resolve_device

        name = model or DEFAULT_MODEL
        known = self._encoders.recall((name, device))
        if known is not None:
            return known
        tell("loading the model")
        import_torch()
        place = resolve_device(device)
        same = self._encoders.recall((name, place))
        if same is None:
            loaded = load_encoder(name, device=place)
            same = self._encoders.keep((name, place), WarmEncoder(loaded, on_gpu=place != "cpu"))
        return self._encoders.keep((name, device), same) if (name, device) != (name, place) else same

    def open(self, target: Target, tell: Callable[[str], None]) -> Opened:
        """Return a raster with its plan, as opened before unless the file has changed since.

        Raises:
            GeoAlignError: The raster, the model or the look cannot be used.
        """
        from geoalign_core.indexing import plan_index
        from geoalign_core.models.registry import DEFAULT_MODEL
        from geoalign_core.settings import Settings
        from tiling.fingerprint import fingerprint
        from tiling.raster import OpenPolicy, open_raster

        source, look = target.source, target.look
        policy = OpenPolicy(allow_vrt=source.allow_vrt)
        key = source, look
        opened = self._rasters.recall(key)
        if opened is not None and opened.source == fingerprint(source.path):
            return opened
        self._rasters.pop(key, None)
        with open_raster(source.path, policy=policy, crs=source.crs):
            pass  # what cannot be opened is told before the model is loaded
        encoder = self.encoder(look.model, look.device, tell)
        tell("reading the image")
        settings = Settings(
            model=look.model or DEFAULT_MODEL, gsd_m=look.gsd_m, bands=look.bands, stretch=look.stretch,
            device=look.device, jobs=os.cpu_count() or 1, max_windows=self.max_windows, policy=policy,
        )  # fmt: skip
        before = fingerprint(source.path)
        raster = open_raster(source.path, policy=policy, crs=source.crs)
        try:
            spec = plan_index(raster, encoder, gsd_m=look.gsd_m, bands=look.bands, stretch=look.stretch)
        finally:
            raster.rest()
        return self._rasters.keep(key, Opened(raster, encoder, spec, settings, before))

    def drop(self) -> None:
        """Forget everything that takes memory."""
        self._rasters.clear()
        self._encoders.clear()
        gc.collect()


def import_torch() -> Any:  # noqa: ANN401 - the module
    """Import torch.

    Raises:
        Failure: ``torch_load_failed``, with the loader's words.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        raise Failure(
            "torch_load_failed",
            "PyTorch is not installed beside the engine" if missing else "PyTorch cannot be loaded",
            remedy=_torch_remedy(reason), details=reason,
        ) from error  # fmt: skip
    return torch


def _torch_remedy(reason: str) -> str:
    if os.name == "nt" and ("DLL" in reason or "WinError" in reason):
        return "install the Microsoft Visual C++ Redistributable (x64), then start the engine again"
    if "libcuda" in reason or "libcudart" in reason or "libcublas" in reason:
        return "install the CPU build of PyTorch, or one that fits the graphics driver"
    return "repair the engine's environment: install it again"
