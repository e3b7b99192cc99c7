"""Weight-only int8, symmetric, one scale per output channel.

For a weight matrix W with rows w_r,

    s_r = max|w_r| / 127,   q_r = round(w_r / s_r) in −127 … 127,   ŵ_r = s_r q_r

so that every element is off by at most s_r / 2. A quantised tensor ``name`` is stored as ``name`` (int8) and
``name.scale`` (float32, one value per row); everything else is stored as float16 or float32 under its own name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

SCALE_SUFFIX = ".scale"
_TOP = 127.0


def quantise_rows(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise a matrix row by row.

    Args:
        weight: (rows, columns) finite values.

    Returns:
        (rows, columns) int8 and (rows,) float32 scales. A row of zeros has scale 1.

    Raises:
        ValueError: ``weight`` is not a matrix of finite numbers.
    """
    if weight.ndim != 2 or not np.isfinite(weight).all():
        raise ValueError("a finite matrix is needed")
    wide = weight.astype(np.float64)
    scale = (np.abs(wide).max(axis=1) / _TOP).astype(np.float32)
    scale[scale == 0] = 1.0
    levels = np.rint(wide / scale[:, None].astype(np.float64))
    return np.clip(levels, -_TOP, _TOP).astype(np.int8), scale


def dequantise_rows(levels: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``levels`` · ``scale`` per row as float32 (rows, columns)."""
    return levels.astype(np.float32) * scale[:, None].astype(np.float32)


def pack(
    tensors: Mapping[str, NDArray[np.float32]], *, int8: Iterable[str], half: Iterable[str]
) -> dict[str, NDArray[np.generic]]:
    """Turn float32 tensors into what is stored.

    Args:
        tensors: By name.
        int8: Names of matrices that are quantised.
        half: Names that are stored as float16. The rest stays float32.

    Raises:
        ValueError: A tensor named in ``int8`` is not a finite matrix.
    """
    int8, half = set(int8), set(half)
    stored: dict[str, NDArray[np.generic]] = {}
    for name, value in tensors.items():
        if name in int8:
            stored[name], stored[name + SCALE_SUFFIX] = quantise_rows(value)
        else:
            stored[name] = value.astype(np.float16 if name in half else np.float32)
    return stored


def unpack(stored: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
    """Turn what :func:`pack` gave back into float32 tensors.

    Raises:
        KeyError: The scale of an int8 tensor is missing.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, value in stored.items():
        if name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in stored:
            continue
        if value.dtype == np.int8:
            tensors[name] = dequantise_rows(value.view(np.int8), stored[name + SCALE_SUFFIX].astype(np.float32))
        else:
            tensors[name] = value.astype(np.float32)
    return tensors
