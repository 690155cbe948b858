"""The embedding layer solved instead of learnt, which a handful of classes suffices for."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingError, TrainingError

# Of the outputs that mix directions, so many are left to those in which the images are spread most.
_LEADING = 1 / 16


def fit_lda_projection(
    values: Tensor, labels: Tensor, *, size: int | None = None, shrink: float = 1.0, mixed: bool = False
) -> tuple[Tensor, Tensor]:
    """The linear layer in whose output images of one class are spread alike in all directions.

    What tells two images of one class apart is measured over all classes, and weighed down; what is left
    tells classes apart, also new ones. A layer learnt by gradient from a few classes tells these apart and no
    others.

    Args:
        values: What the layer sees, shape ``(n, d)``; several views of an image count as several images.
        labels: Their classes, shape ``(n,)``.
        size: Outputs of the layer: the directions in which the images are spread most; None for ``d``.
        shrink: Drawn towards a spread alike in all directions, by so many times the average spread. The fewer
            the images, the more it takes.
        mixed: For few images, which do not show in which directions those of other classes are spread: but
            for a sixteenth, the outputs are a random rotation of all directions, cut to ``size``. That keeps
            distances on average, whatever the images.

    Returns:
        The weight, shape ``(size, d)``, and the bias, shape ``(size,)``. The outputs have mean 0 and, as a
        root mean square, length 1.

    Raises:
        SettingError: If ``size`` is larger than ``d``.
        TrainingError: If no class has two images, or all of them are alike.

    Example:
        Two classes that differ in the second value, while the first varies within both.

        >>> values = torch.tensor([[-9.0, 1], [9, 1], [-9, -1], [9, -1]])
        >>> weight, bias = solve_layer(values, torch.tensor([0, 0, 1, 1]), shrink=0.001)
        >>> (weight[1, 1] > 10 * weight[0, 0]).item()
        True

    References:
        Hatch, Kajarekar & Stolcke, Within-class covariance normalization for SVM-based speaker recognition,
        Interspeech 2006. The shrinkage is Ledoit & Wolf's target (2004), its weight fixed. That a random
        projection keeps distances: Johnson & Lindenstrauss 1984.
    """
    x = values.double()
    mean, wide = x.mean(dim=0), x.shape[1]
    if size is not None and size > wide:
        raise SettingError(
            f"an embedding layer is solved for at most as many values as it sees, {wide}; got {size}:"
            " choose a smaller --embedding-size, or layer=learned"
        )
    random = torch.randn(wide, size or 0, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    # With fewer images than values nothing varies outside of what the images span: the same in less time.
    span = None
    if size is not None and max(size, len(x)) < wide:
        # Where the outputs are more than the images, the others may be any that these do not span.
        any_other = random[:, : 0 if mixed else max(0, size - len(x))]
        span = torch.linalg.qr(torch.cat([(x - mean).T, any_other], dim=1))[0]
        x = (x - mean) @ span
    _, place, count = torch.unique(labels, return_inverse=True, return_counts=True)
    centre = torch.zeros(len(count), x.shape[1], dtype=x.dtype).index_add_(0, place, x) / count[:, None]
    apart = x - centre[place]
    within = apart.T @ apart / len(x)
    average = within.diagonal().sum() / wide
    if not average > 0:
        raise TrainingError("an embedding layer is solved from two different images of one class or more")
    within.diagonal().add_(shrink * average)
    middle = x.mean(dim=0)
    whiten = torch.linalg.solve_triangular(
        torch.linalg.cholesky(within), torch.eye(x.shape[1], dtype=x.dtype), upper=False
    )
    if size is not None:
        spread = (x - middle) @ whiten.T
        # NumPy's, because on some processors torch's gives up where many directions are empty.
        directions = torch.from_numpy(np.linalg.eigh((spread.T @ spread).numpy()).eigenvectors.copy())
        whiten = directions.flip(1).T @ whiten
    weight = whiten if span is None else whiten @ span.T
    if size is not None and mixed:
        lead = round(_LEADING * size)
        rotation = torch.linalg.qr(random[:, lead:])[0].T
        here = rotation if span is None else rotation @ span
        rest = here[:, lead:] @ weight[lead:]
        if span is not None:  # elsewhere nothing varies within a class but for what shrinkage adds
            rest += (rotation - here @ span.T) / math.sqrt(shrink * average)
        weight = torch.cat([weight[:lead], rest * math.sqrt(wide / (size - lead))])
    weight = weight[:size]
    weight = weight / ((values.double() - mean) @ weight.T).square().sum(dim=1).mean().sqrt()
    return weight.float(), -(weight @ mean).float()
