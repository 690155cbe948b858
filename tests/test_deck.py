"""Claims about the code of the slides, recomputed and compared with the page.

The functions of the slides are reimplemented in NumPy as far as a claim needs them.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import twinned as tw

ROOT = Path(__file__).parents[1]
PAGE = " ".join((ROOT / "docs" / "deck.md").read_text("utf-8").split())
MARGIN, ALPHA = 1.0, 0.2  # slide 5's defaults
CLASSES, IMAGES, SIDE = 136, 20, 105  # Omniglot's images_background_small1

Floats = NDArray[np.float64]


def contrastive(same: Floats, distance: Floats) -> Floats:
    """Slide 5's contrastive loss before its mean; there is no factor 1/2."""
    return same * distance**2 + (1 - same) * np.maximum(MARGIN - distance, 0) ** 2


def triplet(values: Floats) -> float:
    """Slide 5's triplet loss of ``(n, 3, d)`` embeddings; its example gives it ``(n, 3)``."""
    anchor, positive, negative = values[:, 0], values[:, 1], values[:, 2]
    to_positive = ((anchor - positive) ** 2).sum(axis=-1)
    to_negative = ((anchor - negative) ** 2).sum(axis=-1)
    return float(np.maximum(to_positive - to_negative + ALPHA, 0).mean())


def pair_indices(y: NDArray[np.intp], seed: int = 0) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Slide 6's pairs, as indices instead of copies, and their labels."""
    rng = np.random.default_rng(seed)
    classes = int(y.max()) + 1
    members = [np.flatnonzero(y == one) for one in range(classes)]
    pairs, labels = [], []
    for one, inside in enumerate(members):
        for i, image in enumerate(inside):
            for other in inside[i + 1 :]:
                pairs.append((image, other))
                labels.append(1)
            for _ in inside:
                outside = members[(one + rng.integers(1, classes)) % classes]
                pairs.append((image, outside[rng.integers(len(outside))]))
                labels.append(0)
    return np.array(pairs), np.array(labels)


def test_slide_4_distances():
    a, b = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, 6.0]])
    euclidean = np.sqrt(((a - b) ** 2).sum())
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    manhattan = np.abs(a - b).sum()
    assert f"Euclidean {euclidean:.3f}, cosine similarity {cosine:.4f}, Manhattan {manhattan:g}" in PAGE
    assert f"1 minus the similarity, {1 - cosine:.4f}" in PAGE
    assert tw.distances.euclidean(a, b)[0] == pytest.approx(euclidean)
    assert tw.distances.cosine_similarity(a, b)[0] == pytest.approx(cosine)
    assert tw.distances.cosine(a, b)[0] == pytest.approx(1 - cosine)
    assert tw.distances.manhattan(a, b)[0] == pytest.approx(manhattan)
    example = (ROOT / "examples" / "04_distances.py").read_text("utf-8")
    assert f"{euclidean:.3f}, {cosine:.4f} and {manhattan:g}" in example


def test_slide_4_gradient_is_nan_for_equal_embeddings():
    x = torch.ones(1, 3, requires_grad=True)
    torch.sqrt(((x - torch.ones(1, 3)) ** 2).sum(1)).backward()
    assert x.grad is not None
    assert x.grad.isnan().all()
    x.grad = None
    tw.distances.euclidean(x, torch.ones(1, 3)).backward()
    assert not x.grad.any()


def test_slide_5_contrastive_example():
    labels, distance = np.array([[1], [0]]), np.array([[0.2], [0.7]])
    assert labels.dtype.kind == "i"  # TensorFlow does not multiply integers with floats
    assert distance.dtype.kind == "f"
    slide = contrastive(labels, distance).mean()
    given = torch.tensor(distance[:, 0]), torch.tensor([True, False])
    assert slide == pytest.approx(0.065)
    assert tw.losses.ContrastiveLoss(margin=1, factor=1)(*given).item() == pytest.approx(slide)
    assert tw.losses.ContrastiveLoss()(*given).item() == pytest.approx(slide / 2)
    assert "without a factor: 0.065 on its example" in PAGE
    assert "factor 1/2 of Hadsell et al.: 0.0325" in PAGE


def test_slide_5_triplet_example():
    assert triplet(np.array([[0.1, 0.2, 0.7]])) == 0
    assert "triplet loss on squared distances: 0 on its example" in PAGE
    anchor, positive, negative = torch.rand(3, 5, 4, dtype=torch.float64)
    squared = tw.distances.squared_euclidean
    ours = tw.losses.TripletLoss(margin=ALPHA)(squared(anchor, positive), squared(anchor, negative))
    assert ours.item() == pytest.approx(triplet(torch.stack([anchor, positive, negative], 1).numpy()))


def test_slide_5_triplet_example_sums_over_the_batch():
    """With the two triplets of the page, the sum hides the cost of the second."""
    rows = re.findall(r"\| (0\.\d) \| (0\.\d) \| (0\.\d) \| ([\d.]+) \|", PAGE)
    triplets = np.array([[float(v) for v in row[:3]] for row in rows])
    alone = [triplet(one[None]) for one in triplets]
    assert alone == pytest.approx([float(row[3]) for row in rows])
    assert alone == pytest.approx([0, 0.28])
    assert triplet(triplets) == 0  # as on the slide: two dimensions
    assert triplet(triplets[..., None]) == pytest.approx(np.mean(alone))  # embeddings with one value
    anchor, positive, negative = triplets.T
    sums = ((anchor - positive) ** 2).sum(), ((anchor - negative) ** 2).sum()
    assert f"mean cost is {np.mean(alone):.2f}" in PAGE
    assert "{:.2f} to the positives and {:.2f} to the negatives".format(*sums) in PAGE


def test_slide_6_labels_give_an_n_by_n_loss():
    rng = np.random.default_rng(0)
    labels, outputs = rng.integers(2, size=32), rng.random((32, 1))
    assert pair_indices(np.array([0, 0, 1, 1]))[1].ndim == 1
    costs = contrastive(labels, outputs)
    assert costs.shape == (32, 32)
    assert contrastive(rng.permutation(labels), outputs).mean() == pytest.approx(costs.mean(), rel=1e-12)
    right, shuffled = contrastive(labels[:, None], outputs), contrastive(labels[::-1, None], outputs)
    assert right.mean() != pytest.approx(shuffled.mean(), rel=1e-3)
    with pytest.raises(tw.TwinnedError):
        tw.losses.ContrastiveLoss()(torch.from_numpy(outputs), torch.from_numpy(labels > 0))


def test_slide_6_pairs_of_136_classes_with_20_images():
    pairs, labels = pair_indices(np.repeat(np.arange(CLASSES), IMAGES))
    assert pairs.shape == (len(labels), 2)
    share = labels.mean()
    stated = f"of {len(labels):,} pairs of {CLASSES} classes with {IMAGES} images, {100 * share:.1f} %"
    assert stated in PAGE
    assert (len(labels), round(100 * share, 1)) == (80_240, 32.2)
    copies = 2 * len(labels) * SIDE**2 * 4  # bytes, as float32
    images = CLASSES * IMAGES
    assert f"{copies / 1e9:.1f} GB for {images:,} drawings of {SIDE}x{SIDE}, as float32" in PAGE
    left, right, same = tw.data.make_pairs(np.repeat(np.arange(CLASSES), IMAGES), pairs=len(labels), seed=0)
    ours = images * SIDE**2 + left.nbytes + right.nbytes + same.nbytes
    assert f"as bytes: {ours / 1e6:.0f} MB" in PAGE
    assert same.mean() == 0.5


def test_slide_6_pairs_equal_the_deck_scheme():
    y = np.repeat(np.arange(6), [3, 2, 4, 5, 2, 3])
    pairs, labels = pair_indices(y)
    left, right, same = tw.data.make_pairs(y, scheme="deck", seed=0)
    np.testing.assert_array_equal(same, labels > 0)
    np.testing.assert_array_equal(left, pairs[:, 0])
    np.testing.assert_array_equal(right[same], pairs[same, 1])
    assert (y[left] != y[right])[~same].all()


def test_slide_7_batches_have_one_or_two_classes():
    y = np.repeat(np.arange(CLASSES), IMAGES)
    left, _, _ = tw.data.make_pairs(y, scheme="deck", seed=0)
    in_order = [len(np.unique(y[left[start : start + 32]])) for start in range(0, len(left), 32)]
    assert set(in_order) == {1, 2}
    assert "are of one or two classes" in PAGE


def test_slide_6_pairs_do_not_fit_a_two_input_network():
    x = np.zeros((4, 28, 28, 1))
    pairs, _ = pair_indices(np.array([0, 0, 1, 1]))
    batch = x[pairs]
    assert batch.shape[1:] == (2, 28, 28, 1)
    network = tw.SiameseNetwork(tw.encoders.deck(image_size=(28, 28), channels=1))
    images = torch.zeros(len(batch), 1, 28, 28)
    with pytest.raises(TypeError):
        network(torch.from_numpy(batch))
    assert network(images, images).shape == (len(batch),)


def test_slides_8_and_9_invert_the_output_of_slide_7():
    same = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    outputs = 1 - same
    assert contrastive(same, outputs).sum() == 0  # the minimum of the loss of slide 7
    assert not ((outputs > 0.5) == same.astype(bool)).any()  # slide 8
    assert not same[np.argmax(outputs)]  # slide 9
    trained_by_cross_entropy = same  # slides 10 and 11: the output is P(same)
    assert ((trained_by_cross_entropy > 0.5) == same.astype(bool)).all()


def test_slide_13_image_size_changes_the_dense_layer():
    def flat(side: int) -> int:
        for _ in range(2):  # slide 10: a 3x3 convolution without padding, then a pool of 2
            side = (side - 2) // 2
        return side * side * 128

    stated = f"has {flat(96):,} inputs at 96x96, and would have {flat(64):,} at 64x64"
    assert stated in PAGE
    for side in (96, 64):
        assert tw.encoders.deck(image_size=(side, side)).dense.in_features == flat(side)


def test_slides_10_and_11_initialize_the_weight_with_either_sign():
    torch.manual_seed(0)
    scales = [tw.heads.deck("euclidean").scale.item() for _ in range(40)]
    assert 10 < sum(scale > 0 for scale in scales) < 30
    assert tw.heads.SigmoidDistance().scale.item() == -1
    assert "starts at -1" in PAGE


def test_named_encoders_match_the_slides():
    shapes = {
        "deck": ((28, 28, 1), [(1, 64)], 64 * 13 * 13),
        "deck_shared": ((64, 64, 3), [(3, 32), (32, 64)], 64 * 14 * 14),
        "deck_face": ((96, 96, 3), [(3, 64), (64, 128)], 128 * 22 * 22),
        "deck_signature": ((100, 200, 1), [(1, 32), (32, 64)], 64 * 23 * 48),
    }
    for name, (shape, filters, flat) in shapes.items():
        assert f"encoder `{name}`" in PAGE
        assert tw.encoders.input_shape(name) in (shape, None)
        encoder = tw.encoders.create_encoder(name, image_size=shape[:2], channels=shape[2])
        convolutions = [block[0] for block in encoder.convolutions]
        assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == filters
        assert (encoder.dense.in_features, encoder.dense.out_features) == (flat, 128)


def test_tables_of_the_page_match_the_results():
    with (ROOT / "benchmarks" / "results" / "deck.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == {"ladder", "face", "signature"}
    for task, name in dict.fromkeys((row["task"], row["row"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["row"]) == (task, name)]
        cells = []
        for part in ("one_shot", "eer", "forgeries"):
            if mine[0][part]:
                rates = [100 * float(row[part]) for row in mine]
                span = f" ({min(rates):.1f} to {max(rates):.1f})" if len(rates) > 1 else ""
                cells.append(f"{np.mean(rates):.1f} %{span}")
        assert f"| {name} | {' | '.join(cells)} |" in PAGE, (task, name)


@pytest.mark.parametrize(
    "claim",
    [
        r"(?<!\d)0\.7 %\s+are\s+the\s+same",  # of slide 6's pairs are the same: it is 32.2 %
        r'get_layer\("embedding"\)',  # slide 12 assumes base_network
        r"validation pairs\s+show the same classes",  # slide 7 has no validation
        r"freeze its first layers",  # slide 13 freezes the whole base
        r"maps the classes that training saw",  # slide 14 maps test images
        r"under the name of a distance",  # slide 4 has a cosine similarity
        r"the people it was trained on",  # slide 10 leaves it open
        r"feeds the scans as they are",  # slide 11 names no data
    ],
)
def test_incorrect_claims_are_absent(claim):
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    files += [*(ROOT / "examples").glob("*.py"), ROOT / "benchmarks" / "deck.py"]
    assert not [file.name for file in files if re.search(claim, file.read_text("utf-8"))]
