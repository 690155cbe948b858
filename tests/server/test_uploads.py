"""Multipart parsing of valid and malformed bodies; limits of body sizes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from twinned.server.limits import Limits
from twinned.server.problems import Problem
from twinned.server.schemas import ClassifyRequest, RenameRequest
from twinned.server.uploads import Intake, read

from .conftest import png

LIMITS = Limits()
TYPE = "multipart/form-data; boundary=x"


def part(name: str, content: bytes, *, file: str | None = None, more: str = "") -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'
    return head.encode() + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


def test_multipart_fields_files_and_mappings() -> None:
    sent = body(
        part("image", png(), file="a.png"),
        part("images", png("bar"), more="Content-Type: image/png\r\n"),
        part("support[anna]", png("ring"), file="r.png"),
        part("support[anna]", png("ring", 1), file="s.png"),
        part("support[b]c]", png("bar", 2), file="t.png"),
        part("threshold", b"0.25"),
    )
    asked = read(ClassifyRequest, TYPE, sent, LIMITS)
    assert [image.name for image in asked.all()] == ["a.png", "images[0]"]
    assert bytes(asked.all()[1]) == png("bar")
    assert {label: len(images) for label, images in asked.support.items()} == {"anna": 2, "b]c": 1}
    assert asked.threshold == 0.25


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (body(part("label", b"a"), part("label", b"b"), part("new", b"c")), "label: was given twice"),
        (body(part("label", b"a")), "new: is missing"),
        (body(part("label", b"\xff\xfe"), part("new", b"c")), "label: is neither a file nor UTF-8 text"),
        (body(part("label", b"a", file="a.txt"), part("new", b"c")), "label: is a file"),
        (part("label", b"a"), "damaged|is missing"),
        (b"--x\r\n\r\n" + b"a" * 100, "damaged|is missing|unknown field"),
        (body(*[part(f"f{place}", b"") for place in range(1001)]), "more than 1,000 parts"),
        (body(part("label", b"a", more="X: " + "y" * 100_000 + "\r\n")), "damaged"),
    ],
)
def test_malformed_multipart_is_refused(sent: bytes, says: str) -> None:
    with pytest.raises(Problem, match=says):
        read(RenameRequest, TYPE, sent, LIMITS)


@given(st.binary(max_size=400), st.sampled_from([TYPE, "application/json"]))
def test_any_body_is_a_problem_at_worst(sent: bytes, kind: str) -> None:
    with pytest.raises(Problem) as caught:
        read(RenameRequest, kind, sent, LIMITS)
    assert caught.value.status in (413, 422)


@given(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=50), st.binary(max_size=200)
)
def test_multipart_of_httpx_round_trips(label: str, new: bytes) -> None:
    import httpx

    text = new.hex() or "x"
    request = httpx.Request("POST", "http://x", files={"label": (None, label), "new": (None, text)})
    asked = read(RenameRequest, request.headers["content-type"], request.read(), LIMITS)
    assert (asked.label, asked.new) == (label, text)


# Receiving


def receive(intake: Intake, *chunks: bytes, length: str | None = None, pause: float = 0) -> bytes:
    """Receive a body in chunks, followed by a disconnect."""

    async def ask() -> bytes:
        left = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        left.append({"type": "http.request", "body": b"", "more_body": False})

        async def more() -> dict[str, object]:
            await asyncio.sleep(pause)
            return left.pop(0) if left else {"type": "http.disconnect"}

        headers = [] if length is None else [(b"content-length", length.encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, more)
        async with intake.receive(request) as whole:
            return whole

    return asyncio.run(ask())


def test_body_within_limits_is_received_and_released() -> None:
    intake = Intake(Limits(body_bytes=10, bodies_bytes=10))
    for _ in range(3):
        assert receive(intake, b"12345", b"67890") == b"1234567890"


@pytest.mark.parametrize(
    ("limits", "chunks", "length", "status"),
    [
        (Limits(body_bytes=10), [b"x" * 11], None, 413),
        (Limits(body_bytes=10), [b"x" * 6, b"x" * 6], None, 413),
        (Limits(body_bytes=10), [b"x"], "11", 413),
        (Limits(body_bytes=10), [b"x"], "-1", 413),
        (Limits(body_bytes=10, bodies_bytes=5), [b"x" * 6], None, 503),
        (Limits(read_seconds=0.05), [b"x"] * 5, None, 408),
    ],
)
def test_body_beyond_limits_is_refused_and_released(
    limits: Limits, chunks: list[bytes], length: str | None, status: int
) -> None:
    intake = Intake(limits)
    with pytest.raises(Problem) as caught:
        receive(intake, *chunks, length=length, pause=0.02 if status == 408 else 0)
    assert caught.value.status == status
    assert intake._held == 0


def test_disconnect_is_a_problem() -> None:
    async def ask() -> None:
        async def gone() -> dict[str, object]:
            return {"type": "http.disconnect"}

        request = Request({"type": "http", "method": "POST", "headers": []}, gone)
        async with Intake(LIMITS).receive(request):
            raise AssertionError("there is no body")

    with pytest.raises(Problem, match="connection ended"):
        asyncio.run(ask())
