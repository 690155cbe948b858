"""Letters in the typefaces of matplotlib."""

import numpy as np
import pytest

import twinned as tw
from twinned.errors import DataError


@pytest.fixture(scope="module")
def every():
    return tw.data.load_letters(["latin", "greek", "cyrillic", "armenian", "georgian"], size=24)


def test_classes_have_enough_typefaces(every):
    _, counts = np.unique(every.labels, return_counts=True)
    assert counts.min() >= 10
    assert counts.max() == 16
    assert len(counts) > 200
    assert set(every.groups) == {"latin", "greek", "cyrillic", "armenian", "georgian"}


def test_images_are_dark_on_white(every):
    pixels = np.stack(every.images)
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (24, 24)
    assert (pixels.max(axis=(1, 2)) == 255).all()
    assert (pixels.min(axis=(1, 2)) < 128).all()
    assert (np.median(pixels, axis=(1, 2)) > 200).mean() > 0.95


def test_letters_of_one_shape_share_a_class(every):
    labels = set(every.labels)
    assert "latin-capital-a" in labels
    assert labels.isdisjoint(
        {"greek-capital-alpha", "cyrillic-capital-a", "latin-small-c", "armenian-small-oh"}
    )
    assert {"cyrillic-capital-zhe", "greek-capital-omega", "armenian-capital-ayb", "georgian-an"} <= labels


def test_scripts_share_no_class(every):
    known = tw.data.load_letters(size=24)
    novel = tw.data.load_letters(["armenian", "georgian"], size=24)
    assert not set(known.labels) & set(novel.labels)
    assert len(known) + len(novel) == len(every)
    assert all(
        np.array_equal(a, b) for a, b in zip([*known.images, *novel.images], every.images, strict=True)
    )


def test_seed_determines_the_distortions():
    one, same, other = (tw.data.load_letters(["latin"], size=16, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)
    assert np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scripts": ["klingon"]}, "Unknown script klingon"),
        ({"scripts": []}, "Unknown script"),
        ({"size": 8}, "at least 16 pixels"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        tw.data.load_letters(**arguments)
