"""Usage reporting by dependencies, switched off before they are imported.

ONNX Runtime reads its variable once, when it is imported: from 1.29 on its official builds create a device
id and a database in the cache folder of the user, and upload events. `huggingface_hub`, where another package
uses it, adds the versions of the installed libraries to its requests.
"""

from __future__ import annotations

import os

ONNX_RUNTIME = "ORT_DISABLE_TELEMETRY"
SWITCHES = {ONNX_RUNTIME: "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def disable() -> None:
    """Set every variable of `SWITCHES` that is not set yet; child processes inherit them."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
