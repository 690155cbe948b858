"""The program ``twinned``: its commands, and the exit codes and messages of errors.

Exit codes: 0 success; 1 only for results that a command documents (different, --strict); 2 any error,
including usage errors and Ctrl-C, with one line on standard error; 3 a bug in Twinned. ``--debug`` or the
environment variable TWINNED_TRACEBACK adds the traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup
from typer.exceptions import Exit, TyperException

from .. import __version__
from ..errors import MissingExtra, TwinnedError, is_out_of_memory
from .options import print_note, show_notes

_CTRL_C = 130  # exit code that typer gives to KeyboardInterrupt
_TRACEBACK = "TWINNED_TRACEBACK"
# Packages that only the extra `train` installs.
TRAINING = ("torch", "onnx", "onnxscript", "lightning_fabric")

# Commands of each module of this package; one of the module's name is its `group`.
_COMMANDS = {
    "data": ("check", "crop", "data"),
    "train": ("train", "finetune", "wrap", "calibrate", "export"),
    "predict": ("verify", "classify", "embed", "evaluate", "compare", "models"),
    "gallery": ("identify", "search", "gallery"),
    "plot": ("explain", "plot"),
    "serve": ("serve",),
    "demo": ("demo",),
}


def _without_bool(params: list[Any]) -> list[Any]:
    """Remove ``<bool>`` from the help of flags, which take no value."""
    for param in params:
        if getattr(param, "is_bool_flag", False):
            param.metavar = ""
    return params


class Group(TyperGroup):
    """Command group that prints its help on standard error, with exit code 2, if no command is given."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_bool(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and ctx is not None:
            _without_bool(command.get_params(ctx))
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        with contextlib.redirect_stdout(sys.stderr):
            if help_text := ctx.get_help():  # empty where Rich has printed it already
                print(help_text)
        raise Exit(2)


class _Program(Group):
    """The command ``twinned``. The module of a command is imported on first use."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        known = [name for name, commands in _COMMANDS.items() if cmd_name in commands]
        for name in known or _COMMANDS:  # all of them to suggest a command for an unknown one
            self._load(name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        for name in _COMMANDS:
            self._load(name)
        return sorted(self.commands, key=lambda name: isinstance(self.commands[name], Group))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their whole first sentence."""
        rows = [(name, self.commands[name].help or "") for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(text.partition("\n\n")[0].split())) for name, text in rows])

    def _load(self, name: str) -> None:
        if not self.commands.keys() >= set(_COMMANDS[name]):
            module, part = import_module(f".{name}", __package__), typer.Typer(rich_markup_mode="rich")
            part.add_typer(module.app)
            if name in _COMMANDS[name] and hasattr(module, "group"):
                part.add_typer(module.group, name=name, cls=Group)
            self.commands.update(typer.main.get_group(part).commands)


app = typer.Typer(
    name="twinned",
    cls=_Program,
    help="Train Siamese networks on your own images: verify, classify from one example, search.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing Rich takes half of the time of `twinned --help`
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"twinned {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, Option("--debug", help=f"Print the traceback of an error, as the variable {_TRACEBACK}=1 does.")
    ] = False,
) -> None:
    if debug:
        os.environ[_TRACEBACK] = "1"


def main() -> None:
    """Run the program and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be valid Unicode
            stream.reconfigure(errors="backslashreplace")
    show_notes(quiet=False)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them takes a while
    try:
        result = app(prog_name="twinned", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == _CTRL_C:
            code = _explain(KeyboardInterrupt())
    except Exit as stop:
        code = stop.exit_code
    except (BrokenPipeError, SystemExit) as stop:
        code = 0
        if not (isinstance(stop, SystemExit) and stop.code in (0, None)):  # shell completion ends with 0
            # The reader of our output has closed it, for which typer would exit with 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 2
    except (Exception, KeyboardInterrupt) as error:
        code = _explain(error)
    sys.exit(code)


def _explain(error: BaseException) -> int:
    """Print one line about the error that ended the program, and return the exit code."""
    if isinstance(error, TyperException):
        print_note(_usage_error(error))
        return 2
    if os.environ.get(_TRACEBACK):
        traceback.print_exception(error)
    if isinstance(error, TwinnedError):
        print_note(str(error))
    elif isinstance(error, ModuleNotFoundError) and error.name in TRAINING:
        print_note(str(MissingExtra("train", "this command")))
    elif isinstance(error, (KeyboardInterrupt, typer.Abort)):
        print_note("stopped")
    elif is_out_of_memory(error):
        print_note("not enough memory. Free some, or use smaller images, smaller batches or less data")
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        print_note("cannot start another thread. Raise the limit on memory or on processes")
    elif isinstance(error, OSError):
        print_note(f"{error.filename or 'the system'}: {error.strerror or error}")
    else:
        hint = (
            "" if os.environ.get(_TRACEBACK) else f" (twinned --debug or {_TRACEBACK}=1 adds the traceback)"
        )
        print_note(f"a bug in Twinned, please report it: {type(error).__name__}: {error}{hint}")
        return 3
    return 2


def _usage_error(error: TyperException) -> str:
    """Describe in one line how a command was misused."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "twinned"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see {command} --help"
