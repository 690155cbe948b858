"""Dataset and batch sampler for a PyTorch training loop."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

import twinned as tw
from twinned.data import ClassBatches, ClassSampler, ImageDataset
from twinned.errors import DataError, ImageError, MissingExtra, SettingError

LABELS = np.repeat(["a", "b", "c", "d", "e", "one", "two"], [4, 4, 5, 6, 3, 1, 2])


def tensor(image: Image.Image) -> Tensor:
    """Transform that worker processes can import."""
    return torch.from_numpy(np.array(image.resize((8, 8))))


@pytest.fixture
def images(tmp_path: Path) -> tw.ImageSet:
    for number in range(12):
        path = tmp_path / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (9, 8), 20 * number).save(path)
    return tw.load_images(tmp_path)


def test_image_set_is_a_sequence(images: tw.ImageSet) -> None:
    image, label = images[5]
    assert (image.size, label) == ((9, 8), "class1")
    assert images[-1][1] == "class2"
    assert len(images[2:4]) == 2
    assert images[images.labels == "class0"].classes == ["class0"]
    with pytest.raises(IndexError):
        images[12]
    assert repr(images) == f"ImageSet(12 images, 3 classes, {images.origin})"
    arrays = tw.load_images(np.zeros((4, 8, 8), np.uint8), "aabb")
    assert repr(arrays) == "ImageSet(4 images, 2 classes, arrays)"
    assert arrays[0][0].size == (8, 8)


def test_dataset_returns_images_and_class_indices(images: tw.ImageSet) -> None:
    data = images.as_dataset()
    assert isinstance(data, Dataset)
    assert repr(data) == f"ImageDataset(12 images, 3 classes, {images.origin})"
    for index in range(len(data)):
        image, target = data[index]
        assert image == images[index][0]
        assert data.classes[target] == images[index][1]
    assert data.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    Path(images.images[3]).write_bytes(b"broken")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="is not a supported image"):
        data[3]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lazy", [False, True])
def test_workers_read_the_dataset(images: tw.ImageSet, start: str, lazy: bool) -> None:
    if start == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    whole = tw.load_images(images.as_dataset()) if lazy else images
    data = whole.as_dataset(tensor)
    sampler = ClassSampler(data.targets, classes=3, images=2)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=2, multiprocessing_context=start)
    pixels, targets = next(iter(loader))
    sampler.set_epoch(0)
    expected = next(iter(sampler))
    assert torch.equal(pixels, torch.stack([data[index][0] for index in expected]))
    assert targets.tolist() == [data[index][1] for index in expected]


def test_dataset_requires_pytorch(images: tw.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(tw.data, "__getattr__", missing)
    with pytest.raises(MissingExtra, match=r"as_dataset needs the extra 'train'"):
        images.as_dataset()


# Sampler


def classes_of(batch: list[int], labels: NDArray[Any] = LABELS) -> Counter[str]:
    return Counter(labels[batch].tolist())


def test_batch_is_balanced_over_classes() -> None:
    sampler = ClassSampler(LABELS, classes=3, images=4, seed=1)
    assert isinstance(sampler, BatchSampler)
    assert (len(sampler), sampler.batch_size) == (2, 12)
    batches = list(sampler)
    assert len(batches) == 2
    drawn = Counter[str]()
    for batch in batches:
        assert set(classes_of(batch).values()) == {4}
        assert len(classes_of(batch)) == 3
        drawn.update(classes_of(batch).keys())
    assert set(drawn.values()) == {1}, "a class is drawn once per epoch"
    assert "one" not in drawn, "a class with one image has no pair"


def test_batches_equal_those_of_training() -> None:
    labels = np.repeat(np.arange(6), 5)
    batches = ClassBatches(labels, classes=2, images=3, seed=4)
    sampler = ClassSampler(torch.from_numpy(labels), 2, 3, seed=4)
    found = [batch for _ in range(2) for batch in sampler]
    assert found == [batches(step).index.tolist() for step in range(2 * len(sampler))]


def test_set_epoch_selects_the_batches() -> None:
    sampler, other = ClassSampler(LABELS, 2, 2, seed=3), ClassSampler(LABELS, 2, 2, seed=3)
    first, second = list(sampler), list(sampler)
    assert first != second
    other.set_epoch(1)
    assert list(other) == second
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(ClassSampler(LABELS, 2, 2, seed=5)) != first


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(DataError, match="a batch of 7 classes needs as many with two images; got 6"):
        ClassSampler(LABELS, 7, 2)
    for classes, count in ((1, 2), (2, 1)):
        with pytest.raises(SettingError, match="at least 2 classes of 2 images"):
            ClassSampler(LABELS, classes, count)


def test_names_are_public() -> None:
    assert {"ClassSampler", "ImageDataset"} <= set(tw.data.__all__)
    assert ImageDataset is tw.data.ImageDataset
