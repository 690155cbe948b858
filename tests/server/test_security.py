"""Protection against foreign web pages (host name, origin, fetch metadata) and the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinned.errors import SettingError
from twinned.server.lifecycle import read_token
from twinned.server.security import Hosts

from .conftest import Client, detail, pictures, png

TOKEN = "a-token-that-nobody-guesses"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000", "LocalHost:80"]
)
def test_local_host_names_are_accepted(client: Client, host: str) -> None:
    assert client().get("/healthz", headers={"host": host}).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "192.168.1.7:8000",
        "",
        "[::2]",
    ],
)
def test_foreign_host_name_is_refused(client: Client, host: str) -> None:
    """DNS rebinding: for the browser, the page of the attacker has the same origin."""
    service = client(gallery=None)
    for path in ("/", "/healthz", "/v1/model", "/static/app.js", "/openapi.json", "/nothing"):
        sentence = detail(service.get(path, headers={"host": host, "origin": f"http://{host}"}), 403)
        assert "does not accept the host name" in sentence


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "file://", "http://[", "",
     "https://127.0.0.1:8000.evil.example"],
)  # fmt: skip
def test_foreign_origin_is_refused(client: Client, gallery, origin: str) -> None:
    service = client()
    write = service.post(
        "/v1/gallery", files=pictures("circle"), data={"label": "x"}, headers={"origin": origin}
    )
    assert "may not use this service" in detail(write, 403)
    assert "may not use this service" in detail(service.get("/v1/gallery", headers={"origin": origin}), 403)
    assert gallery.count() == 0


def test_own_origin_is_accepted(client: Client) -> None:
    for origin in ("http://127.0.0.1:8000", "https://127.0.0.1:8000"):
        assert client().get("/v1/model", headers={"origin": origin}).status_code == 200


def test_head_equals_get_without_body(client: Client) -> None:
    service = client(token="t" * 16)
    for path, status in (("/", 200), ("/healthz", 200), ("/v1/model", 401), ("/v1/nothing", 401)):
        head, got = service.head(path), service.get(path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_cross_site_requests_are_refused_except_links(client: Client, site: str) -> None:
    service = client()
    image = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert "another site" in detail(service.get("/v1/gallery", headers=image), 403)
    form = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    assert "another site" in detail(service.post("/v1/gallery/undo", json={"undo": "x"}, headers=form), 403)
    assert service.get("/", headers=form).status_code == 200
    assert service.get("/", headers={"sec-fetch-site": "none"}).status_code == 200


def test_public_service_accepts_addresses_and_configured_names() -> None:
    hosts = Hosts("0.0.0.0", ["faces.example"])
    for known in ("10.0.0.3:8000", "[fe80::1]:8000", "localhost:8000", "faces.example", "Faces.Example.:443"):
        assert known in hosts
    for foreign in ("evil.example", "evil.example:8000", "10.0.0.3.evil.example", "", "0x7f.1"):
        assert foreign not in hosts


def test_requests_require_the_token(client: Client) -> None:
    service = client(token=TOKEN, host="0.0.0.0", gallery=None)
    for headers in (
        {},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer ÿÿ".encode("latin-1")},
    ):
        for path in ("/v1/model", "/v1/gallery", "/metrics", "/v1", "/nothing"):
            answer = service.get(path, headers=headers)
            assert "requires a token" in detail(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
    right = {"authorization": f"bearer {TOKEN}"}
    assert service.get("/v1/model", headers=right).status_code == 200
    assert service.post("/v1/embed", files={"image": png()}, headers=right).status_code == 200


def test_page_and_documentation_require_no_token(client: Client) -> None:
    service = client(token=TOKEN, host="0.0.0.0", gallery=None)
    for path in ("/", "/docs", "/static/app.js", "/healthz", "/openapi.json"):
        assert service.get(path).status_code == 200, path
    assert detail(service.get("/static/../v1/model", headers={}), 401)


def test_body_of_unauthorized_request_is_not_read(client: Client) -> None:
    def endless():
        yield b"x"
        raise AssertionError("the body was read")

    service = client(token=TOKEN, gallery=None)
    answer = service.post("/v1/embed", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 401


def test_responses_have_security_headers(client: Client) -> None:
    service = client()
    answers = [service.get(path) for path in ("/", "/v1/model", "/nothing", "/static/app.js", "/static/no")]
    answers += [service.get("/", headers={"host": "evil.example"}), service.post("/v1/embed", content=b"")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    assert service.get("/v1/model").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name", ["../guard.py", "..%2fguard.py", "%2e%2e/guard.py", "/etc/passwd", "guard.py", "."]
)
def test_static_route_serves_only_its_files(client: Client, name: str) -> None:
    answer = client(gallery=None).get(f"/static/{name}")
    assert answer.status_code == 404
    assert "class Guard" not in answer.text


def test_public_address_requires_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWINNED_TOKEN", raising=False)
    assert read_token("127.0.0.1", None) is None
    for host in ("0.0.0.0", "192.168.1.7", "::"):
        with pytest.raises(SettingError, match="--token-file"):
            read_token(host, None)
    monkeypatch.setenv("TWINNED_TOKEN", TOKEN)
    assert read_token("0.0.0.0", None) == TOKEN
    for token in ("short", "spaces in the middle of it"):
        monkeypatch.setenv("TWINNED_TOKEN", token)
        with pytest.raises(SettingError, match="must be at least 16 letters, digits"):
            read_token("127.0.0.1", None)


def test_token_file_gives_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f" {TOKEN} \nmore\n")
    assert read_token("0.0.0.0", file) == TOKEN
    file.write_text("\n")
    with pytest.raises(SettingError, match="empty"):
        read_token("127.0.0.1", file)
