"""Closed-form projection: regularized LDA fits the embedding layer without gradient steps."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingError, TrainingError

# With random_rotation, fraction of the outputs that keep the directions of largest variance.
_LEADING = 1 / 16


def fit_lda_projection(
    features: Tensor, labels: Tensor, size: int, *, shrinkage: float = 1.0, random_rotation: bool = False
) -> tuple[Tensor, Tensor]:
    """Fit a linear projection that whitens the within-class covariance (regularized LDA).

    Returns the weight ``(size, d)``, for features ``(n, d)``, and the bias ``(size,)``. Outputs are the
    directions of largest variance between images, with mean 0 and root mean square length 1. ``shrinkage``
    is the multiple of the average variance that is added to every variance within classes.

    With ``random_rotation``, all outputs but a sixteenth are a random rotation of all directions, cut to
    ``size``, which preserves distances on average. Few images do not show the directions in which other
    classes vary.

    References:
        Hatch, Kajarekar & Stolcke, Within-class covariance normalization for SVM-based speaker recognition,
        Interspeech 2006. The shrinkage target is that of Ledoit & Wolf 2004, with a fixed weight. Random
        projections preserve distances: Johnson & Lindenstrauss 1984.
    """
    x = features.double()
    mean, n_features = x.mean(dim=0), x.shape[1]
    if size > n_features:
        found = f"The embedding size {size} is larger than the {n_features} features of the encoder"
        raise SettingError(f"{found}. Choose a smaller embedding size, or layer=learned.")
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(n_features, size, dtype=x.dtype, generator=generator)
    # With fewer images than features, nothing varies outside of their span: work inside it, which is faster.
    span = None
    if max(size, len(x)) < n_features:
        # With more outputs than images, fill up with random directions.
        others = random[:, : 0 if random_rotation else max(0, size - len(x))]
        span = torch.linalg.qr(torch.cat([(x - mean).T, others], dim=1))[0]
        x = (x - mean) @ span
    _, class_index, count = torch.unique(labels, return_inverse=True, return_counts=True)
    center = torch.zeros(len(count), x.shape[1], dtype=x.dtype).index_add_(0, class_index, x) / count[:, None]
    deviation = x - center[class_index]
    within = deviation.T @ deviation / len(x)
    average = within.diagonal().sum() / n_features
    if not average > 0:
        raise TrainingError("No class has two different images, which layer=solved needs. Add images.")
    within.diagonal().add_(shrinkage * average)
    whiten = torch.linalg.solve_triangular(
        torch.linalg.cholesky(within), torch.eye(x.shape[1], dtype=x.dtype), upper=False
    )
    spread = (x - x.mean(dim=0)) @ whiten.T
    # NumPy's eigh: PyTorch's fails on some processors if many directions have no variance.
    directions = torch.from_numpy(np.linalg.eigh((spread.T @ spread).numpy()).eigenvectors.copy())
    whiten = directions.flip(1).T @ whiten
    weight = whiten if span is None else whiten @ span.T
    if random_rotation:
        lead = round(_LEADING * size)
        rotation = torch.linalg.qr(random[:, lead:])[0].T
        inside = rotation if span is None else rotation @ span
        rest = inside[:, lead:] @ weight[lead:]
        if span is not None:  # outside of the span, the variance within classes is the shrinkage alone
            rest += (rotation - inside @ span.T) / math.sqrt(shrinkage * average)
        weight = torch.cat([weight[:lead], rest * math.sqrt(n_features / (size - lead))])
    weight = weight[:size]
    weight = weight / ((features.double() - mean) @ weight.T).square().sum(dim=1).mean().sqrt()
    return weight.float(), -(weight @ mean).float()
