"""Whether a saved file can be read at all, told from its frame: a checksum proves only that it is as it was sealed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open


def unreadable(path: Path) -> str | None:
    """Why `json`, safetensors or `torch.load` would fail on a file of their kind; None where it is whole."""
    readers = {".json": _json, ".safetensors": _safetensors, ".pt": _torch, ".pth": _torch, ".bin": _torch}
    reader = readers.get(path.suffix)
    return reader(path) if reader else None


def _json(path: Path) -> str | None:
    try:
        json.loads(path.read_bytes())
    except RecursionError:
        return "it is nested too deep"
    except ValueError as error:
        return f"it is not JSON ({error})"
    return None


def _safetensors(path: Path) -> str | None:
    try:
        with safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return f"it is not what safetensors writes ({error})"


def _torch(path: Path) -> str | None:
    """`torch.save` writes a zip archive, whose table of contents stands at its end."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/data.pkl") for name in archive.namelist()):
                return None
            return "it is a zip archive, but not what torch.save writes"
    except (zipfile.BadZipFile, OSError) as error:
        return f"it is not what torch.save writes ({error})"
