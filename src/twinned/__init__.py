"""Twinned: tell whether two images show the same thing.

Train a Siamese network on your own images, then verify, recognise from one example, and search.
Names are looked up when they are first used, so that importing Twinned imports none of PyTorch,
matplotlib, scikit-learn or FastAPI.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .telemetry import disable as _disable_telemetry

_disable_telemetry()  # every entry imports this package before a dependency

__version__ = "0.1.0"

# public name -> the module that it lives in, or is
_HOME = {
    "Evaluation": "evaluation",
    "Gallery": "gallery",
    "ImageSet": "data",
    "Model": "model",
    "PairSet": "data",
    "SiameseNetwork": "network",
    "TwinnedError": "errors",
    "Verdict": "answers",
    "check_data": "check",
    "data": "",
    "distances": "",
    "encoders": "",
    "errors": "",
    "finetune": "finetuning",
    "heads": "",
    "load": "model",
    "load_images": "data",
    "load_pairs": "data",
    "losses": "",
    "miners": "",
    "plots": "",
    "recipes": "",
    "train": "fit",
    "training": "",
    "wrap": "wrapping",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'twinned' has no attribute {name!r}")
    try:
        module = import_module(f".{home or name}", __name__)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "onnx", "onnxscript", "lightning_fabric"):
            from .errors import MissingExtra

            raise MissingExtra("train", f"twinned.{name}") from None
        raise
    return getattr(module, name) if home else module


def __dir__() -> list[str]:
    return list(__all__)
