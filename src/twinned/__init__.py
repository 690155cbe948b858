"""Twinned: tell whether two images show the same thing.

Train a Siamese network on your own images, then verify, recognize a new class from one example, and search.
Names are looked up when they are first used, so that importing Twinned imports none of PyTorch,
matplotlib, scikit-learn or FastAPI.
"""

from __future__ import annotations

from importlib import import_module
from os import environ as _environ
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers; tests/test_names.py compares both lists
    from . import cli as cli
    from . import data as data
    from . import distances as distances
    from . import errors as errors
    from . import evaluation as evaluation
    from . import gallery as gallery
    from . import inference as inference
    from . import losses as losses
    from . import metrics as metrics
    from . import nn as nn
    from . import server as server
    from . import training as training
    from . import utils as utils
    from . import visualization as visualization
    from .data import ImageSet as ImageSet
    from .data import PairSet as PairSet
    from .data import faces as faces
    from .data import load_images as load_images
    from .data import load_pairs as load_pairs
    from .data.checks.checker import check_data as check_data
    from .errors import TwinnedError as TwinnedError
    from .evaluation.calibration import Verdict as Verdict
    from .evaluation.comparison import Comparison as Comparison
    from .evaluation.results import Evaluation as Evaluation
    from .gallery import Gallery as Gallery
    from .inference.compare import compare as compare
    from .inference.model import Model as Model
    from .inference.model import load as load
    from .inference.wrap import wrap as wrap
    from .losses import miners as miners
    from .losses import register_loss as register_loss
    from .losses import register_miner as register_miner
    from .nn import encoders as encoders
    from .nn import heads as heads
    from .nn.encoders import register_encoder as register_encoder
    from .nn.siamese import SiameseNetwork as SiameseNetwork
    from .training import recipes as recipes
    from .training.api import train as train
    from .training.callbacks import Callback as Callback
    from .training.config import TrainConfig as TrainConfig
    from .training.finetune import finetune as finetune

    plots = visualization

# Switch off usage reporting by dependencies before they are imported, also in child processes. ONNX Runtime
# reads its variable once: from 1.29 on its official builds create a device id and a database in the user's
# cache folder, and upload events. `huggingface_hub`, where another package uses it, adds the versions of the
# installed libraries to its requests.
_SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for _name, _value in _SWITCHES.items():
    _environ.setdefault(_name, _value)

__version__ = "0.2.0"

# Public name: the module that defines it or, after a colon, the module that it is.
_HOME = {
    "Callback": "training.callbacks",
    "Comparison": "evaluation.comparison",
    "Evaluation": "evaluation.results",
    "Gallery": "gallery",
    "ImageSet": "data",
    "Model": "inference.model",
    "PairSet": "data",
    "SiameseNetwork": "nn.siamese",
    "TrainConfig": "training.config",
    "TwinnedError": "errors",
    "Verdict": "evaluation.calibration",
    "check_data": "data.checks.checker",
    "compare": "inference.compare",
    "data": ":data",
    "distances": ":distances",
    "encoders": ":nn.encoders",
    "errors": ":errors",
    "evaluation": ":evaluation",
    "faces": ":data.faces",
    "finetune": "training.finetune",
    "heads": ":nn.heads",
    "load": "inference.model",
    "load_images": "data",
    "load_pairs": "data",
    "losses": ":losses",
    "metrics": ":metrics",
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

# Other packages. Importing one makes it an attribute, so all of them are attributes always.
_PACKAGES = {
    name: f":{name}" for name in ("cli", "gallery", "inference", "nn", "server", "utils", "visualization")
}

__all__ = sorted([*_HOME, "__version__"])

if not TYPE_CHECKING:  # would make every name known to type checkers

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name) or _PACKAGES.get(name)
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
