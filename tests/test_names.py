"""Public names exist and are known to type checkers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import twinned as tw

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "twinned"
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
public = {name for name in vars(tw) if not name.startswith("_")} - {"TYPE_CHECKING", "Any"}
print(*sorted(public - {"annotations", "import_module"}))
"""


def typed_names(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the names that a package imports for type checkers, each with its place in the lazy table."""
    for block in ast.parse(file.read_text("utf-8")).body:
        if not isinstance(block, ast.If) or ast.unparse(block.test) != "TYPE_CHECKING":
            continue
        for line in block.body:
            if isinstance(line, ast.Assign):  # plots = visualization
                yield ast.unparse(line.targets[0]), f":{ast.unparse(line.value)}"
            else:
                assert isinstance(line, ast.ImportFrom)
                for alias in line.names:
                    place = ".".join(filter(None, [line.module, alias.name]))
                    is_module = (PACKAGE / place.replace(".", "/")).with_suffix(".py").is_file()
                    is_package = (PACKAGE / place.replace(".", "/") / "__init__.py").is_file()
                    yield alias.name, f":{place}" if is_module or is_package else str(line.module)


def test_typed_names_equal_the_lazy_table() -> None:
    assert dict(typed_names(PACKAGE / "__init__.py")) == tw._HOME | tw._PACKAGES


@pytest.mark.parametrize("name", ["data", "evaluation", "losses"])
def test_typed_names_equal_those_of_a_package(name: str) -> None:
    package = getattr(tw, name)
    typed = dict(typed_names(PACKAGE / name / "__init__.py"))
    assert set(package.__all__) >= set(typed)
    assert name == "losses" or set(package.__all__) == set(typed)


def test_names_are_independent_of_import_order() -> None:
    names = [*tw.__all__, *tw._PACKAGES]
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
