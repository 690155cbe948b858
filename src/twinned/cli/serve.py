"""The command that serves a model over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import MissingExtra, SettingError, TwinnedError
from .main import (
    Device,
    Quiet,
    app,
    note,
    teller,
)
from .predict import ModelFolder

if TYPE_CHECKING:
    from ..server.security import SecurityMiddleware


@app.command()
def serve(
    model: ModelFolder,
    gallery: Annotated[
        str | None, typer.Option(help="A folder, made if it is not there, or http://host:6333/name.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Another address than this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Its first line is the token; SIGHUP reads it again. Or the variable TWINNED_TOKEN."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name it is reached by, behind a proxy, say; may be given again."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse every change of the gallery.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Serve a model: a web page to compare, identify, enrol, search and map, and an HTTP API."""
    from ..gallery.open import open_gallery
    from ..inference.model import load

    try:
        from .. import server
        from ..server import lifecycle
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "uvicorn", "h11", "python_multipart", "prometheus_client"):
            raise MissingExtra("serve", "The service") from None
        raise
    token = _checked_token(host, token_file)
    loaded = load(model, device=device)
    listening = lifecycle.listen(host, port)
    opened = None
    if gallery is not None:
        opened = open_gallery(
            gallery,
            loaded,
            create=not read_only,
            read_only=read_only,
            timeout=server.Limits().wait_seconds,
        )
    service = server.create_app(
        loaded, opened, token=token, host=host, names=allow_host or (), read_only=read_only
    )
    _reload_on_hangup(service, lambda: _checked_token(host, token_file), token_file, quiet=quiet)
    if not quiet:
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        note(f"serving {model} at http://{shown}:{number}/ ; Ctrl-C stops it")
    server.serve(service, listening)


def _reload_on_hangup(
    service: SecurityMiddleware, read: Callable[[], str | None], file: Path | None, *, quiet: bool
) -> None:
    """Read the token file again on SIGHUP, unless that signal is ignored already, as under nohup."""
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return

    def reload(*_: object) -> None:
        with contextlib.suppress(OSError):  # of standard error, where its terminal is closed
            try:
                if file is not None:
                    service.token = read()
            except (TwinnedError, OSError) as error:
                note(f"SIGHUP: the token stays the one from before: {_sentence(error)}")
            else:
                done = f"{file}: was read again" if file is not None else "there is no token file to read"
                teller(quiet)(f"SIGHUP: {done}")

    signal.signal(signal.SIGHUP, reload)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _checked_token(host: str, file: Path | None) -> str | None:
    from ..server.lifecycle import check_token

    token = _token(file)
    check_token(host, token)
    return token


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("TWINNED_TOKEN")
    from ..server.lifecycle import token_from

    try:
        with file.open(encoding="utf-8") as lines:
            return token_from(lines)
    except UnicodeDecodeError:
        raise SettingError(f"{file}: is not text; its first line must be the token") from None
