"""Commands load only the modules that they need."""

import importlib
import json
import subprocess
import sys

import typer

from twinned.cli.main import _COMMANDS

VERIFY = """
import json, sys
from twinned.cli.main import main
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


def test_verify_loads_few_modules(tiny_model, strangers):
    image = str(next(strangers.rglob("*.png")))
    command = [sys.executable, "-c", VERIFY, "verify", str(tiny_model), image, image]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loaded = json.loads(out.splitlines()[-1])
    ours = [name for name in loaded if name.split(".")[0] == "twinned"]
    # They take as long as NumPy: a wrapper of it, all of Pillow's formats, and Rich.
    assert not {"numpy.f2py", "PIL.TiffImagePlugin", "rich", "requests"} & {*loaded}
    for needless in ("data.catalog", "data.samplers", "evaluation.protocols", "gallery", "nn", "losses"):
        assert f"twinned.{needless}" not in ours
    assert len(ours) <= 25, ours


def test_table_of_commands_equals_the_registered_ones() -> None:
    for name, commands in _COMMANDS.items():
        module = importlib.import_module(f"twinned.cli.{name}")
        found = set(typer.main.get_group(module.app).commands)
        assert found | ({name} if hasattr(module, "group") else set()) == set(commands)
