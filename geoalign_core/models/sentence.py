"""A BERT-style sentence encoder (MiniLM-L6-v2's architecture) in plain PyTorch.

    x = LN(word[t] + position[0…n−1]);  six post-norm transformer layers;  vector = L2(mean over the n tokens)

The type embedding of a single sentence is a constant and is added to the positional table at conversion. Texts of
one length are encoded together, so nothing is padded and a text's vector cannot depend on its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

_CLS, _SEP = "[CLS]", "[SEP]"


def load_tokenizer(vocab: Path) -> Tokenizer:
    """Build the uncased WordPiece tokenizer from a vocabulary of one token per line.

    Raises:
        OSError: The vocabulary cannot be read.
        ValueError: It lacks the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens = vocab.read_text(encoding="utf-8").split("\n")
    ids = {token: index for index, token in enumerate(tokens) if token}
    if _CLS not in ids or _SEP not in ids or "[UNK]" not in ids:
        raise ValueError("the vocabulary has no [CLS], [SEP] or [UNK]")
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_CLS} $A {_SEP}", special_tokens=[(_CLS, ids[_CLS]), (_SEP, ids[_SEP])]
    )
    return tokenizer


class SentenceEncoder(nn.Module):
    """Token numbers in, one unit vector per text out.

    Args:
        vocab_size: Number of word pieces.
        width: Width of the hidden states and of the result.
        layers: Number of transformer layers.
        heads: Attention heads per layer.
        hidden: Width of the layers' MLP.
        max_tokens: Rows of the positional table; longer texts lose their end.
    """

    def __init__(self, vocab_size: int, width: int, layers: int, heads: int, hidden: int, max_tokens: int) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.word = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(max_tokens, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, hidden, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
            )
            for _ in range(layers)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode texts of one length.

        Args:
            tokens: (B, n) token numbers, start and end tokens included, n ≤ ``max_tokens``.

        Returns:
            (B, width), L2-normalised.
        """
        x = self.norm(self.word(tokens) + self.position.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return functional.normalize(x.mean(dim=1), dim=-1)

    @torch.inference_mode()
    def encode(self, token_lists: Sequence[Sequence[int]], *, batch: int = 128) -> torch.Tensor:
        """Encode texts of any lengths.

        Args:
            token_lists: Token numbers per text; the end beyond ``max_tokens`` is cut, the last token kept.
            batch: Most texts in one pass.

        Returns:
            (N, width) L2-normalised, in the order given.
        """
        device = self.word.weight.device
        by_length: dict[int, list[int]] = defaultdict(list)
        cut = [_cut(tokens, self.max_tokens) for tokens in token_lists]
        for index, tokens in enumerate(cut):
            by_length[len(tokens)].append(index)
        result = torch.empty(len(cut), self.word.embedding_dim, device=device)
        for indexes in by_length.values():
            for start in range(0, len(indexes), batch):
                part = indexes[start : start + batch]
                result[part] = self(torch.tensor([cut[index] for index in part], device=device))
        return result


def _cut(tokens: Sequence[int], most: int) -> list[int]:
    kept = list(tokens)
    return kept if len(kept) <= most else [*kept[: most - 1], kept[-1]]
