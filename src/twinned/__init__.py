"""Twinned: tell whether two images show the same thing.

Train a Siamese network on your own images, then verify, recognize a new class from one example, and search.
Names are looked up when they are first used, so that importing Twinned imports none of PyTorch,
matplotlib, scikit-learn or FastAPI.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .utils.telemetry import disable as _disable_telemetry

_disable_telemetry()  # every entry imports this package before a dependency

__version__ = "0.2.0"

# Public name: the module that defines it or, after a colon, the module that it is.
_HOME = {
    "Callback": "training.callbacks",
    "Evaluation": "evaluation.results",
    "Gallery": "gallery",
    "ImageSet": "data",
    "Model": "inference.model",
    "PairSet": "data",
    "SiameseNetwork": "nn.siamese",
    "TrainConfig": "training.config",
    "TwinnedError": "errors",
    "Verdict": "inference.results",
    "check_data": "data.checks.checker",
    "data": ":data",
    "distances": ":distances",
    "encoders": ":nn.encoders",
    "errors": ":errors",
    "finetune": "training.api",
    "heads": ":nn.heads",
    "load": "inference.model",
    "load_images": "data",
    "load_pairs": "data",
    "losses": ":losses",
    "miners": ":losses.miners",
    "plots": ":visualization",
    "recipes": ":training.recipes",
    "register_encoder": "nn.encoders",
    "register_loss": "losses",
    "register_miner": "losses",
    "train": "training.api",
    "training": ":training",
    "wrap": "inference.wrap",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'twinned' has no attribute {name!r}")
    try:
        module = import_module(f".{home.removeprefix(':')}", __name__)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "onnx", "onnxscript", "lightning_fabric"):
            from .errors import MissingExtra

            raise MissingExtra("train", f"twinned.{name}") from None
        raise
    return module if home.startswith(":") else getattr(module, name)


def __dir__() -> list[str]:
    return list(__all__)
