"""Small pictures that travel inside a result."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE_PX = 240
QUALITY = 80


def thumbnail(rgb: NDArray[np.uint8], side: int = SIDE_PX) -> dict[str, Any]:
    """Return a picture for :attr:`Result.details`, some 10 kB.

    Args:
        rgb: (H, W, 3) uint8.
        side: The longer side in pixels; smaller pictures stay as they are.

    Returns:
        ``{"jpeg": base64, "width": W, "height": H}`` with the size of the original.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(rgb[..., :3]))
    width, height = image.size
    factor = min(1.0, side / max(width, height))
    small = image.resize((max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    return {"jpeg": base64.b64encode(buffer.getvalue()).decode(), "width": width, "height": height}


def heat_picture(values: NDArray[np.float32]) -> str:
    """Return scores as a base64 PNG that the report lays over a picture.

    Args:
        values: (h, w) in 0..1 over the whole picture; NaN where there is none. It is kept as it is, so pass patches,
            not pixels.
    """
    from PIL import Image

    grey = np.rint(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
