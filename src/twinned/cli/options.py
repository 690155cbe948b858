"""Options, arguments and output that commands share."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar, get_args, get_type_hints

import typer
from typer import Argument, Option

import twinned as tw

from ..errors import DataError
from ..utils.notes import logger
from ..utils.options import describe
from ..utils.progress import progress_bar

if TYPE_CHECKING:
    from ..data.preprocessing import Box, ImageSpec
    from ..evaluation.calibration import Prediction
    from ..gallery.results import Identification

_Command = TypeVar("_Command", bound=Callable[..., None])
ERRORS_SHOWN = 20  # of unreadable images
_MESSAGES = ("notes", "unreadable", "error", "message")  # keys of JSON
_LITERALS = {"True": "true", "False": "false"}


def as_options(text: str) -> str:
    """Write Python arguments in a message, such as `` `min_face=20` ``, as options: ``--min-face 20``."""
    return re.sub(r"`([a-z_]+)=([^`]*)`", _as_option, text)


def _as_option(found: re.Match[str]) -> str:
    name, value = found.groups()
    if name == "settings":
        pairs = re.findall(r'"([\w.]+)": "?([^,"}]+)', value)
        return " ".join(f"--set {key}={_LITERALS.get(each, each)}" for key, each in pairs)
    flag = "--force" if name == "overwrite" else "--" + name.replace("_", "-")
    return flag if value in ("", "True") else flag + " " + value.strip('"')


def print_note(text: str) -> None:
    """Print a sentence on standard error, wrapped on a terminal; a closed terminal is ignored."""
    with contextlib.suppress(OSError):
        print(wrapped(f"twinned: {as_options(text)}", sys.stderr), file=sys.stderr)


def wrapped(text: str, stream: TextIO) -> str:
    """Break a sentence between words where it is wider than the terminal; other streams get one line."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


class _NoteHandler(logging.Handler):
    """Print log records on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


def show_notes(quiet: bool) -> bool:
    """Print the records of the logger ``twinned`` on standard error, or discard them; return ``quiet``."""
    logger.setLevel(logging.INFO)
    logger.handlers = [logging.NullHandler() if quiet else _NoteHandler()]
    return quiet


def _messages_as_options(value: Any, message: bool = False) -> Any:
    """Write the Python arguments in the messages of a JSON value as options; labels and paths stay."""
    if isinstance(value, str):
        return as_options(value) if message else value
    if isinstance(value, (list, tuple)):
        return [_messages_as_options(one, message) for one in value]
    if isinstance(value, dict):
        return {name: _messages_as_options(one, name in _MESSAGES) for name, one in value.items()}
    return value


def print_errors(errors: Sequence[object]) -> None:
    """Print the errors of images on standard error, at most 20 of them."""
    for error in errors[:ERRORS_SHOWN]:
        print_note(f"left out: {error}")
    if (more := len(errors) - ERRORS_SHOWN) > 0:
        print_note(f"left out: {more:,} more images")


def image_paths(given: Sequence[Path]) -> list[str]:
    """Return the paths of images; a folder or a pattern such as ``*.jpg`` stands for its images."""
    from glob import glob

    from ..data.images import advice_on
    from ..data.readers import find_images

    paths: list[str] = []
    for path in map(str, given):
        found = [path] if os.path.exists(path) else sorted(glob(path, recursive=True))
        if not found:
            raise DataError("; ".join(filter(None, [f"{path}: no such file or folder", advice_on(path)])))
        for one in found:
            paths += find_images(one) if os.path.isdir(one) else [one]
    if not paths:
        raise DataError(f"no images in {', '.join(map(str, given))}")
    return paths


def face_name(image: str, box: Box | None) -> str:
    """Return the name of an image, with the box of a face."""
    return f"{image} {list(box)}" if box else image


MODEL_HELP = "Model folder, or a ready-made model: face, glyph or photo."
ModelFolder = Annotated[Path, Argument(help=MODEL_HELP, metavar="MODEL")]
Data = Annotated[
    Path, Argument(help="Folder with one folder per class, CSV file, or pair list.", metavar="DATA")
]
Images = Annotated[list[Path], Argument(help="Images, folders or patterns.", metavar="IMAGE...")]
EvaluationData = Annotated[
    Path,
    Argument(
        help="Folder with one folder per class, CSV file, pair list, or folder of a protocol.", metavar="DATA"
    ),
]
Threshold = Annotated[
    float | None, Option(help="Largest distance that counts as the same (default: the model's).")
]
MinFace = Annotated[
    int | None, Option("--min-face", help="Size of the smallest faces in pixels, at least 10.", metavar="PX")
]
Quiet = Annotated[
    bool,
    Option("--quiet", "-q", help="Hide progress bars and notes.", callback=show_notes, rich_help_panel="Run"),
]
Seed = Annotated[int, Option(help="Seed of all random numbers.", min=0, rich_help_panel="Run")]
Force = Annotated[bool, Option("--force", help="Overwrite an existing output.", rich_help_panel="Run")]
Device = Annotated[
    str, Option(help="Device that runs the model: auto, cpu, cuda, ...", rich_help_panel="Run")
]


def load_on(device: str, folder: Path) -> tw.Model:
    """Load a model on a device; add a note if ONNX Runtime does not support the device."""
    model = tw.load(folder, device=device)
    if device not in ("auto", "cpu") and model.encoder.note is not None:
        print_note(model.encoder.note)
    return model


@dataclass(frozen=True, kw_only=True)
class Run:
    """Options of all commands."""

    json: Annotated[
        bool, Option("--json", help="Print one JSON value on standard output.", rich_help_panel="Run")
    ] = False
    quiet: Quiet = False

    @property
    def progress(self) -> bool:
        """True to show progress bars."""
        return not self.quiet

    def working(self) -> AbstractContextManager[Any]:
        """Show that a command works while no other bar does."""
        return progress_bar("Working", show=self.progress)

    def print(self, value: Any, text: str) -> None:
        """Print a result as one JSON value, or as text; of several processes, that of rank 0 prints."""
        if os.environ.get("RANK", "0") == "0":
            shown = (
                json.dumps(_messages_as_options(value), allow_nan=False) if self.json else as_options(text)
            )
            print(shown, flush=True)

    def answers_on(
        self,
        images: Sequence[Path],
        spec: ImageSpec,
        answer: Callable[[list[str]], list[Any]],
        what: str,
        size: int = sys.maxsize,
    ) -> list[Any]:
        """Return the answers on images, in batches; those at which ``answer`` fails are left out."""
        from ..data.decoded import in_threads
        from ..data.preprocessing import read_faces

        def ask(paths: list[str]) -> list[Any]:
            found: list[Any] = []
            with progress_bar(what, len(paths), show=self.progress) as advance:
                for start in range(0, len(paths), size):
                    found += answer(paths[start : start + size])
                    advance(min(size, len(paths) - start))
            return found

        def read(index: int) -> None:
            read_faces(paths[index], spec)

        paths = image_paths(images)
        try:
            return ask(paths)
        except DataError:
            errors = in_threads(read, len(paths), "Reading", progress=False)
            left = [path for i, path in enumerate(paths) if i not in errors]
            if not left or not errors:
                raise
        print_errors(list(errors.values()))
        return ask(left)

    def print_answers(self, answers: Sequence[Prediction | Identification]) -> None:
        """Print the labels of images or faces, as `classify` and `identify` return them."""
        lines = [
            f"{face_name(each.image, each.box)}"
            f"  {each.label or ('unknown' + f' (nearest {each.nearest})' * bool(each.nearest))}"
            + (
                f"  probability {each.probability:.3f}  distance {each.distance:.4g}"
                + ("" if each.label else f", beyond the threshold {each.threshold:.4g}")
                if each.distance < math.inf
                else "  no image with a label is enrolled"
            )
            for each in answers
        ]
        self.print([each.to_json() for each in answers], "\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Served(Run):
    """Options of commands that a running service can answer."""

    url: Annotated[
        str | None,
        Option(
            "--url",
            help="Address of a running service that answers instead, such as http://127.0.0.1:8000; model and"
            " gallery are not opened (token: environment variable TWINNED_TOKEN).",
            rich_help_panel="Run",
        ),
    ] = None

    def load(self, model: Path, device: str = "auto") -> Any:
        """Load the model, or connect to the service."""
        if self.url is None:
            return load_on(device, model)
        from .remote import RemoteService

        return RemoteService(self.url)


@dataclass(frozen=True, kw_only=True)
class OneFace(Served):
    """Options of commands that use one face of a photograph."""

    faces: Annotated[
        str | None,
        Option(
            help="Face of photographs: largest, or none, the whole image (default: as the model was made)."
        ),
    ] = None
    min_face: MinFace = None

    def load(self, model: Path, device: str = "auto") -> Any:
        """Load the model, or connect to the service, with the faces that it looks for."""
        return super().load(model, device).with_faces(self.faces, self.min_face)


@dataclass(frozen=True, kw_only=True)
class EveryFace(OneFace):
    """Options of commands that can answer for each face of a photograph."""

    faces: Annotated[
        str | None,
        Option(
            help="Faces of photographs to use: largest, all (an answer for each face), or none, the whole"
            " image (default: as the model was made)."
        ),
    ] = None


class Commands(typer.Typer):
    """Typer application whose commands can take the options of a dataclass, such as `Run`, together."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Command], _Command]:
        """Register a command; the fields of a dataclass and the items of ``**options`` become options."""
        register = super().command(name, **options)

        def decorate(function: _Command) -> _Command:
            register(_expanded(function))
            return function

        return decorate


def _described(options: type) -> Iterator[Parameter]:
    """Yield the options that a `TypedDict` describes."""
    for name, kind, found in describe(options):
        flag = found.flag or f"--{name.replace('_', '-')}"
        option = Option(flag, help=f"{found.help}.", rich_help_panel=found.panel, min=found.least)
        shown: Any = Annotated[found.cli or kind, option]
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=found.default, annotation=shown)


def _expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function with one parameter for each option."""
    own = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)
    }
    parameters: list[Parameter] = []
    for name, one in own.items():
        if one.kind is Parameter.VAR_KEYWORD:
            parameters += _described(*get_args(one.annotation))
        elif name not in groups:
            parameters.append(one.replace(kind=Parameter.KEYWORD_ONLY))
    for group in groups.values():
        hints = get_type_hints(group, include_extras=True)
        options = inspect.signature(group).parameters.items()
        parameters += [one.replace(annotation=hints[name]) for name, one in options]

    def command(**given: Any) -> None:
        for name, group in groups.items():
            options = inspect.signature(group).parameters
            given[name] = group(**{option: given.pop(option) for option in options})
        function(**given)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
