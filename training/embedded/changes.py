"""What is learnt inside the frozen towers: low-rank changes of their matrices, trained in place, exported small.

The last blocks of the image tower run on hidden states that are kept (:mod:`training.embedded.middle`), through the
very code that serves them; each of their linear layers has a low-rank change beside it. The text tower is small: its
changed matrices are put together once per step and called functionally.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from geoalign_core.models.embedded import IMAGE_CHANGE, TEXT_CHANGE
from geoalign_core.models.lowrank import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from geoalign_core.models.embedded import Towers

_LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_IMAGES_PER_PASS = 24
"""Images whose activations are made together: small tensors are reused by the allocator, large ones are not."""
_TEXTS_PER_PASS = 128


class LowRankLinear(nn.Module):
    """``y = W x + b + U (D x)`` with W and b frozen, in the dtype of W; U starts at zero.

    Args:
        layer: The frozen layer.
        rank: r of U (out, r) and D (r, in).
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) * layer.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        self.changed = True
        """Whether the change is put on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (…, out) of (…, in)."""
        if not self.changed:
            return functional.linear(x, self.weight, self.bias)
        change = functional.linear(functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))
        return functional.linear(x, self.weight, self.bias) + change


class TunedTowers(nn.Module):
    """Both towers with their changes; only the changes are parameters that learn.

    Args:
        towers: The towers as they were pretrained; their last blocks are changed in place.
        first: The first block that is changed.
        image_rank: Rank of the changes in the image tower.
        text_rank: Rank of the changes in the text tower.
    """

    def __init__(self, towers: Towers, *, first: int, image_rank: int, text_rank: int) -> None:
        super().__init__()
        self.towers, self.first = towers, first
        self.image, self.text = towers.image, towers.text
        for block in self.image.vit.blocks[first:]:
            for name in _LINEAR:
                owner, leaf = name.split(".")
                module = getattr(block, owner)
                setattr(module, leaf, LowRankLinear(getattr(module, leaf), image_rank))
        self._stems = [name for name, value in self.text.named_parameters() if _is_layer_matrix(name, value)]
        self.ups, self.downs = nn.ParameterList(), nn.ParameterList()
        for name in self._stems:
            rows, columns = self.text.get_parameter(name).shape
            self.ups.append(nn.Parameter(torch.zeros(rows, text_rank)))
            self.downs.append(nn.Parameter(torch.randn(text_rank, columns) * columns**-0.5))
        self._tokens: dict[str, list[int]] = {}

    def image_changes(self) -> list[nn.Parameter]:
        """Return what learns in the image tower."""
        return [value for name, value in self.image.named_parameters() if name.endswith((UP, DOWN))]

    def text_changes(self) -> list[nn.Parameter]:
        """Return what learns in the text tower."""
        return [*self.ups, *self.downs]

    def parameters_that_learn(self) -> list[nn.Parameter]:
        """Return the changes of both towers, in a fixed order."""
        return [*self.image_changes(), *self.text_changes()]

    def ups_of_both(self) -> list[nn.Parameter]:
        """Return the U of every change, in both towers."""
        return [*self.ups, *(value for name, value in self.image.named_parameters() if name.endswith(UP))]

    def tokens(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class tokens (B, C) and patch tokens (B, n, C), L2-normalised, of hidden states (B, 1 + n, C)."""
        parts = [self.image.finish(part, self.first) for part in hidden.split(_IMAGES_PER_PASS)]
        whole = torch.cat(parts)
        return whole[:, 0], whole[:, 1:]

    @torch.no_grad()
    def tokens_before(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what :meth:`tokens` returned before anything was learnt."""
        layers = [layer for layer in self.image.modules() if isinstance(layer, LowRankLinear)]
        for layer in layers:
            layer.changed = False
        try:
            return self.tokens(hidden)
        finally:
            for layer in layers:
                layer.changed = True

    def text_weights(self) -> dict[str, torch.Tensor]:
        """Return every parameter of the text tower as it is now, changes put in."""
        weights = {name: value.detach() for name, value in self.text.named_parameters()}
        for name, up, down in zip(self._stems, self.ups, self.downs, strict=True):
            weights[name] = weights[name] + up @ down
        return weights

    def pretrained_weights(self) -> dict[str, torch.Tensor]:
        """Return every parameter of the text tower without the changes."""
        return {name: value.detach() for name, value in self.text.named_parameters()}

    def sentences(self, texts: Sequence[str], weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return (N, width) L2-normalised sentence vectors with a gradient; texts of one length run together."""
        order, vectors = [], []
        for places in self._by_length(texts):
            batch = torch.tensor([self._tokens[texts[place]] for place in places])
            with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_grad_enabled()):
                vectors.append(functional_call(self.text, dict(weights), (batch,)).float())
            order += places
        return torch.cat(vectors)[torch.tensor(order).argsort()]

    def _by_length(self, texts: Sequence[str]) -> Iterator[list[int]]:
        places: dict[int, list[int]] = defaultdict(list)
        for place, text in enumerate(texts):
            if text not in self._tokens:
                self._tokens[text] = self.towers.tokenizer.encode(text).ids
            places[len(self._tokens[text])].append(place)
        for same in places.values():
            for start in range(0, len(same), _TEXTS_PER_PASS):
                yield same[start : start + _TEXTS_PER_PASS]

    def changes(self) -> dict[str, torch.Tensor]:
        """Return the changes as the head's file holds them, float32."""
        found = {}
        for name, value in self.image.vit.named_parameters():
            for ending in (UP, DOWN):
                if name.endswith(ending):
                    found[f"{IMAGE_CHANGE}{name.removesuffix(ending)}.weight{ending}"] = value.detach()
        for stem, up, down in zip(self._stems, self.ups, self.downs, strict=True):
            found |= {f"{TEXT_CHANGE}{stem}{UP}": up.detach(), f"{TEXT_CHANGE}{stem}{DOWN}": down.detach()}
        return found


def _is_layer_matrix(name: str, value: torch.Tensor) -> bool:
    return name.startswith("layers.") and value.ndim == 2
