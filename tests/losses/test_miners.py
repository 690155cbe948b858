import pytest
import pytorch_metric_learning.miners as theirs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices

from twinned import distances, miners
from twinned.errors import DataError, SettingError


def slow(name, d, y):
    """Select comparisons one at a time; rows are the first images, columns all."""
    rows, out = range(len(d)), []
    positives = {a: [j for j in range(len(y)) if y[j] == y[a] and j != a] for a in rows}
    negatives = {a: [j for j in range(len(y)) if y[j] != y[a]] for a in rows}
    if name == "all":
        return [(a, p) for a in rows for p in positives[a]], [(a, n) for a in rows for n in negatives[a]]
    if name == "multi-similarity":
        pull = [
            (a, p)
            for a in rows
            for p in positives[a]
            if negatives[a] and d[a][p] + 0.1 > min(d[a][n] for n in negatives[a])
        ]
        push = [
            (a, n)
            for a in rows
            for n in negatives[a]
            if positives[a] and d[a][n] - 0.1 < max(d[a][p] for p in positives[a])
        ]
        return pull, push
    for a in rows:
        if not positives[a] or not negatives[a]:
            continue
        if name == "batch-hard":
            out.append(
                (a, max(positives[a], key=lambda j: d[a][j]), min(negatives[a], key=lambda j: d[a][j]))
            )
        else:
            for p in positives[a]:
                farther = [n for n in negatives[a] if d[a][n] > d[a][p]]
                if farther:
                    out.append((a, p, min(farther, key=lambda j: d[a][j])))
                else:
                    out.append((a, p, max(negatives[a], key=lambda j: d[a][j])))
    return out


def as_tuples(indices):
    lists = [index.tolist() for index in indices]
    if len(lists) == 3:
        return list(zip(*lists))
    return list(zip(*lists[:2])), list(zip(*lists[2:]))


def make_batch(seed, n=16):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(0, 5, (n,), generator=generator)


def some_distances(n, seed):
    """Return a distance matrix without ties, so that only one selection is correct."""
    order = torch.randperm(n * n, generator=torch.Generator().manual_seed(seed)).double()
    upper = (1 + order.reshape(n, n)).triu(1) / 7
    return upper + upper.T


@pytest.mark.parametrize("name", miners.MINERS)
@pytest.mark.parametrize("rows", [16, 9, 1], ids=["batch", "with a memory", "one image with a memory"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_loop(name, rows, seed):
    embeddings, labels = make_batch(seed)
    distance = distances.euclidean(embeddings[:rows], embeddings, pairwise=True)
    assert as_tuples(miners.create_miner(name)(distance, labels)) == slow(
        name, distance.tolist(), labels.tolist()
    )


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(list(miners.MINERS)),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    seed=st.integers(0, 1000),
)
def test_equals_a_loop_on_small_batches(name, labels, seed):
    distance = some_distances(len(labels), seed)
    assert as_tuples(miners.create_miner(name)(distance, torch.tensor(labels))) == slow(
        name, distance.tolist(), labels
    )


def their_distance():
    return LpDistance(normalize_embeddings=False)


@pytest.mark.parametrize("seed", range(4))
def test_matches_pytorch_metric_learning(seed):
    embeddings, labels = make_batch(seed)
    distance = distances.euclidean(embeddings, embeddings, pairwise=True)
    assert as_tuples(miners.AllPairs()(distance, labels)) == as_tuples(get_all_pairs_indices(labels))
    hard = theirs.BatchHardMiner(distance=their_distance())(embeddings, labels)
    assert sorted(as_tuples(miners.BatchHard()(distance, labels))) == sorted(as_tuples(hard))


@pytest.mark.parametrize("seed", range(4))
def test_multi_similarity_matches_pytorch_metric_learning(seed):
    embeddings, labels = make_batch(seed)
    distance = distances.cosine(embeddings, embeddings, pairwise=True)
    ours = as_tuples(miners.MultiSimilarity()(distance, labels))
    theirs_ = as_tuples(theirs.MultiSimilarityMiner(epsilon=0.1)(embeddings, labels))
    assert [set(pairs) for pairs in ours] == [set(pairs) for pairs in theirs_]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("margin", [0.3, 1e9])
def test_semi_hard_matches_the_hardest_of_pytorch_metric_learning(seed, margin):
    embeddings, labels = make_batch(seed)
    distance = distances.euclidean(embeddings, embeddings, pairwise=True)
    their_miner = theirs.TripletMarginMiner(margin, type_of_triplets="semihard", distance=their_distance())
    hardest = {}
    for a, p, n in as_tuples(their_miner(embeddings, labels)):
        if (a, p) not in hardest or distance[a, n] < distance[a, hardest[a, p]]:
            hardest[a, p] = n
    ours = {(a, p): n for a, p, n in as_tuples(miners.SemiHard()(distance, labels))}
    beyond = {pair for pair, n in ours.items() if not 0 < distance[pair[0], n] - distance[pair] <= margin}
    assert {pair: n for pair, n in ours.items() if pair not in beyond} == hardest
    assert hardest  # at least one triplet is compared


def test_semi_hard_falls_back_to_the_farthest_negative():
    distance = torch.tensor([[0.0, 5.0, 1.0, 3.0, 2.0]])
    assert as_tuples(miners.SemiHard()(distance, torch.tensor([0, 0, 1, 2, 3]))) == [(0, 1, 3)]


def test_semi_hard_negative_is_strictly_farther():
    distance = torch.tensor([[0.0, 1.0, 1.0, 2.0]])
    assert as_tuples(miners.SemiHard()(distance, torch.tensor([0, 0, 1, 2]))) == [(0, 1, 3)]


@pytest.mark.parametrize("name", miners.MINERS)
def test_miner_returns_no_indices_without_pairs(name):
    for labels in ([4, 4, 4], [1, 2, 3]):
        indices = miners.create_miner(name)(some_distances(3, 0), torch.tensor(labels))
        assert all(index.dtype == torch.long for index in indices)
        if name != "all":
            assert all(len(index) == 0 for index in indices)


def test_wrong_shapes_and_unknown_names_are_refused():
    with pytest.raises(DataError, match=r"\(3, 3\) and labels \(2,\)"):
        miners.BatchHard()(torch.rand(3, 3), torch.tensor([0, 1]))
    for shape in ((4, 3), (3, 8)):  # embeddings of another size
        with pytest.raises(DataError, match=r"and \(m,\); for embeddings z, pass dist"):
            miners.BatchHard()(torch.rand(shape), torch.tensor([0, 1, 2]))
    with pytest.raises(SettingError, match=r"Unknown miner 'hardest'. Choose one of all, batch-hard"):
        miners.create_miner("hardest")


def not_distances():
    z = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    unit, right = distances.unit(z), distances.euclidean(z, z, pairwise=True)
    crooked, below = right.clone(), right.clone()
    crooked[0, 1] += 0.1
    below[0, 1] = below[1, 0] = -0.1
    return {
        "embeddings": (z, "a diagonal of up to"),
        "unit embeddings": (unit, "a diagonal of up to"),
        "embeddings in bfloat16": (unit.bfloat16(), "a diagonal of up to"),
        "similarities": (unit @ unit.T, r"a diagonal of up to 1 \(the distance of a row to itself is 0\)"),
        "negated distances": (-right, "the negative value"),
        "a diagonal that is not 0": (right + 0.1 * torch.eye(32), r"a diagonal of up to 0\.1 "),
        "not symmetric": (crooked, r"values that differ by 0\.1 between \(i, j\) and \(j, i\)"),
        "a negative value": (below, r"the negative value -0\.1"),
    }


@pytest.mark.parametrize("name", miners.MINERS)
@pytest.mark.parametrize("wrong", not_distances())
def test_invalid_distance_matrix_is_refused(name, wrong):
    matrix, message = not_distances()[wrong]
    miner = f"miners.{miners.MINERS[name].__name__}"
    with pytest.raises(ValueError, match=rf"{miner} needs a distance matrix, but the matrix has {message}"):
        miners.create_miner(name)(matrix, torch.arange(32) % 8)
    with pytest.raises(ValueError, match=r"pass distances\.euclidean\(z, z, pairwise=True\)"):
        miners.create_miner(name)(torch.cat([matrix, matrix], dim=1), torch.arange(64) % 8)


@pytest.mark.parametrize("length", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rounded_distances_are_accepted(length, dtype):
    """Accept the rounding errors of a matrix product, which the root magnifies."""
    random = torch.Generator().manual_seed(0)
    z = length * distances.unit(torch.randn(32, 64, generator=random, dtype=torch.float64))
    exact = distances.squared_euclidean(z, z, pairwise=True)
    noise = (2 * torch.rand(32, 32, generator=random, dtype=torch.float64) - 1) * torch.finfo(dtype).eps
    squared = (exact + length**2 * noise).to(dtype)
    for matrix in (squared, squared.clamp(min=0).sqrt(), squared / (2 * length**2)):
        assert (matrix.diagonal() != 0).any()
        assert len(miners.BatchHard()(matrix, torch.arange(32) % 8)[0]) == 32
        assert len(miners.BatchHard()(matrix[:16], torch.arange(32) % 8)[0]) == 16, (
            "additional columns are a memory"
        )


def test_non_finite_distances_are_accepted():
    distance = torch.full((4, 4), float("nan"))
    assert len(miners.BatchHard()(distance, torch.tensor([0, 0, 1, 1]))[0]) == 4
    whole = torch.tensor([[0, 2, 3], [2, 0, 4], [3, 4, 0]])  # for example, numbers of edits
    assert as_tuples(miners.BatchHard()(whole, torch.tensor([0, 0, 1]))) == [(0, 1, 2), (1, 0, 2)]


def test_functions_of_version_0_1_are_instances():
    distance, labels = some_distances(6, 0), torch.tensor([0, 0, 1, 1, 2, 2])
    for name in miners.MINERS:
        old = miners.all_pairs if name == "all" else getattr(miners, name.replace("-", "_"))
        assert as_tuples(old(distance, labels)) == as_tuples(miners.create_miner(name)(distance, labels))


def test_epsilon_is_an_option():
    distance, labels = some_distances(8, 1), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    few, many = (miners.MultiSimilarity(epsilon=epsilon)(distance, labels) for epsilon in (0.0, 5.0))
    assert len(few[1]) < len(many[1])
    assert repr(miners.MultiSimilarity(epsilon=0.2)) == "MultiSimilarity(epsilon=0.2)"
