r"""Learning inside the towers of the embedded model: low-rank changes and the head, together.

    L = L_caption + λ_box L_box + λ_phrase L_phrase + λ_keep (1 − mean cos(t, t₀)) + λ_forget L_forget

The first three are those of :mod:`training.embedded.align`, here on tokens that are computed anew in every step. The
fourth holds a caption's sentence vector t near the pretrained t₀, so that words that no caption says keep their place.
The last holds what places of windows with boxes answered to the other words of the lexicon: captioned images are
coarse, and without it trees and car parks at half a metre fade.
The caption loss sees a queue of the last steps' vectors as further negatives (MoCo, He et al. 2020, without its
second encoder: changes are small and the queue is short).
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from training.embedded.objectives import balanced_bce, log_odds, shared_positive_nce, soft_bce, top_mean
from training.embedded.phrases import BOX_PHRASES, LEXICON, RELATED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from geoalign_core.models.config import ModelConfig
    from tiling.progress import Progress
    from training.embedded.align import Head
    from training.embedded.changes import TunedTowers
    from training.embedded.data import CaptionedImage
    from training.embedded.middle import Middle
    from training.embedded.recipe import TuneRecipe
    from training.embedded.tune_state import TuneState


@dataclass(frozen=True, slots=True)
class Windows:
    """Hidden states of windows with boxes of one class, and how many a step takes of them."""

    hidden: Middle
    labels: Sequence[NDArray[np.int8]]
    per_step: int


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a tuning learns from."""

    images: Sequence[CaptionedImage]
    views: Sequence[Middle]
    """Hidden states of the images, once per view."""
    phrase_labels: torch.Tensor
    """(N, phrases) of the lexicon: 1 said, 0 absent, −1 unknown"""
    windows: dict[str, Sequence[Windows]]
    """By class."""


@dataclass(slots=True)
class _Queue:
    """Image and text vectors of the last steps, and the numbers of their captions."""

    size: int
    images: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    texts: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    numbers: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def push(self, images: torch.Tensor, texts: torch.Tensor, numbers: torch.Tensor) -> None:
        if not len(self.numbers):
            self.images, self.texts = images[:0].detach(), texts[:0].detach()
        self.images = torch.cat([images.detach(), self.images])[: self.size]
        self.texts = torch.cat([texts.detach(), self.texts])[: self.size]
        self.numbers = torch.cat([numbers, self.numbers])[: self.size]

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"queue.images": self.images, "queue.texts": self.texts, "queue.numbers": self.numbers}

    def restore(self, held: dict[str, torch.Tensor]) -> None:
        self.images, self.texts, self.numbers = (held[name] for name in self.tensors())


@dataclass(frozen=True, slots=True)
class _Seen:
    """Patches (n, C) of some windows with the class token of each one's window, now and before; labels (n,)."""

    patches: torch.Tensor
    windows: torch.Tensor
    patches_before: torch.Tensor
    windows_before: torch.Tensor
    labels: torch.Tensor


class Tuner:
    """One run.

    Args:
        config: Prompts and widths.
        towers: With changes.
        head: Already learnt on the frozen towers.
        material: What is learnt from.
        numbers: The recipe.
        seed: Of everything that is drawn.
    """

    def __init__(
        self,
        config: ModelConfig,
        towers: TunedTowers,
        head: Head,
        material: Material,
        numbers: TuneRecipe,
        seed: int,
    ) -> None:
        self.config, self.towers, self.head, self.material, self.numbers = config, towers, head, material, numbers
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.lexicon = [phrase for phrase, _ in LEXICON]
        self.words = list(dict.fromkeys([*self.lexicon, *(word for kind in BOX_PHRASES.values() for word in kind)]))
        self.place = {word: index for index, word in enumerate(self.words)}
        captions = sorted({caption for image in material.images for caption in image.captions})
        self.number = {caption: index for index, caption in enumerate(captions)}
        self.free = {
            kind: torch.tensor([
                not any(re.search(RELATED[kind], caption.lower()) for caption in image.captions)
                for image in material.images
            ])
            for kind in material.windows
        }  # fmt: skip
        self.queue = _Queue(numbers.queue)
        self.pretrained = towers.pretrained_weights()
        self.before = copy.deepcopy(head).eval()
        with torch.no_grad():
            templated = [template.format(word) for word in self.lexicon for template in config.prompts.templates]
            sentences = towers.sentences([*templated, *config.prompts.contrast], self.pretrained)
            words = sentences[: len(templated)].unflatten(0, (len(self.lexicon), -1))
            self.words_before = self.before.templated(words), self.before.texts(sentences[len(templated) :])

    def step(self, number: int, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Return the losses of one step, ``loss`` their weighted sum.

        Args:
            number: Of the step; with the seed it decides all that is drawn.
            rows: Numbers of the step's captioned images.
        """
        numbers = self.numbers
        self.rng = np.random.default_rng([self.seed, number])
        torch.manual_seed(int(self.rng.integers(2**62)))
        view = self.material.views[int(self.rng.integers(len(self.material.views)))]
        window, patches = self.towers.tokens(self._some_patches(view.stack(rows.tolist())))
        weights = self.towers.text_weights()
        words, contrast = self._word_vectors(weights)
        caption, keep = self._caption_loss(rows, window, patches, weights)
        seen = {kind: self._window_tokens(kind) for kind in self.material.windows}
        boxes = [self._box_loss(kind, seen[kind], rows, window, patches, words, contrast) for kind in seen]
        forget = [self._forget_loss(kind, seen[kind], words, contrast) for kind in seen if numbers.forget_weight]
        phrase = self._phrase_loss(rows, window, patches, words, contrast)
        box = torch.stack(boxes).mean() if boxes else caption.new_zeros(())
        old = torch.stack(forget).mean() if forget else caption.new_zeros(())
        loss = caption + numbers.box_weight * box + numbers.phrase_weight * phrase + numbers.keep_weight * keep
        loss = loss + numbers.forget_weight * old
        return {"loss": loss, "caption": caption, "box": box, "phrase": phrase, "keep": keep, "forget": old}

    def _some_patches(self, hidden: torch.Tensor) -> torch.Tensor:
        count = int(self.numbers.patch_share * (hidden.shape[1] - 1))
        chosen = torch.rand(len(hidden), hidden.shape[1] - 1).argsort(dim=1)[:, :count] + 1
        kept = hidden.gather(1, chosen[..., None].expand(-1, -1, hidden.shape[2]))
        return torch.cat([hidden[:, :1], kept], dim=1)

    def _noisy(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.numbers.noise * torch.randn_like(values)

    def _draw(self, items: Sequence[str], count: int) -> list[str]:
        return [items[place] for place in self.rng.permutation(len(items))[:count]]

    def _word_vectors(self, weights: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vectors of all words, each in one template drawn anew, and of the contrast prompts."""
        prompts = self.config.prompts
        texts = [self._draw(prompts.templates, 1)[0].format(word) for word in self.words]
        vectors = self.head.texts(self.towers.sentences([*texts, *prompts.contrast], weights))
        return vectors[: len(texts)], vectors[len(texts) :]

    def _caption_loss(
        self, rows: NDArray[np.int64], window: torch.Tensor, patches: torch.Tensor, weights: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images = [self.material.images[row] for row in rows.tolist()]
        captions = [image.captions[self.rng.integers(len(image.captions))] for image in images]
        sentences = self.towers.sentences(captions, weights)
        pooled = torch.cat([window, functional.normalize(patches.mean(dim=1), dim=-1)], dim=1)
        vectors, texts = self.head.images(self._noisy(pooled)), self.head.texts(self._noisy(sentences))
        numbers = torch.tensor([self.number[caption] for caption in captions])
        scale = self.head.log_scale.exp().clamp(max=100.0)
        loss = shared_positive_nce(
            vectors, texts, numbers, scale,
            more=(self.queue.images, self.queue.texts, self.queue.numbers) if len(self.queue.numbers) else None,
        )  # fmt: skip
        self.queue.push(vectors, texts, numbers)
        few = len(captions) // 3
        with torch.no_grad():
            pretrained = self.towers.sentences(captions[:few], self.pretrained)
        return loss, (1 - (sentences[:few] * pretrained).sum(dim=1)).mean()

    def _window_tokens(self, kind: str) -> _Seen:
        """Read windows drawn from a class's sets, as the towers are now and as they were."""
        parts: list[tuple[torch.Tensor, ...]] = []
        for part in self.material.windows[kind]:
            drawn = self.rng.integers(len(part.hidden), size=part.per_step).tolist()
            for rows in _same_sized(part, drawn):
                hidden = part.hidden.stack(rows)
                labels = torch.from_numpy(np.concatenate([part.labels[row].ravel() for row in rows]))
                now = self.towers.tokens(hidden)
                before = self.towers.tokens_before(hidden) if self.numbers.forget_weight else now
                parts.append((*_flat(*now), *_flat(*before), labels))
        return _Seen(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _forget_loss(self, kind: str, seen: _Seen, words: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
        """Compare answers to words that have nothing to do with the class, outside its boxes."""
        others = [number for number, word in enumerate(self.lexicon) if not re.search(RELATED[kind], word)]
        places = _some(seen.labels == 0, self.numbers.box_rows)
        scale = self.config.prompts.logit_scale
        with torch.no_grad():
            vectors, rivals = self.words_before
            dense = self.before.dense(seen.patches_before[places], seen.windows_before[places])
            before = log_odds(dense, vectors[others], rivals, scale)
        dense = self.head.dense(self._noisy(seen.patches[places]), seen.windows[places])
        asked = words[[self.place[self.lexicon[number]] for number in others]]
        return soft_bce(log_odds(dense, asked, contrast, scale), before)

    def _box_loss(
        self, kind: str, seen: _Seen, rows: NDArray[np.int64], window: torch.Tensor, patches: torch.Tensor,
        words: torch.Tensor, contrast: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        numbers, labels = self.numbers, seen.labels
        rim = int(numbers.box_rows * numbers.rim_share)
        inside = _some(labels == 1, numbers.box_rows)
        outside = torch.cat([_some(labels == 0, numbers.box_rows - rim), _some(labels == -1, rim)])
        free = _some(self.free[kind][torch.from_numpy(rows)], numbers.box_rows // 2)
        cells = torch.randint(patches.shape[1], (len(free),))
        dense = self.head.dense(
            self._noisy(torch.cat([seen.patches[inside], seen.patches[outside], patches[free, cells]])),
            torch.cat([seen.windows[inside], seen.windows[outside], window[free]]),
        )
        own = self._draw(BOX_PHRASES[kind], 4)
        others = [word for name, phrases in BOX_PHRASES.items() if name != kind for word in self._draw(phrases, 2)]
        rivals = self._draw([word for word in self.lexicon if not re.search(RELATED[kind], word)], 10)
        asked = [*own, *others, *rivals]
        truth = torch.full((len(dense), len(asked)), -1)
        truth[: len(inside), : len(own)] = 1
        truth[len(inside) :, : len(own)] = 0
        truth[: len(inside), len(own) :] = 0
        vectors = words[[self.place[word] for word in asked]]
        odds = log_odds(dense, vectors, contrast, self.config.prompts.logit_scale)
        return balanced_bce(odds, truth, numbers.box_prior)

    def _phrase_loss(
        self, rows: NDArray[np.int64], window: torch.Tensor, patches: torch.Tensor, words: torch.Tensor,
        contrast: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        numbers = self.numbers
        some = torch.randperm(len(rows))[: numbers.phrase_images]
        dense = self.head.dense(self._noisy(patches[some]), window[some][:, None])
        vectors = words[[self.place[phrase] for phrase in self.lexicon]]
        odds = log_odds(dense.flatten(0, 1), vectors, contrast, self.config.prompts.logit_scale)
        pooled = top_mean(odds.view(*dense.shape[:2], -1), numbers.top_share)
        return balanced_bce(pooled, self.material.phrase_labels[rows[some.numpy()]], numbers.phrase_prior)


def _flat(window: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patches (B · n, C) and, for each, its window's class token."""
    return patches.flatten(0, 1), window[:, None].expand_as(patches).flatten(0, 1)


def _same_sized(part: Windows, rows: Sequence[int]) -> list[list[int]]:
    """Group windows that can be read in one pass."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(part.labels[row].size, []).append(row)
    return list(groups.values())


def _some(mask: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``count`` places where ``mask`` holds, drawn with repeats; none where it never does."""
    places = mask.nonzero()[:, 0]
    return places[torch.randint(len(places), (count,))] if len(places) else places


def tune(
    config: ModelConfig,
    towers: TunedTowers,
    head: Head,
    material: Material,
    numbers: TuneRecipe,
    seed: int,
    progress: Progress,
    *,
    watch: Callable[[int, dict[str, float]], object] = lambda _step, _losses: None,
    state: TuneState | None = None,
) -> None:
    """Tune towers and head in place.

    The same inputs and seed give the same bits on one thread, stopped in between or not; several threads add up
    gradients in no fixed order.

    Args:
        config: Prompts and widths.
        towers: With changes that are still zero.
        head: Already learnt on the frozen towers.
        material: What is learnt from.
        numbers: The recipe.
        seed: Of everything that is random.
        progress: Told after every step.
        watch: Told the number, from 1, and the losses of every step.
        state: Where the tuning is kept every now and then, and taken up from.
    """
    tuner = Tuner(config, towers, head, material, numbers, seed)
    count = len(material.images)
    batch = min(numbers.batch, count)
    total = max(1, count // batch * numbers.epochs)
    optimiser = _optimiser(towers, head, numbers)
    highest = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=total, pct_start=0.2)
    order = np.concatenate([tuner.rng.permutation(count)[: count // batch * batch] for _ in range(numbers.epochs)])
    start = {name: value.clone() for name, value in head.state_dict().items()}
    learnt = {f"head.{name}": value for name, value in head.state_dict().items()}
    learnt |= {f"change.{number}": value for number, value in enumerate(towers.parameters_that_learn())}
    first, held = state.load(optimiser) if state else (0, {})
    if first:
        with torch.no_grad():
            for name, value in learnt.items():
                value.copy_(held[name])
        tuner.queue.restore(held)
        schedule.load_state_dict(schedule.state_dict() | {"last_epoch": first - 1, "_step_count": first})
        schedule.step()
    head.train()
    for done in range(first, total):
        losses = tuner.step(done, order[done * batch : (done + 1) * batch])
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimiser.step()
        schedule.step()
        watch(done + 1, {name: float(value.detach()) for name, value in losses.items()})
        if state and (done + 1) % state.every == 0:
            state.save(done + 1, learnt | tuner.queue.tensors(), optimiser)
        progress(done + 1, total, "tuning")
    _back_towards(start, numbers.share, towers, head)
    head.eval()


def _optimiser(towers: TunedTowers, head: Head, numbers: TuneRecipe) -> torch.optim.AdamW:
    matrices = [value for value in head.parameters() if value.ndim > 1]
    vectors = [value for value in head.parameters() if value.ndim < 2]
    return torch.optim.AdamW([
        {"params": towers.image_changes(), "lr": numbers.image_rate, "weight_decay": 0.0},
        {"params": towers.text_changes(), "lr": numbers.text_rate, "weight_decay": 0.0},
        {"params": matrices, "lr": numbers.head_rate, "weight_decay": numbers.weight_decay},
        {"params": vectors, "lr": numbers.head_rate, "weight_decay": 0.0},
    ])  # fmt: skip


@torch.no_grad()
def _back_towards(start: dict[str, torch.Tensor], share: float, towers: TunedTowers, head: Head) -> None:
    """Put every weight on the line from where it started to where it is (Wortsman et al. 2022, WiSE-FT).

    The towers' changes started at zero: there ``share`` of U D is what U scaled by it gives.
    """
    for name, value in head.state_dict().items():
        value.copy_(start[name].lerp(value, share))
    for up in towers.ups_of_both():
        up.mul_(share)
