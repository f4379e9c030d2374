"""Run the real ``dtscodec`` commands, shown as a user types them, with what they print."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def as_typed(arguments: Sequence[str]) -> str:
    """The command line that a user of the installed package types.

    >>> as_typed(["info", "movie.dts.safetensors"])
    'dtscodec info movie.dts.safetensors'
    """
    return shlex.join(["dtscodec", *arguments])


def show(arguments: Sequence[str], folder: Path) -> float:
    """Run a command in ``folder``, its output going where ours goes; return the seconds a user waits."""
    print(f"$ {as_typed(arguments)}", flush=True)
    start = time.perf_counter()
    _run(arguments, folder, stdout=None)
    return time.perf_counter() - start


def read(arguments: Sequence[str], folder: Path) -> Any:
    """Run a reading command with ``--json`` and return the document it prints."""
    return json.loads(_run([*arguments, "--json"], folder, stdout=subprocess.PIPE).stdout)


def _run(arguments: Sequence[str], folder: Path, stdout: int | None) -> subprocess.CompletedProcess[bytes]:
    # Works from a checkout too: the command runs in another folder than the one we were started in.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "dtscodec", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=stdout,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{as_typed(arguments)}: expected exit code 0, got {done.returncode}")
    return done
