"""Packages of the peers: installed into a folder of the cache, never into the environment itself."""

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def requirements() -> dict[str, str]:
    """Return the packages and their requirements, such as ``"zipnn==0.5.3"``."""
    lines = (line.strip() for line in REQUIREMENTS.read_text().splitlines())
    return {line.partition("==")[0]: line for line in lines if line and not line.startswith("#")}


def install_peers(cache: Path) -> tuple[Path, dict[str, str]]:
    """Install what is not installed yet, without dependencies; return the folder, and what failed and why.

    Parameters
    ----------
    cache : Path
        Folder in which the packages are kept.
    """
    folder, failures = cache / "packages", {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, requirement in requirements().items():
        if not _is_installed(folder, name, requirement.partition("==")[2]):
            reason = _install(requirement, folder)
            if reason:
                failures[name] = reason
    return folder, failures


def _is_installed(folder: Path, name: str, version: str) -> bool:
    found = importlib.metadata.distributions(name=name, path=[str(folder)])
    return any(distribution.version == version for distribution in found)


def _install(requirement: str, folder: Path) -> str | None:
    """Install a package; return the last line of what pip says if that fails."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as elsewhere:
        # From a folder without modules: a package is built with the folder that pip runs in on its path.
        done = subprocess.run(
            [*command, "--upgrade", "--target", str(folder.resolve()), requirement],
            cwd=elsewhere,
            capture_output=True,
            text=True,
        )
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]
