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
    """What each miner chooses, one comparison at a time; rows are the first images, columns all."""
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


@pytest.mark.parametrize("name", miners.MINERS)
@pytest.mark.parametrize("rows", [16, 9, 1], ids=["batch", "with a memory", "one image with a memory"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_loop(name, rows, seed):
    embeddings, labels = make_batch(seed)
    distance = distances.euclidean(embeddings[:rows], embeddings, all_pairs=True)
    assert as_tuples(miners.get(name)(distance, labels)) == slow(name, distance.tolist(), labels.tolist())


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(list(miners.MINERS)),
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    seed=st.integers(0, 1000),
)
def test_equals_a_loop_on_small_and_lopsided_batches(name, labels, seed):
    n = len(labels)
    order = torch.randperm(n * n, generator=torch.Generator().manual_seed(seed)).double()
    distance = order.reshape(n, n) / 7  # no two alike: with ties either choice would be right
    assert as_tuples(miners.get(name)(distance, torch.tensor(labels))) == slow(
        name, distance.tolist(), labels
    )


def their_distance():
    return LpDistance(normalize_embeddings=False)


@pytest.mark.parametrize("seed", range(4))
def test_equals_pytorch_metric_learning(seed):
    embeddings, labels = make_batch(seed)
    distance = distances.euclidean(embeddings, embeddings, all_pairs=True)
    assert as_tuples(miners.all_pairs(distance, labels)) == as_tuples(get_all_pairs_indices(labels))
    hard = theirs.BatchHardMiner(distance=their_distance())(embeddings, labels)
    assert sorted(as_tuples(miners.batch_hard(distance, labels))) == sorted(as_tuples(hard))


@pytest.mark.parametrize("seed", range(4))
def test_multi_similarity_equals_pytorch_metric_learning(seed):
    embeddings, labels = make_batch(seed)
    distance = distances.cosine(embeddings, embeddings, all_pairs=True)
    ours = as_tuples(miners.multi_similarity(distance, labels))
    theirs_ = as_tuples(theirs.MultiSimilarityMiner(epsilon=0.1)(embeddings, labels))
    assert [set(pairs) for pairs in ours] == [set(pairs) for pairs in theirs_]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("margin", [0.3, 1e9])
def test_semi_hard_is_the_hardest_of_pytorch_metric_learnings(seed, margin):
    embeddings, labels = make_batch(seed)
    distance = distances.euclidean(embeddings, embeddings, all_pairs=True)
    their_miner = theirs.TripletMarginMiner(margin, type_of_triplets="semihard", distance=their_distance())
    hardest = {}
    for a, p, n in as_tuples(their_miner(embeddings, labels)):
        if (a, p) not in hardest or distance[a, n] < distance[a, hardest[a, p]]:
            hardest[a, p] = n
    ours = {(a, p): n for a, p, n in as_tuples(miners.semi_hard(distance, labels))}
    beyond = {pair for pair, n in ours.items() if not 0 < distance[pair[0], n] - distance[pair] <= margin}
    assert {pair: n for pair, n in ours.items() if pair not in beyond} == hardest
    assert hardest  # the test would mean nothing without


def test_semi_hard_takes_the_farthest_where_every_negative_is_nearer():
    distance = torch.tensor([[0.0, 5.0, 1.0, 3.0, 2.0]])
    assert as_tuples(miners.semi_hard(distance, torch.tensor([0, 0, 1, 2, 3]))) == [(0, 1, 3)]


def test_semi_hard_is_farther_not_as_far():
    distance = torch.tensor([[0.0, 1.0, 1.0, 2.0]])
    assert as_tuples(miners.semi_hard(distance, torch.tensor([0, 0, 1, 2]))) == [(0, 1, 3)]


@pytest.mark.parametrize("name", miners.MINERS)
def test_chooses_nothing_where_there_is_nothing(name):
    for labels in ([4, 4, 4], [1, 2, 3]):
        indices = miners.get(name)(torch.rand(3, 3), torch.tensor(labels))
        assert all(index.dtype == torch.long for index in indices)
        if name != "all":
            assert all(len(index) == 0 for index in indices)


def test_refuses_what_is_no_distance_matrix_and_unknown_names():
    with pytest.raises(DataError, match=r"\(3, 3\) and labels \(2,\)"):
        miners.batch_hard(torch.rand(3, 3), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="first n columns are the rows"):
        miners.batch_hard(torch.rand(4, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(SettingError, match="'hardest' is not known; choose one of all, batch-hard"):
        miners.get("hardest")
