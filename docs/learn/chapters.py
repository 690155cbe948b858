"""Run the code of the course, store its output below each block, and make the notebooks.

A block of Python or shell runs where ``<!-- run -->`` stands above it, chapter by chapter, with the names
of the blocks before it. The text block below it is its output. ``run: within 0.1`` is for figures that differ
between processors by up to that much, ``run: data`` for code that needs the real data sets.

    python docs/learn/chapters.py                 # all chapters and notebooks
    python docs/learn/chapters.py 07-training     # some

The pages of docs/notebooks are made in the same way. Their pictures are those that the notebook shows.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
CHAPTERS = sorted(page for page in HERE.glob("*.md") if page.stem != "index")
GUIDES = sorted((HERE.parent / "notebooks").glob("*.md"))
NOTEBOOKS = ("04-contrastive-loss", "07-training")
_BLOCK = re.compile(
    r"<!-- run(?:: (?P<note>[\w .]+))? -->\n```(?P<kind>python|sh)\n(?P<code>.*?)```\n"
    r"(?:\n```text\n(?P<output>.*?)```\n)?",
    re.DOTALL,
)


class Block(NamedTuple):
    """A block of code and its output."""

    code: str
    kind: str
    data: bool  # needs the real data sets
    within: float  # tolerance of the figures in the output
    output: str


def _block(found: re.Match[str]) -> Block:
    note = found["note"] or ""
    tolerance = re.search(r"within ([\d.]+)", note)
    within = float(tolerance[1]) if tolerance else 0.0
    return Block(found["code"], found["kind"], "data" in note, within, found["output"] or "")


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a chapter that run."""
    return [_block(found) for found in _BLOCK.finditer(page.read_text("utf-8"))]


def run(todo: list[Block], folder: Path) -> Iterator[str]:
    """Run blocks in a folder, with shared names, and yield what each prints to standard output."""
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    for block in todo:
        printed = io.StringIO()
        os.chdir(folder)
        try:
            if block.kind == "sh":
                path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
                command = ["bash", "-eu", "-c", block.code]
                done = subprocess.run(
                    command, env=os.environ | {"PATH": path}, capture_output=True, text=True
                )
                if done.returncode:
                    raise RuntimeError(f"{block.code}\n{done.stdout}\n{done.stderr}")
                printed.write(done.stdout)
            else:
                with contextlib.redirect_stdout(printed):
                    exec(compile(block.code, "<chapter>", "exec"), names)
        finally:
            os.chdir(before)
        yield printed.getvalue()


def update(page: Path, outputs: Iterator[str]) -> None:
    """Store the outputs of a page's blocks in it."""

    def filled(found: re.Match[str]) -> str:
        printed = "\n".join(line.rstrip() for line in next(outputs).splitlines())
        head = found[0].split("\n```\n", 1)[0] + "\n```\n"
        return head + (f"\n```text\n{printed}\n```\n" if printed else "")

    page.write_text(_BLOCK.sub(filled, page.read_text("utf-8")), "utf-8")


def cells(page: Path) -> list[tuple[str, str]]:
    """Return the cells of a chapter's notebook: kind (markdown or code) and text."""
    text, found, at = page.read_text("utf-8"), [], 0
    if page in GUIDES:  # the output has the picture
        text = re.sub(r"!\[[^\]]*\]\(pictures/[^)]*\)\n", "", text)
    for block in _BLOCK.finditer(text):
        found += [("markdown", text[at : block.start()].strip()), ("code", block["code"].strip())]
        at = block.end()
    found.append(("markdown", text[at:].strip()))
    return [cell for cell in found if cell[1]]


def execute(page: Path) -> Any:
    """Return the notebook of a chapter, executed; progress bars are left out."""
    import nbformat
    from nbclient import NotebookClient

    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    book = nbformat.v4.new_notebook(
        cells=[make[kind](text, id=f"cell-{n}") for n, (kind, text) in enumerate(cells(page))]
    )
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            book, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            text = "".join(out.text for out in cell.outputs if out.get("name") == "stdout")
            shown = [
                nbformat.v4.new_output("display_data", {"image/png": out.data["image/png"]})
                for out in cell.outputs
                if "image/png" in out.get("data", {})
            ]
            streams = [nbformat.v4.new_output("stream", name="stdout", text=text)] * bool(text)
            cell.outputs = streams + shown
    book.metadata.pop("language_info", None)
    return book


def printed(book: Any) -> list[str]:
    """Return what each code cell of a notebook prints."""
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in cells]


def pictures(book: Any) -> list[bytes]:
    """Return the pictures that a notebook shows, as PNG files."""
    outputs = [out for cell in book.cells for out in cell.get("outputs", ())]
    return [b64decode(out["data"]["image/png"]) for out in outputs if "image/png" in out.get("data", {})]


def main(names: list[str]) -> None:
    """Run the named chapters, or all; those after chapter 7 use the model that it leaves in build/learn."""
    folder = HERE.parents[1] / "build" / "learn"
    folder.mkdir(parents=True, exist_ok=True)
    for page in (*CHAPTERS, *GUIDES):
        if not names or page.stem in names:
            print(page.name, file=sys.stderr)
            if page not in GUIDES:
                update(page, run(blocks(page), folder))
            if page.stem in NOTEBOOKS or page in GUIDES:
                import nbformat

                book = execute(page)
                nbformat.write(book, page.with_suffix(".ipynb"))
                if page in GUIDES:
                    update(page, iter(printed(book)))
                for number, png in enumerate(pictures(book), 1):
                    (page.parent / "pictures" / f"{page.stem}-{number}.png").write_bytes(png)


if __name__ == "__main__":
    main(sys.argv[1:])
