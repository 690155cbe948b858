"""Training in two processes: command line, callbacks, and the death of a process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import twinned as tw
from twinned.errors import SettingError
from twinned.training import process
from twinned.training.callbacks import Callback
from twinned.training.state import Step

SETTINGS = ["--encoder", "conv4", "--image-size", "24x24", "--batch-size", "12", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of twelve classes with four small images each."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("pictures")
    for name in range(12):
        (root / str(name)).mkdir()
        plain = np.kron(rng.integers(0, 255, (6, 6)), np.ones((4, 4)))
        for place in range(4):
            noisy = (plain + rng.normal(0, 30, plain.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / str(name) / f"{place}.png")
    return root


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "twinned", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Return the training processes in order, without the helper process of multiprocessing."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, found) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until_saved(model: Path, process: subprocess.Popen[str], after: int = 0) -> None:
    file = devices_folder(model) / "main.safetensors"
    for _ in range(1200):
        if (file.exists() and file.stat().st_mtime_ns > after) or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()


def devices_folder(model: Path) -> Path:
    return model.with_name(model.name + ".partial")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes as Linux has them")
def test_killed_and_interrupted_runs_resume(folder, tmp_path):
    model = tmp_path / "m.twin"
    long = [folder, "-o", model, *SETTINGS, "--devices", "2", "--steps", "200"]
    long += ["--set", "checkpoint_seconds=0.2", "--set", "evaluations=1"]

    process = start(*long)
    until_saved(model, process)
    os.kill(children(process)[1], signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert (
        error.strip()
        .splitlines()[-1]
        .startswith("twinned: training stopped: process 2 of 2 ended with SIGKILL")
    )

    checkpoint = devices_folder(model) / "main.safetensors"
    written = checkpoint.stat().st_mtime_ns
    process = start(*long, "--resume")
    until_saved(model, process, after=written)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "stopped after step" in error
    assert "--resume" in error.strip().splitlines()[-1]
    assert not model.exists()

    process = start(*long, "--resume", "--json")
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert json.loads(output)["model"] == str(model)
    assert tw.load(model).manifest.held_out["eer"] <= 0.5
    assert not devices_folder(model).exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs a terminal and Linux's processes")
def test_closed_terminal_saves_a_resumable_run(folder, tmp_path):
    model = tmp_path / "m.twin"
    command = [sys.executable, "-m", "twinned", "train", folder, "-o", model, *SETTINGS, "--steps", "200"]
    command += ["--set", "checkpoint_seconds=0", "--set", "evaluations=1"]
    import pty  # not on Windows

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, list(map(str, command)))
    threading.Thread(target=drain, args=(terminal,), daemon=True).start()
    file = devices_folder(model) / "main.safetensors"
    for _ in range(1200):
        if file.exists() or os.waitpid(pid, os.WNOHANG) != (0, 0):
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)  # SIGHUP, and no more writing
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert file.exists()

    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "starts from the beginning" not in done.stderr


def drain(terminal: int) -> None:
    """Read the output of a terminal until it is closed."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass


class WriteSteps(Callback):
    """Write the steps to a file: callbacks run in another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step(self, step: Step) -> None:
        assert step.embeddings is not None
        with self.path.open("a") as file:
            file.write(f"{step.step} {step.images} {len(step.embeddings)}\n")


def test_notes_are_logged_and_callbacks_run_on_rank_0(folder, tmp_path, caplog, monkeypatch):
    # A test module has no import path by which another process could load its classes.
    monkeypatch.setitem(sys.modules, "test_launch", sys.modules[__name__])
    monkeypatch.setattr(WriteSteps, "__module__", "test_launch")
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    caplog.set_level("INFO", "twinned")
    model = tw.train(
        folder,
        output=tmp_path / "m.twin",
        encoder="conv4",
        image_size=24,
        batch_size=12,
        steps=3,
        device="cpu",
        devices=2,
        progress=False,
        callbacks=[WriteSteps(tmp_path / "steps.txt")],
    )
    lines = [tuple(map(int, line.split())) for line in (tmp_path / "steps.txt").read_text().splitlines()]
    assert [step for step, _, _ in lines] == list(range(3))
    assert {(images, len_) for _, images, len_ in lines} == {(lines[0][1],) * 2}, "the whole batch"
    assert [
        record.getMessage() for record in caplog.records if record.name == "twinned"
    ] == model.manifest.notes
    assert model.verify(folder / "0/0.png", folder / "0/1.png").probability > 0
    assert not devices_folder(tmp_path / "m.twin").exists()
    assert "BatchNorm2d" in (tmp_path / "m.twin" / "training.json").read_text()


@pytest.mark.slow
def test_errors_of_two_processes_equal_those_of_one(folder, tmp_path):
    with pytest.raises(SettingError, match="Unknown encoder 'none'"):
        tw.train(folder, output=tmp_path / "m.twin", encoder="none", device="cpu", devices=2)


def test_unavailable_devices_are_refused(monkeypatch):
    with pytest.raises(SettingError, match="at least 1"):
        process.training_device("cpu", 0)
    assert process.training_device("cpu", 3) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert process.training_device("auto", 2) in ("cuda", "mps")
    with pytest.raises(SettingError, match="devices is 3, but this machine has 2 GPUs"):
        process.training_device("cuda", 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_refused_before_start(folder, tmp_path):
    with pytest.raises(SettingError, match="device 'cuda' cannot be used"):
        tw.train(folder, output=tmp_path / "m.twin", device="cuda", devices=2)


PROGRAM = """
import resource, sys
import numpy as np
from twinned.training.process import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.empty(40 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
assert keep_freed_memory()
np.empty(40 << 20, np.uint8).fill(1)
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_reused_without_page_faults():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 200  # pages or huge pages, twenty allocations
    assert after < before / 10
