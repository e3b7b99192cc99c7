"""Colour jitter and grey: changes of a picture's colours that leave everything in its place.

The operations, their ranges and their order are those of torchvision's ``ColorJitter`` and ``Grayscale`` as open_clip
applies them, and so FarSLIP's second stage: brightness, contrast, saturation and hue in random order, then perhaps
grey. The draws are the caller's generator's, so that a picture's change is known by its place in the run, as crops
and flips are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

_HUE = 3


@dataclass(frozen=True, slots=True)
class Photometric:
    """How far colours are changed, and how often."""

    jitter: tuple[float, float, float, float]
    """Brightness, contrast, saturation: factors from max(0, 1 − x) to 1 + x; hue: turns from −x to x, at most 0.5."""
    jitter_share: float
    """Probability of the four, 0 to 1."""
    grey_share: float
    """Probability of grey, 0 to 1."""

    def __call__(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return an RGB image (3, H, W) uint8 in other colours, or as it is.

        Args:
            image: The image.
            rng: Asked for two shares, and where there is jitter for an order and four amounts.
        """
        from torchvision.transforms.v2 import functional as change

        if rng.random() < self.jitter_share:
            changes = (change.adjust_brightness, change.adjust_contrast, change.adjust_saturation, change.adjust_hue)
            for number in rng.permutation(len(changes)).tolist():
                image = changes[number](image, float(rng.uniform(*self._range(number))))
        if rng.random() < self.grey_share:
            image = change.rgb_to_grayscale(image, num_output_channels=3)
        return image

    def _range(self, number: int) -> tuple[float, float]:
        most = self.jitter[number]
        return (-most, most) if number == _HUE else (max(0.0, 1 - most), 1 + most)
