"""Checkpoints: bitwise round trip; checkpoints of other runs and damaged files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from twinned.errors import TrainingError
from twinned.training import checkpoint
from twinned.training.optimizers import Muon
from twinned.training.state import State, StopReason


def some(seed: int, kind: str = "adamw") -> tuple[checkpoint.Parts, torch.optim.Optimizer]:
    """Return two modules, one with buffers and channels-last weights, and an optimizer after `seed` steps."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = nn.Linear(3, 2)
    parameters = [*network.parameters(), *loss.parameters()]
    optimizer: torch.optim.Optimizer
    if kind == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=seed + 1)
    elif kind == "muon":
        matrices = {"params": [p for p in parameters if p.ndim > 1], "orthogonal": True}
        optimizer = Muon([matrices, {"params": [p for p in parameters if p.ndim == 1]}], lr=seed + 1)
    else:
        optimizer = torch.optim.SGD(parameters, lr=seed + 1, momentum=0.9 if kind == "momentum" else 0)
    for _ in range(seed):
        optimizer.zero_grad()
        (network(torch.rand(3, 2, 6, 6)).square().sum() + loss(torch.rand(4, 3)).sum()).backward()
        optimizer.step()
    return {"network": network, "extra": loss}, optimizer


def write(path: Path, seed: int = 3, run: str = '{"steps": 5}', kind: str = "adamw") -> None:
    parts, optimizer = some(seed, kind)
    checkpoint.save(path, state=State(step=seed), parts=parts, optimizer=optimizer, run=run)


@pytest.mark.parametrize("kind", ["adamw", "muon", "momentum", "plain"])
def test_round_trip_is_bitwise(tmp_path, kind):
    history = [{"step": 1.0, "loss": 0.1 + 0.2}]
    state = State(
        step=7,
        total=9,
        seconds=1 / 3,
        bfloat16=False,
        best_eer=0.1,
        best_step=5,
        stopped=StopReason.CALLBACK,
        stopped_because="a callback stopped it",
        history=history,
    )
    parts, optimizer = some(3, kind)
    path = tmp_path / "run" / "main.safetensors"
    checkpoint.save(path, state=state, parts=parts, optimizer=optimizer, run='{"seed": 1}')
    others, other = some(1, kind)
    assert checkpoint.load(path, parts=others, optimizer=other, run='{"seed": 1}') == state
    for name, module in parts.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, others[name].state_dict()[key]), key
    mine, theirs = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index, moments in mine.items():
        for key, value in moments.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[index][key])), (index, key)
            if torch.is_tensor(value):
                assert value.stride() == theirs[index][key].stride(), (
                    "moments have the memory layout of the weights"
                )
    assert [p.name for p in path.parent.iterdir()] == ["main.safetensors"]


def test_checkpoint_before_first_step_has_no_moments(tmp_path):
    write(tmp_path / "a.safetensors", seed=0)
    parts, optimizer = some(0)
    assert checkpoint.load(
        tmp_path / "a.safetensors", parts=parts, optimizer=optimizer, run='{"steps": 5}'
    ) == State(step=0)
    assert optimizer.state_dict()["state"] == {}


def test_checkpoint_of_another_run_is_refused_with_the_difference(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, run=json.dumps({"steps": 5, "loss": "supcon", "seed": 0}))
    parts, optimizer = some(1)
    with pytest.raises(TrainingError, match="other settings or data") as caught:
        checkpoint.load(
            path, parts=parts, optimizer=optimizer, run=json.dumps({"steps": 9, "loss": "supcon"})
        )
    assert "seed: 0 then, None now, steps: 5 then, 9 now" in str(caught.value)
    assert "loss" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"x" * 100])
def test_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    write(path)
    path.write_bytes(damage(path.read_bytes()))
    parts, optimizer = some(1)
    with pytest.raises(TrainingError, match=r"The checkpoint is damaged .*Delete it"):
        checkpoint.load(path, parts=parts, optimizer=optimizer, run='{"steps": 5}')


@pytest.mark.parametrize("other", [nn.Linear(3, 5), nn.Linear(3, 2, bias=False)])
def test_checkpoint_of_other_weights_changes_no_weights(tmp_path, other):
    path = tmp_path / "a.safetensors"
    write(path)
    parts, optimizer = some(1)
    before = parts["network"][0].weight.clone()
    with pytest.raises(
        TrainingError, match=r"another version of Twinned \(extra/\w+ is missing or has another"
    ):
        checkpoint.load(path, parts=parts | {"extra": other}, optimizer=optimizer, run='{"steps": 5}')
    assert torch.equal(parts["network"][0].weight, before)


def test_checkpoint_of_another_format_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path)
    old = {"state": json.dumps({"step": 3, "evals_without_improvement": 0}), "run": '{"steps": 5}'}
    save_file(load_file(path), path, old)
    parts, optimizer = some(1)
    with pytest.raises(
        TrainingError, match=r"another version of Twinned \(format 1 instead of 2\).*`overwrite=True`"
    ):
        checkpoint.load(path, parts=parts, optimizer=optimizer, run='{"steps": 5}')


def test_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError, match=r"cannot be written .*No space left"):
        write(path, seed=2)
    assert path.read_bytes() == before
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        write(blocked / "a.safetensors")
