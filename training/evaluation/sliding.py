"""Classes of pixels by words: windows slide over an image, their scores are averaged, each pixel takes its best class.

The steps are those of SegEarth-OV (Li et al. 2025, arXiv 2410.01768; ``segearth_segmentor.py``), which FarSLIP follows:

1. The image is made smaller or larger until its longer side is ``side_px``. (The configurations say
   ``scale=(448, 448), keep_ratio``, which in mmcv bounds the longer side; it does not smooth before it reduces.)
2. Windows lie every ``stride_px``; the last of a row or column is moved inward. One that is not made of whole patches
   is padded on all sides with the mean colour.
3. Scores of patches, ``p·t + λ c·t`` with unit vectors of a patch p, the class token c of the same last block and a
   text t, are enlarged to the window, averaged over the windows that hold a pixel, and enlarged to the mask.
4. Softmax over the words at ``scale``; a class has the probability of its likeliest word; where the likeliest class
   has less than ``threshold``, the answer is the background.

Only the rows under one row of windows are held at a time, so images of any size take little memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from geoalign_core.models.encoder import TorchEncoder
    from tiling.progress import CancelToken

    Score = Callable[[torch.Tensor], torch.Tensor]
    """Windows (B, 3, H, W) uint8 → scores (B, Q, H, W)."""

UPSAMPLE = ("bilinear", "guided")
_CELLS = 1 << 24
"""Probabilities at a time: 64 MB."""
_WINDOWS = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True, slots=True)
class Sliding:
    """Every number of the steps above."""

    side_px: int
    """0 leaves images as they are."""
    antialias: bool
    window_px: int
    stride_px: int
    scale: float
    cls_bias: float
    """λ"""
    threshold: float
    background: int
    upsample: str = "bilinear"
    """From patches to pixels of a window: one of :data:`UPSAMPLE`."""
    guided_radius_px: int = 16
    guided_epsilon: float = 0.01


def starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along a side, the last one moved inward; one at 0 where the side is no longer."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(place * stride, length - window), 0) for place in range(count)]


def resized(image: NDArray[np.uint8], side_px: int, *, antialias: bool) -> torch.Tensor:
    """Return (3, h, w) uint8 whose longer side is ``side_px``, of (H, W, 3)."""
    pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
    height, width = image.shape[:2]
    if not side_px or side_px == max(height, width):
        return pixels
    factor = side_px / max(height, width)
    size = [max(1, int(length * factor + 0.5)) for length in (height, width)]
    smaller = functional.interpolate(pixels[None].float(), size, mode="bilinear", antialias=antialias)
    return smaller[0].round().clamp(0, 255).to(torch.uint8)


@torch.inference_mode()
def segment(
    encoder: TorchEncoder, image: NDArray[np.uint8], texts: NDArray[np.float32], owners: NDArray[np.int64],
    how: Sliding, size: tuple[int, int] | None = None, cancel: CancelToken | None = None,
) -> NDArray[np.int32]:  # fmt: skip
    """Return the class (H, W) of every pixel.

    Args:
        encoder: The model.
        image: (H, W, 3) uint8 RGB.
        texts: (Q, D) unit vectors of words.
        owners: (Q,) the class of each word.
        how: The numbers.
        size: Height and width of the answer; by default the image's.
        cancel: Looked at between rows of windows.
    """
    pixels = resized(image, how.side_px, antialias=how.antialias)
    words = torch.from_numpy(np.array(texts, np.float32)).to(encoder.device)

    def score(windows: torch.Tensor) -> torch.Tensor:
        return window_scores(encoder, windows, words, how)

    bands = averaged(pixels, score, how, _WINDOWS.get(encoder.device.type, 8), cancel)
    height, width = size or image.shape[:2]
    places = torch.from_numpy(np.asarray(owners, np.int64)).to(encoder.device)
    parts = [
        decide(part, places, how).cpu().numpy() for part in enlarged(bands, pixels.shape[1], height, width)
    ]  # fmt: skip
    return np.concatenate(parts)


def averaged(
    pixels: torch.Tensor, score: Score, how: Sliding, most: int, cancel: CancelToken | None = None
) -> Iterator[torch.Tensor]:
    """Yield (Q, rows, w) means over the windows that hold a pixel, from top to bottom.

    Args:
        pixels: (3, h, w) uint8.
        score: Scores windows.
        how: Window and stride.
        most: Windows at a time.
        cancel: Looked at before each row of windows.
    """
    _, height, width = pixels.shape
    tall, wide = min(how.window_px, height), min(how.window_px, width)
    lefts = starts(width, how.window_px, how.stride_px)
    across = torch.zeros(width)
    for left in lefts:
        across[left : left + wide] += 1
    held, rows, base = torch.empty(0), torch.empty(0), 0
    for top in starts(height, how.window_px, how.stride_px):
        if cancel is not None:
            cancel.check()
        if top > base:
            yield held[:, : top - base] / (rows[: top - base, None] * across)
            held, rows, base = held[:, top - base :], rows[top - base :], top
        for first in range(0, len(lefts), most):
            some = lefts[first : first + most]
            maps = score(torch.stack([pixels[:, top : top + tall, left : left + wide] for left in some]))
            if not first:
                more = top + tall - base - len(rows)
                held = held if len(rows) else maps.new_zeros((maps.shape[1], 0, width))
                held, rows = functional.pad(held, (0, 0, 0, more)), functional.pad(rows.to(maps), (0, more)) + 1
                across = across.to(maps)
            for left, part in zip(some, maps, strict=True):
                held[:, :, left : left + wide] += part
    yield held / (rows[:, None] * across)


def window_scores(encoder: TorchEncoder, windows: torch.Tensor, words: torch.Tensor, how: Sliding) -> torch.Tensor:
    """Return (B, Q, H, W) scores of windows (B, 3, H, W) uint8 for words (Q, D)."""
    patch, (height, width) = encoder.config.patch_px, windows.shape[2:]
    down, across = -height % patch, -width % patch
    top, left = down // 2, across // 2
    padded = windows
    if down or across:
        mean = torch.tensor([round(255 * part) for part in encoder.config.preprocess.mean], dtype=torch.uint8)
        padded = mean[None, :, None, None].repeat(len(windows), 1, height + down, width + across)
        padded[:, :, top : top + height, left : left + width] = windows
    patches, token = patches_and_token(encoder, padded.to(encoder.device), wanted=how.cls_bias != 0)
    maps = torch.einsum("bdhw,qd->bqhw", patches, words)
    if token is not None:
        maps = maps + how.cls_bias * (token @ words.T)[:, :, None, None]
    maps = functional.interpolate(maps, padded.shape[2:], mode="bilinear")
    maps = maps[:, :, top : top + height, left : left + width]
    if how.upsample == "guided":
        from training.evaluation.guided import guided_filter

        guide = windows.to(maps.device, torch.float32) / 255
        maps = guided_filter(maps, guide, how.guided_radius_px, how.guided_epsilon)
    return maps


def patches_and_token(
    encoder: TorchEncoder, images: torch.Tensor, *, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return unit vectors of patches (B, D, h, w) and, where wanted, of class tokens (B, D).

    A CLIP transformer's class token is the one of the re-wired last block, as SegEarth-OV takes it; other models give
    their vector of the whole window, at the cost of a second pass.
    """
    if not wanted:
        return encoder.dense_tensor(images), None
    visual: Any = getattr(getattr(encoder, "model", None), "visual", None)
    if not hasattr(visual, "trunk"):
        return encoder.dense_tensor(images), encoder.image_tensor(images)
    from geoalign_core.models.dense import find_variant, last_block

    mean, std = (
        torch.tensor(part, device=images.device).view(1, 3, 1, 1)
        for part in (encoder.config.preprocess.mean, encoder.config.preprocess.std)
    )
    x, grid = visual.trunk((images.float() / 255 - mean) / std)
    block = visual.transformer.resblocks[-1]
    variant = find_variant(encoder.config.dense.mode)
    tokens = visual.project(last_block(block, x, block.attn.project(block.ln_1(x)), variant, grid))
    tokens = functional.normalize(tokens.float(), dim=-1)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid), tokens[:, 0]


def enlarged(bands: Iterator[torch.Tensor], source: int, height: int, width: int) -> Iterator[torch.Tensor]:
    """Enlarge or reduce a map bilinearly, band by band: pixel centres are (i + ½) · source / target − ½.

    Args:
        bands: (Q, rows, w) from top to bottom.
        source: Their rows in all.
        height: Rows of the result.
        width: Columns of the result.

    Yields:
        (Q, rows, width), no more than 64 MB at a time where one row is less.
    """
    wanted = ((torch.arange(height, dtype=torch.float64) + 0.5) * source / height - 0.5).clamp(min=0)
    upper = wanted.long().clamp(max=source - 1)
    lower = (upper + 1).clamp(max=source - 1)
    share = (wanted - upper).float()
    held, base, done, known = torch.empty(0), 0, 0, 0
    for band in bands:
        rows = band
        if band.shape[2] != width:
            rows = functional.interpolate(band[None], (band.shape[1], width), mode="bilinear")[0]
        held = torch.cat([held, rows], dim=1) if held.numel() else rows
        known += band.shape[1]
        ready = int((lower < known).sum())
        step = max(1, _CELLS // (held.shape[0] * width))
        for start in range(done, ready, step):
            part = slice(start, min(ready, start + step))
            above, below = (held[:, (places[part] - base).to(held.device)] for places in (upper, lower))
            yield torch.lerp(above, below, share[part].to(held.device)[:, None])
        if ready < height:
            first = min(int(upper[ready]), known)  # rows of later bands may be passed over, too
            held, base = held[:, first - base :], first
        done = ready


def decide(scores: torch.Tensor, owners: torch.Tensor, how: Sliding) -> torch.Tensor:
    """Return the class (rows, w) int32 of scores (Q, rows, w) of words that belong to classes ``owners`` (Q,)."""
    likely = (scores * how.scale).softmax(dim=0)
    classes = int(owners.max()) + 1
    if classes < len(owners):
        places = owners[:, None, None].expand_as(likely)
        likely = likely.new_zeros((classes, *likely.shape[1:])).scatter_reduce(0, places, likely, "amax")
    best, found = likely.max(dim=0)
    return found.masked_fill(best < how.threshold, how.background).to(torch.int32)
