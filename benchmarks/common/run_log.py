"""Log of a run, on the screen and in a file that can be published: no paths, no host name."""

import shutil
import time
from pathlib import Path


class RunLog:
    """Lines with the seconds since the start.

    Parameters
    ----------
    path : Path
        A file to append to.
    title : str
        The first line.
    """

    def __init__(self, path: Path, title: str) -> None:
        self._path, self._start = path, time.perf_counter()
        self._write(f"# {title}")

    def say(self, text: str) -> None:
        """Print a line and keep it."""
        self._write(f"{time.perf_counter() - self._start:8.1f} s  {text}")

    def _write(self, line: str) -> None:
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")


def free_space(folder: Path) -> str:
    """Return the free space on the disk of a folder, as text."""
    return f"{shutil.disk_usage(folder).free / 1e9:.0f} GB of disk free"
