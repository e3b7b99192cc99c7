"""The losses that the head is trained with: pure functions of tensors, one equation each."""

from __future__ import annotations

import torch
from torch.nn import functional


def shared_positive_nce(
    images: torch.Tensor, texts: torch.Tensor, groups: torch.Tensor, scale: torch.Tensor | float, *,
    more: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:  # fmt: skip
    r"""Symmetric InfoNCE in which equal captions are each other's positives.

    With S_ij = scale · ⟨x_i, t_j⟩ and P_i = {j : group_j = group_i}, i over the N images, j over them and M more,

        L = −1/(2N) Σ_i [ 1/|P_i| Σ_{j∈P_i} log softmax_j(S_i·)_j + 1/|P_i| Σ_{j∈P_i} log softmax_j(S_·i)_j ]

    Args:
        images: (N, D) L2-normalised.
        texts: (N, D) L2-normalised; text i belongs to image i.
        groups: (N,) integers, equal for equal captions.
        scale: 1 / temperature.
        more: Images (M, D), texts (M, D) and groups (M,) that are compared with but have no rows of their own.
    """
    others = more or (images[:0], texts[:0], groups[:0])
    columns_of_texts, columns_of_images = torch.cat([texts, others[1]]), torch.cat([images, others[0]])
    positive = (groups[:, None] == torch.cat([groups, others[2]])[None, :]).to(images.dtype)
    target = positive / positive.sum(dim=1, keepdim=True)
    rows = (target * functional.log_softmax(scale * images @ columns_of_texts.T, dim=1)).sum(dim=1)
    columns = (target * functional.log_softmax(scale * texts @ columns_of_images.T, dim=1)).sum(dim=1)
    return -(rows + columns).mean() / 2


def log_odds(
    patches: torch.Tensor, phrases: torch.Tensor, contrast: torch.Tensor, scale: torch.Tensor | float
) -> torch.Tensor:
    r"""Return the log-odds of the score that the product shows, as a function that can be differentiated.

        z_ij = scale ⟨x_i, t_j⟩ − log Σ_k exp(scale ⟨x_i, c_k⟩)

    Args:
        patches: (N, D) L2-normalised.
        phrases: (M, D) L2-normalised.
        contrast: (K, D) L2-normalised.
        scale: 1 / temperature.

    Returns:
        (N, M)
    """
    rival = torch.logsumexp(scale * patches @ contrast.T, dim=1, keepdim=True)
    return scale * patches @ phrases.T - rival


def balanced_bce(odds: torch.Tensor, labels: torch.Tensor, prior: float = 0.5) -> torch.Tensor:
    r"""Binary cross-entropy in which, per phrase, all positives together weigh as much as a prior says.

        L = 1/|J| Σ_{j∈J} [ π mean_{i: y_ij=1} softplus(−z_ij) + (1 − π) mean_{i: y_ij=0} softplus(z_ij) ]

    J are the phrases with at least one label; a phrase with labels of one kind counts with that part alone. A
    phrase that is rare on the map has a small prior π: z = 0, a score of 0.5, then asks for evidence of
    (1 − π) / π to one.

    Args:
        odds: (N, M) log-odds z.
        labels: (N, M) of 1, 0 and -1 (unknown: not used).
        prior: π, between 0 and 1.
    """
    yes, no = (labels == 1).to(odds.dtype), (labels == 0).to(odds.dtype)
    positive = (yes * functional.softplus(-odds)).sum(dim=0) / yes.sum(dim=0).clamp(min=1)
    negative = (no * functional.softplus(odds)).sum(dim=0) / no.sum(dim=0).clamp(min=1)
    used = (yes.sum(dim=0) + no.sum(dim=0)) > 0
    return (prior * positive + (1 - prior) * negative).sum() / used.sum().clamp(min=1)


def soft_bce(odds: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    r"""Binary cross-entropy against what an earlier model thought (Li & Hoiem 2016, learning without forgetting).

        L = mean_ij [ softplus(z_ij) − σ(z'_ij) z_ij ]

    Args:
        odds: (N, M) log-odds z.
        before: (N, M) log-odds z' of the earlier model.
    """
    return (functional.softplus(odds) - before.sigmoid() * odds).mean()


def top_mean(odds: torch.Tensor, share: float) -> torch.Tensor:
    r"""Pool the patches of an image: the mean of its largest log-odds.

        z_bj = mean of the ⌈share · n⌉ largest of z_b1j … z_bnj

    Args:
        odds: (B, n, M) per image, patch and phrase.
        share: 0 < share ≤ 1.

    Returns:
        (B, M)
    """
    count = max(1, -int(-share * odds.shape[1] // 1))
    return odds.topk(count, dim=1).values.mean(dim=1)
