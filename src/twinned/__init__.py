"""Twinned: tell whether two images show the same thing.

Train a Siamese network on your own images, then verify, recognize a new class from one example, and search.
Names are looked up when they are first used, so that importing Twinned imports none of PyTorch,
matplotlib, scikit-learn or FastAPI. ``__init__.pyi`` lists them.
"""

from os import environ as _environ

from .utils.lazy import lazy_attributes as _lazy_attributes

# Switch off usage reporting by dependencies before they are imported, also in child processes. ONNX Runtime
# reads its variable once: from 1.29 on its official builds create a device id and a database in the user's
# cache folder, and upload events. `huggingface_hub`, where another package uses it, adds the versions of the
# installed libraries to its requests.
_SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for _name, _value in _SWITCHES.items():
    _environ.setdefault(_name, _value)

__version__ = "0.2.0"
__getattr__, _names = _lazy_attributes(__name__, __file__)
_INTERNAL = {"cli", "gallery", "inference", "nn", "server", "utils", "visualization"}
__all__ = sorted({*_names, "__version__"} - _INTERNAL)


def __dir__() -> list[str]:
    return list(__all__)
