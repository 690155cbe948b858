"""The command that serves a model over HTTP."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

import twinned as tw

from ..errors import MissingExtra, TwinnedError
from .options import Commands, Device, ModelFolder, Quiet, print_note

if TYPE_CHECKING:
    from ..server.security import SecurityMiddleware

app = Commands()


@app.command()
def serve(
    model: ModelFolder,
    gallery: Annotated[
        str | None, Option(help="Gallery: a folder, created if missing, or http://HOST:6333/NAME.")
    ] = None,
    host: Annotated[
        str, Option(help="Address to listen on. Any address other than localhost requires a token.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to listen on; 0 takes a free port.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None,
        Option(
            help="File whose first line is the access token, read again on SIGHUP (default: the environment"
            " variable TWINNED_TOKEN)."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        Option(help="Additional host name of the service, for example behind a proxy; can be repeated."),
    ] = None,
    read_only: Annotated[bool, Option("--read-only", help="Refuse all changes to the gallery.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Serve a model over HTTP: an API, and a web page to compare, identify, enroll, search and map images."""
    from ..gallery.open import open_gallery

    try:
        from .. import server
        from ..server import lifecycle
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "uvicorn", "h11", "python_multipart", "prometheus_client"):
            raise MissingExtra("serve", "the service") from None
        raise
    read_token = partial(lifecycle.read_token, host, token_file)
    token = read_token()
    loaded = tw.load(model, device=device)
    listening = lifecycle.listen(host, port)
    opened = None
    if gallery is not None:
        opened = open_gallery(
            gallery, loaded, create=not read_only, read_only=read_only, timeout=server.Limits().wait_seconds
        )
    service = server.create_app(
        loaded, opened, token=token, host=host, names=allow_host or (), read_only=read_only
    )
    _reload_on_hangup(service, read_token, token_file, quiet=quiet)
    if not quiet:
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        print_note(f"serving {model} at http://{shown}:{number}/ ; Ctrl-C stops it")
    server.serve(service, listening)


def _reload_on_hangup(
    service: SecurityMiddleware, read: Callable[[], str | None], file: Path | None, *, quiet: bool
) -> None:
    """Read the token file again on SIGHUP, unless that signal is ignored, as under nohup."""
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return

    def reload(*_: object) -> None:
        with contextlib.suppress(OSError):  # standard error may be closed
            try:
                if file is not None:
                    service.token = read()
            except (TwinnedError, OSError) as error:
                reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
                print_note(f"SIGHUP: the token is unchanged: {reason}")
            else:
                if not quiet:
                    done = f"{file}: was read again" if file is not None else "there is no token file to read"
                    print_note(f"SIGHUP: {done}")

    signal.signal(signal.SIGHUP, reload)
