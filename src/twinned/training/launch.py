"""Processes of training: one per device, started by torch.distributed's launcher or by torchrun.

lightning-fabric joins them into a group, and `twinned.training.distributed` exchanges data in it.
"""

from __future__ import annotations

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
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import torch
from torch import distributed as process_group

from ..errors import SettingError, TrainingError, TwinnedError
from ..inference.model import Model
from ..utils.notes import logger, muted
from . import distributed
from .options import TrainRequest
from .process import handling, interruptible, stop_signals, training_device
from .state import Interrupted

Training: TypeAlias = Callable[[TrainRequest], Model]

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


@interruptible()
def run_on_devices(train: Training, request: TrainRequest) -> Model:
    """Train in this process, or with ``devices`` above 1 in so many processes that train one network.

    The function ``train`` does so in one process; it must be at the top level of a module.
    """
    if request.started is None:
        request = replace(request, started=time.monotonic())
    launched = process_group.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1
    if launched and distributed.world_size() == 1:
        join_processes(request.device, request.devices)
    if distributed.world_size() > 1:
        if request.output is None:
            raise SettingError("Several processes need an output: a folder that all of them can access.")
        if distributed.rank() == 0:
            return train(request)
        with muted():
            return train(replace(request, progress=False, callbacks=()))
    device = training_device(request.device, request.devices)
    if request.devices == 1:
        return train(request)
    output, temporary = request.output, None
    if output is None:
        temporary = tempfile.TemporaryDirectory(prefix="twinned-")
        output = Path(temporary.name) / "model"
    _run_processes(train, replace(request, device=device, output=output))
    return Model(output, temporary=temporary)


def join_processes(device: str, devices: int) -> None:
    """Make this process, started by torchrun or `run_on_devices`, a member of the process group.

    The launcher must have started ``devices`` processes on this machine; 1 accepts any number.
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
        raise SettingError(f"torchrun started {local} of {total} processes here. Start as many everywhere.")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = training_device(device, local)
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        process_group_backend="cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        timeout=_COLLECTIVE_TIMEOUT,
    )
    Fabric(accelerator=device, devices=local, num_nodes=total // local, strategy=strategy).launch()


def _run_processes(train: Training, request: TrainRequest) -> None:
    """Run a training function in several processes; log what the first one logs, and raise errors."""
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
        nproc_per_node=request.devices,
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
                elastic_launch(config, _work)(train, request, sender, logger.getEffectiveLevel())
        finally:
            ended.set()
            reader.join()
    except SignalException:
        expected = (e for e in errors.values() if isinstance(e, (TwinnedError, KeyboardInterrupt)))
        raise next(expected, Interrupted("stopped before the first checkpoint")) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise errors.get(rank) or _death(rank, request.devices, failure.exitcode) from None


def _work(train: Training, request: TrainRequest, sender: Connection, level: int) -> None:
    """Train in one of the processes, and send log records and errors to the process that started it."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # the launcher forwards Ctrl-C; the terminal would send it a second time
    rank = int(os.environ["RANK"])
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(_SendingHandler(sender, rank))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // request.devices))
    try:
        with interruptible():
            run_on_devices(train, request)
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
