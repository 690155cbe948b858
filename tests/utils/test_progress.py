from __future__ import annotations

import io
import sys

import pytest

from twinned.cli.options import wrapped
from twinned.utils import progress
from twinned.utils.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def opened(monkeypatch):
    """Return a function that makes standard error a terminal; pytest sets its own before the test."""

    def opened() -> Terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return opened


def test_inner_bar_replaces_the_outer_bar(opened):
    terminal = opened()

    def shown() -> list[str]:
        return [task.description for task in progress._display.tasks if task.visible]

    with progress_bar("Working"):
        assert shown() == ["Working"]
        with progress_bar("Reading", 1200) as advance:
            advance(600)
            print("a note", file=sys.stderr)
            assert shown() == ["Reading"]
        assert shown() == ["Working"]
    assert progress._display is None
    assert "a note" in terminal.getvalue()
    assert "/1,200" in terminal.getvalue()


def test_bars_without_work_or_terminal_are_not_shown(opened, monkeypatch):
    terminal = opened()
    with progress_bar("Training", 0) as advance:
        advance()
    with progress_bar("Training", 5, show=False) as advance:
        advance()
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar("Training", 5) as advance:
        advance()
    assert sys.stderr.getvalue() == ""


def test_notes_are_wrapped_only_on_a_terminal(opened):
    terminal = opened()
    text = "word " * 40 + "end"
    assert max(map(len, wrapped(text, terminal).splitlines())) <= 80
    assert wrapped(text, io.StringIO()) == text
