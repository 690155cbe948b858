"""The service as its own process, started by the command, as its users have it."""

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
    """A service: its address, its process, and what it said on standard error so far."""

    address: str
    process: subprocess.Popen[str]
    said: list[str]

    def client(self) -> httpx.Client:
        """Asks it."""
        return httpx.Client(base_url=self.address, timeout=30)

    def connect(self) -> socket.socket:
        """A bare connection."""
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        return socket.create_connection((host, int(port)), timeout=30)


@contextlib.contextmanager
def running(model: Path | str, *options: object, **variables: str) -> Iterator[Running]:
    """Start ``twinned serve`` on a free port; ended at the end, if need be by force."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [*COMMAND, str(model), "--port", "0", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    said: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        for line in process.stderr or ():
            said.append(line)
            if "serving" in line:
                ready.set()
        ready.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert ready.wait(60)
        found = re.search(r"http://\S+:\d+", "".join(said))
        assert found, "".join(said)
        yield Running(found[0], process, said)
    finally:
        process.kill()
        process.wait()
        listener.join()
