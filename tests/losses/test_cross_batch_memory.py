import pytest
import pytorch_metric_learning.losses as theirs
import torch
from pytorch_metric_learning.losses import CrossBatchMemory as TheirMemory
from safetensors.torch import load, save

from twinned import losses, miners
from twinned.errors import DataError, SettingError
from twinned.losses.adapter import embedding_loss
from twinned.losses.cross_batch_memory import CrossBatchMemory


def stream(steps: int, n: int = 6, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield (
            torch.randn(n, 3, generator=generator).to(dtype).requires_grad_(),
            torch.randint(0, 3, (n,), generator=generator),
        )


def dot(a, b, *, pairwise):
    return a @ b.T if pairwise else (a * b).sum(-1)


WRAPPED = {
    "contrastive": lambda: embedding_loss(losses.ContrastiveLoss(2.0), distance="euclidean"),
    "chopra": lambda: embedding_loss(losses.ChopraLoss(), distance="manhattan"),
    "cross-entropy": lambda: embedding_loss(losses.PairCrossEntropy(), distance=dot),
    "triplet": lambda: embedding_loss(losses.TripletLoss(), distance="euclidean"),
    "mined": lambda: embedding_loss(losses.TripletLoss(), distance="euclidean", miner=miners.SemiHard()),
    "supcon": losses.SupConLoss,
    "multi-similarity": losses.MultiSimilarityLoss,
    "foreign": lambda: embedding_loss(theirs.MultiSimilarityLoss()),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_batch_is_compared_with_previous_batches(name):
    loss, memory = WRAPPED[name](), CrossBatchMemory(WRAPPED[name](), 3, size=15).double()
    past_embeddings, past_labels = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    for step, (embeddings, labels) in enumerate(stream(5, dtype=torch.float64)):
        reference = (past_embeddings, past_labels) if step else None
        expected = loss(embeddings, labels, reference=reference)
        value = memory(embeddings, labels)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        assert (
            torch.autograd.grad(value, embeddings)[0] != 0
        ).any()  # overwriting after the loss keeps the gradient
        # The order in the memory does not matter: keep the newest 15.
        past_embeddings = torch.cat([past_embeddings, embeddings.detach()])[-15:]
        past_labels = torch.cat([past_labels, labels])[-15:]
    assert not memory.embeddings.requires_grad  # otherwise the graph of every batch would be kept
    assert sorted(memory.labels.tolist()) == sorted(past_labels.tolist())
    assert sorted(memory.embeddings.tolist()) == sorted(past_embeddings.tolist())


@pytest.mark.parametrize(
    ("ours", "their"),
    [
        (losses.SupConLoss(0.2), theirs.SupConLoss(temperature=0.2)),
        (losses.MultiSimilarityLoss(), theirs.MultiSimilarityLoss()),
        (losses.CircleLoss(), theirs.CircleLoss()),
    ],
)
def test_matches_pytorch_metric_learning_until_full(ours, their):
    memory, other = CrossBatchMemory(ours, 3, size=30), TheirMemory(their, 3, memory_size=30)
    for embeddings, labels in stream(5):
        assert memory(embeddings, labels).item() == pytest.approx(other(embeddings, labels).item(), rel=1e-5)


def test_state_dict_round_trip():
    batches = list(stream(4))
    memory, restored = (CrossBatchMemory(losses.SupConLoss(), 3, size=10) for _ in range(2))
    for batch in batches[:3]:
        memory(*batch)
    restored.load_state_dict(load(save(memory.state_dict())))
    assert restored(*batches[3]).item() == memory(*batches[3]).item()
    assert torch.equal(restored.embeddings, memory.embeddings)


def test_batch_larger_than_the_memory_keeps_its_end():
    memory = CrossBatchMemory(losses.SupConLoss(), 3, size=4)
    for embeddings, labels in stream(2):
        memory(embeddings, labels)
    assert sorted(memory.embeddings.tolist()) == sorted(embeddings[-4:].tolist())


def test_evaluation_neither_reads_nor_writes_the_memory():
    first, second = stream(2)
    memory = CrossBatchMemory(losses.SupConLoss(), 3, size=10)
    memory(*first)
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    memory.eval()
    assert memory(*second).item() == losses.SupConLoss()(*second).item()
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())


def test_active_is_that_of_the_wrapped_loss():
    memory = CrossBatchMemory(WRAPPED["triplet"](), 3)
    assert memory.active is None
    memory(*next(stream(1)))
    assert 0 < memory.active.item() <= 1
    assert CrossBatchMemory(losses.SupConLoss(), 3).active is None


def test_unsupported_losses_and_sizes_are_refused():
    with pytest.raises(SettingError, match="embedding_loss"):
        CrossBatchMemory(losses.ContrastiveLoss(), 3)
    with pytest.raises(SettingError, match="embedding_loss"):
        CrossBatchMemory(theirs.ContrastiveLoss(), 3)
    with pytest.raises(SettingError, match="Leave the memory out"):
        CrossBatchMemory(losses.ArcFaceLoss(3, 3), 3)
    with pytest.raises(SettingError, match="Leave the memory out"):
        CrossBatchMemory(embedding_loss(losses.ArcFaceLoss(3, 3)), 3)
    with pytest.raises(SettingError, match="at least 1"):
        CrossBatchMemory(losses.SupConLoss(), 3, size=0)
    memory = CrossBatchMemory(losses.SupConLoss(), 4)
    batch = next(stream(1))
    with pytest.raises(DataError, match=r"have 3 values\. This memory was made for 4"):
        memory(*batch)
