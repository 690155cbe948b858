"""Exception tree of Twinned.

    TwinnedError
    ├── DataError (ValueError)       images, labels, pairs or lists cannot be used
    │   └── ImageError               one image cannot be used; has ``.source`` and ``.reason``
    ├── SettingError (ValueError)    an option, a name or a number is not allowed
    ├── ModelError                   a model folder is missing, damaged or of another version
    ├── GalleryError                 a gallery is missing, damaged, busy or of another model
    │   ├── NotEnrolledError         the gallery has no image with the id or label
    │   └── LabelConflictError       the same image is enrolled under another label
    ├── TrainingError                training cannot start or continue
    └── MissingExtra (ImportError)   an optional part of Twinned is not installed

Every message names the problem with the value seen, then the remedy. The command line prints the message and
exits with 2. Any other exception is a bug in Twinned.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

# Parts of messages, in lower case, for errors that have no type of their own.
_OUT_OF_MEMORY = (
    "failed to map segment",  # the dynamic loader
    "bad_alloc",  # the C++ library
    "bad allocation",  # the same on Windows
    "cannot allocate memory",  # the operating system
    "failed to allocate memory",  # ONNX Runtime
    "can't allocate memory",  # PyTorch on the CPU
    "out of memory",  # PyTorch on another device
)


class TwinnedError(Exception):
    """Base class of the exceptions of Twinned."""


class DataError(TwinnedError, ValueError):
    """Images, labels, pairs or lists cannot be used."""


class ImageError(DataError):
    """One image cannot be used.

    Args:
        source: Path of the file, or a description of another kind of image.
        reason: Problem, without the path.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)  # pickling calls the constructor with these
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class SettingError(TwinnedError, ValueError):
    """An option, a name or a number is not allowed."""


class ModelError(TwinnedError):
    """A model folder is missing, damaged, or of a version that cannot be read."""


class GalleryError(TwinnedError):
    """A gallery is missing, damaged, in use by another process, or filled by another model."""


class NotEnrolledError(GalleryError):
    """The gallery has no image with the id or label."""


class LabelConflictError(GalleryError):
    """The same image is already enrolled under another label."""


class TrainingError(TwinnedError):
    """Training cannot start or continue."""


class MissingExtra(TwinnedError, ImportError):  # noqa: N818 - named like a missing module
    """An optional part of Twinned is not installed.

    Args:
        extra: Name in ``pip install 'twinned[extra]'``.
        what: Part that requires the extra, as the start of the sentence.
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(extra, what)
        self.extra = extra
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} needs the extra '{self.extra}': pip install 'twinned[{self.extra}]'"


def some(words: Sequence[str], most: int = 3) -> str:
    """The first of many, for a message."""
    more = len(words) - most
    return "; ".join(words[:most]) + (f"; and {more:,} more" if more > 0 else "")


def many(count: int, one: str) -> str:
    """A count with its noun, for a message: 1 class, 2,000 classes."""
    several = one + ("es" if one.endswith("s") else "s")
    return f"{count:,} {one if count == 1 else several}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: some libraries report that in the message only."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(part in str(error).lower() for part in _OUT_OF_MEMORY)
