"""Nearest training text of every test text: by the words themselves, and by what they mean.

Lexical likeness is the cosine of TF-IDF vectors of words and word pairs; token Jaccard and ROUGE-L (Lin 2004, the F
measure of the longest common subsequence) are given for the pairs found. Semantic likeness is the cosine of sentence
vectors. Memory: the vectors of both sides, and one block of scores of at most ``BLOCK_SCORES`` numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from tiling.progress import CancelToken
    from training.data.schema import Record

    Embed = Callable[[list[str]], NDArray[np.float32]]

BLOCK_SCORES = 8_000_000
"""Scores held at once, 32 MB as float32."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Distinct texts of a data set and the first record that has each."""

    texts: tuple[str, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A test item and the training item that is nearest to it."""

    test: int
    train: int
    surface: float
    """Lexical likeness of texts, structural likeness of pictures, in [0, 1]."""
    meaning: float
    """Semantic likeness: cosine; not a number without an encoder."""


def texts_of(record: Record) -> list[str]:
    """Return everything that a record says, without its hard negatives."""
    said = [record.brief_caption, record.detailed_caption, *record.captions]
    for region in record.regions:
        said += [region.phrase, region.description]
    return [text for text in said if text and text.strip()]


def distinct(records: Iterable[tuple[int, Record]]) -> Texts:
    """Gather the distinct texts of records."""
    first: dict[str, int] = {}
    for index, record in records:
        for text in texts_of(record):
            first.setdefault(" ".join(text.split()), index)
    return Texts(tuple(first), tuple(first.values()))


def tokens(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())


def jaccard(one: str, other: str) -> float:
    """Return common over all distinct words, in [0, 1]; 1 for two texts without words."""
    a, b = set(tokens(one)), set(tokens(other))
    return len(a & b) / len(a | b) if a | b else 1.0


def rouge_l(one: str, other: str) -> float:
    """Return the F1 of the longest common subsequence of words, in [0, 1] (Lin 2004)."""
    a, b = tokens(one), tokens(other)
    if not a or not b:
        return float(a == b)
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, candidate in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == candidate else max(row[j], row[j - 1])
            diagonal = above
    return 2 * row[-1] / (len(a) + len(b))


def nearest(
    queries: NDArray[np.float32], base: NDArray[np.float32], *, cancel: CancelToken | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return, for each of (Q, D) vectors, the number of the (N, D) vector with the largest product, and the product.

    The smallest number wins among equals.
    """
    height = min(len(queries), 1024) or 1
    width = max(BLOCK_SCORES // height, 1)
    index, best = np.zeros(len(queries), np.int64), np.full(len(queries), -np.inf, np.float32)
    for top in range(0, len(queries), height):
        rows = slice(top, top + height)
        for left in range(0, len(base), width):
            if cancel is not None:
                cancel.check()
            scores = queries[rows] @ base[left : left + width].T
            found = scores.argmax(axis=1)
            value = scores[np.arange(len(scores)), found]
            better = value > best[rows]
            index[rows] = np.where(better, found + left, index[rows])
            best[rows] = np.where(better, value, best[rows])
    return index, best


def text_pairs(
    train: Sequence[str], test: Sequence[str], embed: Embed | None, *, cancel: CancelToken | None = None
) -> list[Pair]:
    """Return for each test text the training text that is most like it.

    Two candidates are looked at, the nearest by words and the nearest by meaning; the one with the larger sum of both
    scores is taken.

    Args:
        train: Distinct texts, at least one.
        test: Distinct texts.
        embed: Gives (N, D) unit vectors of texts; None leaves the meaning out.
        cancel: Looked at between blocks.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not train or not test:
        return []
    vectoriser = TfidfVectorizer(token_pattern=r"[a-z0-9]+", ngram_range=(1, 2), dtype=np.float32)
    try:
        base = vectoriser.fit_transform(train)
    except ValueError:  # not one word among the training texts
        return []
    base_by_word = base.T.tocsr()
    queries = vectoriser.transform(test)
    by_words = np.zeros(len(test), np.int64)
    height = max(BLOCK_SCORES // (2 * len(train)), 1)
    for top in range(0, len(test), height):
        if cancel is not None:
            cancel.check()
        by_words[top : top + height] = (queries[top : top + height] @ base_by_word).toarray().argmax(axis=1)

    def words(other: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(queries.multiply(base[other]).sum(axis=1)).ravel().astype(np.float64)

    if embed is None:
        scores = words(by_words)
        return [Pair(i, int(by_words[i]), float(scores[i]), float("nan")) for i in range(len(test))]
    there, here = embed(list(train)), embed(list(test))
    by_meaning, _ = nearest(here, there, cancel=cancel)
    options = [(other, words(other), np.einsum("nd,nd->n", here, there[other])) for other in (by_words, by_meaning)]
    return [
        max(
            (Pair(i, int(other[i]), float(surface[i]), float(meaning[i])) for other, surface, meaning in options),
            key=lambda pair: pair.surface + pair.meaning,
        )
        for i in range(len(test))
    ]
