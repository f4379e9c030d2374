"""Files, local or remote: opening them for reading by range, and writing new ones atomically."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dtscodec.files.atomic import atomic_file, output_exists
from dtscodec.files.range_reader import LocalFile
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import is_remote, work_folder
from dtscodec.storage.remote_file import HEAD_BYTES, SHORT_HEAD, RemoteFile
from dtscodec.storage.staging import staging_folder
from dtscodec.storage.storage_errors import pack_errors, read_errors, write_errors
from dtscodec.storage.upload import check_upload, uploaded_file


@dataclass(frozen=True, slots=True)
class Access:
    """Settings for reading files in remote storage. Local files are read directly.

    Parameters
    ----------
    staging : Path, optional
        A folder for ranges of remote files (`dtscodec.storage.staging`), so that each is transferred once. Without it
        every read is a transfer.
    whole : bool
        Whether all of a file will be read. Files of the Hub are then downloaded through its client's cache; else only
        the ranges that are read are transferred.
    front : bool
        Whether the front of a pack will be read, all of it and nothing else (spec section 15).
    """

    staging: Path | None = None
    whole: bool = False
    front: bool = False


WHOLE = Access(whole=True)
"""For files that are read as a whole, without a staging folder."""

BY_RANGE = Access()
"""For files of which some ranges are read, without a staging folder."""


def open_file(path: Path, access: Access, *, is_pack: bool = False) -> LocalFile | RemoteFile:
    """Open a file for reading by range.

    Parameters
    ----------
    path : Path
        A local or remote path. A file of the Hub that is in its client's cache is read there.
    access : Access
        Settings for remote files.
    is_pack : bool
        Whether the file is read as a pack; see `RemoteFile`.

    Returns
    -------
    LocalFile or RemoteFile
        To be closed by the caller.

    Raises
    ------
    CheckpointError
        A remote file cannot be read.
    PackNotFoundError
        The same for `is_pack`.
    OSError
        A local file cannot be opened.
    """
    if isinstance(path, HubPath):
        with pack_errors(path) if is_pack else read_errors(path):
            # What is read whole is downloaded into the cache; for ranges the cache is used only if it has the file.
            cached = path.local() if access.whole else path.cached()
        if cached is not None:
            return LocalFile(cached)
    if not is_remote(path):
        return LocalFile(path)
    # The rest of a front is transferred once its length is known.
    return RemoteFile(path, access.staging, is_pack=is_pack, head=SHORT_HEAD if access.front else HEAD_BYTES)


def new_file(path: Path, force: bool = False, inputs: Iterable[Path] = ()) -> AbstractContextManager[BinaryIO]:
    """Write a file, local or remote, that appears under its name when the ``with`` block succeeds.

    Parameters
    ----------
    path : Path
        The file to make.
    force : bool
        Replace a file that exists.
    inputs : iterable of Path
        Files that must not be replaced, because they are read meanwhile.

    Returns
    -------
    context manager of BinaryIO
        An empty local file, open for reading and writing; see `atomic_file` and `uploaded_file`.

    Raises
    ------
    OutputError
        The output exists, or cannot be written.
    """
    return (uploaded_file if is_remote(path) else atomic_file)(path, force, inputs)


def check_new(path: Path, force: bool = False) -> None:
    """Raise the OutputError that `new_file` would raise for an output that exists, before any work is done.

    Parameters
    ----------
    path : Path
        The file to make, local or remote.
    force : bool
        Whether a file that exists may be replaced.

    Raises
    ------
    OutputError
        The output exists and must not be replaced, or its bucket is missing or cannot be reached.
    """
    if is_remote(path):
        check_upload(path, force)
        return
    with write_errors(path):
        # A symbolic link that leads nowhere is an output, too.
        exists = path.exists() or path.is_symlink()
    if exists and not force:
        raise output_exists(path)


def staging_folder_for(out: Path, *sources: object) -> AbstractContextManager[Path | None]:
    """Return a context with a folder for ranges of remote inputs; None if no input is remote.

    Parameters
    ----------
    out : Path
        The output. The folder is in its directory or, if that is remote, in the system's for temporary files.
    *sources : object
        The inputs: paths, their names, or anything else, which counts as local.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """
    if not any(is_remote(source) for source in sources):
        return nullcontext()
    return staging_folder(work_folder(out))
