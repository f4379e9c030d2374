"""Names of files as users write them -> paths, local or in remote storage."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any, cast

from dtscodec.errors import BackendError, OutputError, Remedy
from dtscodec.storage.hub_path import parse_hub_path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


def as_path(name: str | os.PathLike[str]) -> Path:
    """Return the path for a name.

    Parameters
    ----------
    name : str or path
        A local path, also with `file://`, or one with another scheme that fsspec knows, as `s3://bucket/model`.

    Returns
    -------
    Path
        For remote storage a `UPath`, for the Hub a `HubPath`; both have the methods of `Path` that this package uses.

    Raises
    ------
    BackendError
        The scheme is unknown, or a package for it is not installed.
    Exception
        Errors of the Hub's client; see `dtscodec.storage.storage_errors`.

    Examples
    --------
    >>> as_path("file:///models/base").as_posix()
    '/models/base'
    """
    scheme = _scheme(name)
    if scheme is None or not isinstance(name, str):
        return cast(Path, name) if _is_path(name) else Path(name)
    if scheme == "file":
        return Path(name.removeprefix("file://"))
    if scheme == "hf":
        return cast(Path, parse_hub_path(name))
    return _remote(name, scheme)


def as_output_path(name: str | os.PathLike[str]) -> Path:
    """Return the path for the name of an output.

    Parameters
    ----------
    name : str or path
        As for `as_path`.

    Raises
    ------
    OutputError
        The name is one of the Hub, which is written to by a push only.
    BackendError
        As for `as_path`.
    """
    if _scheme(name) == "hf":
        raise OutputError(
            f"{name}: expected a path to write to, got the Hub", Remedy("write here, then use dtscodec push")
        )
    return as_path(name)


def is_remote(path: object) -> bool:
    """Return whether a value is a path in remote storage, or the name of one.

    Parameters
    ----------
    path : object
        A path, its name, or anything else, which is not remote.

    Examples
    --------
    >>> is_remote("s3://bucket/model"), is_remote("file:///model"), is_remote(Path("model")), is_remote({})
    (True, False, False, False)
    """
    if isinstance(path, str):
        return _scheme(path) not in (None, "file")
    return _is_path(path) and not isinstance(path, Path)


def storage(path: Path) -> tuple[Any, str]:
    """Return the fsspec file system of a remote path, and the path within it.

    Parameters
    ----------
    path : Path
        A `UPath` or `HubPath`.
    """
    remote: Any = path
    return remote.fs, remote.path


def work_folder(out: Path) -> Path:
    """Return the folder for temporary files of an output.

    Parameters
    ----------
    out : Path
        The output; the folder is its own directory if that exists on this machine, else the system's.
    """
    return Path(tempfile.gettempdir()) if is_remote(out) or not out.parent.is_dir() else out.parent


def _scheme(name: object) -> str | None:
    found = _SCHEME.match(name) if isinstance(name, str) else None
    return found[1].lower() if found else None


def _is_path(value: object) -> bool:
    # Remote paths need not be subclasses of `Path`; all have this attribute.
    return isinstance(value, Path) or hasattr(value, "storage_options")


def _remote(name: str, scheme: str) -> Path:
    try:
        from upath import UPath

        # A cache would hold the listing of a directory for the life of the process.
        path = cast(Path, UPath(name, use_listings_cache=False))
        storage(path)  # Imports the package for the scheme.
    except ImportError as e:
        extra = _EXTRAS.get(scheme, "remote")
        more = "" if scheme in _EXTRAS else f" and what fsspec needs for {scheme}://"
        detail = f"expected the packages for {scheme}://, got '{e}'"
        raise BackendError(f"{name}: {detail}", Remedy(f"pip install 'dtscodec[{extra}]'{more}")) from e
    except ValueError as e:
        raise BackendError(f"{name}: expected a path as fsspec knows them, got '{e}'", Remedy("check the name")) from e
    return path
