"""Short runs of the loop; torchrun starts this file in two processes, test_distributed.py in one."""

from __future__ import annotations

import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from twinned.data.datasets import ImageSet
from twinned.data.decoded import DecodedSet
from twinned.training import distributed, launch
from twinned.training.callbacks import Callback
from twinned.training.config import TrainConfig
from twinned.training.state import Step
from twinned.training.trainer import Trainer

TRIPLET = {"loss": "triplet", "miner": "semi-hard", "distance": "squared_euclidean", "margin": 0.2}
CASES = {
    f"{encoder} {name}": {"encoder": encoder} | changes
    for encoder in ("deck_face", "conv4")  # without batch norm, and with
    for name, changes in {
        "supcon": {"loss": "supcon"},
        "triplets": TRIPLET,
        "proxies": {
            "loss": "proxy-anchor",
            "learning_rate": 1e-3,
            "proxy_lr_scale": 1.0,
        },  # its gradients have a large norm
        "memory": {"loss": "contrastive", "distance": "euclidean", "memory": 40},
        "head": {"loss": "cross-entropy", "head": "weighted-l1"},
        "augmented": {
            "augment.rotation": 9,
            "augment.elastic": 0.05,
            "augment.brightness": 0.2,
            "augment.erase": 0.3,
        },
    }.items()
}


class Losses(Callback):
    """Record the loss of each step."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_step(self, step: Step) -> None:
        self.losses.append(step.loss)


def short_runs() -> dict[str, Tensor]:
    """Return the losses of a few steps and the final weights of every case, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return _short_runs()
    finally:
        torch.set_default_dtype(torch.float32)


def _short_runs() -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 4)
    noisy = rng.integers(0, 255, (8, 24, 24, 1))[labels] + rng.normal(0, 60, (32, 24, 24, 1))
    pixels = noisy.clip(0, 255).astype(np.uint8)
    empty = np.full(32, "")
    images = ImageSet(pixels, labels.astype(str), empty, np.zeros(32, np.bool_), empty)
    material = DecodedSet(pixels, images, None, [str(place) for place in range(32)])
    found: dict[str, Tensor] = {}
    for name, changes in CASES.items():
        config = TrainConfig().merge(
            {"height": 24, "width": 24, "channels": 1, "embedding_size": 16, "precision": "float32"}
            | {"optimizer": "sgd", "learning_rate": 3e-3, "warmup": 2, "steps": 4, "ema_decay": 0.5}
            | {"classes_per_batch": 5, "images_per_class": 3}  # an odd number of images for two processes
            | changes
        )
        losses: list[float] = []
        spec = config.spec().model_copy(update=material.statistics())
        run = Trainer(config, spec, device=torch.device("cpu"), callbacks=[Losses(losses)], progress=False)
        network = run.fit(material, title="Test").network
        found[f"{name}/losses"] = torch.tensor(losses, dtype=torch.float64)
        found |= {f"{name}/{key}": value.contiguous() for key, value in network.state_dict().items()}
    return found


def main() -> None:
    launch.join_processes("cpu", 1)
    torch.set_num_threads(1)
    assert distributed.world_size() == 2
    found = short_runs()
    assert distributed.broadcast_from_rank0(distributed.rank) == 0
    assert distributed.any_rank(False, distributed.rank() == 1, True) == [False, True, True]
    uneven = torch.full((3,), float(distributed.rank()))
    distributed.broadcast_tensors([uneven])
    assert uneven.tolist() == [0, 0, 0]
    save_file(found, f"{sys.argv[1]}/{distributed.rank()}.safetensors")


if __name__ == "__main__":
    main()
