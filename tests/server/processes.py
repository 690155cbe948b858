"""Run the service in a process, started by the command."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

COMMAND = [sys.executable, "-c", "from twinned.cli.main import main; main()", "serve"]


@dataclass
class Running:
    """Running service: address, process, and lines of standard error."""

    address: str
    process: subprocess.Popen[str]
    lines: list[str]

    def client(self) -> httpx.Client:
        """Return an HTTP client of the service."""
        return httpx.Client(base_url=self.address, timeout=30)

    def connect(self) -> socket.socket:
        """Open a socket to the service."""
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        return socket.create_connection((host, int(port)), timeout=30)


@contextlib.contextmanager
def running(model: Path | str, *options: object, **variables: str) -> Iterator[Running]:
    """Start ``twinned serve`` on a free port and kill it at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [*COMMAND, str(model), "--port", "0", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    lines: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        for line in process.stderr or ():
            lines.append(line)
            if "serving" in line:
                ready.set()
        ready.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert ready.wait(60)
        found = re.search(r"http://\S+:\d+", "".join(lines))
        assert found, "".join(lines)
        yield Running(found[0], process, lines)
    finally:
        process.kill()
        process.wait()
        listener.join()
