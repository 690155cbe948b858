"""The program: help, version, usage errors, and exit codes of errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import twinned as package
from twinned.cli.main import app
from twinned.cli.options import Run, as_options, show_notes
from twinned.utils.notes import note

COMMANDS: dict[tuple[str, ...], dict[str, typer.core.TyperArgument | typer.core.TyperOption]] = {}


def _collect(command: object, path: tuple[str, ...]) -> None:
    if isinstance(command, typer.core.TyperGroup):
        for name in command.list_commands(None):
            _collect(command.get_command(None, name), (*path, name))
    else:
        COMMANDS[path] = {p.name: p for p in command.params}  # type: ignore[attr-defined]


_collect(typer.main.get_command(app), ())


def test_documented_commands_exist():
    expected = {
        "check",
        "train",
        "evaluate",
        "compare",
        "verify",
        "classify",
        "embed",
        "calibrate",
        "identify",
        "search",
    }
    expected |= {"demo", "explain", "export", "serve"}
    assert expected <= {path[0] for path in COMMANDS if len(path) == 1}
    actions = {"add", "update", "remove", "list", "count", "rebuild", "duplicates", "copy"}
    assert actions <= {path[1] for path in COMMANDS if path[0] == "gallery"}
    assert {"architecture", "history", "verification", "embeddings", "neighbours"} <= {
        path[1] for path in COMMANDS if path[0] == "plot"
    }


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_commands_and_arguments_have_help(twinned, path):
    shown = twinned(*path, "--help")
    assert shown.code == 0
    assert shown.err == ""
    assert f"Usage: twinned {' '.join(path)}" in " ".join(shown.out.split())
    assert "<bool>" not in shown.out, "flags take no value"
    for name, parameter in COMMANDS[path].items():
        if name not in ("help",):
            assert parameter.help, f"{name} has no help"


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_commands_have_json_and_seed_options(path):
    names = set(COMMANDS[path])
    if path != ("serve",):
        assert "json" in names
    if path in {("train",), ("evaluate",), ("calibrate",), ("check",), ("demo",)}:
        assert "seed" in names
    if "output" in names and path not in {("demo",)}:
        assert "force" in names, "--force replaces existing files"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Use `overwrite=True` or `image_size=`", "Use --force or --image-size"),
        ('Choose `faces="largest"`; `allow_loss=3`', "Choose --faces largest; --allow-loss 3"),
        ('`settings={"flip_classes": False, "faces": "none"}`', "--set flip_classes=false --set faces=none"),
        ("a = `b`, c=True, `d`=1", "a = `b`, c=True, `d`=1"),
    ],
)
def test_arguments_in_messages_become_options(message, expected):
    assert as_options(message) == expected


def test_errors_notes_and_results_name_options(twinned, glyphs, tmp_path, capsys):
    (tmp_path / "v.npz").touch()
    shown = twinned("embed", "glyph", glyphs, "-o", tmp_path / "v.npz")
    assert shown.error == f"{tmp_path / 'v.npz'}: exists. Choose another name, or overwrite it with --force."
    note("code", "see `image_size=`")
    Run().print({}, "see `min_face=20`")
    assert capsys.readouterr() == ("see --min-face 20\n", "twinned: see --image-size\n")


def test_every_argument_in_a_message_is_an_option():
    options = {option for found in COMMANDS.values() for each in found.values() for option in each.opts}
    root = Path(package.__file__).parent
    names = {
        name
        for file in root.rglob("*.py")
        for name in re.findall(r"(?<!`)`([a-z_]+)=", file.read_text(encoding="utf-8"))
        if file.parent.name != "cli"
    }
    assert len(names) > 8
    assert {as_options(f"`{name}=`") for name in names - {"settings", "option"}} <= options


def test_help_does_not_import_heavy_packages():
    code = (
        "import sys; from twinned.cli.main import app; app(['--help'], standalone_mode=False);"
        "sys.exit(bool({'numpy', 'torch', 'pydantic', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_shell_completion():
    environment = os.environ | {
        "_TWINNED_COMPLETE": "complete_bash",
        "COMP_WORDS": "twinned ver",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([sys.executable, "-m", "twinned"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["verify"])


def test_notes_are_written_to_standard_error(capsys):
    show_notes(quiet=False)
    note("code", "100 % of it")
    assert capsys.readouterr() == ("", "twinned: 100 % of it\n")
    show_notes(quiet=True)
    note("code", "a note")
    assert capsys.readouterr() == ("", "")


def test_version_and_help(twinned):
    assert twinned("--version") == (0, f"twinned {package.__version__}\n", "")
    assert "verify" in twinned("--help").out
    for bare in ((), ("gallery",), ("plot",)):
        shown = twinned(*bare)
        assert shown.code == 2
        assert shown.out == ""
        assert "Commands" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "No such option: --nonsense; see twinned --help"),
        (["nonsense"], "No such command 'nonsense'; see twinned --help"),
        (["gallery", "nonsense"], "No such command 'nonsense'; see twinned gallery --help"),
        (["verify"], "Missing argument 'MODEL'; see twinned verify --help"),
        (["verify", "m", "a", "b", "c"], "Got unexpected extra argument(s) (c); see twinned verify --help"),
        (["train", "data"], "Missing option '-o' / '--output'; see twinned train --help"),
        (["train", "data", "-o"], "Option '-o' requires an argument; see twinned"),
        (["train", "d", "-o", "m", "--steps", "x"], "Invalid value for '--steps': "),
        (["train", "d", "-o", "m", "--seed", "-1"], "Invalid value for '--seed': "),
        (["train", "d", "-o", "m", "--step", "1"], "No such option: --step"),
    ],
)
def test_usage_error_is_one_line_with_a_hint(twinned, arguments, message):
    assert twinned(*arguments).error.startswith(message)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 2, "stopped"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 2, "x.png: No such file or directory"),
        (OSError(28, "No space left on device"), 2, "the system: No space left on device"),
        (PermissionError(13, "Permission denied", "m.twin"), 2, "m.twin: Permission denied"),
        (MemoryError(), 2, "not enough memory"),
        (OSError(12, "Cannot allocate memory"), 2, "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 2, "not enough memory"),
        (ImportError("Exception caught: std::bad_alloc"), 2, "not enough memory"),
        (ImportError("x.so: Cannot allocate memory"), 2, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "not enough memory"),
        (RuntimeError("can't start new thread"), 2, "limit on memory or on processes"),
        (ImportError("cannot import name 'x'"), 3, "a bug in Twinned, please report it: ImportError"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            2,
            "needs the extra 'train': pip install",
        ),
        (ModuleNotFoundError("No module named 'x'", name="x"), 3, "a bug in Twinned, please report it: Mod"),
        (
            ZeroDivisionError("division by zero"),
            3,
            "a bug in Twinned, please report it: ZeroDivisionError: div",
        ),
        (RecursionError("deep"), 3, "a bug in Twinned"),
    ],
)
def test_errors_have_exit_codes_other_than_different(twinned, monkeypatch, error, code, message):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("twinned.inference.model.load", broken)
    shown = twinned("verify", "m.twin", "a.png", "b.png")
    assert shown.code == code
    assert shown.out == ""
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert ("TWINNED_TRACEBACK" in shown.err) == (code == 3)


@pytest.mark.parametrize(("variable", "options"), [("1", []), ("", ["--debug"])])
def test_traceback_is_shown_on_request(twinned, monkeypatch, variable, options):
    monkeypatch.setattr("twinned.inference.model.load", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("TWINNED_TRACEBACK", variable)
    shown = twinned(*options, "verify", "m.twin", "a.png", "b.png")
    assert shown.code == 3
    assert "Traceback" in shown.err
    assert "a bug in Twinned" in shown.err.splitlines()[-1]


def test_missing_pytorch_names_the_extra(glyphs, tmp_path):
    """Commands that train need PyTorch; the others work without it."""
    code = "import sys; sys.modules['torch'] = None; from twinned.cli.main import main; main()"
    arguments = ["train", glyphs, "-o", tmp_path / "m.twin"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "twinned: this command needs the extra 'train': pip install 'twinned[train]'\n"


def test_closed_output_pipe_ends_the_program_quietly(tiny_model, glyphs):
    images = sorted(map(str, glyphs.rglob("*.png")))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "twinned", "classify", tiny_model, glyphs, *images],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 2
    assert done.stderr == ""


def test_undecodable_file_names_are_printed(twinned, tiny_model, glyphs, tmp_path):
    odd = os.fsdecode(bytes(tmp_path) + b"/\xff\n.png")
    Path(odd).write_bytes((glyphs / "glyph00" / "0.png").read_bytes())
    shown = twinned("classify", tiny_model, glyphs, odd)
    assert shown.code == 0
    assert "glyph00" in shown.out
    assert json.loads(twinned("classify", tiny_model, glyphs, odd, "--json").out)[0]["image"] == odd
    shown = twinned("embed", tiny_model, odd, "-o", tmp_path / "v.npz", "--json")
    assert (shown.code, shown.json["images"]) == (0, 1)


def test_json_names_options_in_messages_and_keeps_labels(capsys):
    Run(json=True).print({"label": "`a=1`", "unreadable": ["x: choose `min_face=20`"]}, "")
    assert json.loads(capsys.readouterr().out) == {
        "label": "`a=1`",
        "unreadable": ["x: choose --min-face 20"],
    }
