"""A Qdrant server that never answers blocks neither verification nor shutdown."""

from __future__ import annotations

import contextlib
import http.server
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("qdrant_client", reason="needs the extra cluster")

from twinned.gallery import qdrant_server
from twinned.gallery.open import open_gallery
from twinned.gallery.store import binding_of
from twinned.inference.model import Model
from twinned.server.limits import Limits

from .conftest import Client, detail, pictures
from .processes import running

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:qdrant_client", "ignore:Payload indexes:UserWarning"
)
PAIR = pictures("circle", field="a") + pictures("bar", field="b")


class Silent(http.server.ThreadingHTTPServer):
    """Answer requests that open a collection; accept all others without an answer.

    Args:
        info: Description of the collection by Qdrant.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, info: dict[str, object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = {
            "/": {"title": "qdrant", "version": "1.16.0"},
            "/collections/people/exists": {"result": {"exists": True}, "status": "ok", "time": 0.0},
            "/collections/people": {"result": info, "status": "ok", "time": 0.0},
        }
        self.held = 0
        self.ended = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}/people"

    def wait_for(self, requests: int) -> None:
        """Wait until this number of requests waits for an answer."""
        _until(lambda: self.held >= requests)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Silent

    def do_GET(self) -> None:
        if self.path not in self.server.answers:
            self.do_POST()
            return
        body = json.dumps(self.server.answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.server.held += 1
        self.server.ended.wait(120)
        self.close_connection = True

    do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def silent(model: Model) -> Iterator[Silent]:
    client = qdrant_server.QdrantClient(":memory:")
    qdrant_server.create(client, "people", binding_of(model), address="people")
    server = Silent(json.loads(client.get_collection("people").model_dump_json()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def asking(ask: Callable[[], httpx.Response], times: int) -> Iterator[list[httpx.Response]]:
    """Send concurrent requests; the list has all responses at the end."""
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(ask()), daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join(60)
    assert len(answers) == times


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_routes_without_gallery_work_while_it_is_silent(client: Client, model: Model, silent: Silent) -> None:
    """Two requests start and fail; the others are refused after waiting."""
    gallery = open_gallery(silent.address, model, timeout=3)
    service = client(gallery=gallery, limits=Limits(wait_seconds=0.5))
    with asking(lambda: service.post("/v1/identify", files=pictures("circle")), 5) as refused:
        silent.wait_for(2)
        assert service.get("/healthz").status_code == 200
        assert service.post("/v1/verify", files=PAIR).status_code == 200
        _until(lambda: len(refused) == 3)  # while two requests wait for the server
        assert all("too busy to start within 0.5 seconds" in detail(one, 503) for one in refused)
        assert "twinned_gallery_images NaN" in service.get("/metrics").text
        facts = service.get("/v1/model").json()
        assert (facts["threshold"], facts["gallery"]["count"]) == (model.threshold, None)
        assert service.post("/v1/verify", files=PAIR).status_code == 200
    assert all("Qdrant server is up" in detail(one, 503) for one in refused[3:])


def test_model_route_works_while_the_gallery_is_silent(client: Client, model: Model, silent: Silent) -> None:
    gallery = open_gallery(silent.address, model, timeout=60)  # longer than all limits of the service
    response = client(gallery=gallery, limits=Limits(wait_seconds=0.2)).get("/v1/model")
    assert response.status_code == 200
    found = response.json()["gallery"]
    assert found.pop("temporary") is False
    assert set(found.values()) == {None}


def test_waiting_changes_time_out(client: Client, model: Model, silent: Silent) -> None:
    gallery = open_gallery(silent.address, model, timeout=1)
    with gallery.store.writing():
        outcome: list[httpx.Response] = []
        rename = threading.Thread(
            target=lambda: outcome.append(
                client(gallery=gallery).post("/v1/gallery/rename", json={"label": "a", "new": "b"})
            )
        )
        rename.start()
        rename.join(30)
    assert "another change has been under way for 1 seconds" in detail(outcome[0], 503)


@pytest.mark.slow
def test_shutdown_does_not_wait_for_the_server(model_folder: Path, silent: Silent) -> None:
    """The process ends before the timeout of 10 s for answers of the server."""

    def identify() -> httpx.Response:
        return httpx.post(f"{service.address}/v1/identify", files=pictures("bar"), timeout=60)

    with running(model_folder, "--gallery", silent.address) as service, service.client() as client:
        with asking(identify, 4) as answers:
            silent.wait_for(1)
            assert client.post("/v1/verify", files=PAIR).status_code == 200
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 0
        assert all("The service is stopping" in detail(one, 503) for one in answers)
        assert "Traceback" not in "".join(service.lines)
    assert Limits().stop_seconds <= 6  # of 8; the rest is for the end of the process
