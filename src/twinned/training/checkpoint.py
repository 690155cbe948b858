"""Checkpoints: state, weights and optimizer moments in one safetensors file that is replaced atomically."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.decoded import DecodedSet
from ..errors import TrainingError
from ..utils.files import replacing
from . import distributed
from .callbacks import Callback
from .config import TrainConfig
from .state import State, Step, StopReason
from .warm_start import WarmStart

FORMAT = "2"
Parts = Mapping[str, nn.Module]


@dataclass(eq=False)
class CheckpointSaver(Callback):
    """Save a run every few seconds, in the first process; nothing without a path."""

    path: Path | None
    parts: Parts
    optimizer: torch.optim.Optimizer
    run: str
    seconds: float
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        self._saved = time.monotonic()

    def resume(self, start: State) -> State:
        """Load the checkpoint into the modules and the optimizer; return ``start`` if there is no file."""
        self.state, path = start, self.path
        if path is not None and distributed.broadcast_from_rank0(path.exists):
            self.state = load(path, parts=self.parts, optimizer=self.optimizer, run=self.run)
        return self.state

    def save(self) -> Path | None:
        """Write the checkpoint, and return its file; None without one."""
        if self.path is not None and distributed.rank() == 0:
            save(self.path, state=self.state, parts=self.parts, optimizer=self.optimizer, run=self.run)
        self._saved = time.monotonic()
        return self.path

    def on_step(self, step: Step) -> None:
        if time.monotonic() - self._saved > self.seconds:
            self.save()


def save(path: Path, *, state: State, parts: Parts, optimizer: torch.optim.Optimizer, run: str) -> None:
    """Write a checkpoint atomically: a killed process leaves the old file or the new one.

    ``run`` identifies the run, its settings and data, in JSON; `load` refuses another one.
    """
    tensors = _weights(parts)
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    # safetensors requires contiguous tensors that share no memory.
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    metadata = {"format": FORMAT, "state": json.dumps(asdict(state)), "run": run}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            save_file(plain, new, metadata)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: The checkpoint cannot be written ({error}).") from None


def load(path: Path, *, parts: Parts, optimizer: torch.optim.Optimizer, run: str) -> State:
    """Load a checkpoint's weights and moments, and return the state of the run.

    A `TrainingError` refuses files that are damaged, of another run, or of another version of Twinned.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        values = json.loads(metadata["state"])
        if (version := metadata.get("format", "1")) != FORMAT:
            raise _other_version(path, f"format {version} instead of {FORMAT}")
        stopped = values.pop("stopped")
        state = State(**values, stopped=None if stopped is None else StopReason(stopped))
        before = json.loads(metadata["run"] or "{}")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: The checkpoint is damaged ({error}). Delete it to start from the beginning."
        ) from None
    if differences := setting_differences(before, json.loads(run or "{}")):
        raise TrainingError(
            f"{path}: The checkpoint belongs to a run with other settings or data ({differences})."
            " Use the same ones to resume it, or `overwrite=True` to start from the beginning."
        )
    expected = {key: value.shape for key, value in _weights(parts).items()}
    found = {key: value.shape for key, value in tensors.items() if not key.startswith("optimizer/")}
    if other := sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)):
        raise _other_version(path, f"{other[0]} is missing or has another shape")
    for name, module in parts.items():
        prefix = f"{name}/"
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    moments: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            like = parameters[int(index)]
            # Keep the parameter's memory layout (channels last): another one may round differently.
            laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(int(index), {})[name] = laid_out.detach()
    if moments:
        groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return state


def _weights(parts: Parts) -> dict[str, Tensor]:
    """Return the weights and buffers of all modules, by the names in the file."""
    states = {name: module.state_dict() for name, module in parts.items()}
    return {f"{name}/{key}": value for name, state in states.items() for key, value in state.items()}


def run_identity(
    config: TrainConfig, train: DecodedSet, validation: DecodedSet | None, warm_start: WarmStart | None
) -> str:
    """Return the JSON text that identifies a run in its checkpoint: its settings, data and initial model."""
    data = {"data": train.identity(), "held_out": None if validation is None else validation.identity()}
    model = {} if warm_start is None else {"model": warm_start.sha256}
    return json.dumps(config.model_dump(mode="json") | data | model)


def setting_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe the settings that differ between two runs; empty if none do."""
    old, new = _dotted(old), _dotted(new)
    names = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return ", ".join(f"{key}: {old.get(key)} then, {new.get(key)} now" for key in names)


def partial_folder(target: Path) -> Path:
    """Return the folder of the checkpoints of an unfinished run that writes to ``target``."""
    return target.with_name(target.name + ".partial")


def _dotted(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the values of nested sections by dotted name."""
    found: dict[str, Any] = {}
    for name, value in sections.items():
        inner = _dotted(value) if isinstance(value, dict) else {}
        found |= {f"{name}.{key}": each for key, each in inner.items()} if inner else {name: value}
    return found


def _other_version(path: Path, why: str) -> TrainingError:
    return TrainingError(
        f"{path}: The checkpoint was written by another version of Twinned ({why}). Resume it with that"
        " version, or use `overwrite=True` to start from the beginning."
    )
