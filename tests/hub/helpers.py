"""What tests of the Hub share: contents, clocks, and the client in a process of its own."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

SMALL = b'{"small": true}'
LARGE = bytes(range(256)) * 1000
"""Binary, so it goes to large file storage."""

TASKS = ("movie", "tweets", "amazon")

uploads_large_files = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""Without Xet the client hands files to its HTTP library in a way that this one calls old."""


def run_python(code: str, environment: Mapping[str, str]) -> str:
    """Run some lines in a process of its own and return what they print."""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
