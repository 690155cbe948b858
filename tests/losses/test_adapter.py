import contextlib
import itertools

import pytest
import pytorch_metric_learning.distances as their_distances
import pytorch_metric_learning.losses as theirs
import pytorch_metric_learning.miners as their_miners
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.reducers import DoNothingReducer

from twinned import distances, losses, miners
from twinned.errors import SettingError
from twinned.losses.adapter import embedding_loss


def dot(a, b, *, pairwise):
    return a @ b.T if pairwise else (a * b).sum(-1)


def lp(power=1, p=2):
    return their_distances.LpDistance(normalize_embeddings=False, p=p, power=power)


PAIR = [
    (losses.ContrastiveLoss(1.5), "euclidean"),
    (losses.ContrastiveLoss(0.7), "cosine"),
    (losses.ChopraLoss(4.0), "manhattan"),
    (losses.PairCrossEntropy(), dot),
]
TRIPLET = [
    (losses.TripletLoss(0.5), "squared_euclidean"),
    (losses.TripletLoss(0.2), "cosine"),
    (losses.SoftTripletLoss(), "euclidean"),
]


def measured(distance, embeddings):
    measure = distances.get(distance) if isinstance(distance, str) else distance
    n = len(embeddings)
    pairs = list(itertools.product(range(n), range(n)))
    left, right = (embeddings[[pair[side] for pair in pairs]] for side in (0, 1))
    return dict(zip(pairs, measure(left, right, pairwise=False)))


@pytest.mark.parametrize(("loss", "distance"), PAIR)
def test_pair_loss_averages_over_all_pairs(loss, distance, batch):
    embeddings, labels = batch
    d = measured(distance, embeddings)
    pairs = list(itertools.combinations(range(len(labels)), 2))
    same = torch.stack([labels[i] == labels[j] for i, j in pairs])
    costs = loss(torch.stack([d[pair] for pair in pairs]), same, reduction="none")
    adapted = embedding_loss(loss, distance=distance)
    assert adapted(embeddings, labels).item() == pytest.approx(costs.mean().item())
    assert adapted.active.item() == pytest.approx((costs > 0).double().mean().item())


@pytest.mark.parametrize(("loss", "distance"), TRIPLET)
def test_triplet_loss_averages_over_active_triplets(loss, distance, batch):
    embeddings, y = batch[0], batch[1].tolist()
    d = measured(distance, embeddings)
    triplets = [
        (a, p, n)
        for a, p, n in itertools.product(range(len(y)), repeat=3)
        if a != p and y[a] == y[p] and y[a] != y[n]
    ]
    costs = torch.stack([loss(d[a, p][None], d[a, n][None]) for a, p, n in triplets])
    adapted = embedding_loss(loss, distance=distance)
    assert adapted(*batch).item() == pytest.approx(costs[costs > 0].mean().item())
    assert adapted.active.item() == pytest.approx((costs > 0).double().mean().item())


@pytest.mark.parametrize(("loss", "distance"), [*PAIR, *TRIPLET])
def test_all_pairs_miner_equals_no_miner(loss, distance, batch):
    mined, plain = (
        embedding_loss(loss, distance=distance, miner=miners.AllPairs()),
        embedding_loss(loss, distance=distance),
    )
    assert mined(*batch).item() == pytest.approx(plain(*batch).item())
    assert mined.active.item() == pytest.approx(plain.active.item())


@pytest.mark.parametrize(("loss", "distance"), [*PAIR, *TRIPLET])
@pytest.mark.parametrize("miner", [miners.BatchHard(), miners.SemiHard(), miners.MultiSimilarity()])
def test_loss_uses_mined_pairs_on_the_same_distances(loss, distance, miner, batch):
    embeddings, labels = batch
    measure = distances.get(distance) if isinstance(distance, str) else distance
    matrix = measure(embeddings, embeddings, pairwise=True)
    lower_is_closer = -matrix if distance is dot else matrix
    with distances.trusted():  # logits, not distances
        chosen = miner(lower_is_closer.detach(), labels)
    if loss.kind == "pair":
        a, p, b, n = chosen if len(chosen) == 4 else (chosen[0], chosen[1], chosen[0], chosen[2])
        pairs = sorted({*zip(a.tolist(), p.tolist()), *zip(b.tolist(), n.tolist())})
        costs = torch.stack([loss(matrix[i, j][None], (labels[i] == labels[j])[None]) for i, j in pairs])
        expected = costs.mean()
    else:
        if len(chosen) == 4:
            a, p, b, n = (index.tolist() for index in chosen)
            triplets = [(i, j, k) for i, j in zip(a, p) for other, k in zip(b, n) if i == other]
        else:
            triplets = list(zip(*(index.tolist() for index in chosen)))
        costs = torch.stack([loss(matrix[i, j][None], matrix[i, k][None]) for i, j, k in triplets])
        expected = costs[costs > 0].mean()
    adapted = embedding_loss(loss, distance=distance, miner=miner)
    assert adapted(embeddings, labels).item() == pytest.approx(expected.item())
    # Explicit indices replace the miner.
    given_them = embedding_loss(loss, distance=distance)(embeddings, labels, chosen)
    assert given_them.item() == pytest.approx(expected.item())


def test_contrastive_matches_pytorch_metric_learning(batch):
    # pytorch-metric-learning does not square the hinge, so the hinges are compared.
    parts = theirs.ContrastiveLoss(0, 1.5, distance=lp(), reducer=DoNothingReducer())(*batch)
    hinges = torch.cat([parts["pos_loss"]["losses"], parts["neg_loss"]["losses"]])
    ours = embedding_loss(losses.ContrastiveLoss(1.5), distance="euclidean")(*batch)
    assert ours.item() == pytest.approx((hinges.square() / 2).mean().item(), abs=1e-9)


@pytest.mark.parametrize(
    ("ours", "distance", "their"),
    [
        (losses.TripletLoss(0.5), "euclidean", theirs.TripletMarginLoss(margin=0.5, distance=lp())),
        (
            losses.TripletLoss(0.5),
            "squared_euclidean",
            theirs.TripletMarginLoss(margin=0.5, distance=lp(power=2)),
        ),
        (
            losses.SoftTripletLoss(),
            "euclidean",
            theirs.TripletMarginLoss(margin=0, smooth_loss=True, distance=lp()),
        ),
    ],
)
@pytest.mark.parametrize(
    ("miner", "their_miner"), [(None, None), (miners.BatchHard(), their_miners.BatchHardMiner(distance=lp()))]
)
def test_triplet_value_and_gradient_match_pytorch_metric_learning(
    ours, distance, their, miner, their_miner, batch
):
    embeddings, labels = batch
    value = embedding_loss(ours, distance=distance, miner=miner)(embeddings, labels)
    other = their(embeddings, labels, their_miner(embeddings, labels) if their_miner else None)
    assert value.item() == pytest.approx(other.item(), abs=1e-9)
    gradients = [torch.autograd.grad(loss, embeddings)[0] for loss in (value, other)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)


FOREIGN = [
    theirs.MultiSimilarityLoss(),
    theirs.TripletMarginLoss(margin=0.5),
    theirs.NTXentLoss(),
    theirs.LiftedStructureLoss(),
]


@pytest.mark.parametrize("loss", FOREIGN)
@pytest.mark.parametrize("miner", [None, miners.SemiHard(), their_miners.MultiSimilarityMiner()])
def test_foreign_loss_works_with_any_miner(loss, miner, batch):
    embeddings, labels = batch
    adapted = embedding_loss(loss, distance="cosine", miner=miner)
    if miner is None:
        indices = None
    elif isinstance(miner, miners.SemiHard):
        indices = miner(distances.cosine(embeddings, embeddings, pairwise=True), labels)
    else:
        indices = miner(embeddings, labels)
    assert adapted(embeddings, labels).item() == loss(embeddings, labels, indices).item()
    assert adapted.active is None


@pytest.mark.parametrize("miner", [None, miners.SemiHard(), their_miners.MultiSimilarityMiner()])
def test_foreign_loss_excludes_self_pairs_in_a_reference(miner, batch):
    embeddings, labels = batch
    reference = embeddings[12:].detach(), labels[12:]
    ours, their = (
        embedding_loss(loss, distance="cosine", miner=miner)(
            embeddings[:12], labels[:12], reference=reference
        )
        for loss in (losses.MultiSimilarityLoss(), theirs.MultiSimilarityLoss())
    )
    assert ours.item() == pytest.approx(their.item())


def test_foreign_miner_works_with_our_losses(batch):
    embeddings, labels = batch
    their = their_miners.BatchHardMiner(distance=lp())
    ours, other = (
        embedding_loss(losses.TripletLoss(), distance="euclidean", miner=miner)(embeddings, labels)
        for miner in (miners.BatchHard(), their)
    )
    assert ours.item() == other.item()


def test_foreign_miner_excludes_self_pairs():
    embeddings, labels = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
    miner, reference = their_miners.BatchHardMiner(distance=lp()), (torch.tensor([[3.0]]), torch.tensor([0]))
    adapted = embedding_loss(losses.TripletLoss(5.0), distance="euclidean", miner=miner)
    # Image 0 has a positive in the memory; image 1 has only itself and is left out.
    assert adapted(embeddings, labels, reference=reference).item() == 3 - 1 + 5


@pytest.mark.parametrize(("loss", "distance"), [*PAIR, *TRIPLET])
def test_gradient_matches_finite_differences(loss, distance, batch):
    embeddings, labels = batch
    adapted = embedding_loss(loss, distance=distance)
    few = embeddings[:8].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: adapted(e, labels[:8]), few)


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(
        st.lists(st.sampled_from([-1e3, 0.0, 1e-4, 1.0]), min_size=2, max_size=2), min_size=1, max_size=7
    ),
    seed=st.integers(0, 99),
    which=st.sampled_from([*PAIR, *TRIPLET]),
    miner=st.sampled_from([None, *map(miners.create_miner, miners.MINERS)]),
)
def test_gradients_are_finite_for_any_batch(values, seed, which, miner):
    embeddings = torch.tensor(values, requires_grad=True)  # often equal or zero
    labels = torch.randint(0, 3, (len(values),), generator=torch.Generator().manual_seed(seed))
    loss, distance = which
    adapted = embedding_loss(loss, distance=distance, miner=miner)
    value = adapted(embeddings, labels)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(embeddings.grad).all()
    assert 0 <= adapted.active.item() <= 1


@pytest.mark.parametrize(("loss", "distance"), TRIPLET)
@pytest.mark.parametrize("miner", [None, *map(miners.create_miner, miners.MINERS)])
@pytest.mark.parametrize("labels", [[3, 3, 3], [0, 1, 2]], ids=["one class", "no positive"])
def test_batch_without_triplets_has_zero_loss(loss, distance, miner, labels):
    embeddings = torch.eye(3, requires_grad=True)
    adapted = embedding_loss(loss, distance=distance, miner=miner)
    value = adapted(embeddings, torch.tensor(labels))
    value.backward()
    assert value.item() == 0
    assert (embeddings.grad == 0).all()
    assert adapted.active.item() == 0


@pytest.mark.parametrize(
    ("loss", "distance"), [*PAIR, *TRIPLET, (losses.SupConLoss(), None), (losses.MultiSimilarityLoss(), None)]
)
@pytest.mark.parametrize("miner", [None, *map(miners.create_miner, miners.MINERS)])
def test_nan_propagates_to_the_loss(loss, distance, miner):
    embeddings = torch.full((6, 3), float("nan"))
    value = embedding_loss(loss, distance=distance, miner=miner)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.isnan(value)


def test_half_precision_is_computed_in_float32(batch):
    embeddings, labels = batch[0].bfloat16(), batch[1]
    adapted = embedding_loss(losses.ContrastiveLoss(), distance="cosine")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = adapted(embeddings, labels)
    assert value.item() == pytest.approx(adapted(embeddings.float(), labels).item(), abs=1e-7)


@pytest.mark.parametrize(
    "loss",
    [
        *(embedding_loss(loss, distance=distance) for loss, distance in PAIR),
        losses.SupConLoss(),
        losses.InfoNCELoss(),
        losses.MultiSimilarityLoss(),
        losses.CircleLoss(),
        losses.ArcFaceLoss(4, 3).to("meta"),
        losses.ProxyAnchorLoss(4, 3).to("meta"),
        losses.CrossBatchMemory(losses.SupConLoss(), 3).to("meta"),
    ],
    ids=lambda loss: type(getattr(loss, "loss", loss)).__name__,
)
def test_loss_does_not_synchronize_with_the_device(loss, monkeypatch):
    # A meta tensor has no values, so every operation that would make a GPU wait fails.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    for _ in range(2):
        embeddings = torch.empty(8, 3, device="meta", requires_grad=True)
        loss(embeddings, torch.empty(8, dtype=torch.long, device="meta")).backward()
        assert embeddings.grad.shape == (8, 3)


@pytest.mark.parametrize(
    ("loss", "settings", "says"),
    [
        (
            losses.ChopraLoss(),
            {"distance": "euclidean"},
            "requires the distance 'manhattan'; got 'euclidean'",
        ),
        (losses.SupConLoss(), {"distance": "euclidean"}, "requires the distance 'cosine'"),
        (losses.ContrastiveLoss(), {}, "needs a distance; choose one of euclidean"),
        (losses.ContrastiveLoss(), {"distance": "hamming"}, "'hamming' is not known"),
        (losses.PairCrossEntropy(), {"distance": "euclidean"}, "learned head's logits"),
        (losses.PairCrossEntropy(), {}, "learned head's logits"),
        (losses.ArcFaceLoss(3, 3), {"miner": miners.BatchHard()}, "Leave the miner out"),
        (theirs.TripletMarginLoss(), {"miner": miners.BatchHard()}, "needs a distance"),
    ],
)
def test_incompatible_distance_or_miner_is_refused(loss, settings, says):
    with pytest.raises(SettingError, match=says):
        embedding_loss(loss, **settings)


def test_required_distance_is_the_default():
    assert embedding_loss(losses.ChopraLoss()).distance == "manhattan"
    assert embedding_loss(losses.SupConLoss(), miner=miners.MultiSimilarity()).distance == "cosine"
    assert embedding_loss(theirs.TripletMarginLoss()).distance is None


BUILT = {
    "contrastive": {"margin": 0.5},
    "chopra": {"bound": 3.0},
    "cross-entropy": {},
    "triplet": {"margin": 0.5},
    "triplet-soft": {},
    "supcon": {"temperature": 0.5},
    "infonce": {"temperature": 0.5},
    "multi-similarity": {},
    "circle": {"margin": 0.25, "scale": 256.0},
    "arcface": {"margin": 0.25, "scale": 32.0},
    "proxy-anchor": {"margin": 0.25},
}


def test_every_loss_is_created_by_name():
    assert BUILT.keys() == losses.LOSSES.keys()
    for name, chosen in BUILT.items():
        loss = losses.create_loss(name, **chosen, num_classes=7, embedding_size=5)
        assert {setting: getattr(loss, setting) for setting in chosen} == chosen
        assert loss.kind in ("pair", "triplet", "embedding")
        assert loss.distance is None or loss.distance in distances.DISTANCES
        assert loss.input_kind == ("logit" if name == "cross-entropy" else "distance")
        assert loss.kind != "embedding" or loss.proxies == bool(list(loss.parameters()))


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("contrastiv", {}, "Unknown loss 'contrastiv'. Choose one of contrastive, chopra"),
        ("supcon", {"margin": 0.5}, "no setting 'margin'; it has temperature"),
        ("triplet-soft", {"margin": 0.5}, "no setting 'margin'; it has none"),
        ("circle", {"temperature": 1.0}, "no setting 'temperature'; it has margin, scale"),
        ("arcface", {"num_classes": 4}, "needs num_classes and embedding_size"),
        ("contrastive", {"margin": -1.0}, "margin is -1.0"),
    ],
)
def test_create_loss_refuses_unknown_options(name, settings, says):
    with pytest.raises(SettingError, match=says):
        losses.create_loss(name, **settings)


def test_foreign_losses_with_class_weights():
    embeddings, labels = torch.randn(16, 8), torch.arange(16) // 4
    loss = theirs.ProxyAnchorLoss(num_classes=4, embedding_size=8)
    ours = embedding_loss(loss)
    assert ours.proxies is False
    torch.testing.assert_close(ours(embeddings, labels), loss(embeddings, labels))
