"""Options of training: equal names, types and help in Python, commands and docs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from twinned import losses
from twinned.cli.main import app
from twinned.errors import SettingError
from twinned.inference.input_options import InputOptions
from twinned.inference.wrap import wrap
from twinned.nn import encoders
from twinned.training import recipes
from twinned.training.api import resolve_config, train
from twinned.training.config import TrainConfig, full_name
from twinned.training.options import TrainOptions
from twinned.training.parts import split_arguments
from twinned.utils.options import describe

ROOT = Path(__file__).parents[2]
_NO_SETTINGS = {"recipe", "settings", "device", "devices", "image_size", "batch_size"}


def parameters(command: str) -> dict[str, object]:
    return {p.name: p for p in typer.main.get_command(app).get_command(None, command).params}


@pytest.mark.parametrize(
    ("command", "options"), [("train", TrainOptions), ("finetune", TrainOptions), ("wrap", InputOptions)]
)
def test_commands_have_every_option_with_help_and_panel(command, options):
    found = parameters(command)
    for name, _, option in describe(options):
        assert found[name].help == f"{option.help}.", name
        assert found[name].rich_help_panel == option.panel, name
        assert found[name].default == option.default, name


@pytest.mark.parametrize(
    ("option", "names"),
    [("recipe", recipes.RECIPES), ("encoder", encoders.registry._BUILTIN), ("loss", losses.registry.BUILTIN)],
)
def test_help_lists_registered_names(option, names):
    shown = re.split(r": |;|, or one", parameters("train")[option].help)[1]
    assert sorted(re.split(", | or ", shown)) == sorted(names)


def test_help_of_train_does_not_import_pytorch():
    code = (
        "import sys; from twinned.cli.main import app; app(['train', '--help'], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_options_are_settings_of_the_configuration():
    names = {name for name, _, _ in describe(TrainOptions)}
    assert names == set(TrainOptions.__annotations__)
    for name in names - _NO_SETTINGS:
        assert full_name(name)


@pytest.mark.parametrize(("function", "options"), [(train, TrainOptions), (wrap, InputOptions)])
def test_options_do_not_shadow_arguments(function, options):
    own = {p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD}
    assert not own & set(options.__annotations__)


def test_unset_options_are_not_settings():
    _, changes = split_arguments({"freeze": 2, "margin": None, "recipe": "face"})
    assert changes == {"transfer.freeze": "2"}


def test_option_given_twice_is_refused(glyphs):
    with pytest.raises(SettingError, match=r"loss\.margin is given twice, as 1 and as 2"):
        resolve_config(glyphs, margin=1, settings={"margin": 2})


def test_printed_config_round_trips(twinned, glyphs, tmp_path):
    options = ["--recipe", "glyph", "--steps", "3", "--set", "quarter_turns=false", "--image-size", "20"]
    shown = twinned("train", glyphs, *options, "--print-config")
    assert shown.code == 0
    config = TrainConfig.parse(shown.json)
    assert (config.length.steps, config.sampler.rotate_classes, config.input.width) == (3, False, 20)
    assert config == resolve_config(
        glyphs, recipe="glyph", steps=3, image_size=20, settings={"rotate_classes": False}
    )
    file = tmp_path / "train.json"
    file.write_text(shown.out)
    assert twinned("train", glyphs, "--config", file, "--print-config").json == shown.json
    more = twinned("train", glyphs, "--config", file, "--steps", "4", "--print-config").json
    assert more["length"]["steps"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid JSON"),
        ("[]", "expected a JSON object"),
        (json.dumps({"speed": 1}), "Unknown setting 'speed'"),
    ],
)
def test_invalid_config_file_is_refused(twinned, glyphs, tmp_path, text, message):
    file = tmp_path / "train.json"
    file.write_text(text)
    error = twinned("train", glyphs, "--config", file, "--print-config").error
    assert str(file) in error
    assert message in error


def test_recipe_and_config_are_exclusive(glyphs):
    with pytest.raises(SettingError, match="not both"):
        resolve_config(glyphs, recipe="glyph", config=TrainConfig())


def test_old_argument_names_warn(glyphs):
    warned = pytest.warns(DeprecationWarning, match="validate= is deprecated; use validation=")
    with warned, pytest.raises(SettingError):
        train(glyphs, validate=glyphs, recipe="none")


def test_settings_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page(), "run: python docs/settings.py"
