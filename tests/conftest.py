"""Settings of all tests, and fixtures that several folders share."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

SLOW_ROOMS = ("calibration", "evaluation", "executors", "hub")
"""Their tests run whole models, clusters and servers. Elsewhere single tests and files have the marker `slow`."""

# A shared machine may stall any example. CI repeats the same examples; elsewhere new ones are tried each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=10)  # `make quick` asks for it.
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount).returncode:
        pytest.skip("needs root and the right to mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark the tests of slow rooms, so that `make quick` leaves them out."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in SLOW_ROOMS:
            item.add_marker(pytest.mark.slow)
