"""Arrays, tensors and datasets of other libraries."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import twinned as tw
from twinned.data import sequences
from twinned.data.decoded import DecodedSet
from twinned.data.images import open_image
from twinned.data.preprocessing import ImageSpec
from twinned.errors import DataError
from twinned.training.state import Interrupted

CLASSES, EACH = 6, 4
LABELS = np.repeat(np.arange(CLASSES), EACH)


def pictures(channels: int | None = 3) -> NDArray[np.uint8]:
    shape = (len(LABELS), 20, 24) if channels is None else (len(LABELS), 20, 24, channels)
    classes = np.random.default_rng(0).integers(0, 200, (CLASSES, *shape[1:]), dtype=np.uint8)
    return classes[LABELS] + np.random.default_rng(1).integers(0, 30, shape, dtype=np.uint8)


def opened(data: Any) -> list[NDArray[np.uint8]]:
    return [np.asarray(open_image(image)) for image in data.images]


class Counted(Dataset[tuple[Any, int]]):
    """Dataset that counts how often each item is read."""

    def __init__(self) -> None:
        self.images, self.reads = pictures(), Counter[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.reads[index] += 1
        return torch.from_numpy(self.images[index]).permute(2, 0, 1) / 255, int(LABELS[index])


# Axes and types


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255,
        lambda x: (torch.from_numpy(x).permute(0, 3, 1, 2).double() / 255).requires_grad_(),
        lambda x: (x / 255).astype(np.float32),
        list,
        lambda x: [torch.from_numpy(image).permute(2, 0, 1) for image in x],
        lambda x: [Image.fromarray(image) for image in x],
        lambda x: (image for image in x),
    ],
)
def test_every_form_gives_the_same_images(convert: Any) -> None:
    expected = opened(tw.load_images(pictures(), LABELS))
    np.testing.assert_array_equal(expected, pictures())
    for data in (
        tw.load_images(convert(pictures()), LABELS),
        tw.load_images((convert(pictures()), torch.from_numpy(LABELS))),
    ):
        np.testing.assert_array_equal(opened(data), expected)
        assert data.labels.tolist() == [str(label) for label in LABELS]


def test_gray_images_have_three_axes() -> None:
    gray = pictures(None)
    for images in (gray, torch.from_numpy(gray), gray[..., None], gray[:, None], list(gray)):
        np.testing.assert_array_equal(opened(tw.load_images(images, LABELS)), gray)


def test_half_precision_is_rounded() -> None:
    tensor = torch.from_numpy(pictures()) / 255
    for kind, error in ((torch.float16, 1), (torch.bfloat16, 2)):
        found = np.stack(opened(tw.load_images(tensor.to(kind), LABELS)))
        assert np.abs(found.astype(int) - pictures()).max() <= error


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (pictures() / 1.0, r"from image 0 on, .* floats from 0 to 2\d\d; expected .* divide by 255"),
        (pictures() / 64 - 2, "before they are normalized"),
        (np.where(pictures() > 225, np.nan, 0.5), "NaN among their values"),
        (list(pictures() / 1.0), r"floats from .*divide by 255"),
        (pictures().astype(np.int64), r"dtype int64 with values from 0 to 2\d\d; .*astype\(numpy.uint8\)"),
        (pictures() // 200, "highest value of the uint8 images is 1"),
        (pictures().astype(np.uint16), "of the uint16 images is 2.. of 65535"),
        (pictures()[..., :2], "without an axis of 1, 3 or 4 channels"),
        (pictures()[:, :3], r"\(24, 3, 24, 3\): the channels may be first or last"),
        (pictures()[..., None], r"shape \(24, 20, 24, 3, 1\); expected \(n, height, width\)"),
        (pictures()[:20], "got 20 images, 24 labels"),
        (pictures()[0], r"got 20 images, 24 labels; .*images\[None\]"),
        (pictures()[:, :0], "is empty|may be first or last|without an axis|which is empty"),
        ([object()] * 24, "is not an image; pass a path"),
    ],
)
def test_ambiguous_arrays_are_refused(images: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        tw.train((images, LABELS), steps=0)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (LABELS / 2, r"label 0 is 0\.0; labels must be integers or strings"),
        (torch.from_numpy(LABELS).float(), r"label 0 is 0\.0"),
        ([*LABELS[1:], None], "label 23 is None"),
        ([*LABELS[1:], np.float32(2)], r"label 23 is 2\.0"),
        (np.eye(CLASSES)[LABELS], r"shape \(24, 6\).*argmax"),
        (LABELS[1:], "got 24 images, 23 labels"),
    ],
)
def test_invalid_labels_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        tw.load_images(pictures(), labels)


@pytest.mark.parametrize("channels_first", [True, False])
def test_tensor_is_copied_from_its_device(channels_first: bool) -> None:
    images = pictures().transpose(0, 3, 1, 2) if channels_first else pictures()
    found = tw.load_images(OnDevice(images), OnDevice(LABELS))
    np.testing.assert_array_equal(opened(found), pictures())
    np.testing.assert_array_equal(np.asarray(open_image(OnDevice(images[0]))), pictures()[0])


class OnDevice:
    """Tensor on a device that NumPy cannot read, with the methods of PyTorch."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values, self.shape, self.dtype = values, values.shape, "torch.uint8"

    def detach(self) -> OnDevice:
        return self

    def cpu(self) -> torch.Tensor:
        return torch.from_numpy(self.values.copy())

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


# Datasets


class StopAtFirst(tw.Callback):
    def on_step(self, step: Any) -> bool:
        raise KeyboardInterrupt


def test_dataset_is_read_once_for_training() -> None:
    data = Counted()
    data.images = pictures().mean(axis=3, keepdims=True).astype(np.uint8)
    with pytest.raises(Interrupted):
        tw.train(data, steps=1, progress=False, callbacks=[StopAtFirst()])
    assert data.reads == Counter(range(len(data)))


def test_large_dataset_is_read_at_most_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "_KEPT_BYTES", 3000)
    monkeypatch.setattr(sequences, "_KEPT_LATER_BYTES", 60_000)
    data = Counted()
    images = tw.load_images(data)
    tw.recipes.choose(images, seed=0)
    tw.check_data(images, quick=True, progress=False)
    DecodedSet.from_images(images, ImageSpec(height=16, width=16), progress=False)
    assert set(data.reads.values()) == {1, 2}


def test_dataset_equals_its_arrays() -> None:
    data = Counted()
    images = tw.load_images(data)
    again = pickle.loads(pickle.dumps(images))  # noqa: S301 - sent to other processes
    for found in (images, again, tw.load_images(list(data)), tw.load_images(TensorDataset(*stacked(data)))):
        np.testing.assert_array_equal(opened(found), pictures())
        assert found.labels.tolist() == [str(label) for label in LABELS]
    assert images.names[3] == "item 3"
    assert [p.kind for p in tw.check_data(images, progress=False).problems] == [
        p.kind for p in tw.check_data((pictures(), LABELS), progress=False).problems
    ]


def stacked(data: Counted) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([image for image, _ in data]), torch.from_numpy(LABELS)


class Broken(Counted):
    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = item

    def __getitem__(self, index: int) -> Any:
        if index == 2 and isinstance(self.item, Exception):
            raise self.item
        return self.item if index == 2 else super().__getitem__(index)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (OSError("no disk"), "item 2 of Broken cannot be read: OSError: no disk"),
        (torch.zeros(3, 8, 8), r"item 2 of Broken is of type Tensor of length 3; expected \(image, label\)"),
        ({"image": 0, "label": 1}, "of type dict"),
        ((torch.full((3, 20, 24), -2.0), 1), "image 2 on, .* before they are normalized"),
        ((torch.zeros(5, 20, 24), 1), r"item 2, array of shape \(5, 20, 24\): .* without an axis"),
        ((3, 1), "item 2 has an image of type int"),
        ((torch.zeros(3, 20, 24), 1.5), "label 2 is 1.5"),
    ],
)
def test_invalid_item_error_names_the_index(item: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        tw.load_images(Broken(item))


def test_dataset_requires_a_length() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(Counted())

    with pytest.raises(DataError, match=r"Stream has no length; pass list\(dataset\)"):
        tw.train(Stream())
    with pytest.raises(DataError, match="require labels="):
        tw.train(pictures())
    with pytest.raises(DataError, match="is empty"):
        tw.load_images(TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0)))


# Models


def test_model_embeds_every_form(tiny_model: Path) -> None:
    images, model = pictures(), tw.load(tiny_model)
    expected = model.embed(images)
    tensor = torch.from_numpy(images)
    for form in (images.transpose(0, 3, 1, 2), tensor, tensor.permute(0, 3, 1, 2) / 255, list(tensor)):
        np.testing.assert_allclose(model.embed(form), expected, atol=1e-6)
    np.testing.assert_allclose(model.embed(tensor[0].permute(2, 0, 1)[None]), expected[:1], atol=1e-6)
    first, second = tensor[0].permute(2, 0, 1), images[1].transpose(2, 0, 1) / 255
    assert model.verify(first, second).distance == pytest.approx(
        model.verify(images[0], images[1]).distance, abs=1e-6
    )
    found = model.classify(tensor, support=(images[::EACH], LABELS[::EACH]))
    assert len(found) == len(images)
