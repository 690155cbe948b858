"""The command that serves a model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingExtra, SettingError
from .app import Device, Quiet, app, note
from .using import ModelFolder


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
        Path | None, typer.Option(help="Its first line is the token; or the variable TWINNED_TOKEN.")
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
    from ..gallery import open_gallery
    from ..model import load

    try:
        from .. import server
        from ..server import running
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "uvicorn", "h11", "python_multipart", "prometheus_client"):
            raise MissingExtra("serve", "The service") from None
        raise
    token = _token(token_file)
    running.check_token(host, token)
    loaded = load(model, device=device)
    listening = running.listen(host, port)
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
    if not quiet:
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        note(f"serving {model} at http://{shown}:{number}/ ; Ctrl-C stops it")
    server.serve(service, listening)


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("TWINNED_TOKEN")
    from ..server.running import token_from

    try:
        with file.open(encoding="utf-8") as lines:
            return token_from(lines)
    except UnicodeDecodeError:
        raise SettingError(f"{file}: is not text; its first line must be the token") from None
