"""Each example runs in its own folder and writes the figures that it names.

``NN_name.py`` follows slide NN; ``NN_better.py`` improves it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9][0-9]_*.py"))
_FAST = 2  # examples that the fast tests run
_MOST_LINES, _MOST_SECONDS = 60, 300  # generous, since machines may be slow and shared


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of unpacked data sets, shared by all examples."""
    return tmp_path_factory.mktemp("cache")


def test_every_slide_has_an_example():
    faithful = [path for path in EXAMPLES if not path.stem.endswith("_better")]
    assert [int(path.name[:2]) for path in faithful] == list(range(1, 16))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (place >= _FAST))
        for place, path in enumerate(EXAMPLES)
    ],
)
def test_example_runs_and_writes_its_figures(path, tmp_path, cache):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < _MOST_LINES
    assert re.match(r'"""Slide \d+: ', text)
    assert re.search(r"\n\nSlide: .+\nErrors: .+\nOutput: ", text, re.DOTALL)
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "error::RuntimeWarning"}
    run = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_MOST_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    named = set(re.findall(r'"(\d\d_\w+\.(?:png|svg))"', text))
    if find_spec("umap") is None:  # drawn only if umap-learn is installed
        named.discard("14_umap.png")
    missing = {name for name in named if not (tmp_path / name).stat().st_size}
    assert not missing
    written = {file.name for file in tmp_path.iterdir()}
    assert all(name.startswith(path.name[:2]) for name in written), (
        "an example writes only files with its number"
    )
