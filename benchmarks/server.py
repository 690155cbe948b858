"""The service under load, on this machine alone.

    python benchmarks/server.py glyphs.twin --images images_evaluation

- verify requests a second with 32 clients, beside the same service with the network left out (its encoder
  gives the same embedding at once: receiving, decoding, comparing and answering are all still done);
- how long /healthz takes on a connection that is kept: what the service itself adds to a request;
- how long a request takes at half of that load, sent by the clock, whether or not others are answered;
- hostile and valid requests mixed: huge, truncated, bombs, wrong types, slow senders, names with markup;
- kill -9 while enrolling: whatever was acknowledged must be there when the service is started again.

The clients are one process that sends bytes made beforehand; like the service they need a core.
Writes benchmarks/results/server.md and .json.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
CLIENTS = 32
BOUNDARY = "----twinned"
MARKUP = '<img src=x onerror="alert(1)">'
# The program itself, and the same with an encoder that does nothing.
SERVE = "from twinned.cli.main import main; main()"
BARE = f"""
import numpy as np
from twinned.server import batching
def plan(model):
    vector = model.encoder(np.zeros((1, *model.spec.shape), np.uint8))
    same = lambda pixels: np.repeat(vector, len(pixels), 0)
    return batching.EncoderPlan(same, {os.cpu_count() or 1}, False)
batching.plan = plan
"""


class Service(NamedTuple):
    """A running service."""

    host: str
    port: int
    process: subprocess.Popen[str]

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def serving(model: Path, *options: object, bare: bool = False) -> Iterator[Service]:
    """Start ``twinned serve``, the network left out if ``bare``; it is stopped at the end."""
    command = [sys.executable, "-c", (BARE if bare else "") + SERVE, "serve", str(model), "--port", "0"]
    process = subprocess.Popen([*command, *map(str, options)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"http://([\d.]+):(\d+)", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the service did not start: {said}")
            said += line
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Service(found[1], int(found[2]), process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


class Answer(NamedTuple):
    """A status and a body."""

    status: int
    body: bytes


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json", **more: str) -> bytes:
    """A request as bytes."""
    head = {"Host": "127.0.0.1", "Content-Type": kind, "Content-Length": str(len(body)), **more}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def multipart(path: str, *parts: tuple[str, str | None, bytes]) -> bytes:
    """A form: field, file name (None for text) and content of each part."""
    body = b""
    for field, name, content in parts:
        file = "" if name is None else f'; filename="{name}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    body += f"--{BOUNDARY}--\r\n".encode()
    return request("POST", path, body, f"multipart/form-data; boundary={BOUNDARY}")


class Connection:
    """One client: sends a request, reads the answer, keeps the connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, *pieces: bytes, pause: float = 0) -> Answer:
        """The answer; status 0 where the service hung up. Several pieces are sent with pauses between."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._service.host, self._service.port)
            reader, writer = self._streams
            for place, piece in enumerate(pieces):
                if place:
                    await asyncio.sleep(pause)
                writer.write(piece)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            if b"connection: close" in head.lower():
                self.close()
            return Answer(int(head[9:12]), body)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            self.close()
            return Answer(0, b"")

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def verify_requests(files: Sequence[bytes], seed: int, count: int = 200) -> list[bytes]:
    """Pairs of images to verify, as forms."""
    pick = random.Random(seed)
    return [
        multipart("/v1/verify", *((name, f"{name}.png", pick.choice(files)) for name in ("a", "b")))
        for _ in range(count)
    ]


async def throughput(service: Service, requests: Sequence[bytes], seconds: float) -> float:
    """Answers a second with 32 clients, each of which asks again as soon as it is answered."""
    await _load(service, requests, 0.5)
    return await _load(service, requests, seconds) / seconds


async def _load(service: Service, requests: Sequence[bytes], seconds: float) -> int:
    end = time.perf_counter() + seconds

    async def client(place: int) -> int:
        connection, done = Connection(service), 0
        while time.perf_counter() < end:
            answer = await connection.ask(requests[(place + 7 * done) % len(requests)])
            assert answer.status == 200, answer
            done += 1
        connection.close()
        return done

    return sum(await asyncio.gather(*map(client, range(CLIENTS))))


async def kept_alive(service: Service, count: int = 200) -> float:
    """Milliseconds, median, of /healthz on one connection."""
    connection, asked, taken = Connection(service), request("GET", "/healthz"), []
    for _ in range(count):
        began = time.perf_counter()
        answer = await connection.ask(asked)
        taken.append(time.perf_counter() - began)
        assert answer.status == 200, answer
    connection.close()
    return 1000 * float(np.median(taken))


async def latencies(
    service: Service, requests: Sequence[bytes], rate: float, seconds: float
) -> dict[str, float]:
    """Milliseconds from when a request was due to its answer, at so many a second."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CLIENTS):
        free.put_nowait(Connection(service))
    taken: list[float] = []

    async def one(due: float, asked: bytes) -> None:
        connection = await free.get()
        answer = await connection.ask(asked)
        assert answer.status == 200, answer
        taken.append(time.perf_counter() - due)
        free.put_nowait(connection)

    began = time.perf_counter()
    tasks = []
    for n in range(int(rate * seconds)):
        due = began + n / rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due, requests[n % len(requests)])))
    await asyncio.gather(*tasks)
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def hostile_requests(image: bytes, seed: int) -> Iterator[tuple[tuple[bytes, ...], float]]:
    """Without end: the pieces of a request that is no good, and the pause between them."""
    pick = random.Random(seed)
    bomb = _png(60_000, 60_000)
    form = multipart("/v1/verify", ("a", "a.png", image), ("b", "b.png", image))
    encoded = base64.b64encode(image).decode()
    while True:
        noise = pick.randbytes(pick.randint(1, 3000))
        cut = image[: pick.randint(1, len(image) - 1)]
        body = json.dumps({"a": encoded, "b": pick.choice([None, 1, [], {}, "?", "x" * 10_000, noise.hex()])})
        yield pick.choice(
            [
                ((multipart("/v1/verify", ("a", "a.png", cut), ("b", "b.png", image)),), 0.0),
                ((multipart("/v1/embed", ("image", MARKUP, bomb)),), 0.0),
                ((multipart("/v1/embed", ("image", "a.png", noise)),), 0.0),
                ((multipart("/v1/embed", *[("images", f"{n}.png", image) for n in range(100)]),), 0.0),
                (
                    (multipart("/v1/classify", ("image", "a", image), (f"support[{MARKUP}]", "x", noise)),),
                    0.0,
                ),
                ((request("POST", "/v1/verify", body.encode()),), 0.0),
                ((request("POST", "/v1/verify", noise),), 0.0),
                ((request("POST", "/v1/verify", b"[" * 100_000),), 0.0),
                (
                    (request("POST", "/v1/embed", noise, pick.choice(["text/html", "image/png", MARKUP])),),
                    0.0,
                ),
                ((request("POST", "/v1/verify", noise, "multipart/form-data; boundary=x"),), 0.0),
                ((request("PUT", "/v1/verify"),), 0.0),
                ((request("GET", "/../../etc/passwd"),), 0.0),
                ((request("GET", "/healthz", Host="evil.example"),), 0.0),
                ((request("GET", "/v1/model", Origin="http://evil.example"),), 0.0),
                (
                    (b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n",),
                    0.0,
                ),
                ((noise,), 0.0),
                ((form[: len(form) // 2], form[len(form) // 2 :]), 0.3),
                ((form[:200], *[form[n : n + 1] for n in range(200, 220)]), 0.05),
                ((request("POST", "/v1/embed", bytes(pick.randint(1, 34) << 20)),), 0.0),
            ]
        )


def _png(width: int, height: int) -> bytes:
    """A file of a few bytes that claims to be so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


async def attacked(service: Service, files: Sequence[bytes], seconds: float, seed: int) -> dict[str, Any]:
    """Half of the clients send what is no good, half verify; who is answered how, and what memory does."""
    requests = verify_requests(files, seed, 20)
    calm = Connection(service)
    right = [json.loads((await calm.ask(asked)).body)["distance"] for asked in requests]
    names = [
        multipart("/v1/gallery", ("image", "a.png", files[n % len(files)]), ("label", None, name.encode()))
        for n, name in enumerate(f"{MARKUP}{k}" for k in range(10_000))
    ]
    statuses: dict[str, Counter[int]] = {"hostile": Counter(), "valid": Counter(), "names": Counter()}
    wrong = 0
    warm = time.perf_counter() + min(5.0, seconds / 4)
    end = time.perf_counter() + seconds
    before = 0.0

    async def hostile(place: int) -> None:
        for pieces, pause in hostile_requests(files[0], 1000 * seed + place):
            if time.perf_counter() > end:
                return
            connection = Connection(service)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):  # a head that never ends is cut by the service
                    statuses["hostile"][(await connection.ask(*pieces, pause=pause)).status] += 1
            connection.close()

    async def valid(place: int) -> None:
        nonlocal wrong
        connection, n = Connection(service), place
        while time.perf_counter() < end:
            answer = await connection.ask(requests[n % len(requests)])
            statuses["valid"][answer.status] += 1
            if answer.status == 200:
                wrong += abs(json.loads(answer.body)["distance"] - right[n % len(requests)]) > 1e-5
            n += 1
        connection.close()

    async def named() -> None:
        connection = Connection(service)
        for asked in names:
            if time.perf_counter() > end:
                break
            statuses["names"][(await connection.ask(asked)).status] += 1
        connection.close()

    async def memory() -> None:
        nonlocal before
        await asyncio.sleep(max(0, warm - time.perf_counter()))
        before = service.memory()

    await asyncio.gather(memory(), named(), *map(hostile, range(8)), *map(valid, range(8)))
    after = service.memory()
    seen = Counter[int]()
    for counts in statuses.values():
        seen += counts
    return {
        "seconds": seconds,
        "statuses": {kind: {str(k): n for k, n in sorted(c.items())} for kind, c in statuses.items()},
        "server_errors": sum(n for code, n in seen.items() if code >= 500 and code != 503),
        "wrong": wrong,
        "memory_mb": [before, after],
        "memory_growth": after / before - 1,
        "alive": (await Connection(service).ask(request("GET", "/healthz"))).status == 200,
    }


async def killed(model: Path, files: Sequence[bytes], times: int, seed: int, folder: Path) -> dict[str, int]:
    """Enrol, kill at a random moment, start again: is all there that was said to be?"""
    pick = random.Random(seed)
    fresh = _different(files, pick)
    known: set[str] = set()
    lost = 0
    for _ in range(times):
        with serving(model, "--gallery", folder / "g.gallery") as service:
            lost += len(known - await _enrolled(service))
            ends = asyncio.get_running_loop().call_later(pick.uniform(0.3, 2), service.process.kill)

            async def client(service: Service = service) -> None:
                connection = Connection(service)
                while True:
                    answer = await connection.ask(
                        multipart("/v1/gallery", ("image", "a.png", await anext(fresh)))
                    )
                    if answer.status != 200:
                        return
                    known.update(json.loads(answer.body)["ids"])

            await asyncio.gather(*(client() for _ in range(4)))
            ends.cancel()
    with serving(model, "--gallery", folder / "g.gallery") as service:
        lost += len(known - await _enrolled(service))
    return {"kills": times, "acknowledged": len(known), "lost": lost}


async def _enrolled(service: Service) -> set[str]:
    found: set[str] = set()
    connection, after = Connection(service), ""
    while True:
        page = json.loads((await connection.ask(request("GET", f"/v1/gallery?limit=500{after}"))).body)
        found |= {item["id"] for item in page["items"]}
        if page["after"] is None:
            connection.close()
            return found
        after = f"&after={page['after']}"


async def _different(files: Sequence[bytes], pick: random.Random) -> AsyncIterator[bytes]:
    """Images that are all different, however many."""
    while True:
        image = Image.open(io.BytesIO(pick.choice(files))).convert("RGB").resize((64, 64))
        values = (
            np.asarray(image) ^ np.frombuffer(pick.randbytes(64 * 64 * 3), np.uint8).reshape(64, 64, 3) % 32
        )
        file = io.BytesIO()
        Image.fromarray(values).save(file, "PNG")
        yield file.getvalue()


def table(found: dict[str, Any]) -> str:
    """The figures as markdown."""
    hostile, kills = found["hostile"], found["kills"]
    rows = [
        ("verify requests a second, 32 clients", f"{found['requests_s']:.0f}"),
        ("the same, the network left out", f"{found['bare_requests_s']:.0f}"),
        ("share of that", f"{found['share']:.2f}"),
        ("/healthz on a connection that is kept, median", f"{found['keep_alive_ms']:.1f} ms"),
        ("p50, p99 at half that load", f"{found['p50_ms']:.1f} ms, {found['p99_ms']:.1f} ms"),
        (f"{hostile['seconds']:.0f} s of hostile requests: 5xx but 503", f"{hostile['server_errors']}"),
        ("valid requests meanwhile: right, wrong", f"{hostile['statuses']['valid']}, {hostile['wrong']}"),
        ("growth of memory", f"{hostile['memory_growth']:+.1%}"),
        (
            f"{kills['kills']} x kill -9 while enrolling: acknowledged, lost",
            f"{kills['acknowledged']}, {kills['lost']}",
        ),
    ]
    lines = ["| what | found |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]
    return "\n".join([*lines, "", f"{os.cpu_count()} cores, shared by the service and its clients.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="images to send, at any depth")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of speed")
    parser.add_argument("--rounds", type=int, default=3, help="with and without the network, by turns")
    parser.add_argument("--hostile", type=float, default=60, help="seconds of hostile requests")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    paths = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    files = [p.read_bytes() for p in random.Random(options.seed).sample(paths, min(100, len(paths)))]
    if not files:
        raise SystemExit(f"{options.images}: holds no .png or .jpg")
    requests = verify_requests(files, options.seed)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.rounds):
        for bare, found in rates.items():
            with serving(options.model, bare=bare) as service:
                found.append(asyncio.run(throughput(service, requests, options.seconds)))
    whole, without = (float(np.median(rates[bare])) for bare in (False, True))
    found: dict[str, Any] = {"requests_s": whole, "bare_requests_s": without, "share": whole / without}
    with serving(options.model) as service:
        found["keep_alive_ms"] = asyncio.run(kept_alive(service))
        found |= asyncio.run(latencies(service, requests, whole / 2, options.seconds))
    with tempfile.TemporaryDirectory() as folder:
        with serving(options.model, "--gallery", Path(folder, "g.gallery")) as service:
            found["hostile"] = asyncio.run(attacked(service, files, options.hostile, options.seed))
        other = Path(folder, "kills")
        other.mkdir()
        found["kills"] = asyncio.run(killed(options.model, files, options.kills, options.seed, other))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "server.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "server.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
