import math

import pytest
import pytorch_metric_learning.losses as theirs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices, get_all_triplets_indices
from torch.nn import functional as F

from twinned import losses
from twinned.errors import DataError, SettingError

SUPCON, INFONCE = losses.SupConLoss(temperature=0.2), losses.InfoNCELoss(temperature=0.2)
MULTI, CIRCLE = losses.MultiSimilarityLoss(), losses.CircleLoss(margin=0.3, scale=20.0)
LOSSES = [SUPCON, INFONCE, MULTI, CIRCLE]

PAIRS = [
    (SUPCON, theirs.SupConLoss(temperature=0.2)),
    (INFONCE, theirs.NTXentLoss(temperature=0.2)),
    (MULTI, theirs.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)),
    (CIRCLE, theirs.CircleLoss(m=0.3, gamma=20)),
]


def slow_supcon(s, genuine, impostor):
    total = sum(math.exp(v / 0.2) for v in genuine + impostor)
    return [sum(-math.log(math.exp(g / 0.2) / total) for g in genuine) / len(genuine)]


def slow_infonce(s, genuine, impostor):
    rivals = sum(math.exp(v / 0.2) for v in impostor)
    return [-math.log(math.exp(g / 0.2) / (math.exp(g / 0.2) + rivals)) for g in genuine]


def slow_multi(s, genuine, impostor):
    pull = math.log(1 + sum(math.exp(-2 * (g - 0.5)) for g in genuine)) / 2
    return [pull + math.log(1 + sum(math.exp(50 * (i - 0.5)) for i in impostor)) / 50]


def slow_circle(s, genuine, impostor):
    pull = sum(math.exp(-20 * max(0, 1.3 - g) * (g - 0.7)) for g in genuine)
    push = sum(math.exp(20 * max(0, i + 0.3) * (i - 0.3)) for i in impostor)
    return [math.log(1 + pull * push)]


@pytest.mark.parametrize(
    ("loss", "slow"),
    [(SUPCON, slow_supcon), (INFONCE, slow_infonce), (MULTI, slow_multi), (CIRCLE, slow_circle)],
)
def test_equals_a_loop(loss, slow, batch):
    embeddings, labels = batch
    s, y = F.cosine_similarity(embeddings[:, None], embeddings[None], dim=-1).tolist(), labels.tolist()
    costs = []
    for i in range(len(y)):
        genuine = [s[i][j] for j in range(len(y)) if y[j] == y[i] and j != i]
        impostor = [s[i][j] for j in range(len(y)) if y[j] != y[i]]
        if genuine or loss is MULTI:  # the one image of the last class has no positive
            costs += slow(s, genuine, impostor)
    assert loss(embeddings, labels).item() == pytest.approx(sum(costs) / len(costs))


@pytest.mark.parametrize(("loss", "their"), PAIRS)
def test_value_and_gradient_match_pytorch_metric_learning(loss, their, batch):
    embeddings, labels = batch
    ours, other = loss(embeddings, labels), their(embeddings, labels)
    assert ours.item() == pytest.approx(other.item(), abs=1e-9)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, embeddings)[0] for value in (ours, other)), atol=1e-8, rtol=1e-8
    )


@pytest.mark.parametrize(("loss", "their"), PAIRS)
def test_mined_indices_match_pytorch_metric_learning(loss, their, batch):
    embeddings, labels = batch
    a1, p, a2, n = get_all_pairs_indices(labels)
    some = a1[::2], p[::2], a2[1::3], n[1::3]
    assert loss(embeddings, labels, some).item() == pytest.approx(their(embeddings, labels, some).item())
    everything = get_all_triplets_indices(labels)
    if loss is not INFONCE:  # pytorch-metric-learning counts a pair once for each of its triplets
        value = loss(embeddings, labels, everything).item()
        assert value == pytest.approx(their(embeddings, labels, everything).item())
    if loss is not MULTI:  # no triplet contains the impostors of the class with one image
        assert loss(embeddings, labels, everything).item() == pytest.approx(loss(embeddings, labels).item())


@pytest.mark.parametrize(("loss", "their"), PAIRS)
def test_reference_adds_comparisons(loss, their, batch):
    embeddings, labels = batch
    reference = embeddings[12:].detach(), labels[12:]
    ours = loss(embeddings[:12], labels[:12], reference=reference)
    a1, p, a2, n = get_all_pairs_indices(labels[:12], labels)
    other = a1 != p  # the other library does not know that the reference contains the batch
    indices = a1[other], p[other], a2, n
    value = their(embeddings[:12], labels[:12], indices, ref_emb=embeddings, ref_labels=labels)
    assert ours.item() == pytest.approx(value.item())


@pytest.mark.parametrize("loss", [SUPCON, INFONCE, MULTI])  # circle's weights are constants by definition
def test_gradient_matches_finite_differences(loss, batch):
    embeddings, labels = batch
    assert torch.autograd.gradcheck(lambda e: loss(e, labels), embeddings)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3]], ids=["one class", "no positive"])
def test_batch_without_pairs_has_zero_loss(loss, labels):
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(embeddings, torch.tensor(labels))
    value.backward()
    assert torch.isfinite(embeddings.grad).all()
    if loss is not MULTI:
        assert value.item() == 0
        assert (embeddings.grad == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.lists(st.sampled_from([-1e4, -1.0, 0.0, 1e-4, 1.0]), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    ),
    seed=st.integers(0, 99),
    which=st.sampled_from(LOSSES),
)
def test_gradients_are_finite_and_loss_is_permutation_invariant(values, seed, which):
    embeddings = torch.tensor(values, requires_grad=True)  # often equal or zero
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (len(values),), generator=generator)
    value = which(embeddings, labels)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(embeddings.grad).all()
    order = torch.randperm(len(values), generator=generator)
    exact = embeddings.detach().double()  # in float32, lengths of 1e4 make the sum depend on the order
    value = which(exact, labels)
    assert which(exact[order], labels[order]).item() == pytest.approx(value.item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss, batch):
    embeddings, labels = batch[0].bfloat16(), batch[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(embeddings, labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(embeddings.float(), labels).item(), abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_invalid_batches_are_refused(loss):
    with pytest.raises(DataError, match=r"\(3, 2\) and labels \(2,\)"):
        loss(torch.ones(3, 2), torch.ones(2).long())
    with pytest.raises(DataError, match="integers"):
        loss(torch.ones(3, 2), torch.ones(3))
    with pytest.raises(DataError, match="n at least 1"):
        loss(torch.ones(0, 2), torch.ones(0).long())
    with pytest.raises(DataError, match="2 tensors"):
        loss(torch.ones(3, 2), torch.ones(3).long(), (torch.tensor([0]), torch.tensor([1])))
    with pytest.raises(DataError, match="one encoder"):
        loss(torch.ones(3, 2), torch.ones(3).long(), reference=(torch.ones(3, 4), torch.ones(3).long()))


def test_invalid_settings_are_refused():
    with pytest.raises(SettingError, match="temperature"):
        losses.SupConLoss(temperature=0)
    with pytest.raises(SettingError, match="temperature"):
        losses.InfoNCELoss(temperature=-1)
    with pytest.raises(SettingError, match="between 0 and 1"):
        losses.CircleLoss(margin=1.5)
    with pytest.raises(SettingError, match="beta"):
        losses.MultiSimilarityLoss(beta=0)
