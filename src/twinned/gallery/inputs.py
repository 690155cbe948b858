"""What a caller may hand to a gallery, checked and brought to one form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from ..data.images import ImageSource, as_many
from ..errors import DataError
from .store import (
    Filter,
    Value,
    is_unicode,
    metadata_path,
)

Where: TypeAlias = Mapping[str, Value | Sequence[Value]]
T = TypeVar("T")


def as_list(images: ImageSource | Sequence[ImageSource]) -> list[ImageSource]:
    """One image or many, as a list; see `twinned.data.images.as_many`."""
    return list(as_many(images))


def spread(values: T | Sequence[T], count: int, what: str, one: type | tuple[type, ...]) -> list[T]:
    """One value for all images or one for each, as a list of ``count``."""
    if isinstance(values, one):
        return [values] * count  # type: ignore[list-item]
    listed: list[T] = list(values)  # type: ignore[arg-type]
    if len(listed) != count:
        raise DataError(
            f"{len(listed)} {what} were given for {count} images; expected one for each, or one for all"
        )
    return listed


def check_labels(labels: Iterable[Any]) -> None:
    """Check that each label is one line of text that is not empty, or None.

    Raises:
        DataError: If one is not.
    """
    for label in labels:
        if label is not None and (not isinstance(label, str) or not label):
            raise DataError(f"label {label!r} cannot be used; expected text that is not empty, or None")
        if label is not None and label.splitlines() != [label]:
            raise DataError(f"label {label!r} has a line break; a label is one line of text")
        if label is not None and not is_unicode(label):
            raise DataError(f"label {label!r} is not Unicode text; give it (or its folder) another name")


def check_metadata(metadata: Iterable[Mapping[Any, Any]]) -> None:
    """Metadata maps keys to text, finite numbers and booleans.

    Raises:
        SettingError: If a key cannot be used.
        DataError: If a value cannot be used.
    """
    for mapping in metadata:
        for key, value in mapping.items():
            metadata_path(key)
            if not isinstance(value, (str, int, float)) or (
                isinstance(value, float) and not math.isfinite(value)
            ):
                raise DataError(
                    f"metadata {key!r}: {value!r} cannot be kept; expected text, a finite number or a boolean"
                )
            if isinstance(value, str) and not is_unicode(value):
                raise DataError(
                    f"metadata {key!r}: {value!r} is not Unicode text; send text that UTF-8 can hold"
                )
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise DataError(f"metadata {key!r}: {value} does not fit in 64 bits; give it as text")


def filter_by(label: str | Sequence[str] | None, where: Where | None) -> Filter:
    """A filter from what a caller gave."""
    listed = {
        key: tuple(values) if isinstance(values, (list, tuple, set, frozenset)) else (values,)
        for key, values in (where or {}).items()
    }
    for key, values in listed.items():
        if not values:
            raise DataError(f"where {key!r}: no value came; expected one, or a list of some")
    check_metadata({key: value} for key, values in listed.items() for value in values)
    labels = (label,) if isinstance(label, str) else label
    return Filter(labels=None if labels is None else tuple(labels), where=listed)
