"""The program: options that all commands share, how errors end it, how results are printed.

Exit 0 done; 1 only where a command says so (different, --strict); 2 for anything that went wrong, usage and
Ctrl-C included, with one line on standard error and no traceback; 3 for a bug of ours, whose traceback is
shown where TWINNED_TRACEBACK is set.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.exceptions import Exit, TyperException

from .. import __version__
from ..errors import MissingExtra, TwinnedError, is_out_of_memory

_CTRL_C = 130  # what typer makes of KeyboardInterrupt
# What only the extra `train` installs.
TRAINING = ("torch", "onnx", "onnxscript", "lightning_fabric")

app = typer.Typer(
    name="twinned",
    help="Tell whether two images show the same thing: train on your own, verify, recognise, search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no notes.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.", min=0)]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ... where the network runs.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"twinned {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def note(sentence: str) -> None:
    """Something a user should read, on standard error; work goes on after its terminal is closed."""
    with contextlib.suppress(OSError):
        print(f"twinned: {sentence}", file=sys.stderr)


def teller(quiet: bool) -> Callable[[str], None]:
    """`note`, or silence."""
    return (lambda sentence: None) if quiet else note


def print_result(value: Any, *, as_json: bool, text: str) -> None:
    """Print a result: as one JSON value, or in words."""
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, the first one speaks
        print(json.dumps(value, allow_nan=False) if as_json else text, flush=True)


def _misused(error: TyperException) -> int:
    """Say in one line how a command was misused; without any arguments, show its help instead."""
    text, context = error.format_message(), getattr(error, "ctx", None)
    if text.startswith("Usage:"):
        print(text, file=sys.stderr)
    else:
        command = context.command_path if context is not None else "twinned"
        note(f"{' '.join(text.split()).rstrip('.')}; see {command} --help")
    return 2


def main() -> None:
    """Run the program and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a file may be no text at all
            stream.reconfigure(errors="backslashreplace")
    try:
        from . import adapting, data, gallery, plot, predict, serve, train  # noqa: F401 - they register their commands

        result = app(prog_name="twinned", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == _CTRL_C:
            code = _explain(KeyboardInterrupt())
    except Exit as stop:
        code = stop.exit_code
    except (BrokenPipeError, SystemExit):  # whoever read our output has gone away; typer would exit with 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 2
    except (Exception, KeyboardInterrupt) as error:
        code = _explain(error)
    sys.exit(code)


def _explain(error: BaseException) -> int:
    """Say in one line what ended the program; the exit code."""
    if isinstance(error, TyperException):
        return _misused(error)
    if isinstance(error, TwinnedError):
        note(str(error))
    elif isinstance(error, ModuleNotFoundError) and error.name in TRAINING:
        note(str(MissingExtra("train", "this command")))
    elif isinstance(error, (KeyboardInterrupt, typer.Abort)):
        note("stopped")
    elif is_out_of_memory(error):
        note("not enough memory; free some, or use smaller images, batches or data")
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        note("cannot start another thread; raise the limit on memory or on processes")
    elif isinstance(error, OSError):
        note(f"{error.filename or 'the system'}: {error.strerror or error}")
    else:  # a bug of ours; exit code 1 would read as "different"
        if os.environ.get("TWINNED_TRACEBACK"):
            traceback.print_exception(error)
        note(f"a bug in Twinned, please report it: {type(error).__name__}: {error}")
        return 3
    return 2
