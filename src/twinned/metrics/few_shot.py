"""Few-shot classification: accuracy over N-way K-shot episodes.

Each query belongs to one of the N classes. Ties are broken by the draw: where all distances are equal, the
accuracy is 1 in N on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..distances import all_pairs
from ..errors import DataError, SettingError
from .bootstrap import Interval, mean_interval
from .comparisons import DistanceLike, Ints, Labels, class_numbers, labeled_vectors

DRAWS = 1000


class Episodes(NamedTuple):
    """Episodes as image indices; each has one query, so that no two answers share a support set."""

    support: Ints  # (episodes, ways, shots)
    query: Ints  # (episodes,); never in its own support set
    answer: Ints  # (episodes,): the correct way


@dataclass(frozen=True)
class OneShot:
    """Accuracy over episodes, from 0 to 1, higher is better, with its 95 % interval (None for one class)."""

    ways: int
    shots: int
    episodes: int
    accuracy: float
    ci: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {**vars(self), "ci": self.ci and list(self.ci)}


def check_episodes(ways: int, shots: int, episodes: int) -> None:
    """Raise an error if a number is too small."""
    if ways < 2 or shots < 1 or episodes < 1:
        got = f"{ways} ways, {shots} shots, {episodes} episodes"
        raise SettingError(f"At least 2 ways, 1 shot and 1 episode are needed; got {got}")


def possible_ways(labels: Labels, *, shots: int = 1, groups: Labels | None = None) -> int:
    """Return the largest possible N: classes with ``shots + 1`` images (in the largest group)."""
    return _Pool(labels, shots, groups).ways


def episodes(
    labels: Labels,
    *,
    ways: int = 20,
    shots: int = 1,
    episodes: int = DRAWS,
    groups: Labels | None = None,
    seed: int = 0,
) -> Episodes:
    """Draw N-way K-shot episodes.

    Args:
        labels: Class of each image, shape ``(n,)``.
        ways: Classes per episode, N.
        shots: Support images per class, K. Only classes with at least K + 1 images take part.
        episodes: Number of episodes.
        groups: Group (alphabet) of each image, shape ``(n,)``. All classes of an episode then come from
            one group, which is harder. Groups with enough classes are drawn uniformly.
        seed: Seed of the draws.

    Raises:
        SettingError: If ``ways`` is below 2, or ``shots`` or ``episodes`` below 1.
        DataError: If there are too few classes.

    Example:
        >>> drawn = episodes(list("aaabbbccc"), ways=2, shots=1, episodes=5)
        >>> drawn.support.shape, drawn.query.shape, drawn.answer.shape
        ((5, 2, 1), (5,), (5,))
    """
    check_episodes(ways, shots, episodes)
    pool = _Pool(labels, shots, groups)
    fitting = [classes for classes in pool.groups if len(classes) >= ways]
    if not fitting:
        where = "" if groups is None else " in one group"
        remedy = f". Choose at most {pool.ways} ways" if pool.ways > 1 else ""
        raise DataError(
            f"{ways}-way {shots}-shot needs {ways} classes with {shots + 1} images each{where}; there are"
            f" {pool.ways}{remedy}"
        )
    random = np.random.default_rng(seed)
    sizes = np.array([len(classes) for classes in fitting])
    group = random.integers(len(fitting), size=episodes)
    within = _distinct(random, sizes[group], ways)  # (episodes, ways), positions in the group
    chosen = np.concatenate(fitting)[(np.cumsum(sizes) - sizes)[group, None] + within]
    # One image more than the support needs; that of the correct class is the query.
    images = pool.first[chosen][..., None] + _distinct(random, pool.count[chosen], shots + 1)
    answer = random.integers(ways, size=episodes)
    drawn = pool.order[images]
    return Episodes(drawn[..., :shots], drawn[np.arange(episodes), answer, shots], answer)


def few_shot(
    embeddings: npt.ArrayLike,
    labels: Labels,
    ways: int = 20,
    shots: int = 1,
    episodes: int = DRAWS,
    seed: int = 0,
    *,
    distance: DistanceLike = "cosine",
    groups: Labels | None = None,
    rule: Literal["nearest", "prototype"] = "nearest",
) -> OneShot:
    """Measure N-way K-shot accuracy over random episodes, from 0 to 1; higher is better, chance is 1 in N.

    The interval resamples the queries' classes with all their episodes. An interval over episodes would
    narrow with every further episode of the same classes, which gives no evidence about other classes.

    Args:
        embeddings: Shape ``(n, d)``; an array or a torch tensor.
        labels: Shape ``(n,)``.
        ways: Classes per episode, N; see `possible_ways`.
        shots: Support images per class, K.
        episodes: Number of episodes.
        seed: Seed of the draws and of the interval.
        distance: Name of a distance, or a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``.
        groups: Group of each image, shape ``(n,)``; the classes of an episode come from one group.
        rule: Distance to a class with several shots: to its nearest image, or to its prototype, the mean
            embedding. Thresholds and probabilities are fitted to distances between images.

    Raises:
        DataError: If there are too few classes with ``shots + 1`` images, the lengths differ, or a value is
            not finite.
        SettingError: If a number is out of range, or ``rule`` or the name is not known.

    References:
        Lake, Salakhutdinov & Tenenbaum, Science 2015: one-shot.
        Snell, Swersky & Zemel, NIPS 2017: prototypes.

    Example:
        >>> few_shot([[0.0], [0.1], [5.0], [5.1]], "aabb", ways=2, distance="euclidean").accuracy
        1.0
    """
    if rule not in ("nearest", "prototype"):
        raise SettingError(f"Unknown rule {rule!r}. Choose nearest or prototype")
    (vectors, label), measure = labeled_vectors(embeddings, labels), all_pairs(distance)
    drawn = _episodes(label, ways=ways, shots=shots, episodes=episodes, groups=groups, seed=seed)
    correct = np.empty(episodes, dtype=bool)
    for k, (support, query, answer) in enumerate(zip(*drawn)):
        examples = vectors[support]  # (ways, shots, d)
        if rule == "prototype":
            examples = examples.mean(axis=1, keepdims=True)
        flat = examples.reshape(-1, vectors.shape[1])
        nearest = measure(vectors[query : query + 1], flat).reshape(ways, -1).min(axis=1)
        correct[k] = np.argmin(nearest) == answer
    interval = mean_interval(correct, label[drawn.query], seed=seed)
    return OneShot(ways, shots, episodes, float(correct.mean()), interval)


_episodes = episodes  # the parameter of the same name hides it above


def one_shot_accuracy(
    embeddings: npt.ArrayLike, labels: Labels, distances: DistanceLike, **options: Any
) -> OneShot:
    """Return `few_shot`; deprecated."""
    return few_shot(embeddings, labels, distance=distances, **options)


class _Pool:
    """Images sorted by class, and the classes with enough images, group by group."""

    def __init__(self, labels: Labels, shots: int, groups: Labels | None) -> None:
        label = class_numbers(labels)
        group = np.zeros_like(label) if groups is None else class_numbers(groups)
        if len(group) != len(label):
            raise DataError(f"Each image needs one group; got {len(label)} labels and {len(group)} groups")
        # A label in two groups is two classes.
        pair, number = np.unique(np.stack([group, label]), axis=1, return_inverse=True)
        self.order = np.argsort(number, kind="stable")  # image rows, class by class
        self.count = np.bincount(number, minlength=pair.shape[1])
        self.first = np.cumsum(self.count) - self.count
        enough = np.flatnonzero(self.count > shots)
        self.groups = [enough[pair[0, enough] == name] for name in np.unique(pair[0, enough])]
        self.ways = max(map(len, self.groups), default=0)


def _distinct(random: np.random.Generator, below: Ints, count: int) -> Ints:
    """Draw ``count`` distinct numbers in ``range(b)`` for every b of ``below``: ``(*below.shape, count)``."""
    drawn = np.empty((*below.shape, count), dtype=np.int64)
    for k in range(count):
        pick = random.integers(below - k)  # a place among the remaining numbers
        for taken in np.moveaxis(np.sort(drawn[..., :k], axis=-1), -1, 0):
            pick += pick >= taken
        drawn[..., k] = pick
    return drawn
