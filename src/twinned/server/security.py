"""Access control and response headers. The outermost middleware: it runs before everything else.

A page in a user's browser must not be able to use a service on the user's own machine. Checking the ``Host``
header stops foreign names that resolve to this machine (DNS rebinding). Checking ``Origin`` and
``Sec-Fetch-Site`` stops requests that a foreign page sends to the service's own name.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import time
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import Problem, overloaded

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
# The page contains no secrets, and it has to ask for the token.
_OPEN = frozenset(("/", "/docs", "/healthz", "/openapi.json", "/favicon.ico"))

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_NO_STORE = (b"cache-control", b"no-store")


class Hosts:
    """Accepted values of the Host header: the address that the service listens on, and further names.

    A foreign name can resolve to any address, but an IP address cannot be forged. A service that other
    machines can reach therefore accepts all IP addresses, and only its own names.
    """

    def __init__(self, host: str, names: Iterable[str] = ()) -> None:
        self.local = host in LOOPBACK
        own = set() if self.local else {socket.gethostname().lower()}
        self._names = LOOPBACK | {host.lower(), *own, *(name.lower() for name in names)}

    def __contains__(self, header: str) -> bool:
        name = _host_of(header)
        return name in self._names or (not self.local and _is_address(name))


class SecurityMiddleware:
    """Middleware that passes a request to the application, or rejects it.

    The ``token``, which can be replaced while the service runs, is required unless it is None.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, token: str | None, metrics: Metrics) -> None:
        self.app, self.token = app, token
        self._hosts, self._metrics = hosts, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # handled as GET; the server drops the body
            scope = {**scope, "method": "GET"}
        began = time.perf_counter()
        started, status = False, 500
        private = scope["path"].startswith(("/v1/", "/metrics"))

        async def dress(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started = True
                status = message["status"]
                headers = [*message.get("headers", ()), *_RAW_HEADERS]
                if private and not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, receive, dress)
        except Problem as problem:
            await problem.response()(scope, receive, dress)
        except asyncio.CancelledError:  # a stopping server cancels requests that run too long
            if started:
                raise
            await overloaded("The service is stopping").response()(scope, receive, dress)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, scope["method"], status, time.perf_counter() - began)

    def _check(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host not in self._hosts:
            raise Problem(
                403,
                f"This service does not accept the host name {_host_of(host)!r}. Use its address, or start "
                "it with --allow-host NAME",
            )
        _check_origin(scope, headers, host)
        path = scope["path"]
        if path in _OPEN or path.startswith("/static/"):
            return
        if self.token is not None:
            scheme, _, given = headers.get(b"authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
            if scheme.lower() != "bearer" or not right:
                received = "the one sent is wrong" if given else "none was sent"
                raise Problem(
                    401,
                    f"This service requires a token; {received}. Send the header Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )


def _check_origin(scope: Scope, headers: dict[bytes, str], host: str) -> None:
    """Check the page that a browser's request comes from: the service's own, or a typed or clicked link."""
    origin = headers.get(b"origin")
    scheme, _, site = (origin or "").lower().partition("://")
    if origin is not None and (scheme not in ("http", "https") or site != host.lower()):
        raise Problem(
            403, f"A page of {origin[:200]!r} may not use this service. Open the service's own page"
        )
    foreign = headers.get(b"sec-fetch-site") in ("cross-site", "same-site")
    opened = headers.get(b"sec-fetch-mode") == "navigate" and scope["method"] == "GET"
    if foreign and not opened:
        raise Problem(403, "A page of another site may not use this service. Open the service's own page")


def _host_of(header: str) -> str:
    """Return the name or address of a Host header, without the port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
