"""Rows as numbers: int8 with a scale each, their norm in the joint space, and their share of valid pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoalign_core.models.encoder import Readout

_TINY = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class QuantisedRows:
    """N vectors of C channels as ``values * scales[:, None]``."""

    values: NDArray[np.int8]
    """(N, C), −127..127."""
    scales: NDArray[np.float32]
    """(N,), the largest magnitude of each row divided by 127; 0 for a row of zeros."""

    def dequantise(self) -> NDArray[np.float32]:
        """Return the (N, C) float32 vectors that the int8 rows stand for."""
        return self.values.astype(np.float32) * self.scales[:, None]


def quantise(vectors: NDArray[np.float32]) -> QuantisedRows:
    """Round (N, C) float32 vectors to int8 with one scale per row.

    The error of a component is at most half a scale, 1/254 of the row's largest magnitude.
    """
    peaks = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float32)
    scales = peaks / np.float32(127)
    values = np.rint(vectors / np.maximum(scales, _TINY)[:, None])
    return QuantisedRows(np.clip(values, -127, 127).astype(np.int8), scales)


def inverse_norms(rows: QuantisedRows, window: NDArray[np.float32], readout: Readout) -> NDArray[np.float32]:
    """Return 1 / ‖Wp·p + Ww·w + b‖ for every dequantised row p of one window.

    With it the cosine of a joint vector needs no joint vector: it is a linear form of the row times this number.

    Args:
        rows: The (N, C) rows of the window.
        window: (C_w,) the window's vector.
        readout: The map into the joint space.

    Returns:
        (N,) float32, positive.
    """
    joint = rows.dequantise() @ readout.patch.T
    joint += readout.window @ window + readout.bias
    norms = np.sqrt(np.einsum("nd,nd->n", joint, joint))
    return (np.float32(1) / np.maximum(norms, _TINY)).astype(np.float32)


def valid_shares(valid: NDArray[np.bool_], patch_px: int) -> NDArray[np.uint8]:
    """Return the share of valid pixels of every patch of a window, 0..255, in (patch row, patch col) order.

    0 says that no pixel is valid and 255 that all are; shares between never round onto either.

    Args:
        valid: (H, W) with H and W multiples of ``patch_px``.
        patch_px: Side of a patch.

    Returns:
        (H / patch_px · W / patch_px,) uint8.
    """
    height, width = valid.shape
    cells = valid.reshape(height // patch_px, patch_px, width // patch_px, patch_px).sum(axis=(1, 3)).ravel()
    full = patch_px * patch_px
    inner = np.clip(np.rint(cells * (255.0 / full)), 1, 254)
    return np.where(cells == 0, 0, np.where(cells == full, 255, inner)).astype(np.uint8)
