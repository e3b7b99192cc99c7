"""Maps made as sharp as an image, in closed form: the guided filter (He, Sun and Tang, ECCV 2010; PAMI 2013).

In every box the map is a linear function of the image's colours, ``q = aᵀ I + b``, fitted with ridge ε: with U the
3 × 3 covariance of colours, ``a = (U + ε 1)⁻¹ cov(I, p)`` and ``b = mean p − aᵀ mean I``; a and b are averaged over the
boxes that hold a pixel. It is linear in the map, so filtering scores is filtering the features they come from.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def guided_filter(maps: torch.Tensor, guide: torch.Tensor, radius: int, epsilon: float) -> torch.Tensor:
    """Return (B, Q, H, W) maps with the edges of their images.

    Args:
        maps: (B, Q, H, W) float32.
        guide: (B, 3, H, W) colours, 0..1.
        radius: Boxes have sides of 2 radius + 1 pixels; at the rim, what of them is inside.
        epsilon: Ridge, in squared colour: what varies less is smoothed, what varies more is an edge.
    """
    centre = guide.mean(dim=(2, 3), keepdim=True)
    guide = guide - centre  # keeps the variances exact in float32
    mean_i, mean_p = box_mean(guide, radius), box_mean(maps, radius)
    outer = torch.einsum("bihw,bjhw->bijhw", guide, guide).flatten(1, 2)
    variance = box_mean(outer, radius).unflatten(1, (3, 3)) - torch.einsum("bihw,bjhw->bijhw", mean_i, mean_i)
    joint = torch.einsum("bihw,bqhw->biqhw", guide, maps).flatten(1, 2)
    covariance = box_mean(joint, radius).unflatten(1, (3, -1)) - torch.einsum("bihw,bqhw->biqhw", mean_i, mean_p)
    ridge = epsilon * torch.eye(3, device=maps.device, dtype=maps.dtype)[:, :, None, None]
    slope = torch.einsum("bijhw,bjqhw->biqhw", inverse(variance + ridge), covariance)
    offset = mean_p - torch.einsum("biqhw,bihw->bqhw", slope, mean_i)
    smooth = box_mean(slope.flatten(1, 2), radius).unflatten(1, (3, -1))
    return torch.einsum("biqhw,bihw->bqhw", smooth, guide) + box_mean(offset, radius)


def inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Return the inverses of symmetric 3 × 3 matrices (B, 3, 3, H, W), whose rows are orthogonal to cross products."""
    one, two, three = matrices.unbind(1)
    columns = [torch.linalg.cross(*pair, dim=1) for pair in ((two, three), (three, one), (one, two))]
    return torch.stack(columns, dim=2) / (one * columns[0]).sum(dim=1)[:, None, None]


def box_mean(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the means (B, C, H, W) over boxes, of what of them is inside."""
    side = 2 * radius + 1
    for kernel, padding in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
        maps = functional.avg_pool2d(maps, kernel, stride=1, padding=padding, count_include_pad=False)
    return maps
