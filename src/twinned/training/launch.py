"""Devices and processes of training.

torch.distributed's launcher starts one process per device of this machine; torchrun does so on several
machines. lightning-fabric joins them into a group, and `twinned.training.distributed` exchanges data in it.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec

import torch
from torch import distributed as process_group

from ..errors import SettingError, TrainingError, TwinnedError
from ..inference.model import Model
from ..utils.notes import logger, muted
from . import distributed
from .signals import handling, interruptible, stop_signals
from .state import Interrupted

Options = ParamSpec("Options")

# Time that a process waits for the others while the first one evaluates or writes.
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
# Seconds that processes have to save and end after a signal.
_SHUTDOWN_SECONDS = 120
# Seconds that a process with an unexpected error waits before it ends. A lost connection follows from the
# death of another process, which the launcher should find first.
_DELAY = 2.0
_LAUNCHER_LOGGERS = (
    "torch.distributed.elastic.agent.server.api",
    "torch.distributed.elastic.multiprocessing.api",
    "torch.multiprocessing.spawn",
)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt(3)


def training_device(name: str, count: int = 1) -> str:
    """Return the device to train on: ``cpu``, ``cuda`` or ``mps``.

    Args:
        name: One of these, or ``auto`` for the fastest available one.
        count: Number of processes on this machine; each has its own GPU, or a share of the CPU cores.

    Raises:
        SettingError: If the device, or that number of GPUs, is not available.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if name == "auto":
        name = available[0]
    if name not in available:
        raise SettingError(
            f"device {name!r} cannot be used for training here. Choose auto or {', '.join(available)}."
        )
    if count < 1:
        raise SettingError(f"devices is {count}. It must be at least 1.")
    most = {"cpu": count, "cuda": torch.cuda.device_count(), "mps": 1}[name]
    if count > most:
        raise SettingError(
            f"devices is {count}, but this machine has {most} GPU{'s' if most > 1 else ''}. Choose at most"
            f" {most}, or device cpu."
        )
    return name


def keep_freed_memory() -> bool:
    """Configure the C library to keep freed memory for the next step.

    A step on the CPU allocates the same large blocks as the step before. If they are returned to the system,
    every page has to be cleared again: conv4 on 192 images of 35x35 took 71 ms per step, and 55 ms with the
    memory kept. The process stays as large as its peak.

    Returns:
        True if the C library is glibc; other libraries are not changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def on_devices(train: Callable[Options, Model]) -> Callable[Options, Model]:
    """Decorate a training function, so that ``devices=N`` runs it in N processes that train one network.

    Args:
        train: Takes the keywords ``device``, ``devices``, ``output``, ``progress``, ``callbacks`` and
            ``started`` (start of the run on the monotonic clock, which all processes of a machine share).
    """

    @functools.wraps(train)
    @interruptible()
    def wrapped(*args: Options.args, **given: Options.kwargs) -> Model:
        options: dict[str, Any] = {"device": "auto", "devices": 1, "output": None} | given
        if given.get("started") is None:
            given["started"] = time.monotonic()
        launched = process_group.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1
        if launched and distributed.world_size() == 1:
            join_processes(options["device"], options["devices"])
        if distributed.world_size() > 1:
            if options["output"] is None:
                raise SettingError("Several processes need an output: a folder that all of them can access.")
            if distributed.rank() > 0:
                given.update(progress=False, callbacks=())
                with muted():
                    return train(*args, **given)
            return train(*args, **given)
        name = training_device(options["device"], options["devices"])
        if options["devices"] == 1:
            return train(*args, **given)
        temporary = tempfile.TemporaryDirectory(prefix="twinned-") if options["output"] is None else None
        output = options["output"] if temporary is None else Path(temporary.name) / "model"
        _run_processes(wrapped, args, {**given, "device": name, "output": output}, options["devices"])
        return Model(output, temporary=temporary)

    return wrapped


def join_processes(device: str, devices: int) -> None:
    """Make this process, started by torchrun or `on_devices`, a member of the process group.

    Args:
        device: Name of the device, or ``auto``.
        devices: Number of processes on this machine; 1 accepts any number.

    Raises:
        SettingError: If the launcher has started another number of processes.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    local, total = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if devices not in (1, local):
        raise SettingError(
            f"devices is {devices}, but torchrun has started {local} processes on this machine."
        )
    if total % local:
        raise SettingError(
            f"torchrun has started {total} processes, {local} of them on this machine. Start the same number"
            " on every machine."
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = training_device(device, local)
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        process_group_backend="cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        timeout=_COLLECTIVE_TIMEOUT,
    )
    Fabric(accelerator=device, devices=local, num_nodes=total // local, strategy=strategy).launch()


def _run_processes(
    train: Callable[..., Model], args: tuple[Any, ...], options: dict[str, Any], count: int
) -> None:
    """Run a training function in several processes; log here what the first one logs.

    Raises:
        Interrupted: If a signal stopped them.
        TrainingError: If a process died.
        Exception: The exception of a process.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    errors: dict[int, BaseException] = {}
    ended = threading.Event()
    reader = threading.Thread(target=_receive, args=(receiver, errors, ended), daemon=True)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SHUTDOWN_SECONDS))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in stop_signals()),
    )
    for name in _LAUNCHER_LOGGERS:  # they print tracebacks of what is raised below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    reader.start()
    try:
        try:
            with handling(stop_signals(), signal.default_int_handler):  # restores what the launcher sets
                elastic_launch(config, _work)(train, args, options, sender, logger.getEffectiveLevel())
        finally:
            ended.set()
            reader.join()
    except SignalException:
        expected = [
            error for error in errors.values() if isinstance(error, (TwinnedError, KeyboardInterrupt))
        ]
        raise expected[0] if expected else Interrupted("stopped before the first checkpoint") from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise errors.get(rank) or _death(rank, count, failure.exitcode) from None


def _work(
    train: Callable[..., Model],
    args: tuple[Any, ...],
    options: dict[str, Any],
    sender: Connection,
    level: int,
) -> None:
    """Train in one of the processes, and send log records and errors to the process that started it."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # the launcher forwards Ctrl-C; the terminal would send it a second time
    rank = int(os.environ["RANK"])
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(_SendingHandler(sender, rank))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // options["devices"]))
    try:
        with interruptible():
            train(*args, **options)
            process_group.destroy_process_group()
    except BaseException as error:
        expected = isinstance(error, (TwinnedError, OSError, MemoryError, KeyboardInterrupt))
        sent = error if expected else RuntimeError(f"{type(error).__name__}: {error}")
        if not expected:
            sent.add_note(traceback.format_exc())
        sender.send((rank, sent))
        if not expected:
            time.sleep(_DELAY)
        os._exit(1)  # without waiting for connections to the other processes


class _SendingHandler(logging.Handler):
    """Send log records to the process that started this one."""

    def __init__(self, sender: Connection, rank: int) -> None:
        super().__init__()
        self.sender, self.rank = sender, rank

    def emit(self, record: logging.LogRecord) -> None:
        self.sender.send((self.rank, record))


def _receive(receiver: Connection, errors: dict[int, BaseException], ended: threading.Event) -> None:
    """Log the records of the processes and collect their exceptions, in the order of arrival."""
    while receiver.poll(0.05) or not ended.is_set():
        if receiver.poll():
            rank, message = receiver.recv()
            if isinstance(message, logging.LogRecord):
                logging.getLogger(message.name).handle(message)
            else:
                errors[rank] = message


def _death(rank: int, count: int, code: int) -> TrainingError:
    if code < 0:
        ended = f"{signal.Signals(-code).name}, perhaps for lack of memory"
    else:
        ended = (
            f"exit code {code}; its output is above. A script that trains on several devices must call train"
            " below `if __name__ == '__main__':`"
        )
    return TrainingError(
        f"training stopped: process {rank + 1} of {count} ended with {ended}. With an output, resume"
        " continues from the last checkpoint."
    )
