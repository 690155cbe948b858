"""Where to train: a device, or several of them, each with a process of its own.

lightning-fabric joins the processes into a group; `twinned.training.distributed`
is what they then say to each other.
They are started and watched here, or by torchrun, which alone can do it on several machines.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec

import torch
from torch import distributed

from ..errors import SettingError, TrainingError, TwinnedError
from ..inference.model import Model
from . import distributed as together
from .loop import handling, interruptible, stop_signals
from .state import Interrupted, Step

Given = ParamSpec("Given")

# How long a process waits for the others: the first may be evaluating, or writing.
_PATIENCE = timedelta(minutes=30)
# Seconds that the other processes have to end by themselves once one has failed.
_GRACE = 3.0
_asked: float | None = None  # by the monotonic clock, which all processes of a machine share


def asked_at() -> float:
    """When this training was asked for, by the monotonic clock: now, or before this process was started."""
    return time.monotonic() if _asked is None else _asked


def training_device(name: str, count: int = 1) -> str:
    """The device to train on: ``cpu``, ``cuda`` or ``mps``.

    Args:
        name: One of these, or ``auto`` for the fastest there is.
        count: Processes on this machine; each has a GPU of its own, or its part of the processor's cores.

    Raises:
        SettingError: If there is no such device here, or not so many.
    """
    offered = ["cpu"]
    if torch.cuda.is_available():
        offered.insert(0, "cuda")
    if torch.backends.mps.is_available():
        offered.insert(0, "mps")
    if name == "auto":
        name = offered[0]
    if name not in offered:
        raise SettingError(
            f"device {name!r} cannot be used for training here; choose auto or {', '.join(offered)}"
        )
    if count < 1:
        raise SettingError(f"devices is {count}; it takes at least one")
    most = {"cpu": count, "cuda": torch.cuda.device_count(), "mps": 1}[name]
    if count > most:
        raise SettingError(
            f"devices is {count}, but there {'is one GPU' if most == 1 else f'are {most} GPUs'} here;"
            f" choose at most {most}, or --device cpu"
        )
    return name


def on_devices(train: Callable[Given, Model]) -> Callable[Given, Model]:
    """Make a function that trains take ``devices=N``: it then runs in N processes, which train one network.

    Args:
        train: Has the keywords ``device``, ``devices``, ``output``, ``progress``, ``say`` and ``on_step``,
            the last two of which are called in the process that asked.
    """

    @functools.wraps(train)
    @interruptible()
    def wrapped(*args: Given.args, **given: Given.kwargs) -> Model:
        asked: dict[str, Any] = {"device": "auto", "devices": 1, "output": None} | given
        by_torchrun = together.world_size() == 1 and distributed.is_torchelastic_launched()
        if by_torchrun and int(os.environ["WORLD_SIZE"]) > 1:
            _join_torchrun(asked["device"], asked["devices"])
        if together.world_size() > 1:
            if asked["output"] is None:
                raise SettingError("several processes need an output, a folder that all of them see")
            if together.rank() > 0:
                given.update(progress=False, say=None, on_step=None)
            return train(*args, **given)
        name = training_device(asked["device"], asked["devices"])
        if asked["devices"] == 1:
            return train(*args, **given)
        if asked["output"] is not None:
            _start(wrapped, args, dict(given), device=name, count=asked["devices"])
            return Model(asked["output"])
        kept = tempfile.TemporaryDirectory(prefix="twinned-")
        output = Path(kept.name) / "model"
        _start(wrapped, args, given | {"output": output}, device=name, count=asked["devices"])
        return Model(output, temporary=kept)

    return wrapped


def _join(device: str, devices: int, *, machines: int = 1, torchrun: bool = False) -> None:
    """Make this process one of a group; which one, its environment says."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment() if torchrun else LightningEnvironment(),
        process_group_backend="cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        timeout=_PATIENCE,
    )
    Fabric(accelerator=device, devices=devices, num_nodes=machines, strategy=strategy).launch()


def _join_torchrun(device: str, devices: int) -> None:
    """Join the processes that torchrun has started, here and on other machines."""
    here, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if devices not in (1, here):
        raise SettingError(f"devices is {devices}, but torchrun has started {here} processes on this machine")
    if all_of_them % here:
        raise SettingError(f"torchrun has started {all_of_them} processes, but not as many on each machine")
    _join(training_device(device, here), here, machines=all_of_them // here, torchrun=True)


def _start(
    train: Callable[..., Model], args: tuple[Any, ...], given: dict[str, Any], *, device: str, count: int
) -> None:
    """Start the processes, pass on what they say, and make sure that all of them end.

    Raises:
        TwinnedError: What a process raised.
        Interrupted: If they were asked to stop.
        TrainingError: If one died.
    """
    hear = {"say": given.pop("say", None), "on_step": given.pop("on_step", None)}
    wanted = [name for name, listener in hear.items() if listener is not None]
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, BaseProcess] = {}  # by what they say
    port = _free_port()
    for number in range(count):
        ours, theirs = context.Pipe(duplex=False)
        started = context.Process(
            target=_run,
            args=(number, count, port, device, theirs, wanted, time.monotonic(), train, args, given),
            name=f"process {number + 1} of {count}",
            daemon=True,
        )
        started.start()
        theirs.close()
        processes[ours] = started
    try:
        with _passing_on_signals(list(processes.values())) as asked_to_stop:
            _follow(processes, hear, asked_to_stop)
    finally:
        for process in processes.values():
            process.kill()


def _follow(
    processes: dict[Connection, BaseProcess], hear: dict[str, Any], asked_to_stop: Callable[[], bool]
) -> None:
    """Hear what processes say until all have ended; where one fails, the others have a moment to end too."""
    running = dict(processes)
    told: dict[Connection, BaseException] = {}  # what went wrong in each, the first one first
    died: list[str] = []
    until: float | None = None
    while running and (until is None or time.monotonic() < until):
        ready = wait(list(running), None if until is None else max(0, until - time.monotonic()))
        for line in [line for line in running if line in ready]:
            try:
                kind, value, array = line.recv()
            except EOFError:
                process = running.pop(line)
                process.join()
                if process.exitcode and line not in told:
                    died.append(f"{process.name} ended with {_exit(process.exitcode)}")
            else:
                if kind == "error":
                    told[line] = value
                else:
                    hear[kind](value if array is None else value._replace(embeddings=torch.from_numpy(array)))
        if (told or died) and until is None:
            until = time.monotonic() + _GRACE
    # What follows from a failure elsewhere (a connection that was lost) is no news.
    news = [error for error in told.values() if isinstance(error, (TwinnedError, KeyboardInterrupt, OSError))]
    if died and not news:
        if asked_to_stop():  # before a process could handle it
            raise Interrupted("stopped; with an output, --resume goes on from the last checkpoint, if any")
        raise TrainingError(
            f"training stopped: {died[0]}; with an output, --resume goes on from the last checkpoint"
        )
    if told:
        raise [*news, *told.values()][0]


def _run(
    number: int,
    count: int,
    port: int,
    device: str,
    line: Connection,
    wanted: list[str],
    asked: float,
    train: Callable[..., Model],
    args: tuple[Any, ...],
    given: dict[str, Any],
) -> None:
    """One of the processes."""
    global _asked
    _asked = asked
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C comes from the process that started this one, not from the terminal
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    os.environ |= {"LOCAL_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with interruptible():
            _join(device, count)
            if number == 0:
                given |= {name: functools.partial(_tell, line, name) for name in wanted}
            train(*args, **given)
            distributed.destroy_process_group()
    except BaseException as error:
        known = isinstance(error, (TwinnedError, OSError, MemoryError, KeyboardInterrupt))
        sent = error if known else RuntimeError(f"{type(error).__name__}: {error}")
        sent.add_note(traceback.format_exc())
        line.send(("error", sent, None))
        os._exit(1)  # at once: a process may be waiting for another one


def _tell(line: Connection, kind: str, value: Any) -> None:
    """Send a sentence or a step; embeddings as an array, since a tensor would be shared, not sent."""
    array = (
        value.embeddings.detach().cpu().numpy()
        if isinstance(value, Step) and value.embeddings is not None
        else None
    )
    line.send((kind, value if array is None else value._replace(embeddings=None), array))


def _stop_with_parent() -> None:
    """Ask this process to stop politely when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _passing_on_signals(processes: list[BaseProcess]) -> Iterator[Callable[[], bool]]:
    """Pass signals that ask for an end on to the processes, and wait for what they make of it.

    Yields:
        Whether one was passed on.
    """
    passed: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed.append(number)
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    with handling(stop_signals(), pass_on):
        yield lambda: bool(passed)


def _exit(code: int) -> str:
    if code < 0:
        return f"{signal.Signals(-code).name}, for lack of memory perhaps"
    return (
        f"exit code {code}, and its own words stand above (a script that trains on several devices does so"
        " under `if __name__ == '__main__':`)"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
