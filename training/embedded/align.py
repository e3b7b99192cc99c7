r"""Learning the head of the embedded model on frozen towers.

    L = L_caption + λ_box L_box + λ_phrase L_phrase

- L_caption: :func:`~training.embedded.objectives.shared_positive_nce` of image and caption vectors, learnt temperature.
- L_box: :func:`~training.embedded.objectives.balanced_bce` of the product's own log-odds on patches inside and
  outside boxes of aircraft, cars and pools, against several words for the class and against words for other things.
- L_phrase: the same loss of phrases that captions say or leave out, on the pooled best patches of an image.

All three share every parameter from the first step, so the boxes cannot push the captions out of the head.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from geoalign_core.models.embedded import TextHead
from training.embedded.objectives import balanced_bce, log_odds, shared_positive_nce, top_mean
from training.embedded.phrases import BOX_PHRASES, LEXICON, RELATED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geoalign_core.models.config import ModelConfig
    from tiling.progress import Progress
    from training.embedded.corpus import Boxes, Captions
    from training.embedded.recipe import HeadRecipe


class Head(nn.Module):
    """What is learnt: one linear layer for images and patches, a small MLP for texts, a temperature.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.vision_cfg["width"]
        self.window_weight = config.dense.window_weight
        self.image = nn.Linear(2 * self.width, config.embed_dim)
        self.text = TextHead(config.text_cfg["width"], config.text_cfg["head_hidden"], config.embed_dim)
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(1 / 0.07))))

    def images(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return (N, D) unit vectors of (N, 2 C) pooled features."""
        return functional.normalize(self.image(pooled), dim=-1)

    def dense(self, patches: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """Return (…, D) unit vectors of patches (…, C) in windows (…, C)."""
        of_window = functional.linear(window, self.image.weight[:, : self.width]) * self.window_weight
        of_patch = functional.linear(patches, self.image.weight[:, self.width :], self.image.bias)
        return functional.normalize(of_patch + of_window, dim=-1)

    def texts(self, sentences: torch.Tensor) -> torch.Tensor:
        """Return (N, D) unit vectors of (N, width) sentence vectors."""
        return functional.normalize(self.text(sentences), dim=-1)

    def templated(self, sentences: torch.Tensor) -> torch.Tensor:
        """Return (N, D): the normalised mean over templates of (N, templates, width)."""
        return functional.normalize(self.texts(sentences).mean(dim=1), dim=-1)


class PhraseBook:
    """Sentence vectors of every phrase in every template, and of the contrast prompts.

    Args:
        config: The model's configuration.
        sentences: The text tower, from texts to (N, width).
    """

    def __init__(self, config: ModelConfig, sentences: Callable[[list[str]], np.ndarray]) -> None:
        self.lexicon = tuple(phrase for phrase, _ in LEXICON)
        self.words = tuple(dict.fromkeys([*self.lexicon, *(word for kind in BOX_PHRASES.values() for word in kind)]))
        templates = config.prompts.templates
        texts = [template.format(word) for word in self.words for template in templates]
        self.sentences = torch.from_numpy(sentences(texts)).reshape(len(self.words), len(templates), -1)
        self.contrast = torch.from_numpy(sentences(list(config.prompts.contrast)))
        self.number = {word: index for index, word in enumerate(self.words)}

    def vectors(self, head: Head, words: Sequence[str]) -> torch.Tensor:
        """Return (N, D) of words."""
        return head.templated(self.sentences[[self.number[word] for word in words]])


class _Sampler:
    """One generator for everything that is random in a run."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, count: int, size: int) -> torch.Tensor:
        return torch.randint(count, (size,), generator=self.generator)

    def order(self, count: int) -> torch.Tensor:
        return torch.randperm(count, generator=self.generator)

    def noisy(self, values: torch.Tensor, deviation: float) -> torch.Tensor:
        return values + deviation * torch.randn(values.shape, generator=self.generator)

    def choose(self, items: Sequence[str], count: int) -> list[str]:
        return [items[index] for index in self.order(len(items))[:count].tolist()]


def caption_loss(
    head: Head, captions: Captions, rows: torch.Tensor, recipe: HeadRecipe, sampler: _Sampler
) -> torch.Tensor:
    """Return the caption loss of the images ``rows``, one random caption each."""
    draws = torch.rand(len(rows), generator=sampler.generator).tolist()
    chosen = [captions.text_of[row] for row in rows.tolist()]
    texts = torch.tensor([numbers[int(draw * len(numbers))] for numbers, draw in zip(chosen, draws, strict=True)])
    pooled = sampler.noisy(captions.pooled[rows], recipe.noise)
    sentences = sampler.noisy(captions.sentences[texts], recipe.noise)
    scale = head.log_scale.exp().clamp(max=100.0)
    return shared_positive_nce(head.images(pooled), head.texts(sentences), texts, scale)


def box_loss(
    head: Head, boxes: Boxes, book: PhraseBook, plain: tuple[torch.Tensor, torch.Tensor], scale: float,
    recipe: HeadRecipe, sampler: _Sampler,
) -> torch.Tensor:  # fmt: skip
    """Return the box loss of one class.

    Args:
        head: The head.
        boxes: The class's patches.
        book: Phrases.
        plain: Patches (n, C) and windows (n, C) of captioned images that cannot show the class.
        scale: Factor on cosines.
        recipe: Numbers.
        sampler: Randomness.
    """
    inside = boxes.positive[sampler.below(len(boxes.positive), recipe.box_rows)]
    outside = boxes.negative[sampler.below(len(boxes.negative), recipe.box_rows)]
    rows = torch.cat([inside, outside])
    patches = torch.cat([boxes.patches[rows].float(), plain[0]])
    window = torch.cat([boxes.window[boxes.sample[rows]].float(), plain[1]])
    own = sampler.choose(BOX_PHRASES[boxes.kind], recipe.words_per_class)
    others = [sampler.choose(words, 2) for kind, words in BOX_PHRASES.items() if kind != boxes.kind]
    unrelated = [word for word in book.lexicon if not re.search(RELATED[boxes.kind], word)]
    rivals = sampler.choose(unrelated, recipe.rival_words)
    words = [*own, *(word for pair in others for word in pair), *rivals]
    labels = torch.full((len(patches), len(words)), -1)
    labels[: len(inside), : len(own)] = 1
    labels[len(inside) :, : len(own)] = 0
    labels[: len(inside), len(own) :] = 0
    dense = head.dense(sampler.noisy(patches, recipe.noise), window)
    odds = log_odds(dense, book.vectors(head, words), head.texts(book.contrast), scale)
    return balanced_bce(odds, labels, recipe.box_prior)


def phrase_loss(
    head: Head, captions: Captions, book: PhraseBook, scale: float, recipe: HeadRecipe, sampler: _Sampler
) -> torch.Tensor:
    """Return the loss of phrases said and left out, on the best patches of random images."""
    rows = sampler.below(len(captions.images), recipe.phrase_images)
    cells = sampler.order(captions.patches.shape[1])[: recipe.phrase_patches]
    patches = captions.patches[rows][:, cells].float()
    dense = head.dense(sampler.noisy(patches, recipe.noise), captions.window[rows][:, None])
    flat = dense.flatten(0, 1)
    odds = log_odds(flat, book.vectors(head, book.lexicon), head.texts(book.contrast), scale)
    pooled = top_mean(odds.reshape(*dense.shape[:2], -1), recipe.top_share)
    return balanced_bce(pooled, captions.phrase_labels[rows], recipe.phrase_prior)


def train_head(
    config: ModelConfig, captions: Captions, boxes: dict[str, Boxes], book: PhraseBook, recipe: HeadRecipe,
    seed: int, progress: Progress,
) -> Head:  # fmt: skip
    """Train a head; the same inputs and seed give the same bits on the same machine.

    Args:
        config: Widths, window weight, prompts.
        captions: The training side of the captions.
        boxes: Patches by class; may be empty.
        book: Phrases.
        recipe: Numbers.
        seed: Of everything that is random.
        progress: Told after every step.
    """
    torch.manual_seed(seed)
    sampler = _Sampler(seed)
    head = Head(config)
    count = len(captions.images)
    batch = min(recipe.batch, count)
    steps = count // batch
    total = steps * recipe.epochs
    matrices = [value for name, value in head.named_parameters() if value.ndim > 1]
    vectors = [value for name, value in head.named_parameters() if value.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=total)
    absent = {kind: _images_without(captions, kind) for kind in boxes}
    scale = config.prompts.logit_scale
    done = 0
    for _ in range(recipe.epochs):
        order = sampler.order(count)
        for start in range(0, steps * batch, batch):
            loss = caption_loss(head, captions, order[start : start + batch], recipe, sampler)
            for kind, part in boxes.items():
                plain = _plain_patches(captions, absent[kind], recipe, sampler)
                share = recipe.box_weight / len(boxes)
                loss = loss + share * box_loss(head, part, book, plain, scale, recipe, sampler)
            if recipe.phrase_weight:
                loss = loss + recipe.phrase_weight * phrase_loss(head, captions, book, scale, recipe, sampler)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
            progress(done, total, "aligning")
    return head.eval()


def _images_without(captions: Captions, kind: str) -> torch.Tensor:
    free = [
        not any(re.search(RELATED[kind], caption.lower()) for caption in image.captions) for image in captions.images
    ]
    return torch.tensor(free).nonzero()[:, 0]


def _plain_patches(
    captions: Captions, images: torch.Tensor, recipe: HeadRecipe, sampler: _Sampler
) -> tuple[torch.Tensor, torch.Tensor]:
    if not len(images):
        return captions.window[:0], captions.window[:0]
    rows = images[sampler.below(len(images), recipe.box_rows // 2)]
    cells = sampler.below(captions.patches.shape[1], len(rows))
    return captions.patches[rows, cells].float(), captions.window[rows]
