"""Another Python process that runs code of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def start_interpreter(code: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Run `code` in a fresh interpreter that imports what this one does, and nothing else from its working folder.

    Args:
        env: variables beside this process's own.
        options: of `subprocess.Popen`; stdin and stdout lead nowhere unless they say otherwise.
    """
    search_path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    variables = os.environ | {"PYTHONPATH": search_path, "PYTHONSAFEPATH": "1", **(env or {})}
    nowhere: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", code], env=variables, **nowhere | options)
