"""The command and its process: errors, shutdown, and limits of connections."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

import twinned as tw
from twinned.cli.serve import _reload_on_hangup
from twinned.inference.model import Model
from twinned.server.app import create_app
from twinned.server.batching import EncoderPlan
from twinned.server.lifecycle import listen, serve
from twinned.server.limits import Limits

from ..conftest import EMBEDDING
from .conftest import drawing, encoded, pictures, png
from .processes import COMMAND, running


def test_service_runs_until_sigterm(model_folder: Path, tmp_path: Path) -> None:
    with running(model_folder, "--gallery", tmp_path / "new.gallery") as service:
        with service.client() as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            client.post("/v1/gallery", files=pictures("circle"), data={"label": "c"}).raise_for_status()
            damaged = {"Content-Type": "multipart/form-data; boundary=b"}
            assert client.post("/v1/gallery", content=b"x", headers=damaged).status_code == 422
            figures = client.get("/metrics").text
            assert 'twinned_requests_total{method="POST",route="/v1/gallery",status="200"} 1.0' in figures
            assert "twinned_gallery_images 1.0" in figures
            assert "process_resident_memory_bytes" in figures
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        assert len(service.lines) == 1, service.lines  # the damaged body is not logged
    with tw.load(model_folder).gallery(tmp_path / "new.gallery", create=False) as gallery:
        assert gallery.labels() == {"c": 1}


def test_shutdown_finishes_running_requests(model_folder: Path, tmp_path: Path) -> None:
    """The signal arrives while twenty large photographs are enrolled."""
    photo = drawing("cross", 1, 1600)
    files = []
    for shade in range(20):
        photo.putpixel((0, 0), (shade, 0, 0))
        photo.paste((shade * 6, 9, 9), (0, 0, 400, 400))
        files.append(("images", (f"{shade}.jpg", encoded(photo, "JPEG"))))
    with running(model_folder, "--gallery", tmp_path / "g.gallery") as service, service.client() as client:
        answers: list[httpx.Response] = []
        request = threading.Thread(
            target=lambda: answers.append(client.post("/v1/gallery", files=files, data={"label": "x"}))
        )
        request.start()
        time.sleep(0.3)
        if answers:
            pytest.skip("this machine was done with twenty photographs before the signal could be sent")
        service.process.send_signal(signal.SIGINT)
        request.join(60)
        assert answers[0].json()["stored"] == 20
        assert service.process.wait(60) == 0


def test_acknowledged_images_survive_kill_9(model_folder: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []

    def enroll(address: str, place: int) -> None:
        with httpx.Client(base_url=address, timeout=30) as client:
            for seed in range(10_000):
                try:
                    answer = client.post(
                        "/v1/gallery", files=pictures(f"ring-{place}{seed:04}"), data={"label": f"p{place}"}
                    )
                    acknowledged.extend(answer.json()["ids"])
                except httpx.HTTPError:
                    return

    with running(model_folder, "--gallery", tmp_path / "g.gallery") as service:
        threads = [threading.Thread(target=enroll, args=(service.address, place)) for place in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 120
        while len(acknowledged) < 60 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(service.process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(30)
    assert len(acknowledged) >= 60
    with tw.load(model_folder).gallery(tmp_path / "g.gallery", create=False) as gallery:
        stored = {item.id for item in gallery.list().items}
    assert set(acknowledged) <= stored


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "a token is required"),
        (["--host", "0.0.0.0", "--token-file", "short"], "at least 16"),
        (["--token-file", "missing"], "missing: No such file"),
        (["--gallery", "g", "--read-only"], "the gallery does not exist"),
        (["--host", "not-an-address.invalid", "--token-file", "good"], "the address is not available"),
    ],
)
def test_invalid_options_are_refused_in_one_line(
    model_folder: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    (tmp_path / "short").write_text("secret\n")
    (tmp_path / "good").write_text("a-token-that-nobody-guesses\n")
    done = subprocess.run(
        [*COMMAND, str(model_folder), "--port", "0", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_public_address_requires_the_token(model_folder: Path) -> None:
    token = "a-token-that-nobody-guesses"
    with running(model_folder, "--host", "0.0.0.0", TWINNED_TOKEN=token) as service:
        address = service.address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}/v1/model").status_code == 401
        right = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}/v1/model", headers=right).status_code == 200
        foreign = httpx.get(f"{address}/v1/model", headers={"host": "evil.example", **right})
        assert foreign.status_code == 403


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup_reloads_the_token_file(model_folder: Path, tmp_path: Path) -> None:
    file, first, second = tmp_path / "token", "the-first-token-of-two", "the-second-token-of-two"
    file.write_text(first + "\n")
    with running(model_folder, "--token-file", file) as service, service.client() as client:

        def status(token: str) -> int:
            return client.get("/v1/model", headers={"authorization": f"Bearer {token}"}).status_code

        def hang_up(says: str) -> None:
            service.process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 60
            while says not in service.lines[-1]:
                assert time.monotonic() < end, service.lines
                time.sleep(0.02)

        assert (status(first), status(second)) == (200, 401)
        file.write_text(second + "\n")
        hang_up("was read again")
        assert (status(first), status(second)) == (401, 200)
        for content, says in (("short", "at least 16"), ("", "is empty"), (None, "No such file")):
            file.unlink() if content is None else file.write_text(content)
            hang_up(says)
            assert "token is unchanged" in service.lines[-1]
            assert status(second) == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
    with running(model_folder) as service, service.client() as client:
        service.process.send_signal(signal.SIGHUP)
        assert client.get("/healthz").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_ignored_sighup_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _reload_on_hangup(object(), lambda: None, tmp_path, quiet=True)  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_occupied_port_is_named_in_the_error(model_folder: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(tw.errors.SettingError, match=f"127.0.0.1:{port}: the address is not available"):
            listen("127.0.0.1", port)


# Connections


@pytest.fixture
def quick(model: Model):
    """Address of a service in a thread with short limits."""
    with _quick(model) as (address, _):
        yield address


@contextlib.contextmanager
def _quick(model: Model):
    limits = Limits(read_seconds=0.6, idle_seconds=0.4, connections=20, body_bytes=1_000_000)
    listening = listen("127.0.0.1", 0)
    servers: list[uvicorn.Server] = []
    original = uvicorn.Server.startup

    async def startup(self: uvicorn.Server, sockets: object = None) -> None:
        servers.append(self)
        await original(self, sockets=sockets)  # type: ignore[arg-type]

    uvicorn.Server.startup = startup  # type: ignore[method-assign]
    app = create_app(model, limits=limits, plan=EncoderPlan(model.encoder, 2, False))
    thread = threading.Thread(target=serve, args=(app, listening), kwargs={"limits": limits})
    thread.start()
    address = listening.getsockname()[:2]
    while not (servers and servers[0].started):
        time.sleep(0.01)
    uvicorn.Server.startup = original  # type: ignore[method-assign]
    yield address, servers[0]
    servers[0].should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_connections_set_tcp_nodelay(model: Model) -> None:
    with _quick(model) as ((host, port), server), httpx.Client() as client:
        assert client.get(f"http://{host}:{port}/healthz").status_code == 200
        (connection,) = server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def talk(
    address: tuple[str, int], *sent: bytes, pause: float = 0, patience: float = 60
) -> tuple[bytes, float]:
    """Send pieces with pauses; return the response and the seconds until the service closed."""
    began = time.monotonic()
    came = b""
    with socket.create_connection(address, timeout=patience) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in sent:
                connection.sendall(piece)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := connection.recv(65536):
                came += piece
    return came, time.monotonic() - began


HEAD = b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_silent_and_slow_connections_are_closed(quick: tuple[str, int]) -> None:
    for sent in ((), (b"GET / HT",), (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X-A: 1\r\n")):
        came, seconds = talk(quick, *sent, pause=0.05)
        assert came == b""
        assert seconds < 30


def test_endless_header_is_closed(quick: tuple[str, int]) -> None:
    came, seconds = talk(quick, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[b"X-A: 1\r\n"] * 40, pause=0.05)
    assert not came.startswith(b"HTTP/1.1 200")
    assert seconds < 30


def test_slow_body_is_refused_with_408(quick: tuple[str, int]) -> None:
    came, seconds = talk(quick, HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 20, pause=0.05)
    assert came.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in came
    assert seconds < 30


def test_invalid_http_is_refused_with_400(quick: tuple[str, int]) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 200_000,
    ):
        came, _ = talk(quick, sent)
        assert came.startswith(b"HTTP/1.1 400 ")
        assert json.loads(came.partition(b"\r\n\r\n")[2])["status"] == 400
    came, _ = talk(quick, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
    assert came.startswith(b"HTTP/1.1 400 ")


def test_body_above_the_limit_is_refused_early(quick: tuple[str, int]) -> None:
    came, _ = talk(quick, HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert came.startswith(b"HTTP/1.1 413 ")
    came, _ = talk(
        quick, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"10000\r\n" + bytes(65536) + b"\r\n"] * 40
    )
    assert came.startswith(b"HTTP/1.1 413 ") or came == b""  # closed while the client was sending


def test_excess_connections_are_closed(quick: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://{quick[0]}:{quick[1]}") as client:
        assert client.get("/healthz").status_code == 200
        held = [socket.create_connection(quick) for _ in range(40)]
        assert client.get("/healthz").status_code == 200
        _until_accepted(quick)  # after the silent connections are closed
        for connection in held:
            connection.close()
    assert httpx.post(f"http://{quick[0]}:{quick[1]}/v1/embed", files={"image": png()}).status_code == 200


def _until_accepted(address: tuple[str, int]) -> None:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://{address[0]}:{address[1]}/healthz").status_code == 200:
                return
        assert time.monotonic() < end
        time.sleep(0.05)


def test_service_does_not_import_torch(model_folder: Path) -> None:
    code = (
        "import sys, numpy, twinned as tw; from twinned.server.app import create_app;"
        f"create_app(tw.load({str(model_folder)!r}));"
        "bad = {'torch', 'matplotlib', 'sklearn', 'onnx'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_extra_names_the_package(model_folder: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['twinned', 'serve', 'x'];"
        "from twinned.cli.main import main; main()"
    )
    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "pip install 'twinned[serve]'" in done.stderr


def test_embeddings_equal_those_of_the_library(model_folder: Path) -> None:
    with running(model_folder) as service, service.client() as client:
        found = client.post("/v1/embed", files=pictures("circle", "bar")).json()
    expected = tw.load(model_folder).embed([png("circle"), png("bar")])
    np.testing.assert_allclose([one["vector"] for one in found], expected, atol=EMBEDDING)
