"""Show what the slide deck's own code does when it is run as written.

    python benchmarks/deck.py

The deck is written for Keras, which is not installed here; the arithmetic of each snippet is repeated in
PyTorch and NumPy. What TensorFlow alone does is shown if it is installed. docs/deck.md has the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import twinned as tw

DIGITS = tw.data.digits()
PIXELS = np.stack(DIGITS.images).reshape(len(DIGITS), -1) / 255.0


def one_array_for_two_inputs() -> str:
    """Slides 7 and 13: a model of two inputs is called with ONE: slide 6's array of pairs, or one input."""
    network = tw.SiameseNetwork(tw.encoders.Conv4(image_size=(16, 16)))
    pairs = torch.rand(4, 2, 1, 16, 16)
    try:
        network(pairs)
    except TypeError as error:
        return f"raises {type(error).__name__}: {error}"
    return "does not raise"


def whole_numbers_times_fractions() -> str:
    """Slide 5: labels of type int32 times distances of type float32."""
    try:
        import tensorflow as tf
    except ImportError:
        product = (torch.ones(3, dtype=torch.int32) * torch.rand(3)).dtype
        return f"TensorFlow raises InvalidArgumentError (not shown: not installed); PyTorch gives {product}"
    try:
        tf.ones(3, tf.int32) * tf.ones(3, tf.float32)
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "does not raise"


def n_times_n_costs() -> str:
    """Slides 5 to 7: slide 6's labels, of shape (n,), against a model's outputs, of shape (n, 1)."""
    torch.manual_seed(0)
    same, distance = (torch.rand(32) < 0.5).float(), torch.rand(32, 1)

    def cost(labels: torch.Tensor) -> torch.Tensor:
        return labels * distance**2 + (1 - labels) * (1 - distance).clamp(min=0) ** 2

    shuffled = cost(same[torch.randperm(32)])
    return (
        f"costs of shape {tuple(cost(same).shape)}; the loss is {cost(same).mean():.6f}, and with the labels"
        f" shuffled {shuffled.mean():.6f}: it no longer depends on which pair is the same"
    )


def a_cost_that_is_hidden() -> str:
    """Slide 5: the example's triplets are single values, so that the sums run over the batch."""
    triplets = np.array([[0.1, 0.2, 0.7], [0.1, 0.4, 0.2]])  # anchor, positive, negative

    def cost(values: np.ndarray) -> float:
        anchor, positive, negative = values[:, 0], values[:, 1], values[:, 2]
        apart = ((anchor - positive) ** 2).sum(-1) - ((anchor - negative) ** 2).sum(-1)
        return float(np.maximum(apart + 0.2, 0).mean())

    alone = ", ".join(f"{cost(one[None]):.2f}" for one in triplets)
    whole = cost(triplets[..., None])
    return (
        f"costs {alone} one by one, {cost(triplets):.2f} together; with embeddings of one value {whole:.2f}"
    )


def a_gradient_that_is_no_number() -> str:
    """Slide 4: sqrt(sum(square(a - b))) where both embeddings are equal."""
    found = []
    for distance in (lambda a, b: torch.sqrt(((a - b) ** 2).sum(1)), tw.distances.euclidean):
        x = torch.ones(1, 3, requires_grad=True)
        distance(x, torch.ones(1, 3)).backward()
        found.append(x.grad[0].tolist())
    return f"gradient {found[0]}; here {found[1]}"


def the_answer_inverted() -> str:
    """Slides 7 and 8: the output is trained as a distance, and means 'same' where it is ABOVE 0.5."""
    left, right, same = tw.data.make_pairs(DIGITS.labels, pairs=4000, seed=0)
    distance = tw.distances.euclidean(PIXELS[left], PIXELS[right])
    distance = distance / distance.max()  # into [0, 1], as the slide's
    middle = np.median(distance)
    as_read, as_trained = np.mean((distance > 0.5) == same), np.mean((distance <= middle) == same)
    return f"{as_read:.1%} of balanced pairs right; as a distance, at a threshold from data, {as_trained:.1%}"


def a_third_of_the_pairs() -> str:
    """Slide 6: all same pairs; for each image, as many different pairs as its class has images."""
    classes, images = 136, 20  # Omniglot small1
    same, different = classes * images * (images - 1) // 2, classes * images**2
    share = same / (same + different)
    return f"of {same + different:,} pairs {share:.1%} are the same; here half of them, or as asked"


def every_pair_in_memory() -> str:
    """Slide 6: create_pairs copies both images into every pair: 80,240 pairs for small1's 2,720 images."""
    copies = 80_240 * 2 * 105 * 105 * 4
    left, right, same = tw.data.make_pairs(np.repeat(np.arange(136), 20), pairs=80_240, seed=0)
    ours = 2720 * 105 * 105 + left.nbytes + right.nbytes + same.nbytes
    return (
        f"{copies / 1e9:.1f} GB as float32; here {ours / 1e6:.0f} MB: each image once, as bytes, and indices"
    )


def a_layer_of_another_size() -> str:
    """Slide 13: a new input size for a network that ends in Flatten and Dense; that of slide 10."""
    before, after = (tw.encoders.deck(image_size=(n, n)).dense.in_features for n in (96, 64))
    return f"the dense layer has {before:,} inputs at 96x96, and would have {after:,} at 64x64"


CASES: tuple[Callable[[], str], ...] = (
    one_array_for_two_inputs,
    whole_numbers_times_fractions,
    n_times_n_costs,
    a_cost_that_is_hidden,
    a_gradient_that_is_no_number,
    the_answer_inverted,
    a_third_of_the_pairs,
    every_pair_in_memory,
    a_layer_of_another_size,
)


def main() -> None:
    for case in CASES:
        print(f"{case.__doc__}\n    {case()}\n")


if __name__ == "__main__":
    main()
