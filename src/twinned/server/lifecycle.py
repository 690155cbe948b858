"""Run the application: socket, timeouts of connections, and graceful stop."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import socket
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from ..errors import SettingError
from .limits import Limits
from .problems import Problem
from .security import LOOPBACK, SECURITY_HEADERS
from .service import CLOSE_SECONDS

MIN_TOKEN = 16  # characters
_MMAP_THRESHOLD = -3  # parameter of mallopt(3)


def read_token(host: str, file: Path | None) -> str | None:
    """Return the token of a file's first line, or of TWINNED_TOKEN; a public address requires one."""
    token = os.environ.get("TWINNED_TOKEN")
    if file is not None:
        try:
            with file.open(encoding="utf-8") as lines:
                token = lines.readline().strip()
        except UnicodeDecodeError:
            raise SettingError(f"{file}: is not text. Its first line must be the token") from None
        if not token:
            raise SettingError("The token file is empty. Write the token on its first line")
    if token is None and host not in LOOPBACK:
        raise SettingError(
            f"{host} can be reached from other machines, so a token is required. Give --token-file FILE, or "
            "set the environment variable TWINNED_TOKEN"
        )
    if token is not None and not re.fullmatch(f"[!-~]{{{MIN_TOKEN},}}", token):
        raise SettingError(
            f"The token ({len(token)} characters) must be at least {MIN_TOKEN} letters, digits, - and _. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 selects a free port."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"{host}:{port}: the address is not available ({reason}). Choose another --port or --host"
        ) from None


def serve(app: Any, listening: socket.socket, *, limits: Limits | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests are completed. The socket is that of `listen`."""
    bounds = limits or Limits()
    # Makes glibc return large blocks to the system when they are freed. By default, uploads of up to 32 MB
    # leave gaps in the heap of each thread: 20 MB in 40 hostile seconds.
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 20)
    # The response describes a damaged body. Clients must not be able to fill the log with them.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

    class Connection(_Connection):
        limits = bounds

    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(0, bounds.stop_seconds - CLOSE_SECONDS),  # type: ignore[arg-type]
    )
    _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Server that does not raise the signal again after it has stopped, so the process exits with 0."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # on the second signal
        self.should_exit = True


class _Connection(H11Protocol):
    """Connection that is closed if it stays idle, or if its client reads the response too slowly."""

    limits: Limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does not set this if the listening socket's protocol is 0. Without it, the second part of a
        # response waits 40 ms for the client's delayed acknowledgment.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._seen: tuple[RequestResponseCycle | None, int] = (None, 0)
        self._look: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            transport.abort()
        else:
            self._look = self.loop.call_later(self.limits.idle_seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        """Close the connection if its state has not changed since the last check."""
        cycle = self.cycle
        before, times = self._seen
        times = times + 1 if cycle is before else 0
        self._seen = cycle, times
        idle = cycle is None or cycle.response_complete
        slow = cycle is not None and cycle.response_started and times > 3
        if (idle and times) or slow:
            self.transport.abort()
        else:
            self._look = self.loop.call_later(self.limits.idle_seconds, self._check)

    def send_400_response(self, msg: str) -> None:
        """Respond to malformed HTTP with problem+json, like to all other errors."""
        answer = Problem(
            400, "The request is not valid HTTP", {"Connection": "close"} | SECURITY_HEADERS
        ).response()
        for event in (
            h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
