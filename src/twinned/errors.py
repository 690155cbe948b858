"""Every error that Twinned raises on purpose, in one tree, and a word for their messages.

    TwinnedError
    ├── DataError (ValueError)       the images, labels, pairs or lists that were given
    │   └── ImageError               one image cannot be used; has ``.source`` and ``.reason``
    ├── SettingError (ValueError)    an option, a name or a number that was given
    ├── ModelError                   a model folder is missing, damaged or of another version
    ├── GalleryError                 a gallery is missing, damaged, busy or of another model
    │   ├── NotEnrolledError         no image of the gallery has that id or label
    │   └── LabelConflictError       the same image is enrolled under another label
    ├── TrainingError                training cannot go on (NaN, nothing to learn from)
    └── MissingExtra (ImportError)   a part of Twinned that is not installed

Every message says what came, what was expected and what to do. The command line prints the
message and exits with 2; anything that is not a ``TwinnedError`` is a bug of ours.
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
    """Base of every error that Twinned raises on purpose."""


class DataError(TwinnedError, ValueError):
    """The images, labels, pairs or lists that were given cannot be used."""


class ImageError(DataError):
    """One image cannot be used.

    Args:
        source: The file's path, or a description of an image that is no file.
        reason: What is wrong with it, without the path.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)  # what pickling hands to the constructor again
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class SettingError(TwinnedError, ValueError):
    """An option, a name or a number is not one that Twinned can use."""


class ModelError(TwinnedError):
    """A model folder is missing, damaged, or of a version that this Twinned cannot read."""


class GalleryError(TwinnedError):
    """A gallery is missing, damaged, in use by another process, or filled by another model."""


class NotEnrolledError(GalleryError):
    """No image of the gallery has that id or label."""


class LabelConflictError(GalleryError):
    """The same image is enrolled under another label already."""


class TrainingError(TwinnedError):
    """Training cannot go on, or cannot start."""


class MissingExtra(TwinnedError, ImportError):  # noqa: N818 - it names what is missing
    """A part of Twinned is not installed.

    Args:
        extra: The name in ``pip install 'twinned[extra]'``.
        what: What was asked for, to begin the sentence.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: some libraries report that in the message only."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(part in str(error).lower() for part in _OUT_OF_MEMORY)
