"""Versions of the packages that a pack's bytes depend on."""

from dtscodec.errors import BackendError, Remedy
from dtscodec.version import __version__

Build = dict[str, str]
"""Package -> version."""


def build() -> Build:
    """Return the versions in this process. This imports torch."""
    import numpy
    import torch

    return {
        "dtscodec": __version__,
        "torch": f"{torch.__version__} of {str(torch.version.git_version)[:12]}",
        "numpy": numpy.__version__,
    }


def check_build(worker: str, found: Build, expected: Build) -> None:
    """Check that a worker has the versions of its client.

    Parameters
    ----------
    worker : str
        Address of the worker, for the message.
    found, expected : dict
        Versions of the worker and of the client.

    Raises
    ------
    BackendError
        A version differs.

    Examples
    --------
    >>> check_build("worker", {"torch": "2.6"}, {"torch": "2.6"})
    """
    for package, version in expected.items():
        if found.get(package) != version:
            detail = f"expected {package} {version}, got {found.get(package)}"
            raise BackendError(f"{worker}: {detail}", Remedy("install the client's version on every worker"))
