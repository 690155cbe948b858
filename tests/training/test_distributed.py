"""Training in two processes equals training in one process on the whole batch."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from twinned.training import distributed

WORKER = Path(__file__).with_name("distributed_worker.py")
CASES = list(runpy.run_path(str(WORKER))["CASES"])


@pytest.fixture(scope="module")
def single_process() -> dict[str, Tensor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, Tensor] = runpy.run_path(str(WORKER))["short_runs"]()
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(WORKER), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"{number}.safetensors") for number in range(2)]


# In float64, whose unit of rounding u is 1.1e-16: a sum has at most 15 * 24 * 24 = 8640 terms, one for each
# pixel of a batch, so it is right to 8640 u = 1e-12 of its terms. The factor 100 is for four steps in a row.
# In float32 no such bound holds: the last digit may decide what a ReLU or a max-pooling lets through, and the
# loss then moves by some 3e-4.
_ROUNDING = 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_equal_one_process(case, single_process, two_processes):
    names = [name for name in single_process if name.startswith(f"{case}/")]
    assert len(names) > 5
    for name in names:
        assert single_process[name].dtype in (torch.float64, torch.int64), name
        torch.testing.assert_close(
            two_processes[0][name], single_process[name], atol=_ROUNDING, rtol=_ROUNDING
        )


@pytest.mark.slow
def test_processes_end_with_equal_weights(two_processes):
    assert two_processes[0].keys() == two_processes[1].keys()
    for name, value in two_processes[0].items():
        assert torch.equal(value, two_processes[1][name]), name


@pytest.mark.slow
def test_every_case_updates_the_weights(single_process):
    # Without updates, the comparison with one process would be meaningless.
    for case in CASES:
        losses = single_process[f"{case}/losses"]
        assert losses.unique().numel() == len(losses), case


def test_helpers_are_no_ops_in_one_process():
    assert distributed.world_size() == 1
    assert distributed.rank() == 0
    assert distributed.rank_slice() == slice(0, None, 1)
    assert distributed.broadcast_from_rank0(lambda: "found") == "found"
    assert distributed.any_rank(True, False) == [True, False]
    images = torch.rand(3, 2)
    assert distributed.gather_embeddings(lambda x: x, images, 3) is images


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5)])
def test_batch_norm_of_one_process_equals_torch(shape, monkeypatch):
    monkeypatch.setattr(distributed, "_gather", lambda values: values[None])
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.rand(2, 3, dtype=torch.float64).requires_grad_()
    results = []
    for norm in (F.batch_norm, distributed._batch_norm):
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        y = norm(x, mean, var, weight, bias, training=True, momentum=0.3)
        results.append((y, mean, var, *torch.autograd.grad(y.square().sin().sum(), (x, weight, bias))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=_ROUNDING, rtol=_ROUNDING)
