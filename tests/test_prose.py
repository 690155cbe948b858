"""Countable rules of our prose (CONTRIBUTING.md): docstrings, messages, help, pages and names of tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "twinned").rglob("*.py"))
TESTS = sorted({*(ROOT / "tests").rglob("*.py")} - {Path(__file__)})
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"])

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
OPENING = re.compile(r"(What|Whether|How|Which|Who|Where)\b")
FORBIDDEN = re.compile(
    r"\b(told|tells?|said|says?|anew|nobody|somebody|likewise|learnt|of no use|of use|held up to|as it is"
    r"|as they are|what there is|goes on with|gone on with|made of them)\b",
    re.IGNORECASE,
)
ALLOWED = re.compile(
    r"tell whether|there (is|are) no\b|if there is no|where there is no|images are not|no longer",
    re.IGNORECASE,
)
BRITISH = re.compile(
    r"\b(colou\w+|neighbour\w*|behaviour\w*|favour\w*|catalogue\w*|licence\w*|enrolment\w*|centre\w*"
    r"|(?:optim|normal|recogn|initial|serial|quant|real|minim|maxim|summar|general)is(?:e|es|ed|ing|er|ers|ation))\b",
    re.IGNORECASE,
)

# An option of the command line, but for those of a whole command in a message, and colors of CSS.
FLAG = re.compile(r"(?<![\w-])--[a-z]")
COMMAND = re.compile(r"twinned [a-z]+ .*|var\(--")

# A test is named by its subject, condition and expected result.
UNCLEAR_NAME = re.compile(r"test .*\b(what|whatever|who|whose|anybody|everybody)\b|test .{70,}")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string of more than three words: docstrings, messages, help."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) > 3:
            yield node.lineno, node.value


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every comment."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if (found := re.search(r"(?:^|\s)#\s(.*)", line)) is not None:
            yield number, found.group(1)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and words of the name of every class and function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name.replace("_", " ")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a page without its code."""
    text = re.sub(
        r"```.*?```|`[^`\n]*`",
        lambda code: "\n" * code.group().count("\n"),
        path.read_text("utf-8"),
        flags=re.S,
    )
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith(("    ", ":::")):
            yield number, line


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_start_with_a_verb_or_a_noun(path: Path) -> None:
    wrong = [f"{path.name}:{line}: {text[:60]}" for line, text in docstrings(path) if OPENING.match(text)]
    assert not wrong, "\n".join(wrong)


def idioms(found: Iterable[tuple[int, str]]) -> list[str]:
    """Return the places with words that we do not use."""
    return [
        f"{line}: {match.group()!r} in {text[max(0, match.start() - 40) : match.end() + 40]!r}"
        for line, text in found
        for match in FORBIDDEN.finditer(text)
        if not ALLOWED.search(text[max(0, match.start() - 12) : match.end() + 12])
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_use_plain_words(path: Path) -> None:
    wrong = idioms(sentences(path)) + idioms(comments(path))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parts[-2] not in ("cli", "server")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_library_names_no_option_of_the_command_line(path: Path) -> None:
    wrong = [f"{line}: {text}" for line, text in sentences(path) if FLAG.search(COMMAND.sub("", text))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_use_plain_words(path: Path) -> None:
    texts = [*names(path), *docstrings(path), *comments(path)]
    wrong = idioms(texts)
    wrong += [f"{line}: {text}" for line, text in texts if BRITISH.search(text) or UNCLEAR_NAME.match(text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_use_plain_words(path: Path) -> None:
    wrong = idioms(prose(path))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_spelling_is_american(path: Path) -> None:
    found = sentences(path) if path.suffix == ".py" else prose(path)
    wrong = [f"{line}: {match.group()}" for line, text in found for match in BRITISH.finditer(text)]
    assert not wrong, "\n".join(wrong)
