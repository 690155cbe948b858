"""Wheel and source distribution, installed into an environment without PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import twinned

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")
# Simulates an environment without the extras of `twinned`.
BLOCKED = """
import sys
from importlib.machinery import PathFinder

class Blocked(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "lightning_fabric", "fastapi"):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Blocked if finder is PathFinder else finder for finder in sys.meta_path]
"""

pytestmark = pytest.mark.slow


def build(kind: str, sources: Path, into: Path) -> Path:
    """Build a ``wheel`` or ``sdist`` with the backend of pyproject.toml, without the network."""
    into.mkdir(exist_ok=True)
    code = f"from setuptools.build_meta import build_{kind} as build; print(build({str(into)!r}))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return into / run.stdout.split()[-1]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the sources, since building adds files to them."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for left in folder.glob("src/*.egg-info"):
        shutil.rmtree(left)
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", sources, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Command ``twinned`` of the wheel in its own virtual environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
    )
    packages = Path(place.stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "blocked.py").write_text(BLOCKED)
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport blocked\n")
    script = folder / "bin" / "twinned"
    script.write_text(f"#!{python}\nfrom twinned.cli import main\nmain()\n")
    script.chmod(0o755)
    return script


def run(program: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["XDG_CACHE_HOME"] = str(folder / "cache")
    return subprocess.run(
        [program, *map(str, arguments)], cwd=folder, env=clean, capture_output=True, text=True, timeout=120
    )


def test_wheel_runs_without_pytorch(program, tiny_model, glyphs, tmp_path):
    version = run(program, "--version", folder=tmp_path)
    assert (version.returncode, version.stderr) == (0, "")
    assert twinned.__version__ in version.stdout
    image = glyphs / "glyph00" / "0.png"
    verified = run(program, "verify", tiny_model, image, image, folder=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith("Same: ")
    verified = run(program, "verify", "glyph", image, image, folder=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    listed = {
        each["name"]: each for each in json.loads(run(program, "models", "--json", folder=tmp_path).stdout)
    }
    assert listed["glyph"]["available"]
    assert not listed["photo"]["available"]
    missing = run(program, "embed", "photo", image, "-o", "vectors.npz", folder=tmp_path)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "pip install 'twinned[train]'" in missing.stderr
    refused = run(program, "train", glyphs, "-o", tmp_path / "m.twin", folder=tmp_path)
    assert refused.returncode == 2
    assert "pip install" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_wheel_contains_the_sources_and_their_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "twinned = twinned.cli:main" in archive.read(entry).decode()
    package = ROOT / "src"
    expected = {
        str(path.relative_to(package))
        for path in (package / "twinned").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert held == expected


def test_source_distribution_builds_the_same_wheel(sources, wheel, tmp_path):
    archive = build("sdist", sources, tmp_path / "dist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.name.startswith("twinned-"))
    again = build("wheel", unpacked, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert set(one.namelist()) == set(other.namelist())
