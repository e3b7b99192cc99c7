r"""The score: how much more a place looks like the question than like nothing in particular.

With s the model's logit scale, q the cosine of a patch with the question and c_k its cosines with the K contrast
prompts ("an aerial image", "ground", …),

    score = exp(s q) / (exp(s q) + Σ_k exp(s c_k))

so that 0.5 means: the question explains the patch exactly as well as all the generic prompts together. The log-odds

    logit(score) = s q − log Σ_k exp(s c_k)

are what is interpolated between patches, after the cosines were averaged over levels; the sigmoid comes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logsumexp

if TYPE_CHECKING:
    from numpy.typing import NDArray


def log_odds(cosines: NDArray[np.float32], competes: NDArray[np.bool_], logit_scale: float) -> NDArray[np.float32]:
    """Turn cosines into the log-odds of the score.

    Args:
        cosines: (Q + K, rows, cols), queries first; NaN where there is no image.
        competes: (Q, K), which contrast prompts compete with which query.
        logit_scale: Factor s on the cosines.

    Returns:
        (Q, rows, cols) log-odds. A query that nothing competes with is compared with a cosine of zero.
    """
    count = competes.shape[0]
    result = np.empty((count, *cosines.shape[1:]), dtype=np.float32)
    for index in range(count):
        rivals = cosines[count:][competes[index]]
        rival = logsumexp(rivals * logit_scale, axis=0) if len(rivals) else 0.0
        result[index] = cosines[index] * logit_scale - rival
    return result


def score(odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the score 0..1 of log-odds; NaN stays NaN, always with the same bits, since files are compared by them."""
    scores = expit(odds).astype(np.float32)
    scores[np.isnan(scores)] = np.nan
    return scores
