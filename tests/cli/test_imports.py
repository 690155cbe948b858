"""Commands load only the modules that they need."""

import json
import subprocess
import sys

VERIFY = """
import json, sys
from twinned.cli.main import main
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "twinned")))
"""


def test_verify_loads_few_modules(tiny_model, strangers):
    image = str(next(strangers.rglob("*.png")))
    command = [sys.executable, "-c", VERIFY, "verify", str(tiny_model), image, image]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ours = json.loads(out.splitlines()[-1])
    for needless in ("data.catalog", "data.samplers", "evaluation.protocols", "gallery", "nn", "losses"):
        assert f"twinned.{needless}" not in ours
    assert len(ours) <= 25, ours
