"""The training loop on a network with two weights: schedule, averaging, limits, resuming, signals."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from twinned.data.samplers import Batch
from twinned.errors import SettingError, TrainingError
from twinned.training import callbacks, checkpoint
from twinned.training.callbacks import Callback
from twinned.training.loop import train_network
from twinned.training.process import bfloat16_is_faster, interruptible
from twinned.training.schedule import Schedule
from twinned.training.state import Interrupted, Scores, State, Step, StopReason, TrainResult

from .conftest import FakeClock

TARGET = torch.tensor([[3.0, -1.0]])


def batches(step: int) -> Batch:
    return Batch(np.arange(4), np.full(4, step))


def load(batch: Batch, step: int) -> Tensor:
    return torch.rand(4, 2, generator=torch.Generator().manual_seed(step))


def objective(network: nn.Module, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    embeddings = network(images)
    return (embeddings - images @ TARGET.T).square().mean(), embeddings


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.02), nn.Linear(2, 1, bias=False))
    return network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


def run(plan: Schedule, on_step: Callable[[Step], Any] | None = None, **given: Any) -> TrainResult[Any]:
    network, optimizer = fresh()
    parts = {"batches": batches, "load": load, "objective": objective, "progress": None}
    if on_step is not None:
        given["callbacks"] = [OnStep(on_step)]
    return train_network(network, optimizer=optimizer, schedule=plan, **parts | given)


class OnStep(Callback):
    """Call a function after each step; its result is ignored."""

    def __init__(self, function: Callable[[Step], Any]) -> None:
        self.function = function

    def on_step(self, step: Step) -> None:
        self.function(step)


def weights(outcome: TrainResult[Any]) -> list[float]:
    return outcome.network[1].weight.detach().flatten().tolist()


def plan(steps: int | None = 20, **given: Any) -> Schedule:
    defaults = {"steps": steps, "learning_rate": 0.05, "warmup": 2, "bfloat16": False, "ema_decay": 0.5}
    return Schedule(**defaults | given)


def scores(*eers: float) -> Callable[[nn.Module], Scores]:
    """Return an evaluator that reports these equal error rates in order."""
    left = iter(eers)
    return lambda network: Scores(0.5, 0.5, next(left))


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(callbacks, "_MIN_EVALUATION_INTERVAL", 1)


# ---- the schedule


def test_rate_warms_up_and_decays_by_half_a_cosine():
    p = Schedule(learning_rate=2.0, warmup=4, decay_start=0.5)
    assert [p.rate(step, 100) for step in range(5)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert p.rate(50, 100) == 2.0
    assert p.rate(75, 100) == pytest.approx(1.0)
    assert 0 < p.rate(99, 100) < 0.01
    assert p.rate(10, None) == 2.0, "no decay while the number of steps is unknown"
    falling = [p.rate(step, 100) for step in range(50, 100)]
    assert falling == sorted(falling, reverse=True)


def test_parameter_groups_scale_the_rate():
    seen: list[list[float]] = []
    network, optimizer = fresh()
    loss = nn.ParameterList([torch.zeros(1)])
    optimizer.add_param_group({"params": [*loss], "scale": 0.1})

    def note(step: Step) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])
        assert step.learning_rate == plan().rate(step.step, 20)

    train_network(
        network,
        optimizer=optimizer,
        schedule=plan(),
        extra=loss,
        batches=batches,
        load=load,
        objective=objective,
        callbacks=[OnStep(note)],
        progress=None,
    )
    for step, (rate, less) in enumerate(seen):
        assert rate == plan().rate(step, 20)
        assert less == pytest.approx(0.1 * rate)


def test_optimizer_of_another_network_is_refused():
    network, _ = fresh()
    _, other = fresh()
    with pytest.raises(SettingError, match="1 of 1 parameters of optimizer SGD do not belong to the Seq"):
        train_network(
            network,
            optimizer=other,
            schedule=plan(),
            batches=batches,
            load=load,
            objective=objective,
            progress=None,
        )


def test_global_random_state_is_unchanged():
    torch.manual_seed(7)
    expected = torch.rand(3)
    network, optimizer = fresh()
    torch.manual_seed(7)
    train_network(
        network,
        optimizer=optimizer,
        schedule=plan(),
        batches=batches,
        load=load,
        objective=objective,
        progress=None,
    )
    assert torch.equal(torch.rand(3), expected)


# ---- weights


def test_training_converges():
    outcome = run(plan(600, ema_decay=0.9))
    assert weights(outcome) == pytest.approx(TARGET[0].tolist(), abs=0.15)
    assert outcome.state.step == 600
    assert outcome.state.stopped is None
    assert not outcome.network.training


def test_steps_and_average_equal_a_plain_loop():
    p = plan(12, ema_decay=0.8)
    network, optimizer = fresh()
    average = network[1].weight.detach().clone()
    for step in range(12):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = p.rate(step, 12)
        loss, _ = objective(network, load(batches(step), step), batches(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(0.8, (1 + step) / (10 + step))
        average += (1 - decay) * (network[1].weight.detach() - average)
    # Twelve steps, each of which rounds a weight of up to 3 twice, in float32: 12 * 2 * 3 * 2^-24 = 4e-6.
    assert weights(run(p)) == pytest.approx(average.flatten().tolist(), abs=5e-6)


def test_history_counts_epochs_by_epoch_steps():
    outcome = run(plan(6, evaluations=3, epoch_steps=2.5), evaluate=scores(0.3, 0.2, 0.1))
    assert [(row["step"], row["epoch"]) for row in outcome.state.history] == [(2, 0.8), (4, 1.6), (6, 2.4)]


def test_without_averaging_last_weights_are_kept():
    losses: list[float] = []
    outcome = run(plan(5, ema_decay=0.0), on_step=lambda step: losses.append(step.loss))
    network, _ = fresh()
    assert weights(outcome) != network[1].weight.flatten().tolist()
    again = run(plan(5, ema_decay=0.0))
    assert weights(again) == weights(outcome)
    assert len(losses) == 5


def test_best_evaluated_weights_are_kept():
    at: list[list[float]] = []
    eers = [0.5, 0.2, 0.3, 0.25]

    def evaluate(network: nn.Module) -> Scores:
        at.append(network[1].weight.detach().flatten().tolist())
        return Scores(0.9, 1 - eers[len(at) - 1], eers[len(at) - 1])

    outcome = run(plan(4, evaluations=4), evaluate=evaluate)
    assert weights(outcome) == at[1]
    assert (outcome.state.best_step, outcome.state.best_eer) == (2, 0.2)
    rows = outcome.state.history
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["held_out_eer"] for row in rows] == eers
    assert [row["held_out_accuracy"] for row in rows] == pytest.approx([1 - e for e in eers])
    assert {"epoch", "seconds", "loss", "train_accuracy", "learning_rate"} < set(rows[0])


def test_later_of_equal_evaluations_is_kept():
    assert run(plan(3, evaluations=3), evaluate=scores(0.2, 0.2, 0.2)).state.best_step == 3
    assert run(plan(3, evaluations=3), evaluate=scores(*[math.nan] * 3)).state.best_step == 3


class StopAfter(Callback):
    """Stop after a number of evaluations, or at a loss below `loss`."""

    def __init__(self, evaluations: int = 99, loss: float = -1) -> None:
        self.evaluations, self.loss = evaluations, loss
        self.ended: list[State] = []

    def on_step(self, step: Step) -> bool:
        return step.loss < self.loss

    def on_evaluation(self, scores: Scores, network: nn.Module) -> bool:
        self.evaluations -= 1
        return self.evaluations == 0

    def on_train_end(self, state: State) -> None:
        self.ended.append(state)


def test_callback_stops_training():
    stop = StopAfter(evaluations=5)
    outcome = run(plan(30, evaluations=30), evaluate=scores(0.3, 0.2, *[0.4] * 28), callbacks=[stop])
    assert (outcome.state.step, outcome.state.best_step) == (5, 2)
    assert outcome.state.stopped is StopReason.CALLBACK
    assert stop.ended == [outcome.state]
    assert run(plan(30), callbacks=[StopAfter(loss=1e9)]).state.step == 1
    assert (
        run(plan(5, evaluations=5), evaluate=scores(*[0.2] * 5), callbacks=[StopAfter(5)]).state.stopped
        is None
    )


# ---- non-finite values


def going_wrong(at: int, *, gradient: bool = False) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def wrong(network: nn.Module, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        loss, embeddings = objective(network, images, batch)
        if batch.labels[0] == at:
            # The square root at 0 has an infinite slope; times 0 that is NaN, while the loss itself is not.
            loss = loss + (loss * 0).sqrt() if gradient else loss * math.nan
        return loss, embeddings

    return wrong


@pytest.mark.parametrize("gradient", [False, True])
def test_non_finite_value_stops_with_last_finite_weights(gradient):
    outcome = run(plan(20), objective=going_wrong(6, gradient=gradient))
    what = "gradient" if gradient else "loss (nan)"
    assert outcome.state.stopped is StopReason.NOT_FINITE
    assert outcome.state.stopped_because == f"the {what} was not finite at step 6"
    assert outcome.state.step == 6
    kept: list[list[float]] = []
    run(plan(20), evaluate=lambda net: kept.append(net[1].weight.flatten().tolist()) or Scores(0, 0, 0.1))
    run(plan(20, evaluations=20), evaluate=lambda net: kept.append(weights_of(net)) or Scores(0, 0, 0.1))
    assert weights(outcome) == kept[-15], "the average after six good steps"


def weights_of(network: nn.Module) -> list[float]:
    return network[1].weight.detach().flatten().tolist()


def test_non_finite_loss_keeps_the_best_evaluation():
    outcome = run(plan(20, evaluations=10), objective=going_wrong(7), evaluate=scores(0.3, 0.1, 0.2, 0.5))
    assert outcome.state.best_step == 4
    assert outcome.state.stopped is not None


def test_no_finite_weights_are_an_error():
    def infinite(network: nn.Module) -> Scores:
        return Scores(math.nan, math.nan, math.inf)

    with pytest.raises(TrainingError, match=r"not finite at step 0.*Use a smaller learning rate"):
        run(plan(5), objective=going_wrong(0), evaluate=infinite)
    with pytest.raises(TrainingError, match="before any evaluation with finite embeddings"):
        run(plan(3, evaluations=3), evaluate=infinite)


# ---- length


def test_zero_steps_keep_the_weights():
    network, _ = fresh()
    outcome = run(plan(0))
    assert weights(outcome) == weights_of(network)
    assert outcome.state.step == 0


class WaitingLoader:
    """Advance the clock by the time that each step takes, then load its images."""

    def __init__(self, clock: FakeClock, first: float, later: float | None = None) -> None:
        self.clock, self.first, self.later = clock, first, first if later is None else later

    def __call__(self, batch: Batch, step: int) -> Tensor:
        self.clock.advance(self.first if step < 30 else self.later)
        return load(batch, step)


def test_time_budget_sets_the_number_of_steps(clock):
    totals: list[int | None] = []
    outcome = run(
        plan(None, seconds=1.5),
        load=WaitingLoader(clock, 0.01),
        on_step=lambda step: totals.append(step.total),
    )
    assert clock() <= 1.5
    known = [total for total in totals if total is not None]
    assert totals[0] is None
    assert len(set(known)) <= 3, "corrected before the decay starts"
    assert 140 <= known[-1] <= 150
    assert outcome.state.stopped is None
    assert outcome.state.step == outcome.state.total == known[-1]


@pytest.mark.parametrize(("first", "later"), [(0.03, 0.005), (0.005, 0.008)], ids=["quicker", "slower"])
def test_number_of_steps_is_corrected_before_decay(clock, first, later):
    """Faster steps add to the total, slower steps reduce it; the rate decays in both cases."""
    seen: list[Step] = []
    outcome = run(
        plan(None, seconds=4.0, decay_start=0.5),
        load=WaitingLoader(clock, first, later),
        on_step=seen.append,
    )
    # Without the correction, steps that become quicker end after 1.5 s.
    assert 2.0 < clock() <= 4.0 + later
    numbers = list(dict.fromkeys(step.total for step in seen if step.total is not None))
    assert (numbers[-1] > 1.3 * numbers[0]) if later < first else (numbers[-1] < numbers[0])
    assert seen[-1].learning_rate < 0.3 * seen[len(seen) // 3].learning_rate
    assert outcome.state.step > 0.7 * numbers[-1]


def test_evaluations_count_toward_the_budget(clock):
    def evaluate(network: nn.Module) -> Scores:
        clock.advance(0.3)
        return Scores(0.5, 0.5, 0.5)

    outcome = run(plan(None, seconds=4.0, evaluations=5), load=WaitingLoader(clock, 0.005), evaluate=evaluate)
    assert clock() <= 4.0 + 0.3
    assert len(outcome.state.history) >= 4


def test_slow_steps_stop_at_the_time_limit(clock):
    outcome = run(plan(None, seconds=1.0), load=WaitingLoader(clock, 0.005, 0.1))
    assert clock() < 1.0 + 2 * 0.1
    assert outcome.state.stopped is StopReason.TIME_IS_UP
    assert f"after step {outcome.state.step} of {outcome.state.total}" in outcome.state.stopped_because


def test_step_longer_than_the_budget_ends_the_run(clock):
    outcome = run(plan(None, seconds=0.05), load=WaitingLoader(clock, 0.1))
    assert outcome.state.step == 1
    assert outcome.state.stopped is StopReason.TIME_IS_UP


def test_fixed_number_of_steps_ignores_the_clock(clock):
    assert run(plan(3)).state.step == 3


# ---- bfloat16


@pytest.mark.parametrize("bfloat16", [True, False])
def test_network_runs_in_scheduled_precision(bfloat16):
    types: set[torch.dtype] = set()

    def note(network: nn.Module, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        embeddings = network(images)
        types.add(embeddings.dtype)
        return embeddings.float().square().mean(), embeddings

    assert run(plan(3, bfloat16=bfloat16), objective=note).state.bfloat16 is bfloat16
    assert types == {torch.bfloat16 if bfloat16 else torch.float32}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, False),
    ],
)
def test_bfloat16_requires_cpu_support(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bfloat16_is_faster(torch.device("cpu")) is expected
    assert not bfloat16_is_faster(torch.device("mps"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not bfloat16_is_faster(torch.device("cpu")), "an older release of PyTorch"


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_not_emulated_on_a_gpu(monkeypatch, native):
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert bfloat16_is_faster(torch.device("cuda")) is native


# ---- resuming


class StopError(BaseException):
    """Simulated crash between two steps."""


@pytest.mark.parametrize("error", [StopError, ValueError])
@pytest.mark.parametrize("at", [1, 4, 9, 13])
def test_resumed_run_equals_uninterrupted_run(tmp_path, at, error):
    """After a crash and after a callback error, whose message names the checkpoint."""
    eers = [0.5, 0.3, 0.4, 0.2, 0.25, 0.3, 0.1, 0.2, 0.2, 0.3]

    def evaluate(network: nn.Module) -> Scores:
        seen = int(torch.tensor(weights_of(network)).sum().item() * 1e6) % len(
            eers
        )  # depends on the weights only
        return Scores(0.5, 0.5, eers[seen])

    def crash(step: Step) -> None:
        if step.step == at:
            raise error

    p = plan(14, evaluations=7, checkpoint_seconds=0.0)
    whole = run(p, evaluate=evaluate)
    file = tmp_path / "main.safetensors"
    with pytest.raises((StopError, TrainingError)) as raised:
        run(p, evaluate=evaluate, on_step=crash, checkpoint_file=file)
    assert file.exists()
    if error is ValueError:
        assert f"OnStep.on_step failed (ValueError: ); the run is saved in {file}" in str(raised.value)
    resumed = run(p, evaluate=evaluate, checkpoint_file=file)
    assert weights(resumed) == weights(whole)
    same = {"step", "total", "best_eer", "best_step", "stopped"}
    assert {k: getattr(resumed.state, k) for k in same} == {k: getattr(whole.state, k) for k in same}

    def timeless(state: State) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in state.history]

    assert timeless(resumed.state) == timeless(whole.state)


def test_resume_of_finished_run_takes_no_steps(tmp_path):
    for name, given in {
        "done": {},
        "nan": {"objective": going_wrong(6)},
        "stopped": {"evaluate": scores(0.1, *[0.5] * 20), "callbacks": [StopAfter(4)]},
    }.items():
        file = tmp_path / f"{name}.safetensors"
        first = run(plan(10, evaluations=10), checkpoint_file=file, **given)
        steps: list[Step] = []
        again = run(
            plan(10, evaluations=10), checkpoint_file=file, **given | {"callbacks": [OnStep(steps.append)]}
        )
        assert steps == []
        assert weights(again) == weights(first)
        assert again.state == first.state


def test_resumed_run_keeps_the_measured_number_of_steps(tmp_path, clock):
    file = tmp_path / "main.safetensors"

    def crash(step: Step) -> None:
        if step.total is not None:
            raise StopError

    given = {"load": WaitingLoader(clock, 0.02), "checkpoint_file": file}
    p = plan(None, seconds=2.0, checkpoint_seconds=0.0)
    with pytest.raises(StopError):
        run(p, on_step=crash, **given)
    # The step that determined the total was not saved, so it is measured again with a new budget.
    totals: list[int | None] = []
    run(p, on_step=lambda step: totals.append(step.total), **given)
    assert totals[-1] is not None
    state = json.loads(_metadata(file)["state"])
    again = run(p, on_step=crash, **given)
    assert again.state.total == state["total"]


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def test_resume_refuses_another_run(tmp_path):
    file = tmp_path / "main.safetensors"
    run(plan(3), checkpoint_file=file, run='{"steps": 3}')
    with pytest.raises(TrainingError, match="steps: 3 then, 4 now"):
        run(plan(4), checkpoint_file=file, run='{"steps": 4}')


STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none
needs_sighup = pytest.mark.skipif(SIGHUP is None, reason="needs SIGHUP")


@pytest.mark.parametrize("number", STOPS)
def test_first_signal_saves_and_stops_the_run(tmp_path, number):
    before = signal.getsignal(number)
    file = tmp_path / "main.safetensors"

    def interrupt(step: Step) -> None:
        if step.step == 4:
            signal.raise_signal(number)

    with pytest.raises(Interrupted, match="stopped after step 5 of 12"):
        run(plan(12), on_step=interrupt, checkpoint_file=file)
    assert signal.getsignal(number) == before
    steps: list[int] = []
    resumed = run(plan(12), on_step=lambda step: steps.append(step.step), checkpoint_file=file)
    assert steps == list(range(5, 12))
    assert weights(resumed) == weights(run(plan(12)))


def test_second_ctrl_c_interrupts_at_once():
    def twice(step: Step) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(plan(12), on_step=twice)


@needs_sighup
def test_repeated_sighup_saves_the_run(tmp_path):
    def hang_up(step: Step) -> None:
        signal.raise_signal(SIGHUP)
        signal.raise_signal(SIGHUP)

    with pytest.raises(Interrupted, match="stopped after step 1 of 12"):
        run(plan(12), on_step=hang_up, checkpoint_file=tmp_path / "main.safetensors")
    assert (tmp_path / "main.safetensors").exists()


@needs_sighup
def test_ignored_sighup_stays_ignored():
    before = signal.signal(SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            outcome = run(plan(12), on_step=lambda step: signal.raise_signal(SIGHUP))
            assert signal.getsignal(SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(SIGHUP, before)
    assert outcome.state.step == 12


def test_signal_at_last_evaluation_stops_after_saving(tmp_path):
    def evaluate(network: nn.Module) -> Scores:
        if evaluate.calls == 1:  # type: ignore[attr-defined]
            signal.raise_signal(signal.SIGTERM)
        evaluate.calls += 1  # type: ignore[attr-defined]
        return Scores(0.5, 0.5, 0.5)

    evaluate.calls = 0  # type: ignore[attr-defined]
    file = tmp_path / "main.safetensors"
    with pytest.raises(Interrupted, match="stopped after step 4 of 4"):
        run(plan(4, evaluations=2), evaluate=evaluate, checkpoint_file=file)
    steps: list[Step] = []
    assert run(plan(4, evaluations=2), on_step=steps.append, checkpoint_file=file).state.step == 4
    assert not steps


@pytest.mark.parametrize("number", STOPS)
def test_signal_outside_the_loop_raises_keyboard_interrupt(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_own_signal_handler_is_kept():
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_loop_runs_in_a_thread():
    outcomes: list[TrainResult[Any]] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(plan(3))))
    thread.start()
    thread.join()
    assert outcomes[0].state.step == 3


def test_checkpoint_interval(tmp_path, monkeypatch, clock):
    written: list[int] = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda path, **given: (written.append(given["state"].step), save(path, **given))
    )
    given = {"load": WaitingLoader(clock, 1.0)}
    run(plan(6, checkpoint_seconds=0.0), checkpoint_file=tmp_path / "a.safetensors", **given)
    assert written == [1, 2, 3, 4, 5, 6, 6]
    written.clear()
    run(plan(6, checkpoint_seconds=2.5), checkpoint_file=tmp_path / "b.safetensors", **given)
    assert written == [3, 6, 6]
    written.clear()
    run(plan(6, checkpoint_seconds=60.0), checkpoint_file=tmp_path / "c.safetensors", **given)
    assert written == [6]
