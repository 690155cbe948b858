"""Package attributes imported on first use, so that importing a package loads none of its modules."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import MissingExtra

_IMPORT = re.compile(r"^from \.(\S*) import (\w+) as \2$", re.MULTILINE)
_ALIAS = re.compile(r"^(\w+) = (\w+)$", re.MULTILINE)


def lazy_attributes(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return ``__getattr__`` and ``__all__`` of a package: the names that its stub imports.

    The stub is ``__init__.pyi`` beside the package's ``file``; type checkers read the same list of names.
    """
    stub = Path(file).with_suffix(".pyi").read_text("utf-8")
    home = {name: (module, name) for module, name in _IMPORT.findall(stub)}
    home |= {alias: home[name] for alias, name in _ALIAS.findall(stub)}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, name = home[name]
        try:
            owner = import_module(f".{module}", package)
            return vars(owner)[name] if name in vars(owner) else import_module(f"{owner.__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name in ("torch", "onnx", "onnxscript", "lightning_fabric"):
                raise MissingExtra("train", f"{package}.{name}") from None
            raise

    return get, sorted(home)
