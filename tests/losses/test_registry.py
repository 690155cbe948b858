import pytest
import torch

from twinned import losses, miners

REPRS = {
    "contrastive": "ContrastiveLoss(margin=1.0, factor=0.5)",
    "cross-entropy": "PairCrossEntropy()",
    "multi-similarity": "MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5)",
    "arcface": "ArcFaceLoss(num_classes=4, embedding_size=3, margin=0.5, scale=64.0)",
}


@pytest.mark.parametrize("name", REPRS)
def test_repr_shows_the_options(name):
    assert repr(losses.create_loss(name, num_classes=4, embedding_size=3)) == REPRS[name]


def test_loss_of_the_table_is_public():
    """Two files add a loss: its own, with its class and ``__all__``, and the table."""
    for loss in losses.BUILTIN.values():
        assert getattr(losses, loss.__name__) is loss
        assert loss.__name__ in losses.__all__
    assert len(losses.__all__) == len(set(losses.__all__))


def test_repr_of_wrappers_shows_loss_and_miner():
    adapted = losses.embedding_loss(losses.TripletLoss(), distance="euclidean", miner=miners.SemiHard())
    text = repr(losses.CrossBatchMemory(adapted, 3, size=10))
    for part in (
        "embedding_size=3, size=10",
        "distance='euclidean'",
        "TripletLoss(margin=0.2)",
        "SemiHard()",
    ):
        assert part in text


def test_options_are_set_and_none_is_the_default():
    loss = losses.create_loss("multi-similarity", alpha=1.0, beta=None, margin=None)
    assert (loss.alpha, loss.beta) == (1.0, 50.0)


def test_functions_of_version_0_1_still_work():
    distance, same = torch.tensor([0.5, 1.0]), torch.tensor([True, False])
    with pytest.warns(DeprecationWarning, match="Use losses.ContrastiveLoss"):
        old = losses.contrastive_loss
    new = losses.ContrastiveLoss(margin=1.5)
    assert old(distance, same, margin=1.5).item() == new(distance, same).item()
    torch.testing.assert_close(
        old(distance, same, margin=1.5, reduction="none"), new(distance, same, reduction="none")
    )
    with pytest.raises(AttributeError, match="no attribute 'hinge'"):
        losses.hinge  # noqa: B018
