"""What several test files share: the real data sets, unpacked once; how Hypothesis runs."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# The same examples each time, and no time limit on one: machines are shared.
settings.register_profile("twinned", derandomize=True, deadline=None)
settings.load_profile("twinned")

DataSet = Callable[[str], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for real data carries the mark ``data``, so that ``-m "not data"`` leaves it out."""
    for item in items:
        if "data_set" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


@pytest.fixture(scope="session")
def data_set() -> DataSet:
    """Unpack a real data set and return its folder; skips where TWINNED_DATA is not set.

    Call it with the name of a ZIP below TWINNED_DATA, without the suffix: "orl_faces", "lfw_crop96" (the
    official lists lie beside the folder, in ``lfw_protocol``), "cedar_signatures", "logos27",
    "omniglot/all_runs", "omniglot/images_background_small1". The unpacked folders stay for the next session
    and are shared with processes that run beside this one: read only.
    """
    return _unpacked


def _unpacked(name: str) -> Path:
    if not os.environ.get("TWINNED_DATA"):
        pytest.skip("TWINNED_DATA is not set")
    archive = Path(os.environ["TWINNED_DATA"], f"{name}.zip")
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    status = archive.stat()
    cache = Path(tempfile.gettempdir(), f"twinned-test-data-{os.getuid()}")
    root = cache / f"{archive.stem}-{status.st_size}-{status.st_mtime_ns}"
    cache.mkdir(mode=0o700, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not root.is_dir():
            part = root.with_suffix(".part")  # renamed when complete: a killed run leaves nothing half done
            shutil.rmtree(part, ignore_errors=True)
            with zipfile.ZipFile(archive) as file:
                file.extractall(part)
            part.rename(root)
    inner = root / archive.stem
    return inner if inner.is_dir() else root
