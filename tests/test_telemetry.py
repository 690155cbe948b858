"""Dependencies report nothing: the home folder stays empty, and no name is looked up."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import twinned

TWINNED = [sys.executable, "-c", "from twinned.cli.main import main; main()"]
# ONNX Runtime disables telemetry if one of these is set (core/platform/telemetry_environment.h).
SILENT = {
    "APPVEYOR",
    "BITBUCKET_BUILD_NUMBER",
    "BUILDKITE",
    "CI",
    "CIRCLECI",
    "CODEBUILD_BUILD_ID",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "JENKINS_URL",
    "ORT_RUNNING_UNIT_TESTS",
    "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI",
    "TEAMCITY_VERSION",
    "TF_BUILD",
    "TRAVIS",
}
_ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.|0\.0\.0\.0$|::$")


def environment(home: Path) -> dict[str, str]:
    """Return an environment with its own home folder and no telemetry switches."""
    left_out = SILENT | {*twinned._SWITCHES, "MPLCONFIGDIR", "HF_HOME", "TORCH_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    folders = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
    return kept | folders | {"HOME": str(home), "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}


def traceable(folder: Path) -> bool:
    """Return whether strace can follow a process here."""
    if shutil.which("strace") is None:
        return False
    log = folder / "trial.strace"
    command = ["strace", "-D", "-f", "-e", "trace=%network", "-o", str(log), "true"]
    done = subprocess.run(command, capture_output=True)
    return done.returncode == 0 and _ended(log)


def _ended(log: Path) -> bool:
    """Wait until strace, which ends after the traced process, has written its last line."""
    for _ in range(600):
        lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
        if lines and re.search(r"\+\+\+ (exited|killed)", lines[-1]):
            return True
        time.sleep(0.1)
    return False


@dataclass
class Traces:
    """Run programs with an empty home folder, traced by strace if possible."""

    home: Path
    work: Path
    logs: list[Path] | None  # None: strace does not work here

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a program as a direct child, so that it receives signals."""
        prefix = []
        if self.logs is not None:
            self.logs.append(self.work.with_name(f"{len(self.logs)}.strace"))
            prefix = ["strace", "-D", "-f", "-e", "trace=%network", "-o", str(self.logs[-1])]
        return subprocess.Popen(
            [*prefix, *map(str, command)],
            cwd=self.work,
            env=environment(self.home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: object) -> None:
        """Run a program to its end and check its exit code."""
        process = self.start(*command)
        _, err = process.communicate(timeout=300)
        assert process.returncode in (0, 1), err  # 1: verify found the images different


@pytest.fixture(scope="module")
def used(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """Traces of each entry point: train, verify, gallery add, export and its example, serve."""
    pytest.importorskip("fastapi", reason="needs the extra serve")
    pytest.importorskip("torch", reason="needs the extra train")
    root = tmp_path_factory.mktemp("telemetry")
    traces = Traces(root / "home", root / "work", [] if traceable(root) else None)
    traces.home.mkdir()
    traces.work.mkdir()
    a, b = (glyphs / "glyph00" / f"{number}.png" for number in (0, 1))
    size = ["--image-size", "20x20", "--steps", "3", "--set", "classes_per_batch=4"]
    traces.run(*TWINNED, "train", glyphs, "-o", "m.twin", "--recipe", "glyph", *size, "-q")
    traces.run(*TWINNED, "verify", "m.twin", a, b)
    traces.run(*TWINNED, "gallery", "add", "m.twin", "g", glyphs, "-q")
    traces.run(*TWINNED, "export", "m.twin", "-o", "out", "-q")
    traces.run(sys.executable, "out/example.py", a, b)
    service = traces.start(*TWINNED, "serve", "m.twin", "--gallery", "g", "--port", "0")
    try:
        assert service.stderr is not None
        address = re.search(r"http://\S+:\d+", line := service.stderr.readline())
        assert address, line + service.stderr.read()
        with httpx.Client(base_url=address[0], timeout=60, trust_env=False) as client:
            with a.open("rb") as left, b.open("rb") as right:
                assert client.post("/v1/verify", files={"a": left, "b": right}).status_code == 200
            while (
                not client.get("/v1/gallery/map", params={"method": "tsne"})
                .raise_for_status()
                .json()["ready"]
            ):
                time.sleep(0.2)
        service.terminate()
        service.communicate(timeout=60)
    finally:
        service.kill()
        service.communicate()
    return traces


@pytest.mark.slow
def test_home_folder_stays_empty(used: Traces) -> None:
    assert sorted(used.home.rglob("*")) == []
    assert sorted(path.name for path in used.work.iterdir()) == ["g", "m.twin", "out"]


@pytest.mark.slow
def test_no_host_name_is_resolved(used: Traces) -> None:
    if used.logs is None:
        pytest.skip("strace is not installed, or may not follow a process here")
    for log in used.logs:
        assert _ended(log), log
        elsewhere = [line for line in log.read_text("utf-8", "replace").splitlines() if _leaves(line)]
        assert elsewhere == []


def _leaves(line: str) -> bool:
    """Return whether a system call asks a name server, or addresses another machine."""
    if re.search(r"sin6?_port=htons\(53\)|io\.systemd\.Resolve", line):
        return True
    return any(not _LOOPBACK.match(v4 or v6) for v4, v6 in _ADDRESS.findall(line))


def test_network_calls_are_recognized_in_traces() -> None:
    lookup = 'connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0'
    outside = (
        'sendto(3, "", 0, 0, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), '
        'inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = 0'
    )
    inside = 'bind(3, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0'
    assert _leaves(lookup)
    assert _leaves(outside)
    assert not _leaves(inside)


Printed = Callable[..., dict[str, str | None]]


@pytest.fixture
def printed(tmp_path: Path) -> Printed:
    """``printed(code, **variables)`` runs ``code`` and returns the switches that it prints by ``show()``."""
    show = f"""
import json, os
def show():
    print(json.dumps({{name: os.getenv(name) for name in {list(twinned._SWITCHES)}}}))
"""

    def run(code: str, **variables: str) -> dict[str, str | None]:
        (tmp_path / "code.py").write_text(show + code)
        command = [sys.executable, tmp_path / "code.py"]
        variables = environment(tmp_path) | variables
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        found: dict[str, str | None] = json.loads(done.stdout)
        return found

    return run


@pytest.mark.parametrize(
    "entry", ["twinned", "twinned.cli", "twinned.server.lifecycle", "twinned.inference.session"]
)
def test_entry_points_set_switches_before_imports(printed: Printed, entry: str) -> None:
    code = """
import importlib.abc, sys
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("onnxruntime", "huggingface_hub", "torch", "uvicorn"):
            assert os.getenv("ORT_DISABLE_TELEMETRY") == "1", name
sys.meta_path.insert(0, Watch())
"""
    assert printed(f"{code}import {entry}; import onnxruntime; show()") == twinned._SWITCHES


def test_child_processes_inherit_the_switches(printed: Printed) -> None:
    code = """
import multiprocessing
if __name__ == "__main__":
    import twinned
    process = multiprocessing.get_context("spawn").Process(target=show)
    process.start()
    process.join()
"""
    assert printed(code) == twinned._SWITCHES


def test_value_set_by_the_user_is_kept(printed: Printed) -> None:
    assert printed("import twinned; show()", ORT_DISABLE_TELEMETRY="0")["ORT_DISABLE_TELEMETRY"] == "0"
