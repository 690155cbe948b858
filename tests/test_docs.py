"""Run the code blocks of README and docs.

A block of shell or Python runs where the comment ``<!-- run -->`` stands above it: page by page from top to
bottom, in one folder, *Get started* first, since other pages use what it leaves; the tutorial starts in an
empty folder. ``run: data`` needs the real data sets, ``run: curl`` that program, and ``run: repository`` runs
there. Blocks marked ``run: lightning`` and ``run: compiler`` are left out where that is not installed.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import twinned as tw
from twinned.evaluation.results import NAMES

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"<!-- run(?:: (?P<needs>\w+))? -->\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#]+)[^)]*\)")
_INSTALLED = {"lightning": find_spec("lightning") is not None, "compiler": shutil.which("g++") is not None}
DOCS = ROOT / "docs"
PAGES = sorted(
    (path.relative_to(DOCS).as_posix() for path in [*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")]),
    key=lambda page: (page != "start.md", page),
)


class Block(NamedTuple):
    """Code block that is run."""

    needs: str | None
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(*found.group("needs", "kind", "text")) for found in _BLOCK.finditer(page.read_text("utf-8"))
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the blocks of all pages run."""
    return tmp_path_factory.mktemp("reader")


def type_in(block: Block, place: Path) -> None:
    if block.needs == "data" and not os.environ.get("TWINNED_DATA"):
        pytest.skip("TWINNED_DATA is not set")
    if block.needs == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    here = Path(sys.executable).parent
    command = {"sh": ["bash", "-eu", "-c", block.text], "python": [sys.executable, "-c", block.text]}[
        block.kind
    ]
    run = subprocess.run(
        command,
        cwd=ROOT if block.needs == "repository" else place,
        env=os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, f"{block.text}\n{run.stdout}\n{run.stderr}"
    assert "Traceback" not in run.stderr, run.stderr


@pytest.fixture(scope="module")
def started(place: Path) -> Path:
    """Folder after the blocks of *Start here*."""
    for block in blocks(ROOT / "docs" / "start.md"):
        type_in(block, place)
    return place


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page != "start.md"))
        for page in PAGES
        if blocks(ROOT / "docs" / page)
    ],
)
def test_blocks_of_a_page_run(page, started, tmp_path):
    if page == "start.md":
        assert (started / "digits.twin" / "model.json").is_file()
        assert (started / "report.html").stat().st_size > 10_000
        return
    for block in blocks(ROOT / "docs" / page):
        if _INSTALLED.get(block.needs or "", True):
            type_in(block, tmp_path if page == "tutorial.md" else started)


def test_tutorial_pages_have_blocks_to_run():
    pages = ("start", "losses", "threshold", "finetune", "faces", "signatures", "search", "serve", "formats")
    for page in (*pages, "deck", "parts", "tutorial", "cli"):
        assert blocks(ROOT / "docs" / f"{page}.md"), page
    for path in (ROOT / "docs" / "howto").glob("*.md"):
        assert blocks(path), path


def test_glossary_has_the_terms_of_evaluations_and_reports():
    text = (DOCS / "glossary.md").read_text("utf-8").lower()
    defined = re.findall(r"^### (.+)$|\*\*(.+?)\*\*", text, re.MULTILINE)
    report = tomllib.loads((files("twinned.visualization.report") / "glossary.toml").read_text("utf-8"))
    terms = [term.split(":")[0] for key in [*NAMES.values(), *report] for term in key.split(", ")]
    assert [term for term in terms if not any(term.lower() in "".join(each) for each in defined)] == []


def test_messages_under_troubleshooting_exist():
    quoted = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert quoted
    sources = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "src").rglob("*.py")]
    nodes = [
        node for tree in sources for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    texts = "\n".join(ast.unparse(node) for node in nodes)
    assert [message for message in quoted if message not in texts] == []


def resolved(path: str) -> object:
    """Import the object of a dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        above, _, name = path.rpartition(".")
        return getattr(resolved(above), name)


def test_reference_has_every_public_name():
    pages = sorted((DOCS / "reference").glob("*.md"))
    text = "\n".join(page.read_text("utf-8") for page in pages)
    assert [name for name in tw.__all__ if f"`tw.{name}`" not in text] == []
    described = [resolved(path) for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    for module in [one for one in described if isinstance(one, ModuleType)]:
        described += [
            part for part in vars(module).values() if getattr(part, "__module__", "") == module.__name__
        ]
    packages = (
        tw,
        tw.data,
        tw.encoders,
        tw.evaluation,
        tw.faces,
        tw.gallery,
        tw.losses,
        tw.metrics,
        tw.plots,
    )
    for package in packages:
        parts = {name: getattr(package, name) for name in package.__all__}
        functions = {name: part for name, part in parts.items() if callable(part)}
        assert [name for name, part in functions.items() if all(part is not one for one in described)] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name
)
def test_links_resolve(page):
    missing = [link for link in _LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_readme_example_runs(started):
    text = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    made = {"faces/": "digits/known/", "minutes=3": "steps=5", "a.jpg": "digits/novel/6/0006.png"}
    for written, there in (made | {"b.jpg": "digits/novel/6/0016.png", "people.twin": "readme.twin"}).items():
        assert written in example
        example = example.replace(written, there)
    type_in(Block(None, "python", example), started)


def test_readme_commands_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"^    twinned (\w+)", text, re.MULTILINE))
    assert named
    for command in sorted(named):
        run = subprocess.run(
            [sys.executable, "-m", "twinned", command, "--help"], capture_output=True, timeout=60
        )
        assert run.returncode == 0, command


def test_programs_with_custom_parts_are_short():
    programs = [block.text for block in blocks(ROOT / "docs" / "parts.md")]
    assert max(len(text.splitlines()) for text in programs[:4]) <= 30


@pytest.mark.slow
def test_entry_points_register_parts_for_the_command(started, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "parts.md").read_text("utf-8")
    (snippet,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    groups = tomllib.loads(snippet)["project"]["entry-points"]
    info = tmp_path / "my_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {where}" for group, of in groups.items() for name, where in of.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    classes = [block.text.split("\nmodel = ")[0] for block in blocks(ROOT / "docs" / "parts.md")[1:3]]
    miner = "def nearest(distance, labels):\n    return tw.miners.BatchHard()(distance, labels)\n"
    (tmp_path / "my_parts.py").write_text("\n".join([*classes, miner]))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (command,) = re.findall(r"`(twinned train .* --encoder patches .*)`", text)
    type_in(Block(None, "sh", f"{command} --steps 2 --image-size 16 --force"), started)
    found = json.loads((started / "mine.twin" / "model.json").read_text())
    assert found["recipe"]["encoder"]["name"] == "patches"
    assert found["recipe"]["loss"]["name"] == "band"
    assert found["recipe"]["mining"]["miner"] == "nearest"


@pytest.mark.slow
def test_pages_build_without_warnings(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (run.returncode, run.stderr.strip()) == (0, "")
    assert (tmp_path / "site" / "reference" / "losses" / "index.html").is_file()
