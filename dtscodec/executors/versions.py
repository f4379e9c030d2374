"""Versions of the packages that compute a pack: its bytes depend on them."""

from dtscodec.errors import BackendError, Remedy
from dtscodec.version import __version__

Build = dict[str, str]
"""Versions by package."""


def build() -> Build:
    """Return the versions that this process computes with; imports torch."""
    import numpy
    import torch

    return {
        "dtscodec": __version__,
        "torch": f"{torch.__version__} of {str(torch.version.git_version)[:12]}",
        "numpy": numpy.__version__,
    }


def check_build(worker: str, found: Build, expected: Build) -> None:
    """Check that a worker computes with what its client computes with.

    Raises
    ------
    BackendError
        A version is another one.

    >>> check_build("worker", {"torch": "2.6"}, {"torch": "2.6"})
    """
    for package, version in expected.items():
        if found.get(package) != version:
            detail = f"expected {package} {version}, got {found.get(package)}"
            raise BackendError(f"{worker}: {detail}", Remedy("install the client's version on every worker"))
