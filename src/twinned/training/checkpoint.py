"""Checkpoints: all that a run needs to go on, in one safetensors file that is replaced atomically."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import TrainingError


@dataclass
class State:
    """Where a run stands, beside its weights. Batches, augmentation and dropout depend on the step alone,
    so the step is also the state of the sampler and of every random generator.

    Args:
        step: Steps taken.
        total: Steps to take; None until the speed has been measured.
        seconds: Time spent in the loop, over all its sittings.
        bfloat16: Whether the network runs in bfloat16; None until that has been measured.
        best_eer: The lowest held-out equal error rate so far.
        best_step: The step that had it.
        stale: Evaluations since then.
        stopped: Why the run ended before its last step; None while it goes on.
        history: One row for each evaluation: the lines of history.csv.
    """

    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    bfloat16: bool | None = None
    best_eer: float | None = None
    best_step: int = 0
    evals_without_improvement: int = 0
    stopped: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)


Parts = dict[str, nn.Module]


def save(path: Path, *, state: State, parts: Parts, optimizer: torch.optim.Optimizer, run: str) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one, whole.

    Args:
        path: The file.
        state: Where the run stands.
        parts: The modules whose weights and buffers are kept, by name.
        optimizer: Its moments are kept.
        run: What identifies the run (its settings and data); `load` refuses another.

    Raises:
        TrainingError: If it cannot be written: the disk is full, for one.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in parts.items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    # safetensors wants plain memory that nothing else shares.
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, new, metadata={"state": json.dumps(asdict(state)), "run": run})
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: the checkpoint cannot be written ({error})") from None


def load(path: Path, *, parts: Parts, optimizer: torch.optim.Optimizer, run: str) -> State:
    """Put a checkpoint's weights and moments back, and return where the run stands.

    Raises:
        TrainingError: If the file is damaged, belongs to a run with other settings or data, or was written
            by a version with other weights.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        state = State(**json.loads(metadata["state"]))
        before = json.loads(metadata["run"] or "{}")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}: the checkpoint is damaged ({error}); delete it to begin anew") from None
    if differences := setting_differences(before, json.loads(run or "{}")):
        raise TrainingError(
            f"{path}: was written by a run with other settings or data"
            f" ({differences}); give the same, or --force to begin anew"
        )
    state_of = {name: module.state_dict() for name, module in parts.items()}
    mine = {
        f"{name}/{key}": value.shape for name, values in state_of.items() for key, value in values.items()
    }
    theirs = {key: value.shape for key, value in tensors.items() if not key.startswith("optimizer/")}
    if other := sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)):
        raise TrainingError(
            f"{path}: was written by another version of Twinned ({other[0]} is missing or of another shape);"
            " resume with that version, or start over with --force"
        )
    for name, module in parts.items():
        prefix = f"{name}/"
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    moments: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            like = parameters[int(index)]
            # In the parameter's own layout (channels last): another one may round otherwise.
            laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(int(index), {})[name] = laid_out.detach()
    if moments:
        groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return state


def setting_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Which settings differ between two runs, in words; empty where none does."""
    names = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return ", ".join(f"{key}: {old.get(key)} then, {new.get(key)} now" for key in names)
