"""Errors: class hierarchy, messages and pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from twinned import errors


def test_all_errors_derive_from_twinned_error() -> None:
    ours = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(ours) == 10
    assert all(issubclass(e, errors.TwinnedError) for e in ours)
    assert issubclass(errors.DataError, ValueError)
    assert issubclass(errors.SettingError, ValueError)
    assert issubclass(errors.MissingExtra, ImportError)


@pytest.mark.parametrize(
    "error", [errors.ImageError("a.png", "is empty"), errors.MissingExtra("serve", "The service")]
)
def test_errors_can_be_pickled_and_copied(error: errors.TwinnedError) -> None:
    """A process pool pickles errors; one that cannot be unpickled blocks the pool."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_image_error_has_source_and_reason() -> None:
    error = errors.ImageError("a.png", "is empty")
    assert str(error) == "a.png: is empty"
    assert (error.source, error.reason) == ("a.png", "is empty")


def test_missing_extra_names_the_package() -> None:
    assert "pip install 'twinned[serve]'" in str(errors.MissingExtra("serve", "The service"))
