"""Dense readings of a CLIP vision transformer: the last block's attention, re-wired without training.

With x the input of the last block, (q, k, v) the heads of its input projection of LN(x), d the head size and O its
output projection, the patch update y is

==========  ================================================================  ========  ===
mode        y                                                                 residual  MLP
==========  ================================================================  ========  ===
vanilla     O(softmax(q kᵀ / √d) v)                                           yes       yes
maskclip    O(v)                                                              yes       yes
segearth    O((softmax(q qᵀ/√d) + softmax(k kᵀ/√d) + softmax(v vᵀ/√d)) v)     no        no
==========  ================================================================  ========  ===

Sources: MaskCLIP (Zhou et al. 2022) in the form that FG-CLIP trains, SegEarth-OV (Li et al. 2024).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

MODES = ("vanilla", "maskclip", "segearth")


def positional_for(table: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Resize a (1 + g², W) positional table to a (1 + rows·cols, W) grid, bicubic without antialiasing."""
    side = round((table.shape[0] - 1) ** 0.5)
    if (rows, cols) == (side, side):
        return table
    grid = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(rows, cols), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], grid.permute(0, 2, 3, 1).reshape(rows * cols, -1)])


def _last_block(block: Any, x: torch.Tensor, mode: str) -> torch.Tensor:  # noqa: ANN401 - open_clip's block
    attention = block.attn
    batch, tokens, width = x.shape
    heads = attention.num_heads
    qkv = functional.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (part.reshape(batch, tokens, heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    if mode == "maskclip":
        y = attention.out_proj(v.transpose(1, 2).reshape(batch, tokens, width))
        x = x + y
        return x + block.mlp(block.ln_2(x))
    mixed = torch.stack([functional.scaled_dot_product_attention(part, part, v) for part in (q, k, v)]).sum(0)
    return attention.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


def clip_features(visual: Any, images: torch.Tensor, mode: str) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """Run an open_clip ``VisionTransformer`` once for patch and image vectors.

    Args:
        visual: The image tower.
        images: (B, 3, H, W) normalised, H and W multiples of the patch size.
        mode: One of :data:`MODES`.

    Returns:
        Patch vectors (B, D, h, w) and image vectors (B, D), both L2-normalised.
    """
    x = visual.conv1(images)
    batch, width, rows, cols = x.shape
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(batch, 1, width), x], dim=1)
    x = visual.ln_pre(x + positional_for(visual.positional_embedding, rows, cols))
    blocks = visual.transformer.resblocks
    batch_first = getattr(visual.transformer, "batch_first", True)
    for block in blocks[:-1]:
        x = block(x) if batch_first else block(x.transpose(0, 1)).transpose(0, 1)
    last = blocks[-1](x) if batch_first else blocks[-1](x.transpose(0, 1)).transpose(0, 1)
    patches = last if mode == "vanilla" else _last_block(blocks[-1], x, mode)
    patches = functional.normalize(visual.ln_post(patches[:, 1:]) @ visual.proj, dim=-1)
    image = functional.normalize(visual.ln_post(last[:, 0]) @ visual.proj, dim=-1)
    return patches.transpose(1, 2).reshape(batch, -1, rows, cols), image
