"""What the slide deck's own code does when it is run as written.

    python benchmarks/deck.py

The deck is written for Keras, which is not installed here; each snippet is rewritten line by line in PyTorch
and NumPy, on scikit-learn's digits. What TensorFlow alone does is said, and shown if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import twinned as tw

DIGITS = tw.data.digits()
PIXELS = np.stack(DIGITS.images).reshape(len(DIGITS), -1) / 255.0


def one_tensor_for_two_inputs() -> str:
    """Slides 7 and 13: fit and predict are handed ONE array; the model takes two."""
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
    """Slide 5: labels of shape (n,) against distances of shape (n, 1)."""
    torch.manual_seed(0)
    same, distance = (torch.rand(32) < 0.5).float(), torch.rand(32, 1)

    def cost(labels: torch.Tensor) -> torch.Tensor:
        return labels * distance**2 + (1 - labels) * (1 - distance).clamp(min=0) ** 2

    shuffled = cost(same[torch.randperm(32)])
    return (
        f"costs of shape {tuple(cost(same).shape)}; the loss is {cost(same).mean():.6f}, and with the labels"
        f" shuffled {shuffled.mean():.6f}: it no longer depends on which pair is the same"
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
    """Slide 7 trains the output as a distance; slide 8 says 'same' where it is ABOVE 0.5."""
    left, right, same = tw.data.make_pairs(DIGITS.labels, pairs=4000, seed=0)
    distance = tw.distances.euclidean(PIXELS[left], PIXELS[right])
    distance = distance / distance.max()  # into [0, 1], as the slide's
    middle = np.median(distance)
    as_read, as_trained = np.mean((distance > 0.5) == same), np.mean((distance <= middle) == same)
    return f"{as_read:.1%} of balanced pairs right; as a distance, at a threshold from data, {as_trained:.1%}"


def a_threshold_by_decree() -> str:
    """Slide 8: 0.5, whatever the distance is. Distances of plain pixels, cosine."""
    left, right, same = tw.data.make_pairs(DIGITS.labels, pairs=4000, seed=0)
    distance = tw.distances.cosine(PIXELS[left], PIXELS[right])
    accepted = np.mean(distance[~same] <= 0.5)
    return (
        f"accepts {accepted:.1%} of the different pairs as the same: most distances of digits lie below 0.5"
    )


def pairs_at_random() -> str:
    """Slide 6: pairs drawn without regard to the classes."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(len(DIGITS), size=(2, 20_000))
    share = np.mean(DIGITS.labels[a] == DIGITS.labels[b])
    return (
        f"{share:.1%} are the same with 10 classes (0.7 % with Omniglot small1's 136): 'different' is right"
        f" {1 - share:.1%} of the time, learnt at once, worth nothing"
    )


def every_pair_in_memory() -> str:
    """Slide 6: create_pairs copies both images into every pair: 80,240 pairs for small1's 2,720 images."""
    copies = 80_240 * 2 * 105 * 105 * 4
    left, right, same = tw.data.make_pairs(np.repeat(np.arange(136), 20), pairs=80_240, seed=0)
    ours = 2720 * 105 * 105 + left.nbytes + right.nbytes + same.nbytes
    return (
        f"{copies / 1e9:.1f} GB as float32; here {ours / 1e6:.0f} MB: each image once, as bytes, and indices"
    )


def a_layer_without_a_name() -> str:
    """Slide 12: get_layer("embedding"), a name that no layer was given."""
    network = tw.SiameseNetwork(tw.encoders.deck())
    try:
        network.get_submodule("embedding")
    except AttributeError as error:
        return f"raises {type(error).__name__}: {error}; here: network.embed(images), model.embed(images)"
    return "does not raise"


CASES: tuple[Callable[[], str], ...] = (
    one_tensor_for_two_inputs,
    whole_numbers_times_fractions,
    n_times_n_costs,
    a_gradient_that_is_no_number,
    the_answer_inverted,
    a_threshold_by_decree,
    pairs_at_random,
    every_pair_in_memory,
    a_layer_without_a_name,
)


def main() -> None:
    for case in CASES:
        print(f"{case.__doc__}\n    {case()}\n")


if __name__ == "__main__":
    main()
