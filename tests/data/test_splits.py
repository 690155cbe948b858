"""Decoded data sets and their splits: unreadable images, held-out classes, subsamples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinned import recipes
from twinned.data.datasets import ImageSet, PairSet
from twinned.data.decoded import DecodedSet
from twinned.data.images import pixels_sha256
from twinned.data.preprocessing import ImageSpec
from twinned.data.readers import load_images, load_pairs
from twinned.data.splits import (
    check_classes,
    check_validation,
    class_folds,
    hold_out,
    shared_classes,
    subsample,
)
from twinned.errors import DataError
from twinned.utils.notes import collect

SPEC = ImageSpec(height=8, width=8, channels=1)
SETTINGS = recipes.get("glyph")
rng = np.random.default_rng(0)


def picture() -> np.ndarray:
    return rng.integers(0, 256, (8, 8), dtype=np.uint8)


def classes_of(sizes: list[int], **given: object) -> DecodedSet:
    labels = [f"c{n:03d}" for n, size in enumerate(sizes) for _ in range(size)]
    images = load_images([picture() for _ in labels], labels)
    for name, value in given.items():
        getattr(images, name)[:] = value
    return DecodedSet.from_images(images, SPEC, progress=False)


def pairs_of(left: list[int], right: list[int], same: list[bool]) -> DecodedSet:
    images = [picture() for _ in range(1 + max(*left, *right))]
    pairs = PairSet(images, left=np.array(left), right=np.array(right), same=np.array(same), origin="p.csv")
    return DecodedSet.from_images(pairs, SPEC, progress=False)


def test_unreadable_images_are_skipped_and_reported_once(tmp_path):
    names = [tmp_path / f"{n}.png" for n in range(7)]
    for name in names:
        name.write_bytes(b"no image")
    source = load_images([names[0], picture(), *names[1:], picture()], list("aaaaaaaab"))
    with collect() as notes:
        material = DecodedSet.from_images(source, SPEC, progress=False)
    assert material.images.labels.tolist() == ["a", "b"]
    assert [material.hashes[0]] == [pixels_sha256(material.pixels[0])]
    (sentence,) = [note.text for note in notes if note.code == "unreadable-images"]
    assert sentence.startswith("7 unreadable images left out: ")
    assert sum(str(name) in sentence for name in names) == 5
    assert sentence.endswith("and 2 more")
    with pytest.raises(DataError, match="none of 2 images can be read"):
        DecodedSet.from_images(load_images(names[:2], ["a", "b"]), SPEC, progress=False)


def test_pairs_of_unreadable_images_are_skipped(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [picture(), tmp_path / "bad.png", picture(), picture()]
    pairs = PairSet(
        images,
        left=np.array([0, 0, 1, 2]),
        right=np.array([1, 2, 3, 3]),
        same=np.array([True, True, False, False]),
    )
    material = DecodedSet.from_images(pairs, SPEC, progress=False)
    assert material.pairs is not None
    assert material.pairs.left.tolist() == [0, 1]
    assert material.pairs.right.tolist() == [1, 2]
    assert material.pairs.same.tolist() == [True, False]
    np.testing.assert_array_equal(material.pixels[2][:, :, 0], images[3])
    with pytest.raises(DataError, match="has no class labels"):
        _ = material.images


def test_single_image_classes_are_counted_and_kept():
    images = load_images([picture() for _ in range(5)], ["a", "a", "b", "c", "c"])
    with collect() as notes:
        material = DecodedSet.from_images(images, SPEC, progress=False)
    assert [note.text for note in notes] == ["1 of 3 classes have one image: they serve as impostors only"]
    assert material.images.classes == ["a", "b", "c"]
    assert material.images.usable_classes() == ["a", "c"]


@pytest.mark.parametrize(
    ("classes", "share", "out"),
    [(12, 0.2, 4), (20, 0.2, 4), (40, 0.2, 8), (100, 0.2, 20), (100, 0.05, 5), (12, 0.89, 10)],
)
def test_hold_out_takes_a_fraction_and_at_least_four_classes(classes, share, out):
    config = SETTINGS.merge({"held_out": share})
    material = classes_of([3] * classes)
    learn, held = hold_out(material, fraction=config.calibration.validation_fraction, seed=config.seed)
    assert held is not None
    assert len(held.images.classes) == out
    assert set(learn.images.classes) | set(held.images.classes) == set(material.images.classes)
    assert not shared_classes(learn, held)
    assert set(learn.hashes) | set(held.hashes) == set(material.hashes)
    assert not set(learn.hashes) & set(held.hashes)
    again = hold_out(material, fraction=config.calibration.validation_fraction, seed=config.seed)[1]
    other = hold_out(material, fraction=config.calibration.validation_fraction, seed=1)[1]
    assert again is not None
    assert other is not None
    assert again.images.classes == held.images.classes
    assert other.images.classes != held.images.classes


def test_class_folds_hold_out_each_usable_class_once():
    data = classes_of([2, 3, 1, 2, 4, 2])
    folds = list(class_folds(data, 3, seed=0))
    held = [held_out.images.classes for _, held_out in folds]
    assert sorted(label for labels in held for label in labels) == data.images.usable_classes()
    for train, held_out in folds:
        assert not shared_classes(train, held_out)
        assert "c002" in train.images.classes, "a class with one image is never held out"
        assert len(train.pixels) + len(held_out.pixels) == len(data.pixels)
    assert held == [held_out.images.classes for _, held_out in class_folds(data, 3, seed=0)]


def test_subsample_of_an_image_set_is_an_image_set():
    images = classes_of([3] * 10).images
    some = subsample(images, 12, seed=1)
    assert isinstance(some, ImageSet)
    assert len(some) == 12
    assert len(some.classes) == 10
    assert subsample(images, 30) is images


@pytest.mark.parametrize("classes", [2, 3, 4, 11])
def test_hold_out_keeps_few_classes_for_training(classes):
    material = classes_of([2] * classes)
    assert hold_out(material) == (material, None)


def test_hold_out_divides_single_image_classes():
    learn, held = hold_out(classes_of([3] * 20 + [1] * 50))
    assert held is not None
    assert (len(learn.images.usable_classes()), len(held.images.usable_classes())) == (16, 4)
    assert (len(learn.images.classes), len(held.images.classes)) == (16 + 40, 4 + 10)


def test_usable_classes_need_genuine_images():
    material = classes_of([2, 2, 2])
    material.images.forgery[:] = [False, False, False, True, True, True]
    assert material.images.usable_classes() == ["c000"]
    with pytest.raises(
        DataError, match=r"two classes with two readable images each; 1 of 3 classes have two\."
    ):
        check_classes(material.images)
    with pytest.raises(DataError, match="1 of 3"):
        hold_out(material)


def test_hold_out_of_disjoint_pairs_shares_no_image():
    pairs = 60
    left, right = list(range(0, 2 * pairs, 2)), list(range(1, 2 * pairs, 2))
    material = pairs_of(left, right, [n % 2 == 0 for n in range(pairs)])
    learn, held = hold_out(material)
    assert held is not None
    assert held.pairs is not None
    assert learn.pairs is not None
    assert len(held.pairs) == 12
    assert len(learn.pairs) + len(held.pairs) == pairs
    assert not set(learn.hashes) & set(held.hashes)
    assert len(learn.pixels) == len(learn.hashes) == 2 * len(learn.pairs)


def test_hold_out_of_connected_pairs_shares_no_image():
    images = 60
    ends = [(a, b) for a in range(images) for b in range(a)]
    same = [a % 10 == b % 10 for a, b in ends]
    learn, held = hold_out(pairs_of(*map(list, zip(*ends)), same))
    assert held is not None
    assert not set(learn.hashes) & set(held.hashes)
    for side in (learn, held):
        assert side.pairs is not None
        assert side.pairs.same.any()
        assert not side.pairs.same.all()


@pytest.mark.parametrize("seed", range(8))
def test_hold_out_divides_a_large_component_of_pairs(seed):
    random = np.random.default_rng(0)
    classes = [[8 * c + n for n in range(8)] for c in range(24)]
    ends: list[tuple[int, int]] = []
    for n in range(160):  # half of the pairs are same
        a, b = (classes[c] for c in random.choice(24, 2, replace=False))
        ends.append(
            tuple(random.choice(a, 2, replace=False)) if n % 2 else (random.choice(a), random.choice(b))
        )
    left, right = (np.unique(ends, return_inverse=True)[1].reshape(-1, 2).T).tolist()
    learn, held = hold_out(pairs_of(left, right, [n % 2 == 1 for n in range(160)]), seed=seed)
    assert held is not None
    assert learn.pairs is not None
    assert held.pairs is not None
    assert not set(learn.hashes) & set(held.hashes)
    assert len(learn.pairs) > 40
    assert len(held.pairs) > 20
    # no same pair is divided between the parts
    assert learn.pairs.same.sum() + held.pairs.same.sum() == 80


def test_hold_out_refuses_too_few_pairs():
    with pytest.raises(DataError, match=r"p.csv: Too few pairs to hold out: .*separate validation data"):
        hold_out(pairs_of([0, 2], [1, 3], [True, False]))


@pytest.mark.parametrize(("same", "word"), [(True, "same"), (False, "different")])
def test_hold_out_refuses_pairs_of_one_kind(same, word):
    with pytest.raises(DataError, match=f"p.csv: All 4 pairs are {word}. Add"):
        hold_out(pairs_of([0, 2, 4, 6], [1, 3, 5, 7], [same] * 4))


def test_check_validation_requires_new_images_and_both_kinds():
    learn = classes_of([2] * 4)
    check_validation(learn, classes_of([2, 1]))
    with pytest.raises(DataError, match="2 of 2 validation images are training images too"):
        check_validation(learn, learn.subset(np.arange(2)))
    for sizes in ([5], [1, 1, 1]):
        with pytest.raises(DataError, match="give no same or no different pair"):
            check_validation(learn, classes_of(sizes))
    check_validation(learn, pairs_of([0, 2], [1, 3], [True, False]))
    with pytest.raises(DataError, match="give no same or no different pair"):
        check_validation(learn, pairs_of([0, 2], [1, 3], [True, True]))
    assert shared_classes(learn, classes_of([2, 2]))
    assert not shared_classes(learn, pairs_of([0, 2], [1, 3], [True, False]))


def test_subsample_keeps_whole_classes_and_is_reproducible():
    material = classes_of([5] * 40)
    some = subsample(material, 50, whole_classes=True)
    assert len(some.pixels) == 50
    assert np.unique(some.images.labels, return_counts=True)[1].tolist() == [5] * 10
    assert some.images.classes == subsample(material, 50, whole_classes=True).images.classes
    assert some.images.classes != material.images.classes[:10]
    assert subsample(material, 200, whole_classes=True) is material
    assert len(subsample(material, 1, whole_classes=True).images.classes) == 2
    pairs = pairs_of([0, 2], [1, 3], [True, False])
    assert subsample(pairs, 1, whole_classes=True) is pairs


def test_subsample_skips_or_reduces_large_classes():
    sizes = [1] * 30 + [4] * 20 + [900]
    some = subsample(classes_of(sizes), 100, whole_classes=True)
    assert 90 <= len(some.pixels) <= 100
    names, counts = np.unique(some.images.labels, return_counts=True)
    assert len(names) > 15
    assert dict(zip(names, counts, strict=True)).get("c050", 0) <= 10
    few = subsample(classes_of([1] * 300 + [2, 2]), 20, whole_classes=True)
    assert len(few.images.usable_classes()) == 2, "both classes with pairs are kept"


@pytest.mark.parametrize("each", [1, 4])
def test_subsample_is_balanced_over_classes(each):
    material = classes_of([6] * 30 + [1] * 10)
    some = subsample(material, 24, seed=0, per_class=each)
    assert len(some.pixels) == 24
    counts = np.unique(some.images.labels, return_counts=True)[1]
    assert counts.tolist() == ([4] * 6 if each == 4 else [1] * 24)
    assert set(some.hashes) <= set(material.hashes)
    assert some.hashes == subsample(material, 24, seed=0, per_class=each).hashes
    assert some.hashes != subsample(material, 24, seed=1, per_class=each).hashes
    assert subsample(material, 190, seed=0) is material
    most = subsample(material, 150, seed=0, per_class=each)
    assert len(most.images.classes) == 40, "all classes fit"


def test_subsample_of_pairs_limits_the_images():
    left, right = np.arange(0, 400, 2), np.arange(1, 400, 2)
    some = subsample(
        pairs_of([*left, *left], [*right, *np.roll(right, 1)], [True] * 200 + [False] * 200), 50, seed=0
    )
    assert some.pairs is not None
    assert 40 <= len(some.pixels) <= 50
    assert some.pairs.same.any()
    assert not some.pairs.same.all()


def test_subsample_of_pairs_has_both_kinds_or_all_pairs():
    ends = np.arange(0, 2000, 2)
    rare = pairs_of([*ends], [*(ends + 1)], [True] * 2 + [False] * 998)
    assert subsample(rare, 40, seed=0) is rare
    images = [picture() for _ in range(60)]  # the last 20 are in no pair
    pairs = PairSet(images, left=np.arange(0, 40, 2), right=np.arange(1, 40, 2), same=np.arange(20) % 2 == 0)
    some = DecodedSet(np.stack(images)[..., None], None, pairs, [str(n) for n in range(60)])
    assert len(subsample(some, 50, seed=0).pixels) == 40


def test_sha256_depends_on_pixels_labels_groups_and_order():
    material = classes_of([2, 3])
    known = {material.sha256(), material.subset(np.array([1, 0, 2, 3, 4])).sha256()}
    for name, value in (("labels", "c001"), ("groups", "other"), ("forgery", True)):
        other = classes_of([2, 3])
        other = DecodedSet(material.pixels, other.labelled, None, material.hashes)
        getattr(other.images, name)[0] = value
        known.add(other.sha256())
    assert len(known) == 5
    pairs = [pairs_of([0, 2], [1, 3], same) for same in ([True, False], [False, True])]
    pairs[1] = DecodedSet(pairs[0].pixels, None, pairs[1].pairs, pairs[0].hashes)
    assert pairs[0].sha256() != pairs[1].sha256()


def test_statistics_are_mean_and_std_per_channel():
    pixels = rng.integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
    pixels[..., 2] = 128
    found = DecodedSet(pixels, None, None, []).statistics()
    for channel in range(3):
        values = [v / 255 for v in pixels[..., channel].ravel().tolist()]
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        assert found["mean"][channel] == pytest.approx(mean, abs=1e-4)
        assert found["std"][channel] == pytest.approx(max(spread, 0.02), abs=1e-4)


def test_fingerprint_is_independent_of_the_order():
    material = classes_of([2, 3])
    order = np.array([3, 1, 4, 0, 2])
    assert material.fingerprint() == material.subset(order).fingerprint()
    assert material.fingerprint() != material.subset(order[:4]).fingerprint()
    assert material.fingerprint()["images"] == 5


def test_pair_list_is_decoded(glyphs: Path, tmp_path: Path):
    lines = [
        f"{glyphs}/glyph00/0.png,{glyphs}/glyph00/1.png,1",
        f"{glyphs}/glyph00/0.png,{glyphs}/glyph01/1.png,0",
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(["left,right,same", *lines]))
    material = DecodedSet.from_images(load_pairs(tmp_path / "pairs.csv"), SPEC, progress=False)
    assert len(material.pixels) == 3
