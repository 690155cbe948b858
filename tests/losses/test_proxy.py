import math

import pytest
import pytorch_metric_learning.losses as theirs
import torch
from torch.nn import functional as F

from twinned import losses
from twinned.errors import DataError, SettingError


def arcface():
    torch.manual_seed(0)
    return losses.ArcFaceLoss(6, 5, margin=0.5, scale=16.0).double()


def proxy_anchor():
    torch.manual_seed(0)
    return losses.ProxyAnchorLoss(6, 5).double()


MADE = [arcface, proxy_anchor]


def test_arcface_equals_a_loop(batch):
    embeddings, labels = batch
    loss, costs = arcface(), []
    for embedding, label in zip(embeddings, labels.tolist()):
        angles = [math.acos(F.cosine_similarity(embedding, w, dim=0).item()) for w in loss.weight]
        cosines = [math.cos(angle) for angle in angles]
        cosines[label] = (
            math.cos(angles[label] + 0.5)
            if angles[label] + 0.5 <= math.pi
            else cosines[label] - 0.5 * math.sin(0.5)
        )
        costs.append(-math.log(math.exp(16 * cosines[label]) / sum(math.exp(16 * c) for c in cosines)))
    assert loss(embeddings, labels).item() == pytest.approx(sum(costs) / len(costs))


def test_proxy_anchor_equals_a_loop(batch):
    embeddings, labels = batch
    loss, pulls, pushes = proxy_anchor(), [], []
    for own, weight in enumerate(loss.weight):
        cosines = [F.cosine_similarity(e, weight, dim=0).item() for e in embeddings]
        positive = [c for c, label in zip(cosines, labels.tolist()) if label == own]
        negative = [c for c, label in zip(cosines, labels.tolist()) if label != own]
        if positive:
            pulls.append(math.log(1 + sum(math.exp(-32 * (c - 0.1)) for c in positive)))
        pushes.append(math.log(1 + sum(math.exp(32 * (c + 0.1)) for c in negative)))
    assert loss(embeddings, labels).item() == pytest.approx(sum(pulls) / len(pulls) + sum(pushes) / 6)


@pytest.mark.parametrize("made", MADE)
def test_value_and_gradient_match_pytorch_metric_learning(made, batch):
    embeddings, labels = batch
    loss = made()
    if made is arcface:
        their = theirs.ArcFaceLoss(6, 5, margin=math.degrees(0.5), scale=16)
        their.W.data = loss.weight.detach().T.clone()
    else:
        their = theirs.ProxyAnchorLoss(6, 5, margin=0.1, alpha=32)
        their.proxies.data = loss.weight.detach().clone()
    ours, other = loss(embeddings, labels), their(embeddings, labels)
    assert ours.item() == pytest.approx(other.item(), abs=1e-8)
    gradients = [torch.autograd.grad(value, embeddings)[0] for value in (ours, other)]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("made", MADE)
def test_gradient_matches_finite_differences_for_images_and_proxies(made, batch):
    embeddings, labels = batch
    loss = made()

    def value(embeddings, weight):
        return torch.func.functional_call(loss, {"weight": weight}, (embeddings, labels))

    assert torch.autograd.gradcheck(value, (embeddings, loss.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize("made", MADE)
def test_gradient_is_finite_at_cosines_of_1_and_at_zero(made):
    loss = made().float()
    loss.weight.data = torch.eye(6, 5)  # cosines are exactly 1 and -1; the last row is zero
    embeddings = torch.cat([loss.weight[:2], -loss.weight[:2], torch.zeros(2, 5)]).detach().requires_grad_()
    value = loss(embeddings, torch.tensor([0, 1, 0, 1, 0, 1]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(loss.weight.grad).all()


@pytest.mark.parametrize("made", MADE)
def test_half_precision_is_computed_in_float32(made, batch):
    loss, embeddings, labels = made().float(), batch[0].bfloat16(), batch[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(embeddings, labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(embeddings.float(), labels).item(), abs=1e-6)


@pytest.mark.parametrize("made", MADE)
def test_labels_without_proxy_and_miners_are_refused(made, batch):
    embeddings, labels = batch
    with pytest.raises(DataError, match=r"from 0 to 6\. This loss was made for 6 classes"):
        made()(embeddings, torch.where(labels == 5, 6, labels.clamp(max=4)))
    with pytest.raises(DataError, match="from -1"):
        made()(embeddings, labels - 1)
    with pytest.raises(SettingError, match="Leave the miner out"):
        made()(embeddings, labels, (labels, labels, labels))


@pytest.mark.parametrize(
    "made",
    [
        lambda: losses.ArcFaceLoss(1, 5),
        lambda: losses.ArcFaceLoss(3, 0),
        lambda: losses.ArcFaceLoss(3, 5, margin=28.6),
        lambda: losses.ArcFaceLoss(3, 5, scale=0),
        lambda: losses.ProxyAnchorLoss(3, 5, margin=-0.1),
        lambda: losses.ProxyAnchorLoss(3, 5, alpha=0),
    ],
)
def test_invalid_settings_are_refused(made):
    with pytest.raises(SettingError):
        made()
