"""Public names exist and are known to type checkers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import twinned as tw

ROOT = Path(__file__).parents[1]
TYPED = [ROOT / "tests" / "typing" / name for name in ("mistakes.py", "correct.py")]
_EXPECTED = re.compile(r"# ([a-z]+(?:-[a-z]+)*)$")
_FOUND = re.compile(r"^(.+?):(\d+): error: .*\[([a-z-]+)\]$", re.MULTILINE)

SCRIPT = """
import importlib, pkgutil, sys
import twinned as tw
assert not sys.modules.keys() & {"torch", "numpy", "matplotlib", "sklearn"}
first = {name: getattr(tw, name) for name in NAMES}
for module in pkgutil.walk_packages(tw.__path__, "twinned."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert {name: getattr(tw, name) for name in NAMES} == first
public = {name for name in vars(tw) if not name.startswith("_")}
print(*sorted(public))
"""


@pytest.mark.parametrize("package", [tw, tw.data, tw.evaluation], ids=lambda package: package.__name__)
def test_names_of_a_stub_can_be_imported(package: ModuleType) -> None:
    assert len(package.__all__) > 5
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_names_are_independent_of_import_order() -> None:
    names = [*tw.__all__, *tw._INTERNAL]
    command = [sys.executable, "-c", f"NAMES = {names!r}\n{SCRIPT}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert set(out.split()) <= set(names)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = tw.trian


@pytest.mark.slow
def test_mypy_reports_exactly_the_marked_mistakes() -> None:
    expected = {
        (file.name, number, found.group(1))
        for file in TYPED
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1)
        if (found := _EXPECTED.search(line))
    }
    assert len(expected) > 30
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, TYPED)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600).stdout
    found = {(Path(file).name, int(line), code) for file, line, code in _FOUND.findall(out)}
    assert found == expected, out
