"""Date, machine and versions of a run."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def environment() -> dict[str, Any]:
    """Return date, machine and versions, which every recorded figure needs."""
    from dtscodec.version import __version__

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": _system()},
        "versions": {
            "dtscodec": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
    }


def _system() -> str:
    return f"{platform.system()} {platform.machine()}"


def _processor() -> str:
    """Model name of the processor; Python itself knows only its architecture on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
